//! A job that has nothing to do, or whose ClickHouse is away, takes snapshots nevertheless; a
//! start goes on from them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use riderflow::epoch::SnapshotId;

use crate::common::{Lab, Sender, lab, now_ms, wait_until};
use crate::trial::{count, published_snapshots};

const LONG: Duration = Duration::from_secs(60);
const NAME: &str = "idle";

fn pipeline(lab: &Lab) -> PathBuf {
    let folder = lab.folder().join("snapshots-of-idle");
    let toml = format!(
        "snapshots.url = {folder:?}\nsnapshots.interval_s = 0.3\nclickhouse.batch_ms = 100"
    );
    lab.pipeline(NAME, &toml)
}

fn send(sender: &mut Sender, updates: usize) {
    for at in 0..updates {
        let driver = at % 5;
        let value = format!(
            r#"{{"driverId":{driver},"longitude":77.6,"latitude":12.97,"timestamp":{}}}"#,
            now_ms()
        );
        let key = driver.to_string();
        let partition = (driver % 2) as i32;
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        sender.send("rider-updates", partition, now_ms(), key, value);
    }
    sender.flush();
}

/// Waits until none of the snapshots is left that the head names now.
fn wait_for_other_snapshots(lab: &Lab) {
    let known: Vec<SnapshotId> = published_snapshots(lab, NAME);
    wait_until(LONG, "other snapshots are published", || {
        let ids = published_snapshots(lab, NAME);
        ids.len() >= 2 && ids.iter().all(|id| !known.contains(id))
    });
}

fn wait_for_rows(lab: &Lab, sent: usize) {
    wait_until(LONG, "the rows are stored", || {
        count(lab, "driver_locations") >= sent
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(lab, "driver_locations"), sent);
}

/// Starts it, and sees that it goes on.
fn start(lab: &Lab, file: &Path, workers: usize) -> crate::common::Running {
    let mut job = lab.run(file, workers);
    wait_until(LONG, "the job is ready", || {
        assert!(job.is_running(), "it refused to go on");
        job.try_metric("riderflow_committed_epoch")
            .is_some_and(|epoch| epoch > 0.0)
    });
    job
}

#[test]
fn an_idle_job_and_one_without_clickhouse_go_on_from_their_snapshots() {
    let mut lab = lab("idle");
    let file = pipeline(&lab);
    lab.init(&file);
    let mut sender = lab.sender();
    let mut sent = 50;
    send(&mut sender, sent);
    let job = start(&lab, &file, 2);
    wait_for_rows(&lab, sent);

    // All snapshots are younger than the last epoch when it stops.
    wait_for_other_snapshots(&lab);
    wait_for_other_snapshots(&lab);
    assert_eq!(job.stop().code(), Some(0));
    let mut job = start(&lab, &file, 1);
    wait_for_other_snapshots(&lab);
    // And when it is killed with an epoch whose rows are not stored.
    send(&mut sender, 1);
    sent += 1;
    lab.wait_for_no_lag(NAME, LONG);
    job.kill();
    let mut job = start(&lab, &file, 4);
    wait_for_rows(&lab, sent);

    // Snapshots without their rows.
    lab.services()
        .kill_clickhouse()
        .expect("ClickHouse is killed");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(13) {
        send(&mut sender, 10);
        sent += 10;
        std::thread::sleep(Duration::from_millis(20));
    }
    let newest = published_snapshots(&lab, NAME).pop().expect("a snapshot");
    let stored = job.metric("riderflow_clickhouse_stored_epoch");
    assert!(
        newest.epoch.0 as f64 > stored,
        "{newest} is beyond {stored}"
    );
    job.kill();
    lab.services()
        .start_clickhouse()
        .expect("ClickHouse starts");
    let job = start(&lab, &file, 2);
    wait_for_rows(&lab, sent);
    wait_until(LONG, "the reading is over", || {
        job.metric("riderflow_clickhouse_reread_epochs") == 0.0
    });
    assert_eq!(job.stop().code(), Some(0));
    let unique = "SELECT toString(uniqExact(kafka_partition, kafka_offset)) FROM \
        riderflow.driver_locations";
    assert_eq!(lab.query(unique), [sent.to_string()]);
}

#[test]
fn offsets_without_a_record_do_not_keep_a_job_from_starting_again() {
    let lab = lab("holes");
    let folder = lab.folder().join("snapshots-of-holes");
    let file = lab.pipeline("holes", &format!("snapshots.url = {folder:?}"));
    lab.init(&file);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.brokers())
        .set("transactional.id", "phones")
        .create()
        .expect("a producer");
    producer.init_transactions(LONG).expect("Kafka is there");
    let mut job = start_named(&lab, &file, 2);
    let sent = 6;
    // Each transaction leaves a marker behind its record, so between two epochs.
    for driver in 0..sent {
        let value = format!(r#"{{"driverId":{driver},"longitude":77.6,"latitude":12.97}}"#);
        producer.begin_transaction().expect("it begins");
        let record = BaseRecord::<str, str>::to("rider-updates");
        let sent = producer.send(record.partition(0).payload(&value));
        sent.expect("it is taken");
        producer.commit_transaction(LONG).expect("it is committed");
        std::thread::sleep(Duration::from_millis(400));
    }
    wait_for_rows(&lab, sent);
    job.kill();
    let job = start_named(&lab, &file, 1);
    wait_for_rows(&lab, sent);
    assert_eq!(job.stop().code(), Some(0));
}

/// Starts it, and sees that it has read again what it had to.
fn start_named(lab: &Lab, file: &Path, workers: usize) -> crate::common::Running {
    let mut job = lab.run(file, workers);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        assert!(job.is_running(), "it refused to go on");
        std::thread::sleep(Duration::from_millis(50));
    }
    job
}

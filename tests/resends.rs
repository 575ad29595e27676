//! The job over a real Kafka and a real ClickHouse, when updates come twice: two gateways put
//! them into Kafka, for the first was killed before it could say that it had.

mod common;

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

use common::{Lab, Running, Sender, free_address, lab, now_ms, wait_until};
use rdkafka::ClientConfig;
use rdkafka::bindings::{
    RD_KAFKA_MSG_F_COPY, rd_kafka_produceva, rd_kafka_vtype_t as Type,
    rd_kafka_vu_s__bindgen_ty_1 as Member, rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1,
    rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2, rd_kafka_vu_t,
};
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::json;

const LONG: Duration = Duration::from_secs(60);
const DRIVERS: u64 = 5;
const PER_DRIVER: u64 = 20;

/// An update of a driver that goes east, 20 m a step, through the fence of [`add_fence`].
fn update(driver: u64, number: u64, start_ms: i64) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "driverId": driver, "longitude": 77.600 + 0.000_2 * number as f64, "latitude": 12.975,
        "timestamp": start_ms + 1000 * number as i64,
    }))
    .expect("JSON")
}

fn add_fence(sender: &mut Sender) {
    let (west, south, east, north) = (77.601, 12.974, 77.602, 12.976);
    let ring = json!([
        [west, south],
        [east, south],
        [east, north],
        [west, north],
        [west, south]
    ]);
    let geometry = json!({"type": "Polygon", "coordinates": [ring]});
    let value = json!({"type": "Feature", "geometry": geometry, "properties": {}}).to_string();
    sender.send(
        "geofences",
        0,
        now_ms(),
        Some(b"f-1"),
        Some(value.as_bytes()),
    );
}

/// Sends updates of all drivers, each driver's in a session and a partition of its own. Returns
/// where they are, as `partition/offset`.
fn send(
    sender: &mut Sender,
    numbers: std::ops::RangeInclusive<u64>,
    start_ms: i64,
) -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    for number in numbers {
        for driver in 0..DRIVERS {
            let partition = (driver % 2) as i32;
            let (key, value) = (driver.to_string(), update(driver, number, start_ms));
            let sequence = format!("phone-{driver}/{number}");
            let offset = sender.send_with(
                "rider-updates",
                partition,
                now_ms(),
                Some(key.as_bytes()),
                Some(&value),
                &[("traceparent", b"00-1"), ("rf-seq", sequence.as_bytes())],
            );
            sent.insert(format!("{partition}/{offset}"));
        }
    }
    sender.flush();
    sent
}

fn rows(lab: &Lab) -> Vec<String> {
    lab.query(
        "SELECT concat(toString(kafka_partition), '/', toString(kafka_offset)) \
         FROM riderflow.driver_locations",
    )
}

/// Ids of all events, which name the record that caused them.
fn events(lab: &Lab) -> Vec<String> {
    let events = lab.read_all("rider-notifications");
    let mut ids: Vec<String> = (events.iter())
        .map(|event| event.header("ce_id").to_owned())
        .collect();
    ids.sort();
    ids
}

fn wait_for_rows(lab: &Lab, count: usize) {
    wait_until(LONG, "the rows are there", || rows(lab).len() >= count);
}

/// Just these rows are there, once, and for each driver one entry and one exit.
fn assert_once(lab: &Lab, expected: &BTreeSet<String>) {
    let found = rows(lab);
    assert_eq!(found.len(), expected.len(), "each update once");
    assert_eq!(&found.into_iter().collect::<BTreeSet<_>>(), expected);
    let events = events(lab);
    assert_eq!(events.len(), 2 * DRIVERS as usize, "{events:?}");
    let stored = lab.query("SELECT id FROM riderflow.events ORDER BY id");
    assert_eq!(stored, events);
    assert!(lab.read_all("rider-updates-dead-letter").is_empty());
}

/// The job in so many processes, of one worker each.
fn run(lab: &Lab, pipeline: &Path, processes: usize) -> Vec<Running> {
    let hosts: String = (0..processes)
        .map(|_| format!("{}\n", free_address()))
        .collect();
    let file = lab.folder().join("hosts");
    std::fs::write(&file, hosts).expect("the hosts file is written");
    let start = |process: usize| {
        lab.run_with(pipeline, 1, |command| {
            if processes > 1 {
                command
                    .args(["--processes", &processes.to_string()])
                    .args(["--process", &process.to_string()])
                    .arg("--hosts")
                    .arg(&file);
            }
        })
    };
    (0..processes).map(start).collect()
}

/// The sum of a metric's series in all processes.
fn sum(job: &[Running], metric: &str) -> f64 {
    (job.iter())
        .filter_map(|process| process.try_metric(metric))
        .sum()
}

fn wait_for_resent(job: &[Running], count: u64) {
    wait_until(LONG, "resent updates are counted", || {
        sum(job, "riderflow_updates_resent_total") == count as f64
    });
}

/// Each ends well.
fn stop(job: Vec<Running>) {
    for process in job {
        assert_eq!(process.stop().code(), Some(0));
    }
}

#[test]
fn an_update_that_comes_twice_is_one_row_and_one_event() {
    let lab = lab("resent");
    let pipeline = lab.pipeline("resent", "");
    lab.init(&pipeline);
    let mut sender = lab.sender();
    add_fence(&mut sender);
    let job = [lab.run(&pipeline, 2)];
    let start_ms = now_ms() - 1000 * PER_DRIVER as i64;
    // The second gateway begins anew where the phone had no answer, and goes on.
    let mut expected = send(&mut sender, 1..=12, start_ms);
    send(&mut sender, 5..=12, start_ms);
    expected.extend(send(&mut sender, 13..=PER_DRIVER, start_ms));
    // The same place as a header has it, but malformed: an ordinary update, judged as it is.
    let (key, value) = (Some(&b"0"[..]), update(0, 1, start_ms));
    let malformed = [("rf-seq", &b"phone-0/one"[..])];
    let offset = sender.send_with("rider-updates", 0, now_ms(), key, Some(&value), &malformed);
    expected.insert(format!("0/{offset}"));
    // And one from before there were sessions.
    let offset = sender.send("rider-updates", 0, now_ms(), key, Some(&value));
    expected.insert(format!("0/{offset}"));
    sender.flush();
    wait_for_rows(&lab, expected.len());
    wait_for_resent(&job, 8 * DRIVERS);
    lab.wait_for_no_lag("resent", LONG);
    assert_eq!(sum(&job, "riderflow_updates_total{flag=\"late\"}"), 2.0);
    stop(job.into());
    assert_once(&lab, &expected);
}

/// A kill -9 between the first and the second copy: once so early that the first copies are
/// read again, once after a snapshot, which is then all that knows of them. The job goes on as
/// one process, and as two.
#[test]
fn an_update_that_comes_again_after_a_crash_is_known() {
    for (name, interval_s, processes) in [("reread", 600, 1), ("restored", 1, 2)] {
        let lab = lab(name);
        let pipeline = lab.pipeline(name, &format!("snapshots.interval_s = {interval_s}"));
        lab.init(&pipeline);
        let mut sender = lab.sender();
        add_fence(&mut sender);
        let mut job = lab.run(&pipeline, 2);
        let start_ms = now_ms() - 1000 * PER_DRIVER as i64;
        let mut expected = send(&mut sender, 1..=15, start_ms);
        wait_for_rows(&lab, expected.len());
        lab.wait_for_no_lag(name, LONG);
        if interval_s == 1 {
            // One of these began after the last row, and was named by a head before the last.
            let taken = || job.metric("riderflow_snapshot_seconds_count");
            let before = taken();
            wait_until(LONG, "snapshots are taken", || taken() >= before + 4.0);
        }
        job.kill();

        send(&mut sender, 1..=15, start_ms);
        expected.extend(send(&mut sender, 16..=PER_DRIVER, start_ms));
        let job = run(&lab, &pipeline, processes);
        wait_for_rows(&lab, expected.len());
        wait_for_resent(&job, 15 * DRIVERS);
        lab.wait_for_no_lag(name, LONG);
        let read = sum(
            &job,
            "riderflow_records_read_total{topic=\"rider-updates\"}",
        );
        let (first, later) = (15 * DRIVERS, (15 + 5) * DRIVERS);
        match interval_s {
            1 => assert_eq!(read, later as f64, "the snapshot is gone on from"),
            _ => assert_eq!(read, (first + later) as f64, "the log is read again"),
        }
        stop(job);
        assert_once(&lab, &expected);
    }
}

/// Sends an update with `rf-seq` and with headers whose names aren't UTF-8, which the client's
/// own types can't have.
#[allow(
    unsafe_code,
    reason = "only the library beneath the client can do this"
)]
fn send_with_strange_header(lab: &Lab, value: &[u8], sequence: &CStr) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.brokers())
        .create()
        .expect("a producer");
    let header = |name: &CStr, value: &CStr| Member {
        header: rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
            name: name.as_ptr(),
            val: value.as_ptr().cast(),
            size: value.count_bytes() as isize,
        },
    };
    let mem = rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
        ptr: value.as_ptr().cast_mut().cast(),
        size: value.len(),
    };
    let cstr = c"rider-updates".as_ptr();
    let i = RD_KAFKA_MSG_F_COPY;
    let parts = [
        (Type::RD_KAFKA_VTYPE_TOPIC, Member { cstr }),
        (Type::RD_KAFKA_VTYPE_PARTITION, Member { i32_: 1 }),
        (Type::RD_KAFKA_VTYPE_MSGFLAGS, Member { i }),
        (Type::RD_KAFKA_VTYPE_VALUE, Member { mem }),
        (Type::RD_KAFKA_VTYPE_HEADER, header(c"\xff\xfe", c"x")),
        (Type::RD_KAFKA_VTYPE_HEADER, header(c"rf-seq", sequence)),
        (Type::RD_KAFKA_VTYPE_HEADER, header(c"\xc3", c"y")),
    ];
    let parts = parts.map(|(vtype, u)| rd_kafka_vu_t { vtype, u });
    let client = producer.client().native_ptr();
    // SAFETY: each part has the member of its type, and what they point to outlives the call,
    // which copies it.
    let error = unsafe { rd_kafka_produceva(client, parts.as_ptr(), parts.len()) };
    assert!(error.is_null(), "the record is queued");
    producer.flush(LONG).expect("the broker takes it");
}

/// Records have names of headers as bytes, though clients mostly take them for text.
#[test]
fn headers_with_strange_names_are_passed_over() {
    let lab = lab("strange headers");
    let pipeline = lab.pipeline("strange", "");
    lab.init(&pipeline);
    let mut sender = lab.sender();
    let job = run(&lab, &pipeline, 1);
    let start_ms = now_ms() - 1000 * PER_DRIVER as i64;
    let value = update(1, 1, start_ms);
    for _ in 0..2 {
        send_with_strange_header(&lab, &value, c"phone-1/1");
    }
    wait_for_rows(&lab, 1);
    wait_for_resent(&job, 1);
    let sent = send(&mut sender, 2..=3, start_ms);
    wait_for_rows(&lab, 1 + sent.len());
    stop(job);
    assert_eq!(rows(&lab).len(), 1 + sent.len());
}

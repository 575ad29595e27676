//! Kafka and ClickHouse are killed under a running job, and ClickHouse's answers are lost.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::SETTINGS;
use crate::common::{lab, wait_until};
use crate::proxy::{Damage, Proxy};
use crate::trial::{Trial, count, said, time_to_first_commit};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_broker_that_dies_and_a_clickhouse_that_dies_or_falls_silent_change_nothing() {
    let mut lab = lab("services killed");
    let toml = "clickhouse.batch_rows = 1000\nclickhouse.batch_ms = 200";
    let trial = Trial::begin(&lab, "services", toml, SETTINGS);
    let proxy = Proxy::start(&lab.clickhouse(), Damage::LoseAnswer);
    let (mut job, log) = trial.job_that_is_heard(&lab, 2, |command| {
        command.env("RIDERFLOW_CLICKHOUSE", &proxy.url);
    });
    time_to_first_commit(&mut job, Instant::now(), LONG).expect("it commits");
    let more_rows = |lab: &crate::common::Lab| {
        let before = count(lab, "driver_locations");
        wait_until(LONG, "rows come in", || {
            count(lab, "driver_locations") > before
        });
    };

    more_rows(&lab);
    proxy.left.store(3, Ordering::SeqCst);
    wait_until(LONG, "three answers are lost", || {
        proxy.left.load(Ordering::SeqCst) == 0
    });
    trial.note("answers were lost");
    for _ in 0..2 {
        more_rows(&lab);
        let services = lab.services();
        services.kill_clickhouse().expect("ClickHouse is killed");
        services.start_clickhouse().expect("ClickHouse starts");
    }
    more_rows(&lab);
    trial.note("ClickHouse was killed");
    lab.services().kill_kafka().expect("Kafka is killed");
    std::thread::sleep(Duration::from_secs(1));
    lab.services().start_kafka().expect("Kafka starts");
    more_rows(&lab);
    lab.services().stop_kafka().expect("Kafka stops");
    lab.services().start_kafka().expect("Kafka starts");
    trial.note("Kafka is back");
    more_rows(&lab);

    assert!(job.is_running(), "the job outlives both: {}", said(&log));
    let retries = job.metric("riderflow_clickhouse_retries_total");
    assert!(
        retries >= 3.0,
        "a lost answer and a kill are noticed: {retries}"
    );
    trial.finish(&lab, job).assert_clean();
}

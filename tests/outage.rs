//! ClickHouse away for two minutes at 20,000 updates a second: events don't notice, memory does
//! not grow, and afterwards every row is there, once.
//!
//! What is compared lies within one run, since the machine has other work: the latency of events
//! without ClickHouse with that of the minute before. By the end of the outage far more rows are
//! missing than memory may hold, so that the job must read them again from Kafka, while the
//! updates go on.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::measured::{Latencies, resident_mib};
use common::{Lab, Running, lab, read_each, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const DRIVERS: u32 = 20_000;
const ORDERS: u32 = 6_000;
const FENCES: u32 = 1_000;
/// Updates a second.
const RATE: u32 = 20_000;
const AWAY: Duration = Duration::from_secs(120);
/// From here on memory is flat.
const SETTLED: Duration = Duration::from_secs(30);
/// How long the rows of the gap may take, on a machine that does much else.
const CATCH_UP: Duration = Duration::from_secs(180);
const LONG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// No windows: their state grows with what it remembers, a day, whether ClickHouse is there or
/// not.
const PIPELINE: &str = "windows.enabled = false";

#[test]
fn clickhouse_away_for_2_minutes_at_20_000_updates_a_second_delays_only_clickhouse() {
    let mut lab = lab("clickhouse away for 2 minutes");
    let pipeline = lab.pipeline("outage", PIPELINE);
    lab.init(&pipeline);
    let log = lab.folder().join("job.log");
    let file = File::create(&log).expect("a file for what the job says");
    let job = lab.run_with(&pipeline, 2, |command| {
        command.stderr(file);
    });
    let city = City::start(&lab);
    wait_until(LONG, "rows come in", || rows(&lab) > 0);
    std::thread::sleep(10 * SECOND);
    let before = watch(&job, 20 * SECOND);
    eprintln!("before: {before}");

    lab.services().stop_clickhouse().expect("ClickHouse stops");
    let settling = watch(&job, SETTLED);
    eprintln!("away, first {SETTLED:?}: {settling}");
    let away = watch(&job, AWAY - SETTLED);
    eprintln!("away, then: {away}");
    assert_eq!(
        job.metric("riderflow_clickhouse_behind"),
        1.0,
        "more is missing than memory holds"
    );
    lab.services()
        .start_clickhouse()
        .expect("ClickHouse starts");
    let back = Instant::now();
    let latencies = Latencies::of_events(&job);
    let mut most_mib = 0.0_f64;
    let is_caught_up = |job: &Running| {
        job.metric("riderflow_clickhouse_behind") == 0.0
            && job.metric("riderflow_clickhouse_reread_epochs") == 0.0
    };
    while !is_caught_up(&job) {
        most_mib = most_mib.max(resident_mib(job.id()));
        if back.elapsed() > CATCH_UP {
            let said = std::fs::read_to_string(&log).expect("what the job said");
            panic!(
                "the rows of the gap are not read again: {} of {} are there, {} wait; {said}",
                rows(&lab),
                sent(&lab),
                job.metric("riderflow_clickhouse_buffered_rows"),
            );
        }
        std::thread::sleep(SECOND);
    }
    let caught_up = Phase {
        latencies: Latencies::of_events(&job).since(&latencies),
        most_mib,
        ..settling.clone()
    };
    eprintln!("caught up after {:.1?}: {caught_up}", back.elapsed());

    city.stop();
    let sent = sent(&lab);
    wait_until(LONG, "every row is there", || rows(&lab) >= sent);
    lab.wait_for_no_lag("outage", LONG);
    assert_eq!(job.stop().code(), Some(0));
    let said = std::fs::read_to_string(&log).expect("what the job said");
    for line in said.lines().filter(|line| line.contains("again")) {
        eprintln!("{line}");
    }

    assert!(
        said.contains("again for ClickHouse"),
        "rows were read again"
    );
    assert_each_row_once(&lab, sent);
    let bound = before.p99().mul_f64(2.0) + Duration::from_millis(100);
    for (phase, what) in [(&settling, "at first"), (&away, "then")] {
        let p99 = phase.p99();
        assert!(p99 <= bound, "away, {what}: p99 {p99:?}, allowed {bound:?}");
    }
    assert!(
        away.most_mib <= 1.1 * settling.last_mib,
        "memory grows: {} MiB, then {} MiB",
        settling.last_mib,
        away.most_mib
    );
}

/// What a job did for a while.
#[derive(Clone, Debug)]
struct Phase {
    latencies: Latencies,
    first_mib: f64,
    last_mib: f64,
    most_mib: f64,
}

impl Phase {
    fn p99(&self) -> Duration {
        self.latencies.quantile(0.99)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events, latency p50 {:.0?}, p99 {:.0?}, max {:.0?}; memory {:.0} MiB, at last {:.0}, \
             at most {:.0}",
            self.latencies.count(),
            self.latencies.quantile(0.5),
            self.p99(),
            self.latencies.largest(),
            self.first_mib,
            self.last_mib,
            self.most_mib
        )
    }
}

/// Looks at the job once a second.
fn watch(job: &Running, how_long: Duration) -> Phase {
    let began = Instant::now();
    let earlier = Latencies::of_events(job);
    let mut resident = vec![resident_mib(job.id())];
    while began.elapsed() < how_long {
        std::thread::sleep(SECOND);
        resident.push(resident_mib(job.id()));
    }
    Phase {
        latencies: Latencies::of_events(job).since(&earlier),
        first_mib: resident[0],
        last_mib: resident[resident.len() - 1],
        most_mib: resident.iter().copied().fold(0.0, f64::max),
    }
}

fn rows(lab: &Lab) -> usize {
    number(
        lab,
        "SELECT toString(count()) FROM riderflow.driver_locations",
    )
}

/// Updates in the topic.
fn sent(lab: &Lab) -> usize {
    let ends = (0..2).map(|partition| lab.end_of("rider-updates", partition));
    ends.sum::<i64>() as usize
}

fn number(lab: &Lab, sql: &str) -> usize {
    lab.query(sql)[0].parse().expect("a number")
}

fn assert_each_row_once(lab: &Lab, sent: usize) {
    let distinct = "SELECT toString(uniqExact(kafka_partition, kafka_offset)) \
                    FROM riderflow.driver_locations";
    assert_eq!(number(lab, distinct), sent, "every row");
    assert_eq!(rows(lab), sent, "once");

    let mut ids = BTreeSet::new();
    read_each(&lab.brokers(), "rider-notifications", |event| {
        let id = event.header("ce_id").to_owned();
        assert!(ids.insert(id), "no event twice");
    });
    let distinct = "SELECT toString(uniqExact(id)) FROM riderflow.events";
    assert_eq!(number(lab, distinct), ids.len(), "every event");
    let all = "SELECT toString(count()) FROM riderflow.events";
    assert_eq!(number(lab, all), ids.len(), "once");
}

/// The simulated city, as a process of its own.
struct City(Child);

impl City {
    fn start(lab: &Lab) -> Self {
        let mut command: Command = lab.command();
        command
            .args(["simulate", "--json"])
            .args(["--drivers", &DRIVERS.to_string()])
            .args(["--orders", &ORDERS.to_string()])
            .args(["--fences", &FENCES.to_string()])
            .args(["--rate", &RATE.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self(command.spawn().expect("the city starts"))
    }

    /// Ends it; it must have kept the rate.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
        let output = self.0.stdout.take().expect("piped");
        let summary: Value = serde_json::from_reader(output).expect("a summary");
        assert!(self.0.wait().expect("a child").success());
        let (rate, behind) = (&summary["rate_per_s"], &summary["most_behind_s"]);
        eprintln!("the city sent {rate} updates a second, at most {behind} s behind");
        let rate = rate.as_f64().expect("a number");
        assert!(rate > 0.95 * f64::from(RATE), "{rate} updates a second");
    }
}

impl Drop for City {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

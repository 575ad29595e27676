//! One input, two runs: a job that is disturbed while the input is written, and then one that
//! nothing disturbs, over the same topics.
//!
//! The two are two pipelines, so each has a consumer group, a `transactional.id`, an epoch log
//! and snapshots of its own. Events say in `ce_source` whose they are; dead letters are told
//! apart by where the topic ended between the runs; tables are read and emptied in between.
//! Why both must tell the same is said in [`super::live`], what is compared in
//! [`super::compare`].

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use riderflow::epoch::LogRecord;
use riderflow::kafka::read_epoch_log;
use riderflow::model::Input;
use serde_json::Value;

use super::common::{Lab, Running, now_ms, read_each};
use super::compare::{Item, Outcome, Report, Told, compare};
use super::live::{self, Live, Written};

/// A start reads all that its predecessors left.
const LONG: Duration = Duration::from_secs(120);

/// The tables, with what identifies a row and what it says. A window's version says when it was
/// told, which is not promised.
const TABLES: [(&str, &str, &str); 6] = [
    (
        "driver_locations",
        "concat(toString(kafka_partition), '/', toString(kafka_offset))",
        "driver_id, timestamp, latitude, longitude, state, accuracy, speed, heading, h3, flag, \
         received_at",
    ),
    (
        "events",
        "id",
        "type, driver_id, order_id, fence_id, toUnixTimestamp64Milli(event_time) = \
         JSONExtractInt(data, 'eventTime'), data",
    ),
    (
        "rejected_updates",
        "concat(topic, '/', toString(kafka_partition), '/', toString(kafka_offset))",
        "reason, detail, hex(value)",
    ),
    (
        "cell_minutes FINAL",
        "concat(toString(cell), '/', toString(minute))",
        "drivers, updates, round(mean_speed, 6)",
    ),
    (
        "driver_minutes FINAL",
        "concat(toString(driver_id), '/', toString(minute))",
        "updates, round(distance_m, 3), round(max_speed, 3)",
    ),
    (
        "driver_sessions FINAL",
        "concat(toString(driver_id), '/', toString(start))",
        "end, round(distance_m, 3), updates",
    ),
];

/// A pipeline that will be disturbed, and its input.
pub struct Trial {
    pub name: String,
    pub pipeline: PathBuf,
    pub live: Live,
    /// Where the job's snapshots are: a folder in it is named after the pipeline.
    pub snapshots: PathBuf,
    calm_name: String,
    calm: PathBuf,
    began: Instant,
}

/// What became of a trial.
pub struct Verdict {
    pub report: Report,
    pub updates: usize,
    pub events: usize,
    /// How often Kafka took so long that the input paused.
    pub pauses: u32,
}

impl Verdict {
    /// Panics with what differs.
    pub fn assert_clean(&self) {
        assert!(self.report.is_clean(), "\n{}", self.report);
    }
}

impl Trial {
    /// Topics and tables are made, and the input has reached the present. `toml` goes into both
    /// pipelines.
    pub fn begin(lab: &Lab, name: &str, toml: &str, settings: live::Settings) -> Self {
        let snapshots = lab.folder().join("snapshots");
        let toml = format!(
            "{}\nsnapshots.url = \"{}\"\nsnapshots.interval_s = 1\n{toml}",
            live::PIPELINE,
            snapshots.display(),
        );
        let calm_name = format!("{name}-calm");
        let pipeline = lab.pipeline(name, &toml);
        let calm = lab.pipeline(&calm_name, &toml);
        lab.init(&pipeline);
        lab.init(&calm);
        Self {
            name: name.to_owned(),
            pipeline,
            live: Live::start(lab, settings),
            snapshots,
            calm_name,
            calm,
            began: Instant::now(),
        }
    }

    /// Says when what happened, for whoever reads a failed test.
    pub fn note(&self, what: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        eprintln!("{}, after {seconds:.1} s: {what}", self.name);
    }

    pub fn job(&self, lab: &Lab, workers: usize) -> Running {
        lab.run(&self.pipeline, workers)
    }

    /// The job with a trap: see `riderflow::fail`.
    pub fn job_that_fails(&self, lab: &Lab, workers: usize, trap: &str) -> Running {
        lab.run_with(&self.pipeline, workers, |command| {
            command.env("RIDERFLOW_FAIL", trap);
        })
    }

    /// A job, and where it writes what it says.
    pub fn job_that_is_heard(
        &self,
        lab: &Lab,
        workers: usize,
        change: impl FnOnce(&mut Command),
    ) -> (Running, PathBuf) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = lab.folder().join(format!("{}-{number}.log", self.name));
        let file = std::fs::File::create(&path).expect("a file for what it says");
        let job = lab.run_with(&self.pipeline, workers, |command| {
            command.stderr(file);
            change(command);
        });
        (job, path)
    }

    /// Lets the job end in order, runs the undisturbed one, and compares.
    pub fn finish(self, lab: &Lab, job: Running) -> Verdict {
        self.note("the input ends");
        let written = self.live.end();
        for (&(input, partition), end) in &written.ends {
            assert_eq!(lab.end_of(input.topic(), partition), *end, "{input:?}");
        }
        eprintln!("{} pauses; the disturbed job settles", written.pauses);
        let (disturbed, letters_end) = settle(lab, &self.name, job, &written, 0);
        for (table, ..) in TABLES {
            let table = table.trim_end_matches(" FINAL");
            lab.query(&format!("TRUNCATE TABLE riderflow.{table}"));
        }
        let calm_began = Instant::now();
        let job = lab.run(&self.calm, 2);
        let (calm, _) = settle(lab, &self.calm_name, job, &written, letters_end);
        eprintln!("the undisturbed run took {:.1?}", calm_began.elapsed());
        assert_all_is_there(&calm, &written);
        Verdict {
            report: compare(&disturbed, &calm),
            updates: written.valid.len(),
            events: calm.events.len(),
            pauses: written.pauses,
        }
    }
}

/// Waits until the job has told all, stops it, and collects what it leaves; and where the
/// dead-letter topic ends.
fn settle(
    lab: &Lab,
    name: &str,
    job: Running,
    written: &Written,
    letters_from: i64,
) -> (Outcome, i64) {
    let began = Instant::now();
    lab.wait_for_no_lag(name, LONG);
    let no_lag = began.elapsed();
    let settled_ms = written.last_ms + live::SETTLED_MS - now_ms();
    std::thread::sleep(Duration::from_millis(settled_ms.max(0) as u64));
    // The epochs of the last timers are under way.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(job.stop().code(), Some(0), "{name} ends well");
    let stopped = began.elapsed();
    let outcome = collect(lab, name, written, letters_from);
    let collected = began.elapsed();
    eprintln!("{name}: no lag after {no_lag:.1?}, stopped {stopped:.1?}, read {collected:.1?}");
    (outcome, lab.end_of("rider-updates-dead-letter", 0))
}

/// The undisturbed run is itself held against what was written.
fn assert_all_is_there(calm: &Outcome, written: &Written) {
    let ids = |items: &[Item]| {
        let mut ids: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
        ids.sort();
        ids
    };
    if let Some(rows) = calm.tables.get("driver_locations") {
        let valid: Vec<String> = written.valid.iter().cloned().collect();
        assert!(ids(rows) == valid, "undisturbed: every valid update once");
        let rejected = calm.tables.get("rejected_updates").map(|rows| ids(rows));
        let bad: Vec<String> = written.bad.iter().cloned().collect();
        assert!(rejected == Some(bad), "undisturbed: every refusal once");
    }
    let bad: Vec<String> = written.bad.iter().cloned().collect();
    assert!(
        ids(&calm.dead_letters) == bad,
        "undisturbed: every dead letter once"
    );
    let mut events = ids(&calm.events);
    assert!(events.len() > 100, "{} events", events.len());
    events.dedup();
    assert_eq!(
        events.len(),
        calm.events.len(),
        "undisturbed: no event twice"
    );
}

fn collect(lab: &Lab, name: &str, written: &Written, letters_from: i64) -> Outcome {
    let mut outcome = Outcome {
        ends: written.ends.clone(),
        ..Outcome::default()
    };
    let source = format!("/riderflow/{name}");
    read_each(&lab.brokers(), "rider-notifications", |event| {
        if event.header("ce_source") != source {
            return;
        }
        let mut data = event.json();
        let by_timer = ["geofence.dwelled", "agent.arrived", "driver.silent"];
        let kind = event.header("ce_type");
        let may_be_timer = by_timer.iter().any(|kind_of| kind.contains(kind_of));
        let cause = source_of(&data);
        if !may_be_timer && data["cause"] != "timer" {
            outcome.told.push(Told {
                partition: event.partition,
                cause,
            });
        }
        let time = match cause.0 {
            Input::Geofences => "",
            _ => event.header("ce_time"),
        };
        without_what_may_differ(&mut data);
        let key = String::from_utf8_lossy(event.key.as_deref().unwrap_or_default());
        let headers = ["ce_type", "ce_subject", "ce_specversion", "content-type"]
            .map(|header| event.header(header));
        outcome.events.push(Item {
            group: format!("{}/{key}", event.partition),
            id: event.header("ce_id").to_owned(),
            content: format!("{} {time} {data}", headers.join(" ")),
        });
    });
    for letter in lab.read_all("rider-updates-dead-letter") {
        if letter.offset < letters_from {
            continue;
        }
        let partition = format!(
            "{}/{}",
            letter.header("rf-topic"),
            letter.header("rf-partition")
        );
        outcome.dead_letters.push(Item {
            id: format!("{partition}/{}", letter.header("rf-offset")),
            group: partition,
            content: format!("{:?} {:?} {:?}", letter.headers, letter.key, letter.value),
        });
    }
    for record in lab.read_all(&riderflow::kafka::epoch_log_topic(name)) {
        let record = serde_json::from_slice(record.value.as_deref().unwrap_or_default());
        if let LogRecord::Epoch(record) = record.expect("a record of the log") {
            outcome.epochs.push(record);
        }
    }
    let is_there = "SELECT name FROM system.tables WHERE database = 'riderflow'";
    let there = lab.query(is_there);
    for (table, id, columns) in TABLES {
        let name = table.trim_end_matches(" FINAL");
        if there.iter().any(|it| it == name) {
            outcome.tables.insert(name, rows(lab, table, id, columns));
        }
    }
    outcome
}

fn rows(lab: &Lab, table: &str, id: &str, columns: &str) -> Vec<Item> {
    let sql = format!(
        "SELECT concat({id}, '\\t', formatRowNoNewline('CSV', {columns})) FROM riderflow.{table}"
    );
    let rows = lab.query(&sql).into_iter().map(|row| {
        let (id, content) = row.split_once('\t').expect("an id and what it says");
        let content = match table {
            "events" => told_row(content),
            _ => content.to_owned(),
        };
        Item {
            group: String::new(),
            id: id.to_owned(),
            content,
        }
    });
    rows.collect()
}

/// The last column is the event's data.
fn told_row(csv: &str) -> String {
    let start = csv.find("\"{").expect("data is an object");
    let (columns, data) = csv.split_at(start);
    let data = data[1..data.len() - 1].replace("\"\"", "\"");
    let mut data: Value = serde_json::from_str(&data).expect("data is JSON");
    without_what_may_differ(&mut data);
    format!("{columns}{data}")
}

/// A fence's change happens at the time at which it stands among all records, which is a
/// function of the epoch log; so may a visit begin that it opens.
fn without_what_may_differ(data: &mut Value) {
    let is_of_fence = source_of(data).0 == Input::Geofences;
    let object = data.as_object_mut().expect("data is an object");
    object.remove("detectedAt");
    object.remove("dwell_s");
    if is_of_fence {
        object.remove("eventTime");
    }
    if object["cause"] == "timer" {
        object["cause"] = "position".into();
    }
}

fn source_of(data: &Value) -> (Input, i32, i64) {
    let source = &data["source"];
    let input = Input::ALL
        .into_iter()
        .find(|input| source["topic"] == input.topic());
    (
        input.expect("an input's topic"),
        source["partition"].as_i64().expect("a number") as i32,
        source["offset"].as_i64().expect("a number"),
    )
}

/// What a job has said so far.
pub fn said(log: &Path) -> String {
    std::fs::read_to_string(log).expect("what it said")
}

/// From a start to the first epoch that it commits; `None` if it ends before.
pub fn time_to_first_commit(
    job: &mut Running,
    began: Instant,
    limit: Duration,
) -> Option<Duration> {
    while began.elapsed() < limit && job.is_running() {
        let committed = job.try_metric("riderflow_epochs_committed_total");
        if committed.is_some_and(|committed| committed > 0.0) {
            return Some(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Waits until `job` has ended by itself; `None` if it does not in time.
pub fn wait_for_end(job: &mut Running, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        let status = job.ended();
        if status.is_some() || Instant::now() > deadline {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The folder of the newest snapshot that the epoch log names: what isn't there doesn't count.
pub fn newest_snapshot(lab: &Lab, snapshots: &Path, pipeline: &str) -> Option<PathBuf> {
    let has_head = |log: &[LogRecord]| log.iter().any(|record| record.head().is_some());
    let log = read_epoch_log(&lab.brokers(), pipeline, has_head).ok()?;
    let head = log.iter().rev().find_map(LogRecord::head)?;
    let newest = head.snapshots.last()?;
    Some(snapshots.join(pipeline).join(newest.to_string()))
}

/// How many rows a table has.
pub fn count(lab: &Lab, table: &str) -> usize {
    let sql = format!("SELECT toString(count()) FROM riderflow.{table}");
    lab.query(&sql)[0].parse().expect("a number")
}

/// By signal 9, so by a trap or a kill.
pub fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

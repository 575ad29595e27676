//! `produce`, `tail` and `simulate` against a real Kafka.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use serde_json::Value;

#[path = "common/kafka.rs"]
mod kafka_alone;

use kafka_alone::Kafka;

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
const PATIENCE: Duration = Duration::from_secs(60);
const TOPICS: [(&str, i32); 3] = [("rider-updates", 2), ("orders", 2), ("geofences", 1)];

fn kafka() -> Kafka {
    kafka_alone::kafka("tools", create_topics)
}

fn create_topics(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let topics = TOPICS
        .map(|(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1)));
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(admin.create_topics(&topics, &AdminOptions::new()))
        .unwrap();
}

fn riderflow(kafka: &Kafka, words: &[&str]) -> Command {
    let mut command = Command::new(RIDERFLOW);
    command
        .args(words)
        .args(["--brokers", &kafka.brokers])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn produce(kafka: &Kafka, lines: &str) -> Output {
    let mut child = riderflow(kafka, &["produce"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A running tail, its lines as they come.
struct Tail {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Tail {
    fn start(kafka: &Kafka, group: &str, more: &[&str]) -> Self {
        let mut child = riderflow(kafka, &["tail", group])
            .args(more)
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// Waits until one of these is told, and says which.
    fn wait_for(&self, told: &[String]) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.err.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("never told: {told:?}"));
            if let Some(which) = told.iter().position(|each| *each == line) {
                return which;
            }
        }
    }

    /// The next `count` lines that contain `mark`.
    fn printed(&self, mark: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.out.recv_timeout(left) {
                Ok(line) if line.contains(mark) => found.push(line),
                Ok(_) => {}
                Err(_) => panic!("only {} of {count} lines: {found:#?}", found.len()),
            }
        }
        found
    }

    fn stop(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A word that no other test or run uses.
fn unique(word: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("{word}{}", since.as_nanos())
}

/// (first, next) offsets of each partition.
fn offsets(kafka: &Kafka) -> BTreeMap<(&'static str, i32), (i64, i64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .unwrap();
    let mut all = BTreeMap::new();
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            let (first, next) = consumer
                .fetch_watermarks(topic, partition, PATIENCE)
                .unwrap();
            all.insert((topic, partition), (first, next));
        }
    }
    all
}

#[test]
fn what_is_produced_is_tailed_from_the_partition_of_its_state() {
    let kafka = kafka();
    let tony = unique("tony");
    let output = produce(
        &kafka,
        &format!(
            "{tony}a south\n{tony}b north\nnonsense\n453 12.9716 77.5946 {tony}c\n\
             454 95 77.5946 south\n\n{tony}d south"
        ),
    );
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("line 3: expected"), "{told}");
    assert!(told.contains("line 5: latitude \"95\""), "{told}");
    assert!(told.contains("2 lines were not understood"), "{told}");

    let group = unique("group");
    let tail = Tail::start(&kafka, &group, &["--from-beginning"]);
    let mut printed = tail.printed(&tony, 4);
    printed.sort();
    let named = |part: u8, name: char, location: &str| {
        format!(
            r#"{group}: [rider-updates]: PART:{part}: {{"name":"{tony}{name}","location":"{location}"}}"#
        )
    };
    assert_eq!(printed[0], named(0, 'a', "south"));
    assert_eq!(printed[1], named(0, 'd', "south"));
    let update = printed[2].strip_prefix(&format!("{group}: [rider-updates]: PART:1: "));
    let update: Value = serde_json::from_str(update.unwrap()).unwrap();
    assert_eq!(update["driverId"], 453);
    assert_eq!(update["longitude"], 77.5946);
    assert_eq!(update["latitude"], 12.9716);
    assert_eq!(update["state"], format!("{tony}c"));
    assert!(update["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(printed[3], named(1, 'b', "north"));
    assert!(tail.stop().success());

    // The group has read them: a second tail goes on behind them.
    let output = produce(&kafka, &format!("{tony}e south\n"));
    assert_eq!(output.status.code(), Some(0));
    let tail = Tail::start(&kafka, &group, &["--from-beginning"]);
    assert_eq!(tail.printed(&tony, 1), [named(0, 'e', "south")]);
    assert!(tail.stop().success());
}

#[test]
fn two_tails_of_a_group_share_its_partitions() {
    let kafka = kafka();
    let (mark, group) = (unique("mark"), unique("group"));
    let both = [format!("{group}: reading rider-updates 0, 1")];
    let either = [0, 1].map(|part| format!("{group}: reading rider-updates {part}"));
    let first = Tail::start(&kafka, &group, &["--from-beginning"]);
    first.wait_for(&both);
    let second = Tail::start(&kafka, &group, &["--from-beginning"]);
    let of_second = second.wait_for(&either);
    let of_first = first.wait_for(&either);
    assert_eq!(of_first + of_second, 1);

    let sent: String = (0..20)
        .map(|n| format!("{mark}-{n} {}\n", if n % 2 == 0 { "south" } else { "east" }))
        .collect();
    assert!(produce(&kafka, &sent).status.success());
    for (tail, part) in [(&first, of_first), (&second, of_second)] {
        for line in tail.printed(&mark, 10) {
            assert!(line.contains(&format!("PART:{part}: ")), "{line}");
        }
    }
    // One leaves, at once and cleanly: the other has both.
    assert!(second.stop().success());
    first.wait_for(&both);
    assert!(
        produce(&kafka, &format!("{mark}-last east\n"))
            .status
            .success()
    );
    assert!(first.printed(&mark, 1)[0].contains("PART:1"));
    assert!(first.stop().success());
}

#[test]
fn a_simulation_counts_what_kafka_has() {
    let kafka = kafka();
    for words in [
        &["--rate", "max", "--count", "30000", "--drivers", "500"][..],
        &["--rate", "4000", "--duration", "3", "--drivers", "800"],
    ] {
        let before = offsets(&kafka);
        let output = riderflow(&kafka, &["simulate", "--json", "--fences", "20"])
            .args(words)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let after = offsets(&kafka);
        for (topic, _) in TOPICS {
            let stored: i64 = after
                .iter()
                .filter(|((of, _), _)| *of == topic)
                .map(|(at, (_, next))| next - before[at].1)
                .sum();
            assert!(stored > 0, "{topic}");
            assert_eq!(summary["acked"][topic]["total"], stored, "{summary}");
        }
        if words.contains(&"30000") {
            assert_eq!(summary["acked"]["rider-updates"]["total"], 30_000);
            let city_s = summary["city_s"].as_f64().unwrap();
            assert!((59.0..63.0).contains(&city_s), "{summary}");
        } else {
            let updates = summary["acked"]["rider-updates"]["total"].as_u64().unwrap();
            assert!((11_800..12_200).contains(&updates), "{summary}");
        }
        for partition in 0..2 {
            assert!(after[&("rider-updates", partition)] > before[&("rider-updates", partition)]);
        }
        assert_routed_and_stamped(&kafka, &before, words.contains(&"max"));
    }
}

/// Every update since is in the partition of its state, and its Kafka timestamp is not before
/// the time of its fix.
fn assert_routed_and_stamped(
    kafka: &Kafka,
    since: &BTreeMap<(&'static str, i32), (i64, i64)>,
    historic: bool,
) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", "check")
        .create()
        .unwrap();
    let mut assignment = rdkafka::TopicPartitionList::new();
    let mut left = 0;
    let now = offsets(kafka);
    for partition in 0..2 {
        let (from, to) = (
            since[&("rider-updates", partition)].1,
            now[&("rider-updates", partition)].1,
        );
        left += to - from;
        assignment
            .add_partition_offset("rider-updates", partition, rdkafka::Offset::Offset(from))
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    while left > 0 {
        let Some(message) = consumer.poll(PATIENCE) else {
            panic!("{left} records are missing");
        };
        let message = message.unwrap();
        let update: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let south = update["state"] == "south";
        assert_eq!(message.partition(), i32::from(!south), "{update}");
        let key = std::str::from_utf8(message.key().unwrap()).unwrap();
        assert_eq!(update["driverId"].to_string(), key);
        let stamped_ms = message.timestamp().to_millis().unwrap();
        let taken_ms = update["timestamp"].as_i64().unwrap();
        // The clock's two readings, as the run began and as the record was queued.
        assert!(
            stamped_ms >= taken_ms - i64::from(!historic) * 50,
            "{stamped_ms} {update}"
        );
        left -= 1;
    }
}

#[test]
fn a_kafka_that_is_not_there_is_exit_code_4_and_a_missing_topic_1() {
    let children: Vec<_> = [
        &["produce"][..],
        &["tail", "g"],
        &["simulate", "--count", "1"],
    ]
    .into_iter()
    .map(|words| {
        let nowhere = ["--brokers", "127.0.0.1:1"];
        let output = Command::new(RIDERFLOW)
            .args(words)
            .args(nowhere)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        (words, output)
    })
    .collect();
    for (words, child) in children {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{words:?}: {told}");
        assert!(
            told.contains("could not reach Kafka at 127.0.0.1:1"),
            "{told}"
        );
    }
    let output = riderflow(&kafka(), &["tail", "g", "--topic", "no-such-topic"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("no-such-topic does not exist"), "{told}");
}

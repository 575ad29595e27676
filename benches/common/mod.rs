//! What the benches share that drain a preloaded topic: services, a pipeline, the consumer that
//! does nothing, and what a process took.
//!
//! CPU and peak memory are a process's own, by the kernel's account, from its start; so whatever
//! drains the topic is a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use riderflow::services::{Options, Services};
use riderflow::simulate::Plan;

pub(crate) const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
pub(crate) const ANSWER: Duration = Duration::from_secs(30);
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
pub(crate) const TOPIC: &str = "rider-updates";
const DRIVERS: u32 = 100_000;
const ORDERS: u32 = 20_000;
const FENCES: u32 = 1_000;

/// The first argument with which a bench is the consumer that does nothing.
const CONSUME: &str = "consume";

/// 100,000 drivers at one update a second, 1,000 fences and 20,000 open orders, beginning
/// before now by so much.
pub(crate) fn city(ago_ms: i64) -> Plan {
    let start_ms = riderflow::runtime::wall_clock_ms() - ago_ms;
    Plan::new(DRIVERS, ORDERS, FENCES, 42, start_ms)
}

/// What one process took to drain the topic.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) peak_mib: f64,
    pub(crate) updates: u64,
}

impl Cost {
    /// Of a living child that has drained so many updates.
    pub(crate) fn of(child: &Child, began: Instant, updates: u64) -> Self {
        let wall_s = began.elapsed().as_secs_f64();
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it lives");
        let peak_kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .expect("a peak");
        Self {
            cpu_s: cpu_s(child),
            wall_s,
            peak_mib: peak_kib / 1024.0,
            updates,
        }
    }

    pub(crate) fn cpu_per_million(&self) -> f64 {
        self.cpu_s / self.updates as f64 * 1e6
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.updates as f64 / self.wall_s
    }
}

/// User and system time of a living child so far.
fn cpu_s(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it lives");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    // The kernel counts in hundredths of a second on every Linux that Rust supports.
    (ticks(11) + ticks(12)) as f64 / 100.0
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Services of a bench's own, and a folder that is gone once they are.
pub(crate) struct Stand {
    pub(crate) services: Services,
    pub(crate) folder: Folder,
    clickhouse: bool,
}

impl Stand {
    /// With ClickHouse or without, in a folder of the bench's name.
    pub(crate) fn start(name: &str, clickhouse: bool) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let options = Options {
            clickhouse,
            ..Options::new(folder.join("data"), RIDERFLOW)
        };
        Self {
            services: Services::start(&options).expect("services start"),
            folder: Folder(folder),
            clickhouse,
        }
    }

    /// A pipeline file with further lines of TOML, and its topics and tables.
    pub(crate) fn pipeline(&self, name: &str, toml: &str) -> PathBuf {
        let path = self.folder.0.join(format!("{name}.toml"));
        let state = self.folder.0.join("state");
        let text = format!("name = \"{name}\"\nsnapshots.url = {state:?}\n{toml}\n");
        std::fs::write(&path, text).expect("the pipeline file is written");
        let mut command = self.command();
        let status = command
            .arg("init")
            .arg(&path)
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("init runs").success());
        path
    }

    /// Starts the job.
    pub(crate) fn run(&self, pipeline: &Path, workers: u32) -> Ended {
        let mut command = self.command();
        command.arg("run").arg(pipeline);
        command.args(["--http", "127.0.0.1:0", "-w", &workers.to_string()]);
        Ended(
            command
                .stderr(Stdio::null())
                .spawn()
                .expect("the job starts"),
        )
    }

    fn command(&self) -> Command {
        let mut command = Command::new(RIDERFLOW);
        command.env("RIDERFLOW_KAFKA", self.services.kafka());
        if self.clickhouse {
            command.env("RIDERFLOW_CLICKHOUSE", self.services.clickhouse_url());
        }
        command
    }

    /// A client of a consumer group.
    pub(crate) fn client(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.services.kafka())
            .set("group.id", group)
            .create()
            .expect("a client")
    }

    /// The sum of a topic's partitions' ends, as far as it is committed.
    pub(crate) fn end(&self, client: &BaseConsumer, topic: &str) -> u64 {
        let end = |partition| {
            let marks = client.fetch_watermarks(topic, partition, ANSWER);
            marks.expect("watermarks").1 as u64
        };
        partitions(client, topic).into_iter().map(end).sum()
    }

    /// How many updates a client's group has committed.
    pub(crate) fn committed(&self, client: &BaseConsumer) -> u64 {
        let mut list = TopicPartitionList::new();
        for partition in partitions(client, TOPIC) {
            list.add_partition(TOPIC, partition);
        }
        let committed = client.committed_offsets(list, ANSWER).expect("offsets");
        let offset = |offset| match offset {
            Offset::Offset(offset) => offset as u64,
            _ => 0,
        };
        let elements = committed.elements();
        elements.iter().map(|it| offset(it.offset())).sum()
    }

    /// What the consumer that does nothing takes; the bench's `main` must begin with
    /// [`consume_if_asked`].
    pub(crate) fn idle_consumer(&self, end: u64) -> Cost {
        let began = Instant::now();
        let mut child = Command::new(std::env::current_exe().expect("this file"))
            .args([CONSUME, self.services.kafka()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output
            .read_line(&mut line)
            .expect("the child says when done");
        assert_eq!(line.trim(), end.to_string(), "every update was consumed");
        let cost = Cost::of(&child, began, end);
        drop(child.stdin.take());
        child.wait().expect("the child ends");
        cost
    }
}

/// A folder that is removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that is killed when the bench is done with it, or fails.
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn partitions(client: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = client
        .fetch_metadata(Some(topic), ANSWER)
        .expect("metadata");
    metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| partition.id())
        .collect()
}

/// Whether this process is the consumer that does nothing; then it has done it.
pub(crate) fn consume_if_asked() -> bool {
    let mut arguments = std::env::args().skip(1);
    let asked = arguments.next().as_deref() == Some(CONSUME);
    if asked {
        consume(&arguments.next().expect("brokers"));
    }
    asked
}

/// Consumes everything with the job's own client settings, touches each payload, says how
/// many, and waits to be looked at.
fn consume(brokers: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "drain-idle")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "25")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.min.messages", "200000")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.message.max.bytes", "4194304")
        .create()
        .expect("a consumer");
    let mut open = assign_all(&consumer, TOPIC);
    let (mut count, mut bytes) = (0_u64, 0_usize);
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                count += 1;
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    eprintln!(
        "consumed {count} updates of {} bytes on average",
        bytes / count.max(1) as usize
    );
    println!("{count}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Assigns all partitions of a topic from their beginning; returns how many.
pub(crate) fn assign_all(consumer: &BaseConsumer, topic: &str) -> usize {
    let all = partitions(consumer, topic);
    let mut list = TopicPartitionList::new();
    for &partition in &all {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    all.len()
}

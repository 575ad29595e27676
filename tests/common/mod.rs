//! What the tests over real services share: a Kafka and a ClickHouse for each of two tests at a
//! time, fresh topics and tables for each test, and the job as a child process.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

pub mod measured;
mod running;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use riderflow::services::{Options, Services};
use serde_json::Value;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use running::{Running, free_address};

pub const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
/// The shared key of the gateways of tests.
pub const GATEWAY_KEY: &str = "a key of at least thirty-two bytes, for tests";
const ANSWER: Duration = Duration::from_secs(20);

/// Exclusive use of the binary's services; the next test waits.
pub struct Lab {
    services: MutexGuard<'static, Option<Services>>,
    folder: tempfile::TempDir,
}

/// Tests of a binary that run at a time, each with services of its own: they mostly wait.
const LABS: usize = 2;

/// Services that no other test of this binary uses, started if they have not been.
fn services() -> MutexGuard<'static, Option<Services>> {
    static POOL: [Mutex<Option<Services>>; LABS] = [const { Mutex::new(None) }; LABS];
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let free = POOL.iter().position(|slot| match slot.try_lock() {
        Ok(_) | Err(TryLockError::Poisoned(_)) => true,
        Err(TryLockError::WouldBlock) => false,
    });
    let turn = free.unwrap_or_else(|| TURN.fetch_add(1, Ordering::Relaxed) % LABS);
    let mut slot = POOL[turn].lock().unwrap_or_else(PoisonError::into_inner);
    if slot.is_none() {
        // Statics are never dropped: the children end with this process, and the folder is
        // emptied by the next run.
        let binary = std::env::current_exe().expect("this process has a file");
        let name = binary.file_stem().expect("a file has a name");
        let folder = format!("{}-{turn}", name.to_string_lossy());
        let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        let _ = std::fs::remove_dir_all(&data_dir);
        let options = Options::for_tests(data_dir, RIDERFLOW);
        *slot = Some(Services::start(&options).expect("Kafka and ClickHouse start"));
    }
    slot
}

/// Services with no topic and no table.
pub fn lab(test: &str) -> Lab {
    let lab = Lab {
        services: services(),
        folder: tempfile::tempdir().expect("a folder"),
    };
    eprintln!(
        "{test}: kafka {}, clickhouse {}",
        lab.brokers(),
        lab.clickhouse()
    );
    lab.drop_everything();
    lab
}

impl Lab {
    pub fn brokers(&self) -> String {
        self.running().kafka().to_owned()
    }

    pub fn clickhouse(&self) -> String {
        self.running().clickhouse_url().to_owned()
    }

    pub fn services(&mut self) -> &mut Services {
        self.services.as_mut().expect("a lab has services")
    }

    fn running(&self) -> &Services {
        self.services.as_ref().expect("a lab has services")
    }

    fn drop_everything(&self) {
        let admin: AdminClient<DefaultClientContext> =
            config(&self.brokers()).create().expect("an admin client");
        let topics = self.topics();
        if !topics.is_empty() {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("tokio");
            runtime
                .block_on(admin.delete_topics(&names, &AdminOptions::new()))
                .expect("topics are deleted");
            wait_until(ANSWER, "topics are gone", || self.topics().is_empty());
        }
        self.query("DROP DATABASE IF EXISTS riderflow SYNC");
    }

    fn topics(&self) -> Vec<String> {
        let consumer: BaseConsumer = config(&self.brokers()).create().expect("a client");
        let metadata = consumer.fetch_metadata(None, ANSWER).expect("metadata");
        let names = metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned());
        names.filter(|name| !name.starts_with("__")).collect()
    }

    /// A pipeline file with `name` and further lines of TOML.
    pub fn pipeline(&self, name: &str, toml: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.toml"));
        let state = match toml.contains("snapshots.url") {
            true => String::new(),
            false => format!("snapshots.url = {:?}", self.folder.path().join("state")),
        };
        let text = format!("name = \"{name}\"\n{state}\n{toml}\n");
        std::fs::write(&path, text).expect("the pipeline file is written");
        path
    }

    /// `riderflow` with these services, quiet on standard input.
    pub fn command(&self) -> Command {
        let mut command = Command::new(RIDERFLOW);
        command
            .env("RIDERFLOW_KAFKA", self.brokers())
            .env("RIDERFLOW_CLICKHOUSE", self.clickhouse())
            .stdin(Stdio::null());
        command
    }

    pub fn init(&self, pipeline: &Path) {
        let output = self
            .command()
            .arg("init")
            .arg(pipeline)
            .output()
            .expect("init runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn run(&self, pipeline: &Path, workers: usize) -> Running {
        self.run_with(pipeline, workers, |_| {})
    }

    /// The job with further arguments, or another environment.
    pub fn run_with(
        &self,
        pipeline: &Path,
        workers: usize,
        change: impl FnOnce(&mut Command),
    ) -> Running {
        let mut command = self.command();
        command
            .arg("run")
            .arg(pipeline)
            .args(["-w", &workers.to_string()]);
        change(&mut command);
        Running::start_served(&mut command)
    }

    /// A gateway, once it listens.
    pub fn gateway(&self, pipeline: &Path, listen: SocketAddr) -> Running {
        let mut command = self.command();
        command
            .env("RIDERFLOW_GATEWAY_KEY", GATEWAY_KEY)
            .arg("gateway")
            .arg(pipeline)
            .args(["--listen", &listen.to_string()]);
        let mut running = Running::start_served(&mut command);
        wait_until(ANSWER, "the gateway listens", || {
            assert!(running.is_running(), "the gateway ended");
            TcpStream::connect(listen).is_ok()
        });
        running
    }

    /// A folder that is gone with the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The offset after a partition's last.
    pub fn end_of(&self, topic: &str, partition: i32) -> i64 {
        let consumer: BaseConsumer = config(&self.brokers()).create().expect("a client");
        let watermarks = consumer.fetch_watermarks(topic, partition, ANSWER);
        watermarks.expect("the partition's ends").1
    }

    /// Changes one setting of a topic.
    pub fn alter_topic(&self, topic: &str, setting: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> =
            config(&self.brokers()).create().expect("an admin client");
        let alter = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(setting, value);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio");
        let results = runtime
            .block_on(admin.alter_configs([&alter], &AdminOptions::new()))
            .expect("an answer");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// One column of text from ClickHouse, a line a row.
    pub fn query(&self, sql: &str) -> Vec<String> {
        try_query(&self.clickhouse(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub fn sender(&self) -> Sender {
        let producer = config(&self.brokers())
            // A restart of the broker neither repeats nor swaps what the test sends.
            .set("enable.idempotence", "true")
            .create()
            .expect("a producer");
        Sender {
            producer,
            next: BTreeMap::new(),
        }
    }

    /// All committed messages of a topic, in order of partition and offset.
    pub fn read_all(&self, topic: &str) -> Vec<Received> {
        read_all(&self.brokers(), topic)
    }

    /// Waits until the consumer group `group` has committed the end of every input.
    pub fn wait_for_no_lag(&self, group: &str, timeout: Duration) {
        wait_until(timeout, "the group has no lag", || {
            self.lag(group) == Some(0)
        });
    }

    /// What an ordinary lag tool would say; `None` before the group's first commit.
    pub fn lag(&self, group: &str) -> Option<i64> {
        let consumer: BaseConsumer = config(&self.brokers())
            .set("group.id", group)
            .create()
            .expect("a client");
        let mut total = 0;
        for topic in ["rider-updates", "orders", "geofences"] {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER).ok()?;
            for partition in metadata.topics().first()?.partitions() {
                let (low, high) = consumer
                    .fetch_watermarks(topic, partition.id(), ANSWER)
                    .ok()?;
                let mut list = TopicPartitionList::new();
                list.add_partition(topic, partition.id());
                let committed = consumer.committed_offsets(list, ANSWER).ok()?;
                match committed.elements().first()?.offset() {
                    Offset::Offset(offset) => total += high - offset,
                    _ if high == low => {}
                    _ => return None,
                }
            }
        }
        Some(total)
    }
}

/// Writes records with a partition and a timestamp of the test's choice.
pub struct Sender {
    producer: BaseProducer,
    next: BTreeMap<(String, i32), i64>,
}

impl Sender {
    /// Returns the record's offset.
    pub fn send(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> i64 {
        self.send_with(topic, partition, timestamp_ms, key, value, &[])
    }

    /// The same with headers.
    pub fn send_with(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> i64 {
        loop {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
                .partition(partition)
                .timestamp(timestamp_ms);
            record.key = key;
            record.payload = value;
            if !headers.is_empty() {
                let all = OwnedHeaders::new_with_capacity(headers.len());
                let all = headers.iter().fold(all, |all, &(key, value)| {
                    let value = Some(value);
                    all.insert(Header { key, value })
                });
                record = record.headers(all);
            }
            match self.producer.send(record) {
                Ok(()) => break,
                Err(_) => self.producer.poll(Duration::from_millis(5)),
            }
        }
        self.producer.poll(Duration::ZERO);
        let next = self.next.entry((topic.to_owned(), partition)).or_default();
        *next += 1;
        *next - 1
    }

    pub fn flush(&self) {
        self.producer
            .flush(3 * ANSWER)
            .expect("the broker takes everything");
    }

    /// Waits until Kafka has acknowledged all; without the client's slices of 100 ms.
    pub fn settle(&self) {
        let deadline = Instant::now() + 6 * ANSWER;
        while self.producer.in_flight_count() > 0 {
            assert!(Instant::now() < deadline, "the broker takes everything");
            self.producer.poll(Duration::from_millis(1));
        }
    }

    /// The offset after the last that was sent to a partition of a fresh topic.
    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        let next = self.next.get(&(topic.to_owned(), partition));
        next.copied().unwrap_or(0)
    }
}

/// A message as read.
#[derive(Clone, Debug)]
pub struct Received {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).expect("JSON")
    }
}

pub fn read_all(brokers: &str, topic: &str) -> Vec<Received> {
    let mut all = Vec::new();
    read_each(brokers, topic, |message| all.push(message));
    all.sort_by_key(|message| (message.partition, message.offset));
    all
}

/// Hands all committed messages of a topic over, each partition in its order.
pub fn read_each(brokers: &str, topic: &str, mut visit: impl FnMut(Received)) {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "test-reader")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), ANSWER)
        .expect("metadata");
    let mut open: Vec<i32> = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| partition.id())
        .collect();
    let mut list = TopicPartitionList::new();
    for &partition in &open {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    let mut deadline = Instant::now() + ANSWER;
    while !open.is_empty() {
        assert!(
            Instant::now() < deadline,
            "{topic} could not be read to its end"
        );
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                deadline = Instant::now() + ANSWER;
                let mut headers = BTreeMap::new();
                for header in message
                    .headers()
                    .into_iter()
                    .flat_map(|headers| headers.iter())
                {
                    let value = header.value.unwrap_or_default();
                    headers.insert(
                        header.key.to_owned(),
                        String::from_utf8_lossy(value).into_owned(),
                    );
                }
                visit(Received {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                });
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|p| *p != partition),
            Some(Err(_)) | None => {}
        }
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.max.ms", "500")
        .set("message.max.bytes", "4194304");
    config
}

/// One column of text from ClickHouse, or what it said.
pub fn try_query(url: &str, sql: &str) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let client = clickhouse::Client::default().with_url(url);
    runtime.block_on(async {
        if sql.trim_start().to_uppercase().starts_with("SELECT") {
            client
                .query(sql)
                .fetch_all::<String>()
                .await
                .map_err(|error| error.to_string())
        } else {
            client
                .query(sql)
                .execute()
                .await
                .map_err(|error| error.to_string())?;
            Ok(Vec::new())
        }
    })
}

pub fn wait_until(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {timeout:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn now_ms() -> i64 {
    riderflow::runtime::wall_clock_ms()
}

//! A Kafka and a ClickHouse of a bench's own, and jobs that drain what was written beforehand.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use riderflow::clickhouse::Server;
use riderflow::config::Routes;
use riderflow::kafka::producer::{Producer, Record, Settings};
use riderflow::model::Fence;
use riderflow::runtime::wall_clock_ms;
use riderflow::services::{Options, Services};
use riderflow::simulate::{Batch, Message, Pace, Plan, Road, Simulation, Straight, What};
use riderflow::wire::encode_fence;

use super::progress::partitions;
use super::{ANSWER, Cost, Running, cost_of, ends_of, left_for, until_none_left};

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
/// The topic of updates.
pub const UPDATES: &str = "rider-updates";
/// So long without another event, all have been told.
const CALM: Duration = Duration::from_secs(2);
/// Drivers of the city that the bars are about.
pub const DRIVERS: u32 = 100_000;
/// Its orders that are open at any time.
pub const ORDERS: u32 = 20_000;
/// Its fences.
pub const FENCES: u32 = 1_000;
const INPUTS: [&str; 3] = ["geofences", "orders", UPDATES];

/// Services with no topic and no table, which leave nothing behind.
pub struct Lab {
    services: Option<Services>,
    clickhouse: bool,
    folder: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.services.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Lab {
    /// Starts both; `name` is the bench's.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, [true, true])
    }

    /// Starts Kafka alone.
    pub fn without_clickhouse(name: &str) -> Self {
        Self::start_with(name, [true, false])
    }

    /// Starts ClickHouse alone.
    pub fn without_kafka(name: &str) -> Self {
        Self::start_with(name, [false, true])
    }

    fn start_with(name: &str, [kafka, clickhouse]: [bool; 2]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        let options = Options {
            kafka,
            clickhouse,
            ..Options::new(folder.join("data"), RIDERFLOW)
        };
        Self {
            services: Some(Services::start(&options).expect("services start")),
            clickhouse,
            folder,
        }
    }

    pub fn services(&self) -> &Services {
        self.services.as_ref().expect("they run until the end")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A pipeline file with further lines of TOML, its topics and its tables.
    pub fn pipeline(&self, name: &str, toml: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}.toml"));
        let state = self.folder.join("state");
        let text = format!("name = \"{name}\"\nsnapshots.url = {state:?}\n{toml}\n");
        std::fs::write(&path, text).expect("the pipeline file is written");
        let mut command = self.command();
        command
            .arg("init")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().expect("init runs").success());
        path
    }

    /// `riderflow` with these services.
    pub fn command(&self) -> Command {
        let mut command = Command::new(RIDERFLOW);
        command.env("RIDERFLOW_KAFKA", self.services().kafka());
        if self.clickhouse {
            command.env("RIDERFLOW_CLICKHOUSE", self.services().clickhouse_url());
        }
        command
    }

    /// A consumer's settings, which reads nothing yet.
    pub fn client(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.services().kafka())
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        config
    }

    /// A consumer of a group, which reads nothing yet.
    pub fn any_client(&self, group: &str) -> BaseConsumer {
        self.client(group).create().expect("a client")
    }

    /// All partitions of all inputs, with the offset after the last; where there is something.
    fn ends(&self) -> Vec<(&'static str, i32, i64)> {
        let client = self.any_client("bench");
        let ends = INPUTS.into_iter().flat_map(|topic| ends_of(&client, topic));
        ends.filter(|(_, _, end)| *end > 0).collect()
    }

    /// Updates in Kafka.
    pub fn updates(&self) -> u64 {
        let ends = ends_of(&self.any_client("bench"), UPDATES).into_iter();
        ends.map(|(_, _, end)| end as u64).sum()
    }

    /// The ClickHouse, for one's own questions and rows.
    pub fn server(&self) -> Server {
        Server {
            url: self.services().clickhouse_url().to_owned(),
            user: None,
            password: None,
        }
    }

    /// ClickHouse's answer, a line a row.
    pub fn ask(&self, query: &str) -> String {
        let answer = riderflow::clickhouse::ask(&self.server(), query, "TSV");
        answer.expect("ClickHouse answers").trim().to_owned()
    }

    /// One number from ClickHouse.
    pub fn number(&self, query: &str) -> f64 {
        let answer = self.ask(query);
        let number = answer.parse();
        number.unwrap_or_else(|_| panic!("{query}: {answer:?} is no number"))
    }

    /// How many inserts `driver_locations` has had.
    pub fn inserts(&self) -> f64 {
        // Each takes the next block number of its partition; merges take none.
        self.number(
            "SELECT sum(inserts) FROM (SELECT max(max_block_number) AS inserts FROM system.parts \
             WHERE active AND database = 'riderflow' AND table = 'driver_locations' \
             GROUP BY partition)",
        )
    }

    fn rows(&self) -> u64 {
        self.number("SELECT count() FROM riderflow.driver_locations") as u64
    }

    /// The job as a process of its own.
    pub fn job(&self, pipeline: &Path, workers: u32) -> Running {
        let mut command = self.command();
        command
            .arg("run")
            .arg(pipeline)
            .args(["-w", &workers.to_string()])
            .stderr(Stdio::null());
        Running::start_served(&mut command)
    }

    /// A new job that reads from the beginning until all is committed and stored. Its CPU has the
    /// two seconds more, at least, in which it is seen that no timer tells anything.
    pub fn drain(&self, drain: &Drain<'_>) -> Cost {
        self.drain_watched(drain, |_| {})
    }

    /// The same, with a look at the job 20 times a second.
    pub fn drain_watched(&self, drain: &Drain<'_>, mut look: impl FnMut(&Running)) -> Cost {
        let toml = format!(
            "clickhouse.enabled = {}\nwindows.enabled = {}\n{}",
            drain.clickhouse, drain.windows, drain.toml
        );
        let pipeline = self.pipeline(drain.name, &toml);
        let rows_before = if drain.clickhouse { self.rows() } else { 0 };
        let ends = self.ends();
        let updates = self.updates();
        let client = self.any_client(drain.name);
        let began = Instant::now();
        let mut job = self.job(&pipeline, drain.workers);
        let left = || match left_for(&client, &ends) {
            0 if drain.clickhouse => updates.saturating_sub(self.rows() - rows_before),
            left => left,
        };
        until_none_left(&mut job, left, |job, _| look(job)).expect("the job drains all");
        let wall = began.elapsed();
        if drain.windows {
            // The last ones are told within 10 s.
            std::thread::sleep(Duration::from_secs(12));
        }
        let events = until_calm(&job);
        Cost {
            events,
            ..cost_of(job.id(), wall, updates)
        }
    }

    /// A consumer that reads all updates and does nothing, as a process of its own.
    pub fn idle_consumer(&self) -> Cost {
        let end = self.updates();
        let began = Instant::now();
        let mut command = Command::new(std::env::current_exe().expect("this file"));
        command
            .args([CONSUME, self.services().kafka()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = Running::start(&mut command);
        let mut line = String::new();
        let mut output = BufReader::new(child.child().stdout.take().expect("piped"));
        output
            .read_line(&mut line)
            .expect("the child says when done");
        assert_eq!(line.trim(), end.to_string(), "every update was consumed");
        cost_of(child.id(), began.elapsed(), end)
    }

    /// The city that the bars are about, with at least so many updates, two minutes ago.
    pub fn preload_city(&self, updates: u64) {
        eprintln!("preloading {updates} updates");
        let start_ms = wall_clock_ms() - 120_000;
        let plan = Plan::new(DRIVERS, ORDERS, FENCES, 42, start_ms);
        self.preload(plan).write(updates);
    }

    /// A city that is written to Kafka as fast as it takes it, as a history that ended before
    /// now.
    pub fn preload(&self, plan: Plan) -> Preloaded {
        // Any pipeline makes the topics.
        self.pipeline("preload", "clickhouse.enabled = false");
        let brokers = self.services().kafka();
        let city = Preloaded {
            producer: Producer::connect(&Settings::new(brokers)).expect("a producer"),
            simulation: Simulation::new(plan),
        };
        let mut fences = Batch::new();
        city.simulation.fences(&mut fences);
        let road = Straight::new(&city.producer, &Routes::default(), Pace::Max).expect("topics");
        send_all(&road, &fences);
        road.flush(ANSWER).expect("Kafka takes all");
        drop(road);
        city
    }
}

/// How many events there are once timers have told theirs, which are due after the last update.
fn until_calm(job: &Running) -> f64 {
    let mut events = job.metric("riderflow_events_total");
    loop {
        std::thread::sleep(CALM);
        let now = job.metric("riderflow_events_total");
        if now == events {
            return events;
        }
        events = now;
    }
}

/// A job to be measured.
pub struct Drain<'a> {
    /// Of its pipeline, which no job had before.
    pub name: &'a str,
    pub workers: u32,
    pub clickhouse: bool,
    pub windows: bool,
    /// Further lines of its pipeline.
    pub toml: &'a str,
}

/// A city of which a part is in Kafka.
pub struct Preloaded {
    producer: Producer,
    simulation: Simulation,
}

impl Preloaded {
    /// Writes further fences, to be there before the first update.
    pub fn write_fences(&self, fences: &[Fence]) {
        for fence in fences {
            let value = encode_fence(fence);
            let record = Record {
                topic: INPUTS[0],
                partition: None,
                timestamp_ms: Some(self.simulation.plan().start_ms),
                key: Some(fence.id.0.as_bytes()),
                value: Some(&value),
                tag: What::Fence.tag(),
            };
            while !self.producer.try_send(record).expect("Kafka takes it") {
                self.producer.poll(Duration::from_millis(1));
            }
        }
        self.producer.flush(ANSWER).expect("Kafka takes all");
    }

    /// Those that stand from the beginning.
    pub fn fences(&self) -> &[Fence] {
        self.simulation.initial_fences()
    }

    /// Writes at least so many updates more; the last step is written whole.
    pub fn write(&mut self, updates: u64) {
        let road = Straight::new(&self.producer, &Routes::default(), Pace::Max).expect("topics");
        let mut batch = Batch::new();
        let mut sent = 0;
        while sent < updates {
            self.simulation.next_step(&mut batch);
            sent += send_all(&road, &batch);
        }
        road.flush(ANSWER).expect("Kafka takes all");
    }
}

/// Returns how many updates there were.
fn send_all(road: &dyn Road, batch: &Batch) -> u64 {
    let mut updates = 0;
    for message in batch.messages() {
        send(road, batch, message);
        updates += u64::from(matches!(message.what, What::Update(_)));
    }
    updates
}

/// Sends one message, once there is room for it.
pub fn send(road: &dyn Road, batch: &Batch, message: &Message) {
    while !road.try_send(batch, message).expect("Kafka takes it") {
        road.serve(Duration::from_millis(1));
    }
}

/// The argument by which this binary becomes the consumer that does nothing.
const CONSUME: &str = "consume";

/// First of all in a bench's `main`: whether this process was the consumer that does nothing.
pub fn became_consumer() -> bool {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(CONSUME) {
        return false;
    }
    consume(&arguments.next().expect("brokers"));
    true
}

/// Consumes everything with the job's own client settings, touches each payload, says how
/// many, and waits to be looked at.
fn consume(brokers: &str) {
    let (mut count, mut bytes) = (0_u64, 0_usize);
    read_to_end(brokers, UPDATES, |message| {
        count += 1;
        bytes += message.payload().map_or(0, <[u8]>::len);
    });
    eprintln!(
        "consumed {count} updates of {} bytes on average",
        bytes / count.max(1) as usize
    );
    println!("{count}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Reads a topic from its beginning to its end, with the job's own client settings.
pub fn read_to_end(brokers: &str, topic: &str, mut visit: impl FnMut(&BorrowedMessage<'_>)) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench-idle")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    for (key, value) in riderflow::kafka::FETCHING {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let all = partitions(&consumer, topic);
    let mut list = TopicPartitionList::new();
    for &partition in &all {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    let mut open = all.len();
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => visit(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

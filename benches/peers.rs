//! What does an update cost here, and what in Kafka Streams? The same events on the same machine.
//!
//! `cargo bench --bench peers [-- --updates 4000000 --workers 2 --rounds 1]`
//!
//! In each round, in turn: a consumer that does nothing, the job without ClickHouse, and the Kafka
//! Streams application in `benches/peers/kafka-streams` with its state in memory and on RocksDB.
//! Each is a process of its own on the same broker, with as many threads as workers, exactly-once;
//! the job takes an epoch and Kafka Streams commits every 100 ms, as is the default of both.
//! Maven builds the application into `target/peers`, once, from Maven Central: this bench needs
//! `mvn` and a JDK of 17 or later; nothing else does.
//!
//! Density of the input: as `drain`'s, 100,000 drivers at one update a second in one city, 1,000
//! fences, 20,000 orders, but the stage is set before the first update and stays: all fences, and
//! each order as it stands after the city's first second. And a driver's updates are all in the
//! partition of its key. So the order of a driver's inputs leaves no choice, and the peer need
//! not follow changes of orders and fences nor bring a driver's updates together, which the job
//! is always ready for.
//!
//! Compared are all events: for each driver the same ids (that is type, object, driver, and the
//! record that caused it), the same `ce_time`, in the same order. With this input there are
//! entered, exited, crossed, dwelled, near, arrived, departed, assigned, picked up, silent and
//! resumed, from about 4,000,000 updates on, which are 40 s of the city; the first seconds, in
//! which all drivers come into what is around them, have many more events than the others. What
//! the peer lacks is in its README; to lack it only makes it lighter.
//!
//! CPU and peak memory are the process's own, by the kernel's account, from its start, the Java
//! machine's start and compiler with it, until all is consumed and committed and the last event
//! is told; `2nd half` is the CPU of the updates from half of them on, when it is warm, if the
//! process committed anything between. Updates/s is until all is consumed and committed. Kafka
//! Streams makes its state durable with each commit, the job with a snapshot every 10 s.

mod common;
#[path = "peers/stage.rs"]
mod stage;
#[path = "peers/told.rs"]
mod told;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use common::{
    Cost, DRIVERS, FENCES, Lab, ORDERS, Running, UPDATES, became_consumer, cost_of, cpu_s, ends_of,
    left_for, median, until_none_left,
};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use riderflow::config::Routes;
use riderflow::kafka::producer::{Producer, Settings};
use riderflow::runtime::wall_clock_ms;
use riderflow::simulate::{Pace, Plan, Straight};
use stage::{send_updates, set_stage};
use told::{Told, compare, described};

const NAMES: [&str; 4] = [
    "do-nothing consumer",
    "job without ClickHouse",
    "Kafka Streams in memory",
    "Kafka Streams on RocksDB",
];
const PARTITIONS: i32 = 2;
/// So long without another event, all have been told: longer than the peer waits for an update
/// before its timers run on the clock.
const CALM: Duration = Duration::from_secs(8);
/// How often it is looked whether another one has been told.
const LOOK: Duration = Duration::from_millis(100);

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 4_000_000)]
    updates: u64,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Flags of the Java machine. By default those that the peer did best with: the serial
    /// collector takes no more CPU than the parallel one and half of the memory, G1 takes more.
    #[arg(
        long,
        default_value = "-Xmx2g -XX:+UseSerialGC",
        allow_hyphen_values = true
    )]
    java: String,
    /// Settings of Kafka Streams, as `commit.interval.ms=1000`.
    #[arg(long)]
    streams: Vec<String>,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    if became_consumer() {
        return;
    }
    let arguments = Arguments::parse();
    let bench = Bench {
        jar: build(),
        lab: Lab::without_clickhouse("peers"),
        arguments: &arguments,
    };
    bench.preload();

    println!(
        "{:>5}  {:<26} {:>15} {:>9} {:>10} {:>9} {:>8}",
        "round", "", "CPU s / million", "2nd half", "updates/s", "peak MiB", "ratio"
    );
    let mut all: [Vec<f64>; 4] = Default::default();
    for round in 1..=arguments.rounds {
        let idle = bench.lab.idle_consumer();
        let mut keep = |at: usize, cost: Cost, second_half: Option<f64>| {
            let second_half = second_half.map_or("-".into(), |cpu| format!("{cpu:.2}"));
            println!(
                "{round:>5}  {:<26} {:>15.2} {second_half:>9} {:>10.0} {:>9.0} {:>7.2}x",
                NAMES[at],
                cost.cpu_per_million(),
                cost.per_second(),
                cost.peak_mib,
                cost.cpu_per_million() / idle.cpu_per_million(),
            );
            all[at].push(cost.cpu_per_million());
        };
        keep(0, idle, None);
        let job = bench.job(round);
        keep(1, job.cost, job.second_half);
        for (at, store) in [(2, "memory"), (3, "rocksdb")] {
            let peer = bench.peer(round, store);
            keep(at, peer.cost, peer.second_half);
            compare(&job.told, &peer.told, NAMES[at]);
        }
        told::is_whole(&job.told, arguments.updates);
        println!("       all three told the same: {}", described(&job.told));
    }
    let [_, job, ..] = all.each_ref().map(|costs| median(costs.clone()));
    println!("median of {} rounds, CPU s per million:", arguments.rounds);
    for (name, costs) in NAMES.iter().zip(all) {
        let cost = median(costs);
        println!("  {name}: {cost:.2}, {:.2} times the job", cost / job);
    }
}

/// What one process took, and what it told.
struct Drained {
    cost: Cost,
    /// CPU seconds per million updates from half of them on, if it was seen between.
    second_half: Option<f64>,
    told: Told,
}

struct Bench<'a> {
    jar: PathBuf,
    lab: Lab,
    arguments: &'a Arguments,
}

impl Bench<'_> {
    fn preload(&self) {
        // Any pipeline makes the topics.
        self.lab.pipeline("preload", "clickhouse.enabled = false");
        let brokers = self.lab.services().kafka();
        let producer = Producer::connect(&Settings::new(brokers)).expect("a producer");
        // All of it lies in the past, so that at its end all timers are due.
        let updates = self.arguments.updates;
        let city_ms = updates as i64 * 1_000 / i64::from(DRIVERS);
        let start_ms = wall_clock_ms() - city_ms - 120_000;
        let plan = Plan::new(DRIVERS, ORDERS, FENCES, 42, start_ms);
        // Without a row for any state, the key decides.
        let by_key = Routes(BTreeMap::new());
        let road = Straight::new(&producer, &by_key, Pace::Max).expect("topics");
        eprintln!("preloading {updates} updates");
        let (fences, orders) = set_stage(&road, plan.clone());
        eprintln!("of a city with {fences} fences and {orders} orders");
        send_updates(&road, plan, updates);
    }

    fn job(&self, round: usize) -> Drained {
        let name = format!("job-{round}");
        let pipeline = self.lab.pipeline(&name, "clickhouse.enabled = false");
        let began = Instant::now();
        let job = self.lab.job(&pipeline, self.arguments.workers);
        self.watch(job, began, &name, "rider-notifications")
    }

    fn peer(&self, round: usize, store: &str) -> Drained {
        let name = format!("{store}-{round}");
        let topic = format!("{name}-notifications");
        let admin: AdminClient<DefaultClientContext> =
            self.lab.client(&name).create().expect("an admin client");
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio");
        let created = runtime
            .block_on(admin.create_topics([&new], &AdminOptions::new()))
            .expect("an answer");
        assert!(created.iter().all(Result::is_ok), "{created:?}");

        let folder = self.lab.folder().join(&name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let log = File::create(folder.join("log")).expect("a log");
        let libs = self.jar.with_file_name("libs").join("*");
        let mut command = Command::new("java");
        command
            .args(self.arguments.java.split_whitespace())
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(format!("{}:{}", self.jar.display(), libs.display()))
            .arg("peer.Main")
            .args([self.lab.services().kafka(), &name, &topic, store])
            .arg(folder.join("state"))
            .arg(PARTITIONS.to_string())
            .arg(format!("num.stream.threads={}", self.arguments.workers))
            .args(&self.arguments.streams)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let began = Instant::now();
        self.watch(Running::start(&mut command), began, &name, &topic)
    }

    /// Waits until a process has consumed and committed all and tells no more.
    fn watch(&self, mut process: Running, began: Instant, group: &str, topic: &str) -> Drained {
        let pid = process.id();
        let client = self.lab.any_client(group);
        let ends = ends_of(&client, UPDATES);
        let updates: u64 = ends.iter().map(|(_, _, end)| *end as u64).sum();
        let mut half: Option<(f64, u64)> = None;
        let drained = until_none_left(
            &mut process,
            || left_for(&client, &ends),
            |_, left| {
                if half.is_none() && left <= updates / 2 {
                    half = Some((cpu_s(pid), left));
                }
            },
        );
        let wall = began.elapsed();
        if let Err(why) = drained {
            let log = std::fs::read_to_string(self.lab.folder().join(group).join("log"));
            panic!("{group}: {why}\n{:.10000}", log.unwrap_or_default());
        }
        let told = || -> i64 {
            let ends = ends_of(&client, topic).into_iter();
            ends.map(|(_, _, end)| end).sum()
        };
        let (mut last, mut cost) = (told(), cost_of(pid, wall, updates));
        let mut changed = Instant::now();
        while changed.elapsed() < CALM {
            std::thread::sleep(LOOK);
            assert!(process.is_running(), "{group} has ended");
            let now = told();
            if now != last {
                cost = cost_of(pid, wall, updates);
                (last, changed) = (now, Instant::now());
            }
        }
        Drained {
            cost,
            second_half: half.map(|(cpu, left)| (cost.cpu_s - cpu) / left as f64 * 1e6),
            told: told::read(self.lab.services().kafka(), topic, group),
        }
    }
}

/// The peer's jar, built unless it is newer than what it is made of; its libraries are in
/// `libs` beside it.
fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/kafka-streams");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("peers")
        .join("kafka-streams");
    let jar = target.join("peer.jar");
    let changed = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    let built = changed(&jar);
    let mut newest: Option<SystemTime> = changed(&source.join("pom.xml"));
    for file in std::fs::read_dir(source.join("src/main/java/peer")).expect("the peer's source") {
        newest = newest.max(changed(&file.expect("a file").path()));
    }
    if built.is_none() || built < newest {
        eprintln!("building the Kafka Streams application with mvn");
        let status = Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(source.join("pom.xml"))
            .arg(format!("-Dpeer.build={}", target.display()))
            .arg("package")
            .stdout(Stdio::null())
            .status()
            .expect("this bench needs Maven and a JDK of 17 or later");
        assert!(status.success(), "Maven could not build the peer");
    }
    jar
}

//! What does an update cost? CPU seconds per million updates, drained from a preloaded topic.
//!
//! `cargo bench --bench drain [-- --updates 2000000 --workers 2 --rounds 3]`
//!
//! Density of the input: 100,000 drivers at one update a second in one city, 1,000 fences,
//! 20,000 open orders, 3 in 100 updates late, duplicate or inaccurate; JSON of about 103
//! bytes, half of the phones with accuracy, speed and heading. In each round, in turn: a consumer that does
//! nothing, the job without ClickHouse, with it but without windows, and the whole job; each as
//! a process of its own, on the same broker. CPU and peak memory are the process's own, by the kernel's account, from
//! its start until all is consumed, committed and, with ClickHouse, stored.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use riderflow::clickhouse::{Server, ask};
use riderflow::config::Routes;
use riderflow::kafka::producer::{Producer, Settings as ProducerSettings};
use riderflow::services::{Options, Services};
use riderflow::simulate::{Limit, Pace, Plan, Settings, Straight, run};

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
const ANSWER: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(600);
const TOPIC: &str = "rider-updates";
const DRIVERS: u32 = 100_000;
const ORDERS: u32 = 20_000;
const FENCES: u32 = 1_000;

/// The fewest rows of an insert into `driver_locations`, on average.
const FEWEST_ROWS: f64 = 50_000.0;

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 2_000_000)]
    updates: u64,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one process took to drain the topic.
#[derive(Clone, Copy)]
struct Cost {
    cpu_s: f64,
    wall_s: f64,
    peak_mib: f64,
    updates: u64,
}

impl Cost {
    fn cpu_per_million(&self) -> f64 {
        self.cpu_s / self.updates as f64 * 1e6
    }

    fn per_second(&self) -> f64 {
        self.updates as f64 / self.wall_s
    }
}

fn main() {
    // The consumer that does nothing is this binary again.
    if std::env::args().nth(1).as_deref() == Some("consume") {
        let brokers = std::env::args().nth(2).expect("brokers");
        return consume(&brokers);
    }
    let arguments = Arguments::parse();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drain");
    let _ = std::fs::remove_dir_all(&folder);
    let services =
        Services::start(&Options::new(folder.join("data"), RIDERFLOW)).expect("services start");
    let bench = Bench {
        services: &services,
        folder: folder.clone(),
        arguments: &arguments,
    };
    bench.preload();
    let end = bench.end();

    println!(
        "{:>5}  {:<24} {:>16} {:>12} {:>10} {:>8}",
        "round", "", "CPU s / million", "updates/s", "peak MiB", "ratio"
    );
    let mut costs = [const { Vec::new() }; 4];
    for round in 1..=arguments.rounds {
        let names = [
            "do-nothing consumer",
            "job without ClickHouse",
            "job without windows",
            "job with all",
        ];
        let in_turn = [
            bench.idle_consumer(end),
            bench.job(round, false, false, end),
            bench.job(round, true, false, end),
            bench.job(round, true, true, end),
        ];
        for ((name, cost), costs) in names.iter().zip(in_turn).zip(&mut costs) {
            costs.push(cost);
            let ratio = cost.cpu_per_million() / in_turn[0].cpu_per_million();
            print_row(&round.to_string(), name, &cost, ratio);
        }
    }
    println!(
        "median of {} rounds, ratios within a round:",
        arguments.rounds
    );
    let ratios = |index: usize| {
        let pairs = costs[index].iter().zip(&costs[0]);
        median(
            pairs
                .map(|(cost, idle)| cost.cpu_per_million() / idle.cpu_per_million())
                .collect(),
        )
    };
    println!(
        "  CPU s per million: consumer {:.2}, job {:.2} ({:.2}x), with ClickHouse {:.2} ({:.2}x), with \
         windows too {:.2} ({:.2}x)",
        median(costs[0].iter().map(Cost::cpu_per_million).collect()),
        median(costs[1].iter().map(Cost::cpu_per_million).collect()),
        ratios(1),
        median(costs[2].iter().map(Cost::cpu_per_million).collect()),
        ratios(2),
        median(costs[3].iter().map(Cost::cpu_per_million).collect()),
        ratios(3),
    );
    drop(services);
    let _ = std::fs::remove_dir_all(&folder);
    let bar = 4.0;
    assert!(
        ratios(1) <= bar,
        "the job without ClickHouse takes over {bar} times the consumer"
    );
}

fn print_row(round: &str, name: &str, cost: &Cost, ratio: f64) {
    println!(
        "{round:>5}  {name:<24} {:>16.2} {:>12.0} {:>10.0} {ratio:>7.2}x",
        cost.cpu_per_million(),
        cost.per_second(),
        cost.peak_mib,
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Bench<'a> {
    services: &'a Services,
    folder: PathBuf,
    arguments: &'a Arguments,
}

impl Bench<'_> {
    fn pipeline(&self, name: &str, clickhouse: bool, windows: bool) -> PathBuf {
        let path = self.folder.join(format!("{name}.toml"));
        let state = self.folder.join("state");
        let text = format!(
            "name = \"{name}\"\nsnapshots.url = {state:?}\nclickhouse.enabled = {clickhouse}\nwindows.enabled = {windows}\n"
        );
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

    fn command(&self) -> Command {
        let mut command = Command::new(RIDERFLOW);
        command
            .env("RIDERFLOW_KAFKA", self.services.kafka())
            .env("RIDERFLOW_CLICKHOUSE", self.services.clickhouse_url());
        command
    }

    fn preload(&self) {
        self.pipeline("preload", true, true);
        let producer =
            Producer::connect(&ProducerSettings::new(self.services.kafka())).expect("a producer");
        let plan = Plan::new(DRIVERS, ORDERS, FENCES, 42, now_ms() - 120_000);
        let settings = Settings {
            pace: Pace::Max,
            limit: Limit::Updates(self.arguments.updates),
            clear_up: false,
            ..Settings::new()
        };
        eprintln!("preloading {} updates", self.arguments.updates);
        let road = Straight::new(&producer, &Routes::default(), settings.pace).expect("topics");
        run(&road, plan, &settings, &|| false, |_| {}).expect("the city is preloaded");
    }

    fn client(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.services.kafka())
            .set("group.id", group)
            .create()
            .expect("a client")
    }

    /// The sum of the partitions' ends.
    fn end(&self) -> u64 {
        let client = self.client("bench");
        partitions(&client)
            .iter()
            .map(|&partition| {
                client
                    .fetch_watermarks(TOPIC, partition, ANSWER)
                    .expect("watermarks")
                    .1 as u64
            })
            .sum()
    }

    fn idle_consumer(&self, end: u64) -> Cost {
        let began = Instant::now();
        let mut child = Command::new(std::env::current_exe().expect("this file"))
            .args(["consume", self.services.kafka()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut output, &mut line).expect("the child says when done");
        assert_eq!(line.trim(), end.to_string(), "every update was consumed");
        let cost = cost_of(&child, began, end);
        drop(child.stdin.take());
        child.wait().expect("the child ends");
        cost
    }

    fn job(&self, round: usize, clickhouse: bool, windows: bool, end: u64) -> Cost {
        let name = format!("drain-{round}-{clickhouse}-{windows}");
        let pipeline = self.pipeline(&name, clickhouse, windows);
        let rows_before = if clickhouse { self.rows() } else { 0 };
        let last_insert = if clickhouse { self.last_insert() } else { 0.0 };
        let began = Instant::now();
        let mut command = self.command();
        command
            .arg("run")
            .arg(&pipeline)
            .args(["--http", "127.0.0.1:0"]);
        command.args(["-w", &self.arguments.workers.to_string()]);
        let mut child = Ended(
            command
                .stderr(Stdio::null())
                .spawn()
                .expect("the job starts"),
        );
        let client = self.client(&name);
        let all = partitions(&client);
        loop {
            let mut list = TopicPartitionList::new();
            all.iter().for_each(|&partition| {
                list.add_partition(TOPIC, partition);
            });
            let committed = client.committed_offsets(list, ANSWER).expect("offsets");
            let done: u64 = committed
                .elements()
                .iter()
                .filter_map(|element| match element.offset() {
                    Offset::Offset(offset) => Some(offset as u64),
                    _ => None,
                })
                .sum();
            if done >= end && (!clickhouse || self.rows() - rows_before >= end) {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the job is stuck at {done} of {end}"
            );
            assert!(matches!(child.0.try_wait(), Ok(None)), "the job has ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        let wall_s = began.elapsed().as_secs_f64();
        if clickhouse {
            let rows = self.rows_per_insert(last_insert);
            eprintln!("inserts into driver_locations: {rows:.0} rows on average");
            assert!(rows >= FEWEST_ROWS, "{rows} rows an insert");
        }
        if windows {
            // The last ones are told within 10 s.
            std::thread::sleep(Duration::from_secs(12));
        }
        Cost {
            wall_s,
            ..cost_of(&child.0, began, end)
        }
    }

    fn rows(&self) -> u64 {
        self.ask("SELECT count() FROM riderflow.driver_locations") as u64
    }

    /// The number of the last insert so far.
    fn last_insert(&self) -> f64 {
        self.ask(
            "SELECT max(max_block_number) FROM system.parts \
             WHERE database = 'riderflow' AND table = 'driver_locations'",
        )
    }

    /// Each insert is a part, which is known for some minutes after it was merged.
    fn rows_per_insert(&self, after: f64) -> f64 {
        self.ask(&format!(
            "SELECT avg(rows) FROM system.parts WHERE database = 'riderflow' \
             AND table = 'driver_locations' AND level = 0 AND min_block_number > {after}"
        ))
    }

    fn ask(&self, question: &str) -> f64 {
        let server = Server {
            url: self.services.clickhouse_url().into(),
            user: None,
            password: None,
        };
        let answer = ask(&server, question, "TSV").expect("an answer");
        answer.trim().parse().expect("a number")
    }
}

/// A child that is killed when the bench is done with it, or fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn partitions(client: &BaseConsumer) -> Vec<i32> {
    let metadata = client
        .fetch_metadata(Some(TOPIC), ANSWER)
        .expect("metadata");
    metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| partition.id())
        .collect()
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
    let mut open = partitions(&consumer).len();
    let mut list = TopicPartitionList::new();
    for partition in 0..open as i32 {
        list.add_partition_offset(TOPIC, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
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

/// CPU and peak memory of a living child.
fn cost_of(child: &Child, began: Instant, updates: u64) -> Cost {
    let wall_s = began.elapsed().as_secs_f64();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it lives");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|&at| fields[at].parse::<u64>().expect("ticks"))
        .sum();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("alive");
    let peak_kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("a peak");
    // The kernel counts in hundredths of a second on every Linux that Rust supports.
    Cost {
        cpu_s: ticks as f64 / 100.0,
        wall_s,
        peak_mib: peak_kib / 1024.0,
        updates,
    }
}

fn now_ms() -> i64 {
    riderflow::runtime::wall_clock_ms()
}

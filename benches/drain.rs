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

mod common;

use std::time::{Duration, Instant};

use clap::Parser;
use common::{Cost, PATIENCE, Stand, median};
use riderflow::config::Routes;
use riderflow::kafka::producer::{Producer, Settings as ProducerSettings};
use riderflow::simulate::{Limit, Pace, Settings, Straight, run};

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

fn main() {
    if common::consume_if_asked() {
        return;
    }
    let arguments = Arguments::parse();
    let bench = Bench {
        stand: Stand::start("drain", true),
        arguments: &arguments,
    };
    bench.preload();
    let end = bench.stand.end(&bench.stand.client("bench"), common::TOPIC);

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
            bench.stand.idle_consumer(end),
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
    drop(bench);
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

struct Bench<'a> {
    stand: Stand,
    arguments: &'a Arguments,
}

impl Bench<'_> {
    fn preload(&self) {
        self.stand.pipeline("preload", "");
        let producer = Producer::connect(&ProducerSettings::new(self.stand.services.kafka()))
            .expect("a producer");
        let settings = Settings {
            pace: Pace::Max,
            limit: Limit::Updates(self.arguments.updates),
            clear_up: false,
            ..Settings::new()
        };
        eprintln!("preloading {} updates", self.arguments.updates);
        let road = Straight::new(&producer, &Routes::default(), settings.pace).expect("topics");
        let city = common::city(120_000);
        run(&road, city, &settings, &|| false, |_| {}).expect("the city is preloaded");
    }

    fn job(&self, round: usize, clickhouse: bool, windows: bool, end: u64) -> Cost {
        let stand = &self.stand;
        let name = format!("drain-{round}-{clickhouse}-{windows}");
        let toml = format!("clickhouse.enabled = {clickhouse}\nwindows.enabled = {windows}");
        let pipeline = stand.pipeline(&name, &toml);
        let rows_before = if clickhouse { self.rows() } else { 0 };
        let began = Instant::now();
        let mut job = stand.run(&pipeline, self.arguments.workers);
        let client = stand.client(&name);
        loop {
            let done = stand.committed(&client);
            if done >= end && (!clickhouse || self.rows() - rows_before >= end) {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the job is stuck at {done} of {end}"
            );
            assert!(job.is_running(), "the job has ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        let wall_s = began.elapsed().as_secs_f64();
        if windows {
            // The last ones are told within 10 s.
            std::thread::sleep(Duration::from_secs(12));
        }
        Cost {
            wall_s,
            ..Cost::of(&job.0, began, end)
        }
    }

    fn rows(&self) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio");
        let client = clickhouse::Client::default().with_url(self.stand.services.clickhouse_url());
        let count = client
            .query("SELECT count() FROM riderflow.driver_locations")
            .fetch_one();
        runtime.block_on(count).expect("a count")
    }
}

//! How does the cost of an update grow, with the input, the fences, the workers and the drivers?
//!
//! `cargo bench --bench growth [-- --updates 20000000 --rounds 3 --parts updates,fences,workers,drivers]`
//!
//! Density of the input: one city of 100,000 drivers at one update a second, 1,000 fences, 20,000
//! open orders, 3 in 100 updates late, duplicate or inaccurate; of these one number is changed at
//! a time. Jobs run without ClickHouse and windows. For the first three parts what is to be read
//! lies in Kafka beforehand, and the jobs that are compared run in turn, each as a process of its
//! own, from its start until all is committed; what a job takes to start and to read the fences,
//! measured before there is an update, is taken off. No driver falls silent, which all would do at
//! the end of a history. For the last part the drivers are live, and memory is looked at while the
//! job keeps up; then another job reads the same from the beginning as fast as it can.
//!
//! Exit code 1 if a bar is missed, unless `--only-print`.

mod common;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use common::{Bars, Cost, Drain, Lab, Running, cost_of, median};
use riderflow::runtime::wall_clock_ms;
use riderflow::simulate::Plan;

const DRIVERS: u32 = 100_000;
const ORDERS: u32 = 20_000;
const FENCES: u32 = 1_000;
/// Drivers who stop at the end of a history are not told of.
const TOML: &str = "drivers.silent_s = 1000000";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Updates,
    Fences,
    Workers,
    Drivers,
}

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, value_delimiter = ',', default_values_t = [Part::Updates, Part::Fences, Part::Workers, Part::Drivers])]
    parts: Vec<Part>,
    /// The most; the least is a twentieth of it
    #[arg(long, default_value_t = 20_000_000)]
    updates: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of 100,000 updates each, in the part on drivers
    #[arg(long, default_value_t = 40)]
    steady: u64,
    #[arg(long)]
    only_print: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("none is hidden");
        f.write_str(value.get_name())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut bars = Bars::default();
    let most = arguments.updates;
    // Of these a job does not feel the start.
    let some = (most / 10).max(1);
    for part in &arguments.parts {
        match part {
            Part::Updates => {
                let few = Stand::new("few", DRIVERS, FENCES, most / 20);
                let many = Stand::new("many", DRIVERS, FENCES, most);
                let ratio = compare("updates", [&few, &many], [2, 2], &arguments);
                bars.hold("20 times the updates, CPU of each", ratio, 0.9..=1.1);
            }
            Part::Fences => {
                let few = Stand::new("few", DRIVERS, FENCES, some);
                let many = Stand::new("many", DRIVERS, 100 * FENCES, some);
                let ratio = compare("fences", [&few, &many], [2, 2], &arguments);
                bars.hold("100 times the fences, CPU of an update", ratio, ..=1.3);
            }
            Part::Workers => {
                let stand = Stand::new("one", DRIVERS, FENCES, some);
                let ratio = compare("workers", [&stand, &stand], [1, 2], &arguments);
                bars.hold("2 workers, CPU of both together", ratio, ..=1.1);
            }
            Part::Drivers => {
                println!("memory, MiB");
                println!("{:>12}  {:<36} {:>9} {:>9}", "drivers", "", "peak", "now");
                for (drivers, most_mib) in [(DRIVERS, 300.0), (10 * DRIVERS, 1_536.0)] {
                    let peak_mib = memory(drivers, &arguments);
                    bars.hold(&format!("{drivers} drivers, MiB"), peak_mib, ..=most_mib);
                }
            }
        }
    }
    bars.finish(arguments.only_print)
}

/// What jobs are to read, and what one takes that finds no updates yet.
struct Stand {
    lab: Lab,
    start: Cost,
    what: String,
}

impl Stand {
    fn new(name: &str, drivers: u32, fences: u32, updates: u64) -> Self {
        let lab = Lab::without_clickhouse(&format!("growth-{name}"));
        let length_ms = (updates * 1_030 / u64::from(drivers)) as i64;
        let start_ms = wall_clock_ms() - length_ms - 60_000;
        let mut city = lab.preload(Plan::new(drivers, ORDERS, fences, 42, start_ms));
        let start = lab.drain(&drain("start", 2));
        eprintln!("writing {updates} updates");
        city.write(updates);
        let what = format!("{fences} fences, {updates} updates");
        Self { lab, start, what }
    }
}

fn drain(name: &str, workers: u32) -> Drain<'_> {
    Drain {
        name,
        workers,
        clickhouse: false,
        windows: false,
        toml: TOML,
    }
}

/// How often the second's cost of an update is the first's: the median of rounds.
fn compare(part: &str, stands: [&Stand; 2], workers: [u32; 2], arguments: &Arguments) -> f64 {
    println!(
        "{part}\n{:>5}  {:<40} {:>15} {:>8} {:>10} {:>9}",
        "round", "", "CPU s / million", "start, s", "updates/s", "peak MiB"
    );
    let mut ratios = Vec::new();
    for round in 1..=arguments.rounds {
        let costs = [0, 1].map(|at| {
            let Stand { lab, start, what } = stands[at];
            let name = format!("{part}-{round}-{at}");
            let cost = lab.drain(&drain(&name, workers[at])).after(start);
            println!(
                "{round:>5}  {:<40} {:>15.3} {:>8.2} {:>10.0} {:>9.0}",
                format!("{what}, {} workers", workers[at]),
                cost.cpu_per_million(),
                start.cpu_s,
                cost.per_second(),
                cost.peak_mib,
            );
            cost.cpu_per_million()
        });
        ratios.push(costs[1] / costs[0]);
    }
    println!("  ratios within a round: {ratios:.3?}");
    median(ratios)
}

/// The most that was resident of a job with nothing but events, live or catching up.
fn memory(drivers: u32, arguments: &Arguments) -> f64 {
    let lab = Lab::start(&format!("growth-drivers-{drivers}"));
    let pipeline = lab.pipeline("steady", &format!("clickhouse.enabled = false\n{TOML}"));
    let job = lab.job(&pipeline, 2);
    let mut command = lab.command();
    command
        .args(["simulate", "--rate", "100000", "--keep-orders"])
        .args(["--drivers", &drivers.to_string()])
        .args(["--orders", &ORDERS.to_string()])
        .args(["--fences", &FENCES.to_string()])
        .args(["--duration", &arguments.steady.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut city = Running::start(&mut command);
    assert!(city.child().wait().expect("a child").success(), "the city");
    let steady = cost_of(job.id(), Duration::ZERO, 0);
    let print = |what: &str, cost: Cost| {
        println!(
            "{drivers:>12}  {what:<36} {:>9.0} {:>9.0}",
            cost.peak_mib, cost.resident_mib
        );
        cost.peak_mib
    };
    let live = print("live, 100,000 updates/s", steady);
    drop(job);
    let drained = print("catching up", lab.drain(&drain("drained", 2)));
    print(
        "catching up, ClickHouse and windows",
        lab.drain(&Drain {
            name: "drained-with-all",
            workers: 2,
            clickhouse: true,
            windows: true,
            toml: TOML,
        }),
    );
    live.max(drained)
}

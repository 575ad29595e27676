//! How does the cost of an update grow, with the input, the fences, the workers and the drivers?
//!
//! `cargo bench --bench growth [-- --updates 20000000 --rounds 3 --parts updates,fences,workers,drivers]`
//!
//! Density of the input: one city of 100,000 drivers at one update a second, 1,000 fences, 20,000
//! open orders, 3 in 100 updates late, duplicate or inaccurate; of these one number is changed at
//! a time. 100 times the fences are once 99 copies of the city's, degrees away, so that a driver
//! meets the same ones; and once all in the one city, where they are smaller and a driver crosses
//! more of them, so that there are more events.
//!
//! Jobs run without ClickHouse and windows. For the first three parts what is to be read lies in
//! Kafka beforehand. The cost of an update early and late in the input is taken within a run.
//! Jobs that are compared with others run in turn, each as a process of its own, from its start
//! until all is committed; what a job with so many workers takes to start and to read the fences,
//! measured before there is an update, is taken off. No driver falls silent, which all would do at
//! the end of a history.
//! For the last part the drivers are live, and memory is looked at while the job keeps up, which
//! its lag at the end must show; then another job reads the same from the beginning as fast as it can.
//!
//! Exit code 1 if a bar is missed, unless `--only-print`.

mod common;

use std::collections::BTreeMap;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use common::{Bars, Cost, DRIVERS, Drain, FENCES, Lab, ORDERS, Running, cost_of, cpu_s, median};
use riderflow::model::{Fence, FenceId, Geometry, Position, Ring};
use riderflow::runtime::wall_clock_ms;
use riderflow::simulate::Plan;

/// Updates a second of drivers who are live.
const RATE: u32 = 100_000;
/// Of the largest number of fences.
const PLACES: u32 = 100;
/// A job that takes longer to start is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
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
    /// In the first part; in the next two, a tenth of it
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
                let stand = Stand::new("many", FENCES, 1, most, &[]);
                let ratio = early_and_late(&stand, most, &arguments);
                bars.hold("late in the input, CPU of an update", ratio, 0.9..=1.1);
            }
            Part::Fences => {
                let few = Stand::new("few", FENCES, 1, some, &[2]);
                let far = Stand::new("far", FENCES, PLACES, some, &[2]);
                let ratio = compare("fences elsewhere", [&few, &far], [2, 2], &arguments);
                bars.hold("100 times the fences, CPU of an update", ratio, ..=1.3);
                drop(far);
                let dense = Stand::new("dense", PLACES * FENCES, 1, some, &[2]);
                let ratio = compare(
                    "fences in the same city",
                    [&few, &dense],
                    [2, 2],
                    &arguments,
                );
                println!("  100 times the fences in the same city: {ratio:.2} times the CPU");
            }
            Part::Workers => {
                let stand = Stand::new("one", FENCES, 1, some, &[1, 2]);
                let ratio = compare("workers", [&stand, &stand], [1, 2], &arguments);
                bars.hold("2 workers, CPU of both together", ratio, ..=1.1);
            }
            Part::Drivers => {
                println!("memory, MiB");
                println!("{:>12}  {:<36} {:>9} {:>9}", "drivers", "", "peak", "now");
                for (drivers, most_mib) in [(DRIVERS, 300.0), (10 * DRIVERS, 1_536.0)] {
                    let peak_mib = memory(drivers, &arguments, &mut bars);
                    bars.hold(&format!("{drivers} drivers, MiB"), peak_mib, ..=most_mib);
                }
            }
        }
    }
    bars.finish(arguments.only_print)
}

/// What jobs are to read, and what one takes that finds no updates yet, by its workers.
struct Stand {
    lab: Lab,
    starts: BTreeMap<u32, Cost>,
    what: String,
}

impl Stand {
    /// Fences in the drivers' city, and as many in each of the other places.
    fn new(name: &str, fences: u32, places: u32, updates: u64, workers: &[u32]) -> Self {
        let lab = Lab::without_clickhouse(&format!("growth-{name}"));
        let length_ms = (updates * 1_060 / u64::from(DRIVERS)) as i64;
        let start_ms = wall_clock_ms() - length_ms - 60_000;
        let mut city = lab.preload(Plan::new(DRIVERS, ORDERS, fences, 42, start_ms));
        for place in 1..places {
            let there: Vec<Fence> = city
                .fences()
                .iter()
                .map(|fence| moved(fence, place))
                .collect();
            city.write_fences(&there);
        }
        let starts = workers.iter().map(|&workers| {
            let name = format!("start-{workers}");
            (workers, lab.drain(&drain(&name, workers)))
        });
        let starts = starts.collect();
        eprintln!("writing {updates} updates");
        city.write(updates);
        let what = format!("{places} x {fences} fences, {updates} updates");
        Self { lab, starts, what }
    }
}

/// The same fence in another place, degrees away.
fn moved(fence: &Fence, place: u32) -> Fence {
    let (east, north) = (f64::from(place % 10), f64::from(place / 10));
    let to = |at: &Position| Position {
        longitude: at.longitude + east,
        latitude: at.latitude + north,
    };
    let rings = |rings: &Vec<Ring>| -> Vec<Ring> {
        let moved = rings.iter().map(|ring| ring.iter().map(to).collect());
        moved.collect()
    };
    Fence {
        id: FenceId(format!("{}-{place}", fence.id.0).into()),
        geometry: match &fence.geometry {
            Geometry::Polygon(polygon) => Geometry::Polygon(rings(polygon)),
            Geometry::MultiPolygon(all) => Geometry::MultiPolygon(all.iter().map(rings).collect()),
            Geometry::Circle { center, radius_m } => Geometry::Circle {
                center: to(center),
                radius_m: *radius_m,
            },
        },
        ..fence.clone()
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
        "{part}\n{:>5}  {:<48} {:>15} {:>8} {:>10} {:>9} {:>8}",
        "round", "", "CPU s / million", "start, s", "updates/s", "peak MiB", "events"
    );
    let mut ratios = Vec::new();
    // What was told of an input, by where it stands.
    let mut told = BTreeMap::new();
    for round in 1..=arguments.rounds {
        let costs = [0, 1].map(|at| {
            let Stand { lab, starts, what } = stands[at];
            let start = &starts[&workers[at]];
            let name = format!("{}-{round}-{at}", part.replace(' ', "-"));
            let cost = lab.drain(&drain(&name, workers[at])).after(start);
            println!(
                "{round:>5}  {:<48} {:>15.3} {:>8.2} {:>10.0} {:>9.0} {:>8.0}",
                format!("{what}, {} workers", workers[at]),
                cost.cpu_per_million(),
                start.cpu_s,
                cost.per_second(),
                cost.peak_mib,
                cost.events,
            );
            let before = *told.entry(lab.folder()).or_insert(cost.events);
            assert_eq!(cost.events, before, "the same input tells the same");
            cost.cpu_per_million()
        });
        ratios.push(costs[1] / costs[0]);
    }
    println!("  ratios within a round: {ratios:.3?}");
    median(ratios)
}

/// How often the CPU of an update late in the input is that of one early in it: the median of
/// rounds. Both are taken within one run, from a twentieth on, when each driver has been heard,
/// until a twentieth before the end, as much of which is in memory by then.
fn early_and_late(stand: &Stand, updates: u64, arguments: &Arguments) -> f64 {
    let part = |twentieths: u64| updates as f64 / 20.0 * twentieths as f64;
    let mut ratios = Vec::new();
    for round in 1..=arguments.rounds {
        let mut looks: Vec<(f64, f64)> = Vec::new();
        let cost = stand
            .lab
            .drain_watched(&drain(&format!("updates-{round}"), 2), |job| {
                let judged = job.try_metric("riderflow_updates_total");
                looks.extend(judged.map(|judged| (judged, cpu_s(job.id()))));
            });
        let per_million = |from: f64, to: f64| {
            let at = |judged: f64| {
                looks
                    .iter()
                    .find(|look| look.0 >= judged)
                    .expect("it was read")
            };
            let ((from, before_s), (to, after_s)) = (at(from), at(to));
            (after_s - before_s) / (to - from) * 1e6
        };
        println!(
            "updates, round {round}: {} in all, {:.3} CPU s per million with the start, {:.0} \
             updates/s, {:.0} MiB at the most",
            cost.updates,
            cost.cpu_per_million(),
            cost.per_second(),
            cost.peak_mib,
        );
        let parts: Vec<f64> = (1..19)
            .step_by(2)
            .map(|from| per_million(part(from), part(from + 2)))
            .collect();
        for (at, cpu_s) in parts.iter().enumerate() {
            let from = part(2 * at as u64 + 1);
            println!("  from {from:>10.0} on: {cpu_s:.3} CPU s per million");
        }
        let third = parts.len() / 3;
        let early = median(parts[..third].to_vec());
        let late = median(parts[parts.len() - third..].to_vec());
        ratios.push(late / early);
    }
    println!("  median of the last three of these to that of the first three: {ratios:.3?}");
    median(ratios)
}

/// The most that was resident of a job with nothing but events, live or catching up.
fn memory(drivers: u32, arguments: &Arguments, bars: &mut Bars) -> f64 {
    let lab = Lab::start(&format!("growth-drivers-{drivers}"));
    let pipeline = lab.pipeline("steady", &format!("clickhouse.enabled = false\n{TOML}"));
    let mut job = lab.job(&pipeline, 2);
    job.wait_until_ready(PATIENCE);
    let mut command = lab.command();
    command
        .args(["simulate", "--keep-orders"])
        .args(["--rate", &RATE.to_string()])
        .args(["--drivers", &drivers.to_string()])
        .args(["--orders", &ORDERS.to_string()])
        .args(["--fences", &FENCES.to_string()])
        .args(["--duration", &arguments.steady.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut city = Running::start(&mut command);
    assert!(city.child().wait().expect("a child").success(), "the city");
    let lag = job.try_metric("riderflow_lag_records");
    let lag_s = lag.unwrap_or(f64::NAN) / f64::from(RATE);
    let steady = cost_of(job.id(), Duration::ZERO, 0);
    let print = |what: &str, cost: Cost| {
        println!(
            "{drivers:>12}  {what:<36} {:>9.0} {:>9.0}",
            cost.peak_mib, cost.resident_mib
        );
        cost.peak_mib
    };
    let live = print("live, 100,000 updates/s", steady);
    bars.hold("lag while live, s", lag_s, ..=1.0);
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

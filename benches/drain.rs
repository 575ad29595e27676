//! What does an update cost? CPU seconds per million updates, drained from a preloaded topic.
//!
//! `cargo bench --bench drain [-- --updates 2000000 --workers 2 --rounds 3]`
//!
//! Density of the input: 100,000 drivers at one update a second in one city, 1,000 fences,
//! 20,000 open orders, 3 in 100 updates late, duplicate or inaccurate; JSON of 125 bytes on
//! average, half of the phones with accuracy, speed and heading. In each round, in turn: a
//! consumer that does nothing, the job without ClickHouse, with it but without windows, and the
//! whole job; each as a process of its own, on the same broker. CPU and peak memory are the
//! process's own, by the kernel's account, from its start until all is consumed, committed and,
//! with ClickHouse, stored. Inserts of `driver_locations` must hold 50,000 rows on average.

mod common;

use clap::Parser;
use common::{Cost, Drain, Lab, became_consumer, median};
use riderflow::runtime::wall_clock_ms;
use riderflow::simulate::Plan;

const DRIVERS: u32 = 100_000;
const ORDERS: u32 = 20_000;
const FENCES: u32 = 1_000;

/// The fewest rows of an insert into `driver_locations`, on average.
const FEWEST_ROWS: u64 = 50_000;

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
    if became_consumer() {
        return;
    }
    let arguments = Arguments::parse();
    let lab = Lab::start("drain");
    eprintln!("preloading {} updates", arguments.updates);
    let plan = Plan::new(DRIVERS, ORDERS, FENCES, 42, wall_clock_ms() - 120_000);
    lab.preload(plan).write(arguments.updates);

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
            lab.idle_consumer(),
            drain(&lab, &arguments, round, false, false),
            drain(&lab, &arguments, round, true, false),
            drain(&lab, &arguments, round, true, true),
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
    drop(lab);
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

fn drain(lab: &Lab, arguments: &Arguments, round: usize, clickhouse: bool, windows: bool) -> Cost {
    let last_insert = if clickhouse {
        lab.ask(&format!(
            "SELECT toUInt64(max(max_block_number)) FROM {PARTS}"
        ))
    } else {
        0
    };
    let cost = lab.drain(&Drain {
        name: &format!("drain-{round}-{clickhouse}-{windows}"),
        workers: arguments.workers,
        clickhouse,
        windows,
        toml: "",
    });
    if clickhouse {
        // Each insert is a part, which is known for some minutes after it was merged.
        let rows = lab.ask(&format!(
            "SELECT toUInt64(avg(rows)) FROM {PARTS} AND level = 0 AND min_block_number > {last_insert}"
        ));
        eprintln!("inserts into driver_locations: {rows} rows on average");
        assert!(rows >= FEWEST_ROWS, "{rows} rows an insert");
    }
    cost
}

const PARTS: &str = "system.parts WHERE database = 'riderflow' AND table = 'driver_locations'";

//! What does an update cost? CPU seconds per million updates, drained from a preloaded topic.
//!
//! `cargo bench --bench drain [-- --updates 5000000 --workers 2 --rounds 3 --only-print]`
//!
//! Density of the input: 100,000 drivers at one update a second in one city, 1,000 fences,
//! 20,000 open orders, 3 in 100 updates late, duplicate or inaccurate; JSON of 126 bytes on
//! average, half of the phones with accuracy, speed and heading. In each round, in turn: a
//! consumer that does nothing, the job without ClickHouse, with it but without windows, and the
//! whole job; each as a process of its own, on the same broker. CPU and peak memory are the
//! process's own, by the kernel's account, from its start until all is consumed, committed and,
//! with ClickHouse, stored, and no timer tells anything any more. Updates/s are without that wait.
//!
//! Bars, of medians: 2.0 CPU s per million and 2.7 times the consumer without ClickHouse, 2.8 with
//! it, 3.5 with windows too; without ClickHouse 600,000 updates/s where the consumer reaches
//! 1,000,000, else the same share of it, and 300 MiB at any time; and inserts of
//! `driver_locations` hold at least 50,000 rows on average. Exit code 1 if a bar is missed, unless
//! `--only-print`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{Bars, Cost, Drain, Lab, became_consumer, median};

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5_000_000)]
    updates: u64,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long)]
    only_print: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if became_consumer() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let lab = Lab::start("drain");
    lab.preload_city(arguments.updates);

    println!(
        "{:>5}  {:<24} {:>16} {:>12} {:>10} {:>8}",
        "round", "", "CPU s / million", "updates/s", "peak MiB", "ratio"
    );
    let mut costs = [const { Vec::new() }; 4];
    let mut fewest_rows = f64::INFINITY;
    for round in 1..=arguments.rounds {
        let names = [
            "do-nothing consumer",
            "job without ClickHouse",
            "job without windows",
            "job with all",
        ];
        let mut drain = |clickhouse, windows| {
            let (cost, rows) = drain(&lab, &arguments, round, clickhouse, windows);
            fewest_rows = fewest_rows.min(rows);
            cost
        };
        let in_turn = [
            lab.idle_consumer(),
            drain(false, false),
            drain(true, false),
            drain(true, true),
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
    let cpu = |index: usize| median(costs[index].iter().map(Cost::cpu_per_million).collect());
    let ratio = |index: usize| {
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
        cpu(0),
        cpu(1),
        ratio(1),
        cpu(2),
        ratio(2),
        cpu(3),
        ratio(3),
    );
    let per_second = |index: usize| median(costs[index].iter().map(Cost::per_second).collect());
    let least_per_second = 0.6 * per_second(0).min(1e6);
    let peak_mib = costs[1]
        .iter()
        .map(|cost| cost.peak_mib)
        .fold(0.0, f64::max);
    let mut bars = Bars::default();
    bars.hold("without ClickHouse, CPU s per million", cpu(1), ..=2.0);
    bars.hold("without ClickHouse, times the consumer", ratio(1), ..=2.7);
    bars.hold(
        "without ClickHouse, updates/s",
        per_second(1),
        least_per_second..,
    );
    bars.hold("without ClickHouse, MiB", peak_mib, ..=300.0);
    bars.hold("with ClickHouse, CPU s per million", cpu(2), ..=2.8);
    bars.hold("with windows too, CPU s per million", cpu(3), ..=3.5);
    bars.hold("rows per insert", fewest_rows, 50_000.0..);
    bars.finish(arguments.only_print)
}

fn print_row(round: &str, name: &str, cost: &Cost, ratio: f64) {
    println!(
        "{round:>5}  {name:<24} {:>16.2} {:>12.0} {:>10.0} {ratio:>7.2}x",
        cost.cpu_per_million(),
        cost.per_second(),
        cost.peak_mib,
    );
}

/// What it took, and how many rows an insert into `driver_locations` had on average; without
/// ClickHouse, as many as one likes.
fn drain(
    lab: &Lab,
    arguments: &Arguments,
    round: usize,
    clickhouse: bool,
    windows: bool,
) -> (Cost, f64) {
    let before = if clickhouse { lab.inserts() } else { 0.0 };
    let cost = lab.drain(&Drain {
        name: &format!("drain-{round}-{clickhouse}-{windows}"),
        workers: arguments.workers,
        clickhouse,
        windows,
        toml: "",
    });
    if !clickhouse {
        return (cost, f64::INFINITY);
    }
    let rows = cost.updates as f64 / (lab.inserts() - before);
    eprintln!("inserts into driver_locations: {rows:.0} rows on average");
    (cost, rows)
}

//! What does a row of `driver_locations` cost, on disk and in the writer's thread?
//!
//! `cargo bench --bench stored [-- --drivers 100000 --seconds 60]`
//!
//! The simulated city, an update a second of each driver, without Kafka and the job: rows go to
//! the writer as the job gives them, an epoch of 100 ms at a time, as fast as they are taken.
//! Bytes are of the whole table on disk, indexes and projection too, by the server's account:
//! as merges have left them when the last row is stored, and when all is merged. CPU is that of
//! the thread `clickhouse` of this process, by the kernel's account.

#[path = "../tests/common/city_rows.rs"]
#[allow(unreachable_pub, reason = "a test uses it too")]
mod city_rows;
mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use city_rows::CityRows;
use clap::Parser;
use common::Lab;
use riderflow::clickhouse::{DATABASE, Notice, Options, Origin, Rows, Writer, migrate};
use riderflow::config::Pipeline;
use riderflow::simulate::Plan;

/// The most bytes of a row, when all is merged.
const MOST_BYTES: f64 = 12.0;
/// The fewest rows of an insert, on average.
const FEWEST_ROWS: f64 = 50_000.0;
/// Rows of an epoch come from two workers.
const WORKERS: usize = 2;
/// A writer that has no room for so long, or does not end, is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 100_000)]
    drivers: u32,
    #[arg(long, default_value_t = 60)]
    seconds: i64,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let Arguments {
        drivers, seconds, ..
    } = Arguments::parse();
    let lab = Lab::without_kafka("stored");
    let mut pipeline = Pipeline::defaults("stored");
    pipeline.clickhouse.url = lab.services().clickhouse_url().to_owned();
    migrate::apply(&lab.server(), DATABASE).expect("the tables are made");

    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&batches);
    let observer = move |notice: &Notice| {
        if let Notice::Stored { rows, .. } = notice {
            seen.lock().expect("no panic").push(*rows);
        }
    };
    let writer = Writer::start(Options::of(&pipeline, 1), Some(Arc::new(observer)));
    let writer = writer.expect("the writer starts");
    let start_ms = riderflow::runtime::wall_clock_ms() - seconds * 1_000;
    let mut city = CityRows::new(Plan::new(drivers, drivers / 5, 0, 42, start_ms));
    let (began, mut sent) = (Instant::now(), 0);
    while city.now_ms() < seconds * 1_000 {
        let mut rows = Vec::new();
        (0..5).for_each(|_| city.step(&mut rows));
        sent += rows.len();
        let (one, other) = rows
            .into_iter()
            .partition(|row| row.update.driver.0 % 2 == 0);
        let parts: [Vec<_>; WORKERS] = [one, other];
        for rows in parts {
            let asked = Instant::now();
            let taken = writer.send_unless(Rows::Locations(rows), Origin::New, || {
                asked.elapsed() > PATIENCE
            });
            assert!(taken.expect("it runs"), "stuck: {:?}", writer.stats());
        }
    }
    let asked = Instant::now();
    while writer.stats().locations_stored < sent as u64 {
        let stats = writer.stats();
        assert!(asked.elapsed() < PATIENCE, "stuck: {stats:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (took, cpu_s) = (began.elapsed(), thread_cpu_s());
    let bytes = "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts \
         WHERE database = 'riderflow' AND table = 'driver_locations' AND active";
    let before = lab.number(bytes);
    lab.ask("OPTIMIZE TABLE riderflow.driver_locations FINAL");
    let after = lab.number(bytes);
    let columns = lab.ask(
        "SELECT column, round(sum(column_data_compressed_bytes) / sum(rows), 2) \
         FROM system.parts_columns \
         WHERE database = 'riderflow' AND table = 'driver_locations' AND active \
         GROUP BY column ORDER BY min(column_position)",
    );
    writer
        .flush_and_stop(Duration::from_secs(10))
        .expect("all is stored");
    let batches = batches.lock().expect("no panic");
    let rows = sent as f64 / batches.len() as f64;
    println!("{columns}");
    println!(
        "{sent} rows in {took:.1?}, {} inserts of {rows:.0} rows; {before:.2} bytes a row as stored, \
         {after:.2} when merged; {:.3} CPU s per million rows in the thread",
        batches.len(),
        cpu_s / sent as f64 * 1e6
    );
    assert!(after <= MOST_BYTES, "{after} bytes a row");
    assert!(rows >= FEWEST_ROWS, "{rows} rows an insert");
}

/// CPU of the writer's thread so far.
fn thread_cpu_s() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let of = |folder: &Path| {
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        let times = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        let ns: f64 = times.split(' ').next()?.parse().ok()?;
        (name.trim() == "clickhouse").then_some(ns * 1e-9)
    };
    tasks.filter_map(|task| of(&task.ok()?.path())).sum()
}

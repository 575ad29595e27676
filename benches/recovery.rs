//! How long is a killed job away, and what do its snapshots cost while it runs?
//!
//! `cargo bench --bench recovery -- [--drivers 100000] [--drivers 1000000] [--rate 20000]
//! [--workers 2] [--steady 360] [--kills 5]`
//!
//! Density of the input: one city in real time, as a process of its own beside the services; its
//! drivers take turns, so with 20,000 updates a second each of 100,000 drivers sends one in 5 s,
//! each of 1,000,000 one in 50 s; 1,000 fences, one order for five drivers, half of the phones with
//! accuracy, speed and heading. The job keeps everything: events, rows, windows, a snapshot every
//! 10 s. It runs until each driver is known and `--steady` seconds are over, by default as long as
//! a chain of snapshots may become; then it is killed by SIGKILL and started again, and again.
//! Recovery is from the start of the process to the first epoch that it commits, while the updates
//! go on. A pause is the time that an operator takes to give out its state, for so long its worker
//! does nothing else.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use common::measured::{Latencies, resident_mib};
use common::{Lab, Running, lab};

/// A start that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(180);
const SECOND: Duration = Duration::from_secs(1);
/// Between a recovery and the next kill: a snapshot or two.
const BETWEEN: Duration = Duration::from_secs(15);

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_values_t = [100_000, 1_000_000])]
    drivers: Vec<u64>,
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    #[arg(long = "steady", default_value_t = 360)]
    steady_s: u64,
    #[arg(long, default_value_t = 5)]
    kills: usize,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    for &drivers in &arguments.drivers {
        Trial::new(&arguments, drivers).run();
    }
}

struct Trial<'a> {
    arguments: &'a Arguments,
    drivers: u64,
    lab: Lab,
    pipeline: PathBuf,
    snapshots: PathBuf,
    starts: usize,
}

impl<'a> Trial<'a> {
    fn new(arguments: &'a Arguments, drivers: u64) -> Self {
        let lab = lab(&format!("recovery with {drivers} drivers"));
        let snapshots = lab.folder().join("snapshots");
        // Drivers who send less often are not silent.
        let toml = format!("drivers.silent_s = 300\nsnapshots.url = {snapshots:?}");
        let pipeline = lab.pipeline("recovery", &toml);
        lab.init(&pipeline);
        Self {
            arguments,
            drivers,
            lab,
            pipeline,
            snapshots,
            starts: 0,
        }
    }

    fn run(&mut self) {
        let Arguments { rate, workers, .. } = *self.arguments;
        println!(
            "{} drivers, {rate} updates/s, {workers} workers:",
            self.drivers
        );
        let (mut job, _) = self.start();
        let city = self.city();
        let known_s = self.drivers.div_ceil(rate) * 5 / 4;
        let steady = Duration::from_secs(known_s.max(self.arguments.steady_s));
        self.run_steadily(&job, steady);

        let mut recoveries = Vec::new();
        for _ in 0..self.arguments.kills {
            job.kill();
            let began = Instant::now();
            let (started, log) = self.start();
            job = started;
            let recovery = time_to_first_commit(&mut job, began);
            recoveries.push(recovery);
            println!("  recovery {:.2} s", recovery.as_secs_f64());
            for line in said(&log) {
                println!("    {line}");
            }
            std::thread::sleep(BETWEEN);
        }
        recoveries.sort();
        let seconds = |at: usize| recoveries[at].as_secs_f64();
        let last = recoveries.len() - 1;
        println!(
            "  recovery of {} starts: p50 {:.2} s, max {:.2} s; memory afterwards {:.0} MiB",
            recoveries.len(),
            seconds(last / 2),
            seconds(last),
            resident_mib(job.id()),
        );
        drop(city);
    }

    /// The job, and where it writes what it says.
    fn start(&mut self) -> (Running, PathBuf) {
        self.starts += 1;
        let log = self.lab.folder().join(format!("{}.log", self.starts));
        let file = File::create(&log).expect("a file for what it says");
        let job = self
            .lab
            .run_with(&self.pipeline, self.arguments.workers, |command| {
                command.stderr(file);
            });
        (job, log)
    }

    fn city(&self) -> City {
        let mut command = self.lab.command();
        command
            .args(["simulate", "--drivers", &self.drivers.to_string()])
            .args(["--orders", &(self.drivers / 5).to_string()])
            .args(["--fences", "1000"])
            .args(["--rate", &self.arguments.rate.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        City(command.spawn().expect("the city starts"))
    }

    /// What snapshots cost a job that nothing disturbs.
    fn run_steadily(&self, job: &Running, how_long: Duration) {
        let began = Instant::now();
        while job.try_metric("riderflow_epochs_committed_total").is_none() {
            assert!(began.elapsed() < PATIENCE, "the job does not start");
            std::thread::sleep(SECOND / 10);
        }
        std::thread::sleep(how_long / 2);
        let read = |name: &str| Latencies::read(job, name);
        let names = [
            "riderflow_snapshot_pause_seconds",
            "riderflow_snapshot_seconds",
            "riderflow_event_latency_seconds",
        ];
        let earlier = names.map(read);
        std::thread::sleep(how_long / 2);
        let now = names.map(read);
        let [pause, write, latency] = std::array::from_fn(|at| now[at].since(&earlier[at]));
        println!(
            "  snapshots in the second half of {how_long:.0?}: {}, each {:.1} MB, written in {:.0?} \
             (p50), at most {:.0?}; all files {:.1} MB",
            write.count(),
            job.metric("riderflow_snapshot_written_bytes") / 1e6,
            write.quantile(0.5),
            write.largest(),
            megabytes_in(&self.snapshots),
        );
        println!(
            "  pause for one: p50 {:.0?}, p99 {:.0?}, at most {:.0?} in {} of an operator",
            pause.quantile(0.5),
            pause.quantile(0.99),
            pause.largest(),
            pause.count(),
        );
        println!(
            "  {} events, latency p50 {:.0?}, p99 {:.0?}, at most {:.0?}; memory {:.0} MiB; lag {}",
            latency.count(),
            latency.quantile(0.5),
            latency.quantile(0.99),
            latency.largest(),
            resident_mib(job.id()),
            job.metric("riderflow_lag_records"),
        );
    }
}

fn time_to_first_commit(job: &mut Running, began: Instant) -> Duration {
    while began.elapsed() < PATIENCE {
        assert!(job.is_running(), "the job ended by itself");
        let committed = job.try_metric("riderflow_epochs_committed_total");
        if committed.is_some_and(|committed| committed > 0.0) {
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no commit within {PATIENCE:?}");
}

/// What a start says of what it goes on from.
fn said(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).expect("what it said");
    let lines = text.lines().filter(|line| line.contains("again"));
    lines.map(str::to_owned).collect()
}

/// All files below a folder.
fn megabytes_in(folder: &Path) -> f64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.len(),
                // Removed meanwhile.
                Err(_) => {}
            }
        }
    }
    bytes as f64 / 1e6
}

/// The simulated city; ends when dropped.
struct City(Child);

impl Drop for City {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! Is anything lost, repeated or put out of order, and how long does a start take, when the job
//! is killed again and again?
//!
//! `cargo bench --bench kills -- --kills 300 [--workers 1,2,4] [--rate 2000] [--seed 1] [--services]`
//!
//! Density of the input, written in time: 0.3 drivers for each update a second of the rate, one
//! in five among fences that change, of those two in five with an order in turn; 7 in 100 updates late,
//! twice, inaccurate or a jump; 3 bad messages a second. The job, with 1, 2 and 4 workers in turn, is
//! killed by SIGKILL at random: two times in five within its first 1.5 s, so while it starts or
//! recovers, else up to 3 s after its first commit. With `--services` ClickHouse is killed as
//! well at one kill in six, Kafka at one in thirty. At last a second job, which nothing
//! disturbs, reads the same input from its beginning, and both are compared: see
//! `tests/common/compare.rs`. Recovery is from the start of the process to the first epoch that
//! it commits. Exit code 1 if anything differs.

#[path = "../tests/fixtures/bad_inputs.rs"]
mod bad_inputs;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/compare.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod compare;
#[path = "../tests/common/live.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod live;
#[path = "../tests/common/trial.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod trial;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Lab, Running, lab};
use trial::{Trial, time_to_first_commit};

/// A start that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 30)]
    kills: u32,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long)]
    services: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut lab = lab("kills");
    let settings = live::Settings {
        seed: arguments.seed,
        rate: arguments.rate,
        backlog_s: 20,
        quiet: 5,
    };
    let began = Instant::now();
    let mut bench = Bench {
        trial: Trial::begin(&lab, "kills", "", settings),
        dice: arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        recoveries: Vec::new(),
        early: 0,
        services: [0, 0],
    };
    let mut in_turn = arguments.workers.iter().cycle();
    for kill in 1..=arguments.kills {
        let workers = *in_turn.next().expect("some number of workers");
        bench.kill_once(&mut lab, workers, arguments.services);
        if kill % 25 == 0 {
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            eprintln!(
                "{kill} kills, {} updates, {minutes:.1} min",
                bench.trial.live.updates()
            );
        }
    }
    bench.finish(&lab, &arguments)
}

struct Bench {
    trial: Trial,
    dice: u64,
    recoveries: Vec<Duration>,
    /// Kills before the first commit.
    early: u32,
    /// Kills of ClickHouse, and of Kafka.
    services: [u32; 2],
}

impl Bench {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn nap(&mut self, up_to_ms: u64) {
        let ms = self.roll(up_to_ms);
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn kill_once(&mut self, lab: &mut Lab, workers: usize, services: bool) {
        let began = Instant::now();
        let mut job = self.trial.job(lab, workers);
        if self.roll(5) < 2 {
            self.nap(1_500);
            let committed = job.try_metric("riderflow_epochs_committed_total");
            self.early += u32::from(committed.unwrap_or(0.0) == 0.0);
        } else {
            self.recovered(&mut job, began);
            self.nap(3_000);
        }
        assert!(job.is_running(), "the job ended by itself");
        if services && self.roll(6) == 0 {
            self.services[0] += 1;
            lab.services()
                .kill_clickhouse()
                .expect("ClickHouse is killed");
            self.nap(2_000);
            assert!(job.is_running(), "the job ended without ClickHouse");
            job.kill();
            lab.services()
                .start_clickhouse()
                .expect("ClickHouse starts");
        } else if services && self.roll(30) == 0 {
            self.services[1] += 1;
            lab.services().kill_kafka().expect("Kafka is killed");
            self.nap(2_000);
            // Without Kafka it waits, or ends if it was just starting.
            job.kill();
            lab.services().start_kafka().expect("Kafka starts");
        } else {
            job.kill();
        }
    }

    fn recovered(&mut self, job: &mut Running, began: Instant) {
        let time = time_to_first_commit(job, began, PATIENCE);
        self.recoveries.push(time.expect("a start commits"));
    }

    fn finish(mut self, lab: &Lab, arguments: &Arguments) -> ExitCode {
        let began = Instant::now();
        let mut job = self.trial.job(lab, arguments.workers[0]);
        self.recovered(&mut job, began);
        let verdict = self.trial.finish(lab, job);
        let report = &verdict.report;

        let wanted = |kind: &str| report.kinds.get(kind).map_or(0, |counts| counts.wanted);
        let [clickhouse, kafka] = self.services;
        println!(
            "kills {} ({} before the first commit; ClickHouse {clickhouse}, Kafka {kafka}), \
             workers {:?}, {} updates/s, seed {}",
            arguments.kills, self.early, arguments.workers, arguments.rate, arguments.seed
        );
        println!(
            "updates {}, events {}, dead letters {}, rows {} + {} + {}, input pauses {}",
            verdict.updates,
            verdict.events,
            wanted("dead_letters"),
            wanted("driver_locations"),
            wanted("events"),
            wanted("rejected_updates"),
            verdict.pauses,
        );
        println!(
            "lost {}, duplicated {}, misordered {}, invented {}, changed {}, faults of the epoch \
             log {}",
            report.sum(|counts| counts.lost),
            report.sum(|counts| counts.duplicated),
            report.sum(|counts| counts.misordered),
            report.sum(|counts| counts.invented),
            report.sum(|counts| counts.changed),
            report.log.len(),
        );
        self.recoveries.sort();
        let seconds = |at: usize| self.recoveries[at].as_secs_f64();
        let last = self.recoveries.len() - 1;
        println!(
            "recovery of {} starts: p50 {:.2} s, max {:.2} s",
            self.recoveries.len(),
            seconds(last / 2),
            seconds(last),
        );
        if report.is_clean() {
            ExitCode::SUCCESS
        } else {
            println!("{report}");
            ExitCode::FAILURE
        }
    }
}

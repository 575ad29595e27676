//! `riderflow demo`: the whole system on this machine, and whether its counts agree.

mod summary;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::{Failure, init, signals, up};
use crate::clickhouse::Server;
use crate::config::Pipeline;
use crate::kafka::producer::{Producer, Settings as ProducerSettings};
use crate::kafka::{self, Partitions};
use crate::model::{EventKind, Input};
use crate::runtime::cluster::Cluster;
use crate::runtime::{Job, Options, wall_clock_ms};
use crate::services::{self, Services};
use crate::simulate::{self, Limit, Pace, Plan, Settings, Straight};
use crate::telemetry::HistogramSnapshot;

/// The job's own folder within the demo's.
const STATE: &str = "state";
/// How long the job may take, after the city has stopped, to finish what was sent.
const FINISH: Duration = Duration::from_secs(60);

/// Runs the whole system on this machine: Kafka, ClickHouse, topics, tables, a simulated city
/// and the job; then says what was sent, told and stored, and whether the counts agree.
///
/// Exit code 1 if they don't. With RIDERFLOW_KAFKA or RIDERFLOW_CLICKHOUSE set, that service
/// is used and must be empty.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Drivers, each with one update a second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    drivers: u32,
    /// Orders open at a time
    #[arg(long, default_value_t = 300)]
    orders: u32,
    /// Fences
    #[arg(long, default_value_t = 100)]
    fences: u32,
    /// Seconds until it stops by itself; without it, Ctrl-C stops it
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Timely workers
    #[arg(short, long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Fixes all that the city does
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where /metrics, /livez and /readyz are served; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Where the services keep their data; what an earlier demo left there is removed
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let (folder, _lock) = empty_folder(&args)?;
    let services = start_services(&folder)?;
    let pipeline = pipeline_on(&services, &folder);
    init::create(&pipeline)?;
    refuse_used_topics(&pipeline)?;

    let workers = usize::from(args.workers);
    let job = Job::start(
        &pipeline,
        Options {
            workers,
            http: Some(args.http),
            cluster: Cluster::alone(),
        },
    )?;
    // Until here Ctrl-C ends the program at once, and the services with it.
    let stop = signals::stop_requested()?;
    let address = job.http().unwrap_or(args.http);
    eprintln!("job: {workers} workers, metrics at http://{address}/metrics");
    eprintln!(
        "city: {} drivers at one update a second, {} orders, {} fences{}",
        args.drivers,
        args.orders,
        args.fences,
        args.duration
            .map_or(String::from("; Ctrl-C ends it"), |s| format!(", for {s} s")),
    );
    let sent = move_city(&args, &pipeline, &job, &stop)?;
    eprintln!("city: stopped; waiting until the job has told and stored everything");
    let finished = wait_until_finished(&job, &sent);
    let p99_s = job.metrics().event_latency_p99_seconds();
    job.stop()?;
    finished?;

    let summary = summary::Summary::gather(&pipeline, &sent, p99_s)?;
    println!("{summary}");
    drop(services);
    summary.verdict().map_err(Failure::Failed)
}

/// Where services and job keep their data, and the lock that keeps another demo out. Only
/// what an earlier demo left there is removed.
fn empty_folder(args: &Args) -> Result<(PathBuf, File), Failure> {
    let folder = match &args.data {
        Some(folder) => folder.clone(),
        None => services::default_data_dir()
            .map_err(up::failure)?
            .join("demo"),
    };
    let take = || -> std::io::Result<File> {
        std::fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("demo.lock"))?;
        lock.try_lock()?;
        Ok(lock)
    };
    let lock = take().with_context(|| {
        let folder = folder.display();
        format!("could not take {folder}; if another demo is running there, give this one --data")
    })?;
    for part in ["kafka", "clickhouse", STATE] {
        let part = folder.join(part);
        if part.exists() {
            std::fs::remove_dir_all(&part)
                .with_context(|| format!("could not remove {}", part.display()))?;
        }
    }
    Ok((folder, lock))
}

fn start_services(folder: &Path) -> Result<Services, Failure> {
    let launcher = std::env::current_exe().context("could not find this program's own file")?;
    Services::start(&services::Options::new(folder, launcher)).map_err(up::failure)
}

/// The shipped pipeline with its defaults, on the demo's services.
fn pipeline_on(services: &Services, folder: &Path) -> Pipeline {
    let mut pipeline = Pipeline::defaults("demo");
    pipeline.kafka.brokers = services.kafka().into();
    pipeline.clickhouse.url = services.clickhouse_url().into();
    pipeline.snapshots.url = folder.join(STATE).display().to_string();
    pipeline
}

/// The counts can only agree when nothing but the demo's own city is there.
fn refuse_used_topics(pipeline: &Pipeline) -> Result<(), Failure> {
    let brokers = &pipeline.kafka.brokers;
    let topic = Input::Updates.topic();
    let Partitions(count) = kafka::partitions_of(brokers, &[topic])?[0];
    let progress = kafka::Progress::open(brokers, &pipeline.name)?;
    for partition in 0..count {
        if progress.lag(Input::Updates, partition, 0)? > 0 {
            return Err(Failure::Failed(anyhow!(
                "{topic} at {brokers} has records already; the demo counts everything there, so \
                 it wants empty services: unset RIDERFLOW_KAFKA to let it start its own"
            )));
        }
    }
    Ok(())
}

/// Moves the city until it is time to stop, with a status line a second.
fn move_city(
    args: &Args,
    pipeline: &Pipeline,
    job: &Job,
    stop: &signals::StopRequested,
) -> Result<simulate::Summary, Failure> {
    let producer = Producer::connect(&ProducerSettings::new(&pipeline.kafka.brokers))?;
    let plan = Plan::new(
        args.drivers,
        args.orders,
        args.fences,
        args.seed,
        wall_clock_ms(),
    );
    let settings = Settings {
        pace: Pace::RealTime,
        limit: args
            .duration
            .map_or(Limit::Never, |s| Limit::CityTime(Duration::from_secs(s))),
        ..Settings::new()
    };
    let ended = AtomicBool::new(false);
    let behind = std::sync::Mutex::new(None);
    let mut status = Status::new(job);
    std::thread::scope(|scope| {
        let (ended, behind) = (&ended, &behind);
        let city = scope.spawn(move || {
            let asked_to_end = || ended.load(Ordering::Relaxed);
            let told = |progress: &simulate::Progress| {
                if let Ok(mut behind) = behind.lock() {
                    *behind = progress.is_behind().then_some(progress.behind_s);
                }
            };
            let road = Straight::new(&producer, &pipeline.routes, settings.pace)?;
            simulate::run(&road, plan, &settings, &asked_to_end, told)
        });
        while !city.is_finished() {
            if stop.wait(Duration::from_secs(1)) || job.is_ending() {
                ended.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let behind_s = behind.lock().ok().and_then(|behind| *behind);
            status.show(job, behind_s);
        }
        status.end();
        let summary = city.join().map_err(|_| anyhow!("the city has panicked"))?;
        Ok(summary.map_err(anyhow::Error::from)?)
    })
}

/// Everything sent is in a committed epoch, and every row is stored.
fn wait_until_finished(job: &Job, sent: &simulate::Summary) -> Result<(), Failure> {
    let metrics = job.metrics();
    let deadline = Instant::now() + FINISH;
    loop {
        let read = Input::ALL
            .iter()
            .all(|&input| metrics.records_read.get(input) >= sent.acked.input(input));
        let stored = metrics.clickhouse_rows.get("driver_locations")
            + metrics.clickhouse_rows.get("rejected_updates")
            >= sent.acked.input(Input::Updates);
        if read && stored && metrics.lag.total() == 0 {
            return Ok(());
        }
        if job.is_ending() {
            return Ok(()); // Its own failure says more.
        }
        if Instant::now() > deadline {
            return Err(Failure::Failed(anyhow!(
                "the job has not finished {} s after the city stopped: {} of {} updates stored, \
                 lag {}",
                FINISH.as_secs(),
                metrics.clickhouse_rows.get("driver_locations"),
                sent.acked.input(Input::Updates),
                metrics.lag.total(),
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One line a second: rewritten in place on a terminal, else every fifth.
struct Status {
    terminal: bool,
    shown: u64,
    updates: u64,
    at: Instant,
    latency: HistogramSnapshot,
    p99_s: Option<f64>,
}

impl Status {
    fn new(job: &Job) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: 0,
            updates: 0,
            at: Instant::now(),
            latency: job.metrics().event_latency_seconds.snapshot(),
            p99_s: None,
        }
    }

    fn show(&mut self, job: &Job, behind_s: Option<f64>) {
        let metrics = job.metrics();
        self.shown += 1;
        if !self.terminal && !self.shown.is_multiple_of(5) {
            return;
        }
        let updates = metrics.updates.total();
        let per_s = (updates - self.updates) as f64 / self.at.elapsed().as_secs_f64();
        (self.updates, self.at) = (updates, Instant::now());
        let latency = metrics.event_latency_seconds.snapshot();
        self.p99_s = latency.since(&self.latency).quantile(0.99).or(self.p99_s);
        self.latency = latency;

        let by_kind: BTreeMap<&str, u64> = EventKind::ALL
            .iter()
            .map(|&kind| (kind.name(), metrics.events.get(kind)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut line = format!("{per_s:.0} updates/s");
        for (name, count) in by_kind {
            let _ = write!(line, " | {name} {count}");
        }
        let _ = write!(
            line,
            " | lag {} | rows {}",
            metrics.lag.total(),
            metrics.clickhouse_rows.get("driver_locations"),
        );
        if let Some(p99_s) = self.p99_s {
            let _ = write!(line, " | p99 {:.0} ms", p99_s * 1000.0);
        }
        if let Some(behind_s) = behind_s {
            let _ = write!(
                line,
                " | the city can't keep its rate: {behind_s:.1} s behind"
            );
        }
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}

/// Also what the summary asks ClickHouse by.
fn server(pipeline: &Pipeline) -> Server {
    Server::of(pipeline)
}

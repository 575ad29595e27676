//! `riderflow demo`: the whole system on this machine, and whether its counts agree.

mod board;
mod links;
mod status;
mod summary;

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::{Failure, init, signals, up};
use crate::clickhouse::Server;
use crate::config::{Pipeline, Secret};
use crate::gateway::{self, Gateway};
use crate::kafka::producer::{Producer, Settings as ProducerSettings};
use crate::kafka::{self, Partitions};
use crate::model::Input;
use crate::runtime::cluster::Cluster;
use crate::runtime::{Job, Options, wall_clock_ms};
use crate::services::{self, Services};
use crate::simulate::phones::{self, GatewayUrl};
use crate::simulate::{self, ByPhone, Limit, Pace, Plan, Road, Settings, Straight};
use board::{Board, Watched};
use links::Links;
use status::Status;

/// The job's own folder within the demo's.
const STATE: &str = "state";
/// How long the job may take, after the city has stopped, to finish what was sent.
const FINISH: Duration = Duration::from_secs(60);
/// Drivers with a phone at most, unless asked for more.
const PHONES: u32 = 2_000;
/// Connections of the gateway besides the phones'.
const BROWSERS: usize = 1_000;
/// Where the gateway listens if nobody else does.
const PORT: u16 = 8080;

/// Runs the whole system on this machine: Kafka, ClickHouse, topics, tables, the job, the
/// gateway with its pages, and a simulated city whose phones go through it; then says what was
/// sent, told and stored, and whether the counts agree.
///
/// It prints the pages' addresses with tokens that open them for a day.
///
/// Exit code 1 if they don't. With RIDERFLOW_KAFKA or RIDERFLOW_CLICKHOUSE set, that service
/// is used and must be empty.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Drivers, each with one update a second
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    drivers: u32,
    /// Drivers whose updates go through the gateway, each over a WebSocket; the others' go
    /// straight to Kafka [default: all, at most 2000]
    #[arg(long, value_name = "N")]
    phones: Option<u32>,
    /// Orders open at a time
    #[arg(long, default_value_t = 600)]
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
    /// Where the gateway listens [default: 127.0.0.1:8080, or a free port if that is taken]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the job's /metrics, /livez and /readyz are served; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Where the services keep their data; what an earlier demo left there is removed
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let (folder, _lock) = empty_folder(&args)?;
    let services = start_services(&folder)?;
    let pipeline = pipeline_on(&args, &services, &folder)?;
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
    let gateway = start_gateway(&args, &pipeline)?;
    eprintln!(
        "city: {} drivers at one update a second, {} orders, {} fences{}",
        args.drivers,
        args.orders,
        args.fences,
        args.duration
            .map_or(String::from("; Ctrl-C ends it"), |s| format!(", for {s} s")),
    );
    let sent = match move_city(&args, &pipeline, &job, &gateway, &stop) {
        Ok(sent) => sent,
        Err(failure) if gateway.is_ending() => {
            // Why it failed says more than what the phones made of it.
            gateway.stop()?;
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    eprintln!("city: stopped; waiting until the job has told and stored everything");
    let finished = wait_until_finished(&job, &sent);
    let p99_s = job.metrics().event_latency_p99_seconds();
    gateway.stop()?;
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

/// The shipped pipeline with its defaults, on the demo's services; its gateway has a key of
/// this run's own, and lets as many phones in from this one machine as there are.
fn pipeline_on(args: &Args, services: &Services, folder: &Path) -> Result<Pipeline, Failure> {
    let mut pipeline = Pipeline::defaults("demo");
    pipeline.kafka.brokers = services.kafka().into();
    pipeline.clickhouse.url = services.clickhouse_url().into();
    pipeline.snapshots.url = folder.join(STATE).display().to_string();
    pipeline.gateway.key = Some(random_key().context("could not make a random key")?);
    pipeline.gateway.connections = phones(args) as usize + BROWSERS;
    pipeline.gateway.address_connections = pipeline.gateway.connections;
    pipeline.gateway.address_per_s = 10_000;
    Ok(pipeline)
}

/// 256 random bits in hex.
fn random_key() -> std::io::Result<Secret> {
    let mut bits = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    let hex: Vec<String> = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(hex.concat()))
}

/// The city's plan, which begins when it is moved.
fn plan(args: &Args) -> Plan {
    let now_ms = wall_clock_ms();
    Plan::new(args.drivers, args.orders, args.fences, args.seed, now_ms)
}

/// How many drivers' updates go over WebSockets.
fn phones(args: &Args) -> u32 {
    args.phones.unwrap_or(PHONES).min(args.drivers)
}

/// Starts the gateway, with the city's own map.
fn start_gateway(args: &Args, pipeline: &Pipeline) -> Result<Gateway, Failure> {
    // Both ends of every phone's connection are in this process.
    phones::allow_open_files(2 * u64::from(phones(args)) + 1_024)?;
    let gateway = Gateway::start(
        pipeline,
        gateway::Options {
            listen: Some(args.listen.unwrap_or_else(usual_or_free)),
            base_map: Some(simulate::base_map(&plan(args)).into()),
            ..gateway::Options::default()
        },
    )?;
    eprintln!("gateway: http://{}", gateway.address());
    Ok(gateway)
}

/// An address that stays the same from demo to demo, or else any.
fn usual_or_free() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
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
    gateway: &Gateway,
    stop: &signals::StopRequested,
) -> Result<simulate::Summary, Failure> {
    let settings = Settings {
        pace: Pace::RealTime,
        limit: args
            .duration
            .map_or(Limit::Never, |s| Limit::CityTime(Duration::from_secs(s))),
        ..Settings::new()
    };
    let ended = AtomicBool::new(false);
    let behind = std::sync::Mutex::new(None);
    let board = Board::default();
    let mut status = Status::new(job);
    let count = phones(args);
    let mut links = Links::new(gateway.address(), gateway.access(), &board, count.into());
    std::thread::scope(|scope| {
        let (ended, behind, board) = (&ended, &behind, &board);
        let city = scope.spawn(move || -> Result<simulate::Summary, Failure> {
            let asked_to_end = || ended.load(Ordering::Relaxed);
            let told = |progress: &simulate::Progress| {
                if let Ok(mut behind) = behind.lock() {
                    *behind = progress.is_behind().then_some(progress.behind_s);
                }
            };
            let producer = Producer::connect(&ProducerSettings::new(&pipeline.kafka.brokers))?;
            let straight = Straight::new(&producer, &pipeline.routes, settings.pace)?;
            let road: Box<dyn Road + '_> = match count {
                0 => Box::new(straight),
                count => Box::new(by_phone(straight, count, pipeline, gateway, &asked_to_end)?),
            };
            let road = Watched { road, board };
            let plan = plan(args);
            Ok(simulate::run(&road, plan, &settings, &asked_to_end, told)?)
        });
        while !city.is_finished() {
            if stop.wait(Duration::from_secs(1)) || job.is_ending() || gateway.is_ending() {
                ended.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            // A link that is clicked at once works at once.
            if gateway.is_ready()
                && let Some(lines) = links.news(Instant::now())
            {
                status.say(&lines);
            }
            let behind_s = behind.lock().ok().and_then(|behind| *behind);
            status.show(job, behind_s);
        }
        status.end();
        city.join().map_err(|_| anyhow!("the city has panicked"))?
    })
}

/// Connects the phones to the demo's own gateway.
fn by_phone<'a>(
    straight: Straight<'a>,
    count: u32,
    pipeline: &Pipeline,
    gateway: &Gateway,
    stop: &dyn Fn() -> bool,
) -> Result<ByPhone<'a>, Failure> {
    let url: GatewayUrl = format!("ws://{}", gateway.address())
        .parse()
        .map_err(anyhow::Error::from)?;
    let access = gateway::access_of(&pipeline.gateway).map_err(anyhow::Error::from)?;
    let phones = super::phones::connect(url, count, access, stop)?;
    eprintln!("phones: {} connected to the gateway", phones.connected());
    Ok(ByPhone::new(straight, phones))
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

/// Also what the summary asks ClickHouse by.
fn server(pipeline: &Pipeline) -> Server {
    Server::of(pipeline)
}

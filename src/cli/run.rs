//! `riderflow run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::CommandFactory;

use super::{Failure, signals};
use crate::config::{self, Pipeline};
use crate::kafka::{CommitError, KafkaError};
use crate::runtime::cluster::{Cluster, ClusterError};
use crate::runtime::{Job, JobError, Options};

/// Runs the job until SIGTERM or SIGINT: commits what it has, leaves, and exits 0.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// Timely workers of this process; by default one a core. All processes have as many
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Where /metrics, /livez and /readyz are served; by default 127.0.0.1:9464, and one port
    /// further for each further process
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// How many processes run the pipeline together; each is started with the same pipeline,
    /// workers and hosts file. When one ends, all do: a supervisor starts them again
    #[arg(long, value_name = "N", requires_all = ["process", "hosts"],
        value_parser = clap::value_parser!(u16).range(1..=256))]
    processes: Option<u16>,
    /// Which of them this one is, from 0; process 0 commits and takes the snapshots
    #[arg(long, value_name = "I", requires_all = ["processes", "hosts"])]
    process: Option<u16>,
    /// A file with one `host:port` a line, the first that of process 0: where each process
    /// listens for the others. A `#` begins a comment
    #[arg(long, value_name = "FILE", requires_all = ["processes", "process"])]
    hosts: Option<PathBuf>,
}

/// A stop that was asked of all processes reaches one within so long of another.
const STOPPED_TOGETHER: Duration = Duration::from_secs(1);

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let cluster = cluster(&args)?;
    let pipeline = config::load(&args.pipeline)?;
    let http = args.http.unwrap_or_else(|| cluster.default_http());
    let of_processes = if cluster.is_alone() {
        String::new()
    } else {
        let (process, processes) = (cluster.process(), cluster.processes());
        format!(" as process {process} of {processes}")
    };
    let workers = args.workers.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let stop = signals::stop_requested()?;
    let Some(job) = start(&pipeline, workers, http, cluster, &stop)? else {
        eprintln!("{}: stopped before it had started", pipeline.name);
        return Ok(());
    };
    eprintln!(
        "{}: running with {workers} workers{of_processes}; metrics at http://{}/metrics",
        pipeline.name,
        job.http().unwrap_or(http)
    );
    while !job.is_ending() && !stop.wait(Duration::from_millis(100)) {}
    if !job.is_ending() {
        eprintln!("{}: stopping: committing what is whole", pipeline.name);
    }
    match job.stop() {
        // The others were asked to stop too, and were faster.
        Err(JobError::Cluster(ClusterError::Gone { .. })) if stop.wait(STOPPED_TOGETHER) => {}
        stopped => stopped?,
    }
    eprintln!("{}: stopped", pipeline.name);
    Ok(())
}

/// The processes that the flags name.
fn cluster(args: &Args) -> Result<Cluster, Failure> {
    let (Some(processes), Some(process), Some(hosts)) = (args.processes, args.process, &args.hosts)
    else {
        return Ok(Cluster::alone());
    };
    if process >= processes {
        let fault = format!(
            "--process {process} is not one of {processes} processes: the first is 0, the last {}",
            processes - 1
        );
        let kind = clap::error::ErrorKind::ValueValidation;
        super::Cli::command().error(kind, fault).exit();
    }
    Cluster::read(processes.into(), process.into(), hosts).map_err(Failure::Hosts)
}

/// Starts the job, unless a stop is requested meanwhile: nothing is at stake yet.
fn start(
    pipeline: &Pipeline,
    workers: usize,
    http: SocketAddr,
    cluster: Cluster,
    stop: &signals::StopRequested,
) -> Result<Option<Job>, Failure> {
    let pipeline = pipeline.clone();
    let options = Options {
        workers,
        http: Some(http),
        cluster,
    };
    let starting = std::thread::spawn(move || Job::start(&pipeline, options));
    while !starting.is_finished() {
        if stop.wait(Duration::from_millis(20)) {
            return Ok(None);
        }
    }
    let started = starting
        .join()
        .map_err(|_| anyhow!("starting the job has panicked"))?;
    Ok(Some(started?))
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let unreachable = matches!(
            &error,
            JobError::Kafka(KafkaError::Unreachable { .. })
                | JobError::Commit(CommitError::Kafka(KafkaError::Unreachable { .. }))
        );
        if unreachable {
            Self::Unreachable(error.to_string())
        } else {
            Self::Failed(error.into())
        }
    }
}

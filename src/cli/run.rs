//! `riderflow run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;

use super::{Failure, signals};
use crate::config::{self, Pipeline};
use crate::kafka::{CommitError, KafkaError};
use crate::runtime::{Job, JobError, Options};

/// Runs the job until SIGTERM or SIGINT: commits what it has, leaves, and exits 0.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// Timely workers; by default one a core
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Where /metrics, /livez and /readyz are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    http: SocketAddr,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = config::load(&args.pipeline)?;
    let workers = args.workers.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let stop = signals::stop_requested()?;
    let Some(job) = start(&pipeline, workers, args.http, &stop)? else {
        eprintln!("{}: stopped before it had started", pipeline.name);
        return Ok(());
    };
    eprintln!(
        "{}: running with {workers} workers; metrics at http://{}/metrics",
        pipeline.name,
        job.http().unwrap_or(args.http)
    );
    while !job.is_ending() && !stop.wait(Duration::from_millis(100)) {}
    if !job.is_ending() {
        eprintln!("{}: stopping: committing what is whole", pipeline.name);
    }
    job.stop()?;
    eprintln!("{}: stopped", pipeline.name);
    Ok(())
}

/// Starts the job, unless a stop is requested meanwhile: nothing is at stake yet.
fn start(
    pipeline: &Pipeline,
    workers: usize,
    http: SocketAddr,
    stop: &signals::StopRequested,
) -> Result<Option<Job>, Failure> {
    let pipeline = pipeline.clone();
    let http = Some(http);
    let starting = std::thread::spawn(move || Job::start(&pipeline, Options { workers, http }));
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

//! `riderflow run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, signals};
use crate::config;
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
    let job = Job::start(
        &pipeline,
        Options {
            workers,
            http: Some(args.http),
        },
    )?;
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

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Kafka(crate::kafka::KafkaError::Unreachable { .. }) => {
                Self::Unreachable(error.to_string())
            }
            error => Self::Failed(error.into()),
        }
    }
}

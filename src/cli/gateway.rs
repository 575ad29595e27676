//! `riderflow gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;

use super::init::topic_failure;
use super::{Failure, signals};
use crate::config;
use crate::gateway::{DEFAULT_HTTP, Gateway, GatewayError, Options};

/// Runs a gateway: positions in by WebSocket, live positions out, and pages. SIGTERM or SIGINT:
/// it accepts nobody any more, lets sockets and streams leave for at most 20 s, and exits 0.
///
/// Any number of them run side by side, each with its own --listen and --http.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// Where it listens; by default what gateway.listen of the pipeline says
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where /metrics, /livez and /readyz are served
    #[arg(long, value_name = "ADDRESS", default_value_t = DEFAULT_HTTP)]
    http: SocketAddr,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = config::load(&args.pipeline)?;
    let name = pipeline.name.clone();
    let options = Options {
        listen: args.listen,
        http: Some(args.http),
        ..Options::default()
    };
    let stop = signals::stop_requested()?;
    // Kafka may let it wait; nothing is at stake yet.
    let starting = std::thread::spawn(move || Gateway::start(&pipeline, options));
    while !starting.is_finished() {
        if stop.wait(Duration::from_millis(20)) {
            eprintln!("{name}: stopped before it had started");
            return Ok(());
        }
    }
    let started = starting
        .join()
        .map_err(|_| anyhow!("starting the gateway has panicked"))?;
    let gateway = started?;
    eprintln!(
        "{name}: gateway at {}; metrics at http://{}/metrics",
        gateway.url(),
        gateway.http().unwrap_or(args.http)
    );
    while !gateway.is_ending() && !stop.wait(Duration::from_millis(100)) {}
    if !gateway.is_ending() {
        eprintln!("{name}: stopping: letting sockets and streams leave");
    }
    gateway.stop()?;
    eprintln!("{name}: stopped");
    Ok(())
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Topics(error) => topic_failure(error),
            GatewayError::Access(error) => Self::Access(error),
            error => Self::Failed(error.into()),
        }
    }
}

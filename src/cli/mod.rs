//! The command line: parses arguments, calls one file per command, turns errors into exit
//! codes (0 done, 1 failed, 2 usage, 3 bad config, 4 a service can't be reached, 5 tests
//! failed). Data goes to standard output, messages to standard error.

mod check;
mod demo;
mod down;
mod explain;
mod gateway;
mod init;
mod produce;
mod reset;
mod run;
mod signals;
mod simulate;
mod state;
mod tail;
mod target;
mod token;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Proximity, arrivals and geofence events from live rider positions.
#[derive(Parser)]
#[command(name = "riderflow", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the whole system on this machine, on embedded services
    Demo(demo::Args),
    /// Starts the embedded Kafka and ClickHouse and prints their addresses
    Up(up::Args),
    /// Stops what `up` started
    Down(down::Args),
    /// Creates topics and tables; safe to repeat
    Init(init::Args),
    /// Runs the job
    Run(run::Args),
    /// Says how far a pipeline has come, and what a restart would do
    State(state::Args),
    /// Lets a pipeline begin anew
    Reset(reset::Args),
    /// Validates a pipeline file and, with --connect, the services and tables
    Check(check::Args),
    /// Prints the dataflow graph
    Explain(explain::Args),
    /// Runs a gateway: positions in by WebSocket, live positions out, pages
    Gateway(gateway::Args),
    /// Prints a token for a gateway, for development
    Token(token::Args),
    /// Reads lines and publishes each to its partition
    Produce(produce::Args),
    /// Joins a consumer group and prints what it receives
    Tail(tail::Args),
    /// Moves a fleet, straight to Kafka
    Simulate(simulate::Args),
    /// Starts a child of `up`, `demo` or a test
    #[command(hide = true)]
    Internal(crate::services::launch::Args),
}

/// A command's failure, with its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Exit code 3: the pipeline file is wrong.
    #[error("{0}")]
    Config(#[from] crate::config::ConfigError),
    /// Exit code 3: the hosts file is wrong.
    #[error("{0}")]
    Hosts(crate::runtime::cluster::ClusterError),
    /// Exit code 3: tokens can't be checked or signed.
    #[error("{0}")]
    Access(crate::gateway::AccessError),
    /// Exit code 4: Kafka or ClickHouse does not answer.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Config(_) | Self::Hosts(_) | Self::Access(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }
}

/// Writes data to standard output; a reader that has gone, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error)
                .context("could not write to standard output")
                .into())
        }
        _ => Ok(()),
    }
}

/// What the long-running commands report; `RIDERFLOW_LOG` chooses how much, as in `debug`.
fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RIDERFLOW_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Parses the process's arguments, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    log_to_standard_error();
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::execute(args),
        Command::Up(args) => up::execute(args),
        Command::Down(args) => down::execute(args),
        Command::Init(args) => init::execute(args),
        Command::Run(args) => run::execute(args),
        Command::State(args) => state::execute(args),
        Command::Reset(args) => reset::execute(args),
        Command::Check(args) => check::execute(args),
        Command::Explain(args) => explain::execute(args),
        Command::Gateway(args) => gateway::execute(args),
        Command::Token(args) => token::execute(args),
        Command::Produce(args) => produce::execute(args),
        Command::Tail(args) => tail::execute(args),
        Command::Simulate(args) => simulate::execute(args),
        Command::Internal(args) => crate::services::launch::execute(args).map_err(up::failure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                // Begins with file:line:column, as editors expect it.
                Failure::Config(error) => eprintln!("{error}"),
                Failure::Hosts(error) => eprintln!("{error}"),
                other => eprintln!("error: {other}"),
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

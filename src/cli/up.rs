//! `riderflow up`.

use std::path::PathBuf;

use anyhow::Context;

use super::Failure;
use crate::services::{self, Options, ServiceError};

/// Starts the embedded Kafka and ClickHouse and prints their addresses.
///
/// They stay until `riderflow down`. `eval "$(riderflow up)"` lets the shell's other commands
/// find them. A second `up` prints the same addresses and starts nothing.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the services keep their data [default: $XDG_DATA_HOME/riderflow]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The most that Kafka's heap may take, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    kafka_heap: u32,
    /// Print the addresses as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let launcher = std::env::current_exe().context("could not find this program's own path")?;
    let data_dir = data_dir(args.data)?;
    let addresses = services::up(&Options {
        kafka_heap_mb: args.kafka_heap,
        ..Options::new(data_dir, launcher)
    })
    .map_err(failure)?;
    if args.json {
        println!("{}", serde_json::json!(addresses));
    } else {
        print!("{}", addresses.exports());
    }
    Ok(())
}

/// The folder that `--data` names, or the default.
pub(super) fn data_dir(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match named {
        Some(folder) => Ok(folder),
        None => services::default_data_dir().map_err(failure),
    }
}

/// A service's error, with the exit code it calls for.
pub(super) fn failure(error: ServiceError) -> Failure {
    match error {
        ServiceError::Unreachable { .. } => Failure::Unreachable(error.to_string()),
        error => Failure::Failed(anyhow::anyhow!("{error}")),
    }
}

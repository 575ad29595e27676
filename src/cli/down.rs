//! `riderflow down`.

use std::path::PathBuf;

use super::Failure;
use super::up::{data_dir, failure};
use crate::services;

/// Stops what `up` started.
///
/// The data stays, for the next `up`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder that `up` was given [default: $XDG_DATA_HOME/riderflow]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print what was stopped as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let data_dir = data_dir(args.data)?;
    let stopped = services::down(&data_dir, false).map_err(failure)?;
    if stopped.is_empty() {
        eprintln!(
            "nothing to stop: no `riderflow up` runs on {}",
            data_dir.display()
        );
    }
    if args.json {
        println!("{}", serde_json::json!(stopped));
    }
    Ok(())
}

//! `riderflow check`.

use super::Failure;

/// Validates a pipeline file and, with --connect, the services and tables.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: std::path::PathBuf,
}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

//! `riderflow run`.

use super::Failure;

/// Runs the job.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: std::path::PathBuf,
}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

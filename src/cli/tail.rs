//! `riderflow tail`.

use super::Failure;

/// Joins a consumer group and prints what it receives.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The consumer group
    pub(super) group: String,
}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

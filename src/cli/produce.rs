//! `riderflow produce`.

use super::Failure;

/// Reads lines and publishes each to its partition.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

//! `riderflow down`.

use super::Failure;

/// Stops what `up` started.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

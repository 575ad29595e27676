//! `riderflow simulate`.

use super::Failure;

/// Moves a fleet, straight to Kafka.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

//! `riderflow up`.

use super::Failure;

/// Starts the embedded Kafka and ClickHouse and prints their addresses.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

//! `riderflow demo`.

use super::Failure;

/// Runs the whole system on this machine, on embedded services.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not built yet")))
}

//! `riderflow reset`: a pipeline forgets what it knows.

use std::fmt::Write;

use anyhow::Context as _;
use serde_json::json;

use super::Failure;
use crate::config;
use crate::kafka::KafkaError;
use crate::runtime::{ResetDone, ResetError, ResetPlan};

/// Lets a pipeline begin anew: its snapshots, its committed epochs and its group's offsets go.
///
/// Refused while a job of the pipeline runs. The topics' records and ClickHouse's rows stay. The
/// next `run` begins with the oldest records that Kafka holds: events are told again, under the
/// ids that they had; rows that are stored are not stored again.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["dry_run", "yes"]))]
pub(super) struct Args {
    /// The pipeline file
    pipeline: std::path::PathBuf,
    /// Only list what would go
    #[arg(long)]
    dry_run: bool,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = config::load(&args.pipeline)?;
    let plan = ResetPlan::of(&pipeline)?;
    let told = plan.clone();
    let done = args.yes.then(|| plan.execute(&pipeline)).transpose()?;
    if args.json {
        let value = json!({ "plan": told, "done": done });
        return super::print(&format!("{value}\n"));
    }
    let text = text(&told, done).context("could not print the outcome")?;
    super::print(&text)?;
    if done.is_none() && !told.jobs.is_empty() {
        eprintln!("a job of {} runs: stop it before --yes", told.pipeline);
    }
    Ok(())
}

fn text(plan: &ResetPlan, done: Option<ResetDone>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let epochs = match (plan.committed, plan.generation) {
        (Some(epoch), _) => format!("all up to {}", epoch.0),
        (None, 0) => "none yet".into(),
        (None, _) => "all there are".into(),
    };
    let (title, goes) = match done {
        None => ("would be reset", "would go"),
        Some(_) => ("was reset", "went"),
    };
    writeln!(out, "pipeline {} {title}", plan.pipeline)?;
    writeln!(out, "\n{goes}")?;
    writeln!(out, "  committed epochs in {}: {epochs}", plan.log)?;
    writeln!(
        out,
        "  snapshots at {}: {}",
        plan.snapshots_url,
        plan.snapshots.len()
    )?;
    writeln!(
        out,
        "  offsets of the group {}: of {} partitions",
        plan.group, plan.group_offsets
    )?;
    writeln!(
        out,
        "\nstays\n  all records of rider-updates, orders, geofences, rider-notifications and \
         rider-updates-dead-letter\n  all rows in ClickHouse"
    )?;
    writeln!(
        out,
        "\nnext\n  `riderflow run` begins with the oldest records that Kafka holds, {} in all\n  \
         events and dead letters are told again, events under the ids that they had\n  rows that \
         ClickHouse has are not written again",
        plan.records_to_read
    )?;
    Ok(out)
}

impl From<ResetError> for Failure {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::Kafka(KafkaError::Unreachable { .. }) => {
                Self::Unreachable(error.to_string())
            }
            error => Self::Failed(error.into()),
        }
    }
}

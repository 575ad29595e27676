//! `riderflow init`.

use anyhow::Context as _;

use super::Failure;
use crate::clickhouse::{DATABASE, Server, migrate};
use crate::config::{self, Pipeline};
use crate::kafka::admin;

/// Creates topics and tables; safe to repeat.
///
/// What exists is compared with what is expected and never altered: a difference is an error
/// that says how to mend it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: std::path::PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Something that the pipeline needs outside of the job.
#[derive(serde::Serialize)]
pub(super) struct Object {
    /// `topic`, `database` or `table`.
    kind: String,
    name: String,
    created: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = config::load(&args.pipeline)?;
    let objects = create(&pipeline)?;
    if args.json {
        let text = serde_json::to_string(&serde_json::json!({ "objects": objects }))
            .context("could not print the outcome")?;
        println!("{text}");
    } else {
        for Object {
            kind,
            name,
            created,
        } in &objects
        {
            println!(
                "{kind} {name}: {}",
                if *created { "created" } else { "was there" }
            );
        }
    }
    if !pipeline.clickhouse.enabled {
        eprintln!("clickhouse.enabled is false: no tables were created");
    }
    Ok(())
}

/// Makes the pipeline's topics and, where ClickHouse is enabled, its tables.
pub(super) fn create(pipeline: &Pipeline) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let topics = admin::create_topics(&pipeline.kafka.brokers, pipeline).map_err(topic_failure)?;
    for admin::TopicOutcome { name, created } in topics {
        objects.push(Object {
            kind: "topic".into(),
            name,
            created,
        });
    }
    if pipeline.clickhouse.enabled {
        let server = Server::of(pipeline);
        for outcome in migrate::apply(&server, DATABASE).map_err(table_failure)? {
            let (kind, name) = outcome
                .object
                .split_once(' ')
                .unwrap_or(("", &outcome.object));
            objects.push(Object {
                kind: kind.into(),
                name: name.into(),
                created: outcome.created,
            });
        }
    }
    Ok(objects)
}

/// The exit code for topics that could not be had.
pub(super) fn topic_failure(error: admin::TopicError) -> Failure {
    match error {
        admin::TopicError::Unreachable { .. } => Failure::Unreachable(error.to_string()),
        _ => Failure::Failed(error.into()),
    }
}

/// The exit code for tables that could not be had.
pub(super) fn table_failure(error: migrate::MigrateError) -> Failure {
    match error {
        migrate::MigrateError::Unreachable { .. } => Failure::Unreachable(error.to_string()),
        _ => Failure::Failed(error.into()),
    }
}

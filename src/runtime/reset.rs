//! Beginning a pipeline anew: all that it knows goes, all that it was told and has told stays.
//!
//! ```text
//!  no job runs? ─▶ fence ─▶ commit a head that says so ─▶ remove snapshots, the group's offsets
//!                           (one transaction: the reset has happened)
//! ```
//!
//! The log is not emptied: the head says that epochs of generations before its own don't count.
//! So a reset has happened or it has not, whenever it is cut short; and generations go on, which
//! ClickHouse fences older jobs by. The head also says what may have been stored before.
//!
//! A running job is refused, never killed: the fence comes after that question, for a job that
//! Kafka doesn't see, such as one that is frozen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::start::Ends;
use super::wall_clock_ms;
use crate::config::Pipeline;
use crate::epoch::{Head, InputEnd, LogRecord, Reset, SnapshotId};
use crate::kafka::admin;
use crate::kafka::{self, CommitError, Committer, JobSeen, KafkaError, SEEN_AFTER_DEATH};
use crate::model::{Epoch, Input};
use crate::snapshot::{SnapshotError, Store};

/// How long the log is watched for a job that Kafka's groups don't tell of, such as when its
/// broker has just begun to.
const WATCH: Duration = Duration::from_millis(1500);

/// Why a pipeline can't be reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// A job runs.
    #[error(
        "a job of {pipeline} runs ({}): stop it first; if it was killed, try again in {} s",
        listed(.jobs),
        SEEN_AFTER_DEATH.as_secs()
    )]
    Running {
        /// The pipeline.
        pipeline: String,
        /// As Kafka sees them.
        jobs: Vec<JobSeen>,
    },
    /// Somebody writes epochs.
    #[error("a job of {pipeline} runs: its log {log} grows; stop it first")]
    Writing {
        /// The pipeline.
        pipeline: String,
        /// The log's topic.
        log: String,
    },
    /// A job took over while this went on.
    #[error("a job of {0} was started meanwhile, so nothing was reset: stop it first")]
    Overtaken(String),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The commit.
    #[error(transparent)]
    Commit(CommitError),
    /// Snapshots could not be listed; nothing was reset.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The reset has happened, but some of what it makes useless is still there.
    #[error(
        "{0}; the pipeline is reset all the same, and the next start ignores what is left; \
         another reset removes it"
    )]
    Left(String),
}

fn listed(jobs: &[JobSeen]) -> String {
    let jobs: Vec<String> = jobs.iter().map(JobSeen::to_string).collect();
    jobs.join(", ")
}

/// What a reset would do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ResetPlan {
    /// The pipeline.
    pub pipeline: String,
    /// The jobs that run; a reset is refused while there are any.
    pub jobs: Vec<JobSeen>,
    /// The topic of its epoch log.
    pub log: String,
    /// The newest generation in it; 0: none.
    pub generation: u64,
    /// The newest committed epoch, if the log is understood.
    pub committed: Option<Epoch>,
    /// Where the snapshots are.
    pub snapshots_url: String,
    /// The snapshots that would go.
    pub snapshots: Vec<String>,
    /// The consumer group whose offsets would go.
    pub group: String,
    /// How many partitions it has offsets of.
    pub group_offsets: usize,
    /// Records that Kafka holds of the inputs: the next start reads them all.
    pub records_to_read: i64,
    #[serde(skip)]
    ids: BTreeSet<SnapshotId>,
    #[serde(skip)]
    ends: Vec<InputEnd>,
    #[serde(skip)]
    log_end: (i64, Instant),
}

/// What a reset did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ResetDone {
    /// The generation that it has in the log.
    pub generation: u64,
    /// Objects removed from the snapshot store.
    pub removed: usize,
    /// Whether there was a group with offsets.
    pub had_offsets: bool,
}

impl ResetPlan {
    /// What there is to reset. Changes nothing.
    ///
    /// # Errors
    /// When Kafka or the snapshot store does not answer, or topics are missing.
    pub fn of(pipeline: &Pipeline) -> Result<Self, ResetError> {
        let brokers = &pipeline.kafka.brokers;
        let log_topic = kafka::epoch_log_topic(&pipeline.name);
        let mut topics: Vec<&str> = Input::ALL.iter().map(|input| input.topic()).collect();
        topics.push(&log_topic);
        let counts = kafka::partitions_of(brokers, &topics)?;
        // First, so that whatever is written after any of what follows is noticed.
        let log_end = (kafka::log_end(brokers, &pipeline.name)?, Instant::now());
        let jobs = kafka::jobs_seen(brokers, &pipeline.name)?;
        let ends = Ends::ask(brokers, &counts)?;

        let is_enough = |log: &[LogRecord]| {
            log.iter().any(|record| record.head().is_some())
                && log.iter().any(|record| record.epoch().is_some())
        };
        let (generation, committed) =
            match kafka::read_epoch_log(brokers, &pipeline.name, is_enough) {
                Ok(log) => {
                    let generations = log.iter().map(|record| match record {
                        LogRecord::Epoch(record) => record.generation,
                        LogRecord::Head(head) => head.generation,
                    });
                    let epochs = log.iter().filter_map(LogRecord::epoch);
                    (
                        generations.max().unwrap_or(0),
                        epochs.map(|record| record.epoch).next_back(),
                    )
                }
                // Of another format; a reset is the way out.
                Err(KafkaError::UnknownRecord { .. }) => {
                    (kafka::greatest_generation(brokers, &pipeline.name)?, None)
                }
                Err(error) => return Err(error.into()),
            };
        let store = Store::open(&pipeline.snapshots.url, &pipeline.name)?;
        let ids = store.list_all()?;
        let partitions = ends.next.keys().copied();
        let group_offsets = kafka::group_offsets(brokers, &pipeline.name, partitions)?;
        let held = ends.next.iter().map(|(at, next)| {
            let first = ends.first.get(at).map_or(0, |first| first.next);
            next - first
        });
        Ok(Self {
            pipeline: pipeline.name.clone(),
            jobs,
            log: log_topic,
            generation,
            committed,
            snapshots_url: pipeline.snapshots.url.clone(),
            snapshots: ids.iter().map(SnapshotId::to_string).collect(),
            group: pipeline.name.clone(),
            group_offsets: group_offsets.len(),
            records_to_read: held.sum(),
            ids,
            ends: ends
                .next
                .iter()
                .map(|(&(input, partition), &next)| InputEnd {
                    input,
                    partition,
                    next,
                })
                .collect(),
            log_end,
        })
    }

    /// Does it.
    ///
    /// # Errors
    /// [`ResetError::Running`] and the like, before anything was changed; [`ResetError::Left`]
    /// after it.
    pub fn execute(self, pipeline: &Pipeline) -> Result<ResetDone, ResetError> {
        self.refuse_a_running_job(pipeline)?;
        let brokers = &pipeline.kafka.brokers;
        let overtaken = |error| match error {
            CommitError::Fenced { pipeline } => ResetError::Overtaken(pipeline),
            CommitError::Kafka(error) => error.into(),
            error => ResetError::Commit(error),
        };
        let mut committer = Committer::take_over(brokers, &pipeline.name).map_err(overtaken)?;
        let generation = self.generation + 1;
        let head = Head {
            generation,
            run: rand::random(),
            snapshots: Vec::new(),
            stored: Epoch(0),
            version: env!("CARGO_PKG_VERSION").into(),
            reset: Some(Reset {
                generation,
                at_ms: wall_clock_ms(),
                ends: self.ends,
            }),
        };
        committer.commit(&[], &head).map_err(overtaken)?;

        // From here on it has happened, and what is left is of no account.
        let store = Store::open(&pipeline.snapshots.url, &pipeline.name);
        let removed = store
            .and_then(|store| store.remove_these(&self.ids))
            .map_err(|error| ResetError::Left(error.to_string()))?;
        let had_offsets = admin::delete_group(brokers, &self.group)
            .map_err(|error| ResetError::Left(error.to_string()))?;
        Ok(ResetDone {
            generation,
            removed,
            had_offsets,
        })
    }

    fn refuse_a_running_job(&self, pipeline: &Pipeline) -> Result<(), ResetError> {
        let brokers = &pipeline.kafka.brokers;
        let jobs = kafka::jobs_seen(brokers, &pipeline.name)?;
        if !jobs.is_empty() {
            return Err(ResetError::Running {
                pipeline: pipeline.name.clone(),
                jobs,
            });
        }
        let (log_end, since) = self.log_end;
        std::thread::sleep(WATCH.saturating_sub(since.elapsed()));
        if kafka::log_end(brokers, &pipeline.name)? != log_end {
            return Err(ResetError::Writing {
                pipeline: pipeline.name.clone(),
                log: self.log.clone(),
            });
        }
        Ok(())
    }
}

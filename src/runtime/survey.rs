//! What is known of a pipeline whether or not its job runs: how far it has come, what each sink
//! has, what a start would read again, and what would keep it from that.
//!
//! It asks as a start does, in the same order and by the same functions, but takes nothing over
//! and changes nothing. Beside a running job its parts are some milliseconds apart.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::replay::Recorded;
use super::start::{self, Ends};
use super::{JobError, wall_clock_ms};
use crate::clickhouse::{self, Server};
use crate::config::Pipeline;
use crate::epoch::{EpochRecord, Head, LogRecord, Position, Positions, SnapshotId};
use crate::kafka::admin::{self, TopicError};
use crate::kafka::{self, JobSeen, KafkaError};
use crate::model::{Epoch, Input, TimeMs};
use crate::snapshot::{Manifest, SnapshotError, Store};

/// A running job may replace snapshots while they are looked at; then it is looked again.
const ATTEMPTS: u32 = 3;

/// Why a pipeline can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Kafka's topics.
    #[error(transparent)]
    Topics(#[from] TopicError),
}

/// A pipeline at a glance. As JSON it is what `riderflow state --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// Its name.
    pub pipeline: String,
    /// When this was asked, ms since 1970.
    pub at_ms: TimeMs,
    /// The jobs that run, as Kafka sees them: usually one or none.
    pub jobs: Vec<JobSeen>,
    /// How far it has been started.
    pub phase: Phase,
    /// How often it has been started, counting resets; 0 before the first start.
    pub generation: u64,
    /// The version of riderflow that wrote last.
    pub version: Option<String>,
    /// The newest committed epoch.
    pub committed: Option<Committed>,
    /// Each input partition.
    pub inputs: Vec<InputState>,
    /// Where snapshots are kept.
    pub snapshots_url: String,
    /// The snapshots, newest first.
    pub snapshots: Vec<SnapshotState>,
    /// How far ClickHouse is.
    pub clickhouse: ClickhouseState,
    /// What a start would do now.
    pub restart: Restart,
    /// What doesn't work, or soon won't, each with what to do.
    pub problems: Vec<String>,
}

/// How far a pipeline has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never.
    New,
    /// It was reset, and not started since.
    Reset,
    /// It was started.
    Started,
}

/// An epoch that was committed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Committed {
    /// The epoch.
    pub epoch: Epoch,
    /// Its `now`, ms since 1970.
    pub now_ms: TimeMs,
    /// How long that is ago, seconds.
    pub age_s: f64,
}

/// One partition of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputState {
    /// The topic.
    pub topic: &'static str,
    /// The partition.
    pub partition: i32,
    /// The next offset after those of committed epochs; `None` if it is not known yet.
    pub next: Option<i64>,
    /// The first offset that Kafka holds.
    pub first: i64,
    /// One past the last.
    pub end: i64,
    /// Records that are in no committed epoch.
    pub lag: i64,
    /// What lag tools are told under the pipeline's group.
    pub group_offset: Option<i64>,
}

/// Whether a snapshot can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readable {
    /// All of it is as it was written.
    Good,
    /// It is not as it was written.
    Damaged,
    /// It is gone.
    Missing,
    /// A newer riderflow wrote it.
    NewerFormat,
    /// The store does not answer.
    Unreachable,
    /// The log doesn't name it: not in use yet, or no more. It was not looked at.
    Unused,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotState {
    /// Its name in the store.
    pub id: String,
    /// It holds the state after this epoch.
    pub epoch: Epoch,
    /// Whether it can be read.
    pub readable: Readable,
    /// What is wrong with it.
    pub fault: Option<String>,
    /// How long ago it was written, seconds.
    pub age_s: Option<f64>,
    /// Its own size, bytes.
    pub bytes: Option<u64>,
    /// With those before it that it needs, bytes.
    pub chain_bytes: Option<u64>,
    /// The version of riderflow that wrote it.
    pub version: Option<String>,
}

/// How far ClickHouse is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClickhouseState {
    /// Whether rows are written at all.
    pub enabled: bool,
    /// Whether it answers; `None` if it wasn't asked.
    pub answers: Option<bool>,
    /// It has all rows of epochs up to this one.
    pub stored: Epoch,
    /// Committed epochs whose rows it may lack.
    pub epochs_behind: u64,
    /// Their records.
    pub records_behind: i64,
    /// From the first of these epochs to the last, seconds.
    pub seconds_behind: f64,
}

/// What a start would do now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Restart {
    /// Whether it would succeed, as far as can be told.
    pub possible: bool,
    /// The epoch of the snapshot that it would go on from; `None`: it would begin with nothing.
    pub snapshot_epoch: Option<Epoch>,
    /// What it would read of the snapshot store, bytes.
    pub state_bytes: u64,
    /// Committed epochs that it would read again.
    pub epochs: u64,
    /// Their records.
    pub records: i64,
    /// The epoch of an older snapshot that it would compute ClickHouse's missing rows from.
    pub rows_from_epoch: Option<Epoch>,
    /// What it would need of Kafka.
    pub needs: Vec<Need>,
}

/// What a start needs of one input partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    /// The topic.
    pub topic: &'static str,
    /// The partition.
    pub partition: i32,
    /// The first offset that is needed.
    pub from: i64,
    /// Records that Kafka holds before it; negative: so many are gone.
    pub margin: i64,
    /// For how long Kafka keeps it by `retention.ms` or `min.compaction.lag.ms`, seconds.
    /// `None`: for as long as is, or it isn't known.
    pub kept_for_s: Option<f64>,
}

/// Looks at a pipeline.
///
/// # Errors
/// When Kafka does not answer, topics are missing, or its log can't be understood. All else
/// that is wrong is in [`Survey::problems`].
pub fn survey(pipeline: &Pipeline) -> Result<Survey, SurveyError> {
    let mut facts = Facts::ask(pipeline)?;
    for _ in 1..ATTEMPTS {
        if facts.snapshots.iter().all(|look| look.fault.is_none()) {
            break;
        }
        let again = Facts::ask(pipeline)?;
        let is_settled = again.head == facts.head;
        facts = again;
        if is_settled {
            break;
        }
    }
    Ok(facts.survey(pipeline))
}

/// All that was asked.
struct Facts {
    at_ms: TimeMs,
    jobs: Vec<JobSeen>,
    head: Option<Head>,
    log: Vec<LogRecord>,
    ends: Ends,
    kept_ms: BTreeMap<Input, i64>,
    group_offsets: BTreeMap<(Input, i32), i64>,
    store: Result<BTreeSet<SnapshotId>, String>,
    /// Those of the head, newest first.
    snapshots: Vec<Look>,
    answers: Option<bool>,
}

/// What became of looking at a snapshot.
struct Look {
    id: SnapshotId,
    manifest: Option<Manifest>,
    fault: Option<(Readable, String)>,
}

impl Look {
    fn good(&self) -> Option<&Manifest> {
        self.manifest.as_ref().filter(|_| self.fault.is_none())
    }
}

impl Facts {
    fn ask(pipeline: &Pipeline) -> Result<Self, SurveyError> {
        let brokers = &pipeline.kafka.brokers;
        let topic = kafka::epoch_log_topic(&pipeline.name);
        let mut topics: Vec<&str> = Input::ALL.iter().map(|input| input.topic()).collect();
        topics.push(&topic);
        let counts = kafka::partitions_of(brokers, &topics)?;
        let jobs = kafka::jobs_seen(brokers, &pipeline.name)?;
        let has_head = |log: &[LogRecord]| log.iter().any(|record| record.head().is_some());
        let log = kafka::read_epoch_log(brokers, &pipeline.name, has_head)?;
        let head = log.iter().rev().find_map(LogRecord::head).cloned();

        let store = Store::open(&pipeline.snapshots.url, &pipeline.name);
        let listed = match &store {
            Ok(store) => store.list_all().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let named = head.iter().flat_map(|head| head.snapshots.iter().rev());
        let snapshots: Vec<Look> = match &store {
            Ok(store) => named.map(|id| look(store, &listed, *id)).collect(),
            Err(_) => Vec::new(),
        };
        // From the oldest epoch that anything is to be said of.
        let newest = snapshots.iter().find_map(Look::good);
        let mut after = newest.map_or(Epoch(0), |manifest| manifest.id.epoch);
        if let (Some(head), true) = (&head, pipeline.clickhouse.enabled) {
            after = after.min(head.stored);
        }
        let reaches = |log: &[LogRecord]| {
            let mut epochs = log.iter().filter_map(LogRecord::epoch);
            epochs.next().is_some_and(|oldest| oldest.epoch <= after)
        };
        let log = match reaches(&log) {
            true => log,
            false => kafka::read_epoch_log(brokers, &pipeline.name, reaches)?,
        };
        let head = log.iter().rev().find_map(LogRecord::head).cloned();

        let ends = Ends::ask(brokers, &counts[..Input::ALL.len()])?;
        let partitions = ends.first.keys().copied();
        let answers = pipeline
            .clickhouse
            .enabled
            .then(|| clickhouse::ask(&Server::of(pipeline), "SELECT 1", "TabSeparated").is_ok());
        Ok(Self {
            at_ms: wall_clock_ms(),
            jobs,
            head,
            log,
            kept_ms: admin::kept_ms(brokers)?,
            group_offsets: kafka::group_offsets(brokers, &pipeline.name, partitions)?,
            ends,
            store: listed,
            snapshots,
            answers,
        })
    }

    fn survey(self, pipeline: &Pipeline) -> Survey {
        let mut problems = Vec::new();
        let restart = self.restart(pipeline, &mut problems);
        let newest = self.log.iter().rev().find_map(LogRecord::epoch);
        let phase = match &self.head {
            None if self.log.is_empty() => Phase::New,
            Some(head) if head.snapshots.is_empty() => Phase::Reset,
            _ => Phase::Started,
        };
        let generation = self.head.as_ref().map_or(0, |head| head.generation);
        let clickhouse = self.clickhouse(pipeline);
        if clickhouse.answers == Some(false) {
            problems.push(format!(
                "ClickHouse at {} does not answer; events go on without it, and rows follow once \
                 it is back",
                pipeline.clickhouse.url
            ));
        }
        if self.jobs.len() > 1 {
            problems.push(
                "more than one job runs: Kafka lets only the one that started last commit, and \
                 the others end by themselves; start one at a time"
                    .into(),
            );
        }
        Survey {
            pipeline: pipeline.name.clone(),
            at_ms: self.at_ms,
            phase,
            generation,
            version: self.head.as_ref().map(|head| head.version.clone()),
            committed: newest.map(|record| Committed {
                epoch: record.epoch,
                now_ms: record.now_ms,
                age_s: seconds(self.at_ms - record.now_ms),
            }),
            inputs: self.inputs(newest),
            snapshots_url: pipeline.snapshots.url.clone(),
            snapshots: self.snapshot_states(),
            clickhouse,
            restart,
            problems,
            jobs: self.jobs,
        }
    }

    /// Of each partition, those that aren't there any more too.
    fn inputs(&self, newest: Option<&EpochRecord>) -> Vec<InputState> {
        let mut committed = Positions::new();
        if let Some(manifest) = self.snapshots.iter().find_map(Look::good) {
            committed.clone_from(&manifest.positions);
        }
        for range in newest.iter().flat_map(|record| &record.ranges) {
            let position = Position {
                next: range.next,
                latest_ms: range.latest_ms,
            };
            committed.insert((range.input, range.partition), position);
        }
        let known = self.ends.first.keys().chain(committed.keys());
        let known: BTreeSet<_> = known.copied().collect();
        let state = |at: (Input, i32)| {
            let first = self.ends.first.get(&at).map_or(0, |first| first.next);
            let end = self.ends.next.get(&at).copied().unwrap_or(0);
            let next = committed.get(&at).map(|position| position.next);
            InputState {
                topic: at.0.topic(),
                partition: at.1,
                next,
                first,
                end,
                lag: (end - next.unwrap_or(first)).max(0),
                group_offset: self.group_offsets.get(&at).copied(),
            }
        };
        known.into_iter().map(state).collect()
    }

    fn snapshot_states(&self) -> Vec<SnapshotState> {
        let mut states: Vec<SnapshotState> = self
            .snapshots
            .iter()
            .map(|look| {
                let manifest = look.manifest.as_ref();
                let fault = look.fault.as_ref();
                SnapshotState {
                    id: look.id.to_string(),
                    epoch: look.id.epoch,
                    readable: fault.map_or(Readable::Good, |(readable, _)| *readable),
                    fault: fault.map(|(_, text)| text.clone()),
                    age_s: manifest.map(|it| seconds(self.at_ms - it.taken_at_ms)),
                    bytes: manifest.map(|it| it.bytes),
                    chain_bytes: manifest.map(|it| it.chain_bytes),
                    version: manifest.map(|it| it.version.clone()),
                }
            })
            .collect();
        let named: BTreeSet<SnapshotId> = self.snapshots.iter().map(|look| look.id).collect();
        let in_chains = self
            .snapshots
            .iter()
            .filter_map(|look| look.manifest.as_ref());
        let in_chains: BTreeSet<SnapshotId> = in_chains.flat_map(Manifest::files).collect();
        let listed = self.store.iter().flatten().rev();
        let unused = listed.filter(|id| !named.contains(id) && !in_chains.contains(id));
        states.extend(unused.map(|id| SnapshotState {
            id: id.to_string(),
            epoch: id.epoch,
            readable: Readable::Unused,
            fault: None,
            age_s: None,
            bytes: None,
            chain_bytes: None,
            version: None,
        }));
        states
    }

    fn clickhouse(&self, pipeline: &Pipeline) -> ClickhouseState {
        let enabled = pipeline.clickhouse.enabled;
        let stored = self.head.as_ref().map_or(Epoch(0), |head| head.stored);
        let epochs = self.log.iter().filter_map(LogRecord::epoch);
        let behind: Vec<&EpochRecord> = epochs
            .filter(|record| enabled && record.epoch > stored)
            .collect();
        let span_ms = match (behind.first(), behind.last()) {
            (Some(first), Some(last)) => last.now_ms - first.now_ms + first.interval_ms as TimeMs,
            _ => 0,
        };
        let ranges = behind.iter().flat_map(|record| &record.ranges);
        ClickhouseState {
            enabled,
            answers: self.answers,
            stored,
            epochs_behind: behind.len() as u64,
            records_behind: ranges.map(|range| range.next - range.first).sum(),
            seconds_behind: seconds(span_ms),
        }
    }

    /// What a start would do, and why it could not.
    fn restart(&self, pipeline: &Pipeline, problems: &mut Vec<String>) -> Restart {
        let before = problems.len();
        let mut restart = Restart::default();
        if let Err(error) = &self.store {
            problems.push(error.clone());
        }
        let Some(head) = &self.head else {
            if !self.log.is_empty() {
                problems.push(
                    "the epoch log was written by a riderflow that kept no snapshots; `riderflow \
                     reset` starts the pipeline anew"
                        .into(),
                );
            }
            restart.possible = problems.len() == before;
            return restart;
        };
        for look in &self.snapshots {
            problems.extend(look.fault.iter().map(|(_, text)| text.clone()));
        }
        // A start goes on from an older snapshot only when a newer one is damaged.
        let is_passed = |look: &&Look| {
            let fault = look.fault.as_ref().map(|(readable, _)| *readable);
            matches!(fault, Some(Readable::Damaged | Readable::Missing))
        };
        let newest = self.snapshots.iter().find(|look| !is_passed(look));
        let manifest = match newest {
            Some(look) => look.good(),
            None if head.snapshots.is_empty() => {
                restart.possible = self.store.is_ok();
                return restart;
            }
            None => {
                if self.store.is_ok() {
                    problems.push(format!(
                        "none of the pipeline's {} snapshots can be read: bring them back, or \
                         start the pipeline anew by `riderflow reset`",
                        head.snapshots.len()
                    ));
                }
                None
            }
        };
        let Some(manifest) = manifest else {
            return restart;
        };
        restart.snapshot_epoch = Some(manifest.id.epoch);
        restart.state_bytes = manifest.chain_bytes;
        let outcome = self.replay(pipeline, manifest, &mut restart);
        problems.extend(outcome.err().map(|error| error.to_string()));
        let faults = self.snapshots.iter().filter(|look| look.fault.is_some());
        restart.possible = problems.len() == before + faults.count();

        let mut epochs = self.log.iter().filter_map(LogRecord::epoch);
        let is_missing =
            |record: &EpochRecord| record.epoch > head.stored && record.epoch <= manifest.id.epoch;
        if pipeline.clickhouse.enabled && epochs.any(is_missing) {
            self.rows_again(head, problems, &mut restart);
        }
        restart
    }

    fn replay(
        &self,
        pipeline: &Pipeline,
        manifest: &Manifest,
        restart: &mut Restart,
    ) -> Result<(), JobError> {
        start::check_interval(pipeline, manifest)?;
        let recorded = Recorded::of(self.log.clone(), manifest, None)?;
        let replayed = recorded.replayed(manifest, &self.ends.first);
        restart.epochs = recorded.len() as u64;
        restart.records = replayed.records();
        let starts = replayed.partitions.iter();
        restart.needs = starts
            .map(|start| self.need((start.input, start.partition), &start.from))
            .collect();
        self.ends.check(&replayed)
    }

    fn need(&self, at: (Input, i32), from: &Position) -> Need {
        let first = self.ends.first.get(&at).map_or(0, |first| first.next);
        let end = self.ends.next.get(&at).copied().unwrap_or(0);
        let kept = self
            .kept_ms
            .get(&at.0)
            .filter(|_| from.latest_ms > 0 && from.next < end);
        Need {
            topic: at.0.topic(),
            partition: at.1,
            from: from.next,
            margin: from.next - first,
            kept_for_s: kept.map(|kept| seconds(from.latest_ms + kept - self.at_ms)),
        }
    }

    /// Rows of before the snapshot that ClickHouse lacks: they take an older one.
    fn rows_again(&self, head: &Head, problems: &mut Vec<String>, restart: &mut Restart) {
        let mut good = self.snapshots.iter().filter_map(Look::good);
        let Some(older) = good.find(|manifest| manifest.id.epoch <= head.stored) else {
            problems.push(format!(
                "ClickHouse has all rows only up to epoch {}, and there is no snapshot from before \
                 that to compute the others from; `riderflow reset` tells all that Kafka still \
                 holds again",
                head.stored.0
            ));
            return;
        };
        restart.rows_from_epoch = Some(older.id.epoch);
        for (at, position) in &older.positions {
            let first = self.ends.first.get(at).map_or(0, |first| first.next);
            if position.next < first {
                problems.push(format!(
                    "ClickHouse lacks rows that take {}[{}] from offset {}, and Kafka holds it \
                     from {first} on: {} records were removed; lengthen retention.ms, and \
                     `riderflow reset` to go on without these rows",
                    at.0.topic(),
                    at.1,
                    position.next,
                    first - position.next
                ));
            }
        }
    }
}

fn look(store: &Store, listed: &Result<BTreeSet<SnapshotId>, String>, id: SnapshotId) -> Look {
    let manifest = store.manifest(id);
    let loaded = match &manifest {
        Ok(manifest) => store.load(manifest).map(drop),
        Err(_) => Ok(()),
    };
    let (manifest, error) = match (manifest, loaded) {
        (Ok(manifest), loaded) => (Some(manifest), loaded.err()),
        (Err(error), _) => (None, Some(error)),
    };
    let fault = error.map(|error| {
        let is_there = listed.as_ref().is_ok_and(|ids| ids.contains(&id));
        let readable = match &error {
            SnapshotError::Damaged { .. } if !is_there => Readable::Missing,
            SnapshotError::Damaged { .. } => Readable::Damaged,
            SnapshotError::Newer { .. } => Readable::NewerFormat,
            _ => Readable::Unreachable,
        };
        (readable, error.to_string())
    });
    Look {
        id,
        manifest,
        fault,
    }
}

fn seconds(ms: TimeMs) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;

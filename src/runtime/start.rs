//! Where a job starts: what the log says, what the snapshot holds, what Kafka still has.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::JobError;
use super::replay::{Recorded, Replayed};
use crate::clickhouse::migrate::{self, MigrateError};
use crate::clickhouse::{self, Notice, Server, Writer};
use crate::config::Pipeline;
use crate::dataflow::windows;
use crate::detect::Rules;
use crate::epoch::{Head, LogRecord, Position, Positions, SnapshotId};
use crate::fail;
use crate::kafka::{self, Committer, KafkaError, Partitions};
use crate::model::{Epoch, Input, TimeMs};
use crate::snapshot::{Loaded, Manifest, SnapshotError, Store, Taken};
use crate::telemetry::{Condition, Health, Metrics};
use crate::wire::Limits;

/// What `/readyz` waits for while a job starts.
pub(super) struct Conditions {
    pub(super) owned: Condition,
    pub(super) restored: Condition,
    pub(super) replayed: Condition,
    pub(super) caught_up: Condition,
}

impl Conditions {
    pub(super) fn of(health: &Health) -> Self {
        Self {
            owned: health.condition("an older job of this pipeline is fenced off"),
            restored: health.condition("state restored from the snapshot"),
            replayed: health.condition("committed epochs since the snapshot read again"),
            caught_up: health.condition("inputs read to where they ended at the start"),
        }
    }
}

/// What the workers of all processes go on from; the first process settles it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The snapshot that state comes from.
    pub(super) snapshot: SnapshotId,
    pub(super) windows: Windows,
    /// The first epoch that may still come.
    pub(super) open: Epoch,
    /// Where each partition is read from, and what of it is read again.
    pub(super) replayed: Replayed,
}

/// All that is settled before a thread starts, in the process that commits.
pub(super) struct Start {
    pub(super) plan: Plan,
    pub(super) committer: Committer,
    pub(super) head: Head,
    pub(super) store: Arc<Store>,
    /// The snapshots of the head, oldest first.
    pub(super) kept: Vec<Manifest>,
    /// That which state comes from.
    pub(super) manifest: Manifest,
    pub(super) loaded: Arc<Loaded>,
    /// What the log says of the epochs that are read again.
    pub(super) recorded: Recorded,
    /// How far each partition has been read in committed epochs.
    pub(super) positions: Positions,
}

impl Start {
    /// Fences an older owner first, and only then reads what it has committed.
    pub(super) fn prepare(pipeline: &Pipeline, conditions: &Conditions) -> Result<Self, JobError> {
        let brokers = &pipeline.kafka.brokers;
        let log_topic = kafka::epoch_log_topic(&pipeline.name);
        let mut topics: Vec<&str> = Input::ALL.iter().map(|input| input.topic()).collect();
        topics.extend([kafka::NOTIFICATIONS, kafka::DEAD_LETTERS, &log_topic]);
        let counts = kafka::partitions_of(brokers, &topics)?;
        let store = Arc::new(Store::open(&pipeline.snapshots.url, &pipeline.name)?);

        let mut committer = Committer::take_over(brokers, &pipeline.name)?;
        fail::point("takeover");
        let has_head = |log: &[LogRecord]| log.iter().any(|record| record.head().is_some());
        let log = kafka::read_epoch_log(brokers, &pipeline.name, has_head)?;
        let before = log.iter().rev().find_map(LogRecord::head);
        let ends = Ends::ask(brokers, &counts)?;
        let run = RandomState::new().build_hasher().finish();
        let before = match before {
            // After a reset there is no snapshot, as at the first start.
            Some(head) if head.snapshots.is_empty() => Head {
                generation: head.generation,
                reset: head.reset.clone(),
                ..first_head(pipeline, &store, &ends, run)?
            },
            Some(head) => head.clone(),
            None if log.is_empty() => first_head(pipeline, &store, &ends, run)?,
            None => {
                return Err(JobError::Refused(format!(
                    "the epoch log {log_topic} was written by a riderflow that kept no snapshots; \
                     `riderflow reset` starts the pipeline anew"
                )));
            }
        };
        conditions.owned.set(true);
        fail::point("log-read");

        let (manifest, loaded, kept) = newest_good(&store, &before)?;
        check_interval(pipeline, &manifest)?;
        let recorded = Recorded::read(pipeline, &manifest, None)?;
        // Empty epochs count as stored too, and none that counts may get rows.
        let passed = recorded.last().max(manifest.id.epoch).max(before.stored);
        let open = Epoch(passed.0 + 1);
        let replayed = recorded.replayed(&manifest, &ends.first);
        let windows = Windows::going_on(pipeline, &manifest);
        ends.check(&replayed)?;
        let positions = recorded.positions(&replayed);
        let head = Head {
            generation: before.generation + 1,
            run,
            snapshots: kept.iter().map(|manifest| manifest.id).collect(),
            stored: before.stored,
            version: env!("CARGO_PKG_VERSION").into(),
            reset: before.reset,
        };
        committer.commit(&[], &head)?;
        fail::point("head-committed");
        if before.generation == 0 {
            tracing::info!(
                "{}: started for the first time, at the first records that Kafka holds",
                pipeline.name
            );
        } else {
            tracing::info!(
                "{}: start {} goes on from the snapshot of epoch {} ({:.1} MB) and reads {} committed \
             epochs with {} records again",
                pipeline.name,
                head.generation,
                manifest.id.epoch.0,
                manifest.chain_bytes as f64 / 1e6,
                recorded.len(),
                replayed.records(),
            );
        }
        Ok(Self {
            plan: Plan {
                snapshot: manifest.id,
                windows,
                open,
                replayed,
            },
            committer,
            head,
            store,
            kept,
            manifest,
            loaded: Arc::new(loaded),
            recorded,
            positions,
        })
    }
}

/// What Kafka holds of each input partition.
pub(super) struct Ends {
    pub(super) first: Positions,
    pub(super) next: BTreeMap<(Input, i32), i64>,
}

impl Ends {
    pub(super) fn ask(brokers: &str, counts: &[Partitions]) -> Result<Self, KafkaError> {
        let (mut first, mut next) = (Positions::new(), BTreeMap::new());
        for (input, &Partitions(count)) in Input::ALL.into_iter().zip(counts) {
            for held in kafka::held_offsets(brokers, input, count)? {
                let at = (input, held.partition);
                let position = Position {
                    next: held.first,
                    latest_ms: 0,
                };
                first.insert(at, position);
                next.insert(at, held.next);
            }
        }
        Ok(Self { first, next })
    }

    /// Of the partitions that are to be read again.
    pub(super) fn of(brokers: &str, replayed: &Replayed) -> Result<Self, JobError> {
        let count = |input| {
            let own = replayed
                .partitions
                .iter()
                .filter(|start| start.input == input);
            Partitions(own.map(|start| start.partition + 1).max().unwrap_or(0))
        };
        Ok(Self::ask(brokers, &Input::ALL.map(count))?)
    }

    /// Kafka must hold all that is read from now on: nothing is ever skipped.
    pub(super) fn check(&self, replayed: &Replayed) -> Result<(), JobError> {
        for start in &replayed.partitions {
            let at = (start.input, start.partition);
            let name = format!("{}[{}]", start.input.topic(), start.partition);
            let (Some(first), Some(next)) = (self.first.get(&at), self.next.get(&at)) else {
                return Err(JobError::Refused(format!(
                    "{name} isn't there any more, though the pipeline has read from it; partitions \
                     can't be taken away: `riderflow reset` starts the pipeline anew"
                )));
            };
            let from = start.from.next;
            if from < first.next {
                return Err(JobError::Refused(format!(
                    "Kafka no longer holds {name} from offset {from}, where this job would go on; it \
                     begins at {} now, so {} records were removed unread; lengthen retention.ms, and \
                     accept the gap by `riderflow reset`, which starts the pipeline anew",
                    first.next,
                    first.next - from
                )));
            }
            if from > *next {
                return Err(JobError::Refused(format!(
                    "{name} ends at offset {next}, before offset {from}, where this job would go on: \
                     the topic was made anew; `riderflow reset` starts the pipeline anew"
                )));
            }
        }
        Ok(())
    }
}

/// At the first start there is a snapshot too: nothing is known, and reading begins where Kafka
/// does. So what is read from where is always known, and a restart never depends on when it is.
fn first_head(pipeline: &Pipeline, store: &Store, ends: &Ends, run: u64) -> Result<Head, JobError> {
    let id = SnapshotId {
        epoch: Epoch(0),
        run,
    };
    let taken = Taken {
        id,
        sequence: 0,
        interval_ms: pipeline.epoch.interval_ms,
        positions: ends.first.clone(),
        windows: Windows::first(pipeline).recorded(),
    };
    store.write(&taken, None, Vec::new())?;
    Ok(Head {
        generation: 0,
        run,
        snapshots: vec![id],
        stored: id.epoch,
        version: env!("CARGO_PKG_VERSION").into(),
        reset: None,
    })
}

/// The newest snapshot whose checksums are right, and all whose manifests are.
fn newest_good(store: &Store, head: &Head) -> Result<(Manifest, Loaded, Vec<Manifest>), JobError> {
    let mut faults = Vec::new();
    let mut kept = Vec::new();
    let mut newest = None;
    for &id in head.snapshots.iter().rev() {
        let found = store.manifest(id).and_then(|manifest| {
            if newest.is_none() {
                let loaded = store.load(&manifest)?;
                newest = Some((manifest.clone(), loaded));
            }
            Ok(manifest)
        });
        match found {
            Ok(manifest) => kept.push(manifest),
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::warn!("{error}; going on from the snapshot before");
                faults.push(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    kept.reverse();
    let Some((manifest, loaded)) = newest else {
        return Err(JobError::Refused(format!(
            "none of the pipeline's {} snapshots at {} can be read: {}; bring them back, or start \
             the pipeline anew by `riderflow reset`",
            head.snapshots.len(),
            store.url(),
            faults.join("; ")
        )));
    };
    Ok((manifest, loaded, kept))
}

pub(super) fn check_interval(pipeline: &Pipeline, manifest: &Manifest) -> Result<(), JobError> {
    if manifest.interval_ms == pipeline.epoch.interval_ms {
        return Ok(());
    }
    Err(JobError::Refused(format!(
        "epoch.interval_ms is {}, but the pipeline {} was started with {}; it can't change",
        pipeline.epoch.interval_ms, pipeline.name, manifest.interval_ms
    )))
}

/// What the pipeline file says of detection, as a number: other rules, other outputs.
pub(super) fn rules_hash(pipeline: &Pipeline) -> u64 {
    let said = format!("{:?} {:?}", rules(pipeline), limits(pipeline));
    let mut hash = crate::epoch::OutputHash::default();
    hash.add(&[said.as_bytes()]);
    hash.value()
}

pub(super) fn limits(pipeline: &Pipeline) -> Limits {
    Limits {
        max_bytes: pipeline.updates.max_bytes,
        future_limit_ms: (pipeline.updates.future_limit_s * 1000.0) as i64,
    }
}

pub(super) fn rules(pipeline: &Pipeline) -> Rules {
    Rules {
        near_m: pipeline.orders.near_m,
        near_repeat: pipeline.orders.near_repeat,
        rearm_m: pipeline.orders.rearm_m,
        arrive_m: pipeline.orders.arrive_m,
        arrive_s: pipeline.orders.arrive_s,
        depart_m: pipeline.orders.depart_m,
        silent_s: pipeline.drivers.silent_s,
        crossing_gap_s: pipeline.fences.crossing_gap_s,
        max_speed_mps: pipeline.updates.max_speed_mps,
        max_accuracy_m: pipeline.updates.max_accuracy_m,
        lateness_s: pipeline.updates.lateness_s,
    }
}

fn milliseconds(seconds: f64) -> TimeMs {
    (seconds * 1000.0) as TimeMs
}

/// Nobody needs windows that are not stored.
fn has_windows(pipeline: &Pipeline) -> bool {
    pipeline.windows.enabled && pipeline.clickhouse.enabled
}

/// Which windows are computed, and whether a snapshot's state of them serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Windows {
    pub(super) settings: Option<windows::Settings>,
    pub(super) serves: bool,
}

impl Windows {
    /// At the first start all that Kafka holds is read.
    fn first(pipeline: &Pipeline) -> Self {
        Self {
            settings: window_settings(pipeline),
            serves: true,
        }
    }

    /// After a snapshot; other windows than it has begin with what comes after it.
    pub(super) fn going_on(pipeline: &Pipeline, manifest: &Manifest) -> Self {
        let before = serde_json::from_str(&manifest.windows).ok().flatten();
        // An update may be ahead of its Kafka timestamp by the limit.
        let ahead_ms = milliseconds(pipeline.updates.future_limit_s);
        let now_ms = manifest.id.epoch.now_ms(manifest.interval_ms) + ahead_ms;
        let going_on = window_settings(pipeline).map(|new| new.going_on(before, now_ms));
        if going_on.is_some_and(|(_, serves)| !serves) {
            tracing::warn!("the pipeline's windows are others than before; they begin anew");
        }
        Self {
            settings: going_on.map(|(settings, _)| settings),
            serves: going_on.is_some_and(|(_, serves)| serves),
        }
    }

    /// As a snapshot's manifest has them.
    pub(super) fn recorded(&self) -> String {
        serde_json::to_string(&self.settings).expect("settings are numbers")
    }
}

/// The windows of the pipeline file.
fn window_settings(pipeline: &Pipeline) -> Option<windows::Settings> {
    let config = &pipeline.windows;
    let hop_s = if config.hop_s == 0 {
        config.size_s
    } else {
        config.hop_s
    };
    has_windows(pipeline).then_some(windows::Settings {
        size_ms: config.size_s * 1000,
        hop_ms: hop_s * 1000,
        session_gap_ms: milliseconds(config.session_gap_s),
        horizon_ms: milliseconds(config.horizon_s),
        known_from_ms: TimeMs::MIN,
    })
}

/// Starts the writer, after a look at the tables. A ClickHouse that is away is waited for by
/// the writer alone: events do not need it.
pub(super) fn open_writer(
    pipeline: &Pipeline,
    generation: u64,
    metrics: &Metrics,
) -> Result<Option<Writer>, JobError> {
    if !pipeline.clickhouse.enabled {
        return Ok(None);
    }
    match migrate::verify(&Server::of(pipeline), clickhouse::DATABASE) {
        Ok(()) => {}
        Err(error @ MigrateError::Unreachable { .. }) => {
            tracing::warn!("{error}; events do not wait for it");
        }
        Err(error) => return Err(error.into()),
    }
    let metrics = metrics.clone();
    let observer = move |notice: &Notice| match notice {
        Notice::Stored { table, rows, .. } => {
            metrics.clickhouse_rows.add(table.name(), *rows as u64);
            metrics.clickhouse_batch_rows.observe(*rows as f64);
        }
        Notice::Failed {
            table,
            rows,
            code,
            error,
            retry_in,
            advice,
        } => {
            metrics.clickhouse_retries.add(*code, 1);
            tracing::warn!(
                "could not store {rows} rows in {}: {error}; {}trying again in {retry_in:?}",
                table.name(),
                advice
                    .map(|advice| format!("{advice}; "))
                    .unwrap_or_default(),
            );
        }
        Notice::Reconciled {
            table,
            rows,
            present,
        } => {
            tracing::info!("{present} of {rows} rows were in {} already", table.name());
        }
    };
    let options = clickhouse::Options::of(pipeline, generation);
    Ok(Some(Writer::start(options, Some(Arc::new(observer)))?))
}

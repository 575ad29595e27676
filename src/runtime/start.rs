//! Where a job starts: what the log says, and what Kafka still holds.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use crate::clickhouse::migrate::{self, MigrateError};
use crate::clickhouse::{self, Notice, Server, Writer};
use crate::config::Pipeline;
use crate::dataflow::windows;
use crate::detect::Rules;
use crate::epoch::{EpochRecord, Head, LogRecord, PartitionClock, Position, Positions};
use crate::kafka::{self, Committer, Partitions};
use crate::model::{Epoch, Input, TimeMs};
use crate::telemetry::Metrics;
use crate::wire::Limits;

use super::JobError;

/// The partitions of one input, and where each is read from.
pub(super) struct Reading {
    pub(super) input: Input,
    pub(super) partitions: Vec<PartitionStart>,
}

/// Where one partition is read from.
pub(super) struct PartitionStart {
    pub(super) partition: i32,
    pub(super) from: Position,
    /// Committed epochs that are read again, each with the offset after its last.
    replay: Vec<(Epoch, i64)>,
    /// The first epoch that isn't committed.
    open: Epoch,
}

impl PartitionStart {
    pub(super) fn clock(&self, interval_ms: u64) -> PartitionClock {
        let replay = self.replay.iter().copied();
        PartitionClock::resumed(interval_ms, self.from.latest_ms, replay, self.open)
    }
}

/// All that is settled before a thread starts.
pub(super) struct Start {
    pub(super) committer: Committer,
    pub(super) head: Head,
    /// The newest committed epoch.
    pub(super) last: Option<Epoch>,
    pub(super) readings: Vec<Reading>,
    /// How far each partition has been read in committed epochs, or where it is first read from.
    pub(super) positions: Positions,
}

impl Start {
    /// Fences an older owner first, and only then reads what it has committed.
    pub(super) fn prepare(pipeline: &Pipeline) -> Result<Self, JobError> {
        let brokers = &pipeline.kafka.brokers;
        let log_topic = kafka::epoch_log_topic(&pipeline.name);
        let mut topics: Vec<&str> = Input::ALL.iter().map(|input| input.topic()).collect();
        topics.extend([kafka::NOTIFICATIONS, kafka::DEAD_LETTERS, &log_topic]);
        let counts = kafka::partitions_of(brokers, &topics)?;

        let mut committer = Committer::take_over(brokers, &pipeline.name)?;
        let log = kafka::read_epoch_log(brokers, &pipeline.name, |_| false)?;
        let epochs: Vec<&EpochRecord> = log.iter().filter_map(LogRecord::epoch).collect();
        if let Some(record) = epochs.last()
            && record.interval_ms != pipeline.epoch.interval_ms
        {
            return Err(JobError::Refused(format!(
                "epoch.interval_ms is {}, but the pipeline {} was started with {}; it can't change",
                pipeline.epoch.interval_ms, pipeline.name, record.interval_ms
            )));
        }
        let before = log.iter().rev().find_map(LogRecord::head);
        let head = Head {
            generation: before.map_or(0, |before| before.generation) + 1,
            run: RandomState::new().build_hasher().finish(),
            snapshots: Vec::new(),
            stored: None,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        committer.commit(&[], &head)?;

        let last = epochs.last().map(|record| record.epoch);
        let mut readings = Vec::new();
        let mut positions = Positions::new();
        for (input, Partitions(count)) in Input::ALL.into_iter().zip(counts) {
            let wanted: Vec<(i32, Option<i64>)> = (0..count).map(|at| (at, None)).collect();
            let mut partitions = Vec::new();
            for start in kafka::start_offsets(brokers, input, &wanted)? {
                let of_partition = epochs.iter().filter_map(|record| {
                    let mut ranges = record.ranges.iter();
                    let range = ranges
                        .find(|range| (range.input, range.partition) == (input, start.partition))?;
                    Some((record.epoch, range))
                });
                let ranges: Vec<_> = of_partition.collect();
                let first = ranges
                    .first()
                    .map_or(start.offset, |(_, range)| range.first);
                let mut position = Position {
                    next: first,
                    latest_ms: 0,
                };
                let from = position;
                if let Some((_, range)) = ranges.last() {
                    position = Position {
                        next: range.next,
                        latest_ms: range.latest_ms,
                    };
                }
                positions.insert((input, start.partition), position);
                partitions.push(PartitionStart {
                    partition: start.partition,
                    from,
                    replay: ranges
                        .iter()
                        .filter(|(_, range)| range.first < range.next)
                        .map(|(epoch, range)| (*epoch, range.next))
                        .collect(),
                    open: Epoch(last.map_or(0, |last| last.0 + 1)),
                });
            }
            readings.push(Reading { input, partitions });
        }
        Ok(Self {
            committer,
            head,
            last,
            readings,
            positions,
        })
    }
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

/// Which windows to compute.
pub(super) fn windows(pipeline: &Pipeline) -> Option<windows::Settings> {
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

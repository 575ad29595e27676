//! Where a job starts: what the log says, and what Kafka still holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clickhouse::migrate::{self, MigrateError};
use crate::clickhouse::{self, Notice, Server, Writer};
use crate::config::Pipeline;
use crate::dataflow::windows;
use crate::detect::Rules;
use crate::epoch::{PartitionClock, Resume};
use crate::kafka::{self, Committer, Partitions};
use crate::model::{Epoch, Input, TimeMs};
use crate::telemetry::Metrics;
use crate::wire::Limits;

use super::{JobError, Offsets};

/// How far back updates are read again at a start, so that drivers' last fixes and visits
/// are known; what they told is not told again.
const WARM_UP_MS: TimeMs = 10 * 60 * 1000;
/// As many updates are read again for the windows' sake, back to the horizon: some seconds of
/// work. Where there are more, windows are known only from the warm-up on.
const REREAD_LIMIT: i64 = 2_000_000;

/// The partitions of one input, and where each is read from.
pub(super) struct Reading {
    pub(super) input: Input,
    pub(super) partitions: Vec<PartitionStart>,
}

/// Where one partition is read from.
pub(super) struct PartitionStart {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The newest committed epoch, with this partition's next offset at its end.
    committed: Option<(Epoch, i64)>,
}

impl PartitionStart {
    pub(super) fn clock(&self, interval_ms: u64) -> PartitionClock {
        PartitionClock::new(interval_ms, self.offset, self.committed)
    }
}

/// All that is settled before a thread starts.
pub(super) struct Start {
    pub(super) committer: Committer,
    pub(super) resume: Resume,
    pub(super) readings: Vec<Reading>,
    /// Updates were all read again from this Kafka time on; `None`: from the first there is.
    pub(super) reread_from_ms: Option<TimeMs>,
    /// The next offset of every input partition: as committed, or where it is first read from.
    pub(super) next: Offsets,
}

impl Start {
    /// Fences an older owner first, and only then reads what it has committed.
    pub(super) fn prepare(pipeline: &Pipeline) -> Result<Self, JobError> {
        let brokers = &pipeline.kafka.brokers;
        let log_topic = kafka::epoch_log_topic(&pipeline.name);
        let mut topics: Vec<&str> = Input::ALL.iter().map(|input| input.topic()).collect();
        topics.extend([kafka::NOTIFICATIONS, kafka::DEAD_LETTERS, &log_topic]);
        let counts = kafka::partitions_of(brokers, &topics)?;

        let committer = Committer::take_over(brokers, &pipeline.name)?;
        let log = kafka::read_epoch_log(brokers, &pipeline.name)?;
        if let Some(record) = log.iter().max_by_key(|record| record.epoch)
            && record.interval_ms != pipeline.epoch.interval_ms
        {
            return Err(JobError::Refused(format!(
                "epoch.interval_ms is {}, but the pipeline {} was started with {}; it can't change",
                pipeline.epoch.interval_ms, pipeline.name, record.interval_ms
            )));
        }
        let resume = Resume::from_log(log);

        let reread_from_ms = reread_from(pipeline, &resume)?;

        let mut readings = Vec::new();
        let mut next = Offsets::new();
        for (input, Partitions(count)) in Input::ALL.into_iter().zip(counts) {
            let reading = reading(brokers, &resume, input, count, reread_from_ms)?;
            for start in &reading.partitions {
                let at = (input, start.partition);
                next.insert(at, resume.next.get(&at).copied().unwrap_or(start.offset));
            }
            readings.push(reading);
        }
        Ok(Self {
            committer,
            resume,
            readings,
            reread_from_ms,
            next,
        })
    }
}

/// How far back updates are read again: as far as windows reach, if that is not too much.
fn reread_from(pipeline: &Pipeline, resume: &Resume) -> Result<Option<TimeMs>, JobError> {
    let Some((_, now_ms)) = resume.last else {
        return Ok(None);
    };
    let warm_up_ms = now_ms - WARM_UP_MS;
    let horizon_ms = now_ms - milliseconds(pipeline.windows.horizon_s);
    if !has_windows(pipeline) || horizon_ms > warm_up_ms {
        return Ok(Some(warm_up_ms));
    }
    let updates = resume
        .next
        .iter()
        .filter(|((input, _), _)| *input == Input::Updates);
    let ends: BTreeMap<i32, i64> = updates.map(|((_, at), next)| (*at, *next)).collect();
    let partitions: Vec<i32> = ends.keys().copied().collect();
    let input = Input::Updates;
    let found = kafka::offsets_since(&pipeline.kafka.brokers, input, &partitions, horizon_ms)?;
    let again = found
        .into_iter()
        .filter_map(|(partition, first)| Some((ends.get(&partition)? - first?).max(0)));
    let is_little = again.sum::<i64>() <= REREAD_LIMIT;
    Ok(Some(if is_little { horizon_ms } else { warm_up_ms }))
}

/// Orders and fences are read whole, since they are state; updates from a while before the
/// newest committed epoch, or, at the first start, from the first that Kafka holds.
fn reading(
    brokers: &str,
    resume: &Resume,
    input: Input,
    count: i32,
    reread_from_ms: Option<TimeMs>,
) -> Result<Reading, JobError> {
    let partitions: Vec<i32> = (0..count).collect();
    let next = |partition| resume.next.get(&(input, partition)).copied();
    let wanted: Vec<(i32, Option<i64>)> = match (input, reread_from_ms) {
        (Input::Updates, Some(from_ms)) => {
            kafka::offsets_since(brokers, input, &partitions, from_ms)?
                .into_iter()
                .map(|(partition, offset)| {
                    let earliest = [offset, next(partition)].into_iter().flatten().min();
                    (partition, next(partition).and(earliest))
                })
                .collect()
        }
        _ => partitions
            .iter()
            .map(|&partition| (partition, None))
            .collect(),
    };
    let starts = kafka::start_offsets(brokers, input, &wanted)?;
    for &kafka::StartOffset {
        partition, first, ..
    } in &starts
    {
        if let Some(next) = next(partition)
            && input == Input::Updates
            && next < first
        {
            return Err(JobError::Refused(format!(
                "Kafka no longer holds {}[{partition}] from offset {next}, where this job would go \
                 on; it begins at {first} now, so {} updates were removed unread; lengthen \
                 retention.ms, or reset the pipeline to accept the gap",
                input.topic(),
                first - next
            )));
        }
    }
    let partitions = starts
        .into_iter()
        .map(|start| PartitionStart {
            partition: start.partition,
            offset: start.offset,
            committed: resume
                .last
                .map(|(epoch, _)| (epoch, next(start.partition).unwrap_or(start.offset))),
        })
        .collect();
    Ok(Reading { input, partitions })
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

/// Which windows to compute. After a restart those are known that began after what was read
/// again did.
pub(super) fn windows(
    pipeline: &Pipeline,
    reread_from_ms: Option<TimeMs>,
) -> Option<windows::Settings> {
    let config = &pipeline.windows;
    let hop_s = if config.hop_s == 0 {
        config.size_s
    } else {
        config.hop_s
    };
    // An update may be ahead of its Kafka timestamp by the limit.
    let future_limit_ms = milliseconds(pipeline.updates.future_limit_s);
    let known_from_ms = reread_from_ms.map_or(TimeMs::MIN, |from_ms| from_ms + future_limit_ms);
    has_windows(pipeline).then_some(windows::Settings {
        size_ms: config.size_s * 1000,
        hop_ms: hop_s * 1000,
        session_gap_ms: milliseconds(config.session_gap_s),
        horizon_ms: milliseconds(config.horizon_s),
        known_from_ms,
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
    let mut options = clickhouse::Options::of(pipeline, generation);
    if let Some(spill) = &mut options.spill {
        spill.dir = pipeline.snapshots.folder();
    }
    Ok(Some(Writer::start(options, Some(Arc::new(observer)))?))
}

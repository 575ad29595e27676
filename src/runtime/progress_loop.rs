//! Tells lag tools, twice a second, how far committed epochs reach. Notices partitions that
//! came while the job runs, which only a start can assign; and warns when Kafka is about to
//! remove what a restart, or ClickHouse, still needs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Control, JobError};
use crate::config::Pipeline;
use crate::epoch::Positions;
use crate::kafka::{KafkaError, Progress};
use crate::model::Input;
use crate::snapshot::Manifest;
use crate::telemetry::Metrics;

const EVERY: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(50);
const COUNT_EVERY: Duration = Duration::from_secs(5);

pub(super) fn spawn(
    pipeline: &Pipeline,
    committed: Arc<Mutex<Positions>>,
    kept: Arc<Mutex<Vec<Manifest>>>,
    metrics: Metrics,
    control: Arc<Control>,
) -> JoinHandle<()> {
    let brokers = pipeline.kafka.brokers.clone();
    let name = pipeline.name.clone();
    std::thread::Builder::new()
        .name("riderflow-progress".into())
        .spawn(move || {
            let progress = match Progress::open(&brokers, &name) {
                Ok(progress) => progress,
                Err(error) => return control.fail(error.into()),
            };
            let mut told = Positions::new();
            let mut next_turn = Instant::now();
            let mut next_count = Instant::now() + COUNT_EVERY;
            loop {
                let last_turn = control.committed_all.load(Ordering::Acquire);
                if last_turn || Instant::now() >= next_turn {
                    next_turn = Instant::now() + EVERY;
                    let now = committed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clone();
                    if let Err(error) = tell(&progress, &metrics, &told, &now) {
                        tracing::warn!("{error}; trying again");
                    } else {
                        told = now;
                    }
                }
                if last_turn {
                    return;
                }
                if Instant::now() >= next_count {
                    next_count = Instant::now() + COUNT_EVERY;
                    if let Some(error) = new_partitions(&progress, &told) {
                        control.fail(error);
                    }
                    let oldest = kept
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .first()
                        .map(|manifest| manifest.positions.clone());
                    if let Some(needed) = oldest {
                        warn_of_retention(&progress, &metrics, &needed);
                    }
                }
                std::thread::sleep(NAP);
            }
        })
        .expect("the system gives a thread")
}

fn tell(
    progress: &Progress,
    metrics: &Metrics,
    told: &Positions,
    now: &Positions,
) -> Result<(), KafkaError> {
    if now != told && !now.is_empty() {
        progress.commit(now)?;
    }
    for (&(input, partition), position) in now {
        let next = position.next;
        metrics
            .lag
            .set(input, partition, progress.lag(input, partition, next)?);
    }
    Ok(())
}

/// A partition that nobody reads; a broker that doesn't answer will be asked again.
fn new_partitions(progress: &Progress, told: &Positions) -> Option<JobError> {
    Input::ALL.into_iter().find_map(|input| {
        let read = told.keys().filter(|(other, _)| *other == input).count();
        let there = progress.partitions(input).ok()?;
        (read > 0 && there > read).then(|| {
            JobError::Failed(format!(
                "{} has {there} partitions now, and this job reads {read}: start it again to read \
                 all",
                input.topic()
            ))
        })
    })
}

/// Updates are removed by age. What is needed again stands where the oldest snapshot does; when
/// it is in the oldest tenth of what Kafka holds, there is not much time left.
fn warn_of_retention(progress: &Progress, metrics: &Metrics, needed: &Positions) {
    for (&(input, partition), position) in needed {
        // Orders and fences are compacted, and never before `min.compaction.lag.ms`.
        let Ok((first, next)) = progress.held(input, partition) else {
            return;
        };
        let margin = position.next - first;
        metrics.replay_margin.set(input, partition, margin);
        if input != Input::Updates || next == position.next {
            continue;
        }
        if margin < 0 {
            tracing::error!(
                "Kafka has removed {} records of {}[{partition}] that are still needed: ClickHouse \
                 can't get their rows, and a restart from the oldest snapshot is not possible; \
                 lengthen retention.ms",
                -margin,
                input.topic()
            );
        } else if margin < (next - first) / 10 && first > 0 {
            tracing::warn!(
                "Kafka holds only {margin} records of {}[{partition}] before those that are still \
                 needed again, mostly because ClickHouse lacks rows; bring ClickHouse back, or \
                 lengthen retention.ms before Kafka removes them",
                input.topic()
            );
        }
    }
}

//! Tells lag tools, twice a second, how far committed epochs reach; and notices partitions
//! that came while the job runs, which only a start can assign.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Control, JobError};
use crate::config::Pipeline;
use crate::epoch::Positions;
use crate::kafka::{KafkaError, Progress};
use crate::model::Input;
use crate::telemetry::Metrics;

const EVERY: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(50);
const COUNT_EVERY: Duration = Duration::from_secs(5);

pub(super) fn spawn(
    pipeline: &Pipeline,
    committed: Arc<Mutex<Positions>>,
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

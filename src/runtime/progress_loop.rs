//! Tells lag tools, twice a second, how far committed epochs reach.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Control;
use crate::config::Pipeline;
use crate::kafka::{KafkaError, Progress};
use crate::model::Input;
use crate::telemetry::Metrics;

const EVERY: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(50);

/// The next offset of each input partition, as committed.
pub(super) type Offsets = Arc<Mutex<BTreeMap<(Input, i32), i64>>>;

pub(super) fn spawn(
    pipeline: &Pipeline,
    offsets: Offsets,
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
            let mut told = BTreeMap::new();
            let mut next_turn = Instant::now();
            loop {
                let last_turn = control.stopping();
                if last_turn || Instant::now() >= next_turn {
                    next_turn = Instant::now() + EVERY;
                    let now = offsets
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
                std::thread::sleep(NAP);
            }
        })
        .expect("the system gives a thread")
}

fn tell(
    progress: &Progress,
    metrics: &Metrics,
    told: &BTreeMap<(Input, i32), i64>,
    now: &BTreeMap<(Input, i32), i64>,
) -> Result<(), KafkaError> {
    if now != told && !now.is_empty() {
        progress.commit(now)?;
    }
    for (&(input, partition), &next) in now {
        metrics
            .lag
            .set(input, partition, progress.lag(input, partition, next)?);
    }
    Ok(())
}

//! Tells lag tools, twice a second, how far committed epochs reach.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Control, Offsets};
use crate::config::Pipeline;
use crate::kafka::{KafkaError, Progress};
use crate::telemetry::Metrics;

const EVERY: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(50);

pub(super) fn spawn(
    pipeline: &Pipeline,
    committed: Arc<Mutex<Offsets>>,
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
            let mut told = Offsets::new();
            let mut next_turn = Instant::now();
            loop {
                let last_turn = control.stopping();
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
                std::thread::sleep(NAP);
            }
        })
        .expect("the system gives a thread")
}

fn tell(
    progress: &Progress,
    metrics: &Metrics,
    told: &Offsets,
    now: &Offsets,
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

//! Rows that ClickHouse lacks, computed once more: committed epochs are read again from a
//! snapshot before them, by a dataflow of its own with one worker, beside the job.
//!
//! It tells nothing to Kafka. Its rows are doubtful, since some may have been stored; the
//! writer asks the table. It waits while the writer has no room for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::encode::{self, Encoded};
use super::replay::{Recorded, Replayed};
use super::start::{Ends, Windows};
use super::workers::{From, Work};
use super::{CHANNEL_BOUND, JobClock, JobError, start};
use crate::clickhouse::{Origin, Rows, Writer};
use crate::config::Pipeline;
use crate::dataflow::Output;
use crate::model::Epoch;
use crate::snapshot::{Manifest, Store};
use crate::telemetry::Metrics;

/// Epochs whose rows ClickHouse lacks: those after `after`, up to `through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) after: Epoch,
    pub(super) through: Epoch,
}

impl Gap {
    /// The epochs after one and up to another, if there are any.
    pub(super) fn between(after: Epoch, through: Epoch) -> Option<Self> {
        (after < through).then_some(Self { after, through })
    }
}

/// Begins readings.
pub(super) struct ReReader {
    pub(super) pipeline: Pipeline,
    pub(super) store: Arc<Store>,
    /// The snapshots that there are, oldest first; kept up to date by the commit thread.
    pub(super) kept: Arc<Mutex<Vec<Manifest>>>,
}

/// A reading under way.
pub(super) struct ReRead {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), JobError>>,
}

impl ReReader {
    /// Reads a gap again, and sends its rows to the writer.
    pub(super) fn begin(&self, gap: Gap, writer: Arc<Writer>) -> Result<ReRead, JobError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept
            .iter()
            .rev()
            .find(|manifest| manifest.id.epoch <= gap.after);
        let Some(manifest) = before.cloned() else {
            return Err(JobError::Refused(format!(
                "ClickHouse has rows only up to epoch {}, and there is no snapshot from before that \
                 to compute the others from; `riderflow reset` starts the pipeline anew",
                gap.after.0
            )));
        };
        drop(kept);
        let stop = Arc::new(AtomicBool::new(false));
        let reading = Reading {
            pipeline: self.pipeline.clone(),
            store: Arc::clone(&self.store),
            manifest,
            gap,
            writer,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("riderflow-reread".into())
            .spawn(move || reading.run())
            .expect("the system gives a thread");
        Ok(ReRead { stop, thread })
    }
}

impl ReRead {
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// What became of it.
    pub(super) fn end(self) -> Result<(), JobError> {
        self.thread
            .join()
            .expect("a panic would have aborted the process")
    }

    /// Gives it up: what is missing stays missing until the next start.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.end();
    }
}

struct Reading {
    pipeline: Pipeline,
    store: Arc<Store>,
    manifest: Manifest,
    gap: Gap,
    writer: Arc<Writer>,
    stop: Arc<AtomicBool>,
}

impl Reading {
    fn run(self) -> Result<(), JobError> {
        let mut recorded = Recorded::read(&self.pipeline, &self.manifest, Some(self.gap.through))?;
        let replayed = recorded.replayed(&self.manifest, &Default::default());
        self.check_held(&replayed)?;
        tracing::info!(
            "reading epochs {} to {} again for ClickHouse, from the snapshot of epoch {}: {} records",
            self.gap.after.0 + 1,
            self.gap.through.0,
            self.manifest.id.epoch.0,
            replayed.records(),
        );
        let loaded = Arc::new(self.store.load(&self.manifest)?);
        let (outputs, received) = sync_channel(CHANNEL_BOUND);
        let failure = Arc::new(Mutex::new(None));
        let work = Work {
            pipeline: self.pipeline.clone(),
            metrics: Metrics::new(),
            stop: Arc::clone(&self.stop),
            fail: {
                let failure = Arc::clone(&failure);
                let stop = Arc::clone(&self.stop);
                Arc::new(move |message: String| {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(message);
                    stop.store(true, Ordering::Release);
                })
            },
            clock: Arc::new(JobClock::new(0)),
            watch: None,
            links: None,
            is_spread: false,
            workers: 1,
        };
        let from = From {
            snapshot: self.manifest.id,
            windows: Windows::going_on(&self.pipeline, &self.manifest),
            replayed,
            open: None,
            until: Some(self.gap.through),
        };
        let worker = work.spawn_alone(from, loaded, outputs);
        let outcome = self.take_all(&received, &mut recorded);
        self.stop.store(true, Ordering::Release);
        drop(received);
        let _ = worker.join();
        let failed = failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // A failure is why it was stopped.
        match failed {
            Some(message) => Err(JobError::Failed(message)),
            None => outcome,
        }
    }

    /// Sends the gap's rows until all epochs have come.
    fn take_all(
        &self,
        received: &Receiver<Output>,
        recorded: &mut Recorded,
    ) -> Result<(), JobError> {
        let rules = start::rules_hash(&self.pipeline);
        let mut whole = Epoch(0);
        loop {
            let output = match received.recv_timeout(Duration::from_millis(200)) {
                Ok(output) => output,
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Acquire) => {
                    return Err(JobError::Failed("it was stopped".into()));
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match output {
                Output::Locations { epoch, rows } if epoch > self.gap.after => {
                    self.send(Rows::Locations(rows))?;
                }
                Output::Epoch(output) => {
                    let epoch = output.epoch;
                    let encoded = Encoded::new(output);
                    let is_recorded = recorded.compare(epoch, &encoded, rules)?;
                    whole = epoch;
                    if is_recorded && epoch > self.gap.after {
                        for rows in encode::rows(encoded.told, encoded.events, encoded.dead_letters)
                        {
                            self.send(rows)?;
                        }
                    }
                }
                Output::Windows { rows, .. } => {
                    self.send(Rows::Cells(rows.cells))?;
                    self.send(Rows::Drivers(rows.drivers))?;
                    self.send(Rows::Sessions(rows.sessions))?;
                }
                Output::Settled { through } => {
                    self.writer.mark(through.min(whole))?;
                }
                Output::Locations { .. } | Output::Snapshot { .. } => {}
            }
        }
        if self.stop.load(Ordering::Acquire) {
            return Err(JobError::Failed("it was stopped".into()));
        }
        recorded.finish(rules)
    }

    /// Waits while the writer has no room, but not when the job stops.
    fn send(&self, rows: Rows) -> Result<(), JobError> {
        let is_off = || self.stop.load(Ordering::Acquire);
        match self.writer.send_unless(rows, Origin::Doubtful, is_off)? {
            true => Ok(()),
            false => Err(JobError::Failed("it was stopped".into())),
        }
    }

    fn check_held(&self, replayed: &Replayed) -> Result<(), JobError> {
        Ends::of(&self.pipeline.kafka.brokers, replayed)?.check(replayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_lacks_the_rows_of_its_snapshots_own_epoch_too() {
        let gap = Gap::between(Epoch(9), Epoch(10)).expect("epoch 10 is computed by nobody else");
        assert_eq!((gap.after, gap.through), (Epoch(9), Epoch(10)));
        assert_eq!(Gap::between(Epoch(10), Epoch(10)), None);
        assert_eq!(Gap::between(Epoch(11), Epoch(10)), None);
    }
}

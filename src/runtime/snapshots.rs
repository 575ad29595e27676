//! When snapshots are taken, and the thread that writes them.
//!
//! One at a time: a source is told that one is wanted, the dataflow brings the parts, the
//! thread writes them, and the commit thread puts the snapshot into the head of the log, from
//! which it counts. What the head no longer names is removed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fail;
use crate::snapshot::{Manifest, Mark, Part, SnapshotError, Store, Taken};
use crate::telemetry::Metrics;

/// Says when a snapshot is wanted.
pub(super) struct Trigger {
    every: Duration,
    state: Mutex<State>,
}

struct State {
    sequence: u64,
    /// The one before was not written, so changes since then are lost to those after it.
    whole: bool,
    /// When the next one is due; `None` while one is under way or none may be taken.
    due: Option<Instant>,
}

impl Trigger {
    /// None is wanted before [`Trigger::begin`]. If the state's shape is another than `before`
    /// has, the first is whole.
    pub(super) fn new(every: Duration, before: &Manifest, windows: &str) -> Self {
        Self {
            every,
            state: Mutex::new(State {
                sequence: before.sequence + 1,
                whole: before.windows != windows,
                due: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on snapshots are taken.
    pub(super) fn begin(&self) {
        self.lock().due.get_or_insert(Instant::now() + self.every);
    }

    /// The mark of a snapshot that is to be taken now.
    pub(super) fn wanted(&self) -> Option<Mark> {
        let mut state = self.lock();
        state.due.take_if(|due| *due <= Instant::now())?;
        Some(Mark {
            sequence: state.sequence,
            whole: state.whole,
        })
    }

    /// The snapshot that was wanted is settled: written or given up.
    fn settled(&self, is_written: bool) {
        let mut state = self.lock();
        state.sequence += 1;
        state.whole = !is_written;
        state.due = Some(Instant::now() + self.every);
    }
}

/// What the thread does, in order.
enum Task {
    Write(Taken, Mark, Vec<Part>),
    KeepOnly(Vec<Manifest>),
}

/// The thread that writes snapshots. It ends some time after this is dropped, which nobody waits
/// for: a stop must not hang on a slow store, and what isn't in the head by then counts for
/// nothing.
pub(super) struct SnapshotThread {
    tasks: Sender<Task>,
    written: Receiver<Manifest>,
}

impl SnapshotThread {
    /// `before` is what the first one builds on.
    pub(super) fn spawn(
        store: Arc<Store>,
        before: Manifest,
        trigger: Arc<Trigger>,
        metrics: Metrics,
    ) -> Self {
        let (tasks, received) = channel();
        let (done, written) = channel();
        std::thread::Builder::new()
            .name("riderflow-snapshots".into())
            .spawn(move || work(&store, before, &trigger, &metrics, &received, &done))
            .expect("the system gives a thread");
        Self { tasks, written }
    }

    /// Has parts written as a snapshot.
    pub(super) fn write(&self, taken: Taken, mark: Mark, parts: Vec<Part>) {
        self.give(Task::Write(taken, mark, parts));
    }

    /// Has everything removed that these don't need.
    pub(super) fn keep_only(&self, kept: Vec<Manifest>) {
        self.give(Task::KeepOnly(kept));
    }

    /// A snapshot that has been written since this was asked last.
    pub(super) fn written(&self) -> Option<Manifest> {
        self.written.try_recv().ok()
    }

    fn give(&self, task: Task) {
        // The thread only ends with this.
        let _ = self.tasks.send(task);
    }
}

fn work(
    store: &Store,
    mut before: Manifest,
    trigger: &Trigger,
    metrics: &Metrics,
    tasks: &Receiver<Task>,
    done: &Sender<Manifest>,
) {
    for task in tasks {
        match task {
            Task::Write(taken, mark, parts) => {
                let began = Instant::now();
                fail::point("snapshot-parts");
                let base = (!mark.whole).then_some(&before);
                let written = store.write(&taken, base, parts);
                if let Ok(manifest) = &written {
                    metrics
                        .snapshot_seconds
                        .observe(began.elapsed().as_secs_f64());
                    metrics.snapshot_bytes.set(manifest.bytes as i64);
                    tracing::debug!(
                        "snapshot of epoch {}: {:.1} MB in {:?}",
                        manifest.id.epoch.0,
                        manifest.bytes as f64 / 1e6,
                        began.elapsed()
                    );
                }
                tell(written, &mut before, trigger, metrics, done);
            }
            Task::KeepOnly(kept) => {
                if let Err(error) = store.keep_only(&kept) {
                    tracing::warn!("{error}; trying again with the next snapshot");
                }
            }
        }
    }
}

fn tell(
    written: Result<Manifest, SnapshotError>,
    before: &mut Manifest,
    trigger: &Trigger,
    metrics: &Metrics,
    done: &Sender<Manifest>,
) {
    match written {
        Ok(manifest) => {
            fail::point("snapshot-manifest-written");
            *before = manifest.clone();
            trigger.settled(true);
            // The commit thread may have ended meanwhile.
            let _ = done.send(manifest);
        }
        Err(error) => {
            metrics.snapshot_failures.inc();
            tracing::warn!("{error}; a restart has more to read again until one succeeds");
            trigger.settled(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger() -> Trigger {
        Trigger {
            every: Duration::ZERO,
            state: Mutex::new(State {
                sequence: 7,
                whole: false,
                due: None,
            }),
        }
    }

    #[test]
    fn one_snapshot_at_a_time_and_all_whole_after_a_failure() {
        let trigger = trigger();
        assert_eq!(trigger.wanted(), None, "not before it begins");
        trigger.begin();
        let first = trigger.wanted().expect("due");
        assert_eq!((first.sequence, first.whole), (7, false));
        assert_eq!(trigger.wanted(), None, "one is under way");
        trigger.settled(false);
        let second = trigger.wanted().expect("due again");
        assert_eq!((second.sequence, second.whole), (8, true));
        trigger.settled(true);
        assert_eq!(trigger.wanted().map(|mark| mark.whole), Some(false));
    }
}

//! What a timely worker does: opens its partitions, builds the dataflow on what a snapshot
//! knew, and steps until it is told to stop or all is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use timely::worker::Worker;

use super::cluster::Links;
use super::replay::Replayed;
use super::snapshots::Trigger;
use super::start::{self, Plan, Windows};
use super::{JobClock, JobError, PARK, WINDOWS_LIMIT};
use crate::config::Pipeline;
use crate::dataflow::{self, Context, Feed, Output, Progress, Restored, Trays};
use crate::epoch::{KEY_GROUPS, SnapshotId};
use crate::fail;
use crate::kafka::{KafkaError, Reader};
use crate::model::{Epoch, Input, TimeMs};
use crate::snapshot::{Kind, Loaded, Part};
use crate::telemetry::{Condition, Heartbeat, Metrics};

/// What a dataflow goes on from.
#[derive(Clone, Debug)]
pub(super) struct From {
    /// The snapshot that state comes from.
    pub(super) snapshot: SnapshotId,
    pub(super) windows: Windows,
    pub(super) replayed: Replayed,
    /// The first epoch that isn't committed; `None`: only what is committed is read.
    pub(super) open: Option<Epoch>,
    /// The last of them, if only they are read.
    pub(super) until: Option<Epoch>,
}

impl From {
    pub(super) fn plan(plan: Plan) -> Self {
        Self {
            snapshot: plan.snapshot,
            windows: plan.windows,
            replayed: plan.replayed,
            open: Some(plan.open),
            until: None,
        }
    }
}

/// What all workers of a dataflow share.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) pipeline: Pipeline,
    pub(super) metrics: Metrics,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) fail: Arc<dyn Fn(String) + Send + Sync>,
    pub(super) clock: Arc<JobClock>,
    /// To the workers of all processes.
    pub(super) links: Option<Links>,
    /// Who hears how far the job is; `None` where nobody does.
    pub(super) watch: Option<Watch>,
    /// Whether there are other processes.
    pub(super) is_spread: bool,
    /// Workers in this process.
    pub(super) workers: usize,
}

/// Hears how far the job is.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) heartbeat: Heartbeat,
    pub(super) replayed: Condition,
    pub(super) caught_up: Condition,
    /// When the job started, ms since 1970.
    pub(super) started_ms: TimeMs,
    /// Says when snapshots are taken; in the process that commits.
    pub(super) trigger: Option<Arc<Trigger>>,
}

impl Work {
    /// Runs a dataflow of one worker on a thread of its own, beside the job.
    pub(super) fn spawn_alone(
        self,
        from: From,
        loaded: Arc<Loaded>,
        outputs: SyncSender<Output>,
    ) -> JoinHandle<()> {
        std::thread::Builder::new()
            .name("riderflow-alone".into())
            .spawn(move || {
                timely::execute_directly(move |worker| {
                    self.run(worker, &from, &loaded, Some(outputs));
                });
            })
            .expect("the system gives a thread")
    }

    /// One worker's part. `outputs` is `None` in a process that does not commit.
    pub(super) fn run(
        &self,
        worker: &mut Worker,
        from: &From,
        loaded: &Loaded,
        outputs: Option<SyncSender<Output>>,
    ) {
        let (index, peers) = (worker.index(), worker.peers());
        let feeds = match self.feeds(from, index, peers) {
            Ok(feeds) => feeds,
            Err(error) => return (self.fail)(JobError::from(error).to_string()),
        };
        let mut restored = restored(from.snapshot.epoch, loaded, index, peers);
        if !from.windows.serves {
            restored.trails.clear();
            restored.cells.clear();
        }
        let interval_ms = self.pipeline.epoch.interval_ms;
        let trigger = self.watch.as_ref().and_then(|watch| watch.trigger.clone());
        let context = Context {
            interval_ms,
            limits: start::limits(&self.pipeline),
            rules: start::rules(&self.pipeline),
            until: from.until,
            keep_history: self.pipeline.clickhouse.enabled,
            windows: from.windows.settings,
            clock: {
                let clock = Arc::clone(&self.clock);
                Box::new(move || clock.now_ms())
            },
            outputs,
            wanted: match trigger.clone().filter(|_| index == 0) {
                Some(trigger) => Box::new(move || trigger.wanted()),
                None => Box::new(|| None),
            },
            fail: Arc::clone(&self.fail),
            is_spread: self.is_spread,
            trays: Trays::default(),
            metrics: self.metrics.clone(),
        };
        let progress = worker
            .dataflow::<u64, _, _>(|scope| dataflow::build(scope, feeds, Some(restored), context));
        if index == 0 && self.watch.is_some() {
            fail::point("replay-begun");
        }

        let mut oldest = None;
        while !self.stop.load(Ordering::Acquire) {
            if !worker.step_or_park(Some(PARK)) {
                // All is read that was to be read.
                return;
            }
            if let Some(watch) = &self.watch
                && index % self.workers == 0
            {
                let now = progress
                    .judged
                    .with_frontier(|frontier| frontier.first().copied());
                if now != oldest {
                    oldest = now;
                    watch.advanced_to(now, from.open, interval_ms, &self.metrics);
                }
            }
        }
        self.finish_windows(worker, &progress);
        if let Some(links) = &self.links {
            links.finish_worker(index);
            let deadline = Instant::now() + WINDOWS_LIMIT;
            while !links.all_finished() && Instant::now() < deadline {
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
        }
        // What is not whole is not told: the next start reads it again.
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }

    /// Lets windows take in what was judged already, so that they are told with it.
    fn finish_windows(&self, worker: &mut Worker, progress: &Progress) {
        let Some(windows) = &progress.windows else {
            return;
        };
        let judged = progress
            .judged
            .with_frontier(|frontier| frontier.first().copied());
        let deadline = Instant::now() + WINDOWS_LIMIT;
        // Without a peer, they never do.
        let is_hopeless = || self.links.as_ref().is_some_and(Links::all_finished);
        while judged.is_some_and(|judged| windows.less_than(&judged))
            && !is_hopeless()
            && Instant::now() < deadline
        {
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
    }

    /// Opens the partitions that are this worker's.
    fn feeds(
        &self,
        from: &From,
        index: usize,
        peers: usize,
    ) -> Result<Vec<Feed<Reader>>, KafkaError> {
        let interval_ms = self.pipeline.epoch.interval_ms;
        let mut feeds = Vec::new();
        for input in Input::ALL {
            let own = from.replayed.of_worker(input, index, peers);
            if own.is_empty() {
                continue;
            }
            let offsets: Vec<_> = own
                .iter()
                .map(|start| (start.partition, start.from.next))
                .collect();
            let clock = |start: &super::replay::ReplayedPartition| match from.open {
                Some(open) => start.clock(interval_ms, open),
                None => start.clock_to_the_end(interval_ms),
            };
            feeds.push(Feed {
                input,
                reader: Reader::open(
                    &self.pipeline.kafka.brokers,
                    &self.pipeline.name,
                    input,
                    &offsets,
                )?,
                partitions: own
                    .iter()
                    .map(|start| (start.partition, clock(start)))
                    .collect(),
            });
        }
        Ok(feeds)
    }
}

impl Watch {
    fn advanced_to(
        &self,
        oldest: Option<u64>,
        open: Option<Epoch>,
        interval_ms: u64,
        metrics: &Metrics,
    ) {
        let Some(oldest) = oldest.map(Epoch) else {
            return;
        };
        let reached_ms = oldest.start_ms(interval_ms);
        self.heartbeat.beat();
        metrics.epoch_age.advance_to(reached_ms);
        if open.is_some_and(|open| oldest >= open) && !self.replayed.is_met() {
            fail::point("replay-done");
            self.replayed.set(true);
            if let Some(trigger) = &self.trigger {
                trigger.begin();
            }
        }
        if reached_ms >= self.started_ms {
            self.caught_up.set(true);
        }
    }
}

fn parts_of(loaded: &Loaded, kind: Kind, groups: impl Iterator<Item = u64>) -> Vec<Part> {
    let parts = groups.flat_map(|group| loaded.parts(kind, group));
    parts
        .map(|part| Part {
            kind: part.kind,
            group: part.group,
            whole: part.whole,
            bytes: part.bytes.to_vec(),
        })
        .collect()
}

/// What one worker needs of a snapshot.
fn restored(epoch: Epoch, loaded: &Loaded, index: usize, peers: usize) -> Restored {
    let all = |kind| -> Vec<Part> {
        let groups = 0..KEY_GROUPS;
        parts_of(loaded, kind, groups)
    };
    let own = |kind| -> Vec<Part> {
        let groups = (0..KEY_GROUPS).filter(|group| Restored::is_own(*group, index, peers));
        parts_of(loaded, kind, groups)
    };
    Restored {
        epoch,
        fences: all(Kind::Fences),
        orders: own(Kind::Orders),
        drivers: own(Kind::Drivers),
        sessions: own(Kind::Sessions),
        trails: own(Kind::Trails),
        cells: own(Kind::Cells),
    }
}

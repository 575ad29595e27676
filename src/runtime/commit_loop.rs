//! The commit thread: encodes whole epochs, commits them, and passes on what follows the
//! commit: rows to ClickHouse, parts to the snapshot thread, positions to lag tools.
//!
//! Epochs that wait share a transaction. Epochs that are read again after a restart are held
//! against what was recorded of them, and committed no more. Nothing here waits for
//! the snapshot store, nor for ClickHouse while the job is in time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::encode::{self, Encoded, Recorder};
use super::replay::Recorded;
use super::rows::RowFlow;
use super::snapshots::SnapshotThread;
use super::{Control, JobError, wall_clock_ms};
use crate::clickhouse::{Origin, Rows};
use crate::config::Pipeline;
use crate::dataflow::{EpochOutput, Output};
use crate::epoch::{Head, Positions, SnapshotId};
use crate::fail;
use crate::kafka::{Committer, EpochToCommit};
use crate::model::{Cause, Epoch, Event, Location, WindowRows};
use crate::snapshot::{Manifest, Mark, Part, Taken};
use crate::telemetry::Metrics;

/// Outputs of one transaction, at most; and epochs.
const OUTPUTS_TOGETHER: usize = 20_000;
const EPOCHS_TOGETHER: usize = 500;
/// How often it is looked what has become of rows and snapshots, though no epoch comes.
const TICK: Duration = Duration::from_millis(100);
/// How often the head is committed, though no epoch is.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// A snapshot waits so long for the rows before it to be stored, so that a restart from it has
/// none of them to find. Where ClickHouse is away, it does not wait.
const PUBLISH_LIMIT: Duration = Duration::from_secs(10);
/// Snapshots that are kept, those that rows are waiting for aside.
const KEPT: usize = 2;

pub(super) struct Parts {
    pub(super) pipeline: Pipeline,
    pub(super) committer: Committer,
    pub(super) head: Head,
    pub(super) rows: RowFlow,
    pub(super) snapshots: SnapshotThread,
    /// The snapshots of the head, oldest first.
    pub(super) kept: Arc<Mutex<Vec<Manifest>>>,
    /// As a snapshot's manifest has them.
    pub(super) windows: String,
    pub(super) recorded: Recorded,
    /// Of every input partition, as committed.
    pub(super) positions: Positions,
    /// Told after each commit.
    pub(super) committed: Arc<Mutex<Positions>>,
    pub(super) received: Receiver<Output>,
    pub(super) metrics: Metrics,
    pub(super) control: Arc<Control>,
}

pub(super) fn spawn(parts: Parts) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name("riderflow-commit".into())
        .spawn(move || {
            let control = Arc::clone(&parts.control);
            if let Err(error) = CommitLoop::new(parts).run() {
                control.fail(error);
            }
        })
        .expect("the system gives a thread")
}

struct CommitLoop {
    committer: Committer,
    /// As it is to be committed next.
    head: Head,
    committed_head: Head,
    head_due: Instant,
    rows: RowFlow,
    snapshots: SnapshotThread,
    kept: Arc<Mutex<Vec<Manifest>>>,
    recorded: Recorded,
    recorder: Recorder,
    window_settings: String,
    interval_ms: u64,
    /// The newest epoch that was committed before this start.
    replayed_to: Epoch,
    /// ClickHouse had all rows of epochs up to this one at the start.
    stored_before: Epoch,
    /// Whether all up to there has been read again.
    is_replayed: bool,
    /// The newest committed epoch.
    last: Epoch,
    /// All epochs up to this one are known, empty or not; they are committed with the others.
    known: Epoch,
    /// Of all epochs up to this one, committed or empty, rows have been passed on, windows
    /// aside: behind `last` while committed epochs are read again.
    passed: Epoch,
    waiting: Vec<EpochToCommit>,
    waiting_events: Vec<Event>,
    locations: BTreeMap<Epoch, Vec<Vec<Location>>>,
    /// Windows, by the newest epoch that is in them.
    windows: BTreeMap<Epoch, Vec<WindowRows>>,
    /// All windows of epochs up to this one have come; `None` where there are none.
    settled: Option<Epoch>,
    /// Epochs of which a snapshot is wanted.
    marked: BTreeMap<Epoch, (Mark, Positions)>,
    parts: Vec<(Epoch, Vec<Part>)>,
    /// A snapshot that is written and not in the head yet, and since when.
    written: Option<(Manifest, Instant)>,
    committed: Arc<Mutex<Positions>>,
    received: Receiver<Output>,
    metrics: Metrics,
    control: Arc<Control>,
}

impl CommitLoop {
    fn new(parts: Parts) -> Self {
        let replayed_to = parts.recorded.last();
        let stored_before = parts.head.stored;
        let passed = parts.recorded.after();
        Self {
            committer: parts.committer,
            committed_head: parts.head.clone(),
            head: parts.head,
            head_due: Instant::now() + HEAD_EVERY,
            rows: parts.rows,
            snapshots: parts.snapshots,
            kept: parts.kept,
            recorder: Recorder::new(&parts.pipeline, parts.positions),
            recorded: parts.recorded,
            window_settings: parts.windows,
            interval_ms: parts.pipeline.epoch.interval_ms,
            replayed_to,
            stored_before,
            is_replayed: false,
            last: replayed_to,
            known: passed,
            passed,
            waiting: Vec::new(),
            waiting_events: Vec::new(),
            locations: BTreeMap::new(),
            windows: BTreeMap::new(),
            settled: None,
            marked: BTreeMap::new(),
            parts: Vec::new(),
            written: None,
            committed: parts.committed,
            received: parts.received,
            metrics: parts.metrics,
            control: parts.control,
        }
    }

    fn run(mut self) -> Result<(), JobError> {
        let outcome = self.commit_all();
        self.control.committed_all.store(true, Ordering::Release);
        // Also after a failure: the rows are of committed epochs.
        let stored = self.rows.stop(self.control.is_deserted());
        outcome?;
        self.head.stored = self.head.stored.max(stored?);
        if self.head != self.committed_head {
            self.committer.commit(&[], &self.head)?;
        }
        Ok(())
    }

    fn commit_all(&mut self) -> Result<(), JobError> {
        loop {
            match self.received.recv_timeout(TICK) {
                Ok(output) => self.take(output)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while self.has_room()
                && let Ok(output) = self.received.try_recv()
            {
                self.take(output)?;
            }
            self.commit()?;
            self.pass_windows_on()?;
            self.tick()?;
        }
    }

    fn has_room(&self) -> bool {
        let outputs = self.waiting_events.len()
            + self
                .waiting
                .iter()
                .map(|epoch| epoch.dead_letters.len())
                .sum::<usize>();
        outputs < OUTPUTS_TOGETHER && self.waiting.len() < EPOCHS_TOGETHER
    }

    fn take(&mut self, output: Output) -> Result<(), JobError> {
        match output {
            Output::Locations { epoch, rows } => {
                self.locations.entry(epoch).or_default().push(rows);
            }
            Output::Windows { through, rows } => {
                self.windows.entry(through).or_default().push(rows);
            }
            Output::Settled { through } => self.settled = Some(through),
            Output::Snapshot { epoch, parts } => self.parts.push((epoch, parts)),
            Output::Epoch(output) => self.take_epoch(output)?,
        }
        Ok(())
    }

    fn take_epoch(&mut self, output: EpochOutput) -> Result<(), JobError> {
        let (epoch, mark) = (output.epoch, output.mark);
        let encoded = Encoded::new(output);
        if epoch <= self.replayed_to {
            let rules = self.recorder.rules();
            return match self.recorded.compare(epoch, &encoded, rules)? {
                true => self.pass_replayed_on(epoch, encoded),
                false => Ok(()),
            };
        }
        if !self.is_replayed {
            self.is_replayed = true;
            self.recorded.finish(self.recorder.rules())?;
        }
        if !encoded.is_empty() {
            let (to_commit, told) = self.recorder.record(epoch, encoded, &self.head)?;
            self.waiting.push(to_commit);
            self.waiting_events.extend(told);
        }
        self.known = epoch;
        if let Some(mark) = mark {
            let positions = self.recorder.positions.clone();
            self.marked.insert(epoch, (mark, positions));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), JobError> {
        if self.waiting.is_empty() {
            self.passed = self.passed.max(self.known);
            return Ok(());
        }
        let began = Instant::now();
        self.committer.commit(&self.waiting, &self.head)?;
        self.head_is_committed();
        self.last = self.waiting[self.waiting.len() - 1].record.epoch;
        self.passed = self.known;
        self.count(began);
        self.committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&self.recorder.positions);
        self.pass_rows_on()
    }

    fn count(&self, began: Instant) {
        let metrics = &self.metrics;
        let now_ms = wall_clock_ms();
        metrics
            .commit_seconds
            .observe(began.elapsed().as_secs_f64());
        metrics.epochs_committed.inc_by(self.waiting.len() as u64);
        for event in &self.waiting_events {
            metrics.events.add(event.kind, 1);
            if event.cause != Cause::Timer {
                let latency_ms = (now_ms - event.place.at_ms).max(0);
                metrics
                    .event_latency_seconds
                    .observe(latency_ms as f64 / 1000.0);
            }
        }
        for letter in self.waiting.iter().flat_map(|epoch| &epoch.dead_letters) {
            metrics.dead_letters.add(letter.fault.reason, 1);
        }
    }

    /// The rows of an epoch that was committed by an earlier start; it may have stored them.
    fn pass_replayed_on(&mut self, epoch: Epoch, encoded: Encoded) -> Result<(), JobError> {
        let later = self.locations.split_off(&Epoch(epoch.0 + 1));
        let locations = std::mem::replace(&mut self.locations, later);
        self.passed = epoch;
        if epoch <= self.stored_before {
            return Ok(());
        }
        for (epoch, rows) in locations {
            let rows = rows.into_iter().map(Rows::Locations);
            self.rows.pass(epoch, rows, Origin::Doubtful)?;
        }
        let rows = encode::rows(encoded.told, encoded.events, encoded.dead_letters);
        self.rows.pass(epoch, rows, Origin::Doubtful)
    }

    fn pass_rows_on(&mut self) -> Result<(), JobError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut told = std::mem::take(&mut self.waiting_events).into_iter();
        for epoch in waiting {
            let number = epoch.record.epoch;
            let later = self.locations.split_off(&Epoch(number.0 + 1));
            let locations = std::mem::replace(&mut self.locations, later);
            let locations = locations.into_values().flatten().map(Rows::Locations);
            let reset = self.head.reset.as_ref();
            let origin = match reset.is_some_and(|reset| reset.may_have_stored(&epoch.record)) {
                true => Origin::Doubtful,
                false => Origin::New,
            };
            self.rows.pass(number, locations, origin)?;
            let own: Vec<Event> = told.by_ref().take(epoch.events.len()).collect();
            let rows = encode::rows(own, epoch.events, epoch.dead_letters);
            self.rows.pass(number, rows, origin)?;
        }
        fail::point("rows-passed");
        Ok(())
    }

    /// Windows of which all is committed, those of earlier starts too: they are upserts.
    fn pass_windows_on(&mut self) -> Result<(), JobError> {
        // Not before their epochs' rows: what is let go of them would be read again without
        // those.
        let later = self.windows.split_off(&Epoch(self.passed.0 + 1));
        for (through, rows) in std::mem::replace(&mut self.windows, later) {
            for rows in rows {
                let rows = [
                    Rows::Cells(rows.cells),
                    Rows::Drivers(rows.drivers),
                    Rows::Sessions(rows.sessions),
                ];
                self.rows.pass(through, rows, Origin::New)?;
            }
        }
        Ok(())
    }

    /// What goes on beside the commits.
    fn tick(&mut self) -> Result<(), JobError> {
        // The parts may come before the epoch itself.
        while let Some(at) = self
            .parts
            .iter()
            .position(|(epoch, _)| self.marked.contains_key(epoch))
            && let (epoch, parts) = self.parts.swap_remove(at)
            && let Some((mark, positions)) = self.marked.remove(&epoch)
        {
            let taken = Taken {
                id: SnapshotId {
                    epoch,
                    run: self.head.run,
                },
                sequence: mark.sequence,
                interval_ms: self.interval_ms,
                positions,
                windows: self.window_settings.clone(),
            };
            self.snapshots.write(taken, mark, parts);
        }
        if let Some(manifest) = self.snapshots.written() {
            let since = self.written.take().map(|(_, since)| since);
            self.written = Some((manifest, since.unwrap_or_else(Instant::now)));
        }

        self.rows.tick(self.whole(), self.passed)?;
        self.head.stored = self.head.stored.max(self.rows.stored());
        self.metrics.committed_epoch.set(self.last.0 as i64);
        if let Some((manifest, since)) = &self.written {
            let has_rows = self.head.stored >= manifest.id.epoch;
            if has_rows || self.rows.lags() || since.elapsed() > PUBLISH_LIMIT {
                self.publish();
            }
        }
        if self.head != self.committed_head && Instant::now() >= self.head_due {
            self.committer.commit(&[], &self.head)?;
            self.head_is_committed();
        }
        Ok(())
    }

    /// All rows up to this epoch have been passed on, windows too.
    fn whole(&self) -> Epoch {
        match self.settled {
            // Epochs after those are empty, or not committed yet.
            Some(settled) => settled.min(self.passed),
            None => self.head.stored,
        }
    }

    /// Puts the written snapshot into the head, and takes those out that nobody needs.
    fn publish(&mut self) {
        let Some((manifest, _)) = self.written.take() else {
            return;
        };
        let stored = self.head.stored;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(manifest);
        // Rows that aren't stored are computed from the newest one that lies before them.
        let newest = kept.len().saturating_sub(KEPT);
        let before = kept.iter().rposition(|it| it.id.epoch <= stored);
        let needed = newest.min(before.unwrap_or(newest));
        // What lies between is part of nothing but their chains.
        if needed < newest {
            kept.drain(needed + 1..newest);
        }
        kept.drain(..needed);
        self.head.snapshots = kept.iter().map(|manifest| manifest.id).collect();
    }

    fn head_is_committed(&mut self) {
        self.head_due = Instant::now() + HEAD_EVERY;
        if self.head.snapshots != self.committed_head.snapshots {
            fail::point("snapshot-published");
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            self.snapshots.keep_only(kept.clone());
        }
        self.committed_head.clone_from(&self.head);
    }
}

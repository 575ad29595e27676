//! The commit thread: encodes whole epochs, commits them, and passes rows on afterwards.
//!
//! Epochs that wait share a transaction. Rows go to ClickHouse only once their epoch is
//! committed; while the writer's bound is reached, this thread waits for it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Control, JobError, wall_clock_ms};
use crate::clickhouse::{Origin, Rows, StoredEvent, Writer};
use crate::config::Pipeline;
use crate::dataflow::{EpochOutput, Output};
use crate::epoch::{EpochRecord, Head, OffsetRange, OutputHash, Position, Positions};
use crate::kafka::{Committer, EpochToCommit};
use crate::model::{Cause, Epoch, Event, Location, WindowRows};
use crate::telemetry::Metrics;
use crate::wire;

/// Outputs of one transaction, at most; and epochs.
const OUTPUTS_TOGETHER: usize = 20_000;
const EPOCHS_TOGETHER: usize = 500;
/// How long rows may take to reach ClickHouse when the job stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Parts {
    pub(super) pipeline: Pipeline,
    pub(super) committer: Committer,
    pub(super) writer: Option<Writer>,
    pub(super) head: Head,
    /// The newest committed epoch.
    pub(super) last: Option<Epoch>,
    /// Of every input partition.
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
    parts: Parts,
    /// The newest committed epoch.
    last: Option<Epoch>,
    /// Of every input partition, after `waiting`.
    positions: Positions,
    waiting: Vec<EpochToCommit>,
    waiting_events: Vec<Event>,
    rows: BTreeMap<Epoch, Vec<Vec<Location>>>,
    /// Windows, by the newest epoch that is in them.
    windows: BTreeMap<Epoch, Vec<WindowRows>>,
}

impl CommitLoop {
    fn new(parts: Parts) -> Self {
        Self {
            last: parts.last,
            positions: parts.positions.clone(),
            waiting: Vec::new(),
            waiting_events: Vec::new(),
            rows: BTreeMap::new(),
            windows: BTreeMap::new(),
            parts,
        }
    }

    fn run(mut self) -> Result<(), JobError> {
        let outcome = self.commit_all();
        self.parts
            .control
            .committed_all
            .store(true, Ordering::Release);
        // Also after a failure: the rows are of committed epochs.
        let flushed = match self.parts.writer {
            None => Ok(()),
            Some(writer) => writer.flush_and_stop(FLUSH_LIMIT).map(|_| ()),
        };
        outcome?;
        Ok(flushed?)
    }

    fn commit_all(&mut self) -> Result<(), JobError> {
        while let Ok(output) = self.parts.received.recv() {
            self.take(output);
            while self.has_room()
                && let Ok(output) = self.parts.received.try_recv()
            {
                self.take(output);
            }
            self.commit()?;
            self.pass_windows_on()?;
        }
        Ok(())
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

    /// What an earlier generation has committed is known for its state, and not told again.
    fn take(&mut self, output: Output) {
        let told = |epoch: Epoch, last: Option<Epoch>| last.is_some_and(|last| epoch <= last);
        match output {
            Output::Locations { epoch, rows } if !told(epoch, self.last) => {
                self.rows.entry(epoch).or_default().push(rows);
            }
            Output::Epoch(output) if !told(output.epoch, self.last) => self.encode(output),
            // Of an earlier generation too: it may have ended before they were stored.
            Output::Windows { through, rows } => {
                self.windows.entry(through).or_default().push(rows);
            }
            Output::Locations { .. } | Output::Epoch(_) => {}
        }
    }

    fn encode(&mut self, output: EpochOutput) {
        let interval_ms = self.parts.pipeline.epoch.interval_ms;
        let mut hash = OutputHash::default();
        let events: Vec<_> = output.events.iter().map(wire::encode_event).collect();
        for event in &events {
            hash.add(&[event.id.as_bytes(), &event.data]);
        }
        for letter in &output.dead_letters {
            hash.add(&[
                letter.fault.reason.as_str().as_bytes(),
                letter.value.as_deref().unwrap_or_default(),
            ]);
        }
        let mut ranges = Vec::new();
        let mut given = output.ranges.into_iter().peekable();
        for (&(input, partition), position) in &mut self.positions {
            let own = |range: &OffsetRange| (range.input, range.partition) == (input, partition);
            let range = given.next_if(own).unwrap_or(OffsetRange {
                input,
                partition,
                first: position.next,
                next: position.next,
                latest_ms: position.latest_ms,
            });
            *position = Position {
                next: range.next,
                latest_ms: range.latest_ms,
            };
            ranges.push(range);
        }
        let record = EpochRecord {
            epoch: output.epoch,
            interval_ms,
            now_ms: output.epoch.now_ms(interval_ms),
            generation: self.parts.head.generation,
            run: self.parts.head.run,
            ranges,
            events: events.len() as u64,
            dead_letters: output.dead_letters.len() as u64,
            hash: hash.value(),
            version: env!("CARGO_PKG_VERSION").into(),
            rules: 0,
        };
        self.waiting.push(EpochToCommit {
            record,
            events,
            dead_letters: output.dead_letters,
        });
        self.waiting_events.extend(output.events);
    }

    fn commit(&mut self) -> Result<(), JobError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.parts
            .committer
            .commit(&self.waiting, &self.parts.head)?;
        let newest = self.waiting[self.waiting.len() - 1].record.epoch;
        self.last = Some(newest);
        self.count(began);
        self.parts
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&self.positions);
        self.pass_rows_on(newest)
    }

    fn count(&self, began: Instant) {
        let metrics = &self.parts.metrics;
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

    /// Windows of which all is committed.
    fn pass_windows_on(&mut self) -> Result<(), JobError> {
        let Some(committed) = self.last else {
            return Ok(());
        };
        let later = self.windows.split_off(&Epoch(committed.0 + 1));
        let windows = std::mem::replace(&mut self.windows, later);
        if let Some(writer) = &self.parts.writer {
            for rows in windows.into_values().flatten() {
                writer.send(Rows::Cells(rows.cells), Origin::New)?;
                writer.send(Rows::Drivers(rows.drivers), Origin::New)?;
                writer.send(Rows::Sessions(rows.sessions), Origin::New)?;
            }
        }
        Ok(())
    }

    fn pass_rows_on(&mut self, committed: Epoch) -> Result<(), JobError> {
        let waiting = std::mem::take(&mut self.waiting);
        let events = std::mem::take(&mut self.waiting_events);
        let later = self.rows.split_off(&Epoch(committed.0 + 1));
        let rows = std::mem::replace(&mut self.rows, later);
        let Some(writer) = &self.parts.writer else {
            return Ok(());
        };

        for locations in rows.into_values().flatten() {
            writer.send(Rows::Locations(locations), Origin::New)?;
        }
        let mut rejected = Vec::new();
        let mut encoded = Vec::new();
        for epoch in waiting {
            encoded.extend(epoch.events);
            rejected.extend(epoch.dead_letters);
        }
        let stored: Vec<_> = events
            .into_iter()
            .zip(encoded)
            .map(|(event, encoded)| {
                let data = String::from_utf8(encoded.data).expect("JSON is UTF-8");
                StoredEvent::new(encoded.id, &event, data)
            })
            .collect();
        if !stored.is_empty() {
            writer.send(Rows::Events(stored), Origin::New)?;
        }
        if !rejected.is_empty() {
            writer.send(Rows::Rejected(rejected), Origin::New)?;
        }
        Ok(())
    }
}

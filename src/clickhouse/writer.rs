//! The handle to the batch writer: what goes in, how much may wait, what is known to be stored.
//!
//! ```text
//!  send ─▶ inbox ─▶ buffer per table ─▶ batch ─▶ one insert ─▶ released
//!    └── blocks while the bound is reached ◀────────────────────┘
//! ```
//!
//! A row is counted from [`Writer::send`] until its table has it. The bound on memory covers
//! all of that but what waits on disk ([`SpillOptions`]); when both are full `send` blocks and
//! [`Writer::try_send`] hands the rows back.
//! Nothing is ever dropped: what the server refuses is kept and tried again, and told as a
//! [`Notice::Failed`].
//!
//! [`Writer::mark`] and [`Stats::stored_epoch`] are the sink's watermark: what a restart needs
//! to send again. Rows that an earlier run may have stored go by [`Writer::send_doubtful`]:
//! they are looked for in the table first.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use tokio::sync::Notify;

use super::batches::Amount;
use super::rows::ROW_COST;
use super::{Server, batches};
use crate::model::{
    CellWindow, DeadLetter, DriverId, DriverWindow, Epoch, Event, EventKind, Location,
    SessionWindow, Subject, TimeMs,
};

/// The tables that the writer fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `driver_locations`
    DriverLocations,
    /// `events`
    Events,
    /// `rejected_updates`
    RejectedUpdates,
    /// `cell_minutes`
    CellMinutes,
    /// `driver_minutes`
    DriverMinutes,
    /// `driver_sessions`
    DriverSessions,
}

impl Table {
    /// All of them, in the order in which they are drained.
    pub const ALL: [Self; 6] = [
        Self::Events,
        Self::RejectedUpdates,
        Self::CellMinutes,
        Self::DriverMinutes,
        Self::DriverSessions,
        Self::DriverLocations,
    ];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::DriverLocations => "driver_locations",
            Self::Events => "events",
            Self::RejectedUpdates => "rejected_updates",
            Self::CellMinutes => "cell_minutes",
            Self::DriverMinutes => "driver_minutes",
            Self::DriverSessions => "driver_sessions",
        }
    }
}

/// Rows of one table, in any order.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Judged updates, for `driver_locations`.
    Locations(Vec<Location>),
    /// For `events`.
    Events(Vec<StoredEvent>),
    /// For `rejected_updates`.
    Rejected(Vec<DeadLetter>),
    /// For `cell_minutes`.
    Cells(Vec<CellWindow>),
    /// For `driver_minutes`.
    Drivers(Vec<DriverWindow>),
    /// For `driver_sessions`.
    Sessions(Vec<SessionWindow>),
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Locations(rows) => rows.len(),
            Self::Events(rows) => rows.len(),
            Self::Rejected(rows) => rows.len(),
            Self::Cells(rows) => rows.len(),
            Self::Drivers(rows) => rows.len(),
            Self::Sessions(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they count against [`Options::max_buffered_bytes`].
    pub(super) fn cost(&self) -> usize {
        let texts: usize = match self {
            Self::Locations(_) | Self::Cells(_) | Self::Drivers(_) | Self::Sessions(_) => 0,
            Self::Events(rows) => rows.iter().map(|row| row.id.len() + row.data.len()).sum(),
            Self::Rejected(rows) => rows
                .iter()
                .map(|row| row.fault.detail.len() + row.value.as_ref().map_or(0, Vec::len))
                .sum(),
        };
        self.len() * ROW_COST + texts
    }
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its identity, the `ce_id`.
    pub id: String,
    /// Its type.
    pub kind: EventKind,
    /// The driver it is told to.
    pub driver: DriverId,
    /// The order it is about; empty if none.
    pub order_id: CompactString,
    /// The fence it is about; empty if none.
    pub fence_id: CompactString,
    /// Event time of the cause, ms since 1970.
    pub event_time_ms: TimeMs,
    /// The `now` of its epoch, ms since 1970.
    pub detected_at_ms: TimeMs,
    /// The event's data as in Kafka, JSON.
    pub data: String,
}

impl StoredEvent {
    /// The row of `event`, whose `ce_id` is `id` and whose value in Kafka is `data`.
    pub fn new(id: String, event: &Event, data: String) -> Self {
        let (order_id, fence_id) = match &event.subject {
            Subject::Driver => Default::default(),
            Subject::Fence(fence) => (CompactString::default(), fence.0.clone()),
            Subject::Order(order) | Subject::Leg(order, _) => {
                (order.0.clone(), CompactString::default())
            }
        };
        Self {
            id,
            kind: event.kind,
            driver: event.driver,
            order_id,
            fence_id,
            event_time_ms: event.event_time_ms,
            detected_at_ms: event.detected_at_ms,
            data,
        }
    }
}

/// How a writer works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub server: Server,
    /// The database, [`super::DATABASE`] but in tests.
    pub database: String,
    /// The pipeline's name, for tokens and query ids.
    pub pipeline: String,
    /// Which run of the pipeline this is. It must be greater than that of every run before,
    /// one that died before its first epoch included: a writer kills what lesser generations
    /// left running, and their inserts are refused from then on. Processes of one run share it.
    pub generation: u64,
    /// A batch is sent at this many rows.
    pub batch_rows: usize,
    /// A batch is sent when its first row has waited this long.
    pub batch_ms: u64,
    /// No more rows than this wait in memory, but for one `send` of more than half of it. A
    /// batch is a sixteenth of it at most. Default 2,000,000.
    pub max_buffered_rows: usize,
    /// Nor more bytes than this. Default 512 MiB.
    pub max_buffered_bytes: usize,
    /// Where rows go when half of that is taken; `None`: senders wait once all is taken.
    pub spill: Option<SpillOptions>,
    /// How long the server may take over one step of an insert before it counts as hung.
    /// Default 30 s.
    pub timeout: Duration,
}

impl Options {
    /// What the pipeline file says, with defaults for the rest.
    pub fn of(pipeline: &crate::config::Pipeline, generation: u64) -> Self {
        Self {
            server: Server::of(pipeline),
            database: super::DATABASE.into(),
            pipeline: pipeline.name.clone(),
            generation,
            batch_rows: pipeline.clickhouse.batch_rows.max(1),
            batch_ms: pipeline.clickhouse.batch_ms,
            max_buffered_rows: 2_000_000,
            max_buffered_bytes: 512 << 20,
            spill: Some(SpillOptions {
                dir: std::env::temp_dir(),
                max_bytes: 8 << 30,
            }),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Where rows wait that memory has no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillOptions {
    /// A folder; made when it is needed. Default: the system's temporary folder. One that is
    /// held in memory serves no purpose.
    pub dir: PathBuf,
    /// No more than this, bytes; then senders wait. Default 8 GiB, some 90 million locations.
    pub max_bytes: u64,
}

/// What a writer tells its observer, from its own thread; the observer must not block.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A batch is in its table.
    Stored {
        /// The table.
        table: Table,
        /// Rows of the batch.
        rows: usize,
        /// From the first try until it was known to be stored.
        took: Duration,
    },
    /// A try failed; the rows are kept.
    Failed {
        /// The table.
        table: Table,
        /// Rows of the batch.
        rows: usize,
        /// ClickHouse's error code, if it answered.
        code: Option<u32>,
        /// What went wrong, on one line.
        error: String,
        /// When it is tried again.
        retry_in: Duration,
        /// What a person has to do; `None` if waiting helps.
        advice: Option<&'static str>,
    },
    /// The table was asked which rows of a batch it has.
    Reconciled {
        /// The table.
        table: Table,
        /// Rows of the batch.
        rows: usize,
        /// How many of them were there.
        present: usize,
    },
}

/// Hears every [`Notice`].
pub type Observer = Arc<dyn Fn(&Notice) + Send + Sync>;

/// A writer that can't go on, or could not finish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriterError {
    /// The thread could not be started.
    #[error("could not start the ClickHouse writer: {0}")]
    Start(String),
    /// The thread has ended.
    #[error("the ClickHouse writer has failed: {0}")]
    Failed(String),
    /// The deadline of [`Writer::flush_and_stop`] passed; what was not stored is gone with the
    /// writer.
    #[error("{rows} rows were not in ClickHouse within {deadline:?}{}", last_error.as_deref().map(|e| format!("; last error: {e}")).unwrap_or_default())]
    Unfinished {
        /// Rows left.
        rows: usize,
        /// The deadline that was given.
        deadline: Duration,
        /// The last failure, if there was one.
        last_error: Option<String>,
    },
}

/// Rows that [`Writer::try_send`] had no room for.
#[derive(Clone, Debug, PartialEq)]
pub struct Full(pub Rows);

/// Counts since the start, and what waits now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows stored in `driver_locations`, those that were found there included.
    pub locations_stored: u64,
    /// Rows stored in `events`, those that were found there included.
    pub events_stored: u64,
    /// Rows stored in `rejected_updates`, those that were found there included.
    pub rejected_stored: u64,
    /// Versions of windows stored in the three tables of windows.
    pub windows_stored: u64,
    /// Rows that were sent, are not stored yet, and wait in memory.
    pub buffered_rows: usize,
    /// What they take, bytes.
    pub buffered_bytes: usize,
    /// Rows that wait on disk.
    pub spilled_rows: usize,
    /// Batches stored.
    pub batches: u64,
    /// Tries that failed.
    pub retries: u64,
    /// Batches whose rows were looked for in their table.
    pub reconciled: u64,
    /// Calls of `send` that had to wait for room.
    pub blocked: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// The greatest marked epoch up to which all rows are stored.
    pub stored_epoch: Option<Epoch>,
}

/// What [`Writer::flush_and_stop`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The last counts; nothing is buffered.
    pub stats: Stats,
    /// How long the flush took.
    pub took: Duration,
}

/// The handle. May be shared between threads.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the writer's thread. The server need not be there yet.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(options: Options, observer: Option<Observer>) -> Result<Self, WriterError> {
        let shared = Arc::new(Shared::new(&options));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| WriterError::Start(error.to_string()))?;
        let inner = shared.clone();
        let thread = std::thread::Builder::new()
            .name("clickhouse".into())
            .spawn(move || {
                let end = EndOfThread(inner.clone());
                runtime.block_on(batches::run(options, inner, observer));
                // Unfinished inserts are given up here, not waited for.
                runtime.shutdown_background();
                drop(end);
            })
            .map_err(|error| WriterError::Start(error.to_string()))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes rows that no run has sent before; blocks while there is no room for them.
    ///
    /// # Errors
    /// The writer has ended.
    pub fn send(&self, rows: Rows) -> Result<(), WriterError> {
        self.push(rows, false)
    }

    /// Takes rows that an earlier run may have stored, as after a restart: those that their
    /// table has are not stored again. Blocks while there is no room for them.
    ///
    /// # Errors
    /// The writer has ended.
    pub fn send_doubtful(&self, rows: Rows) -> Result<(), WriterError> {
        self.push(rows, true)
    }

    /// As [`Writer::send`], but hands the rows back rather than wait.
    ///
    /// # Errors
    /// The writer has ended. `Ok(Err(Full(rows)))` is no room.
    pub fn try_send(&self, rows: Rows) -> Result<Result<(), Full>, WriterError> {
        let cost = rows.cost();
        let mut state = self.shared.lock();
        state.check()?;
        if rows.is_empty() {
            return Ok(Ok(()));
        }
        if !state.has_room(&self.shared.bound, rows.len(), cost) {
            return Ok(Err(Full(rows)));
        }
        state.accept(rows, cost, false);
        drop(state);
        self.shared.wake.notify_one();
        Ok(Ok(()))
    }

    #[allow(missing_docs)]
    pub fn try_send_doubtful(&self, rows: Rows) -> Result<Result<(), Full>, WriterError> {
        self.try_send(rows)
    }
    #[allow(missing_docs)]
    pub fn waiting_since(&self) -> Option<Instant> {
        None
    }
    #[allow(missing_docs)]
    pub fn is_roomy(&self) -> bool {
        true
    }

    /// Says that all rows of epochs up to `epoch` have been sent. Once they are stored,
    /// [`Writer::stored_epoch`] says so.
    ///
    /// # Errors
    /// The writer has ended.
    pub fn mark(&self, epoch: Epoch) -> Result<(), WriterError> {
        let mut state = self.shared.lock();
        state.check()?;
        let before = state.next_parcel;
        match state.marks.back_mut() {
            // Nothing was sent in between: the later epoch says all.
            Some(last) if last.1 == before => last.0 = epoch,
            _ => state.marks.push_back((epoch, before)),
        }
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// The greatest marked epoch up to which all rows are stored.
    pub fn stored_epoch(&self) -> Option<Epoch> {
        self.shared.lock().stored_epoch
    }

    /// Counts since the start, and what waits now.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Writes everything out and ends the thread: events first, then dead letters, then
    /// locations.
    ///
    /// # Errors
    /// The deadline passed, or the writer had ended before.
    pub fn flush_and_stop(self, deadline: Duration) -> Result<Summary, WriterError> {
        let began = Instant::now();
        {
            let mut state = self.shared.lock();
            state.check()?;
            state.stop_by = Some(began + deadline);
        }
        self.shared.wake.notify_one();
        if let Some(thread) = self.take_thread()
            && thread.join().is_err()
        {
            return Err(WriterError::Failed("its thread panicked".into()));
        }
        let stats = self.shared.stats();
        let rows = stats.buffered_rows + stats.spilled_rows;
        if rows > 0 {
            return Err(WriterError::Unfinished {
                rows,
                deadline,
                last_error: stats.last_error,
            });
        }
        Ok(Summary {
            stats,
            took: began.elapsed(),
        })
    }

    fn push(&self, rows: Rows, doubtful: bool) -> Result<(), WriterError> {
        let cost = rows.cost();
        let mut state = self.shared.lock();
        state.check()?;
        if rows.is_empty() {
            return Ok(());
        }
        if !state.has_room(&self.shared.bound, rows.len(), cost) {
            self.shared.counts.blocked.fetch_add(1, Ordering::Relaxed);
            while !state.has_room(&self.shared.bound, rows.len(), cost) {
                state = self
                    .shared
                    .room
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.check()?;
            }
        }
        state.accept(rows, cost, doubtful);
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Without [`Writer::flush_and_stop`] the thread ends at once and what waits is left to a
/// restart.
impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().stop_by = Some(Instant::now());
        self.shared.wake.notify_one();
    }
}

/// Tells senders that nobody takes rows any more, also when the thread panics.
struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        self.0.end(if std::thread::panicking() {
            "its thread panicked"
        } else {
            "it was stopped"
        });
    }
}

/// How much may wait.
#[derive(Debug)]
struct Bound {
    rows: usize,
    bytes: usize,
}

/// Rows of one `send`.
pub(super) struct Parcel {
    pub(super) number: u64,
    pub(super) rows: Rows,
    pub(super) doubtful: bool,
    pub(super) at: Instant,
}

/// What the handle and the thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    room: Condvar,
    bound: Bound,
    pub(super) wake: Notify,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    stored: [AtomicU64; Table::ALL.len()],
    pub(super) batches: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) reconciled: AtomicU64,
    blocked: AtomicU64,
}

#[derive(Default)]
struct State {
    inbox: Vec<Parcel>,
    next_parcel: u64,
    held_rows: usize,
    held_bytes: usize,
    spilled_rows: usize,
    /// Epochs, each with the number of the first parcel that is not part of it.
    marks: VecDeque<(Epoch, u64)>,
    stored_epoch: Option<Epoch>,
    stop_by: Option<Instant>,
    ended: Option<String>,
    last_error: Option<String>,
}

impl State {
    fn check(&self) -> Result<(), WriterError> {
        match &self.ended {
            Some(why) => Err(WriterError::Failed(why.clone())),
            None => Ok(()),
        }
    }

    /// A large parcel passes the bound if no more than half of the memory is taken: what is
    /// beyond half moves to disk, so it does not wait for ClickHouse.
    fn has_room(&self, bound: &Bound, rows: usize, cost: usize) -> bool {
        !self.is_crowded(bound)
            || (self.held_rows + rows <= bound.rows && self.held_bytes + cost <= bound.bytes)
    }

    fn is_crowded(&self, bound: &Bound) -> bool {
        self.held_rows > bound.rows / 2 || self.held_bytes > bound.bytes / 2
    }

    fn accept(&mut self, rows: Rows, cost: usize, doubtful: bool) {
        self.held_rows += rows.len();
        self.held_bytes += cost;
        let number = self.next_parcel;
        self.next_parcel += 1;
        self.inbox.push(Parcel {
            number,
            rows,
            doubtful,
            at: Instant::now(),
        });
    }
}

impl Shared {
    fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            room: Condvar::new(),
            bound: Bound {
                rows: options.max_buffered_rows,
                bytes: options.max_buffered_bytes,
            },
            wake: Notify::new(),
            counts: Counts::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counters at worst too high, never rows half moved.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was sent since the last call, and when to stop.
    pub(super) fn take_inbox(&self) -> (Vec<Parcel>, Option<Instant>) {
        let mut state = self.lock();
        (std::mem::take(&mut state.inbox), state.stop_by)
    }

    /// Rows that their table has leave memory.
    pub(super) fn release(&self, table: Table, rows: usize, cost: usize) {
        self.counts.stored[table as usize].fetch_add(rows as u64, Ordering::Relaxed);
        let mut state = self.lock();
        state.held_rows -= rows;
        state.held_bytes -= cost;
        drop(state);
        self.room.notify_all();
    }

    /// A sixteenth of the memory.
    pub(super) fn share(&self) -> Amount {
        Amount {
            rows: self.bound.rows / 16,
            cost: self.bound.bytes / 16,
        }
    }

    /// Whether more than half of the memory is taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().is_crowded(&self.bound)
    }

    /// Whether three quarters of the memory are free.
    pub(super) fn is_roomy(&self) -> bool {
        let state = self.lock();
        state.held_rows < self.bound.rows / 4 && state.held_bytes < self.bound.bytes / 4
    }

    /// Rows have left memory for disk.
    pub(super) fn to_disk(&self, amount: Amount) {
        let mut state = self.lock();
        state.held_rows -= amount.rows;
        state.held_bytes -= amount.cost;
        state.spilled_rows += amount.rows;
        drop(state);
        self.room.notify_all();
    }

    /// Rows are back from disk.
    pub(super) fn to_memory(&self, amount: Amount) {
        let mut state = self.lock();
        state.held_rows += amount.rows;
        state.held_bytes += amount.cost;
        state.spilled_rows -= amount.rows;
    }

    /// All parcels before `oldest` are stored (`None`: all that were taken from the inbox).
    pub(super) fn settle(&self, oldest: Option<u64>) {
        let mut state = self.lock();
        let oldest = oldest
            .or_else(|| state.inbox.first().map(|parcel| parcel.number))
            .unwrap_or(state.next_parcel);
        while let Some(&(epoch, before)) = state.marks.front()
            && before <= oldest
        {
            state.stored_epoch = Some(epoch);
            state.marks.pop_front();
        }
    }

    /// The writer must not go on: senders hear `why`, and the thread stops.
    pub(super) fn end(&self, why: &str) {
        let mut state = self.lock();
        state.ended.get_or_insert_with(|| why.to_owned());
        state.stop_by = Some(Instant::now());
        drop(state);
        self.room.notify_all();
        self.wake.notify_one();
    }

    pub(super) fn failed(&self, error: &str) {
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
        self.lock().last_error = Some(error.to_owned());
    }

    fn stats(&self) -> Stats {
        let stored = |table: Table| self.counts.stored[table as usize].load(Ordering::Relaxed);
        let state = self.lock();
        Stats {
            locations_stored: stored(Table::DriverLocations),
            events_stored: stored(Table::Events),
            rejected_stored: stored(Table::RejectedUpdates),
            windows_stored: stored(Table::CellMinutes)
                + stored(Table::DriverMinutes)
                + stored(Table::DriverSessions),
            buffered_rows: state.held_rows,
            buffered_bytes: state.held_bytes,
            spilled_rows: state.spilled_rows,
            batches: self.counts.batches.load(Ordering::Relaxed),
            retries: self.counts.retries.load(Ordering::Relaxed),
            reconciled: self.counts.reconciled.load(Ordering::Relaxed),
            blocked: self.counts.blocked.load(Ordering::Relaxed),
            last_error: state.last_error.clone(),
            stored_epoch: state.stored_epoch,
        }
    }
}

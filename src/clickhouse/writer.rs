//! The handle to the batch writer: what goes in, how much may wait, what is known to be stored.
//!
//! ```text
//!  send ─▶ inbox ─▶ buffer per table ─▶ batch ─▶ one insert ─▶ released
//!    └── no room while the bound is reached ◀───────────────────┘
//! ```
//!
//! A row is counted from the moment it is taken until its table has it, and so many may be on
//! their way: a hard bound on memory ([`Options::max_buffered_rows`]). When ClickHouse is away
//! for longer than that lasts, [`Writer::try_send`] hands rows back. Nobody keeps them: the
//! caller stops giving rows, remembers from which epoch on, reads them again from Kafka once
//! [`Writer::has_stored`] what it took, and gives them by [`Writer::send`], which never takes the half of the
//! bound that new rows live in. What was taken is never dropped: what the server refuses is
//! kept and tried again, and told as a [`Notice::Failed`].
//!
//! [`Writer::mark`] and [`Writer::stored_epoch`] are the sink's watermark: rows of later epochs
//! must be sent again after a restart, as [`Origin::Doubtful`], since some of them may be there.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::parcel::{Origin, Rows, Table};
use super::shared::Shared;
use super::{Server, batches};
use crate::model::Epoch;

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
    /// No more rows than this are on their way, but for one `send` of more than that by
    /// itself. Default 1,000,000.
    pub max_buffered_rows: usize,
    /// Nor more bytes than this, by [`Stats::buffered_bytes`]. Default 384 MiB.
    pub max_buffered_bytes: usize,
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
            max_buffered_rows: 1_000_000,
            max_buffered_bytes: 384 << 20,
            timeout: Duration::from_secs(30),
        }
    }
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
    /// Rows that were sent and are not stored yet.
    pub buffered_rows: usize,
    /// What they count against the bound, bytes: their texts, and 192 for the rest of each.
    pub buffered_bytes: usize,
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

/// What had been sent at some moment; see [`Writer::sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent(u64);

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

    /// Takes rows; hands them back if there is no room. For rows of the present: they may fill
    /// the whole bound.
    ///
    /// # Errors
    /// The writer has ended. `Ok(Err(Full(rows)))` is no room.
    pub fn try_send(&self, rows: Rows, origin: Origin) -> Result<Result<(), Full>, WriterError> {
        self.shared.offer(rows, origin)
    }

    /// Takes rows; blocks until no more than half of the bound is taken and they fit. For rows
    /// that are read again: a few thousand at a time, they leave the other half to
    /// [`Writer::try_send`].
    ///
    /// # Errors
    /// The writer has ended, perhaps while this waited.
    pub fn send(&self, rows: Rows, origin: Origin) -> Result<(), WriterError> {
        self.shared.push(rows, origin, || false).map(drop)
    }

    /// As [`Writer::send`], but gives up when `is_off` says so while there is no room; then the
    /// rows are gone, and it returns `false`.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn send_unless(
        &self,
        rows: Rows,
        origin: Origin,
        is_off: impl Fn() -> bool,
    ) -> Result<bool, WriterError> {
        self.shared.push(rows, origin, is_off)
    }

    /// Says that all rows of epochs up to `epoch` have been sent. Once they are stored,
    /// [`Writer::stored_epoch`] says so. An epoch that is not greater than the last one is
    /// ignored.
    ///
    /// # Errors
    /// The writer has ended.
    pub fn mark(&self, epoch: Epoch) -> Result<(), WriterError> {
        self.shared.mark(epoch)
    }

    /// The greatest marked epoch up to which all rows are stored.
    pub fn stored_epoch(&self) -> Option<Epoch> {
        self.shared.stored_epoch()
    }

    /// All that has been sent until now.
    pub fn sent(&self) -> Sent {
        Sent(self.shared.parcels().0)
    }

    /// Whether all that had been sent until then is stored. Only then may a row of it be sent
    /// again: while it waits, its table does not know of it.
    pub fn has_stored(&self, sent: Sent) -> bool {
        self.shared.parcels().1 >= sent.0
    }

    /// When the oldest row that is not stored yet was sent; `None` if all are stored.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.shared.waiting_since()
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
        self.shared.check()?;
        self.shared.stop_by(began + deadline);
        if let Some(thread) = self.take_thread()
            && thread.join().is_err()
        {
            return Err(WriterError::Failed("its thread panicked".into()));
        }
        let stats = self.shared.stats();
        let rows = stats.buffered_rows;
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
        self.shared.stop_by(Instant::now());
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

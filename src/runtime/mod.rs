//! The job: timely workers, the committer's thread and the ClickHouse writer, wired together.
//!
//! ```text
//!  Kafka ─▶ worker 0..N (timely) ─ bounded channel ─▶ commit thread ─▶ Kafka
//!                                                          └─ after the commit ─▶ writer ─▶ ClickHouse
//! ```
//!
//! Owns start, stop and failure. Every queue is bounded, and a full one holds its giver
//! back, so a slow sink slows the source and loses nothing. The first failure stops the job
//! and is what [`Job::stop`] returns.

mod commit_loop;
mod progress_loop;
mod start;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use timely::CommunicationConfig;
use timely::WorkerConfig;

use crate::clickhouse;
use crate::config::Pipeline;
use crate::dataflow::{self, Context, Feed, Output, Progress};
use crate::kafka::{CommitError, KafkaError, Reader};
use crate::model::{Epoch, TimeMs};
use crate::telemetry::{Condition, Health, Heartbeat, Metrics, ServeError, Server, serve};
use start::Start;

/// Messages between the workers and the commit thread: some epochs of each worker.
const CHANNEL_BOUND: usize = 256;
/// The longest that a parked worker sleeps, so that it hears a stop.
const PARK: Duration = Duration::from_millis(20);
/// How long windows may take, at a stop, to take in what was judged: usually milliseconds.
const WINDOWS_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at whether something has ended.
const NAP: Duration = Duration::from_millis(20);
/// How long a stop may take before the job gives up on what is under way.
const STOP_LIMIT: Duration = Duration::from_secs(25);

/// What the command line says about a job, beside its pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Timely workers.
    pub workers: usize,
    /// Where metrics and health are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
}

/// Why a job can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The committer.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// ClickHouse.
    #[error(transparent)]
    Clickhouse(#[from] clickhouse::WriterError),
    /// ClickHouse's tables.
    #[error(transparent)]
    Tables(#[from] clickhouse::migrate::MigrateError),
    /// Metrics over HTTP.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The recorded epochs don't fit the pipeline.
    #[error("{0}")]
    Refused(String),
    /// A part of a running job failed.
    #[error("{0}")]
    Failed(String),
}

/// The first failure, and the wish to stop.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    /// The commit thread has ended: no further epoch will be committed.
    committed_all: AtomicBool,
    failure: Mutex<Option<JobError>>,
}

impl Control {
    fn fail(&self, error: JobError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        self.stop.store(true, Ordering::Release);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// A running job. Dropping it stops it.
pub struct Job {
    control: Arc<Control>,
    metrics: Metrics,
    health: Health,
    server: Option<Server>,
    threads: Vec<JoinHandle<()>>,
}

impl Job {
    /// Takes the pipeline over and starts it where its log ends.
    ///
    /// # Errors
    /// When Kafka does not answer, topics or tables are missing or differ, or Kafka no longer
    /// holds what the job must read.
    pub fn start(pipeline: &Pipeline, options: Options) -> Result<Self, JobError> {
        abort_on_panic();
        let metrics = Metrics::new();
        let health = Health::new();
        let caught_up = health.condition("inputs read to where they ended at the start");
        let server = options
            .http
            .map(|address| serve(address, metrics.clone(), health.clone()))
            .transpose()?;

        let start = Start::prepare(pipeline)?;
        let writer = start::open_writer(pipeline, start.head.generation, &metrics)?;
        let control = Arc::new(Control::default());
        let (outputs, received) = sync_channel(CHANNEL_BOUND);

        let offsets = Arc::new(Mutex::new(start.positions.clone()));
        let commit_thread = commit_loop::spawn(commit_loop::Parts {
            pipeline: pipeline.clone(),
            committer: start.committer,
            writer,
            head: start.head,
            last: start.last,
            positions: start.positions,
            committed: Arc::clone(&offsets),
            received,
            metrics: metrics.clone(),
            control: Arc::clone(&control),
        });
        let progress_thread =
            progress_loop::spawn(pipeline, offsets, metrics.clone(), Arc::clone(&control));
        let interval_ms = pipeline.epoch.interval_ms;
        let last_now_ms = start.last.map_or(0, |last| last.now_ms(interval_ms));
        let clock = Arc::new(JobClock::new(last_now_ms));
        let workers = Workers {
            pipeline: pipeline.clone(),
            windows: start::windows(pipeline),
            readings: start.readings,
            control: Arc::clone(&control),
            metrics: metrics.clone(),
            heartbeat: health.heartbeat(),
            caught_up,
            started_ms: clock.now_ms(),
            clock,
        };
        let worker_thread = workers.spawn(options.workers, outputs);

        Ok(Self {
            control,
            metrics,
            health,
            server,
            threads: vec![worker_thread, commit_thread, progress_thread],
        })
    }

    /// The job's counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the job is ready and alive.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Where metrics and health are served.
    pub fn http(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Whether a part has failed, and the job is ending by itself.
    pub fn is_ending(&self) -> bool {
        self.control.stopping()
    }

    /// Commits the epochs that are whole, writes the rows that wait, and ends.
    ///
    /// # Errors
    /// The first failure of any part; or that the sinks did not take everything in time.
    pub fn stop(mut self) -> Result<(), JobError> {
        self.control.stop.store(true, Ordering::Release);
        self.end()
    }

    fn end(&mut self) -> Result<(), JobError> {
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(NAP);
        }
        let threads = std::mem::take(&mut self.threads);
        if threads.iter().all(JoinHandle::is_finished) {
            for thread in threads {
                thread
                    .join()
                    .expect("a panic would have aborted the process");
            }
        } else {
            // They still wait for Kafka or ClickHouse; the process ends without them.
            self.control.fail(JobError::Failed(format!(
                "could not finish within {} s of being asked to stop: Kafka or ClickHouse does \
                 not take what is left. Epochs that were not committed are done again by the next \
                 start; rows of committed epochs that ClickHouse did not take are not",
                STOP_LIMIT.as_secs()
            )));
        }
        let mut failure = self
            .control
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.control.stop.store(true, Ordering::Release);
            if let Err(error) = self.end() {
                tracing::error!("the job ended badly: {error}");
            }
        }
    }
}

/// The wall clock, ms since 1970.
pub fn wall_clock_ms() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as TimeMs)
}

/// The clock that epochs are cut by: the wall clock, but it never goes back, not even when the
/// wall clock is set back or the job is started again. Shared by all workers.
struct JobClock {
    started: Instant,
    /// What to add to the time since the start.
    ahead_ms: AtomicI64,
}

impl JobClock {
    /// A clock that begins no earlier than `last_now_ms`, the newest committed epoch's `now`.
    fn new(last_now_ms: TimeMs) -> Self {
        Self {
            started: Instant::now(),
            ahead_ms: AtomicI64::new(wall_clock_ms().max(last_now_ms)),
        }
    }

    fn now_ms(&self) -> TimeMs {
        let since_ms = self.started.elapsed().as_millis() as TimeMs;
        let wall_ahead_ms = wall_clock_ms() - since_ms;
        let ahead_ms = self.ahead_ms.fetch_max(wall_ahead_ms, Ordering::Relaxed);
        since_ms + ahead_ms.max(wall_ahead_ms)
    }
}

/// A timely worker whose peer has panicked waits for it for ever, so a panic ends the process.
fn abort_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            default(panic);
            let in_job = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("timely:") || name.starts_with("riderflow-"));
            if in_job {
                eprintln!("error: a part of the job has panicked, which is a bug; ending");
                std::process::abort();
            }
        }));
    });
}

/// What the timely workers are made of.
struct Workers {
    pipeline: Pipeline,
    readings: Vec<start::Reading>,
    windows: Option<dataflow::windows::Settings>,
    control: Arc<Control>,
    metrics: Metrics,
    heartbeat: Heartbeat,
    caught_up: Condition,
    clock: Arc<JobClock>,
    started_ms: TimeMs,
}

impl Workers {
    fn spawn(self, count: usize, outputs: SyncSender<Output>) -> JoinHandle<()> {
        std::thread::Builder::new()
            .name("riderflow-workers".into())
            .spawn(move || {
                let control = Arc::clone(&self.control);
                let config = timely::Config {
                    communication: CommunicationConfig::Process(count),
                    worker: WorkerConfig::default(),
                };
                let guards =
                    timely::execute(config, move |worker| self.work(worker, outputs.clone()));
                match guards {
                    Ok(guards) => drop(guards),
                    Err(error) => control.fail(JobError::Failed(format!(
                        "could not start the workers: {error}"
                    ))),
                }
            })
            .expect("the system gives a thread")
    }

    fn work(&self, worker: &mut timely::worker::Worker, outputs: SyncSender<Output>) {
        let feeds = match self.feeds(worker.index(), worker.peers()) {
            Ok(feeds) => feeds,
            Err(error) => return self.control.fail(error.into()),
        };
        let control = Arc::clone(&self.control);
        let interval_ms = self.pipeline.epoch.interval_ms;
        let context = Context {
            interval_ms,
            limits: start::limits(&self.pipeline),
            rules: start::rules(&self.pipeline),
            keep_history: self.pipeline.clickhouse.enabled,
            windows: self.windows,
            clock: {
                let clock = Arc::clone(&self.clock);
                Box::new(move || clock.now_ms())
            },
            outputs,
            fail: Arc::new(move |message| control.fail(JobError::Failed(message))),
            metrics: self.metrics.clone(),
        };
        let progress = worker.dataflow::<u64, _, _>(|scope| dataflow::build(scope, feeds, context));

        let mut oldest = None;
        while !self.control.stopping() {
            worker.step_or_park(Some(PARK));
            if worker.index() == 0 {
                let now = progress
                    .judged
                    .with_frontier(|frontier| frontier.first().copied());
                if now != oldest {
                    oldest = now;
                    self.advanced_to(now, interval_ms);
                }
            }
        }
        self.finish_windows(worker, &progress);
        // What is not whole is not told: the next start reads it again.
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }

    /// Lets windows take in what was judged already, so that they are told with it.
    fn finish_windows(&self, worker: &mut timely::worker::Worker, progress: &Progress) {
        let Some(windows) = &progress.windows else {
            return;
        };
        let judged = progress
            .judged
            .with_frontier(|frontier| frontier.first().copied());
        let deadline = Instant::now() + WINDOWS_LIMIT;
        while judged.is_some_and(|judged| windows.less_than(&judged)) && Instant::now() < deadline {
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
    }

    fn advanced_to(&self, oldest: Option<u64>, interval_ms: u64) {
        if let Some(oldest) = oldest {
            let reached_ms = Epoch(oldest).start_ms(interval_ms);
            self.heartbeat.beat();
            self.metrics.epoch_age.advance_to(reached_ms);
            if reached_ms >= self.started_ms {
                self.caught_up.set(true);
            }
        }
    }

    /// Opens the partitions that are this worker's: those whose index modulo the number of
    /// workers is the worker's own.
    fn feeds(&self, index: usize, peers: usize) -> Result<Vec<Feed<Reader>>, KafkaError> {
        let mut feeds = Vec::new();
        for reading in &self.readings {
            let own: Vec<_> = reading
                .partitions
                .iter()
                .filter(|start| start.partition as usize % peers == index)
                .collect();
            if own.is_empty() {
                continue;
            }
            let offsets: Vec<_> = own
                .iter()
                .map(|start| (start.partition, start.from.next))
                .collect();
            feeds.push(Feed {
                input: reading.input,
                reader: Reader::open(
                    &self.pipeline.kafka.brokers,
                    &self.pipeline.name,
                    reading.input,
                    &offsets,
                )?,
                partitions: own
                    .iter()
                    .map(|start| {
                        (
                            start.partition,
                            start.clock(self.pipeline.epoch.interval_ms),
                        )
                    })
                    .collect(),
            });
        }
        Ok(feeds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back_behind_what_was_committed() {
        let ahead_ms = wall_clock_ms() + 3_600_000;
        let clock = JobClock::new(ahead_ms);
        let first_ms = clock.now_ms();
        assert!(first_ms >= ahead_ms, "an hour ahead, as before the restart");
        std::thread::sleep(Duration::from_millis(30));
        assert!(clock.now_ms() >= first_ms + 30, "and it goes on");
    }

    #[test]
    fn the_clock_is_the_wall_clock_where_that_is_ahead() {
        let clock = JobClock::new(0);
        assert!((clock.now_ms() - wall_clock_ms()).abs() <= 5);
    }
}

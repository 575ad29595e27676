//! The job: timely workers, the committer's thread and the ClickHouse writer, wired together.
//!
//! ```text
//!  Kafka ─▶ worker 0..N (timely) ─ bounded channel ─▶ commit thread ─▶ Kafka
//!                ▲                                         ├─ after the commit ─▶ writer ─▶ ClickHouse
//!                └── restored from ── snapshot store ◀─────┘ (snapshot thread)
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `start` | what a start goes on from: log, snapshot, Kafka's offsets |
//! | `replay` | which record belongs to which committed epoch; whether it comes out as before |
//! | `workers` | one timely worker: partitions, dataflow, steps |
//! | `commit_loop` | the commit thread |
//! | `encode` | an epoch's outputs as they are written |
//! | `rows` | whether rows flow to ClickHouse, and which it lacks |
//! | `reread` | rows that it lacks, computed again beside the job |
//! | `snapshots` | when snapshots are taken, and the thread that writes them |
//! | `progress_loop` | offsets for lag tools; what Kafka still holds |
//! | `survey` | what is known of a pipeline from outside |
//! | `reset` | beginning a pipeline anew |
//!
//! Owns start, stop and failure. Every queue is bounded, and a full one holds its giver
//! back, so a slow sink slows the source and loses nothing. The first failure stops the job
//! and is what [`Job::stop`] returns.

pub mod cluster;
mod commit_loop;
mod encode;
mod progress_loop;
mod replay;
mod reread;
mod reset;
mod rows;
mod snapshots;
mod start;
mod survey;
mod workers;

pub use reset::{ResetDone, ResetError, ResetPlan};
pub use survey::{
    ClickhouseState, Committed, InputState, Need, Phase, Readable, Restart, SnapshotState, Survey,
    SurveyError, survey,
};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clickhouse;
use crate::config::Pipeline;
use crate::dataflow::Output;
use crate::kafka::{CommitError, KafkaError, Presence};
use crate::model::TimeMs;
use crate::snapshot::{Loaded, SnapshotError, Store};
use crate::telemetry::{Health, Metrics, ServeError, Server, serve};
use cluster::{Cluster, ClusterError, Status};
use commit_loop::Parts;
use reread::ReReader;
use rows::RowFlow;
use snapshots::{SnapshotThread, Trigger};
use start::{Conditions, Plan, Start};
use workers::{From, Watch, Work};

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
/// How long it may take when another process has gone: nothing will come of what is under way.
const DESERTED_LIMIT: Duration = Duration::from_millis(500);

/// What the command line says about a job, beside its pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    /// Timely workers.
    pub workers: usize,
    /// Where metrics and health are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The processes that run the pipeline together.
    pub cluster: Cluster,
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
    /// Snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Metrics over HTTP.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The other processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
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
    stop: Arc<AtomicBool>,
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

    /// Whether another process has failed or gone, so that this one ends at once.
    fn is_deserted(&self) -> bool {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*failure, Some(JobError::Cluster(_)))
    }

    /// How this process does, for the others.
    fn status(self: &Arc<Self>) -> impl Fn() -> Status + Send + Sync + 'static {
        let control = Arc::clone(self);
        move || {
            let failure = control
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match (failure.is_some(), control.stopping()) {
                (true, _) => Status::Failed,
                (false, true) => Status::Stopping,
                (false, false) => Status::Running,
            }
        }
    }

    /// What another process makes this one do.
    fn on_event(self: &Arc<Self>) -> impl Fn(cluster::Event) + Send + Sync + 'static {
        let control = Arc::clone(self);
        move |event| match event {
            cluster::Event::Stop(process) => {
                tracing::info!("process {process} was asked to stop, so all do");
                control.stop.store(true, Ordering::Release);
            }
            cluster::Event::Fail(error) => control.fail(error.into()),
        }
    }
}

/// A running job. Dropping it stops it.
pub struct Job {
    control: Arc<Control>,
    metrics: Metrics,
    health: Health,
    server: Option<Server>,
    threads: Vec<JoinHandle<()>>,
    /// So that others see that it runs; that of the process that commits.
    _presence: Option<Presence>,
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
        let conditions = Conditions::of(&health);
        let server = options
            .http
            .map(|address| serve(address, metrics.clone(), health.clone()))
            .transpose()?;

        let control = Arc::new(Control::default());
        let identity = cluster::Identity::of(pipeline, options.workers);
        let stopping = || control.stopping();
        let formed = options
            .cluster
            .form(&identity, cluster::Limits::default(), stopping)?;
        let Some(formed) = formed else {
            return Err(JobError::Failed("it was stopped while it started".into()));
        };
        let running = formed.watch(control.status(), control.on_event())?;

        let clock = Arc::new(JobClock::new(0));
        let mut work = Work {
            pipeline: pipeline.clone(),
            metrics: metrics.clone(),
            stop: Arc::clone(&control.stop),
            fail: {
                let control = Arc::clone(&control);
                Arc::new(move |message| control.fail(JobError::Failed(message)))
            },
            watch: Some(Watch {
                heartbeat: health.heartbeat(),
                replayed: conditions.replayed.clone(),
                caught_up: conditions.caught_up.clone(),
                started_ms: clock.now_ms(),
                trigger: None,
            }),
            clock,
            links: Some(running.links()),
            is_spread: !options.cluster.is_alone(),
            workers: options.workers,
        };
        let mut threads = Vec::new();
        let mut presence = None;
        let settled = if options.cluster.process() == 0 {
            presence = Some(Presence::announce(&pipeline.kafka.brokers, &pipeline.name)?);
            let start = Start::prepare(pipeline, &conditions)?;
            let (settled, trigger) =
                Settled::begin(pipeline, start, &metrics, &control, &mut threads)?;
            if let Some(watch) = &mut work.watch {
                watch.trigger = Some(trigger);
            }
            Some(settled)
        } else {
            None
        };
        let shared = Shared {
            work,
            settled,
            loaded: OnceLock::new(),
            conditions,
        };
        threads.push(spawn_workers(running, shared, Arc::clone(&control)));

        Ok(Self {
            control,
            metrics,
            health,
            server,
            threads,
            _presence: presence,
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
        let limit = match self.control.is_deserted() {
            true => DESERTED_LIMIT,
            false => STOP_LIMIT,
        };
        let deadline = Instant::now() + limit;
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
                 not take what is left; the next start goes on from what is committed",
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

    /// From now on the clock is no earlier than this.
    fn not_before(&self, at_ms: TimeMs) {
        let since_ms = self.started.elapsed().as_millis() as TimeMs;
        self.ahead_ms.fetch_max(at_ms - since_ms, Ordering::Relaxed);
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

/// What the process that commits has settled for all workers.
struct Settled {
    plan: Plan,
    loaded: Arc<Loaded>,
    outputs: SyncSender<Output>,
}

impl Settled {
    /// Starts the threads of the process that commits, and says when snapshots are taken.
    fn begin(
        pipeline: &Pipeline,
        start: Start,
        metrics: &Metrics,
        control: &Arc<Control>,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<(Self, Arc<Trigger>), JobError> {
        let writer = start::open_writer(pipeline, start.head.generation, metrics)?;
        let (outputs, received) = sync_channel(CHANNEL_BOUND);
        let kept = Arc::new(Mutex::new(start.kept));
        let windows = start.plan.windows.recorded();
        let every = Duration::from_secs_f64(pipeline.snapshots.interval_s);
        let trigger = Arc::new(Trigger::new(every, &start.manifest, &windows));
        let offsets = Arc::new(Mutex::new(start.positions.clone()));
        let rereader = ReReader {
            pipeline: pipeline.clone(),
            store: Arc::clone(&start.store),
            kept: Arc::clone(&kept),
        };
        let rows = RowFlow::new(
            writer,
            rereader,
            metrics.clone(),
            Arc::clone(&control.stop),
            start.head.stored,
            start.manifest.id.epoch,
        );
        threads.push(commit_loop::spawn(Parts {
            pipeline: pipeline.clone(),
            committer: start.committer,
            head: start.head,
            rows,
            snapshots: SnapshotThread::spawn(
                start.store,
                start.manifest,
                Arc::clone(&trigger),
                metrics.clone(),
            ),
            kept: Arc::clone(&kept),
            windows,
            recorded: start.recorded,
            positions: start.positions,
            committed: Arc::clone(&offsets),
            received,
            metrics: metrics.clone(),
            control: Arc::clone(control),
        }));
        threads.push(progress_loop::spawn(
            pipeline,
            offsets,
            kept,
            metrics.clone(),
            Arc::clone(control),
        ));
        let settled = Self {
            plan: start.plan,
            loaded: start.loaded,
            outputs,
        };
        Ok((settled, trigger))
    }
}

/// What the workers of one process share.
struct Shared {
    work: Work,
    /// In the process that commits.
    settled: Option<Settled>,
    /// The snapshot, in the others.
    loaded: OnceLock<Option<Arc<Loaded>>>,
    conditions: Conditions,
}

impl Shared {
    /// One worker: hears the plan, and runs.
    fn run(&self, worker: &mut timely::worker::Worker) {
        let settled = self.settled.as_ref();
        let own = settled.filter(|_| worker.index() == 0).map(|settled| {
            serde_json::to_vec(&settled.plan).expect("a plan is made of numbers and text")
        });
        let stop = || self.work.stop.load(Ordering::Acquire);
        let Some(bytes) = cluster::agree(worker, own, stop) else {
            return;
        };
        let plan: Plan = match serde_json::from_slice(&bytes) {
            Ok(plan) => plan,
            Err(error) => {
                return (self.work.fail)(format!("could not understand the plan: {error}"));
            }
        };
        self.conditions.owned.set(true);
        let interval_ms = self.work.pipeline.epoch.interval_ms;
        self.work.clock.not_before(plan.open.start_ms(interval_ms));
        let loaded = match settled {
            Some(settled) => Some(Arc::clone(&settled.loaded)),
            None => self.loaded.get_or_init(|| self.load(&plan)).clone(),
        };
        let Some(loaded) = loaded else {
            return;
        };
        self.conditions.restored.set(true);
        let outputs = settled.map(|settled| settled.outputs.clone());
        self.work.run(worker, &From::plan(plan), &loaded, outputs);
    }

    /// Reads the snapshot that the plan names, which the first process may have written on
    /// another machine.
    fn load(&self, plan: &Plan) -> Option<Arc<Loaded>> {
        let pipeline = &self.work.pipeline;
        let load = || {
            let store = Store::open(&pipeline.snapshots.url, &pipeline.name)?;
            store.load(&store.manifest(plan.snapshot)?)
        };
        match load() {
            Ok(loaded) => Some(Arc::new(loaded)),
            Err(error) => {
                (self.work.fail)(format!(
                    "{error}; all processes must reach one and the same `snapshots.url`"
                ));
                None
            }
        }
    }
}

fn spawn_workers(
    running: cluster::Running,
    shared: Shared,
    control: Arc<Control>,
) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name("riderflow-workers".into())
        .spawn(move || {
            // The workers have `shared`, and with it the way to the commit thread, which ends
            // when they have.
            if let Err(error) = running.execute(move |worker| shared.run(worker)) {
                control.fail(error.into());
            }
        })
        .expect("the system gives a thread")
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

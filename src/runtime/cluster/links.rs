//! The control connections while the job runs: signs of life, and what a process has to say.
//!
//! A frame is nine bytes: what, and a number (big-endian). Each process sends a sign of life
//! twice a second; one thread a peer listens.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ClusterError;
use super::hello::retriable;

/// Sent alone, before any frame, at the start.
pub(super) const READY: u8 = b'r';

const ALIVE: u8 = b'.';
const STOPS: u8 = b's';
/// The process of this number has failed, or is gone; who says so ends for it.
const FAILED: u8 = b'f';
const GONE: u8 = b'g';
/// All workers have finished, and stay while others have not.
const FINISHED: u8 = b'd';
/// The workers have ended, and all that they sent is on its way.
const ENDED: u8 = b'e';

/// How the end of a process looks from outside.
const CLOSED: &str = "it closed its connections";

const FRAME_BYTES: usize = 9;
/// Between two signs of life, and two looks at the own status.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Silence is counted in so many reads that run out of time one after the other: a process
/// that was itself held sees at most one of them pass before it reads what has waited for it.
const READS: u32 = 8;
/// How long timely's threads may take to send the last bytes.
const TELL_LIMIT: Duration = Duration::from_millis(500);
/// A peer that takes nothing for so long is as good as silent.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// How this process does, as its peers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// A part of it failed.
    Failed,
}

/// What a peer makes this process do.
#[derive(Debug)]
pub enum Event {
    /// Stop, as if asked to: the process of this number was.
    Stop(usize),
    /// Fail: a peer has failed ([`ClusterError::Failed`]) or is gone ([`ClusterError::Gone`]).
    Fail(ClusterError),
}

/// Where a peer stands. What it has said last, but the first end counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Running,
    Stopping,
    Failed,
    /// Its workers have ended.
    Ended,
    /// It has closed the connection after that.
    Closed,
    /// It is gone without having ended.
    Gone,
}

struct PeerState {
    standing: Standing,
    /// All its workers have finished what a stop leaves to do.
    finished: bool,
    /// It was told that the workers of this process have ended.
    told_end: bool,
}

/// A peer's writing half; `None` for this process, and once writing has failed.
struct Writer(Mutex<Option<TcpStream>>);

impl Writer {
    fn send(&self, what: u8, value: u64) {
        let mut frame = [what; FRAME_BYTES];
        frame[1..].copy_from_slice(&value.to_be_bytes());
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &mut *writer
            && stream.write_all(&frame).is_err()
        {
            // Half a frame may be out, so it is over. Why, the reading half finds out.
            *writer = None;
        }
    }
}

pub(super) type OnEvent = Box<dyn Fn(Event) + Send + Sync>;
pub(super) type OwnStatus = Box<dyn Fn() -> Status + Send + Sync>;

pub(super) struct Shared {
    addresses: Vec<String>,
    own: usize,
    writers: Vec<Writer>,
    peers: Mutex<Vec<PeerState>>,
    changed: Condvar,
    /// What the peers were told of this process.
    told: Mutex<Status>,
    /// The first process that failed or is gone, and which of the two: so that all name the same
    /// one, whoever they hear it from.
    culprit: Mutex<Option<(u8, usize)>>,
    /// Which workers of this process have finished.
    finished: Vec<AtomicBool>,
    status: OwnStatus,
    on_event: OnEvent,
    silence: Duration,
}

/// A hold on the control connections. Cloning gives another hold on the same.
#[derive(Clone)]
pub struct Links {
    pub(super) shared: Arc<Shared>,
}

impl Links {
    /// Starts to listen to the peers and to tell them `status`, which is looked at fifty times
    /// a second. `controls` is by process.
    pub(super) fn start(
        own: usize,
        workers: usize,
        controls: Vec<Option<(String, TcpStream)>>,
        silence: Duration,
        status: OwnStatus,
        on_event: OnEvent,
    ) -> std::io::Result<Self> {
        let mut addresses = Vec::new();
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for (process, control) in controls.into_iter().enumerate() {
            let (address, stream) = control.unzip();
            addresses.push(address.unwrap_or_default());
            if let Some(stream) = &stream {
                stream.set_write_timeout(Some(WRITE_LIMIT))?;
                stream.set_read_timeout(Some(silence / READS))?;
                readers.push((process, stream.try_clone()?));
            }
            writers.push(Writer(Mutex::new(stream)));
        }
        let peers = writers.iter().map(|_| PeerState {
            standing: Standing::Running,
            finished: false,
            told_end: false,
        });
        let shared = Arc::new(Shared {
            own,
            peers: Mutex::new(peers.collect()),
            addresses,
            writers,
            changed: Condvar::new(),
            told: Mutex::new(Status::Running),
            culprit: Mutex::new(None),
            finished: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            status,
            on_event,
            silence,
        });
        if !readers.is_empty() {
            let beating = Arc::clone(&shared);
            spawn("riderflow-alive".into(), move || beating.beat())?;
        }
        for (process, stream) in readers {
            let listening = Arc::clone(&shared);
            spawn(format!("riderflow-peer-{process}"), move || {
                listening.listen(process, stream);
            })?;
        }
        Ok(Self { shared })
    }

    /// Says that worker `index`, of all workers, has done what a stop leaves to do. It then goes
    /// on stepping until [`Self::all_finished`]: others may need its part of the progress. A
    /// worker that returns has finished.
    pub fn finish_worker(&self, index: usize) {
        let finished = &self.shared.finished;
        finished[index % finished.len()].store(true, Ordering::Release);
        if finished.iter().all(|worker| worker.load(Ordering::Acquire)) {
            self.shared.lock_peers()[self.shared.own].finished = true;
            self.shared.send(FINISHED, 0);
        }
    }

    /// Whether all workers of all processes have finished, or need not be waited for: a process
    /// has failed, this one too, or is gone, and nothing will come of it.
    pub fn all_finished(&self) -> bool {
        if self.shared.look() == Status::Failed {
            return true;
        }
        let peers = self.shared.lock_peers();
        let mut peers = peers.iter();
        peers.all(|peer| peer.finished || peer.standing >= Standing::Failed)
    }

    /// Called once this process's workers have ended: waits at most `limit` until those of all
    /// peers have too; whether they have. After a death or a failure it waits only until
    /// everyone was told, since nobody needs anything from anybody.
    pub(super) fn end(&self, limit: Duration) -> bool {
        let own = self.shared.own;
        let others = |peers: &[PeerState], wanted: fn(&PeerState) -> bool| {
            let mut others = peers.iter().enumerate().filter(|(at, _)| *at != own);
            others.all(|(_, peer)| wanted(peer))
        };
        let mut ended = false;
        let mut broken = self.shared.look() == Status::Failed;
        self.shared.wait(limit, |peers| {
            ended = others(peers, |peer| {
                peer.told_end && matches!(peer.standing, Standing::Ended | Standing::Closed)
            });
            broken |= peers
                .iter()
                .any(|peer| matches!(peer.standing, Standing::Failed | Standing::Gone));
            ended || broken
        });
        if !ended {
            self.shared.wait(TELL_LIMIT, |peers| {
                others(peers, |peer| {
                    peer.told_end || peer.standing >= Standing::Closed
                })
            });
        }
        ended
    }
}

impl Shared {
    /// Looks how this process does, and tells the peers if that is new.
    fn look(&self) -> Status {
        self.tell((self.status)())
    }

    /// Like [`Self::look`], of a process that is done with before it has run.
    pub(super) fn give_up(&self) {
        if self.look() == Status::Running {
            self.tell(Status::Failed);
        }
    }

    fn tell(&self, status: Status) -> Status {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // A stop may become a failure, and neither goes back.
        let (what, whose) = match (*told, status) {
            (Status::Running, Status::Stopping) => (STOPS, self.own),
            (Status::Running | Status::Stopping, Status::Failed) => self.blame(FAILED, self.own),
            _ => return *told,
        };
        *told = status;
        drop(told);
        self.send(what, whose as u64);
        self.changed.notify_all();
        status
    }

    /// The first that was blamed, which is this one unless there was another.
    fn blame(&self, what: u8, process: usize) -> (u8, usize) {
        let mut culprit = self.culprit.lock().unwrap_or_else(PoisonError::into_inner);
        *culprit.get_or_insert((what, process))
    }

    /// timely has sent its last to `process`.
    pub(super) fn data_ended(&self, process: usize) {
        self.writers[process].send(ENDED, 0);
        self.lock_peers()[process].told_end = true;
        self.changed.notify_all();
    }

    fn send(&self, what: u8, value: u64) {
        for writer in &self.writers {
            writer.send(what, value);
        }
    }

    fn beat(&self) {
        let mut next = Instant::now();
        loop {
            self.look();
            if Instant::now() >= next {
                next = Instant::now() + ALIVE_EVERY;
                self.send(ALIVE, 0);
            }
            let peers = self.lock_peers();
            let mut others = peers.iter().enumerate().filter(|(at, _)| *at != self.own);
            if others.all(|(_, peer)| peer.standing >= Standing::Closed) {
                return;
            }
            drop(peers);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn listen(&self, process: usize, mut stream: TcpStream) {
        let mut frame = [0; FRAME_BYTES];
        let mut filled = 0;
        let mut unanswered = 0;
        let why = loop {
            match stream.read(&mut frame[filled..]) {
                Ok(0) => break CLOSED.into(),
                Ok(read) => {
                    unanswered = 0;
                    filled += read;
                    if filled == FRAME_BYTES {
                        filled = 0;
                        let value = frame[1..].iter().fold(0, |v, &b| v << 8 | u64::from(b));
                        self.take(process, frame[0], value);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if retriable(&error) => {
                    unanswered += 1;
                    if unanswered == READS {
                        break format!(
                            "nothing was heard of it for {} s",
                            self.silence.as_secs_f32()
                        );
                    }
                }
                // It had not read all.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break CLOSED.into(),
                Err(error) => break error.to_string(),
            }
        };
        self.lose(process, why);
    }

    fn take(&self, process: usize, what: u8, value: u64) {
        match what {
            STOPS => {
                self.stand(process, Standing::Stopping);
                (self.on_event)(Event::Stop(process));
            }
            FAILED | GONE => {
                self.stand(process, Standing::Failed);
                // Whoever takes this process for gone is as good as gone.
                let whose = usize::try_from(value)
                    .ok()
                    .filter(|&whose| whose != self.own);
                let why = format!("process {process} says so");
                self.fail(what, whose.unwrap_or(process), why);
            }
            FINISHED => self.lock_peers()[process].finished = true,
            ENDED => self.stand(process, Standing::Ended),
            // A sign of life.
            _ => {}
        }
    }

    fn fail(&self, what: u8, process: usize, why: String) {
        self.blame(what, process);
        let address = self.addresses.get(process).cloned().unwrap_or_default();
        (self.on_event)(Event::Fail(if what == FAILED {
            ClusterError::Failed { process, address }
        } else {
            ClusterError::Gone {
                process,
                address,
                why,
            }
        }));
    }

    /// The peer is there no longer. Once it has ended that is in order; while a stop is under
    /// way it is no failure of this process, which stops anyway.
    pub(super) fn lose(&self, process: usize, why: String) {
        let mut peers = self.lock_peers();
        let before = peers[process].standing;
        if before >= Standing::Closed {
            return;
        }
        peers[process].standing = if before == Standing::Ended {
            Standing::Closed
        } else {
            Standing::Gone
        };
        drop(peers);
        self.changed.notify_all();
        match before {
            Standing::Running if self.look() == Status::Running => self.fail(GONE, process, why),
            Standing::Running | Standing::Stopping => {
                let address = &self.addresses[process];
                tracing::warn!(
                    "process {process} at {address} has gone before it had ended: {why}"
                );
                (self.on_event)(Event::Stop(process));
            }
            _ => {}
        }
    }

    /// Whether the peer's workers have ended: waits until that, or its loss, is known.
    pub(super) fn await_end(&self, process: usize, why: &str) -> bool {
        let mut standing = Standing::Running;
        self.wait(self.silence, |peers| {
            standing = peers[process].standing;
            standing >= Standing::Ended
        });
        if standing < Standing::Ended {
            self.lose(process, format!("its data connection broke: {why}"));
        }
        matches!(standing, Standing::Ended | Standing::Closed)
    }

    fn stand(&self, process: usize, standing: Standing) {
        let mut peers = self.lock_peers();
        let peer = &mut peers[process];
        peer.standing = peer.standing.max(standing);
        drop(peers);
        self.changed.notify_all();
    }

    /// Waits until `is_done` or `limit` has passed.
    fn wait(&self, limit: Duration, mut is_done: impl FnMut(&[PeerState]) -> bool) {
        let peers = self.lock_peers();
        // Neither a timeout nor a poisoned lock needs anything more: the caller saw the state.
        let _ = self
            .changed
            .wait_timeout_while(peers, limit, |peers| !is_done(peers));
    }

    fn lock_peers(&self) -> MutexGuard<'_, Vec<PeerState>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name).spawn(work)?;
    Ok(())
}

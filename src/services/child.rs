//! Child processes: spawning, watching and ending them.
//!
//! Owns the one thread that spawns children, and the checks that keep a signal from ever
//! reaching a process that isn't ours. It knows nothing of Kafka or ClickHouse.
//!
//! Linux delivers a child's parent-death signal when the *thread* that spawned it ends, not
//! the process. A test's thread ends with the test, so every child is spawned from one thread
//! that lives as long as this process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often a process that should end is looked at.
pub(super) const POLL: Duration = Duration::from_millis(25);

type Job = Box<dyn FnOnce() + Send>;

static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = channel::<Job>();
    thread::Builder::new()
        .name("spawner".into())
        .spawn(move || queue.into_iter().for_each(|job| job()))
        .expect("a process that is about to start others can start one thread");
    Mutex::new(jobs)
});

/// Spawns `command` from the thread that lives as long as this process.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    let (reply, answer) = channel();
    let job: Job = Box::new(move || {
        // The receiver waits below, so it can't be gone.
        let _ = reply.send(command.spawn());
    });
    SPAWNER
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send(job)
        .map_err(|_| io::Error::other("the spawner thread has ended"))?;
    answer
        .recv()
        .map_err(|_| io::Error::other("the spawner thread has ended"))?
}

/// Sends SIGTERM, waits for `grace`, then sends SIGKILL and waits.
pub(super) fn terminate(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    signal_child(child, Signal::TERM);
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
    kill(child)
}

/// Sends SIGKILL and waits.
pub(super) fn kill(child: &mut Child) -> io::Result<ExitStatus> {
    child.kill()?;
    child.wait()
}

fn signal_child(child: &Child, signal: Signal) {
    // It has not been waited for, so its pid is still its own; if it just ended, so much the
    // better.
    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
}

/// What a running service says of itself in its folder, written by the child before it turns
/// into the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its process.
    pub(super) pid: u32,
    /// When that process started, in clock ticks since boot: a reused pid differs in it.
    pub(super) started: u64,
    /// `host:port`.
    pub(super) address: String,
    /// The process it must not outlive; none for what `up` started.
    pub(super) parent: Option<u32>,
}

/// A process that was started by another one, found again by its record.
pub(super) struct Found {
    pid: u32,
    started: u64,
    handle: rustix::fd::OwnedFd,
}

impl Found {
    /// Finds the process of `record`; none if it has ended, even when its pid is in use again.
    pub(super) fn find(record: &Record) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(record.pid).ok()?)?;
        // The handle first: from here on the pid can't come to mean another process unseen.
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let found = Self {
            pid: record.pid,
            started: record.started,
            handle,
        };
        found.alive().then_some(found)
    }

    fn alive(&self) -> bool {
        started_at(self.pid).is_some_and(|started| started == self.started)
    }

    /// Sends SIGTERM, waits for `grace`, then sends SIGKILL and waits. True if SIGTERM was
    /// enough.
    pub(super) fn terminate(&self, grace: Duration) -> io::Result<bool> {
        self.signal(Signal::TERM)?;
        if self.ended_within(grace) {
            return Ok(true);
        }
        self.signal(Signal::KILL)?;
        if self.ended_within(Duration::from_secs(10)) {
            return Ok(false);
        }
        Err(io::Error::other("it is still there 10 s after SIGKILL"))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.handle.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.alive() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

/// When the process `pid` started, in clock ticks since boot; none if it has ended (a zombie
/// has, though for a moment its other threads may still hold its files and ports).
pub(super) fn started_at(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of a process may hold spaces and parentheses, so fields are counted from the last
/// closing one.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Whether a service runs on the folder with this lock file: the kernel holds the lock for as
/// long as the service's process lives, and not a moment longer. Two that look at once don't
/// mistake each other for the service.
pub(super) fn is_locked(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(file) => matches!(
            file.try_lock_shared(),
            Err(std::fs::TryLockError::WouldBlock)
        ),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let child = spawn({
            let mut command = Command::new("sleep");
            command.arg("60");
            command
        })
        .unwrap();
        let mut record = Record {
            pid: child.id(),
            started: started_at(child.id()).unwrap(),
            address: String::new(),
            parent: None,
        };
        let found = Found::find(&record).unwrap();
        record.started += 1;
        assert!(Found::find(&record).is_none());
        let reaper = thread::spawn(move || {
            let mut child = child;
            child.wait().unwrap()
        });
        assert!(found.terminate(Duration::from_secs(5)).unwrap());
        reaper.join().unwrap();
        record.started -= 1;
        assert!(Found::find(&record).is_none());
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_process_is_called() {
        let tail = (4..=25)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(parse_stat(&format!("7 (a b) c) S {tail}")), Some(22));
        assert_eq!(parse_stat(&format!("7 (java) Z {tail}")), None);
        assert_eq!(parse_stat(""), None);
    }
}

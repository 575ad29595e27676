//! Ready and live: named conditions and a heartbeat.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A ready job whose epoch has not advanced for longer than this is stuck.
pub const STALL_LIMIT: Duration = Duration::from_secs(30);

/// No beat was heard and the job was never ready.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Inner {
    conditions: Mutex<Vec<(&'static str, bool)>>,
    started: Instant,
    /// What is to be said of a missing heartbeat.
    standstill: &'static str,
    stall_limit: Duration,
    /// Ms after `started` of the last beat.
    beat_ms: AtomicU64,
    /// Ms after `started` at which the job was first ready.
    ready_ms: AtomicU64,
    ready: AtomicBool,
}

/// The job's health; a clone is another handle on the same.
///
/// Ready means that every condition is met, and that there is at least one. Live means not
/// stuck: once it was ready, a beat was heard within [`STALL_LIMIT`].
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Not ready: there is no condition yet. Name all of them before the work starts.
    pub fn new() -> Self {
        Self::with_stall_limit(STALL_LIMIT)
    }

    /// As [`Health::new`], of something that has no epochs: `standstill` says what it means
    /// that no beat was heard, such as `the gateway has not moved`.
    pub fn of(standstill: &'static str) -> Self {
        Self::with(standstill, STALL_LIMIT)
    }

    pub(super) fn with_stall_limit(stall_limit: Duration) -> Self {
        Self::with("the epoch has not advanced", stall_limit)
    }

    fn with(standstill: &'static str, stall_limit: Duration) -> Self {
        Self(Arc::new(Inner {
            standstill,
            conditions: Mutex::default(),
            started: Instant::now(),
            stall_limit,
            beat_ms: AtomicU64::new(NEVER),
            ready_ms: AtomicU64::new(NEVER),
            ready: AtomicBool::new(false),
        }))
    }

    /// Names a condition, unmet; the same name again is the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.0.change(|conditions| {
            if !conditions.iter().any(|(known, _)| *known == name) {
                conditions.push((name, false));
            }
        });
        Condition {
            name,
            inner: self.0.clone(),
        }
    }

    /// The handle by which the run loop says that the epoch advanced.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat(self.0.clone())
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Relaxed)
    }

    /// The names of the unmet conditions, in the order in which they were named.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let conditions = self.0.conditions.lock();
        let conditions = conditions.unwrap_or_else(PoisonError::into_inner);
        let unmet = conditions.iter().filter(|(_, met)| !met);
        unmet.map(|(name, _)| *name).collect()
    }

    pub(super) fn standstill(&self) -> &'static str {
        self.0.standstill
    }

    /// How long a job that was once ready has been without a beat, if that is too long.
    pub fn stalled(&self) -> Option<Duration> {
        let inner = &self.0;
        let ready_ms = inner.ready_ms.load(Relaxed);
        if ready_ms == NEVER {
            return None;
        }
        let beat_ms = inner.beat_ms.load(Relaxed);
        let last_ms = if beat_ms == NEVER {
            ready_ms
        } else {
            beat_ms.max(ready_ms)
        };
        let silent = Duration::from_millis(inner.elapsed_ms().saturating_sub(last_ms));
        (silent > inner.stall_limit).then_some(silent)
    }
}

impl Inner {
    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<(&'static str, bool)>)) {
        let conditions = self.conditions.lock();
        let mut conditions = conditions.unwrap_or_else(PoisonError::into_inner);
        edit(&mut conditions);
        let ready = !conditions.is_empty() && conditions.iter().all(|(_, met)| *met);
        self.ready.store(ready, Relaxed);
        if ready && self.ready_ms.load(Relaxed) == NEVER {
            self.ready_ms.store(self.elapsed_ms(), Relaxed);
        }
    }
}

/// One thing that must hold for the job to be ready.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    inner: Arc<Inner>,
}

impl Condition {
    /// Says whether it holds now.
    pub fn set(&self, met: bool) {
        self.inner.change(|conditions| {
            for (name, value) in conditions.iter_mut() {
                if *name == self.name {
                    *value = met;
                }
            }
        });
    }
}

impl Condition {
    /// Whether it holds.
    pub fn is_met(&self) -> bool {
        let conditions = self.inner.conditions.lock();
        let conditions = conditions.unwrap_or_else(PoisonError::into_inner);
        conditions
            .iter()
            .any(|(name, met)| *name == self.name && *met)
    }
}

/// Says that the epoch advanced: one atomic store.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Inner>);

impl Heartbeat {
    /// The epoch advanced just now.
    pub fn beat(&self) {
        self.0.beat_ms.store(self.0.elapsed_ms(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_condition_is_met() {
        let health = Health::new();
        assert!(!health.is_ready(), "no condition was named yet");
        let kafka = health.condition("kafka assigned");
        let rows = health.condition("clickhouse reachable");
        assert_eq!(
            health.waiting_for(),
            ["kafka assigned", "clickhouse reachable"]
        );
        kafka.set(true);
        assert_eq!(health.waiting_for(), ["clickhouse reachable"]);
        rows.set(true);
        assert!(health.is_ready());
        health.condition("kafka assigned").set(false);
        assert!(!health.is_ready());
    }

    #[test]
    fn a_job_that_was_never_ready_is_not_stuck() {
        let health = Health::with_stall_limit(Duration::ZERO);
        health.condition("kafka assigned");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(health.stalled(), None);
    }

    #[test]
    fn a_ready_job_must_go_on_beating_even_if_it_is_no_longer_ready() {
        let health = Health::with_stall_limit(Duration::from_millis(20));
        let condition = health.condition("kafka assigned");
        condition.set(true);
        assert_eq!(health.stalled(), None);
        condition.set(false);
        std::thread::sleep(Duration::from_millis(40));
        assert!(health.stalled().is_some());
        health.heartbeat().beat();
        assert_eq!(health.stalled(), None);
    }
}

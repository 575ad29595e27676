//! All sessions of this gateway, and what is known of those of others.
//!
//! Owns the table (driver, session) → state. Promises that one connection at a time has a
//! session, the newest one, and that a session is known for [`KEPT`] after its connection has
//! ended, or after another gateway's record of it was last seen, unless the table is full:
//! then those go first that have no connection and are longest unheard of. Forgetting a session
//! loses nothing: its resends reach Kafka again, and the job drops them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::kafka;
use crate::model::DriverId;

use super::session::{Session, note};
use crate::gateway::metrics::GatewayMetrics;

/// How long a session without connection is known.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// Between two searches of a shard for sessions to forget.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// When a shard is full, one in so many of its sessions is forgotten.
const FORGOTTEN_PART: usize = 16;
/// Locks, so that connections rarely wait for each other.
const SHARDS: usize = 16;

type Key = (DriverId, CompactString);

/// A session with what is needed to reach its connection.
pub(super) struct Cell {
    pub(super) driver: DriverId,
    pub(super) name: CompactString,
    /// Here, since each receipt needs it and holds the cell anyway.
    metrics: GatewayMetrics,
    state: Mutex<State>,
}

/// What a cell's lock holds.
pub(super) struct State {
    pub(super) session: Session,
    /// Wakes the connection that has the session.
    owner: Option<Arc<Notify>>,
    /// Since when there is none, if there is none.
    since: Instant,
}

impl Cell {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a bug that ends one connection, not all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entry {
    /// Known from what other gateways have put into Kafka only.
    Elsewhere {
        notes: Vec<(i32, u64)>,
        seen: Instant,
    },
    /// Had a connection here.
    Here(Arc<Cell>),
}

impl Entry {
    /// Since when nothing needs it; `None` while something does.
    fn idle_since(&self) -> Option<Instant> {
        match self {
            Self::Elsewhere { seen, .. } => Some(*seen),
            Self::Here(cell) => {
                let state = cell.lock();
                let is_idle = state.owner.is_none() && state.session.in_flight() == 0;
                is_idle.then_some(state.since)
            }
        }
    }
}

struct Shard {
    entries: HashMap<Key, Entry>,
    swept: Instant,
}

impl Shard {
    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        self.entries
            .retain(|_, entry| entry.idle_since().is_none_or(|since| now - since < KEPT));
    }

    /// Makes room for at least one more, if anything can go. A part of all goes at once, since
    /// each search looks at everything: a table that stays full would be searched at each open.
    fn forget_oldest(&mut self, capacity: usize) -> bool {
        let idle = (self.entries.iter())
            .filter_map(|(key, entry)| Some((entry.idle_since()?, key.clone())));
        let mut idle: Vec<(Instant, Key)> = idle.collect();
        let count = (capacity / FORGOTTEN_PART).max(1).min(idle.len());
        if count == 0 {
            return false;
        }
        idle.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        for (_, key) in &idle[..count] {
            self.entries.remove(key);
        }
        true
    }
}

/// See the module.
pub(super) struct Sessions {
    shards: [Mutex<Shard>; SHARDS],
    /// Of each shard.
    capacity: usize,
    metrics: GatewayMetrics,
}

impl Sessions {
    /// A table of about `capacity` sessions.
    pub(super) fn new(capacity: usize, metrics: GatewayMetrics, now: Instant) -> Self {
        Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    entries: HashMap::new(),
                    swept: now,
                })
            }),
            capacity: capacity.div_ceil(SHARDS).max(1),
            metrics,
        }
    }

    fn shard(&self, driver: DriverId) -> MutexGuard<'_, Shard> {
        // Fibonacci hashing: ids that follow each other are spread.
        let spread = driver.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.shards[spread as usize % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a session to a new connection; the one that had it is told. `None`: the table is
    /// full of sessions in use.
    pub(super) fn open(&self, driver: DriverId, name: &str, now: Instant) -> Option<Seat> {
        let key = (driver, CompactString::from(name));
        let mut shard = self.shard(driver);
        if now - shard.swept >= SWEEP_EVERY {
            shard.sweep(now);
        }
        let notes = match shard.entries.get_mut(&key) {
            // Under the shard's lock, so that nothing forgets it before it is taken.
            Some(Entry::Here(cell)) => return Some(Seat::take(Arc::clone(cell))),
            Some(Entry::Elsewhere { notes, .. }) => std::mem::take(notes),
            None => {
                if shard.entries.len() >= self.capacity && !shard.forget_oldest(self.capacity) {
                    return None;
                }
                Vec::new()
            }
        };
        let cell = Arc::new(Cell {
            driver,
            name: key.1.clone(),
            metrics: self.metrics.clone(),
            state: Mutex::new(State {
                session: Session::known(notes),
                owner: None,
                since: now,
            }),
        });
        // Under the shard's lock, so that nothing forgets it before it is taken.
        let seat = Seat::take(Arc::clone(&cell));
        shard.entries.insert(key, Entry::Here(cell));
        Some(seat)
    }

    /// Any gateway has stored update `seq` of this session in `partition`.
    pub(super) fn note_stored(
        &self,
        driver: DriverId,
        name: &str,
        partition: i32,
        seq: u64,
        now: Instant,
    ) {
        let key = (driver, CompactString::from(name));
        let mut shard = self.shard(driver);
        match shard.entries.get_mut(&key) {
            Some(Entry::Here(cell)) => cell.lock().session.note_stored(partition, seq),
            Some(Entry::Elsewhere { notes, seen }) => {
                *seen = now;
                note(notes, partition, seq);
            }
            None => {
                if now - shard.swept >= SWEEP_EVERY {
                    shard.sweep(now);
                }
                if shard.entries.len() < self.capacity {
                    let entry = Entry::Elsewhere {
                        notes: vec![(partition, seq)],
                        seen: now,
                    };
                    shard.entries.insert(key, entry);
                }
            }
        }
    }

    /// How many sessions are known.
    pub(super) fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.entries.len()
        };
        self.shards.iter().map(count).sum()
    }
}

/// A connection's hold on its session, until it is dropped or another connection takes it.
pub(super) struct Seat {
    pub(super) cell: Arc<Cell>,
    /// Wakes this connection: more is settled, or the session was taken.
    pub(super) wake: Arc<Notify>,
    /// Up to where all was settled when the connection began.
    pub(super) acked: u64,
}

impl Seat {
    fn take(cell: Arc<Cell>) -> Self {
        let wake = Arc::new(Notify::new());
        let mut state = cell.lock();
        if let Some(before) = state.owner.replace(Arc::clone(&wake)) {
            before.notify_one();
        }
        let acked = state.session.connected();
        drop(state);
        Self { cell, wake, acked }
    }

    /// The session, unless another connection has it by now.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.cell.lock();
        self.has(&state).then_some(state)
    }

    fn has(&self, state: &State) -> bool {
        let owner = state.owner.as_ref();
        owner.is_some_and(|owner| Arc::ptr_eq(owner, &self.wake))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.cell.lock();
        if self.has(&state) {
            state.owner = None;
            state.since = Instant::now();
        }
    }
}

/// What Kafka's answer to one update is told to.
pub struct Receipt {
    pub(super) cell: Arc<Cell>,
    pub(super) seq: u64,
    pub(super) taken: Instant,
}

impl kafka::Receipt for Receipt {
    fn stored(self) {
        let metrics = &self.cell.metrics;
        metrics.buffered_updates.dec();
        metrics.produced.inc();
        metrics
            .produce_seconds
            .observe(self.taken.elapsed().as_secs_f64());
        let mut state = self.cell.lock();
        if state.session.stored(self.seq)
            && let Some(owner) = &state.owner
        {
            owner.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::intake::session::Offer;

    const DRIVER: DriverId = DriverId(453);

    fn offer(seat: &Seat, seq: u64) -> Option<Offer> {
        Some(seat.lock()?.session.offer(seq))
    }

    #[test]
    fn the_newest_connection_has_the_session() {
        let start = Instant::now();
        let sessions = Sessions::new(100, GatewayMetrics::new(), start);
        let first = sessions.open(DRIVER, "a", start).expect("room");
        first.lock().expect("it has it").session.take(1);
        let second = sessions.open(DRIVER, "a", start).expect("room");
        assert!(first.lock().is_none());
        assert_eq!(offer(&second, 1), Some(Offer::Resent));
        // The first's end is no end of the session's connection.
        drop(first);
        assert!(second.lock().is_some());
        // Other names and other drivers are other sessions.
        let third = sessions.open(DRIVER, "b", start).expect("room");
        let fourth = sessions.open(DriverId(7), "a", start).expect("room");
        for seat in [third, fourth] {
            assert_eq!(offer(&seat, 1), Some(Offer::New));
        }
        assert_eq!(sessions.len(), 3);
    }

    #[test]
    fn a_session_is_known_for_ten_minutes_after_its_end() {
        let start = Instant::now();
        let sessions = Sessions::new(100, GatewayMetrics::new(), start);
        let seat = sessions.open(DRIVER, "a", start).expect("room");
        seat.lock().expect("it has it").session.take(1);
        seat.lock().expect("it has it").session.stored(1);
        drop(seat);
        let soon = start + KEPT - Duration::from_secs(1);
        let seat = sessions.open(DRIVER, "a", soon).expect("room");
        assert_eq!(seat.acked, 1);
        drop(seat);
        let late = Instant::now() + KEPT + 2 * SWEEP_EVERY;
        let seat = sessions.open(DRIVER, "a", late).expect("room");
        assert_eq!(seat.acked, 0);
    }

    #[test]
    fn a_session_with_records_in_flight_is_not_forgotten() {
        let start = Instant::now();
        let sessions = Sessions::new(100, GatewayMetrics::new(), start);
        let seat = sessions.open(DRIVER, "a", start).expect("room");
        seat.lock().expect("it has it").session.take(1);
        drop(seat);
        let late = Instant::now() + 10 * KEPT;
        let seat = sessions.open(DRIVER, "a", late).expect("room");
        assert_eq!(offer(&seat, 1), Some(Offer::Resent));
    }

    #[test]
    fn a_full_table_forgets_the_longest_unheard_of_but_none_in_use() {
        let start = Instant::now();
        // One shard's worth for one driver.
        let sessions = Sessions::new(2 * SHARDS, GatewayMetrics::new(), start);
        let first = sessions.open(DRIVER, "a", start).expect("room");
        let second = sessions.open(DRIVER, "b", start).expect("room");
        assert!(sessions.open(DRIVER, "c", start).is_none());
        sessions.note_stored(DRIVER, "d", 0, 5, start);
        assert_eq!(sessions.len(), 2);
        drop(second);
        let third = sessions.open(DRIVER, "c", start).expect("room");
        assert!(first.lock().is_some() && third.lock().is_some());
        assert!(sessions.open(DRIVER, "b", start).is_none());
    }

    #[test]
    fn a_full_table_is_not_searched_for_each_session() {
        let start = Instant::now();
        let sessions = Sessions::new(64 * SHARDS, GatewayMetrics::new(), start);
        for number in 0..64 {
            let seen = start + Duration::from_secs(number);
            sessions.note_stored(DRIVER, &format!("n{number}"), 0, 5, seen);
        }
        let seat = sessions.open(DRIVER, "a", start).expect("room");
        assert_eq!(sessions.len(), 61);
        // The oldest four are those that went.
        let known = |name: &str| {
            let seat = sessions.open(DRIVER, name, start).expect("room");
            seat.lock()
                .expect("it has it")
                .session
                .is_stored_elsewhere(0, 5)
        };
        assert_eq!(["n3", "n4"].map(known), [false, true]);
        drop(seat);
    }

    #[test]
    fn what_other_gateways_stored_is_known_by_partition() {
        let start = Instant::now();
        let sessions = Sessions::new(100, GatewayMetrics::new(), start);
        sessions.note_stored(DRIVER, "a", 1, 20, start);
        sessions.note_stored(DRIVER, "a", 0, 3, start);
        let seat = sessions.open(DRIVER, "a", start).expect("room");
        assert_eq!(seat.acked, 0);
        sessions.note_stored(DRIVER, "a", 0, 4, start);
        let state = seat.lock().expect("it has it");
        assert!(state.session.is_stored_elsewhere(1, 20));
        assert!(state.session.is_stored_elsewhere(0, 4));
        assert!(!state.session.is_stored_elsewhere(0, 5));
    }
}

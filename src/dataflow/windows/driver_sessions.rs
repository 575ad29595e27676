//! `driver_sessions`: a driver's updates up to a gap.
//!
//! A late update may begin a session, make one begin earlier, or join two. What began at a
//! time at which nothing begins any more is told as gone: a session without updates.

use serde::{Deserialize, Serialize};

use super::grid::Grid;
use crate::model::{DriverId, Epoch, SessionWindow, TimeMs};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session {
    start_ms: TimeMs,
    end_ms: TimeMs,
    distance_m: f64,
    updates: u64,
    /// Not told since it changed.
    changed: bool,
}

/// The sessions of one driver, by start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// Starts at which no session begins any more, not told yet.
    gone: Vec<TimeMs>,
}

impl Sessions {
    /// Counts an update that adds so many metres. A gap of `gap_ms` ends a session.
    pub(super) fn add(&mut self, at_ms: TimeMs, distance_m: f64, gap_ms: TimeMs) {
        let next = self.first_after(at_ms);
        let joins = |session: &Session| {
            session.start_ms - at_ms < gap_ms && at_ms - session.end_ms < gap_ms
        };
        let joins_before = next > 0 && joins(&self.sessions[next - 1]);
        let joins_next = self.sessions.get(next).is_some_and(joins);
        let at = match (joins_before, joins_next) {
            (true, true) => {
                let joined = self.sessions.remove(next);
                self.gone.push(joined.start_ms);
                let session = &mut self.sessions[next - 1];
                session.end_ms = joined.end_ms;
                session.distance_m += joined.distance_m;
                session.updates += joined.updates;
                next - 1
            }
            (true, false) => next - 1,
            (false, true) => {
                // It begins earlier from now on.
                let session = &mut self.sessions[next];
                self.gone.push(session.start_ms);
                session.start_ms = at_ms;
                next
            }
            (false, false) => {
                let session = Session {
                    start_ms: at_ms,
                    end_ms: at_ms,
                    distance_m: 0.0,
                    updates: 0,
                    changed: true,
                };
                self.sessions.insert(next, session);
                next
            }
        };
        let session = &mut self.sessions[at];
        session.end_ms = session.end_ms.max(at_ms);
        session.distance_m += distance_m;
        session.updates += 1;
        session.changed = true;
    }

    /// Corrects the metres that an update has added.
    pub(super) fn correct(&mut self, at_ms: TimeMs, by_m: f64) {
        if by_m != 0.0
            && let Some(at) = self.first_after(at_ms).checked_sub(1)
        {
            self.sessions[at].distance_m += by_m;
            self.sessions[at].changed = true;
        }
    }

    /// The index of the first session that begins after a time.
    fn first_after(&self, at_ms: TimeMs) -> usize {
        match self.sessions.last() {
            Some(last) if last.start_ms <= at_ms => self.sessions.len(),
            _ => self
                .sessions
                .partition_point(|session| session.start_ms <= at_ms),
        }
    }

    /// Appends what has changed.
    pub(super) fn tell(
        &mut self,
        driver: DriverId,
        version: Epoch,
        grid: &Grid,
        out: &mut Vec<SessionWindow>,
    ) {
        self.gone.sort_unstable();
        self.gone.dedup();
        for start_ms in self.gone.drain(..) {
            let begins = self
                .sessions
                .binary_search_by_key(&start_ms, |session| session.start_ms);
            if begins.is_err() {
                out.push(SessionWindow {
                    driver,
                    start_ms,
                    end_ms: start_ms,
                    distance_m: 0.0,
                    updates: 0,
                    version,
                });
            }
        }
        for session in &mut self.sessions {
            if std::mem::take(&mut session.changed) && grid.is_session_known(session.start_ms) {
                out.push(SessionWindow {
                    driver,
                    start_ms: session.start_ms,
                    end_ms: session.end_ms,
                    distance_m: session.distance_m,
                    updates: session.updates,
                    version,
                });
            }
        }
    }

    /// Drops sessions that no update at `open_ms` or later can join.
    pub(super) fn forget(&mut self, open_ms: TimeMs, gap_ms: TimeMs) {
        self.sessions
            .retain(|session| session.changed || open_ms - session.end_ms < gap_ms);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.gone.is_empty()
    }

    /// What it takes on the heap, bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.sessions.capacity() * size_of::<Session>() + self.gone.capacity() * 8
    }
}

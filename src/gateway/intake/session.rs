//! One run of a phone's app: which of its updates are taken, and which are settled.
//!
//! Pure: no socket, no Kafka, no clock. Owns the sequence of a session. Promises that
//! an update is taken at most once and in the order of the numbers, that an acknowledgement
//! never covers an update that is neither stored nor refused, whatever the order in which
//! Kafka's partitions answer, and that after a `retry` nothing is taken until the phone has gone
//! back to it. Bounded by [`IN_FLIGHT_MAX`], which is for the caller to ask.

use std::collections::VecDeque;

/// From so many updates in flight on, a session's socket is not read.
pub(super) const PAUSE_AT: usize = 64;

/// So many updates of a session are in flight at most.
pub(super) const IN_FLIGHT_MAX: usize = 256;

/// What to do with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// To be taken: [`Session::take`], [`Session::settle`] or [`Session::put_back`] comes next.
    New,
    /// Taken before: it is acknowledged once it is settled.
    Resent,
    /// It comes after one that must come again first.
    OutOfTurn {
        /// That one's number.
        awaited: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    seq: u64,
    is_settled: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The greatest number taken.
    taken: u64,
    /// Everything up to here is settled.
    acked: u64,
    /// The last acknowledgement told on this connection.
    told: u64,
    /// The greatest number seen on this connection, taken or not.
    seen: u64,
    /// Where the phone must go back to.
    awaited: Option<u64>,
    /// What is taken and not covered by `acked`, by number.
    flight: VecDeque<Taken>,
    /// By partition, what other gateways are known to have stored of this session.
    elsewhere: Vec<(i32, u64)>,
}

impl Session {
    /// A session of which other gateways have stored this much, by partition.
    pub(super) fn known(elsewhere: Vec<(i32, u64)>) -> Self {
        Self {
            elsewhere,
            ..Self::default()
        }
    }

    /// A connection begins; returns up to where all is settled.
    pub(super) fn connected(&mut self) -> u64 {
        self.awaited = None;
        self.told = self.acked;
        self.seen = self.taken;
        self.acked
    }

    /// The number of an update that comes without one.
    pub(super) fn next_seq(&self) -> u64 {
        self.seen + 1
    }

    /// What to do with the update of this number.
    pub(super) fn offer(&mut self, seq: u64) -> Offer {
        self.seen = self.seen.max(seq);
        if let Some(awaited) = self.awaited {
            // A resend that was put back may have been settled since: the phone has been told so,
            // and will never go back to it.
            if seq > awaited && awaited > self.acked {
                return Offer::OutOfTurn { awaited };
            }
            self.awaited = None;
        }
        if seq > self.taken {
            return Offer::New;
        }
        if seq <= self.acked {
            // The acknowledgement may have been lost: it is told again.
            self.told = self.told.min(seq - 1);
        }
        Offer::Resent
    }

    /// The update is on its way to Kafka.
    pub(super) fn take(&mut self, seq: u64) {
        self.push(seq, false);
    }

    /// The update is settled as it comes: refused, or stored by another gateway.
    pub(super) fn settle(&mut self, seq: u64) {
        self.push(seq, true);
        self.advance();
    }

    /// The update was not taken: it, and all after it, must come again.
    pub(super) fn put_back(&mut self, seq: u64) {
        self.awaited = Some(seq);
    }

    /// Kafka has the update. Returns whether more is settled than before.
    pub(super) fn stored(&mut self, seq: u64) -> bool {
        if let Ok(at) = self.flight.binary_search_by_key(&seq, |taken| taken.seq) {
            self.flight[at].is_settled = true;
        }
        self.advance()
    }

    /// The acknowledgement to tell now, if there is one; it counts as told.
    pub(super) fn ack_due(&mut self) -> Option<u64> {
        (self.acked > self.told).then(|| {
            self.told = self.acked;
            self.acked
        })
    }

    /// How many updates are taken and not covered by an acknowledgement.
    pub(super) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Another gateway has stored `seq` in `partition`. Since the records of a session are in
    /// order within a partition, everything of it up to there is stored, if it goes to the same
    /// partition; nothing follows for other partitions.
    pub(super) fn note_stored(&mut self, partition: i32, seq: u64) {
        if seq > self.taken {
            note(&mut self.elsewhere, partition, seq);
        }
    }

    /// Whether another gateway has stored this update, which goes to `partition`.
    pub(super) fn is_stored_elsewhere(&self, partition: i32, seq: u64) -> bool {
        self.elsewhere
            .iter()
            .any(|(each, stored)| *each == partition && seq <= *stored)
    }

    fn push(&mut self, seq: u64, is_settled: bool) {
        debug_assert!(seq > self.taken, "only a new update is taken");
        self.taken = seq;
        self.flight.push_back(Taken { seq, is_settled });
    }

    fn advance(&mut self) -> bool {
        let before = self.acked;
        while let Some(first) = self.flight.front().filter(|taken| taken.is_settled) {
            self.acked = first.seq;
            self.flight.pop_front();
        }
        if self.flight.is_empty() {
            // Most phones are idle most of the time.
            self.flight.shrink_to(8);
        }
        self.acked > before
    }
}

/// Keeps the greatest number of a partition.
pub(super) fn note(notes: &mut Vec<(i32, u64)>, partition: i32, seq: u64) {
    match notes.iter_mut().find(|(each, _)| *each == partition) {
        Some((_, stored)) => *stored = seq.max(*stored),
        None => notes.push((partition, seq)),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

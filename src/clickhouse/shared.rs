//! What the handle and the writer's thread share: what is on its way, how much of it there may
//! be, and up to which epoch all is stored.
//!
//! A row is *held* from the moment it is taken until its table has it. Rows that happen now may
//! fill the whole bound ([`Shared::offer`]); rows that are read again wait while half of it is
//! taken ([`Shared::push`]), so that catching up never takes the room of the present.

use std::collections::VecDeque;
use std::ops::{Add, AddAssign, SubAssign};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::parcel::{Origin, Parcel, Rows, Table};
use super::writer::{Full, Options, Stats, WriterError};
use crate::model::Epoch;

/// How often a sender that waits for room asks whether it still should.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Rows, and what they count in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Amount {
    fn is_within(self, bound: Self) -> bool {
        self.rows <= bound.rows && self.bytes <= bound.bytes
    }

    /// One part of `parts`.
    fn part(self, parts: usize) -> Self {
        Self {
            rows: self.rows / parts,
            bytes: self.bytes / parts,
        }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.rows -= other.rows;
        self.bytes -= other.bytes;
    }
}

/// A parcel of which rows are not stored yet, and when it was sent.
pub(super) type Waiting = (u64, Instant);

/// What the handle and the thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told when rows are released.
    room: Condvar,
    bound: Amount,
    /// Wakes the thread.
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
    /// All parcels before this one are stored.
    stored_before: u64,
    held: Amount,
    /// When the oldest row that is held was sent.
    waiting_since: Option<Instant>,
    /// Epochs, each with the number of the first parcel that is not part of it.
    marks: VecDeque<(Epoch, u64)>,
    last_mark: Option<Epoch>,
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

    /// Whether so much more may be held. What is larger than the bound passes alone.
    fn has_room(&self, more: Amount, bound: Amount) -> bool {
        self.held.rows == 0 || (self.held + more).is_within(bound)
    }

    fn accept(&mut self, rows: Rows, amount: Amount, origin: Origin) {
        let (number, at) = (self.next_parcel, Instant::now());
        self.next_parcel += 1;
        self.held += amount;
        self.waiting_since.get_or_insert(at);
        self.inbox.push(Parcel {
            number,
            rows,
            origin,
            at,
        });
    }
}

impl Shared {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            room: Condvar::new(),
            bound: Amount {
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

    /// Whether the thread goes on.
    pub(super) fn check(&self) -> Result<(), WriterError> {
        self.lock().check()
    }

    /// Takes rows if there is room for them.
    pub(super) fn offer(
        &self,
        rows: Rows,
        origin: Origin,
    ) -> Result<Result<(), Full>, WriterError> {
        let amount = rows.amount();
        let mut state = self.lock();
        state.check()?;
        if rows.is_empty() {
            return Ok(Ok(()));
        }
        if !state.has_room(amount, self.bound) {
            return Ok(Err(Full(rows)));
        }
        state.accept(rows, amount, origin);
        drop(state);
        self.wake.notify_one();
        Ok(Ok(()))
    }

    /// Takes rows once no more than half of the bound is taken and they fit; `false` if `is_off`
    /// says so before.
    pub(super) fn push(
        &self,
        rows: Rows,
        origin: Origin,
        is_off: impl Fn() -> bool,
    ) -> Result<bool, WriterError> {
        let amount = rows.amount();
        let mut state = self.lock();
        state.check()?;
        if rows.is_empty() {
            return Ok(true);
        }
        let half = self.bound.part(2);
        let may = |state: &State| state.held.is_within(half) && state.has_room(amount, self.bound);
        if !may(&state) {
            self.counts.blocked.fetch_add(1, Ordering::Relaxed);
        }
        while !may(&state) {
            if is_off() {
                return Ok(false);
            }
            (state, _) = self
                .room
                .wait_timeout(state, ASK_EVERY)
                .unwrap_or_else(PoisonError::into_inner);
            state.check()?;
        }
        state.accept(rows, amount, origin);
        drop(state);
        self.wake.notify_one();
        Ok(true)
    }

    /// All rows up to `epoch` have been taken.
    pub(super) fn mark(&self, epoch: Epoch) -> Result<(), WriterError> {
        let mut state = self.lock();
        state.check()?;
        if state.last_mark.is_some_and(|last| epoch <= last) {
            return Ok(());
        }
        state.last_mark = Some(epoch);
        let before = state.next_parcel;
        match state.marks.back_mut() {
            // Nothing was sent in between: the later epoch says all.
            Some(last) if last.1 == before => last.0 = epoch,
            _ => state.marks.push_back((epoch, before)),
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn stored_epoch(&self) -> Option<Epoch> {
        self.lock().stored_epoch
    }

    /// How many parcels have been sent, and how many of them, from the first on, are stored.
    pub(super) fn parcels(&self) -> (u64, u64) {
        let state = self.lock();
        (state.next_parcel, state.stored_before)
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.lock().waiting_since
    }

    /// What was sent since the last call, and when to stop.
    pub(super) fn take_inbox(&self) -> (Vec<Parcel>, Option<Instant>) {
        let mut state = self.lock();
        (std::mem::take(&mut state.inbox), state.stop_by)
    }

    /// Rows that their table has leave memory.
    pub(super) fn release(&self, table: Table, amount: Amount) {
        self.counts.stored[table as usize].fetch_add(amount.rows as u64, Ordering::Relaxed);
        self.lock().held -= amount;
        self.room.notify_all();
    }

    /// All parcels before `oldest` are stored (`None`: all that were taken from the inbox).
    pub(super) fn settle(&self, oldest: Option<Waiting>) {
        let mut state = self.lock();
        let oldest = oldest.or_else(|| {
            let first = state.inbox.first()?;
            Some((first.number, first.at))
        });
        state.waiting_since = oldest.map(|(_, at)| at);
        let stored_before = oldest.map_or(state.next_parcel, |(number, _)| number);
        state.stored_before = stored_before;
        while let Some(&(epoch, before)) = state.marks.front()
            && before <= stored_before
        {
            state.stored_epoch = Some(epoch);
            state.marks.pop_front();
        }
    }

    /// The thread writes out what it has and ends, at the latest then.
    pub(super) fn stop_by(&self, deadline: Instant) {
        self.lock().stop_by = Some(deadline);
        self.wake.notify_one();
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

    /// A try failed.
    pub(super) fn failed(&self, error: &str) {
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
        self.lock().last_error = Some(error.to_owned());
    }

    pub(super) fn stats(&self) -> Stats {
        let stored = |table: Table| self.counts.stored[table as usize].load(Ordering::Relaxed);
        let state = self.lock();
        Stats {
            locations_stored: stored(Table::DriverLocations),
            events_stored: stored(Table::Events),
            rejected_stored: stored(Table::RejectedUpdates),
            windows_stored: stored(Table::CellMinutes)
                + stored(Table::DriverMinutes)
                + stored(Table::DriverSessions),
            buffered_rows: state.held.rows,
            buffered_bytes: state.held.bytes,
            batches: self.counts.batches.load(Ordering::Relaxed),
            retries: self.counts.retries.load(Ordering::Relaxed),
            reconciled: self.counts.reconciled.load(Ordering::Relaxed),
            blocked: self.counts.blocked.load(Ordering::Relaxed),
            last_error: state.last_error.clone(),
            stored_epoch: state.stored_epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pipeline;
    use crate::model::{DriverId, DriverWindow};

    fn rows(count: usize) -> Rows {
        let row = DriverWindow {
            driver: DriverId(1),
            start_ms: 0,
            updates: 1,
            distance_m: 0.0,
            max_speed_mps: None,
            version: Epoch(1),
        };
        Rows::Drivers(vec![row; count])
    }

    #[test]
    fn who_waits_for_room_in_vain_can_be_called_off() {
        let mut options = Options::of(&Pipeline::defaults("p"), 1);
        options.max_buffered_rows = 10;
        let shared = Shared::new(&options);
        assert_eq!(shared.push(rows(6), Origin::Doubtful, || true), Ok(true));
        let asked = std::cell::Cell::new(0);
        let is_off = || asked.replace(asked.get() + 1) == 2;
        assert_eq!(shared.push(rows(1), Origin::Doubtful, is_off), Ok(false));
        assert_eq!(asked.get(), 3);
        assert_eq!(shared.parcels().0, 1);
    }
}

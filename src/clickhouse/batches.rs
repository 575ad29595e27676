//! The writer's thread: buffers per table, and when a batch is cut from one.
//!
//! Owns the buffers. A batch is cut at `batch_rows` rows or when its first row has waited
//! `batch_ms`, if an insert of that table may start. When inserts are slower than rows come,
//! or the server has too many parts, batches grow up to [`WIDEST`] instead of multiplying.
//! A cut is split by ClickHouse partition, so that one insert is one part: all or nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::insert::{Context, store};
use super::reconcile::Ask;
use super::rows::{EventRow, LocationRow, Months, Record, RejectedRow};
use super::spill::Spill;
use super::writer::{Observer, Options, Parcel, Rows, Shared, Table};
use crate::model::{CellWindow, DriverWindow, SessionWindow};

/// Inserts of one table that run at the same time.
const IN_FLIGHT: usize = 4;
/// A table with more full batches waiting than this is behind, and its batches grow.
const BEHIND: usize = 8;
/// No batch is larger, unless `batch_rows` is. Well under ClickHouse's block of 1,048,449.
const WIDEST: usize = 200_000;
/// How long a table sends large batches after it had too many parts.
const WIDE_FOR: Duration = Duration::from_secs(60);
/// How long a batch waits to become large meanwhile.
const WIDE_AGE: Duration = Duration::from_secs(5);

/// Runs until it is told to stop and has stored everything, or its deadline passes.
pub(super) async fn run(options: Options, shared: Arc<Shared>, observer: Option<Observer>) {
    let (done, mut finished) = mpsc::unbounded_channel();
    let limits = Limits {
        rows: options.batch_rows.max(1),
        age: Duration::from_millis(options.batch_ms),
        share: shared.share(),
    };
    let mut spill = Spill::new(options.spill.clone(), shared.share());
    let context = Arc::new(Context::new(options, shared.clone(), observer, done));
    let mut tables = Tables::default();
    let mut running = Running::default();
    loop {
        let (parcels, stop_by) = shared.take_inbox();
        parcels.into_iter().for_each(|parcel| tables.take(parcel));

        let now = Instant::now();
        let stop_by = stop_by.map(Instant::from_std);
        tables.cut(&context, &limits, now, stop_by.is_some(), &mut running);
        tables.spill(&mut spill, &shared, now);
        if let Err(error) = tables.unspill(&mut spill, &shared) {
            shared.end(&format!("could not read rows back from disk: {error}"));
            return;
        }
        let waiting = tables.oldest().into_iter().chain(spill.oldest()).min();
        shared.settle(waiting.into_iter().chain(running.oldest()).min());

        if let Some(stop_by) = stop_by
            && (stop_by <= now || (waiting.is_none() && running.is_empty()))
        {
            return;
        }
        let next = tables
            .next_due(&limits, now)
            .into_iter()
            .chain(stop_by)
            .min();
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(end) = finished.recv() => {
                running.end(&end);
                if end.too_many_parts {
                    tables.widen(end.cut.buffer, Instant::now() + WIDE_FOR);
                }
            }
            () = sleep_until(next) => {}
        }
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// When a batch is cut, and how large it is.
struct Limits {
    rows: usize,
    age: Duration,
    /// No cut is larger than this sixteenth of the memory, and none begins while the inserts
    /// of its table hold as much. So inserts hold 6/16 at most: when half of the memory is
    /// taken there is something to move to disk, and no table can starve another.
    share: Amount,
}

/// Rows, and what they cost in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) rows: usize,
    pub(super) cost: usize,
}

impl Amount {
    pub(super) fn of<R: Record>(rows: &[R]) -> Self {
        Self {
            rows: rows.len(),
            cost: rows.iter().map(R::cost).sum(),
        }
    }

    /// Whether both are less.
    fn is_below(self, other: Self) -> bool {
        self.rows < other.rows && self.cost < other.cost
    }
}

/// How many rows of an iterator are within an amount; one at least, if there is one.
fn fitting<'a, R: Record>(rows: impl Iterator<Item = &'a R>, within: Amount) -> usize {
    let mut cost = 0;
    let mut rows = rows.take(within.rows.max(1)).peekable();
    let any = rows.peek().is_some();
    let count = rows
        .take_while(|row| {
            cost += row.cost();
            cost <= within.cost
        })
        .count();
    count.max(usize::from(any))
}

/// A buffer's index: table × (sure, doubtful).
pub(super) type BufferId = usize;

/// Which rows are being stored.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Their buffer.
    buffer: BufferId,
    /// The oldest parcel among them.
    parcel: u64,
    amount: Amount,
}

/// A cut has been stored, or has met too many parts and goes on.
pub(super) struct End {
    /// The cut.
    pub(super) cut: Cut,
    /// The server had too many parts.
    pub(super) too_many_parts: bool,
    /// Whether it is stored.
    pub(super) stored: bool,
}

/// Cuts that are being stored.
#[derive(Default)]
struct Running {
    /// By oldest parcel, how many.
    parcels: BTreeMap<u64, usize>,
    of_buffer: [usize; BUFFERS],
    of_table: [Amount; BUFFERS / 2],
}

impl Running {
    fn may_begin(&self, buffer: BufferId, limits: &Limits) -> bool {
        self.of_buffer[buffer] < IN_FLIGHT && self.of_table[buffer / 2].is_below(limits.share)
    }

    fn begin(&mut self, cut: Cut) {
        self.of_buffer[cut.buffer] += 1;
        let table = &mut self.of_table[cut.buffer / 2];
        table.rows += cut.amount.rows;
        table.cost += cut.amount.cost;
        *self.parcels.entry(cut.parcel).or_default() += 1;
    }

    fn end(&mut self, end: &End) {
        if !end.stored {
            return;
        }
        let cut = end.cut;
        self.of_buffer[cut.buffer] -= 1;
        let table = &mut self.of_table[cut.buffer / 2];
        table.rows -= cut.amount.rows;
        table.cost -= cut.amount.cost;
        if let Some(count) = self.parcels.get_mut(&cut.parcel) {
            *count -= 1;
            if *count == 0 {
                self.parcels.remove(&cut.parcel);
            }
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.parcels.keys().next().copied()
    }

    fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }
}

/// Rows of one table that wait, oldest first.
pub(super) struct Buffer<R> {
    rows: VecDeque<R>,
    /// Parcel, rows of it that wait, when it was sent.
    parcels: VecDeque<(u64, usize, Instant)>,
    wide_until: Option<Instant>,
}

impl<R> Default for Buffer<R> {
    fn default() -> Self {
        Self {
            rows: VecDeque::new(),
            parcels: VecDeque::new(),
            wide_until: None,
        }
    }
}

impl<R> Buffer<R> {
    fn take<T>(&mut self, parcel: u64, at: Instant, rows: Vec<T>)
    where
        R: From<T>,
    {
        self.parcels.push_back((parcel, rows.len(), at));
        self.rows.extend(rows.into_iter().map(R::from));
    }

    /// Up to which row and from when on a batch may be cut, by the limits of this moment.
    fn limits(&self, limits: &Limits, now: Instant) -> (usize, Duration) {
        let most = limits.share.rows.max(1);
        let (usual, widest) = (limits.rows.min(most), WIDEST.max(limits.rows).min(most));
        if self.wide_until.is_some_and(|until| now < until) {
            (widest, WIDE_AGE.max(limits.age))
        } else if self.rows.len() > BEHIND * usual {
            (widest, limits.age)
        } else {
            (usual, limits.age)
        }
    }

    fn due_at(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let (rows, age) = self.limits(limits, now);
        let &(_, _, first_at) = self.parcels.front()?;
        Some(if self.rows.len() >= rows {
            now
        } else {
            first_at + age
        })
    }

    /// A batch and its oldest parcel, if one is due.
    fn cut(&mut self, limits: &Limits, now: Instant, stopping: bool) -> Option<(Vec<R>, u64)>
    where
        R: Record,
    {
        let due = self.due_at(limits, now)?;
        if due > now && !stopping {
            return None;
        }
        let (rows, _) = self.limits(limits, now);
        let count = fitting(
            self.rows.iter(),
            Amount {
                rows,
                ..limits.share
            },
        );
        let batch = self.rows.drain(..count).collect();
        if self.rows.is_empty() && self.rows.capacity() > WIDEST {
            // What an outage needed is not kept.
            self.rows = VecDeque::new();
        }
        let (mut left, mut parcel) = (count, u64::MAX);
        while left > 0
            && let Some(first) = self.parcels.front_mut()
        {
            parcel = parcel.min(first.0);
            let taken = left.min(first.1);
            first.1 -= taken;
            left -= taken;
            if first.1 == 0 {
                self.parcels.pop_front();
            }
        }
        Some((batch, parcel))
    }

    /// The least parcel; rows that were on disk come after newer ones.
    fn oldest(&self) -> Option<u64> {
        self.parcels.iter().map(|waiting| waiting.0).min()
    }

    /// Up to so many rows from the end, their oldest parcel and when it was sent.
    pub(super) fn take_newest(&mut self, most: Amount) -> Option<(Vec<R>, u64, Instant)>
    where
        R: Record,
    {
        let count = fitting(self.rows.iter().rev(), most);
        let taken = self.rows.drain(self.rows.len() - count..).collect();
        let (mut left, mut oldest) = (count, None::<(u64, Instant)>);
        while left > 0
            && let Some(last) = self.parcels.back_mut()
        {
            let from = left.min(last.1);
            last.1 -= from;
            left -= from;
            oldest = oldest.into_iter().chain([(last.0, last.2)]).min();
            if last.1 == 0 {
                self.parcels.pop_back();
            }
        }
        oldest.map(|(parcel, at)| (taken, parcel, at))
    }

    /// Rows that wait again.
    pub(super) fn put_back(&mut self, rows: Vec<R>, parcel: u64, at: Instant) {
        self.parcels.push_back((parcel, rows.len(), at));
        self.rows.extend(rows);
    }
}

const BUFFERS: usize = 2 * Table::ALL.len();

/// All buffers: per table one for new rows and one for those that may be stored already.
#[derive(Default)]
struct Tables {
    events: [Buffer<EventRow>; 2],
    rejected: [Buffer<RejectedRow>; 2],
    cells: [Buffer<CellWindow>; 2],
    drivers: [Buffer<DriverWindow>; 2],
    sessions: [Buffer<SessionWindow>; 2],
    locations: [Buffer<LocationRow>; 2],
}

/// The same for each buffer, in the order in which they are drained.
macro_rules! each {
    ($self:ident, |$id:ident, $buffer:ident| $body:expr) => {{
        let mut $id: BufferId = 0;
        for $buffer in &mut $self.events {
            $body;
            $id += 1;
        }
        for $buffer in &mut $self.rejected {
            $body;
            $id += 1;
        }
        for $buffer in &mut $self.cells {
            $body;
            $id += 1;
        }
        for $buffer in &mut $self.drivers {
            $body;
            $id += 1;
        }
        for $buffer in &mut $self.sessions {
            $body;
            $id += 1;
        }
        for $buffer in &mut $self.locations {
            $body;
            $id += 1;
        }
        debug_assert_eq!($id, BUFFERS);
    }};
}

impl Tables {
    fn take(&mut self, parcel: Parcel) {
        let Parcel {
            number,
            rows,
            doubtful,
            at,
        } = parcel;
        let (at, kind) = (Instant::from_std(at), usize::from(doubtful));
        match rows {
            Rows::Locations(rows) => self.locations[kind].take(number, at, rows),
            Rows::Events(rows) => self.events[kind].take(number, at, rows),
            Rows::Rejected(rows) => self.rejected[kind].take(number, at, rows),
            Rows::Cells(rows) => self.cells[kind].take(number, at, rows),
            Rows::Drivers(rows) => self.drivers[kind].take(number, at, rows),
            Rows::Sessions(rows) => self.sessions[kind].take(number, at, rows),
        }
    }

    fn cut(
        &mut self,
        context: &Arc<Context>,
        limits: &Limits,
        now: Instant,
        stopping: bool,
        running: &mut Running,
    ) {
        each!(self, |id, buffer| {
            while running.may_begin(id, limits)
                && let Some((rows, parcel)) = buffer.cut(limits, now, stopping)
            {
                let amount = Amount::of(&rows);
                let cut = Cut {
                    buffer: id,
                    parcel,
                    amount,
                };
                running.begin(cut);
                let doubtful = id % 2 == 1;
                tokio::spawn(store(context.clone(), cut, by_partition(rows), doubtful));
            }
        });
    }

    fn oldest(&mut self) -> Option<u64> {
        let mut oldest = None;
        each!(self, |id, buffer| oldest =
            oldest.into_iter().chain(buffer.oldest()).min());
        oldest
    }

    fn next_due(&mut self, limits: &Limits, now: Instant) -> Option<Instant> {
        let mut next = None;
        // What is due but waits for an insert to end is woken by that end.
        each!(self, |id, buffer| next = next
            .into_iter()
            .chain(buffer.due_at(limits, now).filter(|due| *due > now))
            .min());
        next
    }

    /// Moves rows to disk, the newest of the largest buffer first, while memory is short.
    fn spill(&mut self, spill: &mut Spill, shared: &Shared, now: Instant) {
        while shared.is_crowded() && spill.is_open(now) {
            let (mut most, mut largest) = (0, None);
            each!(self, |id, buffer| if buffer.rows.len() > most {
                (most, largest) = (buffer.rows.len(), Some(id));
            });
            // All that is left is being inserted.
            let Some(largest) = largest else { return };
            each!(self, |id, buffer| if id == largest {
                spill.put(id, buffer, shared);
            });
        }
    }

    /// Moves rows back, the oldest first, while memory is free.
    fn unspill(&mut self, spill: &mut Spill, shared: &Shared) -> std::io::Result<()> {
        while shared.is_roomy()
            && let Some(next) = spill.next()
        {
            each!(self, |id, buffer| if id == next {
                spill.take(buffer, shared)?;
            });
        }
        Ok(())
    }

    fn widen(&mut self, which: BufferId, until: Instant) {
        each!(self, |id, buffer| if id == which {
            buffer.wide_until = Some(until);
        });
    }
}

/// The batch, one part for each ClickHouse partition.
fn by_partition<R: Ask>(rows: Vec<R>) -> Vec<Vec<R>> {
    let mut months = Months::new();
    let mut parts: BTreeMap<u32, Vec<R>> = BTreeMap::new();
    let mut rest = rows.into_iter();
    let Some(first) = rest.next() else {
        return Vec::new();
    };
    let mut current = first.partition(&mut months);
    let mut part = Vec::with_capacity(rest.len() + 1);
    part.push(first);
    // Nearly always all rows are of one month: then this is one vector and no look-up.
    for row in rest {
        let partition = row.partition(&mut months);
        if partition != current {
            parts.entry(current).or_default().append(&mut part);
            current = partition;
        }
        part.push(row);
    }
    parts.entry(current).or_default().append(&mut part);
    parts.into_values().collect()
}

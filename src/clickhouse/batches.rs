//! The writer's thread: buffers per table, and when a batch is cut from one.
//!
//! Owns the buffers. A batch is cut at `batch_rows` rows or when its first row has waited
//! `batch_ms`, if an insert of that table may start. When inserts are slower than rows come,
//! or the server has too many parts, batches grow up to [`WIDEST`] instead of multiplying.
//! A cut is split by ClickHouse partition, so that one insert is one part: all or nothing.
//!
//! Rows stay in the allocation that they were sent in until they are stored: a batch is made of
//! whole parcels, and copies only where it splits one. So what an outage piles up takes what
//! its rows take, once, and is given back with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::insert::{Context, store};
use super::parcel::{Origin, Parcel, Rows, Table};
use super::reconcile::Ask;
use super::rows::{EventRow, Months, Record, RejectedRow};
use super::shared::{Shared, Waiting};
use super::writer::{Observer, Options};
use crate::model::{CellWindow, DriverWindow, Location, SessionWindow};

/// Inserts of one buffer that run at the same time.
const IN_FLIGHT: usize = 4;
/// A table with more full batches waiting than this is behind, and its batches grow.
const BEHIND: usize = 8;
/// No batch is larger, unless `batch_rows` is. Well under ClickHouse's block of 1,048,449.
const WIDEST: usize = 200_000;
/// Nor has a batch more bytes than this, unless one row has: the server holds all of it.
const WIDEST_BYTES: usize = 64 << 20;
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
    };
    let context = Arc::new(Context::new(options, shared.clone(), observer, done));
    let mut tables = Tables::default();
    let mut running = Running::default();
    loop {
        let (parcels, stop_by) = shared.take_inbox();
        parcels.into_iter().for_each(|parcel| tables.take(parcel));

        let now = Instant::now();
        let stop_by = stop_by.map(Instant::from_std);
        tables.cut(&context, &limits, now, stop_by.is_some(), &mut running);
        let waiting = tables.oldest();
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
}

/// A buffer's index: table × (new, doubtful).
pub(super) type BufferId = usize;

/// Which rows are being stored.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Their buffer.
    buffer: BufferId,
    /// The oldest parcel among them.
    oldest: Waiting,
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
    parcels: BTreeMap<Waiting, usize>,
    of_buffer: [usize; BUFFERS],
}

impl Running {
    fn may_begin(&self, buffer: BufferId) -> bool {
        self.of_buffer[buffer] < IN_FLIGHT
    }

    fn begin(&mut self, cut: Cut) {
        self.of_buffer[cut.buffer] += 1;
        *self.parcels.entry(cut.oldest).or_default() += 1;
    }

    fn end(&mut self, end: &End) {
        if !end.stored {
            return;
        }
        self.of_buffer[end.cut.buffer] -= 1;
        if let Some(count) = self.parcels.get_mut(&end.cut.oldest) {
            *count -= 1;
            if *count == 0 {
                self.parcels.remove(&end.cut.oldest);
            }
        }
    }

    fn oldest(&self) -> Option<Waiting> {
        self.parcels.keys().next().copied()
    }

    fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }
}

/// Rows of one table that wait, oldest first.
struct Buffer<R> {
    parcels: VecDeque<Pile<R>>,
    rows: usize,
    wide_until: Option<Instant>,
}

/// What is left of one parcel.
struct Pile<R> {
    sent: Waiting,
    rows: std::vec::IntoIter<R>,
}

impl<R> Default for Buffer<R> {
    fn default() -> Self {
        Self {
            parcels: VecDeque::new(),
            rows: 0,
            wide_until: None,
        }
    }
}

impl<R: Record> Buffer<R> {
    fn take(&mut self, sent: Waiting, mut rows: Vec<R>) {
        // It has the sender's room, which is not counted.
        rows.shrink_to_fit();
        self.rows += rows.len();
        self.parcels.push_back(Pile {
            sent,
            rows: rows.into_iter(),
        });
    }

    /// Up to which row and from when on a batch may be cut, by the limits of this moment.
    fn limits(&self, limits: &Limits, now: Instant) -> (usize, Duration) {
        let widest = WIDEST.max(limits.rows);
        if self.wide_until.is_some_and(|until| now < until) {
            (widest, WIDE_AGE.max(limits.age))
        } else if self.rows > BEHIND * limits.rows {
            (widest, limits.age)
        } else {
            (limits.rows, limits.age)
        }
    }

    fn due_at(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let (rows, age) = self.limits(limits, now);
        let (_, first_at) = self.oldest()?;
        Some(if self.rows >= rows {
            now
        } else {
            Instant::from_std(first_at) + age
        })
    }

    /// A batch and its oldest parcel, if one is due.
    fn cut(
        &mut self,
        limits: &Limits,
        now: Instant,
        stopping: bool,
    ) -> Option<(Vec<Vec<R>>, Waiting)> {
        let (due, oldest) = (self.due_at(limits, now)?, self.oldest()?);
        if due > now && !stopping {
            return None;
        }
        let (most, _) = self.limits(limits, now);
        let (mut batch, mut count, mut bytes) = (Vec::new(), 0, 0);
        while let Some(mut first) = self.parcels.pop_front() {
            let rows = first.rows.as_slice();
            let fitting = rows
                .iter()
                .enumerate()
                .take(most - count)
                .take_while(|(at, row)| {
                    bytes += row.cost();
                    bytes <= WIDEST_BYTES || count + at == 0
                })
                .count();
            count += fitting;
            if fitting == rows.len() {
                batch.push(first.rows.collect());
                continue;
            }
            if fitting > 0 {
                batch.push(first.rows.by_ref().take(fitting).collect());
            }
            self.parcels.push_front(first);
            break;
        }
        self.rows -= count;
        Some((batch, oldest))
    }

    fn oldest(&self) -> Option<Waiting> {
        Some(self.parcels.front()?.sent)
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
    locations: [Buffer<Location>; 2],
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
            origin,
            at,
        } = parcel;
        let (sent, kind) = ((number, at), usize::from(origin == Origin::Doubtful));
        match rows {
            Rows::Locations(rows) => self.locations[kind].take(sent, rows),
            Rows::Events(rows) => self.events[kind].take(sent, converted(rows)),
            Rows::Rejected(rows) => self.rejected[kind].take(sent, converted(rows)),
            Rows::Cells(rows) => self.cells[kind].take(sent, rows),
            Rows::Drivers(rows) => self.drivers[kind].take(sent, rows),
            Rows::Sessions(rows) => self.sessions[kind].take(sent, rows),
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
            while running.may_begin(id)
                && let Some((rows, oldest)) = buffer.cut(limits, now, stopping)
            {
                let cut = Cut { buffer: id, oldest };
                running.begin(cut);
                let doubtful = id % 2 == 1;
                tokio::spawn(store(context.clone(), cut, by_partition(rows), doubtful));
            }
        });
    }

    fn oldest(&mut self) -> Option<Waiting> {
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

    fn widen(&mut self, which: BufferId, until: Instant) {
        each!(self, |id, buffer| if id == which {
            buffer.wide_until = Some(until);
        });
    }
}

fn converted<T, R: From<T>>(rows: Vec<T>) -> Vec<R> {
    rows.into_iter().map(R::from).collect()
}

/// The batch, one part for each ClickHouse partition.
fn by_partition<R: Ask>(batch: Vec<Vec<R>>) -> Vec<Vec<Vec<R>>> {
    let mut months = Months::new();
    let mut parts: BTreeMap<u32, Vec<Vec<R>>> = BTreeMap::new();
    for rows in batch {
        let Some(first) = rows.first() else { continue };
        let partition = first.partition(&mut months);
        if rows
            .iter()
            .all(|row| row.partition(&mut months) == partition)
        {
            // As nearly always: then nothing is copied.
            parts.entry(partition).or_default().push(rows);
            continue;
        }
        let mut split: BTreeMap<u32, Vec<R>> = BTreeMap::new();
        for row in rows {
            let partition = row.partition(&mut months);
            split.entry(partition).or_default().push(row);
        }
        for (partition, rows) in split {
            parts.entry(partition).or_default().push(rows);
        }
    }
    parts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant as StdInstant;

    use super::*;
    use crate::model::{DriverId, Epoch, TimeMs};

    fn rows(starts: impl Iterator<Item = TimeMs>) -> Vec<DriverWindow> {
        let row = |start_ms| DriverWindow {
            driver: DriverId(1),
            start_ms,
            updates: 1,
            distance_m: 0.0,
            max_speed_mps: None,
            version: Epoch(1),
        };
        starts.map(row).collect()
    }

    fn starts(batch: &[Vec<DriverWindow>]) -> Vec<Vec<TimeMs>> {
        let of = |rows: &Vec<DriverWindow>| rows.iter().map(|row| row.start_ms).collect();
        batch.iter().map(of).collect()
    }

    #[test]
    fn a_batch_is_whole_parcels_and_at_most_one_split() {
        let limits = Limits {
            rows: 5,
            age: Duration::ZERO,
        };
        let mut buffer = Buffer::<DriverWindow>::default();
        let at = StdInstant::now();
        buffer.take((7, at), rows(0..2));
        buffer.take((8, at), rows(2..9));
        buffer.take((9, at), rows(9..10));
        let mut cut = || buffer.cut(&limits, Instant::now(), true);
        let (batch, oldest) = cut().unwrap();
        assert_eq!(
            (starts(&batch), oldest.0),
            (vec![vec![0, 1], vec![2, 3, 4]], 7)
        );
        let (batch, oldest) = cut().unwrap();
        assert_eq!(
            (starts(&batch), oldest.0),
            (vec![vec![5, 6, 7, 8], vec![9]], 8)
        );
        assert!(cut().is_none());
        assert_eq!((buffer.rows, buffer.oldest()), (0, None));
    }

    #[test]
    fn a_batch_has_one_part_a_month() {
        const DAY: TimeMs = 86_400_000;
        let batch = vec![
            rows((0..2).map(|day| day * DAY)),
            rows((29..33).map(|day| day * DAY)),
            rows((40..42).map(|day| day * DAY)),
            rows(0..0),
        ];
        let days: Vec<_> = by_partition(batch)
            .iter()
            .map(|part| starts(part))
            .collect();
        let days: Vec<Vec<Vec<_>>> = days
            .iter()
            .map(|part| {
                part.iter()
                    .map(|rows| rows.iter().map(|at| at / DAY).collect())
                    .collect()
            })
            .collect();
        assert_eq!(
            days,
            [
                vec![vec![0, 1], vec![29, 30]],
                vec![vec![31, 32], vec![40, 41]]
            ]
        );
    }
}

//! Tells the traffic of cells, and saves it.
//!
//! Of a key group that is saved whole, the trace is read as of the mark's epoch, some keys in
//! each activation; later epochs wait meanwhile, and the trace keeps that epoch apart from
//! later ones for as long. Of other groups only what was told since the last mark, or is still
//! to be told, is saved: nothing else has changed.

use std::rc::Rc;

use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::{Cursor, TraceReader};
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::cell_minutes::{CellKey, Sum, Trace, Traffic};
use super::grid::Grid;
use super::{Refresh, keep_from, owned_groups};
use crate::dataflow::marks::Marks;
use crate::dataflow::{Context, Output, frontier_of};
use crate::epoch::key_group;
use crate::model::{CellWindow, Epoch, TimeMs, WindowRows};
use crate::snapshot::{Kind, Mark, Part, Parts};

/// Keys that are read in one activation: some milliseconds. Tests are to see many.
const SAVE_KEYS: usize = if cfg!(test) { 7 } else { 16_384 };

/// A cell's traffic in a snapshot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SavedCell {
    pub(super) key: CellKey,
    pub(super) traffic: Traffic,
    /// Not told since it changed.
    pub(super) untold: bool,
}

/// The key group of a window: all its cells are in one.
fn group_of(start_ms: TimeMs) -> u64 {
    key_group(&start_ms.to_le_bytes())
}

/// Windows that begin before this time had passed the horizon, and had been told, some time
/// before an epoch: a snapshot may have them as they once were, and they count no more.
pub(super) fn forgotten_before_ms(epoch: Epoch, grid: &Grid, refresh: Refresh) -> TimeMs {
    let before = epoch.0.saturating_sub(2 * refresh.epochs());
    grid.expired_before_ms(grid.now_ms(Epoch(before)))
}

/// Tells the traffic of cells that has changed, each at most once in a refresh, and saves it at
/// marks. Of what was restored, with the epoch that it is of, only the keys given are untold.
pub(super) fn tell_cells<'scope>(
    counts: StreamVec<'scope, u64, Sum>,
    mut trace: Trace,
    marks: StreamVec<'scope, u64, Mark>,
    restored: Option<(Epoch, StreamVec<'scope, u64, CellKey>)>,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
) -> StreamVec<'scope, u64, Part> {
    let scope = counts.scope();
    let owned = owned_groups(scope);
    let mut builder = OperatorBuilder::new("tell_cells".to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let mut counts = builder.new_input(counts, Pipeline);
    let mut marks = builder.new_input(marks, Pipeline);
    let (restored, mut untold) = match restored {
        None => (None, None),
        Some((epoch, untold)) => (Some(epoch), Some(builder.new_input(untold, Pipeline))),
    };
    let (output, parts) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Part>>>::from(output);

    // It is always read to its end: any batches may be merged.
    trace.set_physical_compaction(AntichainRef::new(&[]));
    builder.build(move |capabilities| {
        // Held until what is due has been told: others take what the frontier has passed for
        // told.
        let mut untold_from = capabilities.into_iter().next();
        let mut telling = Telling {
            waiting: Vec::new(),
            changed: HashMap::new(),
            told: HashMap::new(),
            is_saved: true,
            forgotten_before_ms: TimeMs::MIN,
            through: 0,
            done: None,
            restored: restored.map(|epoch| Restored {
                through: epoch.0,
                untold: HashSet::new(),
                is_complete: false,
            }),
            grid,
            refresh,
            context,
        };
        let mut waiting_marks = Marks::default();
        let mut saving: Option<(Capability<u64>, Saving)> = None;
        move |frontiers| {
            if let Some(restored) = &mut telling.restored
                && let Some(untold) = &mut untold
            {
                untold.for_each(|_capability, keys| restored.untold.extend(keys.drain(..)));
                let frontier = frontier_of(&frontiers[2]);
                restored.is_complete = frontier.is_none_or(|next| restored.through < next);
            }
            counts.for_each(|_capability, counts| telling.take(counts.drain(..)));
            marks.for_each(|capability, marks| waiting_marks.take(&capability, 0, marks));

            telling.is_saved = frontier_of(&frontiers[1]).is_some();
            let complete = frontiers.iter().filter_map(frontier_of).min();
            loop {
                if let Some((_, under_way)) = &mut saving
                    && !under_way.read_whole(&mut trace, &telling, SAVE_KEYS)
                {
                    activator.activate();
                    return;
                }
                if let Some((capability, saved)) = saving.take() {
                    let parts = saved.finish(&mut telling, &owned);
                    output
                        .activate()
                        .session(&capability)
                        .give_iterator(parts.into_iter());
                }
                // A later mark can't come before `complete`, and times up to this one need
                // not be told apart.
                let next = waiting_marks.first().into_iter().chain(complete).min();
                if let Some(next) = next {
                    trace.set_logical_compaction(AntichainRef::new(&[next]));
                }
                let Some((capability, mark)) = waiting_marks.next(complete) else {
                    telling.advance(complete.unwrap_or_else(|| telling.last_waiting() + 1));
                    keep_from(&mut untold_from, complete);
                    return;
                };
                telling.advance(*capability.time() + 1);
                let saved = Saving::new(*capability.time(), mark);
                saving = Some((capability, saved));
            }
        }
    });
    parts
}

/// What is to be told of cells.
struct Telling {
    /// By epoch, not in order.
    waiting: Vec<(u64, CellKey, Traffic)>,
    changed: HashMap<CellKey, Traffic>,
    /// What was told and has not been saved since.
    told: HashMap<CellKey, Traffic>,
    /// Whether marks may still come.
    is_saved: bool,
    /// Windows that begin before this time have left `told`.
    forgotten_before_ms: TimeMs,
    /// The newest epoch in `changed`.
    through: u64,
    /// The newest epoch that is complete.
    done: Option<u64>,
    restored: Option<Restored>,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
}

/// What a restored trace begins with.
struct Restored {
    /// Traffic up to this epoch was restored.
    through: u64,
    /// What of it is still to be told.
    untold: HashSet<CellKey>,
    is_complete: bool,
}

impl Telling {
    /// Whether a count was told before the restart. While not all untold keys are known, what
    /// may be one of them counts as one.
    fn is_told(restored: Option<&Restored>, epoch: u64, key: &CellKey) -> bool {
        restored.is_some_and(|restored| {
            epoch <= restored.through && restored.is_complete && !restored.untold.contains(key)
        })
    }

    fn take(&mut self, counts: impl Iterator<Item = Sum>) {
        // What a count was before does not matter: the new one replaces it, and a window that
        // has expired is told no more.
        let restored = self.restored.as_ref();
        let new = counts
            .filter(|((key, _), epoch, diff)| *diff > 0 && !Self::is_told(restored, *epoch, key));
        self.waiting
            .extend(new.map(|((key, traffic), epoch, _)| (epoch, key, traffic)));
    }

    fn last_waiting(&self) -> u64 {
        let waiting = self.waiting.iter().map(|(epoch, ..)| *epoch);
        waiting.max().unwrap_or(self.through)
    }

    fn advance(&mut self, frontier: u64) {
        self.waiting
            .sort_unstable_by_key(|(epoch, key, _)| (*epoch, *key));
        let ready = self
            .waiting
            .partition_point(|(epoch, ..)| *epoch < frontier);
        let mut ready: Vec<_> = self.waiting.drain(..ready).collect();
        ready.reverse();
        while let Some(&(next, ..)) = ready.last() {
            // What was due before this epoch is told without it.
            self.finish(next);
            while let Some(&(epoch, key, traffic)) = ready.last()
                && epoch == next
            {
                if !Self::is_told(self.restored.as_ref(), epoch, &key) {
                    self.changed.insert(key, traffic);
                }
                ready.pop();
            }
            self.through = next;
            if let Some(restored) = &mut self.restored
                && restored.through < next
            {
                restored.untold = HashSet::new();
            }
        }
        self.finish(frontier);
    }

    /// All epochs before `next` are complete: tells what is due by then.
    fn finish(&mut self, next: u64) {
        let Some(complete) = next.checked_sub(1) else {
            return;
        };
        let due = self.refresh.due(self.through);
        if due <= complete {
            self.tell(due);
        }
        self.done = self.done.max(Some(complete));
    }

    /// Lets what no snapshot needs any more leave `told`, which else is emptied by marks alone.
    fn forget(&mut self, epoch: u64) {
        let before_ms = forgotten_before_ms(Epoch(epoch), &self.grid, self.refresh);
        if before_ms > self.forgotten_before_ms {
            self.forgotten_before_ms = before_ms;
            self.told.retain(|key, _| key.0 >= before_ms);
        }
    }

    fn tell(&mut self, version: u64) {
        if self.changed.is_empty() {
            return;
        }
        if self.is_saved {
            self.forget(version);
            self.told
                .extend(self.changed.iter().map(|(key, traffic)| (*key, *traffic)));
        }
        let grid = self.grid;
        let known = |key: &CellKey| grid.is_known(grid.pane(key.0));
        let mut cells: Vec<_> = self
            .changed
            .drain()
            .filter(|(key, _)| known(key))
            .map(|(CellKey(start_ms, cell), traffic)| CellWindow {
                cell,
                start_ms,
                drivers: traffic.drivers as u64,
                updates: traffic.updates as u64,
                mean_speed_mps: traffic.mean_speed_mps(),
                version: Epoch(version),
            })
            .collect();
        cells.sort_unstable_by_key(|row| (row.start_ms, row.cell));
        self.context
            .metrics
            .window_rows
            .add("cell_minutes", cells.len() as u64);
        self.context.give(Output::Windows {
            through: Epoch(self.through),
            rows: WindowRows {
                cells,
                ..WindowRows::default()
            },
        });
    }
}

/// How far the saving of cells has come.
struct Saving {
    epoch: u64,
    mark: Mark,
    parts: Parts,
    /// The next key to read.
    next: CellKey,
}

impl Saving {
    fn new(epoch: u64, mark: Mark) -> Self {
        Self {
            epoch,
            mark,
            parts: Parts::new(Kind::Cells, mark),
            next: CellKey(TimeMs::MIN, 0),
        }
    }

    /// Saves what was told of whole groups, some `limit` keys of it. Says whether these were
    /// the last.
    fn read_whole(&mut self, trace: &mut Trace, telling: &Telling, limit: usize) -> bool {
        let end = Antichain::new();
        let Some(batches) = trace.batches_through(end.borrow()) else {
            return true;
        };
        let (mut cursor, storage) = cursor_list(batches);
        cursor.seek_key(&storage, &self.next);
        for _ in 0..limit {
            let Some(&key) = cursor.get_key(&storage) else {
                return true;
            };
            let group = group_of(key.0);
            if !self.mark.is_whole(group) {
                let next_window = CellKey(key.0 + 1, 0);
                cursor.seek_key(&storage, &next_window);
                continue;
            }
            let mut traffic = Traffic::default();
            cursor.map_times(&storage, |time, change| {
                if *time <= self.epoch {
                    traffic.add(change);
                }
            });
            if traffic != Traffic::default() && !telling.changed.contains_key(&key) {
                self.add(key, traffic, false);
            }
            cursor.step_key(&storage);
        }
        match cursor.get_key(&storage) {
            Some(next) => self.next = *next,
            None => return true,
        }
        false
    }

    /// What was saved, with what is still to be told and with what of the other groups was
    /// told since they were saved; of whole groups, those that are `owned`.
    fn finish(mut self, telling: &mut Telling, owned: impl Fn(u64) -> bool) -> Vec<Part> {
        let Telling { changed, told, .. } = telling;
        for (key, traffic) in told.drain() {
            let group = group_of(key.0);
            if !self.mark.is_whole(group) && !changed.contains_key(&key) {
                self.add(key, traffic, false);
            }
        }
        for (&key, &traffic) in changed.iter() {
            self.add(key, traffic, true);
        }
        self.parts.finish(owned)
    }

    fn add(&mut self, key: CellKey, traffic: Traffic, untold: bool) {
        let saved = SavedCell {
            key,
            traffic,
            untold,
        };
        self.parts.add(group_of(key.0), &saved);
    }
}

/// A job that stops tells what it has: the next one would tell it again.
impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(done) = self.done {
            self.tell(done);
        }
    }
}

//! `cell_minutes`: traffic per H3 cell, in differential dataflow.
//!
//! ```text
//!            ┌───────────── what has passed the horizon, negated ◀── expire_cells
//!            ▼                                                            ▲
//!  traffic ─▶ arrange by (window, cell) ──────────────────────────────────┤
//!     ▲                                                                   ▼
//!  restore_cells ── untold ──────────▶ tell_cells ◀───────────────────── count
//!                                       ▼      ▼
//!                                    Output  parts of snapshots
//! ```
//!
//! The collection is the set of (window, cell) keys, and its *difference* is the traffic: four
//! sums, an Abelian group. So the arrangement is the state, `count` reads it, a late update is
//! one more difference, and so is a window that passes the horizon: its sum is negated, and the
//! arrangement forgets the key. Windows come first in the key's order, so what has passed the
//! horizon stands at the front of the trace.
//!
//! A snapshot of whole key groups is read off the trace as of its epoch, and one of changes is
//! what was told since the one before. Restored traffic is a difference like any other, at the
//! epoch that it is of.

use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use differential_dataflow::operators::CountTotal;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::implementations::KeySpine;
use differential_dataflow::trace::{Cursor, TraceReader};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Concat, ConnectLoop, Feedback};
use timely::progress::Antichain;

use super::Refresh;
use super::grid::Grid;
use super::restore_cells::RestoredCells;
use super::tell_cells::tell_cells;
use crate::dataflow::Context;
use crate::model::{Epoch, TimeMs};
use crate::snapshot::{Mark, Part};

/// A window's start, and an H3 cell.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(super) struct CellKey(pub(super) TimeMs, pub(super) u64);

/// What is summed over the updates of a cell and window.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(super) struct Traffic {
    pub(super) drivers: i64,
    pub(super) updates: i64,
    /// Updates whose speed is known.
    speeds: i64,
    /// The sum of their speeds in [`SPEED_UNITS`], so that it does not depend on the order.
    speed_sum: i128,
}

/// Units in 1 m/s: 2⁴⁰.
const SPEED_UNITS: f64 = 1_099_511_627_776.0;

impl Traffic {
    /// That of an update's speed alone.
    pub(super) fn of_speed(speed_mps: Option<f64>) -> Self {
        Self {
            speeds: i64::from(speed_mps.is_some()),
            speed_sum: speed_mps.map_or(0, |speed| (speed * SPEED_UNITS).round() as i128),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.drivers += other.drivers;
        self.updates += other.updates;
        self.speeds += other.speeds;
        self.speed_sum += other.speed_sum;
    }

    pub(super) fn remove(&mut self, other: &Self) {
        self.drivers -= other.drivers;
        self.updates -= other.updates;
        self.speeds -= other.speeds;
        self.speed_sum -= other.speed_sum;
    }

    pub(super) fn mean_speed_mps(&self) -> Option<f64> {
        (self.speeds > 0).then(|| self.speed_sum as f64 / SPEED_UNITS / self.speeds as f64)
    }
}

impl IsZero for Traffic {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Semigroup for Traffic {
    fn plus_equals(&mut self, rhs: &Self) {
        self.add(rhs);
    }
}

impl Monoid for Traffic {
    fn zero() -> Self {
        Self::default()
    }
}

impl Abelian for Traffic {
    fn negate(&mut self) {
        let mut negative = Self::default();
        negative.remove(self);
        *self = negative;
    }
}

/// A change of a cell's traffic, as differential dataflow has it.
pub(super) type Change = (CellKey, u64, Traffic);

/// A key's traffic, since when, and whether it is or was.
pub(super) type Sum = ((CellKey, Traffic), u64, isize);

pub(super) type Trace = TraceAgent<KeySpine<CellKey, u64, Traffic>>;

/// Sums traffic over all workers, on top of what is restored, and tells what has changed. The
/// parts of snapshots flow on; the stream's frontier says how far this is.
pub(super) fn cell_minutes<'scope>(
    traffic: StreamVec<'scope, u64, Change>,
    marks: StreamVec<'scope, u64, Mark>,
    restored: Option<RestoredCells<'scope>>,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
) -> StreamVec<'scope, u64, Part> {
    let (traffic, untold) = match restored {
        None => (traffic, None),
        Some(restored) => (
            traffic.concat(restored.traffic),
            Some((restored.epoch, restored.untold)),
        ),
    };
    let (counts, trace) = sum_cells(traffic, grid);
    tell_cells(counts, trace, marks, untold, grid, refresh, context)
}

/// The traffic of each key as it changes: of each change what it was, −1, and what it is, 1.
fn sum_cells<'scope>(
    traffic: StreamVec<'scope, u64, Change>,
    grid: Grid,
) -> (StreamVec<'scope, u64, Sum>, Trace) {
    let scope = traffic.scope();
    let (expired, expired_stream) = scope.feedback(1);
    let arranged = traffic
        .concat(expired_stream)
        .as_collection()
        .arrange_by_self_named("arrange_cells");
    expire_cells(arranged.clone(), grid).connect_loop(expired);
    let trace = arranged.trace.clone();
    (arranged.count_total_core().inner, trace)
}

/// Negates the traffic of windows that have passed the horizon, an epoch later.
fn expire_cells<'scope>(
    arranged: Arranged<'scope, Trace>,
    grid: Grid,
) -> StreamVec<'scope, u64, Change> {
    let mut trace = arranged.trace;
    arranged
        .stream
        .unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
            Pipeline,
            "expire_cells",
            move |_capability, _info| {
                let mut upper = Antichain::from_elem(0);
                let mut expired_before_ms = TimeMs::MIN;
                move |(input, _frontier), output| {
                    input.for_each(|capability, batches| {
                        for batch in batches.drain(..) {
                            upper.clone_from(batch.upper());
                        }
                        let Some(capability) = capability.retain_least(output.output_index())
                        else {
                            return;
                        };
                        let at = *capability.time();
                        let before_ms = grid.expired_before_ms(grid.now_ms(Epoch(at)));
                        if before_ms <= expired_before_ms {
                            return;
                        }
                        expired_before_ms = before_ms;
                        let expired = front_of(&mut trace, &upper, before_ms);
                        output.session(&capability).give_iterator(
                            expired
                                .into_iter()
                                .map(|(key, traffic)| (key, at + 1, traffic)),
                        );
                    });
                    trace.advance_upper(&mut upper);
                    trace.set_logical_compaction(upper.borrow());
                    trace.set_physical_compaction(upper.borrow());
                }
            },
        )
}

/// The negated sums of all windows that begin before a time.
fn front_of(
    trace: &mut Trace,
    upper: &Antichain<u64>,
    before_ms: TimeMs,
) -> Vec<(CellKey, Traffic)> {
    let Some(batches) = trace.batches_through(upper.borrow()) else {
        return Vec::new();
    };
    let (mut cursor, storage) = cursor_list(batches);
    let mut front = Vec::new();
    while let Some(&key) = cursor.get_key(&storage)
        && key.0 < before_ms
    {
        let mut negated = Traffic::default();
        cursor.map_times(&storage, |_, traffic| negated.remove(traffic));
        if !negated.is_zero() {
            front.push((key, negated));
        }
        cursor.step_key(&storage);
    }
    front
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::probe::{Handle, Probe};
    use timely::dataflow::operators::{Input, Inspect};

    use super::*;
    use crate::dataflow::windows::Settings;

    #[test]
    fn only_windows_within_the_horizon_are_kept() {
        let settings = Settings {
            size_ms: 60_000,
            hop_ms: 60_000,
            session_gap_ms: 600_000,
            horizon_ms: 600_000,
            known_from_ms: TimeMs::MIN,
        };
        let grid = Grid::new(&settings, 1_000);
        timely::execute_directly(move |worker| {
            let kept = Rc::new(RefCell::new(BTreeMap::<CellKey, isize>::new()));
            let heard = Rc::clone(&kept);
            let mut input: InputHandle<u64, _> = InputHandle::new();
            let done = Handle::new();
            worker.dataflow::<u64, _, _>(|scope| {
                // Only who saves holds the trace's past.
                let (counts, _) = sum_cells(scope.input_from(&mut input), grid);
                counts
                    .inspect(move |((key, _), _, diff)| {
                        *heard.borrow_mut().entry(*key).or_default() += diff;
                    })
                    .probe_with(&done);
            });
            let mut most = 0;
            for epoch in 1_790_000_000_u64..1_790_000_000 + 7_200 {
                input.advance_to(epoch);
                let minute_ms = (epoch / 60 * 60_000) as TimeMs;
                let mut traffic = Traffic::of_speed(Some(7.5));
                traffic.updates = 1;
                for cell in 0..5 {
                    input.send((CellKey(minute_ms, cell), epoch, traffic));
                }
                input.advance_to(epoch + 1);
                while done.less_than(&(epoch + 1)) {
                    worker.step();
                }
                kept.borrow_mut().retain(|_, count| *count != 0);
                most = most.max(kept.borrow().len());
                assert!(kept.borrow().values().all(|count| *count == 1));
            }
            assert!(most <= 5 * 12, "{most} keys for 10 minutes");
            assert!(most >= 5 * 10, "{most} keys for 10 minutes");
        });
    }
}

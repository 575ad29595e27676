//! Windows over event time: `cell_minutes`, `driver_minutes` and `driver_sessions`.
//!
//! ```text
//!  detect ─ updates flagged ok or late, by driver ─▶ trace_drivers ─▶ driver_minutes ─┐
//!                                                        │       └──▶ driver_sessions ─┤
//!                                     differences of     │ (by window and cell)        │
//!                                     a cell's traffic   ▼                             ▼
//!                                         cell_minutes (differential: ───────────▶ Output
//!                                         arrange, count, expire)
//! ```
//!
//! The timely time is the epoch; event time is data, so one driver's late phone holds nothing
//! up. A late update is one more change: it goes between its neighbours, corrects what the fix
//! after it had added, and the windows that changed are told again, with the epoch as their
//! version. What is told is a function of the epochs alone, whatever the number of workers.
//!
//! Differential dataflow serves where many drivers meet in one result and corrections must
//! add up: cells. A driver's own windows are sums along its trail, in which an update needs
//! its neighbours and most come last; an arrangement of all drivers would be touched once an
//! update for what `trail` does by appending to a vector.
//!
//! A window that changes is told once in ten seconds of the clock, and at a stop. Memory is
//! bounded by the horizon: see ARCHITECTURE.md.

mod cell_minutes;
mod cells;
mod driver_minutes;
mod driver_sessions;
mod drivers;
#[cfg(test)]
mod drivers_tests;
mod fix;
mod grid;
#[cfg(test)]
mod oracle_tests;
mod trace_drivers;
mod trail;

use std::rc::Rc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::probe::{Handle, Probe};

pub(super) use fix::Counted;

use super::Context;
use crate::model::TimeMs;
use grid::Grid;

/// How often a window that keeps changing is told, ms of the clock.
const REFRESH_MS: u64 = 10_000;

/// What windows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Length of a cell's or driver's window, ms.
    pub size_ms: TimeMs,
    /// A window begins every so many ms; the length is a multiple of it.
    pub hop_ms: TimeMs,
    /// A session ends after this without an update, ms.
    pub session_gap_ms: TimeMs,
    /// Windows that ended longer ago than this leave memory, ms.
    pub horizon_ms: TimeMs,
    /// Windows that began before this time aren't told: what was read may not be all of them.
    pub known_from_ms: TimeMs,
}

/// When windows are told: every so many epochs.
#[derive(Clone, Copy, Debug)]
struct Refresh(u64);

impl Refresh {
    fn new(interval_ms: u64) -> Self {
        Self((REFRESH_MS / interval_ms.max(1)).max(1))
    }

    fn epochs(self) -> u64 {
        self.0
    }

    /// The first epoch from `epoch` on at which all cells are told.
    fn due(self, epoch: u64) -> u64 {
        epoch.next_multiple_of(self.0)
    }
}

/// Computes all windows of the counted updates. The handle returned is at the oldest epoch that
/// isn't in them yet, and holds `finished` back, so that the source waits for windows too.
pub(super) fn windows<'scope>(
    counted: StreamVec<'scope, u64, Counted>,
    _marks: StreamVec<'scope, u64, crate::snapshot::Mark>,
    _restored: Option<Restored>,
    settings: &Settings,
    context: &Rc<Context>,
    finished: &Handle<u64>,
) -> (Handle<u64>, StreamVec<'scope, u64, crate::snapshot::Part>) {
    let grid = Grid::new(settings, context.interval_ms);
    let refresh = Refresh::new(context.interval_ms);
    let done = Handle::new();
    let traffic = trace_drivers::trace_drivers(counted, grid, refresh, Rc::clone(context));
    use timely::dataflow::operators::vec::Map;
    let out = cell_minutes::cell_minutes(traffic, grid, refresh, Rc::clone(context))
        .probe_with(&done)
        .probe_with(finished);
    (done, out.flat_map(|()| None::<crate::snapshot::Part>))
}
#[allow(missing_docs)]
pub struct Restored {
    pub epoch: crate::model::Epoch,
    pub trails: Vec<crate::snapshot::Part>,
    pub cells: Vec<crate::snapshot::Part>,
}

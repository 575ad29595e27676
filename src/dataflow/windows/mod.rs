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
//! At a mark, state goes into a snapshot by key group: drivers with their trails and sessions
//! (`saved`), and the traffic of cells, each with what is still to be told. A restart goes on
//! from the parts of one epoch and tells what the job would have told that never stopped.
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
mod restore_cells;
mod saved;
#[cfg(test)]
mod snapshot_tests;
mod tell_cells;
mod trace_drivers;
mod trail;

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::probe::{Handle, Probe};
use timely::dataflow::operators::{Capability, Concat};
use timely::dataflow::{Scope, StreamVec};

pub(super) use fix::Counted;

use super::Context;
use crate::model::{Epoch, TimeMs};
use crate::snapshot::{Mark, Part};
use grid::Grid;

/// How often a window that keeps changing is told, ms of the clock.
const REFRESH_MS: u64 = 10_000;

/// What windows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Settings {
    /// These settings for a start that goes on from state with the settings `before`, if there
    /// were windows, and whether that state still serves. What is unknown by then begins at
    /// `now_ms`.
    #[must_use]
    pub fn going_on(self, before: Option<Self>, now_ms: TimeMs) -> (Self, bool) {
        let known_from_ms = match before {
            Some(before) if before.shape() == self.shape() => {
                // What had passed the former horizon has left memory.
                let left_ms = match before.horizon_ms < self.horizon_ms {
                    true => now_ms - before.horizon_ms,
                    false => TimeMs::MIN,
                };
                before.known_from_ms.max(left_ms)
            }
            _ => now_ms,
        };
        let serves = before.is_some_and(|before| before.shape() == self.shape());
        let settings = Self {
            known_from_ms,
            ..self
        };
        (settings, serves)
    }

    fn shape(&self) -> [TimeMs; 3] {
        [self.size_ms, self.hop_ms, self.session_gap_ms]
    }
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

/// What a restart goes on from. The settings must be those with which it was saved.
#[derive(Debug)]
pub struct Restored {
    /// The epoch that the state is of: what follows begins after it.
    pub epoch: Epoch,
    /// Parts of [`Kind::Trails`](crate::snapshot::Kind::Trails) of this worker's key groups:
    /// of each, in the order in which they were saved, from those of the last snapshot that
    /// has the group whole.
    pub trails: Vec<Part>,
    /// Parts of [`Kind::Cells`](crate::snapshot::Kind::Cells) in the same order, of any share
    /// of the groups: each group on one worker. A snapshot may have several parts of a group,
    /// one of each worker that made it, and all of them count.
    pub cells: Vec<Part>,
}

/// Whether a key group is this worker's.
fn owned_groups(scope: Scope<'_, u64>) -> impl Fn(u64) -> bool + use<> {
    let (index, peers) = (scope.index() as u64, scope.peers() as u64);
    move |group| group % peers == index
}

/// Lets go of the right to tell of epochs before a frontier; of all, where there is none.
fn keep_from(held: &mut Option<Capability<u64>>, frontier: Option<u64>) {
    match frontier {
        None => *held = None,
        Some(frontier) => {
            if let Some(held) = held.as_mut().filter(|held| *held.time() < frontier) {
                held.downgrade(&frontier);
            }
        }
    }
}

/// Computes all windows of the counted updates. Each worker gets each mark, at its epoch, and
/// gives its parts of that snapshot. The handle returned is at the oldest epoch that isn't in
/// the windows yet, or not saved, and holds `finished` back, so that the source waits for
/// windows too.
pub(super) fn windows<'scope>(
    counted: StreamVec<'scope, u64, Counted>,
    marks: StreamVec<'scope, u64, Mark>,
    restored: Option<Restored>,
    settings: &Settings,
    context: &Rc<Context>,
    finished: &Handle<u64>,
) -> (Handle<u64>, StreamVec<'scope, u64, Part>) {
    let scope = counted.scope();
    let grid = Grid::new(settings, context.interval_ms);
    let refresh = Refresh::new(context.interval_ms);
    let done = Handle::new();
    let trails = restored
        .as_ref()
        .map(|restored| (restored.epoch, &restored.trails[..]));
    let (traffic, trails) = trace_drivers::trace_drivers(
        counted,
        marks.clone(),
        trails,
        grid,
        refresh,
        Rc::clone(context),
    );
    let cells = restored.map(|Restored { epoch, cells, .. }| {
        restore_cells::restore_cells(scope, epoch, cells, grid, refresh, Rc::clone(context))
    });
    let cells =
        cell_minutes::cell_minutes(traffic, marks, cells, grid, refresh, Rc::clone(context));
    let parts = trails.concat(cells).probe_with(&done).probe_with(finished);
    (done, parts)
}

#[cfg(test)]
mod settings_tests {
    use super::*;

    const DAY_MS: TimeMs = 86_400_000;
    const SETTINGS: Settings = Settings {
        size_ms: 60_000,
        hop_ms: 60_000,
        session_gap_ms: 600_000,
        horizon_ms: DAY_MS,
        known_from_ms: TimeMs::MIN,
    };

    #[test]
    fn what_is_known_of_windows_goes_on_while_they_are_the_same() {
        let now_ms = 1_790_000_000_000;
        let known = |before: Option<Settings>, settings: Settings| {
            let (settings, serves) = settings.going_on(before, now_ms);
            (settings.known_from_ms, serves)
        };
        let hopping = Settings {
            hop_ms: 20_000,
            ..SETTINGS
        };
        let short = Settings {
            horizon_ms: 3_600_000,
            known_from_ms: 7,
            ..SETTINGS
        };
        assert_eq!(known(None, SETTINGS), (now_ms, false));
        assert_eq!(known(Some(SETTINGS), SETTINGS), (TimeMs::MIN, true));
        assert_eq!(known(Some(SETTINGS), hopping), (now_ms, false));
        assert_eq!(known(Some(SETTINGS), short), (TimeMs::MIN, true));
        assert_eq!(known(Some(short), SETTINGS), (now_ms - 3_600_000, true));
    }
}

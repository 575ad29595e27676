//! Event-time windows as they are stored.

use serde::{Deserialize, Serialize};

use super::{DriverId, Epoch, TimeMs};

/// Traffic in one H3 cell of resolution 8 in one window: a row of `cell_minutes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellWindow {
    /// The H3 cell.
    pub cell: u64,
    /// Start of the window, ms since 1970.
    pub start_ms: TimeMs,
    /// Distinct drivers.
    pub drivers: u64,
    /// Counted updates.
    pub updates: u64,
    /// Mean of the updates' speeds, m/s; `None` if none is known.
    pub mean_speed_mps: Option<f64>,
    /// The version: of two, the greater holds.
    pub version: Epoch,
}

/// What one driver did in one window: a row of `driver_minutes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriverWindow {
    /// The driver.
    pub driver: DriverId,
    /// Start of the window, ms since 1970.
    pub start_ms: TimeMs,
    /// Counted updates.
    pub updates: u64,
    /// Metres over consecutive updates.
    pub distance_m: f64,
    /// The greatest speed, m/s; `None` if none is known.
    pub max_speed_mps: Option<f64>,
    /// The version: of two, the greater holds.
    pub version: Epoch,
}

/// A driver's time between two gaps without updates: a row of `driver_sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionWindow {
    /// The driver.
    pub driver: DriverId,
    /// Event time of the first update, ms since 1970.
    pub start_ms: TimeMs,
    /// Event time of the last update so far, ms since 1970.
    pub end_ms: TimeMs,
    /// Metres over consecutive updates.
    pub distance_m: f64,
    /// Counted updates; 0 if no session begins here any more, since a late update joined it
    /// to an earlier one or made it begin earlier.
    pub updates: u64,
    /// The version: of two, the greater holds.
    pub version: Epoch,
}

/// Windows that have changed, each once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowRows {
    /// Of `cell_minutes`.
    pub cells: Vec<CellWindow>,
    /// Of `driver_minutes`.
    pub drivers: Vec<DriverWindow>,
    /// Of `driver_sessions`.
    pub sessions: Vec<SessionWindow>,
}

impl WindowRows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.drivers.is_empty() && self.sessions.is_empty()
    }
}

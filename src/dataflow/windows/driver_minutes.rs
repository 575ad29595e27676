//! `driver_minutes`: what a driver did in a window, summed from the window's panes.

use super::fix::faster;
use super::grid::{Grid, Pane};
use super::trail::Trail;
use crate::model::{DriverId, DriverWindow, Epoch};

/// Appends the windows of a driver's panes that have changed.
pub(super) fn tell(
    driver: DriverId,
    trail: &mut Trail,
    changed: u32,
    version: Epoch,
    grid: &Grid,
    out: &mut Vec<DriverWindow>,
) {
    // Changes are nearly always among the latest panes.
    let slices = trail.latest_first().filter(|slice| slice.changed);
    let mut windows: Vec<Pane> = Vec::new();
    for slice in slices.take(changed as usize) {
        slice.changed = false;
        windows.extend(grid.windows(slice.pane));
    }
    windows.sort_unstable();
    windows.dedup();
    for window in windows {
        if !grid.is_known(window) {
            continue;
        }
        let mut row = DriverWindow {
            driver,
            start_ms: grid.start_ms(window),
            updates: 0,
            distance_m: 0.0,
            max_speed_mps: None,
            version,
        };
        for slice in trail.within(grid.panes(window)) {
            row.updates += u64::from(slice.updates);
            row.distance_m += slice.distance_m;
            row.max_speed_mps = faster(row.max_speed_mps, slice.max_speed_mps);
        }
        out.push(row);
    }
}

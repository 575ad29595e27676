//! The H3 cell around a position.

use crate::model::Position;

/// Finds cells of resolution 8, by way of a rounder one around the cell's middle where that
/// is cheaper.
#[derive(Debug, Default)]
pub(super) struct CellFinder {}

impl CellFinder {
    /// The cell; 0 for a position without one, which no valid update has.
    pub(super) fn cell(&mut self, position: Position) -> u64 {
        h3o::LatLng::new(position.latitude, position.longitude)
            .map_or(0, |place| place.to_cell(h3o::Resolution::Eight).into())
    }
}

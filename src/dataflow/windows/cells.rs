//! The H3 cell around a position.

use crate::model::Position;

/// The cell of resolution 8; 0 for a position without one, which no valid update has.
pub(super) fn cell_of(position: Position) -> u64 {
    h3o::LatLng::new(position.latitude, position.longitude)
        .map_or(0, |place| place.to_cell(h3o::Resolution::Eight).into())
}

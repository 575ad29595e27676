//! A fixed grid of small squares.
//!
//! Owns [`Tile`]. Promises that every position is in exactly one tile, and within its bounds.
//! Never knows what is there: that is [`super::FenceIndex::visit_tile`]'s, and
//! [`super::Area::part_is_even_in`]'s.

use super::bounds::LonLatBox;
use super::distance::{Here, ROUNDING_M, is_clearly_beyond_m, metres};
use super::grid::{FINEST, TILE_LEVEL, cell_box, column, row};
use crate::model::Position;

/// A square of 360/2¹⁸ degrees: 153 m from south to north, and from west to east as much on the
/// equator, and less elsewhere.
///
/// Every position is in exactly one. Two that are in one rectangle of tiles have all of the
/// straight way between them in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    pub(super) column: u32,
    pub(super) row: u32,
}

impl Tile {
    /// No less than from the middle to a corner, metres: as on the equator.
    pub(super) const REACH_M: f64 = 108.0;

    /// The tile that a position is in.
    pub fn at(position: Position) -> Self {
        let up = FINEST - TILE_LEVEL;
        Self {
            column: (column(position.longitude) >> up) as u32,
            row: (row(position.latitude) >> up) as u32,
        }
    }

    /// Counted from the antimeridian eastward.
    pub fn column(self) -> u32 {
        self.column
    }

    /// Counted northward from the south pole.
    pub fn row(self) -> u32 {
        self.row
    }

    /// All of the tile, and a hair around it.
    pub fn bounds(self) -> LonLatBox {
        cell_box(TILE_LEVEL, self.column.into(), self.row.into())
    }

    /// Whether every position in the tile is farther from one than so many metres; perhaps no,
    /// too, if some are near the limit.
    pub fn is_beyond_m(self, from: Position, limit_m: f64) -> bool {
        let bounds = self.bounds();
        let nearest = Position {
            latitude: from.latitude.clamp(bounds.south, bounds.north),
            ..from
        };
        is_clearly_beyond_m(from, nearest, limit_m)
            || metres(Here::new(from).haversine_to_box(&bounds)) > limit_m + ROUNDING_M
    }

    /// A position in the middle.
    pub fn middle(self) -> Position {
        let b = self.bounds();
        Position {
            longitude: (0.5 * (b.west + b.east)).clamp(-180.0, 180.0),
            latitude: (0.5 * (b.south + b.north)).min(90.0),
        }
    }

    /// The first and the last tile, by column and by row, that a box within ±180 has part in.
    pub fn corners(b: &LonLatBox) -> (Self, Self) {
        let corner = |longitude, latitude| {
            Self::at(Position {
                longitude,
                latitude,
            })
        };
        (corner(b.west, b.south), corner(b.east, b.north))
    }

    /// A box around all positions in whose tiles a box within ±180 has part.
    pub fn around(b: &LonLatBox) -> LonLatBox {
        let (first, last) = Self::corners(b);
        LonLatBox::union(&[first.bounds(), last.bounds()])
    }

    /// The rectangle of tiles from this one to another, the way that doesn't lead over the
    /// antimeridian; `None` if they are more than so many.
    pub fn rectangle(self, other: Self, most: u32) -> Option<impl Iterator<Item = Self>> {
        let (west, east) = (self.column.min(other.column), self.column.max(other.column));
        let (south, north) = (self.row.min(other.row), self.row.max(other.row));
        let (width, height) = (east - west + 1, north - south + 1);
        (width <= most && height <= most && width * height <= most).then(|| {
            (south..north + 1)
                .flat_map(move |row| (west..east + 1).map(move |column| Self { column, row }))
        })
    }
}

//! The grids' cells: levels, rows and columns, and the keys made of them.
//!
//! Level `n` has cells of 360/2ⁿ degrees; those of a coarser level are those of the finest,
//! shifted. A cell is a monotone function of a coordinate.

use super::bounds::LonLatBox;

/// The finest level: cells of 2.4 m at the equator.
pub(super) const FINEST: u32 = 24;

/// The level whose cells are [`super::Tile`]s; one that is used.
pub(super) const TILE_LEVEL: u32 = 18;

/// One level in so many is used: fewer probes of memory that is far away, for more tests of
/// boxes that lie side by side.
pub(super) const STEP: usize = 2;

/// A hair in degrees: more than a coordinate is off when it is put into a cell.
const HAIR_DEG: f64 = 1e-9;

/// A rectangle of cells of one level.
pub(super) struct Cells {
    west: u64,
    east: u64,
    south: u64,
    north: u64,
}

impl Cells {
    /// The finest cells that a box lies in, as far as it is within ±180.
    pub(super) fn around(b: &LonLatBox) -> Self {
        Self {
            west: column(b.west),
            east: column(b.east),
            south: row(b.south),
            north: row(b.north),
        }
    }

    /// The cells so many levels further up.
    pub(super) fn coarser(&self, up: u32) -> Self {
        Self {
            west: self.west >> up,
            east: self.east >> up,
            south: self.south >> up,
            north: self.north >> up,
        }
    }

    pub(super) fn count(&self) -> u64 {
        (self.east - self.west + 1) * (self.north - self.south + 1)
    }

    pub(super) fn each(&self, mut ask: impl FnMut(u64, u64)) {
        // Half-open, for inclusive ranges cost a flag each.
        for row in self.south..self.north + 1 {
            for column in self.west..self.east + 1 {
                ask(column, row);
            }
        }
    }
}

/// The cells of coarser levels around a cell.
pub(super) fn coarser(cell: u64) -> impl Iterator<Item = u64> {
    let (level, column, row) = (cell >> 50, cell >> 25 & 0x1ff_ffff, cell & 0x1ff_ffff);
    let steps = level as usize / STEP;
    (1..=steps).map(move |up| {
        let shift = STEP * up;
        key(
            (level as usize - shift) as u32,
            column >> shift,
            row >> shift,
        )
    })
}

/// A cell, a hair larger than it is.
pub(super) fn cell_box(level: u32, column: u64, row: u64) -> LonLatBox {
    let side = side(level);
    let (west, south) = (column as f64 * side - 180.0, row as f64 * side - 90.0);
    LonLatBox {
        west: west - HAIR_DEG,
        east: west + side + HAIR_DEG,
        south: south - HAIR_DEG,
        north: south + side + HAIR_DEG,
    }
}

/// The level for a box, and the keys of its cells there.
pub(super) fn cover(b: &LonLatBox) -> (u32, impl Iterator<Item = u64> + use<>) {
    let size = (b.east - b.west).max(b.north - b.south);
    let level = (0..=FINEST)
        .rev()
        .step_by(STEP)
        .find(|level| side(*level) >= size)
        .unwrap_or(0);
    let cells = Cells::around(b).coarser(FINEST - level);
    let columns = cells.west..=cells.east;
    let keys = (cells.south..=cells.north)
        .flat_map(move |row| columns.clone().map(move |column| key(level, column, row)));
    (level, keys)
}

/// A cell's side, degrees.
fn side(level: u32) -> f64 {
    360.0 / f64::from(1u32 << level)
}

/// The finest column at a longitude.
pub(super) fn column(lon: f64) -> u64 {
    cell((lon + 180.0) / 360.0)
}

/// The finest row at a latitude.
pub(super) fn row(lat: f64) -> u64 {
    cell((lat + 90.0) / 360.0)
}

/// Monotone in `share`, which is 0 to 1 or clamped to it; the last cell takes 1 in. Cells of
/// a coarser level are those of the finest, shifted.
fn cell(share: f64) -> u64 {
    const COUNT: u32 = 1 << FINEST;
    u64::from(((share * f64::from(COUNT)) as u32).min(COUNT - 1))
}

pub(super) fn key(level: u32, column: u64, row: u64) -> u64 {
    u64::from(level) << 50 | column << 25 | row
}

//! What is known of tiles, so that a driver that stays in one is not judged by its fences again.
//!
//! A tile is even if no fence's boundary is in it: all fixes in it are then inside the same
//! fences, and no way within it crosses one. That is asked of the fences once and remembered
//! until a fence changes there. Never decides anything but what asking again would.

use crate::geo::{LonLatBox, Tile};

/// Columns and rows that are remembered side by side: some 30 km of each.
const SIDE: u32 = 256;

/// What was found out of tiles, in a fixed amount of memory: of those that differ by whole
/// multiples of [`SIDE`] the one asked of last.
#[derive(Clone, Debug, Default)]
pub(super) struct Tiles {
    /// By low bits of row and column, the high bits with [`KNOWN`] and perhaps [`EVEN`]; empty
    /// before the first question.
    found: Vec<u32>,
}

const KNOWN: u32 = 1;
const EVEN: u32 = 2;

/// How the last `ok` fix's tile bears on its driver: what need not be judged within it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ground {
    pub(super) tile: Tile,
    pub(super) fences: Fenced,
    pub(super) legs: Legs,
}

/// What is known of a driver's tile with regard to fences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fenced {
    #[default]
    Unknown,
    /// The tile is even, and the driver is on visits of just those fences that it is inside of.
    Even,
    /// It isn't even.
    Uneven,
}

/// What is known of a driver's tile with regard to the driver's legs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Legs {
    #[default]
    Unknown,
    /// Nowhere in the tile does a leg change.
    Far,
    /// Perhaps somewhere.
    Near,
}

impl Ground {
    /// What holds in a tile if nothing was found out.
    pub(super) fn unknown(tile: Tile) -> Self {
        Self {
            tile,
            ..Self::default()
        }
    }
}

impl Tiles {
    /// Whether a tile is even; `ask` finds out.
    pub(super) fn is_even(&mut self, tile: Tile, ask: impl FnOnce() -> bool) -> bool {
        if self.found.is_empty() {
            self.found = vec![0; (SIDE * SIDE) as usize];
        }
        let (at, known) = place(tile);
        let found = &mut self.found[at];
        if *found & !EVEN == known {
            return *found & EVEN != 0;
        }
        let is_even = ask();
        *found = if is_even { known | EVEN } else { known };
        is_even
    }

    /// Forgets all tiles that a box within ±180 may have part in.
    pub(super) fn forget(&mut self, b: &LonLatBox) {
        if self.found.is_empty() {
            return;
        }
        let (first, last) = Tile::corners(b);
        let (width, height) = (last.column() - first.column(), last.row() - first.row());
        for row in (0..=height.min(SIDE - 1)).map(|row| (first.row() + row) % SIDE) {
            let from = first.column() % SIDE;
            let row = &mut self.found[(row * SIDE) as usize..][..SIDE as usize];
            for column in 0..=width.min(SIDE - 1) {
                row[((from + column) % SIDE) as usize] = 0;
            }
        }
    }
}

/// Where a tile is remembered, and as what if it isn't even.
fn place(tile: Tile) -> (usize, u32) {
    let at = (tile.row() % SIDE) * SIDE + tile.column() % SIDE;
    let high = (tile.row() / SIDE) << 10 | tile.column() / SIDE;
    (at as usize, high << 2 | KNOWN)
}

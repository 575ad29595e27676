//! What fences are in a tile, so that most fixes are judged by little that lies side by side,
//! and many by nothing.
//!
//! A fence is settled in a tile if its boundary isn't there: then all of the tile is inside or
//! outside. That is asked of the fences once and remembered until a fence changes there. If all
//! are settled, the tile is even: all fixes in it are inside the same fences, and no way within
//! it crosses one. Never decides anything but what asking the fences again would.

use crate::geo::{BoxedPart, LonLatBox, Tile};

/// Columns and rows that are remembered side by side: 39 km of rows, and of columns as much on
/// the equator.
const SIDE: u32 = 256;

/// The most parts of fences that are remembered of a tile.
pub(super) const MOST_PARTS: usize = 24;

/// What was found out of tiles. Those that differ by whole multiples of [`SIDE`] share a room,
/// which one that is in use keeps.
///
/// By calculation a worker's rooms take 1.6 MB (65,536 of 24 bytes), and what is in them at most
/// 38 MB (24 parts of 24 bytes each).
#[derive(Clone, Debug, Default)]
pub(super) struct Tiles {
    /// By low bits of row and then of column; rows are empty before the first question in them.
    rows: Vec<Box<[Room]>>,
}

#[derive(Clone, Debug, Default)]
struct Room {
    /// The high bits of row and column with [`KNOWN`] and perhaps [`FLAGS`].
    known: u32,
    /// [`ALL_INSIDE`] or with their number.
    parts: Box<[BoxedPart]>,
}

const KNOWN: u32 = 1;
const EVEN: u32 = 2;
pub(super) const CROWDED: u32 = 4;
/// Asked of again since another tile that has the same room was.
const USED: u32 = 8;
const FLAGS: u32 = EVEN | CROWDED | USED;

/// In place of a part's number: all of the tile is inside it.
pub(super) const ALL_INSIDE: u32 = u32::MAX;

/// How the last `ok` fix's tile bears on its driver: what need not be judged within it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ground {
    pub(super) tile: Tile,
    /// The tile is even, and the driver is on visits of just those fences that it is inside of.
    pub(super) even: bool,
    pub(super) legs: Legs,
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

impl Tiles {
    /// What is in a tile; `None` if that is too much, or another tile uses the room. `ask` finds
    /// out: it adds the parts whose boundary is there, or that all of the tile is inside of, and
    /// returns whether it could.
    pub(super) fn look(
        &mut self,
        tile: Tile,
        ask: impl FnOnce(&mut Vec<BoxedPart>) -> bool,
    ) -> Option<(&[BoxedPart], bool)> {
        if self.rows.is_empty() {
            self.rows = vec![Box::default(); SIDE as usize];
        }
        let (row, column, known) = place(tile);
        let row = &mut self.rows[row];
        if row.is_empty() {
            *row = vec![Room::default(); SIDE as usize].into();
        }
        let room = &mut row[column];
        if room.known & !FLAGS == known {
            room.known |= USED;
        } else if room.known & USED != 0 {
            // Taking turns, two would be found out anew each time.
            room.known &= !USED;
            return None;
        } else {
            let mut parts = Vec::new();
            room.known = known;
            if !ask(&mut parts) {
                parts.clear();
                room.known |= CROWDED;
            } else if parts.iter().all(|part| part.part == ALL_INSIDE) {
                room.known |= EVEN;
            }
            room.parts = parts.into();
        }
        let is_even = room.known & EVEN != 0;
        (room.known & CROWDED == 0).then_some((&room.parts, is_even))
    }

    /// Reads a little of what is known of a tile.
    pub(super) fn touch(&self, tile: Tile) -> u32 {
        self.room(tile).map_or(0, |room| room.known)
    }

    /// Reads a little of the parts in a tile.
    pub(super) fn touch_parts(&self, tile: Tile) -> u32 {
        let parts = self.room(tile).map_or(&[][..], |room| &room.parts);
        let (first, last) = (parts.first(), parts.last());
        first.map_or(0, |part| part.slot) ^ last.map_or(0, |part| part.slot)
    }

    /// The room that a tile has, perhaps another's now.
    fn room(&self, tile: Tile) -> Option<&Room> {
        let (row, column, _) = place(tile);
        self.rows.get(row)?.get(column)
    }

    /// Whether a tile has its room.
    #[cfg(test)]
    pub(super) fn has_room(&self, tile: Tile) -> bool {
        (self.room(tile)).is_some_and(|room| room.known & !FLAGS == place(tile).2)
    }

    /// Forgets all tiles that a box within ±180 may have part in.
    pub(super) fn forget(&mut self, b: &LonLatBox) {
        let (first, last) = Tile::corners(b);
        let (width, height) = (last.column() - first.column(), last.row() - first.row());
        for row in (0..=height.min(SIDE - 1)).map(|row| (first.row() + row) % SIDE) {
            let Some(row) = self.rows.get_mut(row as usize) else {
                return;
            };
            let columns = 0..=width.min(SIDE - 1);
            for column in columns.map(|column| (first.column() + column) % SIDE) {
                if let Some(room) = row.get_mut(column as usize) {
                    *room = Room::default();
                }
            }
        }
    }
}

/// In which row and column a tile is remembered, and as what.
fn place(tile: Tile) -> (usize, usize, u32) {
    let (row, column) = (tile.row() % SIDE, tile.column() % SIDE);
    let high = ((tile.row() / SIDE) << 10) | (tile.column() / SIDE);
    (row as usize, column as usize, (high << 4) | KNOWN)
}

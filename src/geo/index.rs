//! Which areas may contain a point.
//!
//! A stack of grids: level `n` has cells of 360/2ⁿ degrees. Each box goes to the finest
//! level in use whose cells are no smaller than it, so it lies in at most 4 cells, whatever
//! its size; a lookup is one hash probe per level with boxes (13 at most), then a test of the
//! boxes in that cell. A doorway and a city therefore never meet in one cell, and a large
//! fence costs the drivers near it one box test.
//!
//! A point's cell and a box's cells come from the same monotone function of a coordinate, so
//! rounding can't put a point outside the cells of a box that holds it. Cells keep boxes in
//! single precision, rounded outward.

use hashbrown::HashMap;

use super::bounds::LonLatBox;
use crate::model::Position;

/// The finest level: cells of 2.4 m at the equator.
const FINEST: u32 = 24;

/// One level in so many is used: fewer probes of memory that is far away, for more tests of
/// boxes that lie side by side.
const STEP: usize = 2;

/// A set of boxes by slot, asked for those that hold a point.
///
/// Slots are dense numbers that the caller gives out; each stands for the boxes of one area.
#[derive(Clone, Debug, Default)]
pub struct FenceIndex {
    cells: HashMap<u64, Vec<Entry>>,
    /// Entries per level, and which levels have any, as bits.
    counts: [usize; FINEST as usize + 1],
    levels: u32,
    /// What each slot holds.
    boxes: Vec<Vec<LonLatBox>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    west: f32,
    east: f32,
    south: f32,
    north: f32,
    slot: u32,
    part: u32,
}

impl FenceIndex {
    /// An index of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what a slot holds, in place of what it held: the boxes of an area's parts, as
    /// [`super::Area::boxes`] gives them.
    pub fn insert(&mut self, slot: u32, boxes: Vec<LonLatBox>) {
        self.remove(slot);
        let place = slot as usize;
        if self.boxes.len() <= place {
            self.boxes.resize_with(place + 1, Vec::new);
        }
        for (part, piece) in pieces(&boxes) {
            let (level, cells) = cover(&piece);
            let entry = Entry {
                west: below(piece.west),
                east: above(piece.east),
                south: below(piece.south),
                north: above(piece.north),
                slot,
                part,
            };
            for cell in cells {
                self.cells.entry(cell).or_default().push(entry);
                self.counts[level as usize] += 1;
            }
            self.levels |= 1 << level;
        }
        self.boxes[place] = boxes;
    }

    /// Empties a slot; an empty one stays so.
    pub fn remove(&mut self, slot: u32) {
        let Some(boxes) = self.boxes.get_mut(slot as usize).map(std::mem::take) else {
            return;
        };
        for (part, piece) in pieces(&boxes) {
            let (level, cells) = cover(&piece);
            for cell in cells {
                let Some(entries) = self.cells.get_mut(&cell) else {
                    continue;
                };
                let found = |e: &Entry| e.slot == slot && e.part == part;
                if let Some(i) = entries.iter().position(found) {
                    entries.swap_remove(i);
                    self.counts[level as usize] -= 1;
                }
                if entries.is_empty() {
                    self.cells.remove(&cell);
                }
            }
            if self.counts[level as usize] == 0 {
                self.levels &= !(1 << level);
            }
        }
    }

    /// Calls `found(slot, part)` for every part whose box holds the position, and for few
    /// others; in no particular order, a part at most twice. Allocates nothing.
    pub fn visit(&self, position: Position, mut found: impl FnMut(u32, u32)) {
        let (lon, lat) = (position.longitude, position.latitude);
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let cell = key(level, column(level, lon), row(level, lat));
            let Some(entries) = self.cells.get(&cell) else {
                continue;
            };
            for e in entries {
                let inside = f64::from(e.west) <= lon
                    && lon <= f64::from(e.east)
                    && f64::from(e.south) <= lat
                    && lat <= f64::from(e.north);
                if inside {
                    found(e.slot, e.part);
                }
            }
        }
    }
}

/// The parts' boxes within ±180, with their part's number.
fn pieces(boxes: &[LonLatBox]) -> impl Iterator<Item = (u32, LonLatBox)> {
    boxes.iter().zip(0..).flat_map(|(b, part)| {
        let (first, second) = b.split();
        std::iter::once(first)
            .chain(second)
            .map(move |piece| (part, piece))
    })
}

/// The level for a box, and the keys of its cells there.
fn cover(b: &LonLatBox) -> (u32, impl Iterator<Item = u64> + use<>) {
    let size = (b.east - b.west).max(b.north - b.south);
    let level = (0..=FINEST)
        .rev()
        .step_by(STEP)
        .find(|level| side(*level) >= size)
        .unwrap_or(0);
    let rows = row(level, b.south)..=row(level, b.north);
    let (west, east) = (column(level, b.west), column(level, b.east));
    let cells = rows.flat_map(move |row| (west..=east).map(move |column| key(level, column, row)));
    (level, cells)
}

/// A cell's side, degrees.
fn side(level: u32) -> f64 {
    360.0 / f64::from(1u32 << level)
}

fn column(level: u32, lon: f64) -> u64 {
    cell(level, (lon + 180.0) / 360.0)
}

fn row(level: u32, lat: f64) -> u64 {
    cell(level, (lat + 90.0) / 360.0)
}

/// Monotone in `share`, which is 0 to 1; the last cell takes 1 in.
fn cell(level: u32, share: f64) -> u64 {
    let count = 1u32 << level;
    ((share * f64::from(count)) as u64).min(u64::from(count) - 1)
}

fn key(level: u32, column: u64, row: u64) -> u64 {
    u64::from(level) << 50 | column << 25 | row
}

/// The greatest single that is no greater.
fn below(degrees: f64) -> f32 {
    let near = degrees as f32;
    if f64::from(near) > degrees {
        near.next_down()
    } else {
        near
    }
}

/// The least single that is no less.
fn above(degrees: f64) -> f32 {
    let near = degrees as f32;
    if f64::from(near) < degrees {
        near.next_up()
    } else {
        near
    }
}

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
//!
//! A short segment asks the few cells of its own box on each level. A long one goes down from
//! the coarse levels, cell by cell along its way, and only where the index knows of something
//! finer: it pays for what lies along it, not for its length.

use hashbrown::HashMap;

use super::bounds::LonLatBox;
use super::grid::{Cells, FINEST, STEP, TILE_LEVEL, cell_box, coarser, column, cover, key, row};
use super::segment::Segment;
use super::tile::Tile;
use crate::model::Position;

/// The most cells of one level that a segment asks before it goes down along its way.
const FEW: u64 = 9;

/// A set of boxes by slot, asked for those that hold a point.
///
/// Slots are dense numbers that the caller gives out; each stands for the boxes of one area.
#[derive(Clone, Debug, Default)]
pub struct FenceIndex {
    cells: HashMap<u64, Vec<BoxedPart>>,
    /// Entries per level, and which levels have any, as bits.
    counts: [usize; FINEST as usize + 1],
    levels: u32,
    /// How many entries lie on finer levels within a cell.
    finer: HashMap<u64, u32>,
    /// What each slot holds.
    boxes: Vec<Vec<LonLatBox>>,
}

/// A part of an area, with its box within ±180 or one of its two; in single precision, and no
/// smaller than it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxedPart {
    west: f32,
    east: f32,
    south: f32,
    north: f32,
    /// Which area's.
    pub slot: u32,
    /// Its number there, as [`super::Area::boxes`] lists them.
    pub part: u32,
}

impl BoxedPart {
    /// A part with a box within ±180.
    pub fn new(slot: u32, part: u32, b: &LonLatBox) -> Self {
        Self {
            west: below(b.west),
            east: above(b.east),
            south: below(b.south),
            north: above(b.north),
            slot,
            part,
        }
    }

    /// Its box.
    pub fn bounds(&self) -> LonLatBox {
        LonLatBox {
            west: self.west.into(),
            east: self.east.into(),
            south: self.south.into(),
            north: self.north.into(),
        }
    }
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
            let entry = BoxedPart::new(slot, part, &piece);
            for cell in cells {
                self.cells.entry(cell).or_default().push(entry);
                self.counts[level as usize] += 1;
                for above in coarser(cell) {
                    *self.finer.entry(above).or_default() += 1;
                }
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
                let found = |e: &BoxedPart| e.slot == slot && e.part == part;
                if let Some(i) = entries.iter().position(found) {
                    entries.swap_remove(i);
                    self.counts[level as usize] -= 1;
                    for above in coarser(cell) {
                        if let Some(count) = self.finer.get_mut(&above) {
                            *count -= 1;
                            if *count == 0 {
                                self.finer.remove(&above);
                            }
                        }
                    }
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
        let (column, row) = (column(position.longitude), row(position.latitude));
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let up = FINEST - level;
            let Some(entries) = self.cells.get(&key(level, column >> up, row >> up)) else {
                continue;
            };
            for e in entries {
                if e.bounds().holds(position) {
                    found(e.slot, e.part);
                }
            }
        }
    }

    /// Calls `found` for every part whose box meets a tile, and for few others, some more than
    /// once, in no particular order. Ends when `found` says no, and returns whether it never did.
    pub fn visit_tile(&self, tile: Tile, mut found: impl FnMut(&BoxedPart) -> bool) -> bool {
        let bounds = tile.bounds();
        let (column, row) = (u64::from(tile.column), u64::from(tile.row));
        let mut levels = self.levels & ((2 << TILE_LEVEL) - 1);
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let up = TILE_LEVEL - level;
            for e in self.entries(key(level, column >> up, row >> up)) {
                if e.bounds().overlaps(&bounds) && !found(e) {
                    return false;
                }
            }
        }
        self.visit_below(TILE_LEVEL, column, row, &mut found)
    }

    /// As [`FenceIndex::visit_tile`], of all cells in a cell that are finer.
    fn visit_below(
        &self,
        level: u32,
        column: u64,
        row: u64,
        found: &mut impl FnMut(&BoxedPart) -> bool,
    ) -> bool {
        if !self.finer.contains_key(&key(level, column, row)) {
            return true;
        }
        let level = level + STEP as u32;
        (row << STEP..(row + 1) << STEP).all(|row| {
            (column << STEP..(column + 1) << STEP).all(|column| {
                (self.entries(key(level, column, row)).iter()).all(&mut *found)
                    && self.visit_below(level, column, row, found)
            })
        })
    }

    fn entries(&self, cell: u64) -> &[BoxedPart] {
        self.cells.get(&cell).map_or(&[], |entries| entries)
    }

    /// Calls `found(slot, part, at_end)` for every part whose box meets a segment, and for
    /// few others, telling whether the box holds the segment's end; in no particular order,
    /// some more than once. Allocates nothing.
    pub fn visit_along(&self, segment: &Segment, mut found: impl FnMut(u32, u32, bool)) {
        let bounds = segment.bounds();
        self.visit_piece(segment, &bounds, &mut found);
        if bounds.east > 180.0 {
            let beyond = segment.turned(-1.0);
            self.visit_piece(&beyond, &beyond.bounds(), &mut found);
        } else if bounds.west < -180.0 {
            let beyond = segment.turned(1.0);
            self.visit_piece(&beyond, &beyond.bounds(), &mut found);
        }
    }

    /// What a segment meets within ±180.
    fn visit_piece(
        &self,
        segment: &Segment,
        bounds: &LonLatBox,
        found: &mut impl FnMut(u32, u32, bool),
    ) {
        let finest = Cells::around(bounds);
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let cells = finest.coarser(FINEST - level);
            if cells.count() > FEW {
                self.go_along(segment, bounds, &finest, level, found);
                return;
            }
            cells.each(|column, row| self.ask(key(level, column, row), segment, bounds, found));
        }
    }

    /// Asks what a segment meets on a level and all that are finer.
    #[cold]
    fn go_along(
        &self,
        segment: &Segment,
        bounds: &LonLatBox,
        finest: &Cells,
        mut level: u32,
        found: &mut impl FnMut(u32, u32, bool),
    ) {
        let along = Along { segment, bounds };
        while finest.coarser(FINEST - level).count() > FEW {
            level -= STEP as u32;
        }
        let cells = finest.coarser(FINEST - level);
        cells.each(|column, row| self.descend(level, column, row, &along, found));
    }

    /// Asks all cells finer than a cell, and in it, that the segment meets.
    fn descend(
        &self,
        level: u32,
        column: u64,
        row: u64,
        along: &Along<'_>,
        found: &mut impl FnMut(u32, u32, bool),
    ) {
        if !self.finer.contains_key(&key(level, column, row)) {
            return;
        }
        let level = level + STEP as u32;
        for row in row << STEP..(row + 1) << STEP {
            for column in column << STEP..(column + 1) << STEP {
                if along
                    .segment
                    .meets_box(along.bounds, &cell_box(level, column, row))
                {
                    if self.levels & (1 << level) != 0 {
                        let cell = key(level, column, row);
                        self.ask(cell, along.segment, along.bounds, found);
                    }
                    self.descend(level, column, row, along, found);
                }
            }
        }
    }

    /// Asks one cell.
    fn ask(
        &self,
        cell: u64,
        segment: &Segment,
        bounds: &LonLatBox,
        found: &mut impl FnMut(u32, u32, bool),
    ) {
        let Some(entries) = self.cells.get(&cell) else {
            return;
        };
        for e in entries {
            let b = e.bounds();
            if bounds.overlaps(&b) {
                found(e.slot, e.part, b.contains(segment.to));
            }
        }
    }
}

/// A long segment on its way.
struct Along<'a> {
    segment: &'a Segment,
    bounds: &'a LonLatBox,
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

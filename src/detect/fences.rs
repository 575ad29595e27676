//! The fences in force, under dense slots.

use hashbrown::HashMap;

use super::tiles::{ALL_INSIDE, MOST_PARTS, Tiles};
use super::timers::{NEVER, millis};
use crate::geo::{Area, BoxedPart, FenceIndex, LonLatBox, Segment, Tile};
use crate::model::{Fence, FenceId, Position, TimeMs};

/// The most tiles that a way is judged by.
const MOST_TILES: u32 = 6;

/// All fences, and the index over them.
#[derive(Clone, Debug, Default)]
pub(super) struct Fences {
    slots: HashMap<FenceId, u32>,
    records: Vec<Option<FenceRecord>>,
    free: Vec<u32>,
    index: FenceIndex,
    /// What is where, as far as it was asked.
    pub(super) tiles: Tiles,
}

/// One fence in force.
#[derive(Clone, Debug)]
pub(super) struct FenceRecord {
    pub(super) id: FenceId,
    pub(super) area: Area,
    /// How far outside a fix must be to end a visit, metres.
    pub(super) exit_margin_m: f64,
    /// The visit's length that is told, ms; perhaps [`NEVER`].
    pub(super) dwell_ms: TimeMs,
    /// How many of this worker's drivers visit it.
    pub(super) visitors: usize,
}

impl FenceRecord {
    /// Whether a position that is not inside is farther outside than the exit margin.
    pub(super) fn is_left_at(&self, position: Position) -> bool {
        self.exit_margin_m <= 0.0 || self.area.distance_m(position) > self.exit_margin_m
    }
}

impl Fences {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, id: &FenceId) -> Option<u32> {
        self.slots.get(id).copied()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&FenceRecord> {
        self.records.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut FenceRecord> {
        self.records.get_mut(slot as usize)?.as_mut()
    }

    /// Puts a version in force in place of the one before, whose visitors it keeps.
    pub(super) fn put(&mut self, fence: Fence, area: Area) -> u32 {
        let id = fence.id;
        let slot = self.slot(&id).unwrap_or_else(|| {
            self.free.pop().unwrap_or_else(|| {
                self.records.push(None);
                (self.records.len() - 1) as u32
            })
        });
        let boxes = area.boxes();
        self.tiles.forget(&LonLatBox::hull(&boxes));
        self.index.insert(slot, boxes);
        let before = self.records[slot as usize].as_ref();
        let visitors = before.map_or(0, |record| record.visitors);
        if let Some(record) = before {
            self.tiles.forget(&LonLatBox::hull(&record.area.boxes()));
        }
        self.slots.insert(id.clone(), slot);
        self.records[slot as usize] = Some(FenceRecord {
            id,
            area,
            exit_margin_m: fence.exit_margin_m,
            dwell_ms: fence.dwell_s.map_or(NEVER, millis),
            visitors,
        });
        slot
    }

    /// Takes a fence out of force; its slot may stand for another one from now on.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(record) = self.records.get_mut(slot as usize).and_then(Option::take) {
            self.tiles.forget(&LonLatBox::hull(&record.area.boxes()));
            self.slots.remove(&record.id);
            self.index.remove(slot);
            self.free.push(slot);
        }
    }

    /// Sets `found` to the slots of all fences that contain a position, ascending, and `passed`
    /// to what else the way there may meet, as slot and part, some more than once, and parts of
    /// fences found among them. Returns whether the position's tile is even.
    pub(super) fn look(
        &mut self,
        position: Position,
        way: Option<(Position, Segment)>,
        found: &mut Vec<u32>,
        passed: &mut Vec<(u32, u32)>,
    ) -> bool {
        let to = Tile::at(position);
        let from = way.map_or(to, |(from, _)| Tile::at(from));
        let way = way.map(|(_, way)| way);
        found.clear();
        passed.clear();
        let tiles = from.rectangle(to, MOST_TILES);
        let known = tiles.and_then(|tiles| self.look_in(tiles, to, position, way, found, passed));
        // What was found before a crowded tile is true, and may stay.
        if known.is_none() {
            match &way {
                Some(way) => self.along(way, position, found, passed),
                None => self.containing(position, found),
            }
        }
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        known.unwrap_or(false)
    }

    /// Adds what [`Fences::look`] is to find, from tiles that hold all of the way; `None`, and
    /// perhaps not all, if there are too many fences in one of them.
    fn look_in(
        &mut self,
        tiles: impl Iterator<Item = Tile>,
        to: Tile,
        position: Position,
        way: Option<Segment>,
        found: &mut Vec<u32>,
        passed: &mut Vec<(u32, u32)>,
    ) -> Option<bool> {
        let Self {
            tiles: known,
            records,
            index,
            ..
        } = self;
        let around = way.map(|way| way.bounds());
        let mut ends_even = false;
        for tile in tiles {
            let (parts, is_even) = known.look(tile, |parts| list(index, records, tile, parts))?;
            let is_end = tile == to;
            ends_even |= is_end && is_even;
            for part in parts {
                if part.part == ALL_INSIDE {
                    if is_end {
                        found.push(part.slot);
                    }
                    continue;
                }
                let b = part.bounds();
                let holds = || {
                    let record = records.get(part.slot as usize).and_then(Option::as_ref);
                    record.is_some_and(|record| record.area.part_contains(part.part, position))
                };
                if is_end && b.holds(position) && holds() {
                    found.push(part.slot);
                } else if around.is_some_and(|around| around.overlaps(&b)) {
                    passed.push((part.slot, part.part));
                }
            }
        }
        Some(ends_even)
    }

    /// Adds to `found` the slots of all fences that contain a position, in no order, some more
    /// than once.
    fn containing(&self, position: Position, found: &mut Vec<u32>) {
        self.index.visit(position, |slot, part| {
            let inside = |record: &FenceRecord| record.area.part_contains(part, position);
            if self.get(slot).is_some_and(inside) {
                found.push(slot);
            }
        });
    }

    /// As [`Fences::containing`] for the end of a segment; and adds to `passed` what else the
    /// segment may meet, some more than once.
    fn along(
        &self,
        segment: &Segment,
        to: Position,
        found: &mut Vec<u32>,
        passed: &mut Vec<(u32, u32)>,
    ) {
        self.index.visit_along(segment, |slot, part, at_end| {
            let inside = |record: &FenceRecord| record.area.part_contains(part, to);
            if at_end && self.get(slot).is_some_and(inside) {
                found.push(slot);
            } else {
                passed.push((slot, part));
            }
        });
    }
}

/// Lists the parts that are in a tile, for [`Tiles::look`].
fn list(
    index: &FenceIndex,
    records: &[Option<FenceRecord>],
    tile: Tile,
    parts: &mut Vec<BoxedPart>,
) -> bool {
    index.visit_tile(tile, |found| {
        let (slot, part) = (found.slot, found.part);
        let Some(record) = records.get(slot as usize).and_then(Option::as_ref) else {
            return true;
        };
        let is_even = record.area.part_is_even_in(part, tile);
        if is_even && !record.area.part_contains(part, tile.middle()) {
            return true;
        }
        let mut found = *found;
        if is_even {
            found.part = ALL_INSIDE;
        }
        // A part that goes nearly around the earth has two boxes in a tile, one of each end.
        let is_known = |known: &BoxedPart| {
            *known == found || (is_even && known.slot == slot && known.part == ALL_INSIDE)
        };
        if parts.iter().any(is_known) {
            return true;
        }
        parts.push(found);
        parts.len() <= MOST_PARTS
    })
}

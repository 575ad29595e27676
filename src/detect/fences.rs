//! The fences in force, under dense slots.

use hashbrown::HashMap;

use super::tiles::Tiles;
use super::timers::{NEVER, millis};
use crate::geo::{Area, FenceIndex, LonLatBox, Segment, Tile};
use crate::model::{Fence, FenceId, Position, TimeMs};

/// All fences, and the index over them.
#[derive(Clone, Debug, Default)]
pub(super) struct Fences {
    slots: HashMap<FenceId, u32>,
    records: Vec<Option<FenceRecord>>,
    free: Vec<u32>,
    index: FenceIndex,
    /// Where no boundary is, as far as it was asked.
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

    /// Whether all of a tile is inside the same fences: no boundary is in it.
    pub(super) fn is_even(&mut self, tile: Tile) -> bool {
        let (index, records) = (&self.index, &self.records);
        self.tiles.is_even(tile, || {
            index.all_around(tile, |slot, part| {
                let record = records.get(slot as usize).and_then(Option::as_ref);
                record.is_none_or(|record| record.area.part_is_even_in(part, tile))
            })
        })
    }

    /// Reads a little of what a fix at a position needs of the index.
    pub(super) fn touch(&self, position: Position) -> u32 {
        let mut seen = 0;
        self.index.visit(position, |slot, _| seen ^= slot);
        seen
    }

    /// Sets `found` to the slots of all fences that contain a position, ascending.
    pub(super) fn containing(&self, position: Position, found: &mut Vec<u32>) {
        found.clear();
        self.index.visit(position, |slot, part| {
            let inside = |record: &FenceRecord| record.area.part_contains(part, position);
            if self.get(slot).is_some_and(inside) {
                found.push(slot);
            }
        });
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
    }

    /// As [`Fences::containing`] for the end of a segment; and sets `passed` to the parts of
    /// other fences that the segment may meet, some more than once.
    pub(super) fn along(
        &self,
        segment: &Segment,
        to: Position,
        found: &mut Vec<u32>,
        passed: &mut Vec<(u32, u32)>,
    ) {
        found.clear();
        passed.clear();
        self.index.visit_along(segment, |slot, part, at_end| {
            let inside = |record: &FenceRecord| record.area.part_contains(part, to);
            if at_end && self.get(slot).is_some_and(inside) {
                found.push(slot);
            } else {
                passed.push((slot, part));
            }
        });
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
    }
}

//! One driver's counted fixes, pane by pane: what a late one finds its place among.
//!
//! A pane keeps all its fixes, packed, for a while; then only those at its ends and at its
//! holes. So a late fix that fills a hole finds both neighbours for as long as anything is kept, and one that
//! falls where fixes were dropped does not ([`Found::exact`]).

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::fix::{Fix, Step, append, faster, pack, unpack};
use super::grid::{Grid, Pane};
use super::saved::{Bytes, SavedSlice};
use crate::model::TimeMs;

/// A pane keeps all its fixes for this long after its end, ms.
pub(super) const WHOLE_MS: TimeMs = 15 * 60_000;
/// What an old pane keeps both sides of: a time without a fix at least this long, ms.
pub(super) const HOLE_MS: TimeMs = 15_000;

/// What is kept of one pane: never without a fix.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) pane: Pane,
    pub(super) distance_m: f64,
    pub(super) max_speed_mps: Option<f64>,
    pub(super) updates: u32,
    /// Not told since it changed.
    pub(super) changed: bool,
    /// Not saved since it changed.
    is_unsaved: bool,
    /// Only the fixes at ends and holes are kept.
    is_thin: bool,
    /// Of a thin pane: the greatest speed of the fixes that were dropped, and of those kept
    /// that came after one of them.
    dropped_max_speed_mps: Option<f64>,
    pub(super) cells: Cells,
    /// Packed, in order.
    fixes: Vec<u8>,
}

/// The cells that the driver was in during a pane: nearly always one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cells {
    first: u64,
    more: Box<[u64]>,
}

impl Cells {
    pub(super) fn contains(&self, cell: u64) -> bool {
        self.first == cell || self.more.contains(&cell)
    }

    pub(super) fn add(&mut self, cell: u64) {
        if self.first == 0 {
            self.first = cell;
        } else if !self.contains(cell) {
            let mut more = std::mem::take(&mut self.more).into_vec();
            more.reserve_exact(1);
            more.push(cell);
            self.more = more.into_boxed_slice();
        }
    }
}

/// Where a new fix stands.
#[derive(Debug)]
pub(super) struct Found {
    /// Index of its slice.
    pub(super) at: usize,
    pub(super) before: Option<Fix>,
    /// With the index of its slice.
    pub(super) after: Option<(usize, Fix)>,
    /// Whether its neighbours are known.
    pub(super) exact: bool,
}

/// All that is kept of a driver's way.
#[derive(Debug, Default)]
pub(super) struct Trail {
    slices: VecDeque<Slice>,
    /// The latest fix, also if its slice has left.
    last: Option<Fix>,
    /// Panes before this one are thin.
    whole_from: Pane,
    /// Slices that have changed since they were saved.
    unsaved: u32,
    /// The slice that was the last one when the trail was saved, and how many bytes of its
    /// fixes were: as long as it is only appended to, they need not be saved again.
    saved: (Pane, u32),
}

impl Trail {
    /// A slice that is about to change.
    pub(super) fn slice(&mut self, at: usize) -> &mut Slice {
        let slice = &mut self.slices[at];
        self.unsaved += u32::from(!std::mem::replace(&mut slice.is_unsaved, true));
        slice
    }

    /// The slice of a pane.
    pub(super) fn find(&mut self, pane: Pane) -> Option<&mut Slice> {
        let at = self.position(pane);
        self.slices.get_mut(at).filter(|slice| slice.pane == pane)
    }

    /// The slices of some panes.
    pub(super) fn within(&self, panes: std::ops::Range<Pane>) -> impl Iterator<Item = &Slice> {
        let from = self.position(panes.start);
        self.slices
            .range(from..)
            .take_while(move |slice| slice.pane < panes.end)
    }

    /// All slices, latest first.
    pub(super) fn latest_first(&mut self) -> impl Iterator<Item = &mut Slice> {
        self.slices.iter_mut().rev()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    fn position(&self, pane: Pane) -> usize {
        match self.slices.back() {
            Some(last) if last.pane < pane => self.slices.len(),
            Some(last) if last.pane == pane => self.slices.len() - 1,
            _ => self.slices.partition_point(|slice| slice.pane < pane),
        }
    }

    /// Puts a fix in its place. Sums are the caller's; `updates` is counted here.
    pub(super) fn insert(&mut self, fix: Fix, grid: &Grid) -> Found {
        let pane = grid.pane(fix.at_ms);
        let at = self.position(pane);
        let found = if self.slices.get(at).is_none_or(|slice| slice.pane != pane) {
            self.insert_slice(at, pane, fix, grid)
        } else {
            self.insert_into(at, fix, grid)
        };
        self.slice(at).updates += 1;
        if self.last.is_none_or(|last| last.order() < fix.order()) {
            self.last = Some(fix);
        }
        found
    }

    fn insert_slice(&mut self, at: usize, pane: Pane, fix: Fix, grid: &Grid) -> Found {
        let before = self.last_before(at, grid);
        let after = self.first_at(at, grid).map(|after| (at + 1, after));
        let slice = Slice {
            pane,
            distance_m: 0.0,
            max_speed_mps: None,
            updates: 0,
            changed: false,
            is_unsaved: false,
            is_thin: pane < self.whole_from,
            dropped_max_speed_mps: None,
            cells: Cells::default(),
            fixes: pack(&[fix], grid.start_ms(pane)),
        };
        if at == self.slices.len() {
            if let Some(full) = self.slices.back_mut() {
                full.fixes.shrink_to_fit();
            }
            self.slices.push_back(slice);
        } else {
            self.slices.insert(at, slice);
        }
        Found {
            at,
            before,
            after,
            exact: true,
        }
    }

    fn insert_into(&mut self, at: usize, fix: Fix, grid: &Grid) -> Found {
        let is_last = at + 1 == self.slices.len();
        let slice = &mut self.slices[at];
        let start_ms = grid.start_ms(slice.pane);
        // The usual case first: the latest fix of all.
        if is_last
            && let Some(last) = self.last
            && last.order() < fix.order()
        {
            append(&mut slice.fixes, &fix, Some(&last), start_ms);
            return Found {
                at,
                before: Some(last),
                after: None,
                exact: true,
            };
        }
        let mut fixes = slice.kept(grid);
        let place = fixes.partition_point(|other| other.order() < fix.order());
        let after = fixes.get(place).copied();
        if after.is_some_and(|after| after.after_dropped) {
            let own = fix.speed_mps.map(f64::from);
            slice.dropped_max_speed_mps = faster(slice.dropped_max_speed_mps, own);
            return Found {
                at,
                before: None,
                after: None,
                exact: false,
            };
        }
        let before = place.checked_sub(1).map(|before| fixes[before]);
        fixes.insert(place, fix);
        slice.fixes = pack(&fixes, start_ms);
        if slice.pane == self.saved.0 {
            self.saved.1 = 0;
        }
        Found {
            at,
            before: before.or_else(|| self.last_before(at, grid)),
            after: after
                .map(|after| (at, after))
                .or_else(|| Some((at + 1, self.first_at(at + 1, grid)?))),
            exact: true,
        }
    }

    /// The last fix before a slice.
    fn last_before(&self, at: usize, grid: &Grid) -> Option<Fix> {
        if at == self.slices.len() {
            // Its slice may have left; then it is older than any leg.
            return self.last;
        }
        let slice = self.slices.get(at.checked_sub(1)?)?;
        unpack(&slice.fixes, grid.start_ms(slice.pane)).last()
    }

    /// The first fix of a slice.
    fn first_at(&self, at: usize, grid: &Grid) -> Option<Fix> {
        let slice = self.slices.get(at)?;
        unpack(&slice.fixes, grid.start_ms(slice.pane)).next()
    }

    /// Finds a slice's greatest speed again, after one of its speeds has changed.
    pub(super) fn recall_max_speed(&mut self, at: usize, grid: &Grid) {
        let mut before = self.last_before(at, grid);
        let slice = &self.slices[at];
        let mut max = slice.dropped_max_speed_mps;
        for fix in unpack(&slice.fixes, grid.start_ms(slice.pane)) {
            if !fix.after_dropped {
                max = faster(max, Step::new(before.as_ref(), &fix).speed_mps);
            }
            before = Some(fix);
        }
        self.slices[at].max_speed_mps = max;
    }

    /// Lets old panes forget all but ends and holes. To be called before each [`Trail::insert`],
    /// so that what it finds is a function of the driver's updates and their epochs' `now`.
    pub(super) fn thin(&mut self, now_ms: TimeMs, grid: &Grid) {
        let whole_from = grid.pane(now_ms - WHOLE_MS);
        if whole_from <= self.whole_from {
            return;
        }
        let old = self.position(self.whole_from)..self.position(whole_from);
        for slice in self.slices.range_mut(old) {
            slice.thin(grid);
        }
        self.whole_from = whole_from;
    }

    /// Drops what no update that counts can reach.
    pub(super) fn forget(&mut self, before: Pane) {
        while let Some(slice) = self.slices.front()
            && slice.pane < before
        {
            self.unsaved -= u32::from(slice.is_unsaved);
            self.slices.pop_front();
        }
    }

    /// The slices to be saved: all, or those that have changed since they were. They count as
    /// saved from now on.
    pub(super) fn save(&mut self, whole: bool) -> Vec<SavedSlice<'_>> {
        let (known_pane, known_bytes) = self.saved;
        if let Some(last) = self.slices.back() {
            self.saved = (last.pane, last.fixes.len() as u32);
        }
        let unsaved = std::mem::take(&mut self.unsaved) as usize;
        let count = if whole { self.slices.len() } else { unsaved };
        // Changes are nearly always among the latest.
        let slices = self.slices.iter_mut().rev();
        slices
            .filter(|slice| whole || slice.is_unsaved)
            .take(count)
            .map(|slice| {
                slice.is_unsaved = false;
                // A thin one may not have been when it was saved.
                let is_known = !whole && !slice.is_thin && slice.pane == known_pane;
                slice.save(if is_known { known_bytes } else { 0 })
            })
            .collect()
    }

    /// Puts a saved slice in the place of what is known of it, if that is what it goes on from.
    pub(super) fn restore(&mut self, saved: SavedSlice<'_>) -> Option<()> {
        let at = self.position(saved.pane);
        let is_there = self.slices.get(at).is_some_and(|s| s.pane == saved.pane);
        let fixes = match saved.known_bytes as usize {
            0 => saved.fixes.0.into_owned(),
            known => {
                let there = self.slices.get_mut(at).filter(|_| is_there)?;
                let mut fixes = std::mem::take(&mut there.fixes);
                if fixes.len() != known {
                    return None;
                }
                fixes.extend_from_slice(&saved.fixes.0);
                fixes
            }
        };
        let slice = Slice {
            pane: saved.pane,
            distance_m: saved.distance_m,
            max_speed_mps: saved.max_speed_mps,
            updates: saved.updates,
            changed: false,
            is_unsaved: false,
            is_thin: saved.is_thin,
            dropped_max_speed_mps: saved.dropped_max_speed_mps,
            cells: saved.cells.into_owned(),
            fixes,
        };
        if is_there {
            self.slices[at] = slice;
        } else {
            self.slices.insert(at, slice);
        }
        Some(())
    }

    /// Finds what isn't saved, once all slices are back.
    pub(super) fn finish_restore(&mut self, now_ms: TimeMs, grid: &Grid) {
        // The latest fix of a slice is kept when it gets thin.
        let last = self.slices.back();
        self.last = last.and_then(|last| unpack(&last.fixes, grid.start_ms(last.pane)).last());
        // Before the next fix comes, all this gets thin anyway.
        self.thin(now_ms, grid);
        for slice in &mut self.slices {
            slice.fixes.shrink_to_fit();
        }
        if let Some(last) = self.slices.back() {
            self.saved = (last.pane, last.fixes.len() as u32);
        }
    }

    /// What it takes on the heap, bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let slices = self
            .slices
            .iter()
            .map(|slice| slice.fixes.capacity() + slice.cells.more.len() * 8);
        self.slices.capacity() * size_of::<Slice>() + slices.sum::<usize>()
    }
}

impl Slice {
    /// The fixes that are kept, in order.
    fn kept(&self, grid: &Grid) -> Vec<Fix> {
        unpack(&self.fixes, grid.start_ms(self.pane)).collect()
    }

    fn save(&self, known_bytes: u32) -> SavedSlice<'_> {
        SavedSlice {
            pane: self.pane,
            distance_m: self.distance_m,
            max_speed_mps: self.max_speed_mps,
            updates: self.updates,
            is_thin: self.is_thin,
            dropped_max_speed_mps: self.dropped_max_speed_mps,
            cells: Cow::Borrowed(&self.cells),
            known_bytes,
            fixes: Bytes(Cow::Borrowed(&self.fixes[known_bytes as usize..])),
        }
    }

    /// Keeps only the fixes at the ends and on both sides of each hole.
    fn thin(&mut self, grid: &Grid) {
        if std::mem::replace(&mut self.is_thin, true) {
            return;
        }
        let fixes = self.kept(grid);
        let mut kept: Vec<Fix> = Vec::new();
        let (mut dropped, mut max) = (false, None);
        for (at, fix) in fixes.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| &fixes[before]);
            let after = fixes.get(at + 1);
            let is_hole = |gap: Option<TimeMs>| gap.is_none_or(|gap_ms| gap_ms >= HOLE_MS);
            let is_kept = is_hole(before.map(|before| fix.at_ms - before.at_ms))
                || is_hole(after.map(|after| after.at_ms - fix.at_ms));
            if !is_kept || dropped {
                max = faster(max, Step::new(before, fix).speed_mps);
            }
            if is_kept {
                kept.push(Fix {
                    after_dropped: dropped,
                    ..*fix
                });
            }
            dropped = !is_kept;
        }
        self.fixes = pack(&kept, grid.start_ms(self.pane));
        self.fixes.shrink_to_fit();
        self.dropped_max_speed_mps = max;
    }
}

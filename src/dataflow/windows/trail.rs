//! One driver's counted fixes, pane by pane: what a late one finds its place among.
//!
//! A pane keeps its fixes whole while it is among the newest: open for the last panes, packed
//! for those before. What is older keeps its first and last fix only, so a late fix that falls
//! into a gap between panes still finds both neighbours, and one that falls between two fixes
//! of the same old pane does not ([`Found::exact`]).

use std::collections::VecDeque;

use super::fix::{Fix, Step, faster, pack, unpack};
use super::grid::{Grid, Pane};
use crate::model::TimeMs;

/// A pane keeps its fixes whole for this long after its end, ms.
pub(super) const WHOLE_MS: TimeMs = 15 * 60_000;
/// And as long as its driver has no more fixes than this in whole panes.
pub(super) const WHOLE_FIXES: u32 = 1_024;
/// Panes at the end that are not packed.
const OPEN: usize = 2;

/// What is kept of one pane: never without a fix.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) pane: Pane,
    pub(super) distance_m: f64,
    pub(super) max_speed_mps: Option<f64>,
    pub(super) updates: u32,
    /// Not told since it changed.
    pub(super) changed: bool,
    pub(super) cells: Cells,
    run: Run,
}

/// The cells that the driver was in during a pane: nearly always one.
#[derive(Debug, Default)]
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

/// The fixes of a pane.
#[derive(Debug)]
enum Run {
    /// All, in order.
    Open(Vec<Fix>),
    /// All.
    Packed(Box<[u8]>),
    /// The first and the last, packed, and what must be known of the others.
    Ends(Box<[u8]>, Inner),
}

/// Of the fixes of a pane that keeps only its ends.
#[derive(Clone, Copy, Debug, Default)]
struct Inner {
    /// The greatest speed of those between.
    max_speed_mps: Option<f64>,
    /// The last one's speed, if it isn't the first.
    last_speed_mps: Option<f64>,
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
    /// Panes before this one keep only their ends.
    whole_from: Pane,
    /// Fixes in the others.
    whole_fixes: u32,
}

impl Trail {
    pub(super) fn slice(&mut self, at: usize) -> &mut Slice {
        &mut self.slices[at]
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
        self.slices[at].updates += 1;
        if pane >= self.whole_from {
            self.whole_fixes += 1;
        }
        if self.last.is_none_or(|last| last.order() < fix.order()) {
            self.last = Some(fix);
        }
        found
    }

    fn insert_slice(&mut self, at: usize, pane: Pane, fix: Fix, grid: &Grid) -> Found {
        let before = self.last_before(at, grid);
        let after = self.first_at(at, grid).map(|after| (at + 1, after));
        let run = if pane < self.whole_from {
            Run::Ends(pack(&[fix], grid.start_ms(pane)), Inner::default())
        } else {
            Run::Open(vec![fix])
        };
        let slice = Slice {
            pane,
            distance_m: 0.0,
            max_speed_mps: None,
            updates: 0,
            changed: false,
            cells: Cells::default(),
            run,
        };
        if at == self.slices.len() {
            self.slices.push_back(slice);
            if let Some(full) = at.checked_sub(OPEN) {
                self.slices[full].pack(grid);
            }
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
        // The usual case first: the latest fix of all.
        if at + 1 == self.slices.len()
            && let Some(last) = self.last
            && last.order() < fix.order()
            && let Run::Open(fixes) = &mut self.slices[at].run
        {
            fixes.push(fix);
            return Found {
                at,
                before: Some(last),
                after: None,
                exact: true,
            };
        }
        let start_ms = grid.start_ms(self.slices[at].pane);
        let one = self.slices[at].updates == 1;
        let place = match &mut self.slices[at].run {
            Run::Open(fixes) => put_in(fixes, fix),
            Run::Packed(bytes) => {
                let mut fixes = Vec::new();
                unpack(bytes, start_ms, &mut fixes);
                let place = put_in(&mut fixes, fix);
                *bytes = pack(&fixes, start_ms);
                place
            }
            Run::Ends(bytes, inner) => {
                let mut ends = Vec::with_capacity(2);
                unpack(bytes, start_ms, &mut ends);
                let place = put_outside(&mut ends, inner, fix, one);
                *bytes = pack(&ends, start_ms);
                place
            }
        };
        let Some((before, after)) = place else {
            return Found {
                at,
                before: None,
                after: None,
                exact: false,
            };
        };
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
        match &slice.run {
            Run::Open(fixes) => fixes.last().copied(),
            Run::Packed(_) | Run::Ends(..) => slice.kept(grid).last().copied(),
        }
    }

    /// The first fix of a slice.
    fn first_at(&self, at: usize, grid: &Grid) -> Option<Fix> {
        let slice = self.slices.get(at)?;
        match &slice.run {
            Run::Open(fixes) => fixes.first().copied(),
            Run::Packed(_) | Run::Ends(..) => slice.kept(grid).first().copied(),
        }
    }

    /// Finds a slice's greatest speed again, after one of its speeds has changed.
    pub(super) fn recall_max_speed(&mut self, at: usize, grid: &Grid) {
        let mut before = self.last_before(at, grid);
        let slice = &self.slices[at];
        let kept = slice.kept(grid);
        let mut max = None;
        if let Run::Ends(_, inner) = &slice.run {
            let first = kept.first();
            let first = first.and_then(|first| Step::new(before.as_ref(), first).speed_mps);
            max = faster(first, faster(inner.max_speed_mps, inner.last_speed_mps));
        } else {
            for fix in kept {
                max = faster(max, Step::new(before.as_ref(), &fix).speed_mps);
                before = Some(fix);
            }
        }
        self.slices[at].max_speed_mps = max;
    }

    /// Lets old panes forget all but their ends, if whole ones have too many fixes. What that
    /// does is a function of the driver's updates and their epochs' `now` alone.
    pub(super) fn make_room(&mut self, now_ms: TimeMs, grid: &Grid) {
        if self.whole_fixes > WHOLE_FIXES {
            self.forget(grid.first_needed(now_ms));
        }
        while self.whole_fixes > WHOLE_FIXES {
            let at = self.position(self.whole_from);
            let Some(slice) = self.slices.get_mut(at) else {
                return;
            };
            if grid.end_ms(slice.pane) + WHOLE_MS > now_ms {
                return;
            }
            slice.keep_ends(grid);
            self.whole_from = slice.pane + 1;
            self.whole_fixes -= slice.updates;
        }
    }

    /// Drops what no update that counts can reach.
    pub(super) fn forget(&mut self, before: Pane) {
        while let Some(slice) = self.slices.front()
            && slice.pane < before
        {
            if slice.pane >= self.whole_from {
                self.whole_fixes -= slice.updates;
            }
            self.slices.pop_front();
        }
    }

    /// What it takes on the heap, bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let slices = self.slices.iter().map(|slice| {
            let run = match &slice.run {
                Run::Open(fixes) => fixes.capacity() * size_of::<Fix>(),
                Run::Packed(bytes) | Run::Ends(bytes, _) => bytes.len(),
            };
            run + slice.cells.more.len() * 8
        });
        self.slices.capacity() * size_of::<Slice>() + slices.sum::<usize>()
    }
}

impl Slice {
    /// The fixes that are kept, in order.
    fn kept(&self, grid: &Grid) -> Vec<Fix> {
        match &self.run {
            Run::Open(fixes) => fixes.clone(),
            Run::Packed(bytes) | Run::Ends(bytes, _) => {
                let mut fixes = Vec::new();
                unpack(bytes, grid.start_ms(self.pane), &mut fixes);
                fixes
            }
        }
    }

    fn pack(&mut self, grid: &Grid) {
        if let Run::Open(fixes) = &self.run {
            self.run = Run::Packed(pack(fixes, grid.start_ms(self.pane)));
        }
    }

    fn keep_ends(&mut self, grid: &Grid) {
        if let Run::Ends(..) = self.run {
            return;
        }
        let fixes = self.kept(grid);
        let speeds: Vec<_> = fixes
            .windows(2)
            .map(|pair| Step::new(Some(&pair[0]), &pair[1]).speed_mps)
            .collect();
        let (last_speed_mps, between) = match speeds.split_last() {
            Some((last, between)) => (*last, between),
            None => (None, &[][..]),
        };
        let max_speed_mps = between.iter().copied().fold(None, faster);
        let ends: Vec<Fix> = match (fixes.first(), fixes.last()) {
            (Some(first), Some(last)) if fixes.len() > 1 => vec![*first, *last],
            _ => fixes,
        };
        let inner = Inner {
            max_speed_mps,
            last_speed_mps,
        };
        self.run = Run::Ends(pack(&ends, grid.start_ms(self.pane)), inner);
    }
}

type Neighbours = (Option<Fix>, Option<Fix>);

/// Puts a fix among all of its pane; returns its neighbours in the pane.
fn put_in(fixes: &mut Vec<Fix>, fix: Fix) -> Option<Neighbours> {
    let at = fixes.partition_point(|other| other.order() < fix.order());
    let before = at.checked_sub(1).map(|before| fixes[before]);
    let after = fixes.get(at).copied();
    fixes.insert(at, fix);
    Some((before, after))
}

/// Puts a fix before the first or after the last of its pane; `None`: it is between them.
fn put_outside(ends: &mut Vec<Fix>, inner: &mut Inner, fix: Fix, one: bool) -> Option<Neighbours> {
    let (first, last) = (*ends.first()?, *ends.last()?);
    if fix.order() < first.order() {
        let speed = Step::new(Some(&fix), &first).speed_mps;
        if one {
            inner.last_speed_mps = speed;
        } else {
            inner.max_speed_mps = faster(inner.max_speed_mps, speed);
        }
        *ends = vec![fix, last];
        Some((None, Some(first)))
    } else if last.order() < fix.order() {
        inner.max_speed_mps = faster(inner.max_speed_mps, inner.last_speed_mps);
        inner.last_speed_mps = Step::new(Some(&last), &fix).speed_mps;
        *ends = vec![first, fix];
        Some((Some(last), None))
    } else {
        let own = fix.speed_mps.map(f64::from);
        inner.max_speed_mps = faster(inner.max_speed_mps, own);
        None
    }
}

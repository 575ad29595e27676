//! All drivers of one worker: each counted update finds its place, and what changes by it is
//! summed for the cells and noted for the driver's own windows.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::cell_minutes::{CellKey, Traffic};
use super::cells::{Circle, CircleFinder, cell_of};
use super::driver_minutes;
use super::driver_sessions::Sessions;
use super::fix::{Counted, Fix, Step, faster};
use super::grid::Grid;
use super::saved::SavedDriver;
use super::trail::{Slice, Trail};
use crate::epoch::key_group;
use crate::model::{DriverId, DriverWindow, Epoch, SessionWindow, TimeMs};
use crate::snapshot::{Kind, Mark, Part, Parts};

/// In how many steps all drivers are looked through for what has passed the horizon.
const SWEEP_STEPS: usize = 600;

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its windows are exact.
    Exact,
    /// It counts, but the distance of its windows goes past it.
    Approximate,
    /// Its windows have left memory.
    BeyondHorizon,
}

#[derive(Debug)]
struct Driver {
    id: DriverId,
    trail: Trail,
    sessions: Sessions,
    /// Around the last update.
    circle: Option<Circle>,
    /// Slices that have changed since they were told; 0: the driver is on no list.
    changed: u32,
    /// Changed or told since it was saved.
    is_unsaved: bool,
}

/// How far the saving of all drivers has come.
pub(super) struct Saving {
    mark: Mark,
    parts: Parts,
    /// The next driver to look at.
    next: usize,
}

impl Saving {
    pub(super) fn new(mark: Mark) -> Self {
        Self {
            mark,
            parts: Parts::new(Kind::Trails, mark),
            next: 0,
        }
    }

    /// What was saved; of whole groups, those that are `owned`.
    pub(super) fn finish(self, owned: impl Fn(u64) -> bool) -> Vec<Part> {
        self.parts.finish(owned)
    }
}

/// What it costs to look at a driver or slice, as bytes written.
const LOOK_BYTES: usize = 64;

/// The drivers of one worker.
pub(super) struct Drivers {
    grid: Grid,
    numbers: HashMap<DriverId, u32>,
    /// By number; vacant ones are in `vacant`.
    drivers: Vec<Driver>,
    vacant: Vec<u32>,
    /// By slot, the drivers with something to tell.
    slots: Vec<Vec<u32>>,
    cells: CircleFinder,
    /// What the epoch under way adds to cells.
    traffic: HashMap<CellKey, Traffic>,
    /// The next driver to look at for what has passed the horizon.
    sweep: usize,
}

impl Drivers {
    /// No drivers; each is told in one of `slots`.
    pub(super) fn new(grid: Grid, slots: u64) -> Self {
        Self {
            grid,
            numbers: HashMap::new(),
            drivers: Vec::new(),
            vacant: Vec::new(),
            slots: vec![Vec::new(); slots.max(1) as usize],
            cells: CircleFinder::default(),
            traffic: HashMap::new(),
            sweep: 0,
        }
    }

    /// Counts an update of an epoch whose `now` is given.
    pub(super) fn add(&mut self, counted: &Counted, now_ms: TimeMs) -> Outcome {
        let Counted { driver: id, fix } = *counted;
        let pane = self.grid.pane(fix.at_ms);
        if pane < self.grid.first_open(now_ms) {
            return Outcome::BeyondHorizon;
        }
        let number = self.number(id);
        let driver = &mut self.drivers[number as usize];
        let grid = self.grid;
        driver.trail.thin(now_ms, &grid);
        let found = driver.trail.insert(fix, &grid);
        let step = match found.exact {
            true => Step::new(found.before.as_ref(), &fix),
            false => Step::new(None, &fix),
        };

        let mut changes = 0;
        let slice = driver.trail.slice(found.at);
        slice.distance_m += step.distance_m;
        slice.max_speed_mps = faster(slice.max_speed_mps, step.speed_mps);
        changes += u32::from(!std::mem::replace(&mut slice.changed, true));
        driver.sessions.add(fix.at_ms, step.distance_m, grid.gap_ms);

        let cell = self.cells.find(fix.position, &mut driver.circle);
        for window in grid.windows(pane) {
            let was_there = driver
                .trail
                .within(grid.panes(window))
                .any(|slice| slice.cells.contains(cell));
            let key = CellKey(grid.start_ms(window), cell);
            let mut traffic = Traffic::of_speed(step.speed_mps);
            traffic.updates = 1;
            traffic.drivers = i64::from(!was_there);
            self.traffic.entry(key).or_default().add(&traffic);
        }
        driver.trail.slice(found.at).cells.add(cell);

        if let Some((at, after)) = found.after {
            let old = Step::new(found.before.as_ref(), &after);
            let new = Step::new(Some(&fix), &after);
            changes += driver.correct(at, &after, old, new, &grid);
            if new.speed_mps != old.speed_mps {
                let cell = cell_of(after.position);
                let mut change = Traffic::of_speed(new.speed_mps);
                change.remove(&Traffic::of_speed(old.speed_mps));
                for window in grid.windows(grid.pane(after.at_ms)) {
                    let key = CellKey(grid.start_ms(window), cell);
                    self.traffic.entry(key).or_default().add(&change);
                }
            }
        }

        if driver.changed == 0 {
            let slot = slot_of(id, self.slots.len());
            self.slots[slot].push(number);
        }
        driver.changed += changes;
        driver.is_unsaved = true;
        if found.exact {
            Outcome::Exact
        } else {
            Outcome::Approximate
        }
    }

    fn number(&mut self, id: DriverId) -> u32 {
        if let Some(&number) = self.numbers.get(&id) {
            return number;
        }
        let driver = Driver {
            id,
            trail: Trail::default(),
            sessions: Sessions::default(),
            circle: None,
            changed: 0,
            is_unsaved: false,
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.drivers[number as usize] = driver;
                number
            }
            None => {
                self.drivers.push(driver);
                (self.drivers.len() - 1) as u32
            }
        };
        self.numbers.insert(id, number);
        number
    }

    /// What the epoch has added to cells.
    pub(super) fn take_traffic(&mut self) -> impl Iterator<Item = (CellKey, Traffic)> {
        self.traffic.drain()
    }

    /// Tells the drivers of the slot whose turn it is, and looks at some for what has passed
    /// the horizon.
    pub(super) fn finish(
        &mut self,
        epoch: Epoch,
        drivers: &mut Vec<DriverWindow>,
        sessions: &mut Vec<SessionWindow>,
    ) {
        let slot = (epoch.0 % self.slots.len() as u64) as usize;
        self.tell(slot, epoch, drivers, sessions);
        self.sweep(self.grid.now_ms(epoch));
    }

    /// Tells all that has changed, as of an epoch.
    pub(super) fn tell_all(
        &mut self,
        epoch: Epoch,
        drivers: &mut Vec<DriverWindow>,
        sessions: &mut Vec<SessionWindow>,
    ) {
        for slot in 0..self.slots.len() {
            self.tell(slot, epoch, drivers, sessions);
        }
    }

    fn tell(
        &mut self,
        slot: usize,
        version: Epoch,
        drivers: &mut Vec<DriverWindow>,
        sessions: &mut Vec<SessionWindow>,
    ) {
        let grid = &self.grid;
        for number in self.slots[slot].drain(..) {
            let driver = &mut self.drivers[number as usize];
            let changed = std::mem::take(&mut driver.changed);
            driver.is_unsaved = true;
            let (id, trail) = (driver.id, &mut driver.trail);
            driver_minutes::tell(id, trail, changed, version, grid, drivers);
            driver.sessions.tell(id, version, grid, sessions);
        }
    }

    fn sweep(&mut self, now_ms: TimeMs) {
        let needed = self.grid.first_needed(now_ms);
        let open_ms = self.grid.start_ms(self.grid.first_open(now_ms));
        for _ in 0..self.drivers.len() / SWEEP_STEPS + 1 {
            if self.sweep >= self.drivers.len() {
                self.sweep = 0;
                return;
            }
            let number = self.sweep;
            self.sweep += 1;
            let driver = &mut self.drivers[number];
            if driver.changed > 0 {
                continue;
            }
            driver.trail.forget(needed);
            driver.trail.thin(now_ms, &self.grid);
            driver.sessions.forget(open_ms, self.grid.gap_ms);
            if driver.trail.is_empty()
                && driver.sessions.is_empty()
                && self.numbers.get(&driver.id) == Some(&(number as u32))
            {
                self.numbers.remove(&driver.id);
                driver.trail = Trail::default();
                driver.is_unsaved = false;
                self.vacant.push(number as u32);
            }
        }
    }

    /// Saves drivers in the state that they are in, some `budget` bytes of them. Says whether
    /// these were the last; else nothing may change until it is called again.
    pub(super) fn save(&mut self, saving: &mut Saving, budget: usize) -> bool {
        let Saving { mark, parts, next } = saving;
        let mut spent = 0;
        while let Some(driver) = self.drivers.get_mut(*next) {
            if spent >= budget {
                return false;
            }
            *next += 1;
            spent += LOOK_BYTES;
            let group = key_group(&driver.id.0.to_le_bytes());
            let whole = mark.is_whole(group);
            let is_vacant = driver.trail.is_empty() && driver.sessions.is_empty();
            if is_vacant || !(whole || driver.is_unsaved) {
                continue;
            }
            let saved = driver.save(whole);
            let fixes = saved.slices.iter().map(|slice| slice.fixes.0.len());
            spent += fixes.map(|bytes| bytes + LOOK_BYTES).sum::<usize>();
            parts.add(group, &saved);
        }
        true
    }

    /// Brings drivers back as they were after an epoch whose `now` is given, from parts in the
    /// order in which they were saved.
    ///
    /// # Errors
    /// What is wrong with the parts.
    pub(super) fn restore(&mut self, parts: &[Part], now_ms: TimeMs) -> Result<(), String> {
        for part in parts {
            let mut torn = None;
            let decoded = part.entries(|saved: SavedDriver<'_>| {
                let (number, id) = (self.number(saved.id), saved.id);
                if self.drivers[number as usize].restore(saved).is_none() {
                    torn = torn.or(Some(id));
                }
            });
            let group = part.group;
            decoded
                .map_err(|error| format!("could not decode trails of group {group}: {error}"))?;
            if let Some(DriverId(id)) = torn {
                return Err(format!(
                    "could not restore the trail of driver {id} in group {group}: \
                     an earlier part is missing"
                ));
            }
        }
        for (number, driver) in self.drivers.iter_mut().enumerate() {
            driver.trail.finish_restore(now_ms, &self.grid);
            if driver.changed > 0 {
                let slot = slot_of(driver.id, self.slots.len());
                self.slots[slot].push(number as u32);
            }
        }
        Ok(())
    }

    /// How many drivers are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// What they take on the heap, bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let each = self.drivers.iter().map(|driver| {
            size_of::<Driver>() + driver.trail.heap_bytes() + driver.sessions.heap_bytes()
        });
        each.sum::<usize>() + self.numbers.capacity() * 17
    }
}

impl Driver {
    /// The driver as it is, with all slices or those that have changed since it was saved.
    fn save(&mut self, whole: bool) -> SavedDriver<'_> {
        self.is_unsaved = false;
        let untold = untold(&mut self.trail, self.changed).map(|slice| slice.pane);
        SavedDriver {
            id: self.id,
            untold: untold.collect(),
            sessions: Cow::Borrowed(&self.sessions),
            slices: self.trail.save(whole),
        }
    }

    /// Takes a saved state on; `None` if it is not what this one goes on to.
    fn restore(&mut self, saved: SavedDriver<'_>) -> Option<()> {
        for slice in untold(&mut self.trail, self.changed) {
            slice.changed = false;
        }
        self.changed = 0;
        self.sessions = saved.sessions.into_owned();
        for slice in saved.slices {
            self.trail.restore(slice)?;
        }
        for pane in saved.untold {
            self.trail.find(pane)?.changed = true;
            self.changed += 1;
        }
        Some(())
    }

    /// Corrects what the fix after a new one adds. Returns how many slices changed that had
    /// not changed before.
    fn correct(&mut self, at: usize, after: &Fix, old: Step, new: Step, grid: &Grid) -> u32 {
        let by_m = new.distance_m - old.distance_m;
        self.sessions.correct(after.at_ms, by_m);
        let slice = self.trail.slice(at);
        slice.distance_m += by_m;
        if new.speed_mps != old.speed_mps {
            if old.speed_mps.is_some() && slice.max_speed_mps == old.speed_mps {
                self.trail.recall_max_speed(at, grid);
            } else {
                slice.max_speed_mps = faster(slice.max_speed_mps, new.speed_mps);
            }
        } else if by_m == 0.0 {
            return 0;
        }
        u32::from(!std::mem::replace(&mut self.trail.slice(at).changed, true))
    }
}

/// The slices to be told, of which there are so many.
fn untold(trail: &mut Trail, changed: u32) -> impl Iterator<Item = &mut Slice> {
    // Changes are nearly always among the latest panes.
    let slices = trail.latest_first().filter(|slice| slice.changed);
    slices.take(changed as usize)
}

/// When a driver is told: spread evenly, and the same whatever the number of workers.
fn slot_of(driver: DriverId, slots: usize) -> usize {
    let mixed = driver.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed % slots as u64) as usize
}

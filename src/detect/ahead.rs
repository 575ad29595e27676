//! Updates that come soon: whose they are, and what they will need brought near.
//!
//! Each update meets another driver, whose state lies somewhere in memory, far from the core.
//! A look at a block of them at once has all of it fetched side by side rather than one after
//! the other. Never changes anything: who isn't known yet isn't made known here.

use std::hint::black_box;

use super::detector::Detector;
use super::drivers::Drivers;
use super::tiles::Legs;
use crate::geo::Tile;
use crate::model::{DriverId, Update};

/// How many updates are looked at together: enough to fetch side by side, and few enough that
/// what was fetched is still there when its update comes.
const BLOCK: usize = 32;

/// Whose the next updates are.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    /// The last of them first; with their numbers, as far as they have one.
    coming: Vec<(DriverId, Option<u32>)>,
}

impl Ahead {
    /// The number of the driver of the next update, if it was looked up.
    pub(super) fn number(&mut self, driver: DriverId) -> Option<usize> {
        let (coming, number) = self.coming.pop()?;
        if coming != driver {
            // These aren't the updates that were announced.
            self.coming.clear();
            return None;
        }
        number.map(|number| number as usize)
    }
}

impl Detector {
    /// Announces the updates that come next, in their order. Does nothing but save time; to be
    /// called before each update, with all that are known to follow.
    #[inline]
    pub fn look_ahead(&mut self, coming: &[Update]) {
        if self.ahead.coming.is_empty() && coming.len() > 1 {
            self.look_at(&coming[..coming.len().min(BLOCK)]);
        }
    }

    fn look_at(&mut self, block: &[Update]) {
        let drivers = &self.drivers;
        let look_up = |update: &Update| {
            let number = drivers.known(update.driver);
            (update.driver, number.map(|number| number as u32))
        };
        self.ahead.coming.extend(block.iter().rev().map(look_up));
        let numbers = || {
            let coming = self.ahead.coming.iter().rev().zip(block);
            coming.filter_map(|((_, number), update)| Some(((*number)? as usize, update)))
        };
        let mut seen = 0;
        for (number, update) in numbers() {
            seen ^= drivers.touch(number);
            seen ^= u64::from(self.fences.tiles.touch(Tile::at(update.position)));
        }
        black_box(seen);
        let mut seen = 0;
        for (number, update) in numbers() {
            let driver = &drivers.records[number];
            let ground = driver.ground;
            let tile = Tile::at(update.position);
            let stays = ground.tile == tile;
            if !(stays && ground.even) {
                seen ^= driver.visits.first().map_or(0, |visit| visit.slot);
                seen ^= self.fences.tiles.touch_parts(tile);
            }
            if !(stays && ground.legs == Legs::Far) {
                let order = driver.orders.first();
                seen ^= order.map_or(0, |order| order.legs.len() as u32);
            }
        }
        black_box(seen);
    }
}

impl Drivers {
    /// Reads a little of each part of a driver's record that an update needs.
    fn touch(&self, number: usize) -> u64 {
        let driver = &self.records[number];
        driver.wake_ms as u64
            ^ driver.id.0
            ^ driver.visits.len() as u64
            ^ driver.last.map_or(0, |fix| fix.event_time_ms as u64)
            ^ driver.previous.map_or(0, |spot| spot.event_time_ms as u64)
            ^ u64::from(driver.changed)
            ^ self.positions[number].latitude.to_bits()
    }
}

//! Where every driver is: the last fix that counts, one dense record a driver.
//!
//! Owns which fix counts, by the job's own judge. Memory: 80 bytes a driver and some 40 for
//! its number, 118 MB measured for 1,000,000 drivers (more for a moment while a table grows);
//! one that has not been heard of for [`FORGET_AFTER_MS`] is forgotten, unless it has an open
//! order.

use hashbrown::HashMap;

use crate::detect::{Rules, Spot, judge};
use crate::geo::distance_m;
use crate::model::{DriverId, Flag, Position, TimeMs, Update};

/// A driver without a fix for this long leaves memory.
pub(super) const FORGET_AFTER_MS: TimeMs = 60 * 60 * 1000;

/// A speed below this says nothing of when a driver will be there, m/s.
const MIN_SPEED_MPS: f32 = 1.0;

/// What is known of a driver that has sent an `ok` fix.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    pub(super) id: DriverId,
    pub(super) position: Position,
    pub(super) event_time_ms: TimeMs,
    /// Kafka's timestamp of the fix.
    pub(super) received_ms: TimeMs,
    /// The view's version at its last change.
    pub(super) changed: u64,
    /// m/s; not a number where unknown.
    speed: f32,
    /// Degrees; not a number where unknown.
    heading: f32,
    /// Between the last two `ok` fixes, m/s; not a number where there are no two.
    implied: f32,
    pub(super) open_orders: u32,
    /// The last teleport, if it came after the last `ok` fix.
    teleport: Option<Box<Spot>>,
}

const _: () = assert!(
    size_of::<Driver>() <= 72,
    "a million drivers are affordable"
);

impl Driver {
    pub(super) fn speed(&self) -> Option<f32> {
        known(self.speed)
    }

    pub(super) fn heading(&self) -> Option<f32> {
        known(self.heading)
    }

    /// The speed to reckon an ETA by, as for `agent.near`: m/s.
    pub(super) fn pace(&self) -> Option<f64> {
        let enough = |speed: &f32| *speed >= MIN_SPEED_MPS;
        let pace = self.speed().filter(enough);
        pace.or(known(self.implied).filter(enough)).map(f64::from)
    }

    fn spot(&self) -> Spot {
        Spot {
            position: self.position,
            event_time_ms: self.event_time_ms,
        }
    }
}

fn known(value: f32) -> Option<f32> {
    (!value.is_nan()).then_some(value)
}

/// All drivers, by number; a number is free for another once its driver is forgotten.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    numbers: HashMap<DriverId, u32>,
    records: Vec<Option<Driver>>,
    free: Vec<u32>,
}

impl Drivers {
    /// Takes an update; whether it is a fix that counts.
    pub(super) fn take(
        &mut self,
        update: &Update,
        rules: &Rules,
        open_orders: usize,
        version: u64,
    ) -> bool {
        let known = self.numbers.get(&update.driver).copied();
        let Some(driver) = known.and_then(|number| self.records[number as usize].as_mut()) else {
            if judge(None, None, update, rules).flag != Flag::Ok {
                return false;
            }
            self.insert(Driver {
                id: update.driver,
                position: update.position,
                event_time_ms: update.event_time_ms,
                received_ms: update.received_at_ms,
                changed: version,
                speed: update.speed_mps.unwrap_or(f32::NAN),
                heading: update.heading_deg.unwrap_or(f32::NAN),
                implied: f32::NAN,
                open_orders: open_orders as u32,
                teleport: None,
            });
            return true;
        };
        let teleport = driver.teleport.as_deref().copied();
        match judge(Some(driver.spot()), teleport, update, rules).flag {
            Flag::Ok => {
                let seconds = (update.event_time_ms - driver.event_time_ms) as f64 / 1000.0;
                let metres = distance_m(driver.position, update.position);
                driver.implied = (metres / seconds) as f32;
                driver.position = update.position;
                driver.event_time_ms = update.event_time_ms;
                driver.received_ms = update.received_at_ms;
                driver.speed = update.speed_mps.unwrap_or(f32::NAN);
                driver.heading = update.heading_deg.unwrap_or(f32::NAN);
                driver.teleport = None;
                driver.changed = version;
                true
            }
            Flag::Teleport => {
                driver.teleport = Some(Box::new(Spot::of(update)));
                false
            }
            Flag::Late | Flag::Duplicate | Flag::Inaccurate => false,
        }
    }

    fn insert(&mut self, driver: Driver) {
        let id = driver.id;
        let number = match self.free.pop() {
            Some(number) => {
                self.records[number as usize] = Some(driver);
                number
            }
            None => {
                self.records.push(Some(driver));
                (self.records.len() - 1) as u32
            }
        };
        self.numbers.insert(id, number);
    }

    pub(super) fn get(&self, id: DriverId) -> Option<&Driver> {
        let number = *self.numbers.get(&id)?;
        self.records[number as usize].as_ref()
    }

    /// Notes how many open orders a driver has.
    pub(super) fn count_orders(&mut self, id: DriverId, open_orders: usize, version: u64) {
        let number = self.numbers.get(&id).copied();
        if let Some(driver) = number.and_then(|number| self.records[number as usize].as_mut()) {
            driver.open_orders = open_orders as u32;
            driver.changed = version;
        }
    }

    /// The drivers with numbers from `first` on, at most `count` numbers, and the number after
    /// them, if there is one.
    pub(super) fn part(
        &self,
        first: usize,
        count: usize,
    ) -> (impl Iterator<Item = &Driver>, Option<usize>) {
        let first = first.min(self.records.len());
        let end = (first + count).min(self.records.len());
        let drivers = self.records[first..end].iter().flatten();
        (drivers, (end < self.records.len()).then_some(end))
    }

    /// Forgets who has not been heard of for long.
    pub(super) fn sweep(&mut self, now_ms: TimeMs) {
        for (number, record) in self.records.iter_mut().enumerate() {
            let long_ago = |driver: &mut Driver| {
                driver.open_orders == 0 && now_ms - driver.received_ms > FORGET_AFTER_MS
            };
            if let Some(driver) = record.take_if(long_ago) {
                self.numbers.remove(&driver.id);
                self.free.push(number as u32);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

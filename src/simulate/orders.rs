//! The life of orders: placed, given to a driver near by, picked up, delivered; some called
//! off, given to another driver, or picked up without anyone recording it.

use compact_str::format_compact;

use crate::model::{DriverId, Order, OrderId, OrderStatus, Stop};
use crate::wire::encode_order;

use super::agenda::Task;
use super::city::Venue;
use super::driver::{NONE, Phase};
use super::message::{Batch, What};
use super::simulation::Simulation;
use super::write_number;

/// How many drivers are looked at for one that is free.
const LOOKS: u32 = 12;
/// Blocks from pickup to drop-off, at most.
const TRIP_BLOCKS: i32 = 7;
/// Blocks from a driver to the first target when the city begins, at most.
const OPENING_BLOCKS: i32 = 4;

/// An open order.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    serial: u64,
    status: OrderStatus,
    driver: u32,
    /// Whom the pickup was chosen near to.
    near: u32,
    pickup: Venue,
    dropoff: Venue,
    /// The order is over; the slot waits for the next.
    closed: bool,
    /// The picking up goes unrecorded for a while.
    forgetful: bool,
}

/// How an order that the city begins with stands.
#[derive(Clone, Copy)]
enum Opening {
    Placed,
    ToPickup,
    AtPickup,
    ToDropoff,
    AtDropoff,
}

impl Simulation {
    /// Fills all slots before the city begins: most orders are already under way, their
    /// drivers close to where they are going.
    pub(super) fn open_first_orders(&mut self) {
        for slot in 0..self.plan.orders {
            let share = self.dice.unit();
            let mut opening = match share {
                s if s < 0.10 => Opening::Placed,
                s if s < 0.45 => Opening::ToPickup,
                s if s < 0.60 => Opening::AtPickup,
                s if s < 0.90 => Opening::ToDropoff,
                _ => Opening::AtDropoff,
            };
            let driver = self.free_driver(None);
            if driver == NONE {
                opening = Opening::Placed;
            }
            let first = self.new_slot(driver);
            self.slots.push(first);
            let announced_ms = self.dice.within(0, 900);
            self.agenda.plan(announced_ms, Task::Announce(slot));
            if matches!(opening, Opening::Placed) {
                continue;
            }
            let (target, status, phase) = {
                let order = &self.slots[slot as usize];
                match opening {
                    Opening::ToDropoff => (order.dropoff, OrderStatus::PickedUp, Phase::ToDropoff),
                    Opening::AtDropoff => (order.dropoff, OrderStatus::PickedUp, Phase::AtDropoff),
                    Opening::AtPickup => (order.pickup, OrderStatus::Assigned, Phase::AtPickup),
                    _ => (order.pickup, OrderStatus::Assigned, Phase::ToPickup),
                }
            };
            let blocks = self.dice.within(1, i64::from(OPENING_BLOCKS)) as i32;
            let start = match phase {
                Phase::AtPickup | Phase::AtDropoff => target.node,
                _ => self.city.corner_near(target.node, blocks, &mut self.dice),
            };
            let until_ms = self.dice.within(12_500, 25_000);
            self.slots[slot as usize].status = status;
            self.slots[slot as usize].driver = driver;
            let this = &mut self.drivers[driver as usize];
            this.place_at(start);
            this.head_for(target.node, &self.city, &mut self.dice);
            (this.phase, this.order, this.until_ms) = (phase, slot, until_ms);
            self.maybe_go_dark(driver, 0, 8_000);
            if status == OrderStatus::Assigned {
                self.plan_fate(slot, announced_ms, 5_000, 30_000);
            }
        }
    }

    /// Does what the agenda has for orders.
    pub(super) fn do_order_task(&mut self, now_ms: i64, task: Task, out: &mut Batch) {
        match task {
            Task::Announce(slot) => self.announce(slot, now_ms, out),
            Task::Open(slot) => {
                let near = self.free_driver(None);
                self.slots[slot as usize] = self.new_slot(near);
                self.announce(slot, now_ms, out);
            }
            Task::Assign(slot, serial) if self.stands(slot, serial, OrderStatus::Placed) => {
                self.assign(slot, now_ms, out);
            }
            Task::Cancel(slot, serial)
                if self.stands(slot, serial, OrderStatus::Placed)
                    || self.stands(slot, serial, OrderStatus::Assigned) =>
            {
                self.end(slot, OrderStatus::Cancelled, now_ms, out);
            }
            Task::Reassign(slot, serial)
                if self.stands(slot, serial, OrderStatus::Assigned)
                    && self.driver_phase(slot) == Some(Phase::ToPickup) =>
            {
                let old = self.slots[slot as usize].driver;
                if self.assign(slot, now_ms, out) {
                    self.free(old);
                }
            }
            Task::RecordPickup(slot, serial)
                if self.stands(slot, serial, OrderStatus::Assigned) =>
            {
                self.tell(slot, OrderStatus::PickedUp, now_ms, out);
            }
            Task::Remove(serial) => {
                let prefix = &self.plan.order_prefix;
                out.push(
                    What::OrderRemoved,
                    self.plan.start_ms + now_ms,
                    None,
                    |key| {
                        key.extend_from_slice(prefix.as_bytes());
                        write_number(serial, key);
                    },
                    None::<fn(&mut Vec<u8>)>,
                );
                self.unremoved.remove(&serial);
            }
            _ => {}
        }
    }

    /// A driver with an order stands at its target, or has waited there long enough.
    pub(super) fn driver_is_at_target(&mut self, driver: u32, now_ms: i64, out: &mut Batch) {
        let (phase, slot, until_ms) = {
            let this = &self.drivers[driver as usize];
            (this.phase, this.order, this.until_ms)
        };
        match phase {
            Phase::ToPickup | Phase::ToDropoff => {
                let wait_ms = self.dice.within(12_500, 35_000);
                let this = &mut self.drivers[driver as usize];
                this.until_ms = now_ms + wait_ms;
                this.phase = if phase == Phase::ToPickup {
                    Phase::AtPickup
                } else {
                    Phase::AtDropoff
                };
            }
            Phase::AtPickup if now_ms >= until_ms => {
                let order = &self.slots[slot as usize];
                let (serial, dropoff) = (order.serial, order.dropoff.node);
                if order.forgetful {
                    let late_ms = self.dice.within(25_000, 50_000);
                    self.agenda
                        .plan(now_ms + late_ms, Task::RecordPickup(slot, serial));
                } else {
                    self.tell(slot, OrderStatus::PickedUp, now_ms, out);
                }
                let this = &mut self.drivers[driver as usize];
                this.phase = Phase::ToDropoff;
                this.head_for(dropoff, &self.city, &mut self.dice);
            }
            Phase::AtDropoff if now_ms >= until_ms => {
                if self.slots[slot as usize].status == OrderStatus::Assigned {
                    self.tell(slot, OrderStatus::PickedUp, now_ms, out);
                }
                self.end(slot, OrderStatus::Delivered, now_ms, out);
            }
            _ => {}
        }
    }

    /// A new order, its pickup near `driver` if there is one.
    fn new_slot(&mut self, driver: u32) -> Slot {
        let near = match self.drivers.get(driver as usize) {
            Some(driver) => driver.corner(),
            None => self.city.any_corner(&mut self.dice),
        };
        let pickup = self.city.restaurant_near(near, &mut self.dice);
        let to = self
            .city
            .corner_near(pickup.node, TRIP_BLOCKS, &mut self.dice);
        let dropoff = self.city.customer(to, &mut self.dice);
        self.last_serial += 1;
        self.unremoved.insert(self.last_serial);
        Slot {
            serial: self.last_serial,
            status: OrderStatus::Placed,
            driver: NONE,
            near: driver,
            pickup,
            dropoff,
            closed: false,
            forgetful: self.dice.chance(0.06),
        }
    }

    /// Tells a slot's order as `placed`, then all that it has become already.
    fn announce(&mut self, slot: u32, now_ms: i64, out: &mut Batch) {
        let Slot { serial, status, .. } = self.slots[slot as usize];
        for step in [
            OrderStatus::Placed,
            OrderStatus::Assigned,
            OrderStatus::PickedUp,
        ] {
            if step <= status {
                self.tell(slot, step, now_ms, out);
            }
        }
        if status == OrderStatus::Placed {
            let wait_ms = self.dice.within(2_000, 12_000);
            self.agenda
                .plan(now_ms + wait_ms, Task::Assign(slot, serial));
        }
    }

    /// Gives a slot's order to a free driver near its pickup; if there is none, tries later.
    fn assign(&mut self, slot: u32, now_ms: i64, out: &mut Batch) -> bool {
        let Slot {
            serial,
            status,
            near,
            pickup,
            ..
        } = self.slots[slot as usize];
        let driver = match self.drivers.get(near as usize) {
            Some(driver) if driver.order == NONE => near,
            _ => self.free_driver(Some(pickup.node)),
        };
        if driver == NONE {
            if status == OrderStatus::Placed {
                let wait_ms = self.dice.within(3_000, 6_000);
                self.agenda
                    .plan(now_ms + wait_ms, Task::Assign(slot, serial));
            }
            return false;
        }
        self.slots[slot as usize].driver = driver;
        let this = &mut self.drivers[driver as usize];
        (this.phase, this.order) = (Phase::ToPickup, slot);
        this.head_for(pickup.node, &self.city, &mut self.dice);
        self.tell(slot, OrderStatus::Assigned, now_ms, out);
        self.maybe_go_dark(driver, now_ms, 15_000);
        if status == OrderStatus::Placed {
            self.plan_fate(slot, now_ms, 8_000, 60_000);
        }
        true
    }

    /// Some orders are called off, some go to another driver.
    fn plan_fate(&mut self, slot: u32, now_ms: i64, soonest_ms: i64, latest_ms: i64) {
        let serial = self.slots[slot as usize].serial;
        let due_ms = now_ms + self.dice.within(soonest_ms, latest_ms);
        match self.dice.unit() {
            fate if fate < 0.06 => self.agenda.plan(due_ms, Task::Cancel(slot, serial)),
            fate if fate < 0.12 => self.agenda.plan(due_ms, Task::Reassign(slot, serial)),
            _ => {}
        }
    }

    fn maybe_go_dark(&mut self, driver: u32, now_ms: i64, within_ms: i64) {
        if self.dice.chance(self.plan.oddities.dark) {
            let from_ms = now_ms + self.dice.within(0, within_ms);
            let until_ms = from_ms + self.dice.within(33_000, 48_000);
            let this = &mut self.drivers[driver as usize];
            (this.dark_from_ms, this.dark_until_ms) = (from_ms, until_ms);
        }
    }

    /// Ends a slot's order, frees its driver, plans its removal and the slot's next order.
    fn end(&mut self, slot: u32, status: OrderStatus, now_ms: i64, out: &mut Batch) {
        self.tell(slot, status, now_ms, out);
        let order = &mut self.slots[slot as usize];
        order.closed = true;
        let (serial, driver) = (order.serial, order.driver);
        let (open_ms, remove_ms) = (self.dice.within(0, 2_000), self.dice.within(20_000, 60_000));
        self.agenda.plan(now_ms + open_ms, Task::Open(slot));
        self.agenda.plan(now_ms + remove_ms, Task::Remove(serial));
        self.free(driver);
    }

    fn free(&mut self, driver: u32) {
        if let Some(this) = self.drivers.get_mut(driver as usize) {
            (this.order, this.phase) = (NONE, Phase::Cruising);
            let target = self.city.corner_near(this.corner(), 8, &mut self.dice);
            this.head_for(target, &self.city, &mut self.dice);
        }
    }

    /// A driver without an order, of a few looked at the nearest to a corner; [`NONE`] if none
    /// of them is free.
    fn free_driver(&mut self, near: Option<u32>) -> u32 {
        let mut best = (i32::MAX, NONE);
        for _ in 0..LOOKS {
            let driver = self.dice.below(self.drivers.len() as u32);
            let this = &self.drivers[driver as usize];
            if this.order != NONE {
                continue;
            }
            let Some(near) = near else {
                return driver;
            };
            let blocks = self.city.blocks_between(this.corner(), near);
            if blocks < best.0 {
                best = (blocks, driver);
            }
        }
        best.1
    }

    fn stands(&self, slot: u32, serial: u64, status: OrderStatus) -> bool {
        let order = &self.slots[slot as usize];
        order.serial == serial && order.status == status && !order.closed
    }

    fn driver_phase(&self, slot: u32) -> Option<Phase> {
        let driver = self.slots[slot as usize].driver;
        self.drivers.get(driver as usize).map(|this| this.phase)
    }

    /// Sets a slot's status and sends the order.
    fn tell(&mut self, slot: u32, status: OrderStatus, now_ms: i64, out: &mut Batch) {
        // While an order is announced its status is already ahead of what is being told.
        let slot = &mut self.slots[slot as usize];
        slot.status = slot.status.max(status);
        let stop = |kind: &str, venue: Venue| Stop {
            position: self.city.position(venue.at),
            place: Some(format_compact!("{kind}-{}", venue.number)),
        };
        let at_ms = self.plan.start_ms + now_ms;
        let order = Order {
            id: OrderId(format_compact!("{}{}", self.plan.order_prefix, slot.serial)),
            driver: (status != OrderStatus::Placed && slot.driver != NONE)
                .then_some(DriverId(u64::from(slot.driver))),
            status,
            pickup: stop("restaurant", slot.pickup),
            dropoff: stop("customer", slot.dropoff),
            updated_at_ms: at_ms,
        };
        out.push(
            What::Order(status),
            at_ms,
            None,
            |key| key.extend_from_slice(order.id.0.as_bytes()),
            Some(|value: &mut Vec<u8>| value.extend(encode_order(&order))),
        );
    }
}

//! Where everyone is now: what all streams are told from.
//!
//! Owns drivers, orders, places, fences and the last events. Pure: records and the time come
//! in, and what they touched comes out. Promises that the view depends on each partition's
//! records in their order, and not on how partitions came interleaved or in batches. Memory
//! is bounded by the drivers of the last hour ([`super::drivers`]), by the orders that have
//! not ended ([`super::orders`]; ended ones stay [`ENDED_STAYS_MS`] and then leave 8 bytes
//! until they are removed), by the fences, by [`RING`] events, and by [`ORPHANS`] orders'
//! events that came before their order.

use std::collections::{BTreeSet, VecDeque};

use compact_str::CompactString;
use hashbrown::{HashMap, HashSet};
use twox_hash::XxHash3_64;

use super::drivers::{Driver, Drivers};
use super::fences::Fences;
use super::orders::Followed;
use super::told::Told;
use crate::detect::Rules;
use crate::model::{DriverId, FenceChange, Order, OrderChange, OrderId, TimeMs, Update};

/// So many of the last events are kept for the operations map.
pub(super) const RING: usize = 200;
/// An ended order is still shown for this long.
pub(super) const ENDED_STAYS_MS: TimeMs = 60_000;
/// Of so many orders that are not known yet, events are kept; of further ones they are dropped.
const ORPHANS: usize = 4_096;
/// And for so long.
const ORPHAN_STAYS_MS: TimeMs = 60_000;

/// One record, decoded.
pub(super) enum Record {
    Fence(FenceChange),
    Order(OrderChange),
    Update(Update),
    Event { told: Told, received_ms: TimeMs },
}

/// Whose streams have something new.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) orders: HashSet<OrderId>,
    pub(super) places: HashSet<CompactString>,
}

impl Touched {
    fn all_of(&mut self, order: &Order) {
        self.orders.insert(order.id.clone());
        for stop in [&order.pickup, &order.dropoff] {
            if let Some(place) = &stop.place {
                self.places.insert(place.clone());
            }
        }
    }
}

#[derive(Debug)]
struct Orphan {
    since_ms: TimeMs,
    events: Vec<Told>,
}

/// The view.
#[derive(Debug)]
pub(super) struct View {
    rules: Rules,
    /// Grows with each change, so that a stream knows what it has told.
    version: u64,
    drivers: Drivers,
    orders: HashMap<OrderId, Followed>,
    by_driver: HashMap<DriverId, BTreeSet<OrderId>>,
    by_place: HashMap<CompactString, BTreeSet<OrderId>>,
    /// Hashes of the ids of orders that have ended and not been removed: only null is heard.
    ended: HashSet<u64>,
    orphans: HashMap<OrderId, Orphan>,
    pub(super) fences: Fences,
    ring: VecDeque<(u64, Told)>,
}

impl View {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            version: 0,
            drivers: Drivers::default(),
            orders: HashMap::new(),
            by_driver: HashMap::new(),
            by_place: HashMap::new(),
            ended: HashSet::new(),
            orphans: HashMap::new(),
            fences: Fences::default(),
            ring: VecDeque::new(),
        }
    }

    /// Takes one record; what streams must hear of it is added to `touched`.
    pub(super) fn apply(&mut self, record: Record, now_ms: TimeMs, touched: &mut Touched) {
        self.version += 1;
        match record {
            Record::Fence(change) => self.fences.apply(change, now_ms, self.version),
            Record::Order(change) => self.apply_order(change, now_ms, touched),
            Record::Update(update) => self.apply_update(&update, touched),
            Record::Event { told, received_ms } => {
                self.apply_event(told, received_ms, now_ms, touched);
            }
        }
    }

    fn apply_update(&mut self, update: &Update, touched: &mut Touched) {
        let orders = self.by_driver.get(&update.driver);
        let count = orders.map_or(0, BTreeSet::len);
        if !(self.drivers).take(update, &self.rules, count, self.version) {
            return;
        }
        for id in orders.into_iter().flatten() {
            touched.orders.insert(id.clone());
            let target = self.orders.get(id).and_then(Followed::target);
            if let Some(place) = target.and_then(|(_, stop)| stop.place.as_ref()) {
                touched.places.insert(place.clone());
            }
        }
    }

    fn apply_event(
        &mut self,
        told: Told,
        received_ms: TimeMs,
        now_ms: TimeMs,
        touched: &mut Touched,
    ) {
        if let Some(id) = &told.order {
            if let Some(followed) = self.orders.get_mut(id) {
                if followed.tell(told.clone(), self.version) {
                    touched.all_of(&followed.order);
                }
            } else if now_ms - received_ms <= ORPHAN_STAYS_MS && !self.ended.contains(&hash(id)) {
                let room = self.orphans.len() < ORPHANS || self.orphans.contains_key(id);
                if room {
                    let orphan = self.orphans.entry(id.clone()).or_insert_with(|| Orphan {
                        since_ms: now_ms,
                        events: Vec::new(),
                    });
                    orphan.events.push(told.clone());
                    if orphan.events.len() > super::orders::EVENTS_KEPT {
                        orphan.events.remove(0);
                    }
                }
            }
        }
        if self.ring.iter().any(|(_, known)| known.id == told.id) {
            return;
        }
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back((self.version, told));
    }

    fn apply_order(&mut self, change: OrderChange, now_ms: TimeMs, touched: &mut Touched) {
        let received_ms = change.place.at_ms;
        let Some(mut order) = change.order else {
            self.ended.remove(&hash(&change.id));
            self.orphans.remove(&change.id);
            if let Some(followed) = self.orders.remove(&change.id) {
                touched.all_of(&followed.order);
                self.unlink(&followed.order);
            }
            return;
        };
        if self.ended.contains(&hash(&order.id)) {
            return;
        }
        let before = self.orders.remove(&order.id);
        if let Some(before) = &before {
            touched.all_of(&before.order);
            self.unlink(&before.order);
        }
        if order.status.is_ended() {
            self.ended.insert(hash(&order.id));
            self.orphans.remove(&order.id);
            let Some(mut followed) = before else { return };
            order.driver = order.driver.or(followed.order.driver);
            followed.revise(order, received_ms, self.version);
            followed.ended_ms = Some(received_ms.min(now_ms));
            if now_ms - received_ms <= ENDED_STAYS_MS {
                touched.all_of(&followed.order);
                self.link(followed);
            }
            return;
        }
        let followed = match before {
            Some(mut followed) => {
                followed.revise(order, received_ms, self.version);
                followed
            }
            None => {
                let orphan = self.orphans.remove(&order.id);
                let mut followed = Followed::new(order, self.version);
                for told in orphan.into_iter().flat_map(|orphan| orphan.events) {
                    followed.tell(told, self.version);
                }
                followed
            }
        };
        touched.all_of(&followed.order);
        self.link(followed);
    }

    /// Makes an order found by its places and, while it is open, by its driver.
    fn link(&mut self, followed: Followed) {
        let order = &followed.order;
        for stop in [&order.pickup, &order.dropoff] {
            if let Some(place) = &stop.place {
                let orders = self.by_place.entry(place.clone()).or_default();
                orders.insert(order.id.clone());
            }
        }
        if let (Some(driver), false) = (order.driver, order.status.is_ended()) {
            let orders = self.by_driver.entry(driver).or_default();
            orders.insert(order.id.clone());
            let count = orders.len();
            self.drivers.count_orders(driver, count, self.version);
        }
        self.orders.insert(order.id.clone(), followed);
    }

    fn unlink(&mut self, order: &Order) {
        for stop in [&order.pickup, &order.dropoff] {
            let Some(place) = &stop.place else { continue };
            if let Some(orders) = self.by_place.get_mut(place) {
                orders.remove(&order.id);
                if orders.is_empty() {
                    self.by_place.remove(place);
                }
            }
        }
        let Some(driver) = order.driver else { return };
        if let Some(orders) = self.by_driver.get_mut(&driver) {
            orders.remove(&order.id);
            let count = orders.len();
            if orders.is_empty() {
                self.by_driver.remove(&driver);
            }
            self.drivers.count_orders(driver, count, self.version);
        }
    }

    /// Lets go of what is over: to be called about every second.
    pub(super) fn sweep(&mut self, now_ms: TimeMs, touched: &mut Touched) {
        self.version += 1;
        let over: Vec<OrderId> = (self.orders.iter())
            .filter(|(_, followed)| {
                (followed.ended_ms).is_some_and(|ended_ms| now_ms - ended_ms > ENDED_STAYS_MS)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            if let Some(followed) = self.orders.remove(&id) {
                touched.all_of(&followed.order);
                self.unlink(&followed.order);
            }
        }
        self.orphans
            .retain(|_, orphan| now_ms - orphan.since_ms <= ORPHAN_STAYS_MS);
        self.fences.sweep(now_ms);
    }

    /// Lets go of drivers that have not been heard of for long: to be called about every
    /// minute, for it looks at all of them.
    pub(super) fn sweep_drivers(&mut self, now_ms: TimeMs) {
        self.drivers.sweep(now_ms);
    }

    /// What is known of an order, whether it is open or has just ended.
    pub(super) fn order(&self, id: &OrderId) -> Option<&Followed> {
        self.orders.get(id)
    }

    pub(super) fn orders_at(&self, place: &str) -> impl Iterator<Item = &Followed> {
        let orders = self.by_place.get(place).into_iter().flatten();
        orders.filter_map(|id| self.orders.get(id))
    }

    /// The driver that an order's streams may show: the one that carries it now.
    pub(super) fn driver_of(&self, followed: &Followed) -> Option<&Driver> {
        followed.target()?;
        self.drivers.get(followed.order.driver?)
    }

    pub(super) fn drivers(&self) -> &Drivers {
        &self.drivers
    }

    /// The last events, oldest first, each with the version that it came with.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &(u64, Told)> {
        self.ring.iter()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Since when the oldest open order has not changed, by event time.
    pub(super) fn oldest_open_ms(&self) -> Option<TimeMs> {
        let open = self.orders.values().filter(|it| it.ended_ms.is_none());
        open.map(|followed| followed.order.updated_at_ms).min()
    }

    /// How many drivers and orders are known, for the log.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.drivers.len(), self.orders.len())
    }
}

fn hash(id: &OrderId) -> u64 {
    XxHash3_64::oneshot(id.0.as_bytes())
}

//! Versions of an order, and what its drivers must know of them.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::model::{
    DriverId, EventKind, Leg, Order, OrderChange, OrderId, OrderStatus, Place, Stop, TimeMs,
};

/// What one driver must know of an order's change; it goes to the worker that owns the
/// driver. A change makes at most one step for a driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderStep {
    /// The order record's place in the merged order.
    pub place: Place,
    /// Who must know.
    pub driver: DriverId,
    /// Of which order.
    pub order: OrderId,
    /// Event time of the change, ms since 1970: `updatedAt`, or a removal's merge time.
    pub event_time_ms: TimeMs,
    /// The `order.*` event to tell this driver, if it is one for it.
    pub tell: Option<EventKind>,
    /// Where the order stands now, whoever carries it; `None` once it is removed. Ended or
    /// removed, the driver forgets it.
    pub status: Option<OrderStatus>,
    /// The leg that this driver is on now, and its target; `None` closes what was open.
    pub leg: Option<(Leg, Stop)>,
    /// The drop-off, for telling `order.delivered`.
    pub dropoff: Option<Stop>,
}

/// The orders that one worker owns. Needs their changes in merged order.
///
/// Memory is bounded by the orders that have not been removed, where an ended one keeps its
/// id, and by those removed since the last export.
#[derive(Clone, Debug, Default)]
pub struct OrderBook {
    pub(super) orders: HashMap<OrderId, Kept>,
    /// Orders removed since the last export that an export or import before had; each once.
    pub(super) removed: Vec<OrderId>,
}

/// An order that has not been removed.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) state: State,
    /// Whether a snapshot may have the order, so that its removal must be told.
    pub(super) exported: bool,
    /// Whether it may have changed since.
    pub(super) changed: bool,
}

/// Where one order stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum State {
    Open(Box<Open>),
    /// Delivered or cancelled: only a removal is heard.
    Ended,
}

/// An order that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) status: OrderStatus,
    pub(super) driver: Option<DriverId>,
    pub(super) pickup: Stop,
    pub(super) dropoff: Stop,
    /// All drivers that have had a leg of it, by id.
    pub(super) drivers: Vec<DriverId>,
}

impl OrderBook {
    /// A book without orders.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one change and appends what drivers must know of it, by driver id.
    pub fn apply(&mut self, change: OrderChange, out: &mut Vec<OrderStep>) {
        let OrderChange { place, id, order } = change;
        let before = self.orders.remove(&id);
        let exported = before.as_ref().is_some_and(|before| before.exported);
        let before = before.map(|before| before.state);
        match order {
            None => {
                let forget = |driver| OrderStep {
                    place,
                    driver,
                    order: id.clone(),
                    event_time_ms: place.at_ms,
                    tell: None,
                    status: None,
                    leg: None,
                    dropoff: None,
                };
                if let Some(State::Open(open)) = before {
                    out.extend(open.drivers.into_iter().map(forget));
                }
                if exported {
                    self.removed.push(id);
                }
            }
            Some(order) => {
                let kept = Kept {
                    state: revise(before, order, place, out),
                    exported,
                    changed: true,
                };
                self.orders.insert(id, kept);
            }
        }
    }

    /// How many orders are known, ended ones that have not been removed among them.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether no order is known.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

/// The state after a version, and what drivers must know of it.
fn revise(before: Option<State>, order: Order, place: Place, out: &mut Vec<OrderStep>) -> State {
    let before = match before {
        Some(State::Ended) => return State::Ended,
        Some(State::Open(open)) => Some(*open),
        None => None,
    };
    let status = order.status;
    let driver = match status {
        OrderStatus::Placed => None,
        OrderStatus::Assigned | OrderStatus::PickedUp => order.driver,
        OrderStatus::Delivered | OrderStatus::Cancelled => {
            order.driver.or(before.as_ref().and_then(|b| b.driver))
        }
    };
    let known = |b: &Open| b.pickup == order.pickup && b.dropoff == order.dropoff;
    let stands = |b: &Open| b.status == status && b.driver == driver;
    let news = !before.as_ref().is_some_and(stands);
    if !news && before.as_ref().is_some_and(known) {
        return before.map_or(State::Ended, |b| State::Open(Box::new(b)));
    }
    let leg = match status {
        OrderStatus::Assigned => Some((Leg::Pickup, &order.pickup)),
        OrderStatus::PickedUp => Some((Leg::Dropoff, &order.dropoff)),
        _ => None,
    };
    let tell = event_for(status).filter(|_| news);
    let mut drivers = before.map(|b| b.drivers).unwrap_or_default();
    if let Some(driver) = driver
        && let Err(at) = drivers.binary_search(&driver)
    {
        drivers.insert(at, driver);
    }
    out.extend(drivers.iter().map(|&to| {
        let its = driver == Some(to);
        let tell = tell.filter(|_| its);
        OrderStep {
            place,
            driver: to,
            order: order.id.clone(),
            event_time_ms: order.updated_at_ms,
            tell,
            status: Some(status),
            leg: leg.filter(|_| its).map(|(leg, stop)| (leg, stop.clone())),
            dropoff: (tell == Some(EventKind::OrderDelivered)).then(|| order.dropoff.clone()),
        }
    }));
    if status.is_ended() {
        return State::Ended;
    }
    State::Open(Box::new(Open {
        status,
        driver,
        pickup: order.pickup,
        dropoff: order.dropoff,
        drivers,
    }))
}

/// The event that tells of a status.
fn event_for(status: OrderStatus) -> Option<EventKind> {
    match status {
        OrderStatus::Placed => None,
        OrderStatus::Assigned => Some(EventKind::OrderAssigned),
        OrderStatus::PickedUp => Some(EventKind::OrderPickedUp),
        OrderStatus::Delivered => Some(EventKind::OrderDelivered),
        OrderStatus::Cancelled => Some(EventKind::OrderCancelled),
    }
}

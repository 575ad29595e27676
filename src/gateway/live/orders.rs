//! One open order: where it stands, what has been told of it, and what a place sees of it.
//!
//! Owns what follows from an order and its events alone. Promises that it is a function of the
//! two, whichever came first. Memory: at most [`EVENTS_KEPT`] events an order.

use serde::Serialize;
use utoipa::ToSchema;

use super::told::Told;
use crate::model::{EventKind, Leg, Order, OrderStatus, Position, Stop, TimeMs};

/// So many of its last events are kept of an order.
pub(super) const EVENTS_KEPT: usize = 64;

/// An order that has not been removed, nor ended long ago.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) order: Order,
    /// The view's version when its status, driver or stops last changed.
    pub(super) version: u64,
    /// Since when it has ended, by the Kafka timestamp.
    pub(super) ended_ms: Option<TimeMs>,
    /// Since when the stops are where they are; what was told of a leg before that was of
    /// another. Kafka timestamps.
    moved_ms: [TimeMs; 2],
    /// In the order in which they were told, each with the view's version when it came.
    events: Vec<(u64, Told)>,
}

/// How an order stands as one of its places sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PlaceState)]
pub(super) enum State {
    Waiting,
    Coming,
    Near,
    Arrived,
    PickedUp,
    Departed,
    Ended,
}

impl Followed {
    pub(super) fn new(order: Order, version: u64) -> Self {
        Self {
            order,
            version,
            ended_ms: None,
            moved_ms: [TimeMs::MIN; 2],
            events: Vec::new(),
        }
    }

    /// Takes a newer version of an order that is open; whether anything that counts is new.
    pub(super) fn revise(&mut self, order: Order, received_ms: TimeMs, version: u64) -> bool {
        let was = &self.order;
        let pickup_moved = was.pickup != order.pickup;
        let dropoff_moved = was.dropoff != order.dropoff;
        let stands = was.status == order.status && was.driver == order.driver;
        if stands && !pickup_moved && !dropoff_moved {
            return false;
        }
        for (moved, at) in [pickup_moved, dropoff_moved].into_iter().zip(0..) {
            if moved {
                self.moved_ms[at] = received_ms;
            }
        }
        self.version = version;
        self.order = order;
        true
    }

    /// Takes an event; whether it is news.
    pub(super) fn tell(&mut self, told: Told, version: u64) -> bool {
        if self.events.iter().any(|(_, known)| known.id == told.id) {
            return false;
        }
        let after = |(_, known): &(u64, Told)| known.standing() <= told.standing();
        let at = self.events.partition_point(after);
        self.events.insert(at, (version, told));
        if self.events.len() > EVENTS_KEPT {
            self.events.remove(0);
        }
        true
    }

    /// What may be shown of what was told: not of legs of a driver that carries it no more.
    pub(super) fn events(&self) -> impl Iterator<Item = &(u64, Told)> {
        (self.events.iter())
            .filter(|(_, told)| told.leg.is_none() || self.order.driver == Some(told.driver))
    }

    /// The leg that the driver is on, and its end.
    pub(super) fn target(&self) -> Option<(Leg, &Stop)> {
        match self.order.status {
            OrderStatus::Assigned => Some((Leg::Pickup, &self.order.pickup)),
            OrderStatus::PickedUp => Some((Leg::Dropoff, &self.order.dropoff)),
            OrderStatus::Placed | OrderStatus::Delivered | OrderStatus::Cancelled => None,
        }
    }

    /// Which end of the order a place is; of one that is both, the one that matters now.
    pub(super) fn leg_at(&self, place: &str) -> Option<Leg> {
        let is = |stop: &Stop| stop.place.as_deref() == Some(place);
        match (is(&self.order.pickup), is(&self.order.dropoff)) {
            (true, true) if self.order.status == OrderStatus::PickedUp => Some(Leg::Dropoff),
            (true, _) => Some(Leg::Pickup),
            (false, true) => Some(Leg::Dropoff),
            (false, false) => None,
        }
    }

    /// Where an end of the order is.
    pub(super) fn stop(&self, leg: Leg) -> Position {
        match leg {
            Leg::Pickup => self.order.pickup.position,
            Leg::Dropoff => self.order.dropoff.position,
        }
    }

    /// How it stands as seen from one end, and since when by event time.
    pub(super) fn state(&self, end: Leg) -> (State, TimeMs) {
        let order = &self.order;
        let since = order.updated_at_ms;
        let told = self.last_told(end);
        match (order.status, end) {
            (OrderStatus::Delivered | OrderStatus::Cancelled, _) => (State::Ended, since),
            (OrderStatus::Placed, _) | (OrderStatus::Assigned, Leg::Dropoff) => {
                (State::Waiting, since)
            }
            (OrderStatus::Assigned, Leg::Pickup) | (OrderStatus::PickedUp, Leg::Dropoff) => {
                told.unwrap_or((State::Coming, since))
            }
            (OrderStatus::PickedUp, Leg::Pickup) => match told {
                Some((State::Departed, at)) => (State::Departed, at.max(since)),
                _ => (State::PickedUp, since),
            },
        }
    }

    /// The last that was told of this driver's leg to where it ends now.
    fn last_told(&self, leg: Leg) -> Option<(State, TimeMs)> {
        let moved_ms = self.moved_ms[match leg {
            Leg::Pickup => 0,
            Leg::Dropoff => 1,
        }];
        self.events.iter().rev().find_map(|(_, told)| {
            let of_it = told.leg == Some(leg)
                && self.order.driver == Some(told.driver)
                && told.detected_at_ms >= moved_ms;
            if !of_it {
                return None;
            }
            let state = match told.kind {
                EventKind::AgentNear => State::Near,
                EventKind::AgentArrived => State::Arrived,
                EventKind::AgentDeparted => State::Departed,
                _ => return None,
            };
            Some((state, told.at_ms))
        })
    }
}

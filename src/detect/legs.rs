//! The legs that a driver has, and had, of one order.
//!
//! A leg is (order, driver, target). Coming back to a target begins no new leg, so a driver
//! remembers the legs that an order gave it until the order ends or is removed, also while
//! the order is another driver's.

use serde::{Deserialize, Serialize};

use super::Rules;
use super::near::Near;
use super::orders::OrderStep;
use super::stay::Stay;
use crate::geo::Tile;
use crate::model::{Leg, OrderId, OrderStatus, Stop};

/// What a driver knows of one order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OrderLegs {
    /// The order.
    pub(super) order: OrderId,
    /// Where the order stands, whoever carries it.
    pub(super) status: OrderStatus,
    /// All legs begun, the oldest first.
    pub(super) legs: Vec<LegState>,
    /// Which of them is open.
    pub(super) open: Option<usize>,
}

/// One leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LegState {
    /// To which end of the order.
    pub(super) leg: Leg,
    /// The target.
    pub(super) stop: Stop,
    /// Whether coming near is still to be told.
    pub(super) near: Near,
    /// Where the driver stands between arriving and departing.
    pub(super) stay: Stay,
}

impl LegState {
    /// Farther than that from the target, metres, a fix changes nothing of the leg; infinite if
    /// it does anywhere, and below 0 if it does nowhere.
    pub(super) fn reach_m(&self, open: bool, rules: &Rules) -> f64 {
        const NOWHERE: f64 = f64::NEG_INFINITY;
        let near_m = match self.near {
            _ if !open => NOWHERE,
            Near::Armed => rules.near_m,
            Near::Told if rules.near_repeat => f64::INFINITY,
            Near::Told => NOWHERE,
        };
        let stay_m = match self.stay {
            Stay::Away if open => rules.arrive_m,
            Stay::Away | Stay::Departed => NOWHERE,
            Stay::Within(_) | Stay::Arrived(_) => f64::INFINITY,
        };
        near_m.max(stay_m)
    }
}

impl OrderLegs {
    /// Whether no fix in a tile changes anything of any leg.
    pub(super) fn are_far_from(&self, tile: Tile, rules: &Rules) -> bool {
        (self.legs.iter().enumerate()).all(|(number, leg)| {
            let reach_m = leg.reach_m(self.open == Some(number), rules);
            tile.is_beyond_m(leg.stop.position, reach_m)
        })
    }

    /// What a driver knows after a step of an order, given what it knew of it before; `None`
    /// once there is nothing to know.
    pub(super) fn follow(before: Option<Self>, step: OrderStep) -> Option<Self> {
        let status = step.status.filter(|status| !status.is_ended())?;
        let mut after = match before {
            None => {
                step.leg.as_ref()?;
                Self {
                    order: step.order,
                    status,
                    legs: Vec::new(),
                    open: None,
                }
            }
            Some(before) => before,
        };
        after.status = status;
        let open = step.leg.map(|(leg, stop)| after.leg_to(leg, stop));
        if let Some(over) = after.open.filter(|over| open != Some(*over)) {
            after.legs[over].stay.close();
        }
        after.open = open;
        Some(after)
    }

    /// The leg to a target, begun unless it has been before; its place id may have changed.
    fn leg_to(&mut self, leg: Leg, stop: Stop) -> usize {
        let same = |known: &LegState| known.leg == leg && known.stop.position == stop.position;
        if let Some(known) = self.legs.iter().position(same) {
            self.legs[known].stop = stop;
            return known;
        }
        self.legs.push(LegState {
            leg,
            stop,
            near: Near::Armed,
            stay: Stay::Away,
        });
        self.legs.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DriverId, Input, Place, Position, Source};

    fn step(status: Option<OrderStatus>, leg: Option<(Leg, f64)>) -> OrderStep {
        let source = Source {
            input: Input::Orders,
            partition: 0,
            offset: 0,
        };
        OrderStep {
            place: Place { at_ms: 0, source },
            driver: DriverId(1),
            order: OrderId("o".into()),
            event_time_ms: 0,
            tell: None,
            status,
            leg: leg.map(|(leg, longitude)| {
                let position = Position {
                    longitude,
                    latitude: 0.0,
                };
                let place = None;
                (leg, Stop { position, place })
            }),
            dropoff: None,
        }
    }

    /// Steps, and how many legs are known and which is open after each.
    #[test]
    fn coming_back_to_a_target_begins_no_leg() {
        use OrderStatus::{Assigned, PickedUp, Placed};
        let mut state = None;
        for (status, leg, expected) in [
            (Some(Placed), None, None),
            (Some(Assigned), Some((Leg::Pickup, 1.0)), Some((1, Some(0)))),
            (Some(Assigned), Some((Leg::Pickup, 2.0)), Some((2, Some(1)))),
            (Some(Assigned), Some((Leg::Pickup, 1.0)), Some((2, Some(0)))),
            (Some(Assigned), None, Some((2, None))),
            (Some(PickedUp), None, Some((2, None))),
            (
                Some(PickedUp),
                Some((Leg::Dropoff, 1.0)),
                Some((3, Some(2))),
            ),
            (Some(Assigned), Some((Leg::Pickup, 1.0)), Some((3, Some(0)))),
            (Some(OrderStatus::Delivered), None, None),
            (Some(Assigned), Some((Leg::Pickup, 1.0)), Some((1, Some(0)))),
            (None, None, None),
        ] {
            state = OrderLegs::follow(state, step(status, leg));
            let got = state.as_ref().map(|s: &OrderLegs| (s.legs.len(), s.open));
            assert_eq!(got, expected, "{status:?} {leg:?}");
            assert_eq!(
                state.as_ref().map(|s| s.status),
                status.filter(|_| got.is_some())
            );
        }
    }
}

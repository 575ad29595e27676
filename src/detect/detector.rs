//! One worker's drivers, and the fences.

use super::Rules;
use super::drivers::{Driver, Drivers, Fix};
use super::fences::Fences;
use super::flags;
use super::orders::OrderStep;
use super::telling::{Telling, arrange};
use super::visits::{self, Stand};
use crate::geo::{Area, FenceIndex, LonLatBox, distance_m};
use crate::model::{
    Cause, Event, EventKind, FenceChange, FenceId, Flag, Position, Subject, TimeMs, Update,
};

/// The state of the drivers that one worker owns, and all fences.
///
/// Inputs come in their merged order, with the `now` of their epoch. Each input's events are
/// appended in telling order.
#[derive(Clone, Debug)]
pub struct Detector {
    rules: Rules,
    drivers: Drivers,
    fences: Fences,
    /// Room for the slots of the fences around a fix.
    inside: Vec<u32>,
}

impl Detector {
    /// A detector that knows no driver and no fence.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            drivers: Drivers::default(),
            fences: Fences::default(),
            inside: Vec::new(),
        }
    }

    /// How many drivers are known.
    pub fn driver_count(&self) -> usize {
        self.drivers.records.len()
    }

    /// How many fences are in force.
    pub fn fence_count(&self) -> usize {
        self.fences.len()
    }

    /// Puts a version of a fence in force, or takes the fence out of force, and judges it at
    /// once against each driver's last `ok` fix. Every worker must be told.
    ///
    /// Looks at each driver's position once, to test it against the fence's box (100,000
    /// drivers: a fraction of a millisecond), and at each driver's visits if the fence has
    /// any visitors.
    ///
    /// A geometry that [`crate::geo::validate`] refuses leaves the version before in force.
    pub fn on_fence(&mut self, change: FenceChange, now_ms: TimeMs, out: &mut Vec<Event>) {
        let telling = Telling {
            cause: Cause::Fence,
            place: change.place,
            event_time_ms: change.place.at_ms,
            now_ms,
        };
        let first = out.len();
        match change.fence {
            None => {
                if let Some(slot) = self.fences.slot(&change.id) {
                    self.judge_fence(slot, None, &telling, out);
                    self.fences.remove(slot);
                }
            }
            Some(fence) => {
                let Ok(area) = Area::new(&fence.geometry) else {
                    return;
                };
                let slot = self.fences.put(change.id, area, fence.exit_margin_m);
                let extent = self.fences.get(slot).map(|record| Extent::of(&record.area));
                self.judge_fence(slot, extent, &telling, out);
            }
        }
        arrange(out, first);
    }

    /// Judges all last fixes by the version in force at a slot; without an extent, the fence
    /// is being removed.
    fn judge_fence(
        &mut self,
        slot: u32,
        extent: Option<Extent>,
        telling: &Telling,
        out: &mut Vec<Event>,
    ) {
        let Some(fence) = self.fences.get_mut(slot) else {
            return;
        };
        let had_visitors = fence.visitors > 0;
        for (number, &position) in self.drivers.positions.iter().enumerate() {
            let around = (extent.as_ref()).is_some_and(|extent| extent.hull.holds(position));
            if !around && !had_visitors {
                continue;
            }
            let driver = &mut self.drivers.records[number];
            let visit = driver.visits.binary_search(&slot);
            let stand = if visit.is_ok() {
                Stand::Visiting
            } else {
                Stand::Outside
            };
            let inside = around
                && (extent.as_ref()).is_some_and(|extent| extent.contains(&fence.area, position));
            let removed = extent.is_none();
            let (_, kind) = visits::judge(stand, inside, || removed || fence.is_left_at(position));
            let Some(kind) = kind else {
                continue;
            };
            match visit {
                Ok(at) => {
                    driver.visits.remove(at);
                    fence.visitors -= 1;
                }
                Err(at) => {
                    driver.visits.insert(at, slot);
                    fence.visitors += 1;
                }
            }
            let subject = Subject::Fence(fence.id.clone());
            out.push(telling.event(kind, driver.id, subject, Some(position)));
        }
    }

    /// Follows an order's change as far as it is a driver's, and judges it at once against
    /// the driver's last `ok` fix.
    pub fn on_order(&mut self, step: OrderStep, now_ms: TimeMs, out: &mut Vec<Event>) {
        let telling = Telling {
            cause: Cause::Order,
            place: step.place,
            event_time_ms: step.event_time_ms,
            now_ms,
        };
        let known = match step.leg {
            Some(_) => Some(self.drivers.number(step.driver)),
            None => self.drivers.known(step.driver),
        };
        if let Some(kind) = step.tell {
            let fix = known.and_then(|number| self.drivers.records[number].last);
            out.push(order_event(
                &step,
                kind,
                fix.map(|fix| fix.position),
                &telling,
            ));
        }
        if let Some(number) = known {
            let driver = &mut self.drivers.records[number];
            if let (Some(at), Some(fix)) = (driver.follow(step), driver.last) {
                judge_near(driver, at, fix.position, &self.rules, &telling, out);
            }
        }
    }

    /// Judges an update; an `ok` one moves its driver.
    pub fn on_update(&mut self, update: &Update, now_ms: TimeMs, out: &mut Vec<Event>) -> Flag {
        let number = self.drivers.number(update.driver);
        let last_ok_ms = (self.drivers.records[number].last).map(|last| last.event_time_ms);
        let flag = flags::judge(last_ok_ms, update.event_time_ms);
        if flag != Flag::Ok {
            return flag;
        }
        let telling = Telling {
            cause: Cause::Position,
            place: update.place,
            event_time_ms: update.event_time_ms,
            now_ms,
        };
        let first = out.len();
        let fix = Fix {
            position: update.position,
            event_time_ms: update.event_time_ms,
            speed_mps: update.speed_mps,
        };
        self.drivers.note(number, fix);
        self.judge_visits(number, fix.position, last_ok_ms.is_none(), &telling, out);
        let driver = &mut self.drivers.records[number];
        for at in 0..driver.orders.len() {
            judge_near(driver, at, fix.position, &self.rules, &telling, out);
        }
        arrange(out, first);
        flag
    }

    /// Judges a driver's new fix by all fences that it is inside of or was visiting.
    fn judge_visits(
        &mut self,
        number: usize,
        position: Position,
        initial: bool,
        telling: &Telling,
        out: &mut Vec<Event>,
    ) {
        let Self {
            drivers,
            fences,
            inside,
            ..
        } = self;
        fences.containing(position, inside);
        let driver = &mut drivers.records[number];
        if *inside == driver.visits {
            return;
        }
        let event = |kind, fence: &FenceId| {
            telling.event(
                kind,
                driver.id,
                Subject::Fence(fence.clone()),
                Some(position),
            )
        };
        driver.visits.retain(|&slot| {
            let Some(fence) = fences.get_mut(slot) else {
                return false;
            };
            let inside = inside.binary_search(&slot).is_ok();
            let (stand, kind) =
                visits::judge(Stand::Visiting, inside, || fence.is_left_at(position));
            if let Some(kind) = kind {
                fence.visitors -= 1;
                out.push(event(kind, &fence.id));
            }
            stand == Stand::Visiting
        });
        let kept = driver.visits.len();
        for &slot in inside.iter() {
            let (Err(_), Some(fence)) = (
                driver.visits[..kept].binary_search(&slot),
                fences.get_mut(slot),
            ) else {
                continue;
            };
            let (_, kind) = visits::judge(Stand::Outside, true, || false);
            if let Some(kind) = kind {
                fence.visitors += 1;
                driver.visits.push(slot);
                out.push(Event {
                    initial,
                    ..event(kind, &fence.id)
                });
            }
        }
        driver.visits.sort_unstable();
    }
}

/// Where a version of a fence may contain something: a box around it all for most drivers,
/// an index of its parts for the rest.
struct Extent {
    hull: LonLatBox,
    parts: FenceIndex,
}

impl Extent {
    fn of(area: &Area) -> Self {
        let boxes = area.boxes();
        let hull = LonLatBox::hull(&boxes);
        let mut parts = FenceIndex::new();
        parts.insert(0, boxes);
        Self { hull, parts }
    }

    fn contains(&self, area: &Area, position: Position) -> bool {
        let mut inside = false;
        self.parts.visit(position, |_, part| {
            inside = inside || area.part_contains(part, position);
        });
        inside
    }
}

/// An `order.*` event. Only a delivery is judged by a fix.
fn order_event(
    step: &OrderStep,
    kind: EventKind,
    fix: Option<Position>,
    telling: &Telling,
) -> Event {
    let dropoff = step.dropoff.as_ref();
    let position = fix.filter(|_| dropoff.is_some());
    let subject = Subject::Order(step.order.clone());
    Event {
        at_place: dropoff.and_then(|stop| stop.place.clone()),
        status: step.status,
        distance_m: position
            .zip(dropoff)
            .map(|(position, stop)| distance_m(position, stop.position)),
        ..telling.event(kind, step.driver, subject, position)
    }
}

/// Judges the open leg of one of a driver's orders by the last `ok` fix.
fn judge_near(
    driver: &mut Driver,
    at: usize,
    position: Position,
    rules: &Rules,
    telling: &Telling,
    out: &mut Vec<Event>,
) {
    let Some(target) = driver.orders[at].target() else {
        return;
    };
    let distance = distance_m(position, target);
    let Some(leg) = driver.orders[at].open_mut() else {
        return;
    };
    let (near, tell) = leg.near.judge(distance, rules);
    leg.near = near;
    if tell {
        let (kind, at_place) = (leg.leg, leg.stop.place.clone());
        let order = &driver.orders[at];
        let subject = Subject::Leg(order.order.clone(), kind);
        out.push(Event {
            at_place,
            status: Some(order.status),
            distance_m: Some(distance),
            eta_s: driver.eta_s(distance),
            ..telling.event(EventKind::AgentNear, driver.id, subject, Some(position))
        });
    }
}

//! Fixes against fences and legs: what an update or an order changes.

use super::Rules;
use super::detector::{Detector, Outputs};
use super::drivers::{Driver, Fix};
use super::flags;
use super::orders::OrderStep;
use super::stay::Stay;
use super::telling::{Telling, arrange};
use super::tiles::{Ground, Legs};
use super::timers::NEVER;
use super::visits::{self, Stand, Visit};
use crate::geo::{Segment, Tile, distance_m, is_clearly_beyond_m};
use crate::model::{
    Cause, Event, EventKind, FenceId, Flag, Location, Place, Position, Subject, TimeMs, Update,
};

impl Detector {
    /// Judges an update at its place; what was told from `first` on is of the same record.
    pub(super) fn judge_update(
        &mut self,
        number: usize,
        update: Update,
        place: Place,
        now_ms: TimeMs,
        first: usize,
        out: &mut Outputs,
    ) {
        let at = out.judged.len();
        out.judged.push(Location {
            update,
            flag: Flag::Ok,
        });
        let update = &out.judged[at].update;
        let driver = &mut self.drivers.records[number];
        let last = driver.last.map(|fix| fix.spot());
        let verdict = flags::judge(last, driver.teleport(), update, &self.rules);
        match verdict.flag {
            Flag::Ok => {
                let telling = Telling {
                    cause: Cause::Position,
                    place,
                    event_time_ms: update.event_time_ms,
                    now_ms,
                };
                let fix = Fix {
                    position: update.position,
                    event_time_ms: update.event_time_ms,
                    speed_mps: update.speed_mps,
                };
                self.move_driver(number, fix, verdict.jumped, &telling, out);
                arrange(&mut out.events, first);
            }
            Flag::Teleport => driver.remember(flags::Spot::of(update)),
            Flag::Late | Flag::Duplicate | Flag::Inaccurate => {}
        }
        out.judged[at].flag = verdict.flag;
    }

    /// Takes an `ok` fix.
    fn move_driver(
        &mut self,
        number: usize,
        fix: Fix,
        jumped: bool,
        telling: &Telling,
        out: &mut Outputs,
    ) {
        self.meet_event_time(number, fix.event_time_ms, telling, out);
        let before = self.drivers.records[number].last;
        self.drivers.note(number, fix);
        let tile = Tile::at(fix.position);
        let ground = &mut self.drivers.records[number].ground;
        if ground.tile != tile {
            *ground = Ground {
                tile,
                ..Ground::default()
            };
        }
        let mut after_ms = NEVER;
        if !ground.even {
            let way = before.filter(|before| {
                !jumped
                    && before.position != fix.position
                    && fix.event_time_ms.saturating_sub(before.event_time_ms)
                        <= self.spans.crossing_gap_ms
            });
            let way = way.map(|before| {
                let from = before.position;
                (from, Segment::between(from, fix.position))
            });
            let initial = before.is_none();
            after_ms =
                self.judge_visits(number, fix.position, initial, way, telling, &mut out.events);
        }
        let driver = &mut self.drivers.records[number];
        if driver.ground.legs != Legs::Far {
            let arrive_ms = self.spans.arrive_ms;
            for at in 0..driver.orders.len() {
                let stays =
                    judge_legs(driver, at, &self.rules, arrive_ms, telling, &mut out.events);
                if stays {
                    after_ms = after_ms.min(arrive_ms);
                }
            }
            driver.find_far(&self.rules);
        }
        if after_ms != NEVER {
            self.expect(number, &telling.begun(), after_ms);
        }
    }

    /// Judges a driver's new fix by all fences that it is inside of or was visiting, or that
    /// lie on its way. Returns after how long the first of the visits that it begins dwells.
    fn judge_visits(
        &mut self,
        number: usize,
        position: Position,
        initial: bool,
        way: Option<(Position, Segment)>,
        telling: &Telling,
        out: &mut Vec<Event>,
    ) -> TimeMs {
        let Self {
            drivers,
            fences,
            inside,
            passed,
            ..
        } = self;
        let is_even = fences.look(position, way, inside, passed);
        let driver = &mut drivers.records[number];
        let visits = &mut driver.visits;
        let slots = visits.iter().map(|visit| visit.slot);
        let unchanged = inside.iter().copied().eq(slots);
        driver.ground.even = is_even && unchanged;
        if unchanged && passed.is_empty() {
            return NEVER;
        }
        let event = |kind, fence: &FenceId| {
            let subject = Subject::Fence(fence.clone());
            telling.event(kind, driver.id, subject, Some(position))
        };
        if let Some((_, way)) = &way {
            passed.retain(|&(slot, part)| {
                inside.binary_search(&slot).is_err()
                    && visits
                        .binary_search_by_key(&slot, |visit| visit.slot)
                        .is_err()
                    && (fences.get(slot)).is_some_and(|f| f.area.part_is_crossed(part, way))
            });
            passed.sort_unstable();
            passed.dedup_by_key(|(slot, _)| *slot);
            for (slot, _) in passed.iter() {
                if let Some(fence) = fences.get(*slot) {
                    out.push(event(EventKind::GeofenceCrossed, &fence.id));
                }
            }
        }
        if unchanged {
            return NEVER;
        }
        visits.retain(|visit| {
            let Some(fence) = fences.get_mut(visit.slot) else {
                return false;
            };
            let inside = inside.binary_search(&visit.slot).is_ok();
            let (stand, kind) =
                visits::judge(Stand::Visiting, inside, || fence.is_left_at(position));
            if let Some(kind) = kind {
                fence.visitors -= 1;
                out.push(Event {
                    dwell_s: Some(visit.begun.seconds_to(telling.event_time_ms)),
                    ..event(kind, &fence.id)
                });
            }
            stand == Stand::Visiting
        });
        let kept = visits.len();
        let mut after_ms = NEVER;
        for &slot in inside.iter() {
            let (Err(_), Some(fence)) = (
                visits[..kept].binary_search_by_key(&slot, |visit| visit.slot),
                fences.get_mut(slot),
            ) else {
                continue;
            };
            let (_, kind) = visits::judge(Stand::Outside, true, || false);
            if let Some(kind) = kind {
                fence.visitors += 1;
                out.push(Event {
                    initial,
                    ..event(kind, &fence.id)
                });
                let (visit, dwells) = Visit::begin(slot, telling.begun(), fence.dwell_ms);
                if dwells {
                    out.push(Event {
                        dwell_s: Some(0.0),
                        ..event(EventKind::GeofenceDwelled, &fence.id)
                    });
                }
                after_ms = after_ms.min(visit.dwells_after_ms().unwrap_or(NEVER));
                // A driver has few, so room for more than there are would be most of what it takes.
                visits.reserve_exact(1);
                visits.push(visit);
            }
        }
        visits.sort_unstable_by_key(|visit| visit.slot);
        after_ms
    }

    /// Tells of an order's step, follows it and judges the driver's last fix by its legs.
    pub(super) fn judge_order(
        &mut self,
        known: Option<usize>,
        step: OrderStep,
        telling: &Telling,
        out: &mut Vec<Event>,
    ) {
        if let Some(kind) = step.tell {
            let fix = known.and_then(|number| self.drivers.records[number].last);
            let fix = fix.map(|fix| fix.position);
            out.push(order_event(&step, kind, fix, telling));
        }
        let Some(number) = known else {
            return;
        };
        let driver = &mut self.drivers.records[number];
        driver.changed = true;
        driver.ground.legs = Legs::Unknown;
        let at = driver.follow(step);
        let any_open = driver.has_open_order();
        driver.silence.follow(any_open, telling.begun());
        if let (Some(at), Some(_)) = (at, driver.last) {
            let arrive_ms = self.spans.arrive_ms;
            if judge_legs(driver, at, &self.rules, arrive_ms, telling, out) {
                self.expect(number, &telling.begun(), arrive_ms);
            }
        }
        self.expect_silence(number);
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

/// Judges the legs of one of a driver's orders by its last fix: the open one, and those that
/// it arrived by and may depart from. Returns whether a stay begins.
fn judge_legs(
    driver: &mut Driver,
    at: usize,
    rules: &Rules,
    arrive_ms: TimeMs,
    telling: &Telling,
    out: &mut Vec<Event>,
) -> bool {
    let Some(position) = driver.last.map(|fix| fix.position) else {
        return false;
    };
    let first = out.len();
    let mut begins = false;
    for number in 0..driver.orders[at].legs.len() {
        let order = &mut driver.orders[at];
        let open = order.open == Some(number);
        let leg = &mut order.legs[number];
        let arrived = match leg.stay {
            Stay::Arrived(begun) => Some(begun),
            _ => None,
        };
        if !open && arrived.is_none() {
            continue;
        }
        if is_clearly_beyond_m(position, leg.stop.position, leg.reach_m(open, rules)) {
            continue;
        }
        let distance = distance_m(position, leg.stop.position);
        let mut near = false;
        if open {
            (leg.near, near) = leg.near.judge(distance, rules);
        }
        let before = leg.stay;
        let (stay, tell) = before.judge(open, distance, telling.begun(), rules, arrive_ms);
        leg.stay = stay;
        begins |= before.pending().is_none() && stay.pending().is_some();
        let kind = leg.leg;
        if !near && tell.is_none() {
            continue;
        }
        let (order, leg) = (&driver.orders[at], &driver.orders[at].legs[number]);
        let event = |told| Event {
            at_place: leg.stop.place.clone(),
            status: Some(order.status),
            distance_m: Some(distance),
            ..telling.event(
                told,
                driver.id,
                Subject::Leg(order.order.clone(), kind),
                Some(position),
            )
        };
        if near {
            out.push(Event {
                eta_s: driver.eta_s(distance),
                ..event(EventKind::AgentNear)
            });
        }
        if let Some(told) = tell {
            let since = arrived.unwrap_or(telling.begun());
            let event = Event {
                dwell_s: Some(since.seconds_to(telling.event_time_ms)),
                ..event(told)
            };
            // An order whose target moved may be departed from twice at once; that is told
            // once, of the target that was the last.
            let same = |told: &Event| told.kind == event.kind && told.subject == event.subject;
            match out[first..].iter().position(same) {
                Some(earlier) => out[first + earlier] = event,
                None => out.push(event),
            }
        }
    }
    begins
}

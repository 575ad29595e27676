//! One worker's drivers and fences, in the merged order of records, releases and deadlines.

use super::Rules;
use super::ahead::Ahead;
use super::drivers::{Driver, Drivers};
use super::fences::Fences;
use super::orders::OrderStep;
use super::rules::Spans;
use super::stay::Stay;
use super::telling::{Telling, arrange};
use super::timers::{self, Agenda, Begun, Moment, NEVER, seconds};
use super::visits::Dwell;
use crate::geo::{Area, distance_m};
use crate::model::{
    Cause, DriverId, Event, EventKind, FenceChange, Location, Place, Sequence, Subject, TimeMs,
    Update,
};

/// The state of the drivers that one worker owns, and all fences.
///
/// Inputs come in their merged order, with the `now` of their epoch, which lies after all of
/// them; [`Detector::end_epoch`] ends the epoch. Deadlines are met between the records, each
/// at its own time: before a driver's next record, before a fence's change, or else at the
/// end of the epoch. So what is told depends neither on where epochs end nor on which other
/// drivers a worker owns.
///
/// With lateness, an update stands in the merged order where it is judged: at its event time
/// and that much more, if that is later than its own place. There it counts as a record of
/// that time, after fences and orders, and what it starts is counted from there. It is a sign
/// of life where it came.
#[derive(Clone, Debug)]
pub struct Detector {
    pub(super) rules: Rules,
    pub(super) spans: Spans,
    pub(super) drivers: Drivers,
    pub(super) fences: Fences,
    pub(super) agenda: Agenda,
    pub(super) ahead: Ahead,
    /// Room for the slots of the fences around a fix.
    pub(super) inside: Vec<u32>,
    /// Room for the parts of fences that may lie on the way to it.
    pub(super) passed: Vec<(u32, u32)>,
    /// Room for the numbers of drivers whose time has come.
    due: Vec<u32>,
}

/// What a detector has to say; it only appends.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// What was told: for each driver in telling order.
    pub events: Vec<Event>,
    /// Each valid update once, when it is judged.
    pub judged: Vec<Location>,
    /// How many updates were dropped as resent.
    pub resent: u64,
}

/// Which timers are due.
#[derive(Clone, Copy)]
enum Due {
    /// Those whose time on the clock has come.
    Clock(TimeMs),
    /// The dwells and arrivals that a fix, at its place, shows to be due by event time.
    EventTime(TimeMs, Place),
}

impl Due {
    /// Where the event of a timer stands, if the timer is due.
    fn place(self, begun: &Begun, after_ms: TimeMs) -> Option<Place> {
        match self {
            Self::Clock(at_ms) => (begun.due_ms(after_ms) <= at_ms).then_some(Place {
                at_ms,
                source: begun.place.source,
            }),
            Self::EventTime(until_ms, place) => {
                (begun.due_event_ms(after_ms) <= until_ms).then_some(place)
            }
        }
    }
}

impl Detector {
    /// A detector that knows no driver and no fence.
    pub fn new(rules: Rules) -> Self {
        Self {
            spans: Spans::of(&rules),
            rules,
            drivers: Drivers::default(),
            fences: Fences::default(),
            agenda: Agenda::default(),
            ahead: Ahead::default(),
            inside: Vec::new(),
            passed: Vec::new(),
            due: Vec::new(),
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

    /// When something is due though nothing may come: no later than the earliest deadline or
    /// release, and sometimes before, when there is nothing to be done but to ask again.
    pub fn next_deadline(&self) -> Option<TimeMs> {
        self.agenda.first()
    }

    /// Puts a version of a fence in force, or takes the fence out of force, and judges it at
    /// once against each driver's last `ok` fix. Every worker must be told.
    ///
    /// Looks at each driver's position once, to test it against the fence's box (100,000
    /// drivers: a fraction of a millisecond), and at each driver's visits if the fence has
    /// any visitors.
    ///
    /// A geometry that [`crate::geo::validate`] refuses leaves the version before in force.
    pub fn on_fence(&mut self, change: FenceChange, now_ms: TimeMs, out: &mut Outputs) {
        let place = change.place;
        let first = out.events.len();
        self.meet_deadlines(place.at_ms, timers::of(place), now_ms, out);
        arrange(&mut out.events, first);
        let telling = Telling {
            cause: Cause::Fence,
            place,
            event_time_ms: place.at_ms,
            now_ms,
        };
        let first = out.events.len();
        match change.fence {
            None => {
                if let Some(slot) = self.fences.slot(&change.id) {
                    self.judge_fence(slot, false, &telling, &mut out.events);
                    self.fences.remove(slot);
                }
            }
            Some(fence) => {
                let Ok(area) = Area::new(&fence.geometry) else {
                    return;
                };
                let slot = self.fences.put(fence, area);
                self.judge_fence(slot, true, &telling, &mut out.events);
            }
        }
        arrange(&mut out.events, first);
    }

    /// Follows an order's change as far as it is a driver's, and judges it at once against
    /// the driver's last `ok` fix.
    pub fn on_order(&mut self, step: OrderStep, now_ms: TimeMs, out: &mut Outputs) {
        let number = match step.leg {
            Some(_) => Some(self.drivers.number(step.driver)),
            None => self.drivers.known(step.driver),
        };
        if let Some(number) = number {
            self.catch_up(number, step.place, now_ms, out);
        }
        let telling = Telling {
            cause: Cause::Order,
            place: step.place,
            event_time_ms: step.event_time_ms,
            now_ms,
        };
        self.judge_order(number, step, &telling, &mut out.events);
    }

    /// Judges an update, at once or when it is released; an `ok` one moves its driver.
    pub fn on_update(&mut self, update: Update, now_ms: TimeMs, out: &mut Outputs) {
        let number = self.number(update.driver);
        self.hear(number, update, now_ms, out);
    }

    /// As [`Detector::on_update`], of an update that bears a number; a resent one is dropped
    /// and leaves no other trace than in [`Outputs::resent`]: it isn't even a sign of life.
    pub fn on_numbered_update(
        &mut self,
        update: Update,
        sequence: Sequence,
        now_ms: TimeMs,
        out: &mut Outputs,
    ) {
        let number = self.number(update.driver);
        let partition = update.place.source.partition;
        if self.drivers.records[number].is_new(partition, sequence) {
            self.hear(number, update, now_ms, out);
        } else {
            out.resent += 1;
        }
    }

    /// The number of an update's driver, given now if it has none yet.
    #[inline]
    fn number(&mut self, driver: DriverId) -> usize {
        let known = self.ahead.number(driver);
        known.unwrap_or_else(|| self.drivers.number(driver))
    }

    /// Takes an update's sign of life, and judges it or holds it.
    #[inline]
    fn hear(&mut self, number: usize, update: Update, now_ms: TimeMs, out: &mut Outputs) {
        let place = update.place;
        self.catch_up(number, place, now_ms, out);
        let first = out.events.len();
        let telling = Telling {
            cause: Cause::Position,
            place,
            event_time_ms: update.event_time_ms,
            now_ms,
        };
        let driver = &mut self.drivers.records[number];
        driver.changed = true;
        if driver.silence.hear(telling.begun()) {
            let position = Some(update.position);
            let kind = EventKind::DriverResumed;
            out.events
                .push(telling.event(kind, driver.id, Subject::Driver, position));
            self.expect_silence(number);
        }
        let lateness_ms = self.spans.lateness_ms;
        let release_ms = update.event_time_ms.saturating_add(lateness_ms);
        if lateness_ms > 0 && release_ms > place.at_ms {
            let at_ms = release_ms;
            self.drivers.records[number].hold(Place { at_ms, ..place }, update);
            self.wake(number, release_ms);
        } else {
            self.judge_update(number, update, place, now_ms, first, out);
        }
    }

    /// Meets all deadlines and releases before `now_ms`, which the next epoch begins with.
    pub fn end_epoch(&mut self, now_ms: TimeMs, out: &mut Outputs) {
        let first = out.events.len();
        self.meet_deadlines(now_ms.saturating_sub(1), (now_ms, None), now_ms, out);
        arrange(&mut out.events, first);
    }

    /// Has a driver looked at for a timer that begins.
    pub(super) fn expect(&mut self, number: usize, begun: &Begun, after_ms: TimeMs) {
        let driver = &mut self.drivers.records[number];
        driver.expect(number, begun, after_ms, &mut self.agenda);
    }

    /// Has a driver looked at no later than at a time.
    fn wake(&mut self, number: usize, at_ms: TimeMs) {
        self.drivers.records[number].wake(number, at_ms, &mut self.agenda);
    }

    /// Has a driver looked at when it becomes silent.
    pub(super) fn expect_silence(&mut self, number: usize) {
        let from = self.drivers.records[number].silence.counts_from();
        if let Some(begun) = from {
            self.wake(number, begun.due_ms(self.spans.silent_ms));
        }
    }

    /// All drivers' deadlines and releases before a moment, which is not after `until_ms`.
    fn meet_deadlines(
        &mut self,
        until_ms: TimeMs,
        before: Moment,
        now_ms: TimeMs,
        out: &mut Outputs,
    ) {
        if self.agenda.first().is_none_or(|first| first > until_ms) {
            return;
        }
        let mut due = std::mem::take(&mut self.due);
        self.agenda.until(until_ms, &mut due);
        for number in due.drain(..) {
            self.meet_deadlines_of(number as usize, before, now_ms, out);
        }
        self.due = due;
    }

    /// One driver's deadlines and releases before a record of its.
    fn catch_up(&mut self, number: usize, place: Place, now_ms: TimeMs, out: &mut Outputs) {
        if self.drivers.records[number].wake_ms <= place.at_ms {
            self.meet_deadlines_of(number, timers::of(place), now_ms, out);
        }
    }

    fn meet_deadlines_of(
        &mut self,
        number: usize,
        before: Moment,
        now_ms: TimeMs,
        out: &mut Outputs,
    ) {
        loop {
            let driver = &mut self.drivers.records[number];
            let due_ms = driver.first_deadline(&self.spans);
            let timer = (due_ms, None);
            let release = (driver.next_release()).map_or((NEVER, None), timers::of);
            if timer.min(release) >= before {
                let next_ms = due_ms.min(release.0);
                self.agenda.set(number, driver.wake_ms, next_ms);
                driver.wake_ms = next_ms;
                return;
            }
            let first = out.events.len();
            if timer <= release {
                self.fire(number, Due::Clock(due_ms), now_ms, out);
                arrange(&mut out.events, first);
            } else if let Some(held) = driver.release() {
                self.judge_update(number, held.update, held.place, now_ms, first, out);
            }
        }
    }

    /// The dwells and arrivals that a fix shows to be due by event time, before it is judged.
    pub(super) fn meet_event_time(
        &mut self,
        number: usize,
        until_ms: TimeMs,
        telling: &Telling,
        out: &mut Outputs,
    ) {
        if self.drivers.records[number].wake_event_ms <= until_ms {
            let due = Due::EventTime(until_ms, telling.place);
            self.fire(number, due, telling.now_ms, out);
            let driver = &mut self.drivers.records[number];
            driver.wake_event_ms = driver.first_event_deadline(&self.spans);
        }
    }

    /// Tells of all timers of a driver that are due.
    fn fire(&mut self, number: usize, due: Due, now_ms: TimeMs, out: &mut Outputs) {
        let Driver {
            id,
            last,
            visits,
            orders,
            silence,
            changed,
            ..
        } = &mut self.drivers.records[number];
        *changed = true;
        let position = last.map(|fix| fix.position);
        let timer = |kind, subject, place, begun: Begun, after_ms| {
            let telling = Telling {
                cause: Cause::Timer,
                place,
                event_time_ms: begun.due_event_ms(after_ms),
                now_ms,
            };
            Event {
                source: begun.place.source,
                ..telling.event(kind, *id, subject, position)
            }
        };
        for visit in visits {
            if let Some(after_ms) = visit.dwells_after_ms()
                && let Some(place) = due.place(&visit.begun, after_ms)
            {
                visit.dwell = Dwell::Told;
                let Some(fence) = self.fences.get(visit.slot) else {
                    continue;
                };
                let subject = Subject::Fence(fence.id.clone());
                let kind = EventKind::GeofenceDwelled;
                out.events.push(Event {
                    dwell_s: Some(seconds(after_ms)),
                    ..timer(kind, subject, place, visit.begun, after_ms)
                });
            }
        }
        let after_ms = self.spans.arrive_ms;
        for order in orders {
            for leg in &mut order.legs {
                let Some(begun) = leg.stay.pending() else {
                    continue;
                };
                let Some(place) = due.place(&begun, after_ms) else {
                    continue;
                };
                leg.stay = Stay::Arrived(begun);
                let subject = Subject::Leg(order.order.clone(), leg.leg);
                let kind = EventKind::AgentArrived;
                out.events.push(Event {
                    at_place: leg.stop.place.clone(),
                    status: Some(order.status),
                    distance_m: position.map(|position| distance_m(position, leg.stop.position)),
                    dwell_s: Some(seconds(after_ms)),
                    ..timer(kind, subject, place, begun, after_ms)
                });
            }
        }
        let after_ms = self.spans.silent_ms;
        if let Due::Clock(_) = due
            && let Some(begun) = silence.counts_from()
            && let Some(place) = due.place(&begun, after_ms)
        {
            silence.tell();
            let (kind, subject) = (EventKind::DriverSilent, Subject::Driver);
            out.events
                .push(timer(kind, subject, place, begun, after_ms));
        }
    }
}

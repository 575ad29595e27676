//! One dense record per driver.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::flags::Spot;
use super::legs::OrderLegs;
use super::orders::OrderStep;
use super::rules::{Rules, Spans};
use super::sessions::{self, Session};
use super::silence::Silence;
use super::tiles::{Ground, Legs};
use super::timers::{Agenda, Begun, NEVER};
use super::visits::Visit;
use crate::geo::distance_m;
use crate::model::{DriverId, OrderId, Place, Position, Sequence, TimeMs, Update};

/// A reported or implied speed below this says nothing of when a driver will be there, m/s.
const MIN_SPEED_MPS: f64 = 1.0;

/// Where a driver is that has sent no `ok` fix; no box holds it.
pub(super) const NOWHERE: Position = Position {
    longitude: f64::NAN,
    latitude: f64::NAN,
};

/// All drivers of one worker.
///
/// Positions have an array of their own, for a fence's change looks at all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Drivers {
    numbers: HashMap<DriverId, u32>,
    /// By number: the last `ok` fix; not a number where there has been none.
    pub(super) positions: Vec<Position>,
    /// By number: all else.
    pub(super) records: Vec<Driver>,
}

/// What is known of a driver.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    pub(super) id: DriverId,
    /// The last `ok` fix.
    pub(super) last: Option<Fix>,
    /// The `ok` fix before it.
    pub(super) previous: Option<Spot>,
    /// Whether it is heard.
    pub(super) silence: Silence,
    /// The fences on whose visit the driver is, by slot.
    pub(super) visits: Vec<Visit>,
    /// What it knows of orders, by id.
    pub(super) orders: Vec<OrderLegs>,
    /// What few drivers have; out of the way of what all updates touch.
    pub(super) aside: Option<Box<Aside>>,
    /// Whether anything above may have changed since it was exported. Each input and each
    /// timer that comes to the driver sets it.
    pub(super) changed: bool,
    /// What need not be judged where it is; made anew, never in a snapshot.
    pub(super) ground: Ground,
    /// When the agenda says to look at the driver; no later than any of its deadlines.
    pub(super) wake_ms: TimeMs,
    /// No later than any of its dwells and arrivals is due by event time.
    pub(super) wake_event_ms: TimeMs,
}

/// What a driver has while it is late or strange, or if its updates bear numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Aside {
    /// The last teleport, if it came after the last `ok` fix.
    pub(super) teleport: Option<Spot>,
    /// Updates that wait for others to overtake them, by when they are released.
    pub(super) held: VecDeque<Held>,
    /// The sessions that its updates came in, by use, the last used one at the end.
    pub(super) sessions: Vec<Session>,
}

/// An update that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Where in the merged order it is judged.
    pub(super) place: Place,
    pub(super) update: Update,
}

/// An `ok` update, as far as later ones are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Fix {
    pub(super) position: Position,
    pub(super) event_time_ms: TimeMs,
    pub(super) speed_mps: Option<f32>,
}

impl Drivers {
    /// A driver's number, given now if it has none yet.
    pub(super) fn number(&mut self, id: DriverId) -> usize {
        let next = self.records.len();
        let number = *self.numbers.entry(id).or_insert(next as u32) as usize;
        if number == next {
            self.positions.push(NOWHERE);
            self.records.push(Driver {
                id,
                last: None,
                previous: None,
                silence: Silence::default(),
                visits: Vec::new(),
                orders: Vec::new(),
                aside: None,
                changed: false,
                ground: Ground::default(),
                wake_ms: NEVER,
                wake_event_ms: NEVER,
            });
        }
        number
    }

    /// A driver's number, if it has one.
    pub(super) fn known(&self, id: DriverId) -> Option<usize> {
        self.numbers.get(&id).map(|&number| number as usize)
    }

    /// Notes an `ok` fix.
    pub(super) fn note(&mut self, number: usize, fix: Fix) {
        self.positions[number] = fix.position;
        let driver = &mut self.records[number];
        driver.previous = driver.last.map(|last| last.spot());
        if let Some(aside) = &mut driver.aside {
            aside.teleport = None;
        }
        driver.last = Some(fix);
    }
}

impl Fix {
    pub(super) fn spot(&self) -> Spot {
        Spot {
            position: self.position,
            event_time_ms: self.event_time_ms,
        }
    }
}

impl Driver {
    /// Keeps an update until its place in the merged order comes.
    pub(super) fn hold(&mut self, place: Place, update: Update) {
        let held = &mut self.aside.get_or_insert_default().held;
        let at = held.partition_point(|held| held.place < place);
        held.insert(at, Held { place, update });
    }

    /// Where in the merged order the next held update is judged.
    pub(super) fn next_release(&self) -> Option<Place> {
        Some(self.aside.as_ref()?.held.front()?.place)
    }

    /// The held update whose place has come.
    pub(super) fn release(&mut self) -> Option<Held> {
        let held = self.aside.as_mut()?.held.pop_front()?;
        self.changed = true;
        Some(held)
    }

    /// Notes the number of an update; returns whether it is no resend.
    pub(super) fn is_new(&mut self, partition: i32, sequence: Sequence) -> bool {
        self.changed = true;
        let sessions = &mut self.aside.get_or_insert_default().sessions;
        sessions::take(sessions, partition, sequence)
    }

    /// The last teleport, if it came after the last `ok` fix.
    pub(super) fn teleport(&self) -> Option<Spot> {
        self.aside.as_ref()?.teleport
    }

    /// Remembers a teleport until the next `ok` fix.
    pub(super) fn remember(&mut self, teleport: Spot) {
        self.aside.get_or_insert_default().teleport = Some(teleport);
    }

    /// Has the driver looked at for a timer that begins.
    pub(super) fn expect(
        &mut self,
        number: usize,
        begun: &Begun,
        after_ms: TimeMs,
        agenda: &mut Agenda,
    ) {
        self.wake(number, begun.due_ms(after_ms), agenda);
        self.wake_event_ms = self.wake_event_ms.min(begun.due_event_ms(after_ms));
    }

    /// Has the driver looked at no later than at a time.
    pub(super) fn wake(&mut self, number: usize, at_ms: TimeMs, agenda: &mut Agenda) {
        if at_ms < self.wake_ms {
            agenda.set(number, self.wake_ms, at_ms);
            self.wake_ms = at_ms;
        }
    }

    /// The earliest deadline on the clock, releases aside; [`NEVER`] if there is none.
    pub(super) fn first_deadline(&self, spans: &Spans) -> TimeMs {
        let silence = (self.silence.counts_from()).map(|begun| begun.due_ms(spans.silent_ms));
        let others = self.dwells_and_stays(spans);
        (others.map(|(begun, after_ms)| begun.due_ms(after_ms)))
            .chain(silence)
            .min()
            .unwrap_or(NEVER)
    }

    /// The earliest deadline in event time; [`NEVER`] if there is none.
    pub(super) fn first_event_deadline(&self, spans: &Spans) -> TimeMs {
        let all = self.dwells_and_stays(spans);
        (all.map(|(begun, after_ms)| begun.due_event_ms(after_ms)))
            .min()
            .unwrap_or(NEVER)
    }

    /// With what each timer but silence began, and after how long it is due, ms.
    fn dwells_and_stays(&self, spans: &Spans) -> impl Iterator<Item = (Begun, TimeMs)> {
        let arrive_ms = spans.arrive_ms;
        let dwells =
            (self.visits.iter()).filter_map(|visit| Some((visit.begun, visit.dwells_after_ms()?)));
        let stays = (self.orders.iter())
            .flat_map(|order| &order.legs)
            .filter_map(move |leg| Some((leg.stay.pending()?, arrive_ms)));
        dwells.chain(stays)
    }

    /// Whether an order has the driver on a leg.
    pub(super) fn has_open_order(&self) -> bool {
        self.orders.iter().any(|order| order.open.is_some())
    }

    /// Finds out whether a driver whose legs were judged just now, by a fix in the tile noted,
    /// need be judged by them again in it.
    pub(super) fn find_far(&mut self, rules: &Rules) {
        if self.ground.legs == Legs::Unknown {
            let tile = self.ground.tile;
            let mut orders = self.orders.iter();
            self.ground.legs = match orders.all(|order| order.are_far_from(tile, rules)) {
                true => Legs::Far,
                false => Legs::Near,
            };
        }
    }

    /// Seconds to go a distance straight on, by the speed of the last `ok` fix, or else by
    /// that from the one before to it; `None` if neither is at least 1 m/s.
    pub(super) fn eta_s(&self, distance: f64) -> Option<f64> {
        let last = self.last?;
        let enough = |speed: &f64| *speed >= MIN_SPEED_MPS;
        let implied = || {
            let before = self.previous?;
            let seconds = (last.event_time_ms - before.event_time_ms) as f64 / 1000.0;
            Some(distance_m(before.position, last.position) / seconds).filter(enough)
        };
        let reported = last.speed_mps.map(f64::from).filter(enough);
        Some(distance / reported.or_else(implied)?)
    }

    /// Follows a step of an order; returns where the driver keeps it, if it still does.
    pub(super) fn follow(&mut self, step: OrderStep) -> Option<usize> {
        let by_id = |known: &OrderLegs, id: &OrderId| known.order.cmp(id);
        match self
            .orders
            .binary_search_by(|known| by_id(known, &step.order))
        {
            Ok(at) => {
                let before = self.orders.remove(at);
                self.orders
                    .insert(at, OrderLegs::follow(Some(before), step)?);
                Some(at)
            }
            Err(at) => {
                self.orders.insert(at, OrderLegs::follow(None, step)?);
                Some(at)
            }
        }
    }
}

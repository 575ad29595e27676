//! The contract's section 3 as plain loops, for the tests: tick by tick, all fences, all
//! orders, all timers, every time. Shares nothing with the detector but the model's names.

use std::collections::{BTreeMap, BTreeSet};

use super::Rules;
use super::oracle_world::{Record, Shape, TICK_MS, Timed, Told, Xy, metres, position};
use crate::model::{Cause, EventKind, Flag, Leg, OrderStatus};

/// What began something: merge time, event time, record.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Start {
    at_ms: i64,
    event_ms: i64,
    source: usize,
    rank: u8,
}

#[derive(Clone, Copy, Debug)]
struct OkFix {
    xy: Xy,
    event_ms: i64,
    speed: Option<f32>,
}

#[derive(Clone, Debug)]
struct LegOf {
    order: u8,
    driver: u64,
    leg: Leg,
    target: Xy,
    near: bool,
    stay: Option<Start>,
    arrived: Option<Start>,
    departed: bool,
}

/// By partition and session: the last record, and the greatest number.
type Sessions = BTreeMap<(i32, u64), (usize, u64)>;

#[derive(Debug, Default)]
pub(super) struct Oracle {
    fences: BTreeMap<u8, (Shape, Option<f64>)>,
    fixes: BTreeMap<u64, Vec<OkFix>>,
    teleports: BTreeMap<u64, (Xy, i64)>,
    /// With what each visit began, and whether its dwell is told.
    visits: BTreeMap<(u64, u8), (Start, bool)>,
    orders: BTreeMap<u8, (OrderStatus, Option<u64>, Xy, Xy)>,
    legs: Vec<LegOf>,
    heard: BTreeMap<u64, Start>,
    open_since: BTreeMap<u64, Start>,
    silent: BTreeSet<u64>,
    sessions: BTreeMap<u64, Sessions>,
    pub(super) told: Vec<Told>,
    pub(super) flags: BTreeMap<usize, Flag>,
    /// Which records were resent.
    pub(super) resent: BTreeSet<usize>,
    /// How many sessions were forgotten.
    pub(super) forgotten: usize,
    /// How many teleports were confirmed.
    pub(super) jumps: usize,
    /// How many timers a fix showed to be due.
    pub(super) by_fix: usize,
}

fn dwell_ms(dwell_s: Option<f64>) -> Option<i64> {
    dwell_s.filter(|s| *s < 1e9).map(|s| (s * 1000.0) as i64)
}

fn seconds_ms(seconds: f64) -> i64 {
    (seconds * 1000.0).min(1e15) as i64
}

impl Oracle {
    /// Tells a whole history until a time.
    pub(super) fn tell(history: &[Timed], rules: &Rules, until_ms: i64) -> Self {
        let mut oracle = Self::default();
        // What to do when: records come, and updates are judged, perhaps later.
        let mut agenda: Vec<(i64, u8, i32, usize, bool)> = Vec::new();
        for (number, (at_ms, record)) in history.iter().enumerate() {
            let partition = record.partition();
            agenda.push((*at_ms, record.rank(), partition, number, false));
            if let Record::Update { age_ms, .. } = record {
                let release = match rules.lateness_s {
                    0.0 => *at_ms,
                    lateness_s => at_ms - age_ms + seconds_ms(lateness_s),
                };
                agenda.push((release.max(*at_ms), 2, partition, number, true));
            }
        }
        agenda.sort();
        let mut agenda = agenda.into_iter().peekable();
        for tick in 0..until_ms / TICK_MS {
            let now = tick * TICK_MS;
            oracle.ring(now, rules);
            while let Some((_, rank, _, number, judge)) = agenda.next_if(|next| next.0 == now) {
                let start = Start {
                    at_ms: now,
                    event_ms: now,
                    source: number,
                    rank,
                };
                oracle.take(start, &history[number], judge, rules);
            }
        }
        oracle
    }

    fn blank(driver: u64, kind: EventKind, object: String, cause: Cause, start: Start) -> Told {
        Told {
            driver,
            kind,
            object,
            cause,
            at_ms: start.at_ms,
            source: start.source,
            event_time_ms: start.event_ms,
            initial: false,
            status: None,
            distance: None,
            eta: None,
            dwell_ms: None,
            fix: None,
        }
    }

    fn here(&self, driver: u64) -> Option<Xy> {
        Some(self.fixes.get(&driver)?.last()?.xy)
    }

    /// All timers that are due: by the clock, or those of a driver by a fix's event time.
    fn due(&mut self, now: i64, by_fix: Option<(u64, i64)>, rules: &Rules) -> Vec<(i64, Told)> {
        let mut due = Vec::new();
        let is_due = |driver: u64, start: &Start, after: i64| match by_fix {
            None => start.at_ms + after <= now,
            Some((of, event_ms)) => driver == of && start.event_ms + after <= event_ms,
        };
        let timer = |driver, kind, object, start: Start, after: i64| {
            let place = Start {
                at_ms: now,
                event_ms: start.event_ms + after,
                ..start
            };
            Self::blank(driver, kind, object, Cause::Timer, place)
        };
        for (&(driver, fence), (start, told)) in &mut self.visits {
            if let Some(after) = dwell_ms(self.fences[&fence].1)
                && !*told
                && is_due(driver, start, after)
            {
                *told = true;
                let (kind, object) = (EventKind::GeofenceDwelled, format!("f{fence}"));
                let mut event = timer(driver, kind, object, *start, after);
                event.dwell_ms = Some(after);
                due.push((start.event_ms + after, event));
            }
        }
        let after = seconds_ms(rules.arrive_s);
        for leg in &mut self.legs {
            let Some(start) = leg.stay.filter(|start| is_due(leg.driver, start, after)) else {
                continue;
            };
            leg.stay = None;
            leg.arrived = Some(start);
            let object = format!("o{}.{}", leg.order, leg.leg.as_str());
            let mut event = timer(leg.driver, EventKind::AgentArrived, object, start, after);
            event.status = Some(self.orders[&leg.order].0);
            let here = self.fixes[&leg.driver].last().map(|fix| fix.xy);
            event.distance = here.map(|xy| (metres(xy, leg.target) * 100.0).round() as i64);
            event.dwell_ms = Some(after);
            due.push((start.event_ms + after, event));
        }
        let after = seconds_ms(rules.silent_s);
        for (&driver, since) in &self.open_since {
            let order = |start: &Start| (start.at_ms, start.rank, start.source);
            let heard = self.heard.get(&driver);
            let start = *heard
                .filter(|heard| order(heard) > order(since))
                .unwrap_or(since);
            if by_fix.is_none() && !self.silent.contains(&driver) && start.at_ms + after <= now {
                self.silent.insert(driver);
                let (kind, object) = (EventKind::DriverSilent, "-".to_owned());
                let event = timer(driver, kind, object, start, after);
                due.push((start.event_ms + after, event));
            }
        }
        for (_, event) in &mut due {
            let fix = self.fixes.get(&event.driver).and_then(|fixes| fixes.last());
            event.fix = fix.map(|fix| position(fix.xy));
        }
        due
    }

    /// The clock's timers: those of one time by driver, kind, object.
    fn ring(&mut self, now: i64, rules: &Rules) {
        let mut due = self.due(now, None, rules);
        due.sort_by(|a, b| {
            let key =
                |(_, event): &(i64, Told)| (event.driver, rank(event.kind), by_leg(&event.object));
            key(a).cmp(&key(b))
        });
        self.told.extend(due.into_iter().map(|(_, event)| event));
    }

    /// Whether an update is one that came before: its number or a greater one was in its
    /// session. Four sessions are remembered of a driver.
    fn is_resent(&mut self, source: usize, record: &Record) -> bool {
        let Record::Update {
            driver,
            partition,
            sequence: Some((session, number)),
            ..
        } = *record
        else {
            return false;
        };
        let sessions = self.sessions.entry(driver).or_default();
        let greatest = sessions
            .get(&(partition, session))
            .map_or(0, |known| known.1);
        sessions.insert((partition, session), (source, greatest.max(number)));
        while sessions.len() > 4 {
            let oldest = sessions.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| sessions.remove(&key));
            self.forgotten += 1;
        }
        number <= greatest
    }

    fn take(&mut self, mut start: Start, (at_ms, record): &Timed, judge: bool, rules: &Rules) {
        if !judge && self.is_resent(start.source, record) {
            self.resent.insert(start.source);
        }
        if self.resent.contains(&start.source) {
            return;
        }
        let mut told = Vec::new();
        match record {
            Record::Fence(id, version) => {
                match version {
                    Some(version) => self.fences.insert(*id, *version),
                    None => self.fences.remove(id),
                };
                for driver in self.fixes.keys().copied().collect::<Vec<_>>() {
                    self.judge_fences(driver, Cause::Fence, start, false, &mut told);
                }
            }
            Record::Order(id, version) => {
                if version.is_some() {
                    start.event_ms = at_ms - 3 * TICK_MS;
                }
                self.take_order(*id, *version, start, rules, &mut told);
            }
            &Record::Update { driver, age_ms, .. } if !judge => {
                start.event_ms = at_ms - age_ms;
                self.heard.insert(driver, start);
                if self.silent.remove(&driver) {
                    let Record::Update { xy, .. } = record else {
                        return;
                    };
                    let (kind, object) = (EventKind::DriverResumed, "-".to_owned());
                    let mut event = Self::blank(driver, kind, object, Cause::Position, start);
                    event.fix = Some(position(*xy));
                    // If it is judged at once, its timers come first.
                    self.told.push(event);
                }
            }
            Record::Update { age_ms, .. } => {
                start.event_ms = at_ms - age_ms;
                self.judge_update(start, record, rules, &mut told);
            }
        }
        told.sort_by(|a, b| {
            let key = |event: &Told| (event.driver, rank(event.kind), by_leg(&event.object));
            key(a).cmp(&key(b))
        });
        self.told.extend(told);
    }

    fn judge_update(&mut self, start: Start, record: &Record, rules: &Rules, told: &mut Vec<Told>) {
        let Record::Update {
            driver,
            xy,
            speed,
            accuracy,
            ..
        } = *record
        else {
            return;
        };
        let event_ms = start.event_ms;
        let last = self
            .fixes
            .get(&driver)
            .and_then(|fixes| fixes.last())
            .copied();
        let plausible = |from: Xy, then: i64| {
            metres(from, xy) * 1000.0 / (event_ms - then) as f64 <= rules.max_speed_mps
        };
        let mut jumped = false;
        let flag = if last.is_some_and(|last| event_ms < last.event_ms) {
            Flag::Late
        } else if last.is_some_and(|last| event_ms == last.event_ms) {
            Flag::Duplicate
        } else if accuracy.is_some_and(|accuracy| f64::from(accuracy) > rules.max_accuracy_m) {
            Flag::Inaccurate
        } else if last.is_none_or(|last| plausible(last.xy, last.event_ms)) {
            Flag::Ok
        } else if (self.teleports.get(&driver))
            .is_some_and(|&(from, then)| then < event_ms && plausible(from, then))
        {
            jumped = true;
            self.jumps += 1;
            Flag::Ok
        } else {
            self.teleports.insert(driver, (xy, event_ms));
            Flag::Teleport
        };
        self.flags.insert(start.source, flag);
        if flag != Flag::Ok {
            return;
        }
        self.teleports.remove(&driver);
        // What is due by event time comes first, even before a resumption by the same record.
        let mut due = self.due(start.at_ms, Some((driver, event_ms)), rules);
        due.sort_by_key(|(deadline, event)| (*deadline, rank(event.kind), by_leg(&event.object)));
        self.by_fix += due.len();
        let same = |event: &Told| event.source == start.source && event.at_ms == start.at_ms;
        let resumed = self.told.pop_if(|last| last.driver == driver && same(last));
        self.told.extend(due.into_iter().map(|(_, event)| event));
        self.told.extend(resumed);

        let fixes = self.fixes.entry(driver).or_default();
        fixes.push(OkFix {
            xy,
            event_ms,
            speed,
        });
        if let Some(last) = last
            && !jumped
            && last.xy != xy
            && event_ms - last.event_ms <= seconds_ms(rules.crossing_gap_s)
        {
            for (&id, &(shape, _)) in &self.fences {
                if !self.visits.contains_key(&(driver, id))
                    && !shape.is_inside(xy)
                    && shape.is_on_the_way(last.xy, xy)
                {
                    let (kind, object) = (EventKind::GeofenceCrossed, format!("f{id}"));
                    let mut event = Self::blank(driver, kind, object, Cause::Position, start);
                    event.fix = Some(position(xy));
                    told.push(event);
                }
            }
        }
        self.judge_fences(driver, Cause::Position, start, last.is_none(), told);
        self.judge_legs(driver, Cause::Position, start, rules, told);
    }

    fn judge_fences(
        &mut self,
        driver: u64,
        cause: Cause,
        start: Start,
        initial: bool,
        told: &mut Vec<Told>,
    ) {
        let Some(here) = self.here(driver) else {
            return;
        };
        for id in 0..=u8::MAX {
            let fence = self.fences.get(&id).copied();
            if fence.is_none() && !self.visits.contains_key(&(driver, id)) {
                continue;
            }
            let object = format!("f{id}");
            let mut event = |kind, dwell_ms, initial| {
                let mut event = Self::blank(driver, kind, object.clone(), cause, start);
                (event.fix, event.dwell_ms, event.initial) =
                    (Some(position(here)), dwell_ms, initial);
                told.push(event);
            };
            let inside = fence.is_some_and(|(shape, _)| shape.is_inside(here));
            let beyond = fence.is_none_or(|(shape, _)| shape.is_beyond(here));
            let after = fence.and_then(|(_, dwell_s)| dwell_ms(dwell_s));
            match self.visits.get_mut(&(driver, id)) {
                None if inside => {
                    event(EventKind::GeofenceEntered, None, initial);
                    if after == Some(0) {
                        event(EventKind::GeofenceDwelled, Some(0), false);
                    }
                    self.visits.insert((driver, id), (start, after == Some(0)));
                }
                Some((begun, _)) if !inside && beyond => {
                    let lasted = (start.event_ms - begun.event_ms).max(0);
                    event(EventKind::GeofenceExited, Some(lasted), false);
                    self.visits.remove(&(driver, id));
                }
                // Another version by which the visit has dwelled already.
                Some((begun, dwelled))
                    if !*dwelled
                        && cause == Cause::Fence
                        && after.is_some_and(|after| begun.at_ms + after <= start.at_ms) =>
                {
                    *dwelled = true;
                    let so_far = start.at_ms - begun.at_ms;
                    event(EventKind::GeofenceDwelled, Some(so_far), false);
                }
                _ => {}
            }
        }
    }

    fn take_order(
        &mut self,
        id: u8,
        version: Option<(OrderStatus, Option<u64>, Xy, Xy)>,
        start: Start,
        rules: &Rules,
        told: &mut Vec<Told>,
    ) {
        match version {
            None => {
                self.orders.remove(&id);
                self.legs.retain(|leg| leg.order != id);
            }
            Some((status, given, pickup, dropoff)) => {
                let before = self.orders.get(&id).copied();
                if before.is_some_and(|b| b.0.is_ended()) {
                    return;
                }
                let driver = match status {
                    OrderStatus::Placed => None,
                    _ => given.or(before.and_then(|b| b.1)),
                };
                self.orders.insert(id, (status, driver, pickup, dropoff));
                let changed = before.is_none_or(|b| (b.0, b.1) != (status, driver));
                let kind = match status {
                    OrderStatus::Placed => None,
                    OrderStatus::Assigned => Some(EventKind::OrderAssigned),
                    OrderStatus::PickedUp => Some(EventKind::OrderPickedUp),
                    OrderStatus::Delivered => Some(EventKind::OrderDelivered),
                    OrderStatus::Cancelled => Some(EventKind::OrderCancelled),
                };
                if let (true, Some(kind), Some(driver)) = (changed, kind, driver) {
                    let object = format!("o{id}");
                    let mut event = Self::blank(driver, kind, object, Cause::Order, start);
                    event.status = Some(status);
                    if let (OrderStatus::Delivered, Some(here)) = (status, self.here(driver)) {
                        event.distance = Some((metres(here, dropoff) * 100.0).round() as i64);
                        event.fix = Some(position(here));
                    }
                    told.push(event);
                }
                if status.is_ended() {
                    self.legs.retain(|leg| leg.order != id);
                }
            }
        }
        for driver in 0..5 {
            self.judge_legs(driver, Cause::Order, start, rules, told);
            let any = (self.orders.values()).any(|(status, of, _, _)| {
                *of == Some(driver)
                    && matches!(status, OrderStatus::Assigned | OrderStatus::PickedUp)
            });
            if any {
                self.open_since.entry(driver).or_insert(start);
            } else {
                self.open_since.remove(&driver);
            }
        }
    }

    /// Where an order sends a driver.
    fn way(&self, id: u8, driver: u64) -> Option<(Leg, Xy)> {
        match *self.orders.get(&id)? {
            (OrderStatus::Assigned, Some(of), pickup, _) if of == driver => {
                Some((Leg::Pickup, pickup))
            }
            (OrderStatus::PickedUp, Some(of), _, dropoff) if of == driver => {
                Some((Leg::Dropoff, dropoff))
            }
            _ => None,
        }
    }

    fn judge_legs(
        &mut self,
        driver: u64,
        cause: Cause,
        start: Start,
        rules: &Rules,
        told: &mut Vec<Told>,
    ) {
        let new = |order, leg, target| LegOf {
            order,
            driver,
            leg,
            target,
            near: false,
            stay: None,
            arrived: None,
            departed: false,
        };
        for order in self.orders.keys().copied().collect::<Vec<_>>() {
            let Some((leg, target)) = self.way(order, driver) else {
                continue;
            };
            let same =
                |l: &LegOf| (l.order, l.driver, l.leg, l.target) == (order, driver, leg, target);
            if !self.legs.iter().any(same) {
                self.legs.push(new(order, leg, target));
            }
        }
        let mut legs = std::mem::take(&mut self.legs);
        for leg in legs.iter_mut().filter(|leg| leg.driver == driver) {
            let open = self.way(leg.order, driver) == Some((leg.leg, leg.target));
            if !open {
                leg.stay = None;
            }
            let Some(here) = self.here(driver) else {
                continue;
            };
            let distance = metres(here, leg.target);
            let mut event = |kind, dwell_ms| {
                let object = format!("o{}.{}", leg.order, leg.leg.as_str());
                let mut event = Self::blank(driver, kind, object, cause, start);
                event.status = Some(self.orders[&leg.order].0);
                event.distance = Some((distance * 100.0).round() as i64);
                event.eta = (kind == EventKind::AgentNear)
                    .then(|| self.eta_s(driver, distance))
                    .flatten();
                (event.fix, event.dwell_ms) = (Some(position(here)), dwell_ms);
                told.push(event);
            };
            if open && !leg.near && distance <= rules.near_m {
                leg.near = true;
                event(EventKind::AgentNear, None);
            } else if open && leg.near && rules.near_repeat && distance > rules.rearm_m {
                leg.near = false;
            }
            if let Some(begun) = leg.arrived {
                if !leg.departed && distance > rules.depart_m {
                    leg.departed = true;
                    let stayed = (start.event_ms - begun.event_ms).max(0);
                    event(EventKind::AgentDeparted, Some(stayed));
                    // Once at a time for an order's targets of one kind: of the last.
                    if let Some((new, old)) = told.split_last_mut()
                        && let Some(old) = (old.iter_mut())
                            .find(|old| (old.kind, &old.object) == (new.kind, &new.object))
                    {
                        old.clone_from(new);
                        told.pop();
                    }
                }
            } else if open && distance <= rules.arrive_m {
                if rules.arrive_s == 0.0 {
                    leg.arrived = Some(start);
                    event(EventKind::AgentArrived, Some(0));
                } else if leg.stay.is_none() {
                    leg.stay = Some(start);
                }
            } else {
                leg.stay = None;
            }
        }
        self.legs = legs;
    }

    /// Hundredths of a second.
    fn eta_s(&self, driver: u64, distance: f64) -> Option<i64> {
        let fixes = &self.fixes[&driver];
        let last = fixes.last()?;
        let own = last.speed.map(f64::from).filter(|v| *v >= 1.0);
        let implied = (fixes.len() > 1).then(|| {
            let before = fixes[fixes.len() - 2];
            metres(before.xy, last.xy) * 1000.0 / (last.event_ms - before.event_ms) as f64
        });
        let speed = own.or(implied.filter(|v| *v >= 1.0))?;
        Some((distance / speed * 100.0).round() as i64)
    }
}

/// Objects as they are told: a pickup before its drop-off.
fn by_leg(object: &str) -> String {
    object.replace("pickup", "a").replace("dropoff", "b")
}

/// The kinds as the contract lists them.
fn rank(kind: EventKind) -> u8 {
    match kind {
        EventKind::DriverResumed => 0,
        EventKind::OrderAssigned
        | EventKind::OrderPickedUp
        | EventKind::OrderDelivered
        | EventKind::OrderCancelled => 1,
        EventKind::GeofenceExited => 2,
        EventKind::GeofenceCrossed => 3,
        EventKind::GeofenceEntered => 4,
        EventKind::GeofenceDwelled => 5,
        EventKind::AgentNear => 6,
        EventKind::AgentArrived => 7,
        EventKind::AgentDeparted => 8,
        EventKind::DriverSilent => 9,
    }
}

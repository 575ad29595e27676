//! The detector against the contract written as plain loops: all fences, all orders, every
//! time, over random histories, and cut up between workers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Detector, OrderBook, Rules};
use crate::model::{
    Cause, DriverId, Event, EventKind, Fence, FenceChange, FenceId, Flag, Geometry, Input, Leg,
    Order, OrderChange, OrderId, OrderStatus, Place, Position, Source, Stop, Subject, Update,
};

type Xy = (f64, f64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// South-west corner, width and height.
    Box(Xy, f64, f64),
    /// Centre, metres, exit margin in metres.
    Disc(Xy, f64, f64),
}

#[derive(Clone, Debug)]
enum Record {
    Fence(u8, Option<Shape>),
    /// Status, driver as given, pickup, drop-off.
    Order(u8, Option<(OrderStatus, Option<u64>, Xy, Xy)>),
    /// Driver, place, age of the event time in ms, speed.
    Update(u64, Xy, i64, Option<f32>),
}

/// Where the small world is: around the antimeridian, 60° north.
fn position(xy: Xy) -> Position {
    let longitude = 179.99 + xy.0;
    Position {
        longitude: if longitude > 180.0 {
            longitude - 360.0
        } else {
            longitude
        },
        latitude: 60.0 + xy.1,
    }
}

/// By the law of cosines in vectors.
fn metres(a: Xy, b: Xy) -> f64 {
    let vector = |p: Xy| {
        let (lon, lat) = (p.0.to_radians(), (60.0 + p.1).to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let (a, b) = (vector(a), vector(b));
    let chord = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
    2.0 * 6_371_008.8 * (chord / 2.0).asin()
}

/// An event in short, with what is worth comparing.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    driver: u64,
    kind: EventKind,
    object: String,
    cause: Cause,
    /// The record's number.
    record: i64,
    event_time_ms: i64,
    initial: bool,
    status: Option<OrderStatus>,
    /// Centimetres.
    distance: Option<i64>,
    /// Hundredths of a second.
    eta: Option<i64>,
}

#[derive(Default)]
struct Oracle {
    fences: BTreeMap<u8, Shape>,
    /// `ok` fixes of each driver: place, event time, speed.
    fixes: BTreeMap<u64, Vec<(Xy, i64, Option<f32>)>>,
    visits: BTreeSet<(u64, u8)>,
    /// Last version in force of each order with its driver; `None` in `told_legs` is armed.
    orders: BTreeMap<u8, (OrderStatus, Option<u64>, Xy, Xy)>,
    /// Per (order, driver, leg, target's bits): whether near is told.
    legs: Vec<((u8, u64, Leg, Xy), bool)>,
}

impl Oracle {
    fn is_inside(shape: Shape, p: Xy) -> bool {
        match shape {
            Shape::Box(sw, w, h) => {
                sw.0 <= p.0 && p.0 <= sw.0 + w && sw.1 <= p.1 && p.1 <= sw.1 + h
            }
            Shape::Disc(c, radius, _) => metres(c, p) <= radius,
        }
    }

    fn is_beyond(shape: Shape, p: Xy) -> bool {
        match shape {
            Shape::Box(..) => !Self::is_inside(shape, p),
            Shape::Disc(c, radius, margin) => metres(c, p) > radius + margin,
        }
    }

    fn take(&mut self, record: i64, input: &Record, rules: &Rules) -> (Vec<Told>, Option<Flag>) {
        let at_ms = record * 1000;
        let mut told = Vec::new();
        let mut flag = None;
        let blank = |driver, kind, object: String, cause, event_time_ms| Told {
            driver,
            kind,
            object,
            cause,
            record,
            event_time_ms,
            initial: false,
            status: None,
            distance: None,
            eta: None,
        };
        let (cause, event_time_ms) = match input {
            Record::Fence(..) => (Cause::Fence, at_ms),
            Record::Order(..) => (Cause::Order, at_ms - 3),
            Record::Update(_, _, age, _) => (Cause::Position, at_ms - age),
        };
        let mut initial = false;
        match input {
            Record::Fence(id, Some(shape)) => {
                self.fences.insert(*id, *shape);
            }
            Record::Fence(id, None) => {
                self.fences.remove(id);
            }
            Record::Order(id, None) => {
                self.orders.remove(id);
                self.legs.retain(|(leg, _)| leg.0 != *id);
            }
            Record::Order(id, Some((status, given, pickup, dropoff))) => {
                let before = self.orders.get(id).copied();
                if before.is_some_and(|b| b.0.is_ended()) {
                    return (told, None);
                }
                let driver = match status {
                    OrderStatus::Placed => None,
                    _ => given.or(before.and_then(|b| b.1)),
                };
                self.orders
                    .insert(*id, (*status, driver, *pickup, *dropoff));
                let changed = before.is_none_or(|b| (b.0, b.1) != (*status, driver));
                let kind = match status {
                    OrderStatus::Placed => None,
                    OrderStatus::Assigned => Some(EventKind::OrderAssigned),
                    OrderStatus::PickedUp => Some(EventKind::OrderPickedUp),
                    OrderStatus::Delivered => Some(EventKind::OrderDelivered),
                    OrderStatus::Cancelled => Some(EventKind::OrderCancelled),
                };
                if let (true, Some(kind), Some(driver)) = (changed, kind, driver) {
                    let mut event = blank(driver, kind, format!("o{id}"), cause, event_time_ms);
                    event.status = Some(*status);
                    let fix = self.fixes.get(&driver).and_then(|fixes| fixes.last());
                    if let (OrderStatus::Delivered, Some(fix)) = (status, fix) {
                        event.distance = Some((metres(fix.0, *dropoff) * 100.0).round() as i64);
                    }
                    told.push(event);
                }
                if status.is_ended() {
                    self.legs.retain(|(leg, _)| leg.0 != *id);
                }
            }
            Record::Update(driver, xy, _, speed) => {
                let fixes = self.fixes.entry(*driver).or_default();
                let last = fixes.last().map(|fix| fix.1);
                if last == Some(event_time_ms) {
                    return (told, Some(Flag::Duplicate));
                } else if last.is_some_and(|last| last > event_time_ms) {
                    return (told, Some(Flag::Late));
                }
                flag = Some(Flag::Ok);
                initial = last.is_none();
                fixes.push((*xy, event_time_ms, *speed));
            }
        }
        // Judge everything by everyone's last fix; what hasn't changed gives nothing new.
        for (&driver, fixes) in &self.fixes {
            let Some(&(here, at, speed)) = fixes.last() else {
                continue;
            };
            for id in 0..6 {
                let shape = self.fences.get(&id).copied();
                let visiting = self.visits.contains(&(driver, id));
                let inside = shape.is_some_and(|s| Self::is_inside(s, here));
                let beyond = shape.is_none_or(|s| Self::is_beyond(s, here));
                if !visiting && inside {
                    self.visits.insert((driver, id));
                    let kind = EventKind::GeofenceEntered;
                    let mut event = blank(driver, kind, format!("f{id}"), cause, event_time_ms);
                    event.initial = initial;
                    told.push(event);
                } else if visiting && !inside && beyond {
                    self.visits.remove(&(driver, id));
                    let kind = EventKind::GeofenceExited;
                    told.push(blank(driver, kind, format!("f{id}"), cause, event_time_ms));
                }
            }
            for (&id, &(status, of, pickup, dropoff)) in &self.orders {
                let (leg, target) = match status {
                    OrderStatus::Assigned => (Leg::Pickup, pickup),
                    OrderStatus::PickedUp => (Leg::Dropoff, dropoff),
                    _ => continue,
                };
                if of != Some(driver) {
                    continue;
                }
                let key = (id, driver, leg, target);
                let known = self
                    .legs
                    .iter()
                    .position(|(k, _)| *k == key)
                    .unwrap_or_else(|| {
                        self.legs.push((key, false));
                        self.legs.len() - 1
                    });
                let distance = metres(here, target);
                if self.legs[known].1 {
                    if rules.near_repeat && distance > rules.rearm_m {
                        self.legs[known].1 = false;
                    }
                } else if distance <= rules.near_m {
                    self.legs[known].1 = true;
                    let object = format!("o{id}.{}", leg.as_str());
                    let mut event =
                        blank(driver, EventKind::AgentNear, object, cause, event_time_ms);
                    event.status = Some(status);
                    event.distance = Some((distance * 100.0).round() as i64);
                    let own = speed.map(f64::from).filter(|v| *v >= 1.0);
                    let implied = (fixes.len() > 1).then(|| {
                        let (there, then, _) = fixes[fixes.len() - 2];
                        metres(there, here) * 1000.0 / (at - then) as f64
                    });
                    let speed = own.or(implied.filter(|v| *v >= 1.0));
                    event.eta = speed.map(|v| (distance / v * 100.0).round() as i64);
                    told.push(event);
                }
            }
        }
        // Drivers by number; then the kinds as the contract lists them; then ids by bytes.
        let rank = |kind: EventKind| match kind {
            EventKind::GeofenceExited => 1,
            EventKind::GeofenceEntered => 2,
            EventKind::AgentNear => 3,
            _ => 0,
        };
        told.sort_by(|a, b| {
            (a.driver, rank(a.kind), &a.object).cmp(&(b.driver, rank(b.kind), &b.object))
        });
        (told, flag)
    }
}

fn told(event: &Event) -> Told {
    Told {
        driver: event.driver.0,
        kind: event.kind,
        object: match &event.subject {
            Subject::Driver => "-".to_owned(),
            Subject::Fence(id) => id.0.to_string(),
            Subject::Order(id) => id.0.to_string(),
            Subject::Leg(id, leg) => format!("{}.{}", id.0, leg.as_str()),
        },
        cause: event.cause,
        record: event.source.offset,
        event_time_ms: event.event_time_ms,
        initial: event.initial,
        status: event.status,
        distance: event.distance_m.map(|d| (d * 100.0).round() as i64),
        eta: event.eta_s.map(|s| (s * 100.0).round() as i64),
    }
}

/// The job in small: detectors and order books side by side, each with its share.
struct Workers {
    books: Vec<OrderBook>,
    detectors: Vec<Detector>,
}

impl Workers {
    fn new(count: usize, rules: &Rules) -> Self {
        Self {
            books: vec![OrderBook::new(); count],
            detectors: vec![Detector::new(rules.clone()); count],
        }
    }

    fn take(&mut self, record: i64, input: &Record) -> (Vec<Event>, Option<Flag>) {
        let mut out = Vec::new();
        let mut flag = None;
        let count = self.detectors.len();
        let place = |input| Place {
            at_ms: record * 1000,
            source: Source {
                input,
                partition: 0,
                offset: record,
            },
        };
        let now_ms = record * 1000 + 1;
        match input {
            Record::Fence(id, shape) => {
                let id = FenceId(format!("f{id}").into());
                let change = FenceChange {
                    place: place(Input::Geofences),
                    id: id.clone(),
                    fence: shape.map(|shape| fence(id, shape)),
                };
                for detector in &mut self.detectors {
                    detector.on_fence(change.clone(), now_ms, &mut out);
                }
            }
            Record::Order(number, version) => {
                let id = OrderId(format!("o{number}").into());
                let stop = |xy| Stop {
                    position: position(xy),
                    place: None,
                };
                let change = OrderChange {
                    place: place(Input::Orders),
                    id: id.clone(),
                    order: version.map(|(status, driver, pickup, dropoff)| Order {
                        id,
                        driver: driver.map(DriverId),
                        status,
                        pickup: stop(pickup),
                        dropoff: stop(dropoff),
                        updated_at_ms: record * 1000 - 3,
                    }),
                };
                let mut steps = Vec::new();
                self.books[*number as usize % count].apply(change, &mut steps);
                for step in steps {
                    let owner = step.driver.0 as usize % count;
                    self.detectors[owner].on_order(step, now_ms, &mut out);
                }
            }
            Record::Update(driver, xy, age_ms, speed_mps) => {
                let update = Update {
                    place: place(Input::Updates),
                    driver: DriverId(*driver),
                    position: position(*xy),
                    event_time_ms: record * 1000 - age_ms,
                    received_at_ms: record * 1000,
                    accuracy_m: None,
                    speed_mps: *speed_mps,
                    heading_deg: None,
                    state: None,
                };
                let owner = *driver as usize % count;
                flag = Some(self.detectors[owner].on_update(&update, now_ms, &mut out));
            }
        }
        (out, flag)
    }
}

fn fence(id: FenceId, shape: Shape) -> Fence {
    let (geometry, exit_margin_m) = match shape {
        Shape::Disc(center, radius_m, margin) => {
            let center = position(center);
            (Geometry::Circle { center, radius_m }, margin)
        }
        Shape::Box((x, y), w, h) => {
            let ring = [(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)];
            (Geometry::Polygon(vec![ring.map(position).to_vec()]), 0.0)
        }
    };
    Fence {
        id,
        name: None,
        kind: None,
        geometry,
        dwell_s: None,
        exit_margin_m,
    }
}

/// A square of 1.6 km or so.
fn xy() -> impl Strategy<Value = Xy> {
    (0.0..0.03f64, 0.0..0.015f64)
}

/// Few targets, so that orders come back to them.
fn target() -> impl Strategy<Value = Xy> {
    prop_oneof![
        Just((0.01, 0.005)),
        Just((0.013, 0.006)),
        Just((0.02, 0.01))
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let shape = prop_oneof![
        (xy(), 0.0005..0.01f64, 0.0005..0.01f64).prop_map(|(sw, w, h)| Shape::Box(sw, w, h)),
        (xy(), 30.0..600.0f64, prop_oneof![Just(0.0), 0.0..200.0f64])
            .prop_map(|(c, r, m)| Shape::Disc(c, r, m)),
    ];
    let status = prop_oneof![
        2 => Just(OrderStatus::Placed),
        8 => Just(OrderStatus::Assigned),
        6 => Just(OrderStatus::PickedUp),
        1 => Just(OrderStatus::Delivered),
        1 => Just(OrderStatus::Cancelled),
    ];
    let version = (status, 0..5u64, any::<bool>(), target(), target()).prop_map(
        |(status, driver, given, pickup, dropoff)| {
            let given = match status {
                OrderStatus::Placed => false,
                OrderStatus::Assigned | OrderStatus::PickedUp => true,
                OrderStatus::Delivered | OrderStatus::Cancelled => given,
            };
            (status, Some(driver).filter(|_| given), pickup, dropoff)
        },
    );
    let age = prop_oneof![4 => Just(0i64), 1 => (0..6i64).prop_map(|s| s * 500)];
    let speed = prop_oneof![Just(None), (0.0..3.0f32).prop_map(Some)];
    prop_oneof![
        2 => (0..6u8, proptest::option::weighted(0.8, shape)).prop_map(|(id, s)| Record::Fence(id, s)),
        3 => (0..4u8, proptest::option::weighted(0.93, version)).prop_map(|(id, v)| Record::Order(id, v)),
        8 => (0..5u64, xy(), age, speed).prop_map(|(d, p, a, s)| Record::Update(d, p, a, s)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn any_history_is_told_as_the_contract_says(
        records in proptest::collection::vec(record(), 1..120), near_repeat: bool,
    ) {
        let rules = Rules { near_repeat, rearm_m: 600.0, ..Rules::default() };
        let mut oracle = Oracle::default();
        let mut one = Workers::new(1, &rules);
        let mut several = [Workers::new(2, &rules), Workers::new(4, &rules)];
        for (number, input) in (1..).zip(&records) {
            let (expected, expected_flag) = oracle.take(number, input, &rules);
            let (events, flag) = one.take(number, input);
            let got: Vec<Told> = events.iter().map(told).collect();
            prop_assert_eq!(&got, &expected, "record {}: {:?}", number, input);
            prop_assert_eq!(flag, expected_flag);
            for workers in &mut several {
                let (mut shared, flag) = workers.take(number, input);
                shared.sort_by(|a, b| a.telling_order().cmp(&b.telling_order()));
                prop_assert_eq!(&shared, &events);
                prop_assert_eq!(flag, expected_flag);
            }
        }
    }
}

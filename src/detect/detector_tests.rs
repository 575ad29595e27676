//! Stories told to one detector, and what it tells.

use super::{Detector, OrderBook, Outputs, Rules};
use crate::geo::EARTH_RADIUS_M;
use crate::model::{
    Cause, DriverId, Event, Fence, FenceChange, FenceId, Flag, Geometry, Input, Leg, Order,
    OrderChange, OrderId, OrderStatus, Place, Position, Source, Stop, Subject, Update,
};

/// A detector with its order book, fed one record after another at 1 s intervals.
struct Story {
    detector: Detector,
    book: OrderBook,
    at_ms: i64,
}

/// East of (77, 0) on the equator, metres.
fn east(metres: f64) -> Position {
    Position {
        longitude: 77.0 + (metres / EARTH_RADIUS_M).to_degrees(),
        latitude: 0.0,
    }
}

/// No rule but those that look at one fix: no speed is too high, no time long enough.
fn timeless() -> Rules {
    Rules {
        max_speed_mps: 1e9,
        crossing_gap_s: 0.0,
        arrive_s: 1e9,
        silent_s: 1e9,
        ..Rules::default()
    }
}

impl Story {
    fn new(rules: Rules) -> Self {
        Self {
            detector: Detector::new(rules),
            book: OrderBook::new(),
            at_ms: 0,
        }
    }

    fn place(&mut self, input: Input) -> Place {
        self.at_ms += 1000;
        Place {
            at_ms: self.at_ms,
            source: Source {
                input,
                partition: 0,
                offset: self.at_ms / 1000,
            },
        }
    }

    /// An update `metres` east whose event time is that of the record less `age_ms`.
    fn update_aged(&mut self, driver: u64, metres: f64, age_ms: i64) -> (Flag, Vec<Event>) {
        let place = self.place(Input::Updates);
        let update = Update {
            place,
            driver: DriverId(driver),
            position: east(metres),
            event_time_ms: place.at_ms - age_ms,
            received_at_ms: place.at_ms,
            accuracy_m: None,
            speed_mps: None,
            heading_deg: None,
            state: None,
        };
        let mut out = Outputs::default();
        self.detector.on_update(update, self.at_ms + 50, &mut out);
        (out.judged[0].flag, out.events)
    }

    fn update(&mut self, driver: u64, metres: f64) -> Vec<Event> {
        self.update_aged(driver, metres, 0).1
    }

    fn fence(&mut self, id: &str, fence: Option<(Geometry, f64)>) -> Vec<Event> {
        let id = FenceId(id.into());
        let change = FenceChange {
            place: self.place(Input::Geofences),
            id: id.clone(),
            fence: fence.map(|(geometry, exit_margin_m)| Fence {
                id,
                name: None,
                kind: None,
                geometry,
                dwell_s: None,
                exit_margin_m,
            }),
        };
        let mut out = Outputs::default();
        self.detector.on_fence(change, self.at_ms + 50, &mut out);
        out.events
    }

    /// An order with its pickup at `pickup` metres east and its drop-off at 5,000.
    fn order(&mut self, id: &str, version: Option<(OrderStatus, u64, f64)>) -> Vec<Event> {
        let id = OrderId(id.into());
        let place = self.place(Input::Orders);
        let stop = |metres, name: &str| Stop {
            position: east(metres),
            place: Some(name.into()),
        };
        let change = OrderChange {
            place,
            id: id.clone(),
            order: version.map(|(status, driver, pickup)| Order {
                id,
                driver: Some(DriverId(driver)).filter(|_| driver > 0),
                status,
                pickup: stop(pickup, "kitchen"),
                dropoff: stop(5000.0, "door"),
                updated_at_ms: place.at_ms - 7,
            }),
        };
        let mut steps = Vec::new();
        self.book.apply(change, &mut steps);
        let mut out = Outputs::default();
        for step in steps {
            self.detector.on_order(step, self.at_ms + 50, &mut out);
        }
        out.events
    }
}

fn circle(metres: f64, radius_m: f64, margin_m: f64) -> Option<(Geometry, f64)> {
    let center = east(metres);
    Some((Geometry::Circle { center, radius_m }, margin_m))
}

/// Between two distances east, ±1° high.
fn strip(from: f64, to: f64, margin_m: f64) -> Option<(Geometry, f64)> {
    let (west, east) = (east(from).longitude, east(to).longitude);
    let ring = [
        (west, -1.0),
        (east, -1.0),
        (east, 1.0),
        (west, 1.0),
        (west, -1.0),
    ];
    let ring = ring.map(|(longitude, latitude)| Position {
        longitude,
        latitude,
    });
    Some((Geometry::Polygon(vec![ring.to_vec()]), margin_m))
}

/// Kind, driver and object in short.
fn short(events: &[Event]) -> Vec<String> {
    let object = |subject: &Subject| match subject {
        Subject::Driver => "-".to_owned(),
        Subject::Fence(FenceId(id)) => id.to_string(),
        Subject::Order(OrderId(id)) => id.to_string(),
        Subject::Leg(OrderId(id), leg) => format!("{id}.{}", leg.as_str()),
    };
    (events.iter())
        .map(|e| {
            let initial = if e.initial { " initial" } else { "" };
            format!(
                "{} {} {}{initial}",
                e.kind.name(),
                object(&e.subject),
                e.driver
            )
        })
        .collect()
}

const NONE: &[&str] = &[];

#[test]
fn a_visit_with_a_margin() {
    let mut story = Story::new(timeless());
    assert_eq!(short(&story.fence("f", strip(0.0, 100.0, 20.0))), NONE);
    for (metres, expected) in [
        (-10.0, NONE),
        (100.0, &["geofence.entered f 1"]),
        (50.0, NONE),
        (119.9, NONE),
        (101.0, NONE),
        (120.1, &["geofence.exited f 1"]),
        (110.0, NONE),
        (99.0, &["geofence.entered f 1"]),
    ] {
        assert_eq!(short(&story.update(1, metres)), expected, "{metres}");
    }
}

#[test]
fn only_a_first_known_fix_is_initial() {
    let mut story = Story::new(timeless());
    story.fence("b", circle(0.0, 50.0, 0.0));
    story.fence("a", circle(0.0, 500.0, 0.0));
    story.fence("c", circle(300.0, 50.0, 0.0));
    let first = story.update(1, 10.0);
    assert_eq!(
        short(&first),
        [
            "geofence.entered a 1 initial",
            "geofence.entered b 1 initial"
        ]
    );
    assert_eq!(
        short(&story.update(1, 300.0)),
        ["geofence.exited b 1", "geofence.entered c 1"]
    );
    assert_eq!(
        short(&story.update(1, 10.0)),
        ["geofence.exited c 1", "geofence.entered b 1"]
    );
}

#[test]
fn an_events_fields() {
    let mut story = Story::new(timeless());
    story.fence("f", circle(0.0, 50.0, 0.0));
    let (_, events) = story.update_aged(1, 10.0, 300);
    let [event] = &events[..] else { panic!() };
    assert_eq!(event.cause, Cause::Position);
    assert_eq!(event.source.offset, 2);
    assert_eq!(event.source, event.place.source);
    assert_eq!(event.place.at_ms, 2000);
    assert_eq!(event.event_time_ms, 1700);
    assert_eq!(event.detected_at_ms, 2050);
    assert_eq!(event.position, Some(east(10.0)));
    let events = story.fence("f", None);
    let [event] = &events[..] else { panic!() };
    assert_eq!(event.cause, Cause::Fence);
    assert_eq!(
        (event.source.input, event.source.offset),
        (Input::Geofences, 3)
    );
    assert_eq!((event.event_time_ms, event.detected_at_ms), (3000, 3050));
    assert_eq!(event.position, Some(east(10.0)));
    let events = story.order("o", Some((OrderStatus::Assigned, 1, 20.0)));
    let [told, near] = &events[..] else { panic!() };
    assert_eq!(
        (told.position, told.distance_m, &told.at_place),
        (None, None, &None)
    );
    assert_eq!(told.status, Some(OrderStatus::Assigned));
    assert_eq!((near.cause, near.event_time_ms), (Cause::Order, 3993));
    assert_eq!(near.at_place.as_deref(), Some("kitchen"));
    assert_eq!(near.status, Some(OrderStatus::Assigned));
    assert!((near.distance_m.unwrap() - 10.0).abs() < 1e-6);
    assert_eq!(near.eta_s, None);
    let events = story.order("o", Some((OrderStatus::Delivered, 0, 20.0)));
    let [event] = &events[..] else { panic!() };
    assert_eq!(event.at_place.as_deref(), Some("door"));
    assert!((event.distance_m.unwrap() - 4990.0).abs() < 1e-6);
    assert_eq!(event.position, Some(east(10.0)));
}

#[test]
fn late_and_duplicate_updates_move_nobody() {
    let mut story = Story::new(timeless());
    story.fence("f", circle(0.0, 50.0, 0.0));
    for (metres, age_ms, expected, events) in [
        (900.0, 0, Flag::Ok, NONE),
        (0.0, 1001, Flag::Late, NONE),
        (0.0, 2000, Flag::Duplicate, NONE),
        (0.0, 0, Flag::Ok, &["geofence.entered f 1"]),
        (900.0, 1000, Flag::Duplicate, NONE),
    ] {
        let (flag, out) = story.update_aged(1, metres, age_ms);
        assert_eq!(
            (flag, short(&out)),
            (expected, events.iter().map(|e| e.to_string()).collect())
        );
    }
}

#[test]
fn fences_are_judged_at_once() {
    let mut story = Story::new(timeless());
    for (driver, metres) in [(30, 0.0), (4, 60.0), (200, 120.0)] {
        story.update(driver, metres);
    }
    for (fence, expected) in [
        (
            circle(0.0, 70.0, 0.0),
            &["geofence.entered f 4", "geofence.entered f 30"][..],
        ),
        (circle(0.0, 70.0, 0.0), NONE),
        // Smaller, but 4 is within the margin.
        (circle(0.0, 20.0, 50.0), NONE),
        (circle(0.0, 20.0, 30.0), &["geofence.exited f 4"]),
        // Moved over all of them: 30 stays.
        (
            strip(-500.0, 500.0, 0.0),
            &["geofence.entered f 4", "geofence.entered f 200"],
        ),
        // Refused: the former version stays in force.
        (circle(9000.0, -1.0, 0.0), NONE),
        (
            strip(110.0, 500.0, 0.0),
            &["geofence.exited f 4", "geofence.exited f 30"],
        ),
        (None, &["geofence.exited f 200"]),
        (None, NONE),
        (
            circle(0.0, 70.0, 0.0),
            &["geofence.entered f 4", "geofence.entered f 30"],
        ),
    ] {
        assert_eq!(
            short(&story.fence("f", fence.clone())),
            expected,
            "{fence:?}"
        );
    }
    // A slot given to another fence brings no visit along.
    story.fence("f", None);
    story.fence("g", circle(120.0, 5.0, 0.0));
    assert_eq!(short(&story.update(30, 0.0)), NONE);
    assert_eq!(story.detector.fence_count(), 1);
    assert_eq!(story.detector.driver_count(), 3);
}

#[test]
fn events_of_one_update_stand_in_order() {
    let mut story = Story::new(timeless());
    for (id, metres) in [
        ("b", 0.0),
        ("é", 0.0),
        ("a", 0.0),
        ("z", 1000.0),
        ("Z", 1000.0),
    ] {
        story.fence(id, circle(metres, 50.0, 0.0));
    }
    story.update(1, 0.0);
    story.order("o-2", Some((OrderStatus::Assigned, 1, 1400.0)));
    story.order("o-10", Some((OrderStatus::PickedUp, 1, 0.0)));
    story.order("o-1", Some((OrderStatus::Assigned, 1, 1300.0)));
    assert_eq!(
        short(&story.update(1, 1000.0)),
        [
            "geofence.exited a 1",
            "geofence.exited b 1",
            "geofence.exited é 1",
            "geofence.entered Z 1",
            "geofence.entered z 1",
            "agent.near o-1.pickup 1",
            "agent.near o-2.pickup 1",
        ]
    );
}

#[test]
fn near_is_told_once_per_leg() {
    use OrderStatus::{Assigned, PickedUp};
    let mut story = Story::new(timeless());
    story.update(1, 0.0);
    story.update(2, 100.0);
    for (version, expected) in [
        (
            Some((Assigned, 1, 300.0)),
            &["order.assigned o 1", "agent.near o.pickup 1"][..],
        ),
        // Moved: a new leg, near at once; moved back: not new.
        (Some((Assigned, 1, 400.0)), &["agent.near o.pickup 1"]),
        (Some((Assigned, 1, 300.0)), NONE),
        // Another driver, and back: told of the order, not of being near.
        (
            Some((Assigned, 2, 300.0)),
            &["order.assigned o 2", "agent.near o.pickup 2"],
        ),
        (Some((Assigned, 1, 300.0)), &["order.assigned o 1"]),
        (Some((PickedUp, 1, 300.0)), &["order.picked_up o 1"]),
        (Some((Assigned, 1, 300.0)), &["order.assigned o 1"]),
        // A new life begins afresh.
        (None, NONE),
        (
            Some((Assigned, 1, 300.0)),
            &["order.assigned o 1", "agent.near o.pickup 1"],
        ),
    ] {
        assert_eq!(short(&story.order("o", version)), expected, "{version:?}");
    }
    story.order("o", Some((PickedUp, 1, 300.0)));
    assert_eq!(short(&story.update(1, 4400.0)), NONE);
    assert_eq!(short(&story.update(1, 4600.0)), ["agent.near o.dropoff 1"]);
    assert_eq!(short(&story.update(1, 3000.0)), NONE);
    assert_eq!(short(&story.update(1, 4600.0)), NONE);
}

#[test]
fn an_order_may_come_before_its_drivers_first_fix() {
    let mut story = Story::new(timeless());
    let events = story.order("o", Some((OrderStatus::Assigned, 1, 300.0)));
    assert_eq!(short(&events), ["order.assigned o 1"]);
    story.fence("f", circle(0.0, 50.0, 0.0));
    assert_eq!(
        short(&story.update(1, 0.0)),
        ["geofence.entered f 1 initial", "agent.near o.pickup 1"]
    );
    let events = story.order("p", Some((OrderStatus::Delivered, 9, 300.0)));
    assert_eq!(short(&events), ["order.delivered p 9"]);
    assert_eq!((events[0].distance_m, events[0].position), (None, None));
    assert_eq!(events[0].at_place.as_deref(), Some("door"));
    assert_eq!(story.detector.driver_count(), 1);
}

#[test]
fn eta_is_by_the_fixs_speed_or_that_between_two() {
    let rules = Rules {
        near_repeat: true,
        ..timeless()
    };
    for (before, speed_mps, expected) in [
        (None, None, None),
        (None, Some(0.9), None),
        (None, Some(2.0), Some(200.0)),
        // From 390 m to 400 m in 1 s, then from 399.5 m.
        (Some(390.0), None, Some(40.0)),
        (Some(390.0), Some(0.5), Some(40.0)),
        (Some(390.0), Some(1.0), Some(400.0)),
        (Some(399.5), None, None),
    ] {
        let mut story = Story::new(rules.clone());
        if let Some(metres) = before {
            story.update(1, metres);
        }
        let place = story.place(Input::Updates);
        let update = Update {
            place,
            driver: DriverId(1),
            position: east(400.0),
            event_time_ms: place.at_ms,
            received_at_ms: place.at_ms,
            accuracy_m: None,
            speed_mps,
            heading_deg: None,
            state: None,
        };
        let mut out = Outputs::default();
        story.detector.on_update(update, 0, &mut out);
        let events = story.order("o", Some((OrderStatus::Assigned, 1, 0.0)));
        let near = events.last().unwrap();
        assert_eq!(near.subject, Subject::Leg(OrderId("o".into()), Leg::Pickup));
        let rounded = near.eta_s.map(|eta_s| (eta_s * 1e6).round() / 1e6);
        assert_eq!(rounded, expected, "{before:?} {speed_mps:?}");
    }
}

#[test]
fn a_fence_of_many_parts_is_one_fence() {
    let mut story = Story::new(timeless());
    story.update(1, 0.0);
    let parts = (0..50).map(|i| {
        let Some((Geometry::Polygon(rings), _)) =
            strip(f64::from(i) * 100.0, f64::from(i) * 100.0 + 150.0, 0.0)
        else {
            panic!()
        };
        rings
    });
    let fence = Some((Geometry::MultiPolygon(parts.collect()), 0.0));
    assert_eq!(short(&story.fence("f", fence)), ["geofence.entered f 1"]);
    assert_eq!(short(&story.update(1, 2120.0)), NONE);
    assert_eq!(short(&story.update(1, 6000.0)), ["geofence.exited f 1"]);
    assert_eq!(short(&story.update(1, 2120.0)), ["geofence.entered f 1"]);
    assert_eq!(short(&story.fence("f", None)), ["geofence.exited f 1"]);
}

#[test]
fn the_next_deadline_is_never_late() {
    let rules = Rules {
        arrive_s: 10.0,
        silent_s: 30.0,
        ..timeless()
    };
    let mut story = Story::new(rules);
    assert_eq!(story.detector.next_deadline(), None);
    story.update(1, 0.0);
    assert_eq!(story.detector.next_deadline(), None);
    // At 2 s, near the pickup: arrived at 12 s, silent at 32 s.
    story.order("o", Some((OrderStatus::Assigned, 1, 20.0)));
    assert_eq!(story.detector.next_deadline(), Some(12_000));
    let mut out = Outputs::default();
    story.detector.end_epoch(12_000, &mut out);
    assert_eq!(short(&out.events), NONE);
    story.detector.end_epoch(12_001, &mut out);
    assert_eq!(short(&out.events), ["agent.arrived o.pickup 1"]);
    let event = &out.events[0];
    assert_eq!((event.cause, event.place.at_ms), (Cause::Timer, 12_000));
    assert_eq!(event.source, event.place.source);
    assert_eq!(event.source.input, Input::Orders);
    // The order's event time is 7 ms before its record's.
    assert_eq!(
        (event.event_time_ms, event.detected_at_ms),
        (11_993, 12_001)
    );
    assert_eq!(event.dwell_s, Some(10.0));
    assert_eq!(story.detector.next_deadline(), Some(32_000));
    // An update moves the silence on, which the agenda learns when it looks.
    story.at_ms = 19_000;
    story.update(1, 0.0);
    story.detector.end_epoch(40_000, &mut out);
    assert_eq!(out.events.len(), 1);
    assert_eq!(story.detector.next_deadline(), Some(50_000));
    story.order("o", None);
    story.detector.end_epoch(100_000, &mut out);
    assert_eq!(
        (out.events.len(), story.detector.next_deadline()),
        (1, None)
    );
}

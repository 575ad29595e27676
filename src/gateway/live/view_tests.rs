//! The view by tables, and by any interleaving of the same records.

use proptest::prelude::*;

use super::orders::{EVENTS_KEPT, State};
use super::testing::{T0, at, event, fix, order, removal, take, told, update, version, view};
use super::view::{ENDED_STAYS_MS, RING, Record, Touched, View};
use crate::model::{DriverId, EventKind, Leg, OrderId, OrderStatus, TimeMs};

use EventKind::{AgentArrived, AgentDeparted, AgentNear};
use OrderStatus::{Assigned, Cancelled, Delivered, PickedUp, Placed};

fn id(text: &str) -> OrderId {
    OrderId(text.into())
}

#[test]
fn only_a_fix_that_the_job_calls_ok_moves_the_driver() {
    let here = at(77.0, 12.0);
    let far = at(78.0, 12.0);
    let mut inaccurate = update(1, far, T0 + 3_000_000);
    inaccurate.accuracy_m = Some(101.0);
    for (name, record, moves) in [
        ("ok", fix(1, at(77.0001, 12.0), T0 + 1_000), true),
        ("late", fix(1, far, T0 - 1), false),
        ("duplicate", fix(1, far, T0), false),
        ("inaccurate", Record::Update(inaccurate), false),
        ("teleport", fix(1, far, T0 + 1_000), false),
    ] {
        let mut view = view();
        take(&mut view, T0, [fix(1, here, T0), record]);
        let driver = view.drivers().get(DriverId(1)).expect("known");
        assert_eq!(driver.position != here, moves, "{name}");
    }
    // A teleport that the next fix confirms.
    let mut view = view();
    let jump = [fix(1, far, T0 + 1_000), fix(1, far, T0 + 2_000)];
    take(&mut view, T0, [fix(1, here, T0)].into_iter().chain(jump));
    let driver = view.drivers().get(DriverId(1)).expect("known");
    assert_eq!(driver.position, far);
}

#[test]
fn versions_of_an_order() {
    // What stands after these versions: status and driver of the open or ended order.
    for (versions, expected) in [
        (vec![(Placed, None)], Some((Placed, None))),
        (
            vec![(Placed, None), (Assigned, Some(1))],
            Some((Assigned, Some(1))),
        ),
        (
            vec![(Assigned, Some(1)), (Assigned, Some(2))],
            Some((Assigned, Some(2))),
        ),
        (
            vec![(Assigned, Some(1)), (Placed, None)],
            Some((Placed, None)),
        ),
        (
            vec![(PickedUp, Some(1)), (Delivered, None)],
            Some((Delivered, Some(1))),
        ),
        (
            vec![(PickedUp, Some(1)), (Cancelled, Some(2))],
            Some((Cancelled, Some(2))),
        ),
        (
            vec![(PickedUp, Some(1)), (Delivered, None), (Assigned, Some(1))],
            Some((Delivered, Some(1))),
        ),
        // Ended before anything was known of it: nothing to show, and nothing is heard.
        (vec![(Delivered, Some(1)), (Assigned, Some(1))], None),
    ] {
        let mut view = view();
        for (status, driver) in &versions {
            take(&mut view, T0, [order("o", *status, *driver, T0)]);
        }
        let stands = view.order(&id("o"));
        let stands = stands.map(|it| (it.order.status, it.order.driver.map(|driver| driver.0)));
        assert_eq!(stands, expected, "{versions:?}");
    }
}

#[test]
fn a_removed_order_is_gone_at_once_and_may_begin_anew() {
    let mut view = view();
    take(&mut view, T0, [order("o", Delivered, Some(1), T0)]);
    take(
        &mut view,
        T0,
        [removal("o", T0), order("o", Assigned, Some(2), T0)],
    );
    assert!(view.order(&id("o")).is_some());
    let touched = take(&mut view, T0, [removal("o", T0)]);
    assert!(view.order(&id("o")).is_none());
    assert!(touched.orders.contains(&id("o")));
    assert!(touched.places.contains("r") && touched.places.contains("c"));
    assert_eq!(view.orders_at("r").count(), 0);
}

#[test]
fn an_ended_order_stays_a_minute() {
    let mut view = view();
    take(
        &mut view,
        T0,
        [
            order("o", PickedUp, Some(1), T0),
            order("o", Delivered, None, T0),
        ],
    );
    let mut touched = Touched::default();
    view.sweep(T0 + ENDED_STAYS_MS, &mut touched);
    assert!(view.order(&id("o")).is_some());
    view.sweep(T0 + ENDED_STAYS_MS + 1, &mut touched);
    assert!(view.order(&id("o")).is_none());
    assert!(touched.places.contains("r"));
    // Still, only null is heard.
    take(&mut view, T0, [order("o", Assigned, Some(1), T0 + 90_000)]);
    assert!(view.order(&id("o")).is_none());
    // One that was over long before this gateway saw it leaves at once.
    let long_ago = [
        order("p", PickedUp, Some(1), T0),
        order("p", Delivered, None, T0),
    ];
    take(&mut view, T0 + 3_600_000, long_ago);
    assert!(view.order(&id("p")).is_none());
}

#[test]
fn a_fix_touches_the_orders_of_its_driver_and_the_place_it_goes_to() {
    let mut view = view();
    let orders = [
        order("a", Assigned, Some(1), T0),
        order("b", PickedUp, Some(1), T0),
        order("c", Assigned, Some(2), T0),
        order("d", Placed, None, T0),
    ];
    take(&mut view, T0, orders);
    let touched = take(&mut view, T0, [fix(1, at(77.0, 12.0), T0)]);
    assert_eq!(touched.orders, [id("a"), id("b")].into_iter().collect());
    assert_eq!(
        touched.places,
        ["r".into(), "c".into()].into_iter().collect()
    );
    let touched = take(&mut view, T0, [fix(2, at(77.0, 12.0), T0)]);
    assert_eq!(touched.places, ["r".into()].into_iter().collect());
    let touched = take(&mut view, T0, [fix(3, at(77.0, 12.0), T0)]);
    assert!(touched.orders.is_empty() && touched.places.is_empty());
    // Not of its duplicates.
    let touched = take(&mut view, T0, [fix(1, at(77.0, 12.0), T0)]);
    assert!(touched.orders.is_empty());
    let driver = view.drivers().get(DriverId(1)).expect("known");
    assert_eq!(driver.open_orders, 2);
}

/// An order's status with its driver, then events (kind, leg, driver).
type Story<'a> = (OrderStatus, u64, &'a [(EventKind, Leg, u64)]);

#[test]
fn what_a_place_sees() {
    const P: Leg = Leg::Pickup;
    const D: Leg = Leg::Dropoff;
    let stories: [(Story<'_>, State, State); 14] = [
        ((Placed, 1, &[]), State::Waiting, State::Waiting),
        ((Assigned, 1, &[]), State::Coming, State::Waiting),
        (
            (Assigned, 1, &[(AgentNear, P, 1)]),
            State::Near,
            State::Waiting,
        ),
        (
            (Assigned, 2, &[(AgentNear, P, 1)]),
            State::Coming,
            State::Waiting,
        ),
        (
            (Assigned, 1, &[(AgentNear, P, 1), (AgentArrived, P, 1)]),
            State::Arrived,
            State::Waiting,
        ),
        (
            (Assigned, 1, &[(AgentArrived, P, 1), (AgentDeparted, P, 1)]),
            State::Departed,
            State::Waiting,
        ),
        ((PickedUp, 1, &[]), State::PickedUp, State::Coming),
        (
            (PickedUp, 1, &[(AgentArrived, P, 1)]),
            State::PickedUp,
            State::Coming,
        ),
        (
            (PickedUp, 1, &[(AgentDeparted, P, 1)]),
            State::Departed,
            State::Coming,
        ),
        (
            (PickedUp, 1, &[(AgentNear, D, 1)]),
            State::PickedUp,
            State::Near,
        ),
        (
            (PickedUp, 1, &[(AgentDeparted, P, 1), (AgentNear, D, 1)]),
            State::Departed,
            State::Near,
        ),
        (
            (PickedUp, 1, &[(AgentNear, D, 1), (AgentArrived, D, 1)]),
            State::PickedUp,
            State::Arrived,
        ),
        (
            (Delivered, 1, &[(AgentArrived, D, 1)]),
            State::Ended,
            State::Ended,
        ),
        (
            (Cancelled, 1, &[(AgentNear, P, 1)]),
            State::Ended,
            State::Ended,
        ),
    ];
    for ((status, driver, events), at_pickup, at_dropoff) in stories {
        let mut view = view();
        take(&mut view, T0, [order("o", Placed, None, T0)]);
        take(&mut view, T0, [order("o", status, Some(driver), T0)]);
        for (number, (kind, leg, driver)) in events.iter().enumerate() {
            let at_ms = T0 + 1 + number as TimeMs;
            let told = told(number as u32, *kind, "o", Some(*leg), *driver, at_ms);
            take(&mut view, T0, [event(told)]);
        }
        let followed = view.order(&id("o")).expect("known");
        let seen = (followed.state(P).0, followed.state(D).0);
        assert_eq!(
            seen,
            (at_pickup, at_dropoff),
            "{status:?} {driver} {events:?}"
        );
    }
}

#[test]
fn what_was_told_of_the_way_to_another_door_counts_no_more() {
    let mut view = view();
    take(&mut view, T0, [order("o", Assigned, Some(1), T0)]);
    let near = told(1, AgentNear, "o", Some(Leg::Pickup), 1, T0 + 1_000);
    take(&mut view, T0, [event(near)]);
    let mut moved = version("o", Assigned, Some(1), T0 + 2_000);
    moved.order.as_mut().expect("a version").pickup.position = at(77.2, 12.0);
    take(&mut view, T0, [Record::Order(moved)]);
    let state = |view: &View| view.order(&id("o")).map(|it| it.state(Leg::Pickup));
    assert_eq!(state(&view), Some((State::Coming, T0 + 2_000)));
    let near = told(2, AgentNear, "o", Some(Leg::Pickup), 1, T0 + 3_000);
    take(&mut view, T0, [event(near)]);
    assert_eq!(state(&view), Some((State::Near, T0 + 3_000)));
}

#[test]
fn of_a_driver_that_was_taken_off_an_order_nothing_is_shown() {
    let mut view = view();
    let told = |number, kind, at_ms| event(told(number, kind, "o", Some(Leg::Pickup), 1, at_ms));
    let shown = |view: &View| {
        let followed = view.order(&id("o")).expect("it is open");
        followed.events().count()
    };
    take(
        &mut view,
        T0,
        [
            order("o", Assigned, Some(1), T0),
            told(1, EventKind::AgentArrived, T0 + 1),
        ],
    );
    assert_eq!(shown(&view), 1);
    take(
        &mut view,
        T0,
        [
            order("o", Placed, None, T0 + 2),
            told(2, EventKind::AgentDeparted, T0 + 3),
        ],
    );
    assert_eq!(shown(&view), 0);
}

#[test]
fn what_is_told_before_its_order_is_known_waits_for_it_but_not_for_ever() {
    let mut view = view();
    let near = || event(told(1, AgentNear, "o", Some(Leg::Pickup), 1, T0));
    take(&mut view, T0, [near(), order("o", Assigned, Some(1), T0)]);
    assert_eq!(view.order(&id("o")).map(|it| it.events().count()), Some(1));
    // The same again is the same.
    take(&mut view, T0, [near()]);
    assert_eq!(view.order(&id("o")).map(|it| it.events().count()), Some(1));
    assert_eq!(view.events().count(), 1);
    take(
        &mut view,
        T0,
        [
            removal("o", T0),
            event(told(2, AgentNear, "o", None, 1, T0)),
        ],
    );
    view.sweep(T0 + 60_001, &mut Touched::default());
    take(&mut view, T0, [order("o", Assigned, Some(1), T0)]);
    assert_eq!(view.order(&id("o")).map(|it| it.events().count()), Some(0));
}

#[test]
fn memory_of_events_is_bounded() {
    let mut view = view();
    take(&mut view, T0, [order("o", Assigned, Some(1), T0)]);
    let many = (0..1_000).map(|number| {
        event(told(
            number,
            AgentNear,
            "o",
            Some(Leg::Pickup),
            1,
            T0 + TimeMs::from(number),
        ))
    });
    take(&mut view, T0, many);
    let kept = view.order(&id("o")).expect("known").events();
    let kept: Vec<_> = kept.map(|(_, told)| told.at_ms - T0).collect();
    assert_eq!(
        kept,
        (1_000 - EVENTS_KEPT as TimeMs..1_000).collect::<Vec<_>>()
    );
    assert_eq!(view.events().count(), RING);
    let orphans = (0..100_000)
        .map(|number| event(told(number, AgentNear, &format!("x-{number}"), None, 1, T0)));
    take(&mut view, T0, orphans);
    let known = (0..100_000).map(|number| order(&format!("x-{number}"), Placed, None, T0));
    take(&mut view, T0, known);
    let told = (0..100_000).filter(|number| {
        let followed = view.order(&id(&format!("x-{number}"))).expect("known");
        followed.events().count() > 0
    });
    assert_eq!(told.count(), 4_096);
}

#[test]
fn a_driver_unheard_of_for_an_hour_is_forgotten_and_its_room_used_again() {
    let mut view = view();
    let orders = [order("o", Assigned, Some(2), T0)];
    take(&mut view, T0, orders);
    take(
        &mut view,
        T0,
        (1..=3).map(|driver| fix(driver, at(77.0, 12.0), T0)),
    );
    view.sweep_drivers(T0 + 3_600_001);
    let known = |view: &View| [1, 2, 3].map(|id| view.drivers().get(DriverId(id)).is_some());
    assert_eq!(known(&view), [false, true, false]);
    let later = T0 + 3_700_000;
    take(
        &mut view,
        later,
        [1, 3].map(|driver| fix(driver, at(78.0, 12.0), later)),
    );
    assert_eq!(known(&view), [true; 3]);
    assert_eq!(view.drivers().part(0, usize::MAX / 2).0.count(), 3);
}

/// All that a view shows, in one order.
fn shown(view: &View) -> Vec<String> {
    let mut all: Vec<String> = (view.drivers().part(0, usize::MAX / 2).0)
        .map(|it| {
            let (speed, pace) = (it.speed(), it.pace());
            let orders = it.open_orders;
            format!(
                "{:?} {:?} {} {speed:?} {pace:?} {orders}",
                it.id, it.position, it.event_time_ms
            )
        })
        .collect();
    for number in 0..ORDERS {
        let Some(it) = view.order(&id(&format!("o-{number}"))) else {
            all.push(format!("no o-{number}"));
            continue;
        };
        let events: Vec<_> = it.events().map(|(_, told)| &told.id).collect();
        let states = (it.state(Leg::Pickup), it.state(Leg::Dropoff));
        all.push(format!(
            "{:?} {:?} {states:?} {events:?}",
            it.order, it.ended_ms
        ));
    }
    for place in ["r", "c"] {
        let mut orders: Vec<_> = view.orders_at(place).map(|it| &it.order.id.0).collect();
        orders.sort();
        all.push(format!("{place} {orders:?}"));
    }
    all.sort();
    all
}

const ORDERS: u32 = 4;

#[derive(Clone, Debug)]
enum Made {
    Fix(u64, i32, TimeMs),
    Version(u32, u8, u64, TimeMs),
    Event(u32, u32, u8, bool, u64, TimeMs),
}

impl Made {
    fn record(&self) -> Record {
        match *self {
            Self::Fix(driver, step, at_ms) => fix(
                driver,
                at(77.0 + f64::from(step) * 0.0001, 12.0),
                T0 + at_ms,
            ),
            Self::Version(number, kind, driver, at_ms) => {
                let id = format!("o-{number}");
                let status = [Placed, Assigned, PickedUp, Delivered, Cancelled];
                match status.get(usize::from(kind)) {
                    Some(Placed) => order(&id, Placed, None, T0 + at_ms),
                    Some(status) => order(&id, *status, Some(driver), T0 + at_ms),
                    None => removal(&id, T0 + at_ms),
                }
            }
            Self::Event(number, order, kind, pickup, driver, at_ms) => {
                let kind = [AgentNear, AgentArrived, AgentDeparted][usize::from(kind)];
                let leg = if pickup { Leg::Pickup } else { Leg::Dropoff };
                let mut told = told(
                    number,
                    kind,
                    &format!("o-{order}"),
                    Some(leg),
                    driver,
                    T0 + at_ms,
                );
                told.partition = (driver % 2) as i32;
                event(told)
            }
        }
    }
}

/// Partitions: updates by driver, orders by order, events by driver; times never go back.
fn partitions() -> impl Strategy<Value = Vec<Vec<Made>>> {
    let time = 0..40_000i64;
    let fixes = prop::collection::vec((0..4u64, -3..3i32, time.clone()), 0..30);
    // An order that is removed forgets what was told of it; when, depends on who came first.
    let versions = prop::collection::vec((0..ORDERS, 0..5u8, 0..4u64, time.clone()), 0..20);
    let events = prop::collection::vec((0..ORDERS, 0..3u8, any::<bool>(), 0..4u64, time), 0..20);
    (fixes, versions, events).prop_map(|(fixes, versions, events)| {
        let mut all = vec![Vec::new(); 6];
        for (driver, step, at_ms) in fixes {
            all[(driver % 2) as usize].push((at_ms, Made::Fix(driver, step, at_ms)));
        }
        for (order, kind, driver, at_ms) in versions {
            let made = Made::Version(order, kind, driver, at_ms);
            all[2 + (order % 2) as usize].push((at_ms, made));
        }
        for (number, (order, kind, pickup, driver, at_ms)) in (0..).zip(events) {
            let made = Made::Event(number, order, kind, pickup, driver, at_ms);
            all[4 + (driver % 2) as usize].push((at_ms, made));
        }
        for partition in &mut all[2..] {
            partition.sort_by_key(|(at_ms, _)| *at_ms);
        }
        let made = all
            .into_iter()
            .map(|p| p.into_iter().map(|(_, made)| made).collect());
        made.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_interleaving_and_batching_gives_the_same_view(
        partitions in partitions(),
        turns in prop::collection::vec((0..6usize, 1..8usize), 0..200),
    ) {
        let now_ms = T0 + 40_000;
        let mut one_by_one = view();
        for made in partitions.iter().flatten() {
            take(&mut one_by_one, now_ms, [made.record()]);
        }
        let mut mixed = view();
        let mut next = [0usize; 6];
        let to_the_end = (0..6).map(|partition| (partition, usize::MAX));
        for (partition, count) in turns.into_iter().chain(to_the_end) {
            let all = &partitions[partition];
            let end = next[partition].saturating_add(count).min(all.len());
            let batch = all[next[partition]..end].iter().map(Made::record);
            take(&mut mixed, now_ms, batch);
            next[partition] = end;
        }
        prop_assert_eq!(shown(&one_by_one), shown(&mixed));
    }
}

//! Versions of an order, and the steps that its drivers get.

use super::{OrderBook, OrderStep};
use crate::model::{
    DriverId, Input, Leg, Order, OrderChange, OrderId, OrderStatus, Place, Position, Source, Stop,
};

fn stop(longitude: f64) -> Stop {
    Stop {
        position: Position {
            longitude,
            latitude: 1.0,
        },
        place: Some(format!("place-{longitude}").into()),
    }
}

/// A version: status, driver, longitude of the pickup; the drop-off is at 50.
type Version = Option<(OrderStatus, Option<u64>, f64)>;

fn change(at_ms: i64, version: Version) -> OrderChange {
    let id = OrderId("o-1".into());
    OrderChange {
        place: Place {
            at_ms,
            source: Source {
                input: Input::Orders,
                partition: 1,
                offset: at_ms,
            },
        },
        id: id.clone(),
        order: version.map(|(status, driver, pickup)| Order {
            id,
            driver: driver.map(DriverId),
            status,
            pickup: stop(pickup),
            dropoff: stop(50.0),
            updated_at_ms: at_ms + 1000,
        }),
    }
}

/// A step in short: driver, event told, status, leg and its longitude.
fn short(step: &OrderStep) -> String {
    let tell = step.tell.map_or("-", |kind| kind.name());
    let status = step.status.map_or("removed", OrderStatus::as_str);
    let leg = step.leg.as_ref().map_or(String::new(), |(leg, stop)| {
        format!(" {}@{}", leg.as_str(), stop.position.longitude)
    });
    let dropoff = if step.dropoff.is_some() {
        " +dropoff"
    } else {
        ""
    };
    format!("{} {tell} {status}{leg}{dropoff}", step.driver)
}

#[test]
fn lives_of_an_order() {
    use OrderStatus::{Assigned, Cancelled, Delivered, PickedUp, Placed};
    let lives: &[&[(Version, &[&str])]] = &[
        // The whole way.
        &[
            (Some((Placed, None, 1.0)), &[]),
            (
                Some((Assigned, Some(7), 1.0)),
                &["7 order.assigned assigned pickup@1"],
            ),
            (
                Some((PickedUp, Some(7), 1.0)),
                &["7 order.picked_up picked_up dropoff@50"],
            ),
            (
                Some((Delivered, None, 1.0)),
                &["7 order.delivered delivered +dropoff"],
            ),
            // After the end only a removal is heard.
            (Some((Assigned, Some(8), 1.0)), &[]),
            (Some((Cancelled, None, 1.0)), &[]),
            (None, &[]),
            // And then the id is free.
            (
                Some((Assigned, Some(8), 1.0)),
                &["8 order.assigned assigned pickup@1"],
            ),
        ],
        // The same again says nothing; a target that moves is told, not as an event.
        &[
            (
                Some((Assigned, Some(7), 1.0)),
                &["7 order.assigned assigned pickup@1"],
            ),
            (Some((Assigned, Some(7), 1.0)), &[]),
            (Some((Assigned, Some(7), 2.0)), &["7 - assigned pickup@2"]),
        ],
        // Handed on and back: both drivers hear, one is told.
        &[
            (
                Some((Assigned, Some(7), 1.0)),
                &["7 order.assigned assigned pickup@1"],
            ),
            (
                Some((Assigned, Some(3), 1.0)),
                &["3 order.assigned assigned pickup@1", "7 - assigned"],
            ),
            (
                Some((PickedUp, Some(3), 1.0)),
                &["3 order.picked_up picked_up dropoff@50", "7 - picked_up"],
            ),
            (
                Some((PickedUp, Some(7), 1.0)),
                &["3 - picked_up", "7 order.picked_up picked_up dropoff@50"],
            ),
            (
                Some((Cancelled, None, 1.0)),
                &["3 - cancelled", "7 order.cancelled cancelled"],
            ),
        ],
        // Taken from its driver, it has none to default to.
        &[
            (
                Some((Assigned, Some(7), 1.0)),
                &["7 order.assigned assigned pickup@1"],
            ),
            (Some((Placed, None, 1.0)), &["7 - placed"]),
            (Some((Cancelled, None, 1.0)), &["7 - cancelled"]),
        ],
        // Removed while open: all who ever had it forget it.
        &[
            (
                Some((Assigned, Some(7), 1.0)),
                &["7 order.assigned assigned pickup@1"],
            ),
            (
                Some((Assigned, Some(3), 1.0)),
                &["3 order.assigned assigned pickup@1", "7 - assigned"],
            ),
            (None, &["3 - removed", "7 - removed"]),
            (None, &[]),
        ],
        // Nobody's order ends unheard.
        &[
            (Some((Placed, None, 1.0)), &[]),
            (Some((Cancelled, None, 1.0)), &[]),
        ],
        &[(Some((Delivered, None, 1.0)), &[])],
        // First heard of at its end, or ended by another than its driver.
        &[(
            Some((Delivered, Some(9), 1.0)),
            &["9 order.delivered delivered +dropoff"],
        )],
        &[
            (
                Some((PickedUp, Some(7), 1.0)),
                &["7 order.picked_up picked_up dropoff@50"],
            ),
            (
                Some((Delivered, Some(9), 1.0)),
                &["7 - delivered", "9 order.delivered delivered +dropoff"],
            ),
        ],
    ];
    for life in lives {
        let mut book = OrderBook::new();
        for (at_ms, (version, expected)) in (0..).zip(*life) {
            let mut steps = Vec::new();
            book.apply(change(at_ms, *version), &mut steps);
            let got: Vec<String> = steps.iter().map(short).collect();
            assert_eq!(got, *expected, "{version:?}");
            for step in steps {
                assert_eq!(step.place.at_ms, at_ms);
                let event_time_ms = if version.is_some() {
                    at_ms + 1000
                } else {
                    at_ms
                };
                assert_eq!(step.event_time_ms, event_time_ms);
            }
        }
    }
}

#[test]
fn a_removed_order_leaves_no_memory() {
    let mut book = OrderBook::new();
    let mut steps = Vec::new();
    book.apply(
        change(0, Some((OrderStatus::Assigned, Some(7), 1.0))),
        &mut steps,
    );
    assert_eq!((book.len(), book.is_empty()), (1, false));
    book.apply(change(1, None), &mut steps);
    assert!(book.is_empty());
}

#[test]
fn a_stop_that_is_renamed_is_passed_on() {
    let mut book = OrderBook::new();
    let mut steps = Vec::new();
    let mut version = change(0, Some((OrderStatus::Assigned, Some(7), 1.0)));
    book.apply(version.clone(), &mut steps);
    steps.clear();
    version.order.as_mut().unwrap().pickup.place = None;
    book.apply(version, &mut steps);
    let (leg, stop) = steps[0].leg.as_ref().unwrap();
    assert_eq!((steps.len(), *leg, &stop.place), (1, Leg::Pickup, &None));
    assert_eq!(steps[0].tell, None);
}

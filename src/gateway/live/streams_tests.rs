//! What each stream says, and when: tables over the view, without sockets or clocks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Counted;
use super::bbox::Bbox;
use super::fleet::{FleetTeller, SHOWN, STALE_MS};
use super::order::OrderTeller;
use super::place::PlaceTeller;
use super::sse::{self, Step};
use super::testing::{T0, at, event, fix, frames, names, order, removal, take, told, view};
use super::view::{Touched, View};
use crate::model::{EventKind, FenceChange, Leg, OrderId, OrderStatus, TimeMs};
use crate::wire::decode_fence;

use EventKind::{AgentArrived, AgentNear, OrderAssigned};
use OrderStatus::{Assigned, Cancelled, Delivered, PickedUp, Placed};

const SOON: TimeMs = T0 + 1_000;

fn teller() -> OrderTeller {
    OrderTeller::new(OrderId("o".into()), None)
}

/// A view with an order under way and its driver 0.01 degrees west of the pickup.
fn under_way() -> View {
    let mut view = view();
    take(
        &mut view,
        T0,
        [
            order("o", Assigned, Some(1), T0),
            fix(1, at(76.99, 12.0), T0),
        ],
    );
    view
}

#[test]
fn an_order_is_told_whole_first() {
    let mut view = under_way();
    let near = told(1, AgentNear, "o", Some(Leg::Pickup), 1, T0);
    let id = near.id.clone();
    take(&mut view, T0, [event(near)]);
    let mut teller = teller();
    let step = teller.decide(&view, SOON);
    assert_eq!(
        frames(&step),
        [(
            "snapshot".to_owned(),
            Some(id.clone()),
            json!({
                "now": SOON,
                "order": {
                    "id": "o", "status": "assigned", "updatedAt": T0,
                    "pickup": {"longitude": 77.0, "latitude": 12.0, "place": "r"},
                    "dropoff": {"longitude": 77.0, "latitude": 12.01, "place": "c"},
                },
                "agent": {
                    "longitude": 76.99, "latitude": 12.0, "heading": 90.0, "speed": 10.0,
                    "at": T0, "age_ms": 1_000,
                },
                "target": "pickup",
                "distance_m": 1_087.7,
                "eta_s": {"min": 109.0, "max": 196.0},
                "events": [{"id": id, "type": "agent.near", "at": T0, "leg": "pickup"}],
            })
        )]
    );
    assert_eq!(teller.decide(&view, SOON), Step::Wait(None));
    // Without a driver there is nothing to show of one.
    let mut view = super::testing::view();
    take(&mut view, T0, [order("o", Placed, None, T0)]);
    let told = frames(&self::teller().decide(&view, SOON));
    assert_eq!(told[0].1, None);
    assert_eq!(told[0].2["agent"], Value::Null);
    assert_eq!(told[0].2["target"], Value::Null);
    assert!(told[0].2.get("eta_s").is_none() && told[0].2.get("distance_m").is_none());
}

#[test]
fn positions_go_out_at_most_five_times_a_second_and_the_latest_wins() {
    let mut view = under_way();
    let mut teller = teller();
    teller.decide(&view, SOON);
    for step in 1..=100 {
        let position = at(76.99 + f64::from(step) * 0.00001, 12.0);
        take(
            &mut view,
            SOON,
            [fix(1, position, T0 + TimeMs::from(step) * 20)],
        );
        if step < 100 {
            let wait = Step::Wait(Some(Duration::from_millis(150)));
            assert_eq!(teller.decide(&view, SOON + 50), wait);
        }
    }
    let told = frames(&teller.decide(&view, SOON + 200));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "position");
    assert_eq!(told[0].2["agent"]["longitude"], json!(76.991));
    assert_eq!(told[0].2["target"], json!("pickup"));
    assert_eq!(teller.decide(&view, SOON + 200), Step::Wait(None));
    // What happens is told at once, though a position would have to wait.
    take(&mut view, SOON, [fix(1, at(77.0, 12.0), T0 + 25_000)]);
    take(&mut view, SOON, [event(told_of(2, AgentArrived, 1))]);
    let step = teller.decide(&view, SOON + 210);
    assert_eq!(names(&step), ["event"]);
    assert_eq!(frames(&step)[0].1, Some(told_of(2, AgentArrived, 1).id));
    let wait = Step::Wait(Some(Duration::from_millis(190)));
    assert_eq!(teller.decide(&view, SOON + 210), wait);
    let step = teller.decide(&view, SOON + 400);
    assert_eq!(names(&step), ["position"]);
    // A clock that is set back does not silence the stream.
    take(&mut view, SOON, [fix(1, at(77.0, 12.001), T0 + 45_000)]);
    assert_eq!(names(&teller.decide(&view, SOON - 3_600_000)), ["position"]);
}

fn told_of(number: u32, kind: EventKind, driver: u64) -> super::told::Told {
    told(
        number,
        kind,
        "o",
        Some(Leg::Pickup),
        driver,
        T0 + TimeMs::from(number),
    )
}

#[test]
fn an_order_that_changes_is_told_whole_and_one_that_ends_ends_the_stream() {
    for (change, expected) in [
        (
            order("o", PickedUp, Some(1), SOON),
            ("snapshot", Some("dropoff")),
        ),
        (order("o", Placed, None, SOON), ("snapshot", None)),
        (
            order("o", Delivered, None, SOON),
            ("ended", Some("delivered")),
        ),
        (
            order("o", Cancelled, None, SOON),
            ("ended", Some("cancelled")),
        ),
        (removal("o", SOON), ("ended", Some("removed"))),
    ] {
        let mut view = under_way();
        let mut teller = teller();
        teller.decide(&view, SOON);
        take(&mut view, SOON, [change]);
        let step = teller.decide(&view, SOON);
        let told = frames(&step);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, expected.0);
        let what = &told[0].2[if expected.0 == "ended" {
            "status"
        } else {
            "target"
        }];
        assert_eq!(what.as_str(), expected.1);
        assert_eq!(matches!(step, Step::End(_)), expected.0 == "ended");
    }
    // A new version that changes nothing that counts is not told.
    let mut view = under_way();
    let mut teller = teller();
    teller.decide(&view, SOON);
    take(&mut view, SOON, [order("o", Assigned, Some(1), SOON)]);
    assert_eq!(teller.decide(&view, SOON), Step::Wait(None));
}

#[test]
fn the_driver_before_is_never_shown_again() {
    let mut view = under_way();
    take(&mut view, T0, [event(told_of(1, AgentNear, 1))]);
    let mut teller = teller();
    teller.decide(&view, SOON);
    take(&mut view, SOON, [order("o", Assigned, Some(2), SOON)]);
    let told = frames(&teller.decide(&view, SOON));
    assert_eq!(told[0].2["agent"], Value::Null);
    assert_eq!(told[0].2["events"], json!([]));
    // It moves on, and more is told of it: nothing of that is this reader's.
    take(&mut view, SOON, [fix(1, at(77.0, 12.0), T0 + 20_000)]);
    take(&mut view, SOON, [event(told_of(2, AgentArrived, 1))]);
    assert_eq!(teller.decide(&view, SOON + 1_000), Step::Wait(None));
    take(&mut view, SOON, [fix(2, at(77.1, 12.0), T0)]);
    let told = frames(&teller.decide(&view, SOON + 2_000));
    assert_eq!(told[0].2["agent"]["longitude"], json!(77.1));
}

#[test]
fn resuming_after_a_known_event_tells_only_later_ones() {
    let mut view = under_way();
    let mut assigned = told_of(1, OrderAssigned, 1);
    assigned.leg = None;
    let all = [
        assigned,
        told_of(2, AgentNear, 1),
        told_of(3, AgentArrived, 1),
    ];
    let ids: Vec<String> = all.iter().map(|told| told.id.clone()).collect();
    take(&mut view, T0, all.map(event));
    for (after, expected) in [
        (None, &ids[..]),
        (Some(ids[0].clone()), &ids[1..]),
        (Some(ids[2].clone()), &[]),
        (
            Some("rider-updates/0/9/agent.near/other/1".into()),
            &ids[..],
        ),
        (Some(String::new()), &ids[..]),
    ] {
        let after = after.map(String::into_bytes);
        let mut teller = OrderTeller::new(OrderId("o".into()), after.clone());
        let told = frames(&teller.decide(&view, SOON));
        let events = told[0].2["events"].as_array().expect("a list");
        let got: Vec<&str> = events.iter().filter_map(|it| it["id"].as_str()).collect();
        assert_eq!(got, expected, "{after:?}");
        assert_eq!(told[0].1.as_deref(), ids.last().map(String::as_str));
    }
}

#[test]
fn an_id_that_would_break_the_stream_is_not_told_as_one() {
    let mut out = String::new();
    sse::event(
        &mut out,
        "event",
        Some("a\ndata: forged"),
        &json!({"text": "b\nc"}),
    );
    assert_eq!(out, "event: event\ndata: {\"text\":\"b\\nc\"}\n\n");
}

#[test]
fn a_place_is_told_of_its_orders_from_coming_to_gone() {
    let mut view = view();
    let mut teller = PlaceTeller::new("r".into());
    let told = frames(&teller.decide(&view, T0));
    assert_eq!(told[0].2, json!({"now": T0, "place": "r", "orders": []}));
    assert_eq!(teller.decide(&view, T0 + 1), Step::Wait(None));
    let mut now_ms = T0;
    let mut step = |record, view: &mut View| {
        now_ms += 1_000;
        take(view, now_ms, [record]);
        frames(&teller.decide(view, now_ms))
    };
    let row = |told: &[(String, Option<String>, Value)]| {
        assert_eq!((told.len(), told[0].0.as_str()), (1, "order"), "{told:?}");
        let order = &told[0].2["order"];
        let state = order["state"].as_str().expect("a state").to_owned();
        (
            state,
            order["agent"].is_object(),
            order["distance_m"].is_number(),
        )
    };
    let near = told_of(1, AgentNear, 1);
    let arrived = told_of(2, AgentArrived, 1);
    let departed = told_of(3, EventKind::AgentDeparted, 1);
    let told = step(order("o", Placed, None, T0), &mut view);
    assert_eq!(row(&told), ("waiting".into(), false, false));
    assert!(step(fix(1, at(76.9, 12.0), T0), &mut view).is_empty());
    let told = step(order("o", Assigned, Some(1), T0), &mut view);
    assert_eq!(row(&told), ("coming".into(), true, true));
    let told = step(fix(1, at(76.95, 12.0), T0 + 600_000), &mut view);
    assert_eq!(told[0].0, "position");
    assert_eq!(told[0].2["id"], json!("o"));
    assert_eq!(told[0].2["agent"]["longitude"], json!(76.95));
    let told = step(event(near), &mut view);
    assert_eq!(row(&told), ("near".into(), true, true));
    let told = step(event(arrived), &mut view);
    assert_eq!(row(&told), ("arrived".into(), true, true));
    // From here on the driver's place is the customer's to see.
    let told = step(order("o", PickedUp, Some(1), T0), &mut view);
    assert_eq!(row(&told), ("picked_up".into(), false, false));
    assert!(step(fix(1, at(77.0, 12.0), T0 + 1_200_000), &mut view).is_empty());
    let told = step(event(departed), &mut view);
    assert_eq!(row(&told), ("departed".into(), false, false));
    assert!(step(fix(1, at(77.0, 12.001), T0 + 1_210_000), &mut view).is_empty());
    let told = step(order("o", Delivered, None, T0 + 10_000), &mut view);
    assert_eq!(row(&told), ("ended".into(), false, false));
    let told = step(removal("o", T0), &mut view);
    assert_eq!(
        told,
        [("removed".into(), None, json!({"now": now_ms, "id": "o"}))]
    );
}

#[test]
fn a_place_is_told_at_most_five_times_a_second() {
    let mut view = under_way();
    let mut teller = PlaceTeller::new("r".into());
    teller.decide(&view, SOON);
    assert_eq!(teller.decide(&view, SOON + 10), Step::Wait(None));
    take(&mut view, SOON, [fix(1, at(76.991, 12.0), T0 + 20_000)]);
    let wait = Step::Wait(Some(Duration::from_millis(150)));
    assert_eq!(teller.decide(&view, SOON + 50), wait);
    take(
        &mut view,
        SOON,
        [order("p", Placed, None, T0), removal("o", T0)],
    );
    let step = teller.decide(&view, SOON + 200);
    assert_eq!(names(&step), ["order", "removed"]);
    assert_eq!(teller.decide(&view, SOON + 200), Step::Wait(None));
}

fn fence(id: &str, longitude: f64) -> FenceChange {
    let text = format!(
        r#"{{"type":"Feature","geometry":{{"type":"Point","coordinates":[{longitude},12.0]}},"properties":{{"radius":100,"name":"f"}}}}"#
    );
    let place = match removal(id, T0) {
        super::view::Record::Order(change) => change.place,
        _ => unreachable!("a removal is of an order"),
    };
    decode_fence(Some(id.as_bytes()), Some(text.as_bytes()), place).expect("a fence")
}

fn fleet(bbox: &str) -> FleetTeller {
    let turn = Counted::one_more(&Arc::default());
    FleetTeller::new(Bbox::parse(bbox).expect("a box"), turn)
}

fn look(teller: &mut FleetTeller, view: &View, now_ms: TimeMs) -> Step {
    teller.decide(&mut |with| with(view), now_ms)
}

fn ids(value: &Value) -> Vec<u64> {
    let drivers = value.as_array().expect("a list").iter();
    drivers
        .filter_map(|it| it.as_u64().or_else(|| it[0].as_u64()))
        .collect()
}

#[test]
fn a_fence_that_moves_out_of_the_box_is_taken_off_the_map() {
    let mut view = view();
    let fence = |longitude| super::view::Record::Fence(fence("f", longitude));
    let told = |step: &Step| -> Vec<(String, bool)> {
        let frames = frames(step).into_iter();
        let features = frames.map(|(name, _, data)| (name, data["feature"].is_object()));
        features.collect()
    };
    take(&mut view, T0, [fence(77.0)]);
    let (mut here, mut there) = (fleet("76.9,11,77.1,13"), fleet("78.9,11,79.1,13"));
    look(&mut here, &view, T0);
    look(&mut there, &view, T0);
    // It is at two more places before anybody looks again.
    take(&mut view, T0 + 500, [fence(78.0), fence(79.0)]);
    let (was, is) = (
        look(&mut here, &view, T0 + 1_000),
        look(&mut there, &view, T0 + 1_000),
    );
    assert_eq!(told(&was), [("fence".to_owned(), false)]);
    assert_eq!(told(&is), [("fence".to_owned(), true)]);
    // A minute on it is where it is, and nobody is told of where it was.
    let later = T0 + 62_000;
    view.sweep(later, &mut Touched::default());
    take(&mut view, later, [fence(79.01)]);
    look(&mut here, &view, later);
    let snapshot = &frames(&look(&mut fleet("76.9,11,77.1,13"), &view, later))[0].2;
    assert_eq!(snapshot["fences"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_fleet_is_told_whole_and_then_what_is_new() {
    let mut view = view();
    take(
        &mut view,
        T0,
        [
            fix(1, at(77.0, 12.0), T0),
            fix(2, at(77.0, 12.0), T0 - STALE_MS - 10_000),
            fix(3, at(79.0, 12.0), T0),
            fix(4, at(77.0, 12.0), T0),
            order("o", Assigned, Some(1), T0),
            event(told_of(1, AgentNear, 1)),
            super::view::Record::Fence(fence("in", 77.0)),
            super::view::Record::Fence(fence("out", 79.0)),
        ],
    );
    let mut teller = fleet("76.5,11.5,77.5,12.5");
    let told = frames(&look(&mut teller, &view, T0));
    assert_eq!(told.len(), 1);
    let snapshot = &told[0].2;
    assert_eq!(
        (&snapshot["total"], &snapshot["shown"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        snapshot["drivers"][0],
        json!([1, 77.0, 12.0, 90.0, 10.0, T0, 0, 1])
    );
    assert_eq!(ids(&snapshot["drivers"]), [1, 4]);
    assert_eq!(snapshot["fences"].as_array().map(Vec::len), Some(1));
    assert_eq!(snapshot["fences"][0]["id"], json!("in"));
    assert_eq!(snapshot["fences"][0]["type"], json!("Feature"));
    assert_eq!(snapshot["events"][0]["driverId"], json!(1));
    assert_eq!(snapshot["events"][0]["orderId"], json!("o"));

    take(&mut view, T0, [fix(1, at(77.0001, 12.0), T0 + 500)]);
    let wait = Step::Wait(Some(Duration::from_millis(400)));
    assert_eq!(look(&mut teller, &view, T0 + 600), wait);
    take(
        &mut view,
        T0,
        [
            fix(5, at(77.0, 12.0), T0 + 600),
            fix(4, at(77.6, 12.0), T0 + 1_000_000),
            event(told_of(2, AgentArrived, 1)),
            super::view::Record::Fence(fence("in", 77.1)),
        ],
    );
    let step = look(&mut teller, &view, T0 + 1_000);
    assert_eq!(names(&step), ["fence", "event", "positions"]);
    let moved = &frames(&step)[2].2;
    assert_eq!(ids(&moved["drivers"]), [1, 5]);
    assert_eq!(ids(&moved["gone"]), [4]);
    assert_eq!(frames(&step)[1].2["event"]["type"], json!("agent.arrived"));
    // Nothing new: nothing is said.
    let wait = Step::Wait(Some(Duration::from_millis(1_000)));
    assert_eq!(look(&mut teller, &view, T0 + 2_000), wait);
    // An order's end changes how many the driver has.
    take(&mut view, T0, [order("o", Delivered, None, T0)]);
    let told = frames(&look(&mut teller, &view, T0 + 3_000));
    assert_eq!(told[0].2["drivers"][0][7], json!(0));
    // A removed fence, and drivers that fall silent.
    let mut gone = fence("in", 77.0);
    gone.fence = None;
    take(&mut view, T0, [super::view::Record::Fence(gone)]);
    let step = look(&mut teller, &view, T0 + 4_000);
    assert_eq!(
        frames(&step)[0].2,
        json!({"now": T0 + 4_000, "id": "in", "feature": null})
    );
    let mut at_ms = T0 + 4_000;
    while at_ms < T0 + STALE_MS + 600 {
        at_ms += 20_000;
        let told = frames(&look(&mut teller, &view, at_ms));
        if at_ms > T0 + STALE_MS + 600 {
            assert_eq!(ids(&told[0].2["gone"]), [1, 5]);
            assert_eq!(told[0].2["total"], json!(0));
        }
    }
}

#[test]
fn a_stream_that_was_not_read_for_long_begins_anew() {
    let mut view = under_way();
    let mut teller = fleet("70,10,80,20");
    assert_eq!(names(&look(&mut teller, &view, T0)), ["snapshot"]);
    take(&mut view, T0, [fix(1, at(76.991, 12.0), T0 + 20_000)]);
    assert_eq!(names(&look(&mut teller, &view, T0 + 30_001)), ["snapshot"]);
}

#[test]
fn of_many_drivers_the_same_five_thousand_are_shown_to_all() {
    let mut view = view();
    let row = |driver: u64| at(77.0 + driver as f64 * 1e-5, 12.0);
    take(
        &mut view,
        T0,
        (0..20_000).map(|driver| fix(driver, row(driver), T0)),
    );
    let snapshot = |view: &View| {
        frames(&look(&mut fleet("70,10,80,20"), view, T0))[0]
            .2
            .clone()
    };
    let first = snapshot(&view);
    assert_eq!(
        (&first["total"], &first["shown"]),
        (&json!(20_000), &json!(SHOWN))
    );
    let shown = ids(&first["drivers"]);
    assert_eq!(shown, ids(&snapshot(&view)["drivers"]));
    // Evenly: each tenth of the street has about a tenth of the dots.
    for tenth in 0..10 {
        let count = shown.iter().filter(|id| *id / 2_000 == tenth).count();
        assert!(
            (400..600).contains(&count),
            "{count} in the {tenth}th tenth"
        );
    }
    // Others moving about elsewhere change nothing.
    let mut teller = fleet("70,10,80,20");
    look(&mut teller, &view, T0);
    take(&mut view, T0, [fix(99_999, at(0.0, 0.0), T0)]);
    assert!(matches!(
        look(&mut teller, &view, T0 + 1_000),
        Step::Wait(_)
    ));
    view.sweep(T0, &mut Touched::default());
}

#[test]
fn a_streams_own_state_is_small() {
    let size = sse::size_of_body::<OrderTeller>();
    assert!(size <= 1_536, "{size} bytes");
}

#[test]
fn there_are_only_so_many_turns_and_one_that_ends_is_free_again() {
    let count = Arc::default();
    let mut turns: Vec<_> = (0..3).map(|_| Counted::one_of(3, &count)).collect();
    assert!(turns.iter().all(Option::is_some));
    assert!(Counted::one_of(3, &count).is_none());
    turns.pop();
    assert!(Counted::one_of(3, &count).is_some());
}

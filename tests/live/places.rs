//! What a restaurant and operations see, with the real job telling.

use std::time::Duration;

use riderflow::model::OrderStatus;
use serde_json::{Value, json};

use crate::common::{Sender, lab, now_ms};
use crate::feeder::{Feeder, at, order};
use crate::gateway::Gateway;

use OrderStatus::{Assigned, Delivered, PickedUp, Placed};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_restaurant_sees_who_comes_is_near_has_arrived_picked_up_and_departed() {
    let lab = lab("places");
    let pipeline = lab.pipeline("live", "orders.arrive_s = 1\nclickhouse.enabled = false");
    lab.init(&pipeline);
    let job = lab.run(&pipeline, 1);
    let gateway = Gateway::start(&lab.brokers());
    let mut feeder = Feeder::new(&lab);
    let restaurant = gateway.open("/v1/places/r/live", "place/r");
    let customer = gateway.open("/v1/places/c/live", "place/c");
    let empty = restaurant.next(SOON);
    assert_eq!(
        (empty.name.as_str(), &empty.data["orders"]),
        ("snapshot", &json!([]))
    );
    customer.next(SOON);

    let state = |stream: &crate::client::Stream, expected: &str| {
        let row = stream.find(SOON, expected, |frame| {
            assert_ne!(frame.name, "removed");
            frame.name == "order" && frame.data["order"]["state"] == expected
        });
        println!("{}", row.data);
        row.data["order"].clone()
    };
    feeder.order(&order("o-1", Placed, None));
    assert_eq!(state(&restaurant, "waiting")["agent"], Value::Null);
    feeder.fix(1, at(77.59, 12.9));
    feeder.order(&order("o-1", Assigned, Some(1)));
    let row = state(&restaurant, "coming");
    assert_eq!(row["agent"]["longitude"], 77.59);
    assert_eq!(row["leg"], "pickup");
    std::thread::sleep(Duration::from_millis(1_200));
    // 108 m in over a second and a half, near enough by now: a courier on a motorbike.
    let mut longitude = 77.59;
    while longitude < 77.5995 {
        longitude += 0.0005;
        feeder.fix(1, at(longitude, 12.9));
        std::thread::sleep(Duration::from_millis(850));
    }
    let near = state(&restaurant, "near");
    assert!(
        near["distance_m"].as_f64().is_some_and(|m| m <= 600.0),
        "{near}"
    );
    feeder.fix(1, at(77.6, 12.9));
    let arrived = state(&restaurant, "arrived");
    assert!(arrived["agent"].is_object());
    feeder.order(&order("o-1", PickedUp, Some(1)));
    assert_eq!(state(&restaurant, "picked_up")["agent"], Value::Null);
    assert!(state(&customer, "coming")["agent"].is_object());
    let mut latitude = 12.9;
    for _ in 0..5 {
        latitude += 0.0005;
        std::thread::sleep(Duration::from_millis(850));
        feeder.fix(1, at(77.6, latitude));
    }
    let departed = state(&restaurant, "departed");
    assert_eq!(departed["agent"], Value::Null);
    // Where it goes from here on is not the restaurant's to see.
    feeder.fix(1, at(77.6, latitude + 0.0001));
    let moved = customer.next_of("position", SOON);
    assert_eq!(moved.data["id"], "o-1");
    let after = restaurant.all_within(Duration::from_secs(1));
    assert!(after.is_empty(), "{after:?}");
    feeder.order(&order("o-1", Delivered, None));
    assert_eq!(state(&restaurant, "ended")["agent"], Value::Null);
    feeder.remove_order("o-1");
    let removed = restaurant.next_of("removed", SOON);
    assert_eq!(removed.data["id"], "o-1");
    assert_eq!(job.stop().code(), Some(0));
}

fn fence(sender: &mut Sender, id: &str, longitude: f64) {
    let feature = json!({
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[
            [longitude, 12.8], [longitude + 0.1, 12.8], [longitude + 0.1, 12.9],
            [longitude, 12.9], [longitude, 12.8],
        ]]},
        "properties": {"name": "zone", "kind": "zone"},
    });
    let value = feature.to_string();
    sender.send(
        "geofences",
        0,
        now_ms(),
        Some(id.as_bytes()),
        Some(value.as_bytes()),
    );
    sender.settle();
}

#[test]
fn operations_see_the_drivers_in_their_box() {
    let lab = lab("fleet");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    fence(&mut feeder.sender, "inside", 77.5);
    fence(&mut feeder.sender, "elsewhere", 20.0);
    feeder.order(&order("o-1", Assigned, Some(1)));
    for (driver, position) in [
        (1, at(77.55, 12.95)),
        (2, at(77.56, 12.95)),
        (3, at(20.05, 12.95)),
        (4, at(179.9, 0.0)),
        (5, at(-179.9, 0.0)),
    ] {
        feeder.fix(driver, position);
    }
    let gateway = Gateway::start(&lab.brokers());
    let city = gateway.open("/v1/fleet/live?bbox=77,12,78,13", "fleet");
    let ocean = gateway.open("/v1/fleet/live?bbox=170,-10,-170,10", "fleet");
    let ids = |value: &Value| {
        let drivers = value.as_array().expect("a list").iter();
        let ids = drivers.map(|it| it.as_u64().or_else(|| it[0].as_u64()).expect("an id"));
        ids.collect::<Vec<_>>()
    };
    let snapshot = city.next(SOON);
    assert_eq!(ids(&snapshot.data["drivers"]), [1, 2]);
    assert_eq!(snapshot.data["drivers"][0][7], 1, "one open order");
    assert_eq!(snapshot.data["total"], 2);
    assert_eq!(snapshot.data["fences"][0]["id"], "inside");
    assert_eq!(snapshot.data["fences"].as_array().map(Vec::len), Some(1));
    assert_eq!(ids(&ocean.next(SOON).data["drivers"]), [4, 5]);

    feeder.fix(1, at(77.5501, 12.95));
    feeder.fix(3, at(20.0501, 12.95));
    let moved = city.next_of("positions", Duration::from_secs(3));
    assert_eq!(ids(&moved.data["drivers"]), [1]);
    // Over the edge: gone, though not far.
    feeder.fix(6, at(77.9999, 12.95));
    city.find(SOON, "6 comes", |it| {
        it.name == "positions" && ids(&it.data["drivers"]) == [6]
    });
    feeder.fix(6, at(78.0001, 12.95));
    let gone = city.next_of("positions", Duration::from_secs(3));
    assert_eq!(
        (ids(&gone.data["gone"]), &gone.data["total"]),
        (vec![6], &json!(2))
    );
    fence(&mut feeder.sender, "inside", 77.6);
    let fenced = city.next_of("fence", Duration::from_secs(3));
    assert_eq!(
        fenced.data["feature"]["geometry"]["coordinates"][0][0][0],
        77.6
    );
    feeder
        .sender
        .send("geofences", 0, now_ms(), Some(b"inside"), None);
    feeder.sender.settle();
    let fenced = city.next_of("fence", Duration::from_secs(3));
    assert_eq!(
        (&fenced.data["id"], &fenced.data["feature"]),
        (&json!("inside"), &Value::Null)
    );
    let quiet = ocean.all_within(Duration::from_secs(1));
    assert!(quiet.is_empty(), "{quiet:?}");
}

//! What a customer sees of their order, and what nobody else does.

use std::time::Duration;

use riderflow::model::{EventKind, Leg, OrderStatus};
use serde_json::{Value, json};

use crate::common::{lab, now_ms, wait_until};
use crate::feeder::{Feeder, at, event, order};
use crate::gateway::Gateway;

use OrderStatus::{Assigned, Cancelled, Delivered, PickedUp, Placed};

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_customer_sees_the_driver_until_delivery_and_only_the_one_that_has_the_order() {
    let lab = lab("orders");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    feeder.order(&order("o-1", Assigned, Some(1)));
    feeder.fix(1, at(77.59, 12.9));
    let gateway = Gateway::start(&lab.brokers());

    let stream = gateway.open("/v1/orders/o-1/live", "order/o-1");
    let snapshot = stream.next(SOON);
    assert_eq!(snapshot.name, "snapshot");
    assert_eq!(snapshot.data["order"]["status"], "assigned");
    assert_eq!(snapshot.data["agent"]["longitude"], 77.59);
    assert_eq!(snapshot.data["target"], "pickup");
    assert_eq!(snapshot.data["order"]["dropoff"]["place"], "c");

    std::thread::sleep(SECOND);
    let sent_ms = feeder.fix(1, at(77.5903, 12.9));
    let position = stream.next(SECOND);
    assert_eq!(position.name, "position");
    assert_eq!(position.data["agent"]["longitude"], 77.5903);
    assert!(position.read_ms - sent_ms < 1_000, "{position:?}");

    // Another driver: the old one is never shown again, wherever it goes.
    feeder.order(&order("o-1", Assigned, Some(2)));
    let snapshot = stream.next(SECOND);
    assert_eq!(snapshot.name, "snapshot");
    assert_eq!(snapshot.data["agent"], Value::Null);
    for step in 1..=10 {
        feeder.fix(1, at(77.5903 + f64::from(step) * 1e-4, 12.9));
        std::thread::sleep(Duration::from_millis(200));
    }
    let none = stream.all_within(SECOND);
    assert!(none.is_empty(), "{none:?}");
    feeder.fix(2, at(77.61, 12.9));
    let position = stream.next(SECOND);
    assert_eq!(position.data["agent"]["longitude"], 77.61);

    feeder.order(&order("o-1", PickedUp, Some(2)));
    let snapshot = stream.next_of("snapshot", SECOND);
    assert_eq!(snapshot.data["target"], "dropoff");
    let delivered_ms = now_ms();
    feeder.order(&order("o-1", Delivered, None));
    let ended = stream.next_of("ended", SECOND);
    assert_eq!(ended.data["status"], "delivered");
    assert!(stream.closes(SECOND), "the server closes");
    println!(
        "delivery to revocation: {} ms",
        ended.read_ms - delivered_ms
    );
    assert!(ended.read_ms - delivered_ms < 1_000);
    let token = gateway.token("order/o-1");
    let refusal = gateway.ask("/v1/orders/o-1/live", Some(&token), None);
    assert!(refusal.is_err_and(|it| it.starts_with("HTTP/1.1 404")));

    // Called off, and removed.
    for (id, status) in [("o-2", "cancelled"), ("o-3", "removed")] {
        feeder.order(&order(id, Placed, None));
        std::thread::sleep(SECOND);
        let stream = gateway.open(&format!("/v1/orders/{id}/live"), &format!("order/{id}"));
        assert_eq!(stream.next(SOON).data["agent"], Value::Null);
        match status {
            "cancelled" => feeder.order(&order(id, Cancelled, None)),
            _ => feeder.remove_order(id),
        }
        assert_eq!(stream.next(SECOND).data["status"], status);
        assert!(stream.closes(SECOND));
    }
    assert_eq!(gateway.live.streams(), 0);
}

#[test]
fn unknown_ended_and_anothers_are_answered_alike() {
    let lab = lab("refusals");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    for (id, status) in [("mine", Assigned), ("theirs", Assigned), ("over", PickedUp)] {
        feeder.order(&order(id, status, Some(1)));
    }
    let gateway = Gateway::start(&lab.brokers());
    feeder.order(&order("over", Delivered, None));
    std::thread::sleep(SECOND);
    let ask = |path: &str, subject: &str| {
        let token = gateway.token(subject);
        gateway.ask(path, Some(&token), None).err()
    };
    let unknown = ask("/v1/orders/nobody/live", "order/nobody").expect("a refusal");
    assert_eq!(
        unknown,
        "HTTP/1.1 404 Not Found\ncontent-type: application/json\ncache-control: no-store\n\
         content-length: 21\n\n\n{\"error\":\"not_found\"}"
    );
    for (path, subject) in [
        ("/v1/orders/theirs/live", "order/mine"),
        ("/v1/orders/over/live", "order/over"),
        ("/v1/orders/over/live", "order/mine"),
        ("/v1/orders/nobody/live", "order/mine"),
        ("/v1/orders/mine/live", "driver/1"),
        ("/v1/orders/mine/live", "place/r"),
        ("/v1/orders/mine/live", "fleet"),
        ("/v1/orders/%FF/live", "order/mine"),
        ("/v1/places/r/live", "place/other"),
        ("/v1/places/r/live", "order/mine"),
        ("/v1/fleet/live?bbox=1,2,3,4", "order/mine"),
        ("/v1/fleet/live?bbox=none", "place/r"),
    ] {
        assert_eq!(
            ask(path, subject).as_ref(),
            Some(&unknown),
            "{path} {subject}"
        );
    }
    assert_eq!(ask("/v1/orders/mine/live", "order/mine"), None);
    // Without a token, or with one that is forged.
    for token in [None, Some("e30.e30.e30")] {
        let refusal = gateway.ask("/v1/orders/mine/live", token, None);
        let refusal = refusal.err().expect("a refusal");
        assert!(refusal.starts_with("HTTP/1.1 401"), "{refusal}");
        assert!(
            refusal.ends_with(r#"{"error":"unauthorized"}"#),
            "{refusal}"
        );
    }
    for (query, detail) in [
        ("", "it is missing"),
        ("?bbox=1,2,3", "north is missing"),
        ("?bbox=1,2,3,x", "north is not a number"),
        ("?bbox=1,4,3,2", "south is above north"),
    ] {
        let refusal = ask(&format!("/v1/fleet/live{query}"), "fleet").expect("a refusal");
        assert!(refusal.starts_with("HTTP/1.1 400"), "{refusal}");
        assert!(refusal.contains(r#""parameter":"bbox""#), "{refusal}");
        assert!(refusal.contains(detail), "{refusal}");
    }
}

#[test]
fn a_grant_that_runs_out_ends_its_streams_and_so_does_draining() {
    let lab = lab("ends");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    feeder.order(&order("o-1", Assigned, Some(1)));
    let gateway = Gateway::start(&lab.brokers());
    let short = gateway.token_for("order/o-1", SECOND);
    let expiring = gateway
        .ask("/v1/orders/o-1/live", Some(&short), None)
        .expect("granted");
    let streams = [
        gateway.open("/v1/orders/o-1/live", "order/o-1"),
        gateway.open("/v1/places/r/live", "place/r"),
        gateway.open("/v1/fleet/live?bbox=77,12,78,13", "fleet"),
    ];
    for stream in &streams {
        assert_eq!(stream.next(SOON).name, "snapshot");
    }
    // The leeway for clocks counts for streams too.
    let ended = expiring.next_of("ended", Duration::from_secs(9));
    assert_eq!(ended.data["status"], "expired");
    assert!(expiring.closes(SECOND));
    gateway.drain();
    for stream in &streams {
        assert!(stream.closes(SECOND), "draining ends all");
    }
    assert_eq!(gateway.live.streams(), 0);
}

#[test]
fn a_stream_resumes_on_another_gateway_after_the_last_event_that_was_seen() {
    let lab = lab("resume");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    feeder.may_tell();
    feeder.order(&order("o-1", Assigned, Some(1)));
    let first = Gateway::start(&lab.brokers());
    let stream = first.open("/v1/orders/o-1/live", "order/o-1");
    assert_eq!(stream.next(SOON).data["events"], json!([]));
    feeder.tell(&[event(1, EventKind::OrderAssigned, "o-1", None, 1)]);
    feeder.tell(&[event(2, EventKind::AgentNear, "o-1", Some(Leg::Pickup), 1)]);
    let assigned = stream.next_of("event", SECOND);
    let near = stream.next_of("event", SECOND);
    let id = near.id.expect("an id");
    assert_eq!(id, "rider-updates/0/2/agent.near/o-1.pickup/1");
    assert_eq!(near.data["event"]["id"], id.as_str());
    assert_eq!(near.data["event"]["distance_m"], 420.0);
    drop(stream);
    drop(first);
    feeder.tell(&[event(
        3,
        EventKind::AgentArrived,
        "o-1",
        Some(Leg::Pickup),
        1,
    )]);

    let second = Gateway::start(&lab.brokers());
    let token = second.token("order/o-1");
    let told = |last: Option<&str>| {
        let stream = second
            .ask("/v1/orders/o-1/live", Some(&token), last)
            .expect("granted");
        let snapshot = stream.next(SOON);
        let events = snapshot.data["events"].as_array().expect("a list").clone();
        events
            .iter()
            .map(|event| event["type"].as_str().expect("a type").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(Some(&id)), ["agent.arrived"]);
    let assigned = assigned.id.expect("an id");
    assert_eq!(told(Some(&assigned)), ["agent.near", "agent.arrived"]);
    assert_eq!(
        told(None),
        ["order.assigned", "agent.near", "agent.arrived"]
    );
    assert_eq!(told(Some("unheard/of")).len(), 3);
}

#[test]
fn the_gateway_hears_of_updates_that_others_have_numbered() {
    let lab = lab("numbered");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    feeder.may_tell();
    feeder.numbered_fix(453, at(77.59, 12.9), "k3J9/17");
    feeder.fix(453, at(77.59, 12.9));
    let gateway = Gateway::start(&lab.brokers());
    feeder.numbered_fix(454, at(77.59, 12.9), "other/1");
    feeder.numbered_fix(454, at(77.59, 12.9), "no number");
    let expected = [(453, "k3J9".to_owned(), 17), (454, "other".to_owned(), 1)];
    wait_until(SOON, "both are heard of", || {
        gateway.heard.lock().expect("no panic").len() >= expected.len()
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(*gateway.heard.lock().expect("no panic"), expected);
    assert_eq!(gateway.live.known().0, 2);
}

#[test]
fn a_broker_that_restarts_only_delays_and_a_gateway_may_start_before_it() {
    let mut lab = lab("broker");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    feeder.order(&order("o-1", Assigned, Some(1)));
    feeder.fix(1, at(77.59, 12.9));
    let gateway = Gateway::start(&lab.brokers());
    let stream = gateway.open("/v1/orders/o-1/live", "order/o-1");
    stream.next(SOON);
    lab.services().kill_kafka().expect("Kafka is killed");
    let early = Gateway::begin(&lab.brokers());
    std::thread::sleep(SECOND);
    assert!(!early.live.is_ready());
    let token = early.token("order/o-1");
    let refusal = early.ask("/v1/orders/o-1/live", Some(&token), None);
    let refusal = refusal.err().expect("a refusal");
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    assert!(refusal.contains("retry-after: 1"), "{refusal}");
    lab.services().start_kafka().expect("Kafka starts");
    feeder.fix(1, at(77.5905, 12.9));
    let position = stream.next_of("position", Duration::from_secs(20));
    assert_eq!(position.data["agent"]["longitude"], 77.5905);
    std::thread::sleep(SECOND);
    feeder.fix(1, at(77.591, 12.9));
    let position = stream.next_of("position", Duration::from_secs(5));
    assert_eq!(position.data["agent"]["longitude"], 77.591);
    wait_until(Duration::from_secs(20), "the early one is ready", || {
        early.live.is_ready()
    });
    let stream = early.open("/v1/orders/o-1/live", "order/o-1");
    assert_eq!(stream.next(SOON).data["agent"]["longitude"], 77.591);
}

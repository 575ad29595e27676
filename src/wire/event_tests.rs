//! Events on the wire: golden messages, ids, headers.

use super::*;
use crate::model::{
    Cause, DeadLetter, DriverId, Fault, FenceId, Input, Leg, OrderId, OrderStatus, Place, Position,
    Reason, Source,
};
use crate::wire::dead_letter_headers;

fn source(input: Input, partition: i32, offset: i64) -> Source {
    Source {
        input,
        partition,
        offset,
    }
}

/// An event with nothing that it could go without.
fn event(kind: EventKind, subject: Subject) -> Event {
    let source = source(Input::Updates, 0, 123_456);
    Event {
        kind,
        driver: DriverId(453),
        subject,
        cause: Cause::Position,
        place: Place {
            at_ms: 1_790_000_000_300,
            source,
        },
        source,
        event_time_ms: 1_790_000_000_123,
        detected_at_ms: 1_790_000_000_400,
        position: None,
        at_place: None,
        status: None,
        distance_m: None,
        eta_s: None,
        dwell_s: None,
        initial: false,
    }
}

#[test]
fn a_message_to_the_byte() {
    let entered = Event {
        position: Some(Position {
            longitude: 77.594_6,
            latitude: 12.971_6,
        }),
        initial: true,
        ..event(
            EventKind::GeofenceEntered,
            Subject::Fence(FenceId("f-7".into())),
        )
    };
    let encoded = encode_event(&entered);
    assert_eq!(encoded.key, "453");
    let source = ce_source("rider-alerts");
    let headers = encoded.headers(&source);
    assert_eq!(headers.len(), 7);
    let headers: Vec<_> = headers
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    assert_eq!(
        headers,
        [
            "ce_specversion: 1.0",
            "ce_id: rider-updates/0/123456/geofence.entered/f-7/453",
            "ce_source: /riderflow/rider-alerts",
            "ce_type: riderflow.geofence.entered.v1",
            "ce_subject: driver/453",
            "ce_time: 2026-09-21T14:13:20.123Z",
            "content-type: application/json",
        ]
    );
    assert_eq!(
        String::from_utf8_lossy(&encoded.data),
        concat!(
            r#"{"driverId":453,"fenceId":"f-7","longitude":77.5946,"latitude":12.9716,"#,
            r#""initial":true,"eventTime":1790000000123,"detectedAt":1790000000400,"#,
            r#""cause":"position","#,
            r#""source":{"topic":"rider-updates","partition":0,"offset":123456}}"#
        )
    );
}

#[test]
fn data_of_an_agents_event_to_the_byte() {
    let near = Event {
        cause: Cause::Order,
        source: source(Input::Orders, 1, 42),
        position: Some(Position {
            longitude: -77.0,
            latitude: 0.000_000_1,
        }),
        at_place: Some("restaurant-\"9\"\n".into()),
        status: Some(OrderStatus::Assigned),
        distance_m: Some(412.349_9),
        eta_s: Some(66.508),
        dwell_s: Some(12.345_6),
        ..event(
            EventKind::AgentNear,
            Subject::Leg(OrderId("o-1".into()), Leg::Pickup),
        )
    };
    let encoded = encode_event(&near);
    assert_eq!(encoded.id, "orders/1/42/agent.near/o-1.pickup/453");
    assert_eq!(
        String::from_utf8_lossy(&encoded.data),
        concat!(
            r#"{"driverId":453,"orderId":"o-1","leg":"pickup","place":"restaurant-\"9\"\n","#,
            r#""status":"assigned","longitude":-77.0,"latitude":1e-7,"#,
            r#""distance_m":412.3,"eta_s":66.5,"eta_method":"straight_line","dwell_s":12.346,"#,
            r#""eventTime":1790000000123,"detectedAt":1790000000400,"cause":"order","#,
            r#""source":{"topic":"orders","partition":1,"offset":42}}"#
        )
    );
}

#[test]
fn ids_name_the_object() {
    let id = |kind, subject| encode_event(&event(kind, subject)).id;
    assert_eq!(
        id(EventKind::DriverSilent, Subject::Driver),
        "rider-updates/0/123456/driver.silent/-/453"
    );
    assert_eq!(
        id(
            EventKind::OrderDelivered,
            Subject::Order(OrderId("o/1 ಕ".into()))
        ),
        "rider-updates/0/123456/order.delivered/o/1 ಕ/453"
    );
    assert_eq!(
        id(
            EventKind::AgentDeparted,
            Subject::Leg(OrderId("o-1".into()), Leg::Dropoff)
        ),
        "rider-updates/0/123456/agent.departed/o-1.dropoff/453"
    );
}

#[test]
fn a_types_name_is_the_kinds_between_prefix_and_version() {
    for kind in EventKind::ALL {
        assert_eq!(ce_type(kind), format!("riderflow.{}.v1", kind.name()));
    }
}

#[test]
fn times_have_three_decimals_in_every_year() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    assert_eq!(rfc3339(1_709_164_800_050), "2024-02-29T00:00:00.050Z");
    assert_eq!(rfc3339(LAST_TIME_MS), "9999-12-31T23:59:59.999Z");
    assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
    assert_eq!(rfc3339(i64::MIN), "0001-01-01T00:00:00.000Z");
}

#[test]
fn amounts_that_are_none_are_left_out() {
    let event = Event {
        distance_m: Some(f64::NAN),
        eta_s: Some(f64::INFINITY),
        dwell_s: Some(-0.000_01),
        ..event(EventKind::DriverResumed, Subject::Driver)
    };
    let encoded = encode_event(&event);
    let data: serde_json::Value = serde_json::from_slice(&encoded.data).expect("JSON");
    assert_eq!(data.get("distance_m"), None);
    assert_eq!(data.get("eta_s"), None);
    assert_eq!(data.get("eta_method"), None);
    assert!(String::from_utf8_lossy(&encoded.data).contains("\"dwell_s\":0.0,"));
}

#[test]
fn a_dead_letter_says_why_and_whence() {
    let letter = DeadLetter {
        place: Place {
            at_ms: 0,
            source: source(Input::Geofences, 0, 9),
        },
        key: None,
        value: None,
        fault: Fault {
            reason: Reason::OutOfRange,
            detail: "properties.radius = 0: not over 0".to_owned(),
        },
    };
    assert_eq!(
        dead_letter_headers(&letter),
        [
            ("rf-reason", "out_of_range".to_owned()),
            ("rf-detail", "properties.radius = 0: not over 0".to_owned()),
            ("rf-topic", "geofences".to_owned()),
            ("rf-partition", "0".to_owned()),
            ("rf-offset", "9".to_owned()),
        ]
    );
}

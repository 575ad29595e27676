//! Events as the job told them: from Kafka to what streams show of them.
//!
//! Owns reading what [`crate::wire::encode_event`] writes, and the shape in which a stream
//! tells an event. Never judges one.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{DriverId, EventKind, Leg, OrderId, Position, TimeMs};

/// One event, without what no stream shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    /// `ce_id`.
    pub(super) id: String,
    pub(super) kind: EventKind,
    pub(super) driver: DriverId,
    pub(super) order: Option<OrderId>,
    pub(super) fence: Option<CompactString>,
    pub(super) leg: Option<Leg>,
    pub(super) position: Option<Position>,
    pub(super) distance_m: Option<f64>,
    pub(super) eta_s: Option<f64>,
    /// Event time.
    pub(super) at_ms: TimeMs,
    /// The `now` of its epoch, and where it was told: two partitions' events of one order
    /// stand in this order, whatever way they came.
    pub(super) detected_at_ms: TimeMs,
    pub(super) partition: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    driver_id: u64,
    order_id: Option<CompactString>,
    fence_id: Option<CompactString>,
    leg: Option<Leg>,
    longitude: Option<f64>,
    latitude: Option<f64>,
    #[serde(rename = "distance_m")]
    distance_m: Option<f64>,
    #[serde(rename = "eta_s")]
    eta_s: Option<f64>,
    event_time: TimeMs,
    detected_at: TimeMs,
}

impl Told {
    /// Reads a message of `rider-notifications`; `None` for what is not an event of ours.
    pub(super) fn read(id: &[u8], ce_type: &[u8], data: &[u8], partition: i32) -> Option<Self> {
        let name = std::str::from_utf8(ce_type).ok()?;
        let name = name.strip_prefix("riderflow.")?.strip_suffix(".v1")?;
        let kind = EventKind::ALL.into_iter().find(|it| it.name() == name)?;
        let data: Data = serde_json::from_slice(data).ok()?;
        let position = match (data.longitude, data.latitude) {
            (Some(longitude), Some(latitude)) => Some(Position {
                longitude,
                latitude,
            }),
            _ => None,
        };
        Some(Self {
            id: String::from_utf8(id.to_vec()).ok()?,
            kind,
            driver: DriverId(data.driver_id),
            order: data.order_id.map(OrderId),
            fence: data.fence_id,
            leg: data.leg,
            position,
            distance_m: data.distance_m,
            eta_s: data.eta_s,
            at_ms: data.event_time,
            detected_at_ms: data.detected_at,
            partition,
        })
    }

    /// Where it stands among the events of one order.
    pub(super) fn standing(&self) -> (TimeMs, i32) {
        (self.detected_at_ms, self.partition)
    }

    /// As an order's stream shows it.
    pub(super) fn brief(&self) -> Brief<'_> {
        Brief {
            id: &self.id,
            kind: self.kind.name(),
            at: self.at_ms,
            leg: self.leg,
            distance_m: self.distance_m,
            eta_s: self.eta_s,
        }
    }

    /// As the operations map shows it.
    pub(super) fn full(&self) -> Full<'_> {
        Full {
            brief: self.brief(),
            driver_id: self.driver.0,
            order_id: self.order.as_ref().map(|order| order.0.as_str()),
            fence_id: self.fence.as_deref(),
            longitude: self.position.map(|position| position.longitude),
            latitude: self.position.map(|position| position.latitude),
        }
    }
}

/// An event that the job told.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct Brief<'a> {
    /// Its `ce_id` in Kafka: the same event has the same id wherever it is told.
    id: &'a str,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(schema_with = super::described::event_type)]
    kind: &'static str,
    /// Event time, ms since 1970.
    #[schema(value_type = i64)]
    at: TimeMs,
    /// To which end of an order; absent if to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = super::described::leg, required = false)]
    leg: Option<Leg>,
    /// Metres from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    distance_m: Option<f64>,
    /// Seconds to there, along a straight line.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    eta_s: Option<f64>,
}

/// An event with whom it concerns, and where.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventOfFleet)]
pub(super) struct Full<'a> {
    /// The event.
    #[serde(flatten)]
    brief: Brief<'a>,
    /// The driver.
    driver_id: u64,
    /// The order, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    order_id: Option<&'a str>,
    /// The fence, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fence_id: Option<&'a str>,
    /// Degrees east, WGS 84.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    longitude: Option<f64>,
    /// Degrees north, WGS 84.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    latitude: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cause, Event, Input, Place, Source, Subject};
    use crate::wire::encode_event;

    #[test]
    fn what_the_job_writes_is_read_and_shown() {
        let source = Source {
            input: Input::Updates,
            partition: 1,
            offset: 42,
        };
        let event = Event {
            kind: EventKind::AgentNear,
            driver: DriverId(453),
            subject: Subject::Leg(OrderId("o-1".into()), Leg::Dropoff),
            cause: Cause::Position,
            place: Place { at_ms: 7, source },
            source,
            event_time_ms: 1_790_000_000_000,
            detected_at_ms: 1_790_000_000_100,
            position: Some(Position {
                longitude: 77.5,
                latitude: 12.9,
            }),
            at_place: None,
            status: None,
            distance_m: Some(433.25),
            eta_s: Some(71.04),
            dwell_s: None,
            initial: false,
        };
        let encoded = encode_event(&event);
        let told = Told::read(
            encoded.id.as_bytes(),
            encoded.type_name.as_bytes(),
            &encoded.data,
            1,
        )
        .expect("an event");
        assert_eq!(told.standing(), (1_790_000_000_100, 1));
        assert_eq!(
            serde_json::to_string(&told.brief()).expect("JSON"),
            r#"{"id":"rider-updates/1/42/agent.near/o-1.dropoff/453","type":"agent.near","at":1790000000000,"leg":"dropoff","distance_m":433.3,"eta_s":71.0}"#
        );
        assert_eq!(
            serde_json::to_string(&told.full()).expect("JSON"),
            r#"{"id":"rider-updates/1/42/agent.near/o-1.dropoff/453","type":"agent.near","at":1790000000000,"leg":"dropoff","distance_m":433.3,"eta_s":71.0,"driverId":453,"orderId":"o-1","longitude":77.5,"latitude":12.9}"#
        );
        for (ce_type, data) in [
            (&b"riderflow.agent.near.v2"[..], &encoded.data[..]),
            (b"agent.near", &encoded.data),
            (b"riderflow.agent.lost.v1", &encoded.data),
            (b"riderflow.agent.near.v1", b"{}"),
            (b"riderflow.agent.near.v1", b"\xff"),
        ] {
            assert_eq!(Told::read(b"id", ce_type, data, 0), None);
        }
    }
}

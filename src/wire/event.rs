//! Events: [`Event`] to a CloudEvents 1.0 message in Kafka's binary mode.
//!
//! Owns ids, headers and data of `rider-notifications`. Promises that an event's bytes are
//! a function of the event alone, and its id of what it is about and its source, so that a
//! replay gives the same ids. Ids go into headers as they are: Kafka's are bytes. Never
//! drops a field that the event has, nor writes one that it has not.

use std::borrow::Cow;

use crate::model::{Event, EventKind, Subject, TimeMs};

use super::encode;
use super::json::LAST_TIME_MS;

/// The start of the year 1, the first time that RFC 3339 can sensibly write.
const EARLIEST_TIME_MS: TimeMs = -62_135_596_800_000;

/// The `ce_specversion` header.
pub const CE_SPECVERSION: &str = "1.0";

/// The `content-type` header.
pub const CONTENT_TYPE: &str = "application/json";

/// A message of `rider-notifications`, but for the pipeline's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// `ce_id`: `<topic>/<partition>/<offset>/<type>/<object>/<driver>`.
    pub id: String,
    /// The message key: the driver id as decimal text.
    pub key: String,
    /// `ce_type`, such as `riderflow.geofence.entered.v1`.
    pub type_name: &'static str,
    /// `ce_subject`: `driver/<driver>`.
    pub subject: String,
    /// `ce_time`: event time of the cause or deadline, RFC 3339 in UTC with milliseconds.
    pub time: String,
    /// The value: JSON as `schemas/events/<ce_type>.json` has it.
    pub data: Vec<u8>,
}

impl EncodedEvent {
    /// The message's headers; `source` is [`ce_source`] of the pipeline.
    pub fn headers<'a>(
        &'a self,
        source: &'a str,
    ) -> impl ExactSizeIterator<Item = (&'static str, &'a [u8])> {
        [
            ("ce_specversion", CE_SPECVERSION),
            ("ce_id", &self.id),
            ("ce_source", source),
            ("ce_type", self.type_name),
            ("ce_subject", &self.subject),
            ("ce_time", &self.time),
            ("content-type", CONTENT_TYPE),
        ]
        .map(|(name, value)| (name, value.as_bytes()))
        .into_iter()
    }
}

/// The `ce_source` of all events of the pipeline called `name`.
pub fn ce_source(name: &str) -> String {
    format!("/riderflow/{name}")
}

/// The `ce_type` of a kind of event.
pub fn ce_type(kind: EventKind) -> &'static str {
    match kind {
        EventKind::DriverResumed => "riderflow.driver.resumed.v1",
        EventKind::OrderAssigned => "riderflow.order.assigned.v1",
        EventKind::OrderPickedUp => "riderflow.order.picked_up.v1",
        EventKind::OrderDelivered => "riderflow.order.delivered.v1",
        EventKind::OrderCancelled => "riderflow.order.cancelled.v1",
        EventKind::GeofenceExited => "riderflow.geofence.exited.v1",
        EventKind::GeofenceCrossed => "riderflow.geofence.crossed.v1",
        EventKind::GeofenceEntered => "riderflow.geofence.entered.v1",
        EventKind::GeofenceDwelled => "riderflow.geofence.dwelled.v1",
        EventKind::AgentNear => "riderflow.agent.near.v1",
        EventKind::AgentArrived => "riderflow.agent.arrived.v1",
        EventKind::AgentDeparted => "riderflow.agent.departed.v1",
        EventKind::DriverSilent => "riderflow.driver.silent.v1",
    }
}

/// Encodes an event.
pub fn encode_event(event: &Event) -> EncodedEvent {
    EncodedEvent {
        id: event_id(event),
        key: event.driver.to_string(),
        type_name: ce_type(event.kind),
        subject: format!("driver/{}", event.driver),
        time: rfc3339(event.event_time_ms),
        data: data(event),
    }
}

/// `<topic>/<partition>/<offset>/<type>/<object>/<driver>`.
fn event_id(event: &Event) -> String {
    let object = match &event.subject {
        Subject::Driver => Cow::Borrowed("-"),
        Subject::Fence(fence) => Cow::Borrowed(fence.0.as_str()),
        Subject::Order(order) => Cow::Borrowed(order.0.as_str()),
        Subject::Leg(order, leg) => Cow::Owned(format!("{}.{}", order.0, leg.as_str())),
    };
    format!(
        "{}/{}/{}/{}/{object}/{}",
        event.source.input.topic(),
        event.source.partition,
        event.source.offset,
        event.kind.name(),
        event.driver
    )
}

/// RFC 3339 in UTC with milliseconds; times outside the years 1..=9999 are their nearest.
pub(crate) fn rfc3339(time_ms: TimeMs) -> String {
    let time_ms = time_ms.clamp(EARLIEST_TIME_MS, LAST_TIME_MS);
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (value, digits) in [
        (time.year().unsigned_abs(), 0..4),
        (u32::from(u8::from(time.month())), 5..7),
        (u32::from(time.day()), 8..10),
        (u32::from(time.hour()), 11..13),
        (u32::from(time.minute()), 14..16),
        (u32::from(time.second()), 17..19),
        (u32::from(time.millisecond()), 20..23),
    ] {
        let mut rest = value;
        for digit in text[digits].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    text.iter().copied().map(char::from).collect()
}

fn data(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    encode::write(&mut out, format_args!("{{\"driverId\":{}", event.driver));
    match &event.subject {
        Subject::Driver => {}
        Subject::Fence(fence) => text(&mut out, "fenceId", &fence.0),
        Subject::Order(order) => text(&mut out, "orderId", &order.0),
        Subject::Leg(order, leg) => {
            text(&mut out, "orderId", &order.0);
            text(&mut out, "leg", leg.as_str());
        }
    }
    if let Some(place) = &event.at_place {
        text(&mut out, "place", place);
    }
    if let Some(status) = event.status {
        text(&mut out, "status", status.as_str());
    }
    if let Some(position) = event.position {
        number(&mut out, "longitude", position.longitude);
        number(&mut out, "latitude", position.latitude);
    }
    if let Some(distance_m) = event.distance_m {
        number(&mut out, "distance_m", rounded(distance_m, 10.0));
    }
    if let Some(eta_s) = event.eta_s.filter(|eta_s| eta_s.is_finite()) {
        number(&mut out, "eta_s", rounded(eta_s, 10.0));
        text(&mut out, "eta_method", "straight_line");
    }
    if let Some(dwell_s) = event.dwell_s {
        number(&mut out, "dwell_s", rounded(dwell_s, 1000.0));
    }
    if event.initial {
        out.extend_from_slice(b",\"initial\":true");
    }
    let source = event.source;
    encode::write(
        &mut out,
        format_args!(
            ",\"eventTime\":{},\"detectedAt\":{},\"cause\":\"{}\",\
             \"source\":{{\"topic\":\"{}\",\"partition\":{},\"offset\":{}}}}}",
            event.event_time_ms,
            event.detected_at_ms,
            event.cause.as_str(),
            source.input.topic(),
            source.partition,
            source.offset
        ),
    );
    out
}

/// Writes a field's name behind other fields.
fn field(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes a text field behind others.
fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    field(out, name);
    encode::text(out, value);
}

/// Writes a number field behind others; JSON has no place for one that is not finite.
fn number(out: &mut Vec<u8>, name: &str, value: f64) {
    if value.is_finite() {
        field(out, name);
        encode::number(out, value);
    }
}

/// `value` to the nearest `1 / parts`; −0 is 0.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts + 0.0
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;

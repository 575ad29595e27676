//! Rider updates: JSON to [`Update`] and, for the simulator, back.
//!
//! Owns the reading of `rider-updates`. The plain shape that phones send goes through
//! [`super::scan`]; whatever that declines is decided here, field by field. Promises that
//! the two never disagree (`update_tests.rs` holds them together) and that the record's key
//! plays no part. Never looks at a clock: the future is measured from the Kafka timestamp.

use std::io::Write as _;

use compact_str::CompactString;

use crate::model::{DriverId, Fault, Place, Position, Reason, TimeMs, Update};

use super::encode;
use super::json::{self, LAST_TIME_MS, Object};
use super::scan;

/// What an update may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the value; `updates.max_bytes`.
    pub max_bytes: usize,
    /// Milliseconds that the event time may be ahead of the Kafka timestamp;
    /// `updates.future_limit_s`.
    pub future_limit_ms: i64,
}

impl Default for Limits {
    /// The contract's defaults: 16 KiB and 60 s.
    fn default() -> Self {
        Self {
            max_bytes: 16 * 1024,
            future_limit_ms: 60_000,
        }
    }
}

/// The known fields in the order in which they are checked; `driver_id` stands beside
/// `driverId`.
const FIELDS: [&str; 9] = [
    "driverId",
    "driver_id",
    "longitude",
    "latitude",
    "state",
    "timestamp",
    "accuracy",
    "speed",
    "heading",
];

/// Decodes a record of `rider-updates`. `received_at_ms` is the record's own Kafka
/// timestamp, which is also the event time of an update without `timestamp`.
///
/// # Errors
/// The first fault in the contract's order.
pub fn decode_update(
    value: Option<&[u8]>,
    place: Place,
    received_at_ms: TimeMs,
    limits: &Limits,
) -> Result<Update, Fault> {
    let value = value.unwrap_or_default();
    if value.len() > limits.max_bytes {
        return Err(oversize(value, limits));
    }
    match scan::scan_update(value, received_at_ms, limits) {
        Some(report) => Ok(report.into_update(place, received_at_ms)),
        None => decode_checked(value, received_at_ms, limits)
            .map(|report| report.into_update(place, received_at_ms)),
    }
}

/// What an update's value says, before it is given its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) driver: u64,
    pub(super) longitude: f64,
    pub(super) latitude: f64,
    pub(super) event_time_ms: TimeMs,
    pub(super) accuracy_m: Option<f32>,
    pub(super) speed_mps: Option<f32>,
    pub(super) heading_deg: Option<f32>,
    pub(super) state: Option<CompactString>,
}

impl Report {
    #[inline]
    fn into_update(self, place: Place, received_at_ms: TimeMs) -> Update {
        Update {
            place,
            driver: DriverId(self.driver),
            position: Position {
                longitude: self.longitude,
                latitude: self.latitude,
            },
            event_time_ms: self.event_time_ms,
            received_at_ms,
            accuracy_m: self.accuracy_m,
            speed_mps: self.speed_mps,
            heading_deg: self.heading_deg,
            state: self.state,
        }
    }
}

/// The event time of an update without `timestamp`.
#[inline]
pub(super) fn default_time_ms(received_at_ms: TimeMs) -> TimeMs {
    received_at_ms.clamp(0, LAST_TIME_MS)
}

#[cold]
fn oversize(value: &[u8], limits: &Limits) -> Fault {
    let start = String::from_utf8_lossy(&value[..value.len().min(64)]);
    json::fault(
        Reason::Oversize,
        "value",
        &start,
        format_args!(
            "{} bytes, over the limit of {}",
            value.len(),
            limits.max_bytes
        ),
    )
}

/// The reference: every rule of the contract in its order, after the size.
pub(super) fn decode_checked(
    value: &[u8],
    received_at_ms: TimeMs,
    limits: &Limits,
) -> Result<Report, Fault> {
    if value.is_empty() {
        return Err(json::empty("null or no bytes"));
    }
    let object = Object::read(json::document(value)?, "", &FIELDS)?;
    let [
        driver,
        other_driver,
        longitude,
        latitude,
        state,
        timestamp,
        accuracy,
        speed,
        heading,
    ] = std::array::from_fn(|index| object.field(index));

    let driver = match (driver.optional(), other_driver.optional()) {
        (Some(_), Some(other)) => {
            return Err(other.fault(Reason::MalformedJson, "given twice, as driverId too"));
        }
        (None, Some(other)) => other,
        _ => driver.required()?,
    };
    let driver = driver.driver()?;
    let Position {
        longitude,
        latitude,
    } = json::position(longitude, latitude)?;
    let state = match state.optional() {
        Some(state) => Some(CompactString::from(state.text()?)),
        None => None,
    };
    let latest_ms = received_at_ms.saturating_add(limits.future_limit_ms);
    let event_time_ms = match timestamp.optional() {
        Some(timestamp) => {
            let time_ms = timestamp.time_ms()?;
            // Later than this is `future_timestamp`, unless the Kafka timestamp is as wild.
            if time_ms > LAST_TIME_MS && time_ms <= latest_ms {
                return Err(timestamp.fault(Reason::OutOfRange, "after the year 9999"));
            }
            time_ms
        }
        None => default_time_ms(received_at_ms),
    };
    let [accuracy_m, speed_mps, heading_deg] =
        [accuracy, speed, heading].map(|field| match field.optional() {
            Some(value) => value.measure(),
            None => Ok(None),
        });
    let report = Report {
        driver,
        longitude,
        latitude,
        event_time_ms,
        accuracy_m: accuracy_m?,
        speed_mps: speed_mps?,
        heading_deg: heading_deg?,
        state,
    };
    match timestamp.optional() {
        Some(timestamp) if event_time_ms > latest_ms => Err(timestamp.fault(
            Reason::FutureTimestamp,
            format_args!(
                "more than {} ms ahead of the Kafka timestamp {received_at_ms}",
                limits.future_limit_ms
            ),
        )),
        _ => Ok(report),
    }
}

/// A rider update to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateMessage<'a> {
    /// Who.
    pub driver: DriverId,
    /// Where; sent with 7 decimals, about a centimetre.
    pub position: Position,
    /// The routing state.
    pub state: Option<&'a str>,
    /// Event time, ms since 1970.
    pub timestamp_ms: Option<TimeMs>,
    /// Metres.
    pub accuracy_m: Option<f32>,
    /// Metres per second.
    pub speed_mps: Option<f32>,
    /// Degrees clockwise from north.
    pub heading_deg: Option<f32>,
}

/// Appends an update's JSON to `out`, fields in the contract's order, absent ones left out.
pub fn encode_update(message: &UpdateMessage<'_>, out: &mut Vec<u8>) {
    encode::write(out, format_args!("{{\"driverId\":{}", message.driver));
    encode::position(out, ",", message.position);
    if let Some(state) = message.state {
        out.extend_from_slice(b",\"state\":");
        encode::text(out, state);
    }
    if let Some(timestamp_ms) = message.timestamp_ms {
        encode::write(out, format_args!(",\"timestamp\":{timestamp_ms}"));
    }
    for (name, value) in [
        ("accuracy", message.accuracy_m),
        ("speed", message.speed_mps),
        ("heading", message.heading_deg),
    ] {
        // JSON has no NaN: a measurement that is none is left out.
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let _ = write!(out, ",\"{name}\":{value:?}");
        }
    }
    out.push(b'}');
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;

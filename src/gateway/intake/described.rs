//! What phones and the gateway say, for the gateway's description of itself.
//!
//! Owns an example of each message. Nothing of this runs when a connection does.

use serde_json::{Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::schema::Schema;

use super::End;
use super::protocol::{Answer, RetryReason};
use crate::gateway::api::{Message, choice};
use crate::model::Reason;
use crate::telemetry::Label;

/// Why an update may be refused.
pub(super) fn refusal() -> Schema {
    let reasons = Reason::ALL.map(Reason::as_str);
    choice("Why.", reasons.into_iter().chain(["driver_mismatch"])).into()
}

/// The part of the OpenAPI document that is the intake's.
pub(in crate::gateway) fn paths() -> OpenApi {
    super::Described::openapi()
}

/// How a connection may end: each close code with what is said, by code.
pub(in crate::gateway) fn close_codes() -> Vec<(u16, String)> {
    let frames = End::VALUES.iter().filter_map(|end| end.close_frame());
    let mut codes: Vec<_> = frames
        .map(|frame| (frame.code, frame.reason.to_string()))
        .collect();
    codes.sort();
    codes
}

/// What the gateway says.
pub(in crate::gateway) fn answers() -> Vec<Message> {
    Message::of_variants(&[
        Answer::Welcome {
            session: "k3J9",
            acked: 16,
        },
        Answer::Ack { seq: 17 },
        Answer::Error {
            seq: Some(18),
            reason: Reason::OutOfRange.as_str(),
            field: "latitude",
            detail: "latitude = 91: not within -90..=90",
        },
        Answer::Error {
            seq: None,
            reason: Reason::MalformedJson.as_str(),
            field: "value",
            detail: "value: EOF while parsing an object at line 1 column 1",
        },
        Answer::Retry {
            seq: 19,
            after_ms: 500,
            reason: RetryReason::KafkaBusy,
        },
    ])
}

/// Examples of what a phone says: one update, and several.
pub(in crate::gateway) fn updates() -> [Value; 2] {
    let update = |seq: u64, longitude: f64| {
        json!({
            "seq": seq, "longitude": longitude, "latitude": 12.9716, "state": "south",
            "timestamp": 1_790_000_000_123_u64 + seq * 1_000, "accuracy": 8.0, "speed": 6.2,
            "heading": 271.5,
        })
    };
    [
        update(17, 77.5946),
        json!([update(18, 77.5940), update(19, 77.5934)]),
    ]
}

/// Whether an update would be taken.
#[cfg(test)]
pub(in crate::gateway) fn is_taken(update: &Value) -> bool {
    use super::protocol;
    use crate::model::DriverId;
    use crate::wire::{Limits, read_envelope};

    let text = update.to_string();
    let now_ms = 1_790_000_100_000;
    read_envelope(&text).is_ok_and(|envelope| {
        let driver = DriverId(453);
        let limits = Limits::default();
        let mut scratch = Vec::new();
        protocol::decode(&text, &envelope, driver, now_ms, &limits, &mut scratch).is_ok()
    })
}

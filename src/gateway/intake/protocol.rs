//! What phones and the gateway say to each other.
//!
//! Owns the text of every message. An update is judged by [`wire::decode_update`], the very
//! code that judges it in the job, so that what is acknowledged here is never refused there.
//! Pure. Never knows what was said before: that is for [`super::session`].

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::model::{DriverId, Fault, Input, Place, Reason, Source, TimeMs, Update};
use crate::telemetry::Label;
use crate::wire::{self, Envelope, Limits};

/// The largest message either way, bytes; longer ones close the connection.
pub(super) const MESSAGE_BYTES_MAX: usize = 4_096;

/// What the gateway says.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Answer<'a> {
    /// The first message of a connection.
    Welcome {
        /// The session's name.
        session: &'a str,
        /// Everything up to here is settled.
        acked: u64,
    },
    /// Everything up to here is settled: in Kafka, or refused.
    Ack {
        /// The number.
        seq: u64,
    },
    /// An update is refused, and so settled.
    Error {
        /// Its number; absent if the message can't be read so far.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false, minimum = 1)]
        seq: Option<u64>,
        /// Why.
        #[schema(schema_with = super::described::refusal)]
        reason: &'a str,
        /// The field; `value` for the update as a whole.
        field: &'a str,
        /// What is wrong with it, and its value, shortened.
        detail: &'a str,
    },
    /// This update and all after it were not taken.
    Retry {
        /// The first to send again.
        seq: u64,
        /// In so many milliseconds.
        after_ms: u64,
        /// Why.
        reason: RetryReason,
    },
}

impl Answer<'_> {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("an answer is made of numbers and text")
    }
}

/// Why an update was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryReason {
    /// Kafka is away or slow, and the buffer is full.
    KafkaBusy,
    /// The connection sends more than it may.
    RateLimited,
}

impl Label for RetryReason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [Self] = &[Self::KafkaBusy, Self::RateLimited];
    fn text(self) -> &'static str {
        match self {
            Self::KafkaBusy => "kafka_busy",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// Why an update is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its content.
    Fault(Fault),
    /// It names another driver than the token.
    DriverMismatch(DriverId),
}

impl Refused {
    /// The answer to the update of this number.
    pub(super) fn to_text(&self, seq: Option<u64>) -> String {
        match self {
            Self::Fault(fault) => Answer::Error {
                seq,
                reason: fault.reason.as_str(),
                field: &wire::faulty_field(fault),
                detail: &fault.detail,
            }
            .to_text(),
            Self::DriverMismatch(driver) => Answer::Error {
                seq,
                reason: "driver_mismatch",
                field: "driverId",
                detail: &format!("driverId = {driver}: not the token's driver"),
            }
            .to_text(),
        }
    }
}

/// The updates of one message.
pub(super) enum Updates<'a> {
    /// Anything but an array, which need not even be JSON.
    One(&'a str),
    /// An array's elements, which need not be objects.
    Many(Vec<&'a RawValue>),
}

/// Takes a message apart.
///
/// # Errors
/// [`Reason::MalformedJson`]: an array that is not JSON.
pub(super) fn updates_of(text: &str) -> Result<Updates<'_>, Refused> {
    if !text.trim_ascii_start().starts_with('[') {
        return Ok(Updates::One(text));
    }
    serde_json::from_str(text)
        .map(Updates::Many)
        .map_err(|error| {
            Refused::Fault(Fault {
                reason: Reason::MalformedJson,
                detail: format!("value: {error}"),
            })
        })
}

/// Reads one update of `driver`, which the gateway received at `received_at_ms`; `scratch` is
/// space to work in.
///
/// # Errors
/// What the job would refuse, and another driver's update.
pub(super) fn decode(
    text: &str,
    envelope: &Envelope,
    driver: DriverId,
    received_at_ms: TimeMs,
    limits: &Limits,
    scratch: &mut Vec<u8>,
) -> Result<Update, Refused> {
    let value = wire::with_driver(text, envelope.driver, driver, scratch);
    let update = judge(value, received_at_ms, limits)?;
    if update.driver == driver {
        Ok(update)
    } else {
        Err(Refused::DriverMismatch(update.driver))
    }
}

/// Whether the job will take an update as it was written for Kafka, which may be longer than what
/// the phone sent.
///
/// # Errors
/// It is over the limit.
pub(super) fn check_written(
    value: &[u8],
    received_at_ms: TimeMs,
    limits: &Limits,
) -> Result<(), Refused> {
    if value.len() <= limits.max_bytes {
        return Ok(());
    }
    judge(value, received_at_ms, limits).map(drop)
}

fn judge(value: &[u8], received_at_ms: TimeMs, limits: &Limits) -> Result<Update, Refused> {
    // It has no place in Kafka yet.
    let place = Place {
        at_ms: received_at_ms,
        source: Source {
            input: Input::Updates,
            partition: 0,
            offset: 0,
        },
    };
    wire::decode_update(Some(value), place, received_at_ms, limits).map_err(Refused::Fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::api::hold;

    #[test]
    fn what_is_too_long_only_as_written_is_refused() {
        let limits = Limits {
            max_bytes: 20,
            ..Limits::default()
        };
        let check = |value: &[u8]| check_written(value, 1_790_000_000_000, &limits);
        assert_eq!(check(&[b'x'; 20]), Ok(()));
        let refused = check(&[b'x'; 21]).expect_err("too long");
        let text = refused.to_text(Some(3));
        let expected = r#"{"type":"error","seq":3,"reason":"oversize","field":"value""#;
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn answers_read_as_documented() {
        for (answer, text) in [
            (
                Answer::Welcome {
                    session: "k3J9",
                    acked: 16,
                },
                r#"{"type":"welcome","session":"k3J9","acked":16}"#,
            ),
            (Answer::Ack { seq: 17 }, r#"{"type":"ack","seq":17}"#),
            (
                Answer::Retry {
                    seq: 19,
                    after_ms: 500,
                    reason: RetryReason::KafkaBusy,
                },
                r#"{"type":"retry","seq":19,"after_ms":500,"reason":"kafka_busy"}"#,
            ),
            (
                Answer::Retry {
                    seq: 19,
                    after_ms: 500,
                    reason: RetryReason::RateLimited,
                },
                r#"{"type":"retry","seq":19,"after_ms":500,"reason":"rate_limited"}"#,
            ),
        ] {
            assert_eq!(answer.to_text(), text);
            held(text);
        }
    }

    /// The text, which is as the gateway's documents have it.
    fn held(text: &str) -> String {
        let answer: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let name = answer["type"].as_str().expect("a type");
        hold("drivers", name, &answer);
        text.to_owned()
    }

    fn refusal(text: &str) -> String {
        let read = || -> Result<Update, Refused> {
            let envelope = wire::read_envelope(text).map_err(Refused::Fault)?;
            let now_ms = 1_790_000_000_000;
            decode(
                text,
                &envelope,
                DriverId(453),
                now_ms,
                &Limits::default(),
                &mut Vec::new(),
            )
        };
        held(&read().expect_err(text).to_text(Some(18)))
    }

    #[test]
    fn a_refusal_names_the_field() {
        assert_eq!(
            refusal(r#"{"longitude":77.5,"latitude":91}"#),
            r#"{"type":"error","seq":18,"reason":"out_of_range","field":"latitude","detail":"latitude = 91: not within -90..=90"}"#
        );
        assert_eq!(
            refusal(r#"{"driverId":7,"longitude":77.5,"latitude":9}"#),
            r#"{"type":"error","seq":18,"reason":"driver_mismatch","field":"driverId","detail":"driverId = 7: not the token's driver"}"#
        );
        assert_eq!(
            refusal(r#"{"longitude":77.5}"#),
            r#"{"type":"error","seq":18,"reason":"missing_field","field":"latitude","detail":"latitude: missing"}"#
        );
    }

    #[test]
    fn a_message_is_one_update_or_an_array() {
        assert!(matches!(updates_of(" {\"a\":1}"), Ok(Updates::One(_))));
        assert!(matches!(
            updates_of("nonsense"),
            Ok(Updates::One("nonsense"))
        ));
        let Ok(Updates::Many(all)) = updates_of(" [ {\"a\":[1]}, 7 ,null]") else {
            panic!("an array");
        };
        let all: Vec<&str> = all.iter().map(|each| each.get()).collect();
        assert_eq!(all, ["{\"a\":[1]}", "7", "null"]);
        let refused = updates_of("[{}").err().expect("it has no end");
        let text = held(&refused.to_text(None));
        assert!(
            text.starts_with(
                r#"{"type":"error","reason":"malformed_json","field":"value","detail":"value: EOF"#
            ),
            "{text}"
        );
    }
}

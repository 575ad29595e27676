//! What the gateway says to a phone.

use serde::Deserialize;

/// A message from the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Answer {
    /// The connection is open; everything up to `acked` is settled.
    Welcome { acked: u64 },
    /// Everything up to `seq` is in Kafka, or was refused.
    Ack { seq: u64 },
    /// This update was refused; sending it again is of no use.
    Error {
        /// Absent when the gateway could not read so far.
        #[serde(default)]
        seq: Option<u64>,
        reason: String,
        #[serde(default)]
        field: Option<String>,
    },
    /// This update and all after it were not taken: again, after so many ms.
    Retry { seq: u64, after_ms: u64 },
    /// Something that a newer gateway says.
    #[serde(other)]
    Other,
}

impl Answer {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_gateway_says() {
        for (text, answer) in [
            (
                r#"{"type":"welcome","session":"k3J9","acked":16}"#,
                Answer::Welcome { acked: 16 },
            ),
            (r#"{"type":"ack","seq":17}"#, Answer::Ack { seq: 17 }),
            (
                r#"{"type":"error","seq":18,"reason":"out_of_range","field":"latitude","detail":"91"}"#,
                Answer::Error {
                    seq: Some(18),
                    reason: "out_of_range".into(),
                    field: Some("latitude".into()),
                },
            ),
            (
                r#"{"type":"error","reason":"malformed_json","detail":"…"}"#,
                Answer::Error {
                    seq: None,
                    reason: "malformed_json".into(),
                    field: None,
                },
            ),
            (
                r#"{"type":"retry","seq":19,"after_ms":500,"reason":"kafka_busy"}"#,
                Answer::Retry {
                    seq: 19,
                    after_ms: 500,
                },
            ),
            (r#"{"type":"news","of":"tomorrow"}"#, Answer::Other),
        ] {
            assert_eq!(Answer::read(text), Ok(answer), "{text}");
        }
        for text in ["", "{}", r#"{"type":"ack"}"#, r#"{"type":"ack","seq":-1}"#] {
            assert!(Answer::read(text).is_err(), "{text}");
        }
    }
}

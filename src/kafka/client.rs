//! What all clients share: settings, logging, and asking what a topic looks like.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::ProducerContext;

/// How long one question to the broker may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to Kafka that failed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// No broker answered.
    #[error(
        "could not reach Kafka at {brokers}: {cause}; is it running, and is the address right \
         (kafka.brokers, RIDERFLOW_KAFKA)?"
    )]
    Unreachable {
        /// The bootstrap servers that were tried.
        brokers: String,
        /// What the client said.
        cause: rdkafka::error::KafkaError,
    },
    /// A topic that the job needs isn't there.
    #[error("topic {topic} does not exist at {brokers}; run `riderflow init` first")]
    MissingTopic {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        brokers: String,
    },
    /// A record of the epoch log that this build does not understand.
    #[error(
        "could not understand the epoch record {topic}[0]@{offset} ({error}); was it written by \
         a newer riderflow?"
    )]
    UnknownRecord {
        /// The epoch log.
        topic: String,
        /// Where in it.
        offset: i64,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// Anything else.
    #[error("could not {attempt}: {cause}")]
    Failed {
        /// What was attempted.
        attempt: String,
        /// What the client said.
        cause: rdkafka::error::KafkaError,
    },
}

impl KafkaError {
    pub(super) fn failed(
        attempt: impl Into<String>,
    ) -> impl FnOnce(rdkafka::error::KafkaError) -> Self {
        let attempt = attempt.into();
        move |cause| Self::Failed { attempt, cause }
    }
}

/// Sends the client library's log to ours.
pub(super) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Each attempt to reconnect is logged; that no broker is left is told by `error`.
        if facility == "FAIL" {
            return tracing::debug!(target: "kafka", "{facility}: {message}");
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "kafka", "{facility}: {message}"),
            _ => tracing::debug!(target: "kafka", "{facility}: {message}"),
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        // Whoever polls gets it as well; among them is every end of a partition.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            tracing::warn!(target: "kafka", "{reason}; reconnecting");
        } else {
            tracing::debug!(target: "kafka", "{error}: {reason}");
        }
    }
}

impl ConsumerContext for Logged {}

impl ProducerContext for Logged {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

/// Settings that every client starts from.
pub(super) fn base_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "riderflow")
        .set("log.connection.close", "false")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

/// A consumer that reads what it is told to, and only what is committed.
pub(super) fn reading_config(brokers: &str, group: &str) -> ClientConfig {
    let mut config = base_config(brokers);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    config
}

/// The partitions of one topic, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(pub i32);

/// How many partitions each of `topics` has.
///
/// # Errors
/// [`KafkaError::Unreachable`] or [`KafkaError::MissingTopic`].
pub fn partitions_of(brokers: &str, topics: &[&str]) -> Result<Vec<Partitions>, KafkaError> {
    let consumer: BaseConsumer<Logged> = base_config(brokers)
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka client"))?;
    topics
        .iter()
        .map(|topic| {
            let metadata = consumer
                .fetch_metadata(Some(topic), ANSWER_TIMEOUT)
                .map_err(|cause| KafkaError::Unreachable {
                    brokers: brokers.into(),
                    cause,
                })?;
            let count = metadata
                .topics()
                .first()
                .map_or(0, |topic| topic.partitions().len());
            if count == 0 {
                Err(KafkaError::MissingTopic {
                    topic: (*topic).into(),
                    brokers: brokers.into(),
                })
            } else {
                Ok(Partitions(count as i32))
            }
        })
        .collect()
}

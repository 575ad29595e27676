//! Whether a Kafka answers.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// Kafka did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("could not get an answer from Kafka at {brokers} within {} s: {source}", timeout.as_secs_f64())]
pub struct NotReady {
    brokers: String,
    timeout: Duration,
    source: KafkaError,
}

/// Waits until a broker at `brokers` (`host:port`, or several with commas) answers a metadata
/// request and counts itself in.
///
/// # Errors
/// If none did within `timeout`.
pub fn wait_until_ready(brokers: &str, timeout: Duration) -> Result<(), NotReady> {
    let not_ready = |source| NotReady {
        brokers: brokers.to_owned(),
        timeout,
        source,
    };
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        // Failed attempts are what is expected here.
        .set("log.connection.close", "false")
        .set("log_level", "0")
        .create()
        .map_err(not_ready)?;
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match client.fetch_metadata(None, left.max(Duration::from_millis(1))) {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
            // A broker that starts up knows of no broker yet.
            Ok(_) => KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable),
            Err(error) => error,
        };
        if left.is_zero() {
            return Err(not_ready(failure));
        }
        std::thread::sleep(Duration::from_millis(50).min(left));
    }
}

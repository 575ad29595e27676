//! A plain producer for tools: `produce`, `simulate`, tests.
//!
//! Owns one librdkafka producer and the count of what became of each record. It promises
//! order within a partition, no repeats by retries (it is idempotent), the Java client's
//! partition for keyed records without one, and exact counts of acknowledged records. Its
//! queue is bounded ([`Settings::queue_messages`]); when it is full, [`Producer::send`] waits by
//! serving acknowledgements. It never takes part in a transaction: the job's committer does
//! that.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, base_config};

/// Tags that deliveries can be told apart by: 0..TAGS.
pub const TAGS: usize = 16;

/// Acknowledgements are served at least once per this many sends.
const SENDS_PER_POLL: u32 = 256;

/// How to connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Bootstrap servers, `host:port` separated by commas.
    pub brokers: String,
    /// How long a record may wait for others to share its batch, ms. Default 5.
    pub linger_ms: u32,
    /// The queue's bound, records. Default 200,000.
    pub queue_messages: u32,
    /// A record that is not acknowledged after this has failed, ms. Default 60,000.
    pub delivery_timeout_ms: u32,
}

impl Settings {
    /// The defaults, for these brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            linger_ms: 5,
            queue_messages: 200_000,
            delivery_timeout_ms: 60_000,
        }
    }
}

/// What went wrong, with the broker and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// No broker answers, or a topic is missing.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A record was refused before it was sent.
    #[error("could not send a record to {topic} at {brokers}: {detail}")]
    Refused {
        /// The bootstrap servers.
        brokers: String,
        /// The topic.
        topic: String,
        /// librdkafka's words.
        detail: String,
    },
    /// Records were sent and not acknowledged.
    #[error(
        "Kafka at {brokers} did not take {failed} records, first {first}; check that the broker \
         is up and that the topic has this partition (`riderflow init PIPELINE`)"
    )]
    Undelivered {
        /// The bootstrap servers.
        brokers: String,
        /// How many.
        failed: u64,
        /// Where the first was going and why it failed.
        first: String,
    },
    /// Acknowledgements are still out after the time allowed.
    #[error("Kafka at {brokers} has not acknowledged {waiting} records after {after_s:.0} s")]
    Unacknowledged {
        /// The bootstrap servers.
        brokers: String,
        /// How many.
        waiting: u64,
        /// The time allowed, s.
        after_s: f64,
    },
}

/// One record to send.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None`: murmur2 of the key, as the Java client does it.
    pub partition: Option<i32>,
    /// The CreateTime, ms since 1970; `None`: now.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// What to count its acknowledgement under, below [`TAGS`].
    pub tag: usize,
}

/// What became of the records; shared with librdkafka's callbacks.
#[derive(Default)]
struct Deliveries {
    acked: [AtomicU64; TAGS],
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logged.log(level, facility, message);
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        Logged.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            Ok(_) => {
                self.acked[tag].fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0
                    && let Ok(mut first) = self.first_failure.lock()
                {
                    let why = error
                        .rdkafka_error_code()
                        .map_or_else(|| error.to_string(), |code| code.to_string());
                    *first = Some(format!(
                        "{}[{}]: {why}",
                        message.topic(),
                        message.partition()
                    ));
                }
            }
        }
    }
}

/// An idempotent producer with a bounded queue. One thread owns it.
pub struct Producer {
    inner: BaseProducer<Deliveries>,
    brokers: String,
    sends_until_poll: Cell<u32>,
}

impl Producer {
    /// Connects, and makes sure that a broker answers.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`], and [`KafkaError::Failed`] for settings that the client
    /// refuses.
    pub fn connect(settings: &Settings) -> Result<Self, KafkaError> {
        let inner: BaseProducer<Deliveries> = base_config(&settings.brokers)
            .set("client.id", "riderflow-tool")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", settings.linger_ms.to_string())
            .set("batch.num.messages", "10000")
            .set("batch.size", "1000000")
            .set(
                "queue.buffering.max.messages",
                settings.queue_messages.to_string(),
            )
            .set("queue.buffering.max.kbytes", "262144")
            .set(
                "message.timeout.ms",
                settings.delivery_timeout_ms.to_string(),
            )
            .create_with_context(Deliveries::default())
            .map_err(KafkaError::failed("make a Kafka producer"))?;
        let producer = Self {
            inner,
            brokers: settings.brokers.clone(),
            sends_until_poll: Cell::new(SENDS_PER_POLL),
        };
        producer.metadata(None)?;
        Ok(producer)
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`KafkaError::MissingTopic`] and [`KafkaError::Unreachable`].
    pub fn partitions(&self, topic: &str) -> Result<i32, KafkaError> {
        let metadata = self.metadata(Some(topic))?;
        match metadata.topics().iter().find(|each| each.name() == topic) {
            Some(found) if !found.partitions().is_empty() => Ok(found.partitions().len() as i32),
            _ => Err(KafkaError::MissingTopic {
                brokers: self.brokers.clone(),
                topic: topic.to_owned(),
            }),
        }
    }

    /// Queues a record; when the queue is full, waits by serving acknowledgements.
    ///
    /// # Errors
    /// [`ProducerError::Refused`], and [`ProducerError::Undelivered`] as soon as any earlier
    /// record has failed.
    pub fn send(&self, record: Record<'_>) -> Result<(), ProducerError> {
        while !self.try_send(record)? {
            self.poll(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Queues a record, or returns false at once when the queue is full: [`Self::poll`], then
    /// try again.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn try_send(&self, record: Record<'_>) -> Result<bool, ProducerError> {
        assert!(record.tag < TAGS, "a tag is below {TAGS}");
        let mut message: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(record.topic, record.tag);
        message.partition = record.partition;
        message.timestamp = record.timestamp_ms;
        message.key = record.key;
        message.payload = record.value;
        match self.inner.send(message) {
            Ok(()) => {}
            Err((
                rdkafka::error::KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull),
                _,
            )) => {
                self.check()?;
                return Ok(false);
            }
            Err((error, _)) => {
                return Err(ProducerError::Refused {
                    brokers: self.brokers.clone(),
                    topic: record.topic.to_owned(),
                    detail: error
                        .rdkafka_error_code()
                        .map_or_else(|| error.to_string(), |code| code.to_string()),
                });
            }
        }
        let left = self.sends_until_poll.get() - 1;
        if left == 0 {
            self.sends_until_poll.set(SENDS_PER_POLL);
            self.poll(Duration::ZERO);
            self.check()?;
        } else {
            self.sends_until_poll.set(left);
        }
        Ok(true)
    }

    /// Serves acknowledgements for exactly `time`; with zero, those at hand.
    pub fn poll(&self, time: Duration) {
        self.inner.poll(time);
    }

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// [`ProducerError::Undelivered`], and [`ProducerError::Unacknowledged`] after `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), ProducerError> {
        let start = Instant::now();
        while self.in_flight() > 0 {
            if start.elapsed() > timeout {
                return Err(ProducerError::Unacknowledged {
                    brokers: self.brokers.clone(),
                    waiting: self.in_flight(),
                    after_s: timeout.as_secs_f64(),
                });
            }
            self.poll(Duration::from_millis(1));
        }
        self.check()
    }

    /// Whether all went well so far.
    ///
    /// # Errors
    /// [`ProducerError::Undelivered`] once a record has failed.
    pub fn check(&self) -> Result<(), ProducerError> {
        match self.failed() {
            0 => Ok(()),
            failed => Err(ProducerError::Undelivered {
                brokers: self.brokers.clone(),
                failed,
                first: self
                    .deliveries()
                    .first_failure
                    .lock()
                    .ok()
                    .and_then(|first| first.clone())
                    .unwrap_or_default(),
            }),
        }
    }

    /// How many records of a tag are acknowledged.
    pub fn acked(&self, tag: usize) -> u64 {
        self.deliveries().acked[tag].load(Ordering::Relaxed)
    }

    /// How many records failed.
    pub fn failed(&self) -> u64 {
        self.deliveries().failed.load(Ordering::Relaxed)
    }

    /// How many records are neither acknowledged nor failed.
    pub fn in_flight(&self) -> u64 {
        self.inner.in_flight_count().max(0) as u64
    }

    fn deliveries(&self) -> &Deliveries {
        self.inner.context()
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, KafkaError> {
        self.inner
            .client()
            .fetch_metadata(topic, ANSWER_TIMEOUT)
            .map_err(|cause| KafkaError::Unreachable {
                brokers: self.brokers.clone(),
                cause,
            })
    }
}

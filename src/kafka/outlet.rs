//! The gateway's way into Kafka: records in from any task, a receipt back for each.
//!
//! ```text
//! try_send(record, receipt) ──▶ librdkafka's queue ──▶ broker
//!                                                        │ all replicas have it
//! receipt.stored()  ◀── the outlet's own thread ◀────────┘
//! ```
//!
//! Owns one librdkafka producer and the thread that serves its acknowledgements. Promises that
//! a receipt is called only once Kafka has the record, that records of one partition are stored
//! in the order of their sending, each once and without a gap, and that sending never waits.
//! The queue is bounded by records and by bytes, both counted until the acknowledgement; when
//! it is full, or Kafka is away for long enough to fill it, [`Outlet::try_send`] says so and
//! takes nothing. It never gives a record up: one that can't be stored is a fault that ends the
//! outlet ([`Outlet::fatal`]), since going on would leave a gap.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, base_config};

/// How to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a record may wait for others to share its batch, ms. Default 5.
    pub linger_ms: u32,
    /// The queue's bound, records that Kafka has not acknowledged; at least 1. Default 100,000.
    pub queue_records: u32,
    /// The same in KiB. Default 65,536.
    pub queue_kib: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            linger_ms: 5,
            queue_records: 100_000,
            queue_kib: 64 << 10,
        }
    }
}

/// What is told once Kafka has a record.
pub trait Receipt: Send + Sync + 'static {
    /// All in-sync replicas have it. Called on the outlet's thread: it must not block.
    fn stored(self);
}

/// One record to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The CreateTime, ms since 1970.
    pub timestamp_ms: i64,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// One header, by name and value, if it bears one.
    pub header: Option<(&'a str, &'a [u8])>,
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is full: later there will be room.
    #[error("could not queue a record for Kafka: the queue is full")]
    Full,
    /// No record will be taken any more.
    #[error("could not queue a record for Kafka: {0}")]
    Fatal(String),
}

/// Serves acknowledgements; shared with librdkafka's callbacks.
struct Receipts<R> {
    /// The first fault that no retry mends.
    fatal: OnceLock<String>,
    receipt: PhantomData<fn(R)>,
}

impl<R> Receipts<R> {
    fn fail(&self, why: String) {
        // What follows from the first one is no news.
        self.fatal.get_or_init(|| {
            tracing::error!(target: "kafka", "{why}");
            why
        });
    }
}

impl<R: Receipt> ClientContext for Receipts<R> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // It warns that a setting is experimental, which is chosen on purpose.
        if facility == "CONFWARN" && message.contains("enable.gapless.guarantee") {
            return tracing::debug!(target: "kafka", "{facility}: {message}");
        }
        Logged.log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        Logged.error(error.clone(), reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fail(format!(
                "Kafka's client can't go on without a gap: {reason}; start the gateway again"
            ));
        }
    }
}

impl<R: Receipt> ProducerContext for Receipts<R> {
    type DeliveryOpaque = Box<R>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Box<R>) {
        match result {
            Ok(_) => receipt.stored(),
            // Given up by `Drop`, not by Kafka.
            Err((error, _))
                if matches!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
                ) => {}
            Err((error, message)) => {
                let why = error
                    .rdkafka_error_code()
                    .map_or_else(|| error.to_string(), |code| code.to_string());
                self.fail(format!(
                    "Kafka did not take a record for {}[{}]: {why}; check that the topic is as \
                     `riderflow init PIPELINE` makes it, and start the gateway again",
                    message.topic(),
                    message.partition()
                ));
            }
        }
    }
}

/// A producer with receipts. Cheap to share behind an [`Arc`]; dropping it gives up what Kafka
/// has not acknowledged (see [`Outlet::settle`]).
pub struct Outlet<R: Receipt> {
    inner: ThreadedProducer<Receipts<R>>,
    context: Arc<Receipts<R>>,
}

impl<R: Receipt> Outlet<R> {
    /// Connects, and makes sure that a broker answers.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`], and [`KafkaError::Failed`] for settings that the client
    /// refuses.
    pub fn connect(brokers: &str, settings: Settings) -> Result<Self, KafkaError> {
        let inner: ThreadedProducer<Receipts<R>> = base_config(brokers)
            .set("client.id", "riderflow-gateway")
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            // Retried for as long as it takes; the queue's bound is what limits the wait.
            .set("message.timeout.ms", "0")
            .set("linger.ms", settings.linger_ms.to_string())
            .set("batch.num.messages", "10000")
            .set("compression.type", "lz4")
            .set(
                "queue.buffering.max.messages",
                settings.queue_records.max(1).to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                settings.queue_kib.max(1).to_string(),
            )
            .create_with_context(Receipts {
                fatal: OnceLock::new(),
                receipt: PhantomData,
            })
            .map_err(KafkaError::failed("make the gateway's Kafka producer"))?;
        let context = Arc::clone(inner.client().context());
        inner
            .client()
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|cause| KafkaError::Unreachable {
                brokers: brokers.into(),
                cause,
            })?;
        Ok(Self { inner, context })
    }

    /// Queues a record. Never waits, and may be called from any thread. On an error the receipt
    /// is dropped, and nothing was taken.
    ///
    /// # Errors
    /// [`SendError::Full`]: try again later. [`SendError::Fatal`]: make a new outlet.
    pub fn try_send(&self, record: Outgoing<'_>, receipt: R) -> Result<(), SendError> {
        if let Some(why) = self.context.fatal.get() {
            return Err(SendError::Fatal(why.clone()));
        }
        let mut message: BaseRecord<'_, [u8], [u8], Box<R>> =
            BaseRecord::with_opaque_to(record.topic, Box::new(receipt))
                .partition(record.partition)
                .timestamp(record.timestamp_ms)
                .key(record.key)
                .payload(record.value);
        if let Some((key, value)) = record.header {
            message = message.headers(OwnedHeaders::new_with_capacity(1).insert(Header {
                key,
                value: Some(value),
            }));
        }
        match self.inner.send(message) {
            Ok(()) => Ok(()),
            Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(SendError::Full)
            }
            Err((error, _)) => {
                self.context.fail(format!(
                    "could not send a record to {}[{}]: {error}; start the gateway again",
                    record.topic, record.partition
                ));
                Err(SendError::Fatal(self.fatal().unwrap_or_default()))
            }
        }
    }

    /// How many records Kafka has not acknowledged; an idle outlet has none.
    pub fn in_flight(&self) -> u64 {
        self.inner.in_flight_count().max(0) as u64
    }

    /// The fault after which nothing is taken any more, if there was one.
    pub fn fatal(&self) -> Option<String> {
        self.context.fatal.get().cloned()
    }

    /// Waits until Kafka has acknowledged everything, at most `patience`, and returns how many
    /// records it has not. Blocks the thread.
    pub fn settle(&self, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        while self.in_flight() > 0 && self.fatal().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.in_flight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(std::sync::mpsc::Sender<u32>, u32);

    impl Receipt for Told {
        fn stored(self) {
            let _ = self.0.send(self.1);
        }
    }

    #[test]
    fn an_unreachable_broker_is_named() {
        let began = Instant::now();
        let Err(error) = Outlet::<Told>::connect("127.0.0.1:1", Settings::default()) else {
            panic!("nothing listens on port 1");
        };
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

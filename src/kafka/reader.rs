//! Reads some partitions of one input, assigned by hand.
//!
//! One reader serves one input, since the end of a partition is told by its number alone.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, base_config, reading_config};
use super::partition_queue::{Fetched, PartitionQueue};
use crate::epoch::{Polled, Record, RecordReader};
use crate::model::{Input, Source};

/// How a [`Reader`]'s client fetches; a bench compares it with a client that only does that.
pub const FETCHING: [(&str, &str); 6] = [
    // The end of a partition is known after an empty fetch, so this bounds how long a quiet
    // partition holds the frontier back.
    ("fetch.wait.max.ms", "25"),
    ("fetch.queue.backoff.ms", "2"),
    ("fetch.error.backoff.ms", "100"),
    // Of each partition: fetching goes on while fewer wait. More takes memory, and gains nothing.
    ("queued.min.messages", "16384"),
    ("queued.max.messages.kbytes", "65536"),
    ("fetch.message.max.bytes", "1048576"),
];

/// What stops a reader for good.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Kafka no longer holds, or never held, the offset to read on from.
    #[error(
        "Kafka does not hold the offset to go on from ({0}): retention has removed records that \
         the job had not read, or the topic was made anew; nothing was skipped"
    )]
    OffsetGone(ClientError),
    /// The client gave up.
    #[error("the Kafka client gave up: {0}")]
    Fatal(ClientError),
    /// Pausing or resuming failed.
    #[error("could not pause or resume partition {partition}: {cause}")]
    Pause {
        /// The partition.
        partition: i32,
        /// What the client said.
        cause: ClientError,
    },
}

/// What Kafka holds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldOffsets {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// One past the last.
    pub next: i64,
}

/// What Kafka holds of the first `count` partitions of an input.
///
/// # Errors
/// When Kafka does not answer.
pub fn held_offsets(
    brokers: &str,
    input: Input,
    count: i32,
) -> Result<Vec<HeldOffsets>, KafkaError> {
    let consumer: BaseConsumer<Logged> = base_config(brokers)
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka client"))?;
    let held = |partition| {
        let (first, next) = consumer
            .fetch_watermarks(input.topic(), partition, ANSWER_TIMEOUT)
            .map_err(|cause| KafkaError::Unreachable {
                brokers: brokers.into(),
                cause,
            })?;
        Ok(HeldOffsets {
            partition,
            first,
            next,
        })
    };
    (0..count).map(held).collect()
}

/// Reads partitions of one input in offset order.
pub struct Reader {
    input: Input,
    consumer: Arc<BaseConsumer<Logged>>,
    /// Sorted by partition.
    queues: Vec<PartitionQueue>,
    /// A partition has told of an error since that was last asked.
    disturbed: bool,
}

impl Reader {
    /// Assigns `partitions`, each from its offset, by hand; `group` only names the client.
    ///
    /// # Errors
    /// When the client can't be made or refuses the assignment.
    pub fn open(
        brokers: &str,
        group: &str,
        input: Input,
        partitions: &[(i32, i64)],
    ) -> Result<Self, KafkaError> {
        let mut config = reading_config(brokers, group);
        for (key, value) in FETCHING {
            config.set(key, value);
        }
        let consumer: BaseConsumer<Logged> = config
            .create_with_context(Logged)
            .map_err(KafkaError::failed("make a Kafka consumer"))?;
        let consumer = Arc::new(consumer);
        let mut assignment = TopicPartitionList::new();
        let mut queues = Vec::new();
        for &(partition, offset) in partitions {
            assignment
                .add_partition_offset(input.topic(), partition, Offset::Offset(offset))
                .map_err(KafkaError::failed("name a partition"))?;
            let queue = PartitionQueue::of(&consumer, input.topic(), partition);
            queues.push(queue.expect("a plain topic name and a partition from 0"));
        }
        consumer
            .assign(&assignment)
            .map_err(KafkaError::failed(format!(
                "assign partitions of {}",
                input.topic()
            )))?;
        queues.sort_by_key(PartitionQueue::partition);
        Ok(Self {
            input,
            consumer,
            queues,
            disturbed: false,
        })
    }
}

impl RecordReader for Reader {
    type Error = ReadError;

    fn poll(
        &mut self,
        partition: i32,
        max: usize,
        visit: &mut dyn FnMut(Polled<'_>),
    ) -> Result<usize, ReadError> {
        let input = self.input;
        let found = (self.queues).binary_search_by_key(&partition, PartitionQueue::partition);
        let queue = &mut self.queues[found.expect("only partitions that it was opened with")];
        let disturbed = &mut self.disturbed;
        let mut outcome = Ok(());
        let taken = queue.take(max, &mut |fetched| match fetched {
            Ok(message) => visit(Polled::Record(record(input, partition, message))),
            Err(RDKafkaErrorCode::PartitionEOF) => visit(Polled::End),
            Err(code) => {
                let refused = refuse_or_go_on(input, ClientError::MessageConsumption(code));
                outcome = std::mem::replace(&mut outcome, Ok(())).and(refused);
                *disturbed = true;
            }
        });
        outcome.map(|()| taken)
    }

    /// Whatever is no partition's own comes by the consumer's queue.
    fn was_disturbed(&mut self) -> Result<bool, ReadError> {
        let mut disturbed = std::mem::take(&mut self.disturbed);
        while let Some(outcome) = self.consumer.poll(Duration::ZERO) {
            match outcome {
                Ok(_) => unreachable!("each partition's messages have a queue of their own"),
                Err(error) => refuse_or_go_on(self.input, error)?,
            }
            disturbed = true;
        }
        Ok(disturbed)
    }

    /// The client tells the end of a partition once an offset. Pausing and resuming makes it
    /// forget what it has fetched and told, and fetch anew.
    fn ask_for_end(&mut self, partition: i32) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.input.topic(), partition);
        let asked = self.consumer.pause(&list);
        let asked = asked.and_then(|()| self.consumer.resume(&list));
        asked.map_err(|cause| ReadError::Pause { partition, cause })
    }
}

fn record(input: Input, partition: i32, message: Fetched<'_>) -> Record<'_> {
    Record {
        source: Source {
            input,
            partition,
            offset: message.offset(),
        },
        timestamp_ms: message.timestamp_ms().unwrap_or(0),
        key: message.key(),
        value: message.value(),
        sequence: match input {
            Input::Updates => message.sequence(),
            Input::Orders | Input::Geofences => None,
        },
    }
}

/// Most errors are passing: the client reconnects and reads on where it was.
#[cold]
fn refuse_or_go_on(input: Input, error: ClientError) -> Result<(), ReadError> {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            Err(ReadError::OffsetGone(error))
        }
        Some(RDKafkaErrorCode::Fatal) => Err(ReadError::Fatal(error)),
        _ if matches!(error, ClientError::MessageConsumptionFatal(_)) => {
            Err(ReadError::Fatal(error))
        }
        _ => {
            tracing::warn!(target: "kafka", "reading {}: {error}; going on", input.topic());
            Ok(())
        }
    }
}

//! Reads some partitions of one input, assigned by hand.
//!
//! One reader serves one input, since the end of a partition is told by its number alone.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, base_config, reading_config};
use super::header::sequence_of;
use crate::epoch::{Polled, Record, RecordReader};
use crate::model::{Input, Source};

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
    consumer: BaseConsumer<Logged>,
    input: Input,
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
        let consumer: BaseConsumer<Logged> = reading_config(brokers, group)
            // The end of a partition is known after an empty fetch, so this bounds how long
            // a quiet partition holds the frontier back.
            .set("fetch.wait.max.ms", "25")
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.min.messages", "200000")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.message.max.bytes", "4194304")
            .create_with_context(Logged)
            .map_err(KafkaError::failed("make a Kafka consumer"))?;
        let mut assignment = TopicPartitionList::new();
        for &(partition, offset) in partitions {
            assignment
                .add_partition_offset(input.topic(), partition, Offset::Offset(offset))
                .map_err(KafkaError::failed("name a partition"))?;
        }
        consumer
            .assign(&assignment)
            .map_err(KafkaError::failed(format!(
                "assign partitions of {}",
                input.topic()
            )))?;
        Ok(Self { consumer, input })
    }
}

impl RecordReader for Reader {
    type Error = ReadError;

    fn poll(&mut self, max: usize, visit: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        for count in 0..max {
            match self.consumer.poll(Duration::ZERO) {
                None => return Ok(count),
                Some(Ok(message)) => visit(Polled::Record(Record {
                    source: Source {
                        input: self.input,
                        partition: message.partition(),
                        offset: message.offset(),
                    },
                    timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0),
                    key: message.key(),
                    value: message.payload(),
                    sequence: match self.input {
                        Input::Updates => sequence_of(&message),
                        Input::Orders | Input::Geofences => None,
                    },
                })),
                Some(Err(ClientError::PartitionEOF(partition))) => {
                    visit(Polled::End { partition });
                }
                Some(Err(error)) => {
                    refuse_or_go_on(self.input, error)?;
                    visit(Polled::Disturbed);
                }
            }
        }
        Ok(max)
    }

    /// The client tells the end of a partition once an offset. Pausing and resuming makes it
    /// forget what it has fetched and told, and fetch anew.
    fn ask_for_end(&mut self, partition: i32) -> Result<(), ReadError> {
        self.set_paused(partition, true)?;
        self.set_paused(partition, false)
    }

    fn set_paused(&mut self, partition: i32, paused: bool) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.input.topic(), partition);
        let outcome = if paused {
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        };
        outcome.map_err(|cause| ReadError::Pause { partition, cause })
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

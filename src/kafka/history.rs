//! Reads a topic to its end, from its beginning or from a while before, committed records only.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{
    ANSWER_TIMEOUT, KafkaError, Logged, Partitions, partitions_of, reading_config,
};
use super::header::sequence_of;

/// A record of any topic; its bytes are borrowed.
#[derive(Clone, Copy)]
pub struct PastRecord<'a> {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    message: &'a BorrowedMessage<'a>,
}

impl PastRecord<'_> {
    /// Whether a gateway has numbered it.
    pub fn is_numbered(&self) -> bool {
        sequence_of(self.message).is_some()
    }
}

/// Hands every committed record of `topic` to `visit`, each partition in its order, up to
/// where the partitions end now; of each partition only its `last` so many offsets, if given.
///
/// # Errors
/// When Kafka does not answer, or the topic isn't there.
pub fn read_to_end(
    brokers: &str,
    topic: &str,
    last: Option<i64>,
    visit: &mut dyn FnMut(PastRecord<'_>),
) -> Result<(), KafkaError> {
    let Partitions(count) = partitions_of(brokers, &[topic])?[0];
    let consumer: BaseConsumer<Logged> = reading_config(brokers, "riderflow-history")
        .set("fetch.wait.max.ms", "10")
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka consumer"))?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..count {
        let from = match last {
            None => Offset::Beginning,
            Some(last) => {
                let (first, next) = consumer
                    .fetch_watermarks(topic, partition, ANSWER_TIMEOUT)
                    .map_err(|cause| KafkaError::Unreachable {
                        brokers: brokers.into(),
                        cause,
                    })?;
                Offset::Offset(first.max(next - last))
            }
        };
        assignment
            .add_partition_offset(topic, partition, from)
            .map_err(KafkaError::failed("name a partition"))?;
    }
    consumer
        .assign(&assignment)
        .map_err(KafkaError::failed(format!("assign {topic}")))?;

    let mut open: BTreeSet<i32> = (0..count).collect();
    let mut deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut last_error = ClientError::NoMessageReceived;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                deadline = Instant::now() + ANSWER_TIMEOUT;
                visit(PastRecord {
                    partition: message.partition(),
                    offset: message.offset(),
                    value: message.payload(),
                    message: &message,
                });
                continue;
            }
            Some(Err(ClientError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => last_error = error,
            None => {}
        }
        if !open.is_empty() && Instant::now() > deadline {
            return Err(KafkaError::Unreachable {
                brokers: brokers.into(),
                cause: last_error,
            });
        }
    }
    Ok(())
}

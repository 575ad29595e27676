//! Reads the epoch log back.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, reading_config};
use crate::epoch::EpochRecord;

/// The name of a pipeline's epoch log; one partition.
pub fn epoch_log_topic(pipeline: &str) -> String {
    format!("riderflow-{pipeline}-epochs")
}

/// All records of the log that are committed, to its end.
///
/// Call it after the transactional producer has been initialised: that ends any transaction
/// that an earlier owner left open, so the end of the log is its last word.
///
/// # Errors
/// When Kafka does not answer, or a record can't be read: a log that isn't understood is
/// never skipped.
pub fn read_epoch_log(brokers: &str, pipeline: &str) -> Result<Vec<EpochRecord>, KafkaError> {
    let topic = epoch_log_topic(pipeline);
    let consumer: BaseConsumer<Logged> = reading_config(brokers, pipeline)
        .set("fetch.wait.max.ms", "10")
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka consumer"))?;
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(&topic, 0, Offset::Beginning)
        .map_err(KafkaError::failed("name a partition"))?;
    consumer
        .assign(&assignment)
        .map_err(KafkaError::failed(format!("assign {topic}")))?;

    let mut records = Vec::new();
    let mut deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let bytes = message.payload().unwrap_or_default();
                let record = serde_json::from_slice(bytes).map_err(|error| KafkaError::Failed {
                    attempt: format!(
                        "understand the epoch record {topic}[0]@{} ({error}); was it written by a \
                         newer riderflow?",
                        message.offset()
                    ),
                    cause: ClientError::NoMessageReceived,
                })?;
                records.push(record);
                deadline = Instant::now() + ANSWER_TIMEOUT;
            }
            Some(Err(ClientError::PartitionEOF(_))) => return Ok(records),
            Some(Err(cause)) if Instant::now() > deadline => {
                return Err(KafkaError::Failed {
                    attempt: format!("read {topic}"),
                    cause,
                });
            }
            None if Instant::now() > deadline => {
                return Err(KafkaError::Unreachable {
                    brokers: brokers.into(),
                    cause: ClientError::NoMessageReceived,
                });
            }
            Some(Err(_)) | None => {}
        }
    }
}

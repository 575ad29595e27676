//! Tells ordinary lag tools how far the job is: offsets of committed epochs, committed under
//! the pipeline's consumer group, beside the transaction.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, reading_config};
use crate::epoch::Positions;
use crate::model::Input;

/// Commits offsets and asks for the partitions' ends.
pub struct Progress {
    consumer: BaseConsumer<Logged>,
    brokers: String,
}

impl Progress {
    /// A client in the pipeline's group that reads nothing.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn open(brokers: &str, pipeline: &str) -> Result<Self, KafkaError> {
        let consumer = reading_config(brokers, pipeline)
            .create_with_context(Logged)
            .map_err(KafkaError::failed("make a Kafka consumer"))?;
        Ok(Self {
            consumer,
            brokers: brokers.into(),
        })
    }

    /// Commits the next offset of each partition.
    ///
    /// # Errors
    /// When Kafka does not take them; the epoch log has them all the same.
    pub fn commit(&self, positions: &Positions) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (&(input, partition), position) in positions {
            let offset = position.next;
            list.add_partition_offset(input.topic(), partition, Offset::Offset(offset))
                .map_err(KafkaError::failed("name a partition"))?;
        }
        self.consumer
            .commit(&list, CommitMode::Sync)
            .map_err(KafkaError::failed("commit offsets for lag tools"))
    }

    /// How many records of a partition are not in a committed epoch.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn lag(&self, input: Input, partition: i32, next: i64) -> Result<i64, KafkaError> {
        let (_, end) = self.held(input, partition)?;
        Ok((end - next).max(0))
    }

    /// The first offset of a partition that Kafka holds, and one past the last.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn held(&self, input: Input, partition: i32) -> Result<(i64, i64), KafkaError> {
        self.consumer
            .fetch_watermarks(input.topic(), partition, ANSWER_TIMEOUT)
            .map_err(|cause| KafkaError::Unreachable {
                brokers: self.brokers.clone(),
                cause,
            })
    }

    /// How many partitions an input has now.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn partitions(&self, input: Input) -> Result<usize, KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(input.topic()), ANSWER_TIMEOUT)
            .map_err(|cause| KafkaError::Unreachable {
                brokers: self.brokers.clone(),
                cause,
            })?;
        let topic = metadata.topics().first();
        Ok(topic.map_or(0, |topic| topic.partitions().len()))
    }
}

/// The offsets that a pipeline's group has committed, for lag tools, of these partitions.
///
/// # Errors
/// When Kafka does not answer.
pub fn group_offsets(
    brokers: &str,
    pipeline: &str,
    partitions: impl IntoIterator<Item = (Input, i32)>,
) -> Result<BTreeMap<(Input, i32), i64>, KafkaError> {
    let consumer: BaseConsumer<Logged> = reading_config(brokers, pipeline)
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka consumer"))?;
    let partitions: Vec<_> = partitions.into_iter().collect();
    let mut list = TopicPartitionList::new();
    for (input, partition) in &partitions {
        list.add_partition(input.topic(), *partition);
    }
    let committed = consumer
        .committed_offsets(list, ANSWER_TIMEOUT)
        .map_err(|cause| KafkaError::Unreachable {
            brokers: brokers.into(),
            cause,
        })?;
    let offset = |(input, partition): (Input, i32)| {
        let element = committed.find_partition(input.topic(), partition)?;
        match element.offset() {
            Offset::Offset(offset) => Some(((input, partition), offset)),
            _ => None,
        }
    };
    Ok(partitions.into_iter().filter_map(offset).collect())
}

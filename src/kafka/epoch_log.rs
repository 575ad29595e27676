//! Reads the epoch log back.

use super::client::KafkaError;
use super::history::read_to_end;
use crate::epoch::EpochRecord;

/// The name of a pipeline's epoch log; one partition. Its keys are a ring of numbers, so that
/// compaction bounds it.
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
    let mut records = Vec::new();
    let mut unread = None;
    read_to_end(
        brokers,
        &topic,
        &mut |message| match serde_json::from_slice(message.value.unwrap_or_default()) {
            Ok(record) => records.push(record),
            Err(error) => {
                unread.get_or_insert((message.offset, error));
            }
        },
    )?;
    match unread {
        None => Ok(records),
        Some((offset, error)) => Err(KafkaError::UnknownRecord {
            topic,
            offset,
            error,
        }),
    }
}

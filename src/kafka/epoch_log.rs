//! Reads the epoch log back.

use super::client::KafkaError;
use super::history::read_to_end;
use crate::epoch::LogRecord;

/// Offsets that are read at first: some minutes of epochs.
const FIRST_READ: i64 = 4_096;

/// The name of a pipeline's epoch log; one partition. Its keys are a ring of numbers, so that
/// compaction bounds it.
pub fn epoch_log_topic(pipeline: &str) -> String {
    format!("riderflow-{pipeline}-epochs")
}

/// The log's newest committed records, in their order: as many as it takes until `is_enough`,
/// or all there are.
///
/// Call it after the transactional producer has been initialised: that ends any transaction
/// that an earlier owner left open, so the end of the log is its last word.
///
/// # Errors
/// When Kafka does not answer, or a record can't be read: a log that isn't understood is
/// never skipped.
pub fn read_epoch_log(
    brokers: &str,
    pipeline: &str,
    is_enough: impl Fn(&[LogRecord]) -> bool,
) -> Result<Vec<LogRecord>, KafkaError> {
    let mut last = FIRST_READ;
    loop {
        let (records, newest) = read_last(brokers, pipeline, last)?;
        // Offsets that hold no record, such as a transaction's marker, count as well.
        let is_all = newest.is_none_or(|newest| last / 2 > newest);
        if is_all || is_enough(&records) {
            return Ok(records);
        }
        last *= 4;
    }
}

/// The records of the log's last so many offsets, and the newest offset among them.
fn read_last(
    brokers: &str,
    pipeline: &str,
    last: i64,
) -> Result<(Vec<LogRecord>, Option<i64>), KafkaError> {
    let topic = epoch_log_topic(pipeline);
    let mut records = Vec::new();
    let mut newest = None;
    let mut unread = None;
    read_to_end(brokers, &topic, Some(last), &mut |message| {
        newest = Some(message.offset);
        match serde_json::from_slice(message.value.unwrap_or_default()) {
            Ok(record) => records.push(record),
            Err(error) => {
                unread.get_or_insert((message.offset, error));
            }
        }
    })?;
    match unread {
        None => Ok((records, newest)),
        Some((offset, error)) => Err(KafkaError::UnknownRecord {
            topic,
            offset,
            error,
        }),
    }
}

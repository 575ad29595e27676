//! Reads the epoch log back.

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, base_config};
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
/// or all there are. Of epochs from before a reset none is among them.
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
        let records = read_last(brokers, pipeline, last)?;
        // Offsets that hold no record, such as a transaction's marker, count as well: the last
        // ones may be those of transactions that came to nothing, and no record among them.
        let is_all = last >= log_end(brokers, pipeline)?;
        if is_all || is_enough(&records) {
            return Ok(records);
        }
        last *= 4;
    }
}

/// A record of the log as it was read.
struct Read {
    offset: i64,
    record: Result<LogRecord, serde_json::Error>,
    /// Of which start it is, as far as can be told.
    generation: Option<u64>,
}

impl Read {
    fn of(offset: i64, value: &[u8]) -> Self {
        /// All that is asked of a record in another format.
        #[derive(serde::Deserialize)]
        struct Any {
            generation: u64,
        }
        let record = serde_json::from_slice(value);
        let generation = match &record {
            Ok(LogRecord::Epoch(record)) => Some(record.generation),
            Ok(LogRecord::Head(head)) => Some(head.generation),
            Err(_) => serde_json::from_slice::<Any>(value)
                .ok()
                .map(|any| any.generation),
        };
        Self {
            offset,
            record,
            generation,
        }
    }
}

/// The records of the log's last so many offsets.
fn read_last(brokers: &str, pipeline: &str, last: i64) -> Result<Vec<LogRecord>, KafkaError> {
    let topic = epoch_log_topic(pipeline);
    let mut read = Vec::new();
    read_to_end(brokers, &topic, Some(last), &mut |message| {
        read.push(Read::of(message.offset, message.value.unwrap_or_default()));
    })?;
    since_the_reset(read).map_err(|(offset, error)| KafkaError::UnknownRecord {
        topic,
        offset,
        error,
    })
}

/// The records that count: those of epochs before a reset don't, not even ones that can't be
/// understood. The head stands at the log's end, so it is always among what was read.
fn since_the_reset(read: Vec<Read>) -> Result<Vec<LogRecord>, (i64, serde_json::Error)> {
    let heads = read.iter().rev();
    let head = heads
        .filter_map(|read| read.record.as_ref().ok()?.head())
        .next();
    let since = head
        .and_then(|head| head.reset.as_ref())
        .map_or(0, |reset| reset.generation);
    let counts = |read: &Read| read.generation.is_none_or(|it| it >= since);
    let counting = read.into_iter().filter(counts);
    counting
        .map(|read| read.record.map_err(|error| (read.offset, error)))
        .collect()
}

/// The greatest generation that the log has, whatever format its records have; 0 if it has none.
///
/// # Errors
/// When Kafka does not answer.
pub fn greatest_generation(brokers: &str, pipeline: &str) -> Result<u64, KafkaError> {
    let mut greatest = 0;
    read_to_end(brokers, &epoch_log_topic(pipeline), None, &mut |message| {
        let read = Read::of(message.offset, message.value.unwrap_or_default());
        greatest = greatest.max(read.generation.unwrap_or(0));
    })?;
    Ok(greatest)
}

/// One past the log's last offset: it grows with every transaction.
///
/// # Errors
/// When Kafka does not answer.
pub fn log_end(brokers: &str, pipeline: &str) -> Result<i64, KafkaError> {
    let consumer: BaseConsumer<Logged> = base_config(brokers)
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka client"))?;
    let (_, end) = consumer
        .fetch_watermarks(&epoch_log_topic(pipeline), 0, ANSWER_TIMEOUT)
        .map_err(|cause| KafkaError::Unreachable {
            brokers: brokers.into(),
            cause,
        })?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Head, Reset};
    use crate::model::Epoch;

    fn head(generation: u64, reset: Option<Reset>) -> Read {
        let head = LogRecord::Head(Head {
            generation,
            run: 1,
            snapshots: Vec::new(),
            stored: Epoch(0),
            version: "test".into(),
            reset,
        });
        Read::of(0, &serde_json::to_vec(&head).expect("JSON"))
    }

    fn epoch(generation: u64) -> Read {
        let text = format!(
            r#"{{"record":"epoch","epoch":5,"interval_ms":100,"now_ms":600,"generation":{generation},"run":1,
            "ranges":[],"events":0,"dead_letters":0,"hash":0,"version":"test","rules":0}}"#
        );
        Read::of(7, text.as_bytes())
    }

    fn reset(generation: u64) -> Option<Reset> {
        Some(Reset {
            generation,
            at_ms: 0,
            ends: Vec::new(),
        })
    }

    #[test]
    fn epochs_from_before_a_reset_do_not_count() {
        let read = vec![epoch(1), head(1, None), head(2, reset(2)), epoch(3)];
        let log = since_the_reset(read).expect("understood");
        let epochs: Vec<_> = log.iter().filter_map(LogRecord::epoch).collect();
        assert_eq!(epochs.len(), 1);
        assert_eq!(epochs[0].generation, 3);
        let read = vec![epoch(1), head(1, None), epoch(1)];
        assert_eq!(since_the_reset(read).expect("understood").len(), 3);
    }

    #[test]
    fn what_is_not_understood_counts_unless_it_is_from_before_a_reset() {
        let other = || Read::of(4, br#"{"epoch":5,"generation":1}"#);
        let error = since_the_reset(vec![other(), head(1, None)]).expect_err("unknown");
        assert_eq!(error.0, 4);
        let log = since_the_reset(vec![other(), head(2, reset(2))]).expect("of no account");
        assert_eq!(log.len(), 1);
        let nothing = || Read::of(4, b"?");
        assert!(since_the_reset(vec![nothing(), head(2, reset(2))]).is_err());
    }
}

//! The epoch log: one record an epoch, in the same transaction as the epoch's outputs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::model::{Epoch, Input, TimeMs};

/// The offsets of one input partition that an epoch was made of: `first..next`.
///
/// Every record names every partition, so that the newest record alone says where to resume;
/// a partition that gave nothing has `first == next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The topic.
    pub input: Input,
    /// The partition.
    pub partition: i32,
    /// The first offset of the epoch.
    pub first: i64,
    /// One past the last offset of the epoch.
    pub next: i64,
}

/// What is recorded of one epoch. Its wire format is JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// Milliseconds of merge time in an epoch.
    pub interval_ms: u64,
    /// The epoch's `now`, ms since 1970.
    pub now_ms: TimeMs,
    /// How often the pipeline had been started when this was written.
    pub generation: u64,
    /// Names the start that wrote this; random, since two jobs may start as one generation.
    pub run: u64,
    /// The offsets of all inputs.
    pub ranges: Vec<OffsetRange>,
    /// Events told.
    pub events: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// [`OutputHash`] of both, in the order written.
    pub hash: u64,
    /// The version of riderflow that wrote it.
    pub version: String,
}

impl EpochRecord {
    /// The log is a ring: compaction keeps the newest record of each key, so the log's size
    /// is bounded and its newest epochs are always whole.
    const RING: u64 = 65_536;

    /// The record's message key.
    pub fn key(&self) -> String {
        (self.epoch.0 % Self::RING).to_string()
    }
}

/// A running, order-sensitive hash of an epoch's outputs. Stable across builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputHash(u64);

impl OutputHash {
    /// Adds one output, such as an event's id and data.
    pub fn add(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0 = XxHash3_64::oneshot_with_seed(self.0, part);
        }
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// Where a job starts: what the log says was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The newest committed epoch and its `now`, if any epoch was ever committed.
    pub last: Option<(Epoch, TimeMs)>,
    /// The generation that this start is: 1 for the first.
    pub generation: u64,
    /// The next offset of each partition; a partition that isn't here was never read.
    pub next: BTreeMap<(Input, i32), i64>,
}

impl Resume {
    /// Folds the log, in any order, into where to resume.
    pub fn from_log(records: impl IntoIterator<Item = EpochRecord>) -> Self {
        let newest = records.into_iter().max_by_key(|record| record.epoch);
        match newest {
            None => Self {
                generation: 1,
                ..Self::default()
            },
            Some(record) => Self {
                last: Some((record.epoch, record.now_ms)),
                generation: record.generation + 1,
                next: record
                    .ranges
                    .iter()
                    .map(|range| ((range.input, range.partition), range.next))
                    .collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64, next: i64) -> EpochRecord {
        EpochRecord {
            epoch: Epoch(epoch),
            interval_ms: 100,
            now_ms: (epoch as i64 + 1) * 100,
            generation: 3,
            run: 7,
            ranges: vec![OffsetRange {
                input: Input::Updates,
                partition: 1,
                first: 0,
                next,
            }],
            events: 0,
            dead_letters: 0,
            hash: 0,
            version: "test".into(),
        }
    }

    #[test]
    fn resumes_after_the_newest_epoch_whatever_the_order_of_the_log() {
        let resume = Resume::from_log([record(8, 80), record(9, 90), record(7, 70)]);
        assert_eq!(resume.last, Some((Epoch(9), 1000)));
        assert_eq!(resume.generation, 4);
        assert_eq!(resume.next[&(Input::Updates, 1)], 90);
    }

    #[test]
    fn an_empty_log_is_the_first_generation() {
        let resume = Resume::from_log([]);
        assert_eq!((resume.last, resume.generation), (None, 1));
    }

    #[test]
    fn a_swap_of_two_outputs_changes_the_hash() {
        let mut one = OutputHash::default();
        one.add(&[b"a"]);
        one.add(&[b"b"]);
        let mut other = OutputHash::default();
        other.add(&[b"b"]);
        other.add(&[b"a"]);
        assert_ne!(one, other);
    }

    #[test]
    fn key_groups_are_a_stable_format() {
        let groups: Vec<u64> = [0u64, 1, 453, u64::MAX]
            .iter()
            .map(|key| crate::epoch::key_group(&key.to_le_bytes()))
            .collect();
        assert_eq!(groups, GROUPS_OF_0_1_453_MAX);
    }

    /// From the reference implementation (Python's xxhash).
    const GROUPS_OF_0_1_453_MAX: [u64; 4] = [217, 46, 188, 19];
}

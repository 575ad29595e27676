//! The epoch log: one record an epoch, in the same transaction as the epoch's outputs, and
//! the head, which says who writes and how far what follows the log has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::model::{Epoch, Input, TimeMs};

/// The offsets of one input partition that an epoch was made of: `first..next`.
///
/// Every record names every partition, so that one record alone says where to go on; a
/// partition that gave nothing has `first == next`.
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
    /// The largest Kafka timestamp read from the partition until then, ms since 1970: no later
    /// record of the partition stands before it.
    pub latest_ms: TimeMs,
}

/// How far one input partition has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next offset.
    pub next: i64,
    /// As [`OffsetRange::latest_ms`]; 0 before the first record.
    pub latest_ms: TimeMs,
}

/// How far every input partition has been read.
pub type Positions = BTreeMap<(Input, i32), Position>;

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
    /// Names the start that wrote this.
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
    /// A hash of what the pipeline file says of detection: under other rules, the same inputs
    /// give other outputs.
    pub rules: u64,
}

/// Which snapshot: one a start and epoch, so that a job that was taken over can't pass its own
/// off as its successor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId {
    /// It holds the state after this epoch.
    pub epoch: Epoch,
    /// The start that took it.
    pub run: u64,
}

/// As in the snapshot's folder name: the epoch with leading zeros, then the run.
impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016}-{:016x}", self.epoch.0, self.run)
    }
}

/// Who writes, and how far what follows the log has come. The newest one holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How often the pipeline has been started: 1 for the first start. No two starts share it,
    /// since each commits its head before anything else.
    pub generation: u64,
    /// Names the start; random.
    pub run: u64,
    /// The snapshots that a start may go on from, oldest first. Only these: what else lies in
    /// the store may be another job's.
    pub snapshots: Vec<SnapshotId>,
    /// ClickHouse has all rows of epochs up to this one.
    pub stored: Epoch,
    /// The version of riderflow that wrote it.
    pub version: String,
    /// That the pipeline was begun anew, if it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
}

/// The pipeline was begun anew: what the log held until then counts no more, but what followed
/// from it is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The head's generation when it happened. Epochs of earlier ones don't count.
    pub generation: u64,
    /// When it happened, ms since 1970.
    pub at_ms: TimeMs,
    /// Where the inputs ended then: rows of records before that may be stored.
    pub ends: Vec<InputEnd>,
}

/// Where an input partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEnd {
    /// The topic.
    pub input: Input,
    /// The partition.
    pub partition: i32,
    /// One past the last offset.
    pub next: i64,
}

impl Reset {
    /// Whether rows of an epoch may have been stored before the reset: it has records from
    /// before it, or its `now` is, so that deadlines may have been told.
    pub fn may_have_stored(&self, epoch: &EpochRecord) -> bool {
        let is_before = |range: &OffsetRange| {
            let at = (range.input, range.partition);
            let mut ends = self.ends.iter();
            ends.any(|end| (end.input, end.partition) == at && range.first < end.next)
        };
        epoch.now_ms <= self.at_ms.saturating_add(epoch.interval_ms as TimeMs)
            || epoch.ranges.iter().any(is_before)
    }
}

/// A record of the log. Its wire format is JSON with a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum LogRecord {
    /// Of an epoch.
    Epoch(EpochRecord),
    /// The head as of now.
    Head(Head),
}

impl LogRecord {
    /// The log is a ring: compaction keeps the newest record of each key, so the log's size
    /// is bounded and its newest epochs are always whole: those of 29 hours at 10 a second.
    const RING: u64 = 1 << 20;

    /// The epoch's record, if it is one.
    pub fn epoch(&self) -> Option<&EpochRecord> {
        match self {
            Self::Epoch(record) => Some(record),
            Self::Head(_) => None,
        }
    }

    /// The head, if it is one.
    pub fn head(&self) -> Option<&Head> {
        match self {
            Self::Epoch(_) => None,
            Self::Head(head) => Some(head),
        }
    }

    /// The record's message key.
    pub fn key(&self) -> String {
        match self {
            Self::Epoch(record) => (record.epoch.0 % Self::RING).to_string(),
            Self::Head(_) => "head".into(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_head_replaces_the_head_before_and_no_epoch() {
        let head = Head {
            generation: 4,
            run: 7,
            snapshots: vec![SnapshotId {
                epoch: Epoch(5),
                run: 7,
            }],
            stored: Epoch(6),
            version: "test".into(),
            reset: None,
        };
        let record = LogRecord::Head(head);
        assert_eq!(record.key(), "head");
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(
            text.starts_with(r#"{"record":"head","generation":4"#),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<LogRecord>(&text).expect("back"),
            record
        );
    }
    #[test]
    fn after_a_reset_epochs_are_doubtful_until_all_that_was_there_is_passed() {
        let reset = Reset {
            generation: 2,
            at_ms: 10_050,
            ends: vec![InputEnd {
                input: Input::Updates,
                partition: 1,
                next: 7,
            }],
        };
        let epoch = |now_ms, partition, first| EpochRecord {
            epoch: Epoch(now_ms as u64 / 100 - 1),
            interval_ms: 100,
            now_ms,
            generation: 3,
            run: 1,
            ranges: vec![OffsetRange {
                input: Input::Updates,
                partition,
                first,
                next: first + 1,
                latest_ms: 0,
            }],
            events: 0,
            dead_letters: 0,
            hash: 0,
            version: "test".into(),
            rules: 0,
        };
        assert!(reset.may_have_stored(&epoch(20_000, 1, 6)), "read before");
        assert!(!reset.may_have_stored(&epoch(20_000, 1, 7)));
        assert!(!reset.may_have_stored(&epoch(20_000, 2, 0)), "a new one");
        assert!(reset.may_have_stored(&epoch(10_100, 1, 7)), "deadlines");
    }
}

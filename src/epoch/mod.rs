//! Epochs: what each was made of, and where a job resumes.
//!
//! Owns the records of the epoch log ([`LogRecord`]), the sums that make a torn transaction
//! visible ([`OutputHash`]), the stable key groups, and where a record stands
//! ([`PartitionClock`]). It knows no Kafka and no timely: bytes come in, offsets go out.

mod input;
mod log;
mod merge;

pub use input::{Polled, Record, RecordReader};
pub use log::{
    EpochRecord, Head, InputEnd, LogRecord, OffsetRange, OutputHash, Position, Positions, Reset,
    SnapshotId,
};
pub use merge::PartitionClock;

use twox_hash::XxHash3_64;

/// Into how many parts keyed state is split, whatever the number of workers.
pub const KEY_GROUPS: u64 = 256;

/// The key group of a key: a stable format, so that a snapshot's parts can be read by any
/// number of workers. XXH3 with seed 0, modulo [`KEY_GROUPS`].
pub fn key_group(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key) % KEY_GROUPS
}

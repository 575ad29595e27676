//! Plain data that every other module speaks in.
//!
//! Owns the field's vocabulary and nothing else: no I/O, no clock, no detection.
//! Times are milliseconds since 1970 in UTC ([`TimeMs`]), angles are degrees (WGS 84),
//! lengths are metres, speeds are metres per second.

mod event;
mod fence;
mod order;
mod update;
mod window;

pub use event::{Cause, Event, EventKind, Subject};
pub use fence::{Fence, FenceChange, FenceId, Geometry, Ring};
pub use order::{Leg, Order, OrderChange, OrderId, OrderStatus, Stop};
pub use update::{Flag, Location, Sequence, Update};
pub use window::{CellWindow, DriverWindow, SessionWindow, WindowRows};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type TimeMs = i64;

/// A driver: 0..=2^63−1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriverId(pub u64);

impl std::fmt::Display for DriverId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A place on earth, degrees WGS 84: longitude −180..=180, latitude −90..=90.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Degrees east, −180..=180.
    pub longitude: f64,
    /// Degrees north, −90..=90.
    pub latitude: f64,
}

/// The three inputs, in the order in which records of one timestamp are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Input {
    /// `geofences`
    Geofences,
    /// `orders`
    Orders,
    /// `rider-updates`
    Updates,
}

impl Input {
    /// All inputs, in merge order.
    pub const ALL: [Self; 3] = [Self::Geofences, Self::Orders, Self::Updates];

    /// The Kafka topic's name.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Geofences => "geofences",
            Self::Orders => "orders",
            Self::Updates => "rider-updates",
        }
    }
}

/// Which Kafka record something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The topic.
    pub input: Input,
    /// The partition within the topic.
    pub partition: i32,
    /// The record's offset within the partition.
    pub offset: i64,
}

/// A record's place in the one merged order of all inputs: by time, then geofences, orders,
/// updates, then partition, then offset.
///
/// `at_ms` is the record's Kafka timestamp after the merge has kept it from going back
/// within its partition and clamped it into its epoch. A timer stands before all records
/// of its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Merge time, ms since 1970.
    pub at_ms: TimeMs,
    /// The record.
    pub source: Source,
}

/// A slice of merge time, the timely timestamp: epoch `e` of interval `i` ms holds merge
/// times `e*i .. (e+1)*i`, and its `now` is its end.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that holds merge time `at_ms`; times before 1970 count as 1970.
    pub fn containing(at_ms: TimeMs, interval_ms: u64) -> Self {
        Self(at_ms.max(0) as u64 / interval_ms)
    }

    /// The first merge time of the epoch, which is the `now` of the epoch before.
    pub fn start_ms(self, interval_ms: u64) -> TimeMs {
        (self.0 * interval_ms) as TimeMs
    }

    /// The epoch's `now`, ms since 1970: every record of the epoch is before it.
    pub fn now_ms(self, interval_ms: u64) -> TimeMs {
        ((self.0 + 1) * interval_ms) as TimeMs
    }
}

/// Why an input was refused; the `rf-reason` header of its dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// More bytes than `updates.max_bytes`.
    Oversize,
    /// No bytes, or null on `rider-updates`.
    Empty,
    /// Not one JSON object in UTF-8, or a known field given twice.
    MalformedJson,
    /// A required field is absent or null.
    MissingField,
    /// A field, or the value itself, has another JSON type.
    WrongType,
    /// A number outside its range, or an unknown status or geometry type.
    OutOfRange,
    /// The event time is too far ahead of the Kafka record's.
    FutureTimestamp,
    /// The message key is not the object's id.
    KeyMismatch,
    /// A ring that encloses no area in a well-defined way.
    InvalidGeometry,
}

impl Reason {
    /// All reasons, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Oversize,
        Self::Empty,
        Self::MalformedJson,
        Self::MissingField,
        Self::WrongType,
        Self::OutOfRange,
        Self::FutureTimestamp,
        Self::KeyMismatch,
        Self::InvalidGeometry,
    ];

    /// The text in the dead letter's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::Empty => "empty",
            Self::MalformedJson => "malformed_json",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::FutureTimestamp => "future_timestamp",
            Self::KeyMismatch => "key_mismatch",
            Self::InvalidGeometry => "invalid_geometry",
        }
    }
}

/// A refusal: why, and the field with the offending value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Fault {
    /// The first fault found.
    pub reason: Reason,
    /// The field and the offending value, shortened: at most 200 bytes of it.
    pub detail: String,
}

/// A refused input: its bytes untouched, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its place in the merged order.
    pub place: Place,
    /// The input's key.
    pub key: Option<Vec<u8>>,
    /// The input's bytes.
    pub value: Option<Vec<u8>>,
    /// Why it was refused.
    pub fault: Fault,
}

//! A driver's position report.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{DriverId, Place, Position, TimeMs};

/// One valid rider update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Its place in the merged order.
    pub place: Place,
    /// Who.
    pub driver: DriverId,
    /// Where.
    pub position: Position,
    /// When the phone took the fix: event time, ms since 1970.
    pub event_time_ms: TimeMs,
    /// The Kafka record's own timestamp, ms since 1970.
    pub received_at_ms: TimeMs,
    /// Radius of 68 % confidence, metres; `None` if unknown.
    pub accuracy_m: Option<f32>,
    /// Speed over ground, m/s; `None` if unknown.
    pub speed_mps: Option<f32>,
    /// Degrees clockwise from north; `None` if unknown.
    pub heading_deg: Option<f32>,
    /// The routing state, such as `south`.
    pub state: Option<CompactString>,
}

/// Which update of which session a record is; two records that have this in common, the driver
/// and the Kafka partition are the same update, sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// XXH3-64 of the session's name.
    pub session: u64,
    /// The number in it, 1..=2^63−1; a session's numbers rise.
    pub number: u64,
}

/// What an update is to its driver's history; only [`Flag::Ok`] drives transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Drives transitions.
    Ok,
    /// Older in event time than the driver's last `ok` update.
    Late,
    /// The same event time as the driver's last `ok` update.
    Duplicate,
    /// `accuracy` over the limit.
    Inaccurate,
    /// Implied speed over the limit.
    Teleport,
}

impl Flag {
    /// All flags, in declaration order.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::Late,
        Self::Duplicate,
        Self::Inaccurate,
        Self::Teleport,
    ];

    /// The text in `driver_locations.flag`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Inaccurate => "inaccurate",
            Self::Teleport => "teleport",
        }
    }
}

/// A judged update: one row of `driver_locations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// The update.
    pub update: Update,
    /// What it was judged to be.
    pub flag: Flag,
}

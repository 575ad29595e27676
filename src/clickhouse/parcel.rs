//! What the writer is given: rows of a table, and whether an earlier run may have stored them.

use std::time::Instant;

use compact_str::CompactString;

use super::rows::ROW_COST;
use super::shared::Amount;
use crate::model::{
    CellWindow, DeadLetter, DriverId, DriverWindow, Event, EventKind, Location, SessionWindow,
    Subject, TimeMs,
};

/// The tables that the writer fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `driver_locations`
    DriverLocations,
    /// `events`
    Events,
    /// `rejected_updates`
    RejectedUpdates,
    /// `cell_minutes`
    CellMinutes,
    /// `driver_minutes`
    DriverMinutes,
    /// `driver_sessions`
    DriverSessions,
}

impl Table {
    /// All of them, in the order in which they are drained.
    pub const ALL: [Self; 6] = [
        Self::Events,
        Self::RejectedUpdates,
        Self::CellMinutes,
        Self::DriverMinutes,
        Self::DriverSessions,
        Self::DriverLocations,
    ];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::DriverLocations => "driver_locations",
            Self::Events => "events",
            Self::RejectedUpdates => "rejected_updates",
            Self::CellMinutes => "cell_minutes",
            Self::DriverMinutes => "driver_minutes",
            Self::DriverSessions => "driver_sessions",
        }
    }
}

/// Rows of one table, in any order.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Judged updates, for `driver_locations`.
    Locations(Vec<Location>),
    /// For `events`.
    Events(Vec<StoredEvent>),
    /// For `rejected_updates`.
    Rejected(Vec<DeadLetter>),
    /// For `cell_minutes`.
    Cells(Vec<CellWindow>),
    /// For `driver_minutes`.
    Drivers(Vec<DriverWindow>),
    /// For `driver_sessions`.
    Sessions(Vec<SessionWindow>),
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Locations(rows) => rows.len(),
            Self::Events(rows) => rows.len(),
            Self::Rejected(rows) => rows.len(),
            Self::Cells(rows) => rows.len(),
            Self::Drivers(rows) => rows.len(),
            Self::Sessions(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they count against the bound on memory, in all.
    pub(super) fn amount(&self) -> Amount {
        let texts: usize = match self {
            Self::Locations(_) | Self::Cells(_) | Self::Drivers(_) | Self::Sessions(_) => 0,
            Self::Events(rows) => rows.iter().map(|row| row.id.len() + row.data.len()).sum(),
            Self::Rejected(rows) => rows
                .iter()
                .map(|row| row.fault.detail.len() + row.value.as_ref().map_or(0, Vec::len))
                .sum(),
        };
        Amount {
            rows: self.len(),
            bytes: self.len() * ROW_COST + texts,
        }
    }
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its identity, the `ce_id`.
    pub id: String,
    /// Its type.
    pub kind: EventKind,
    /// The driver it is told to.
    pub driver: DriverId,
    /// The order it is about; empty if none.
    pub order_id: CompactString,
    /// The fence it is about; empty if none.
    pub fence_id: CompactString,
    /// Event time of the cause, ms since 1970.
    pub event_time_ms: TimeMs,
    /// The `now` of its epoch, ms since 1970.
    pub detected_at_ms: TimeMs,
    /// The event's data as in Kafka, JSON.
    pub data: String,
}

impl StoredEvent {
    /// The row of `event`, whose `ce_id` is `id` and whose value in Kafka is `data`.
    pub fn new(id: String, event: &Event, data: String) -> Self {
        let (order_id, fence_id) = match &event.subject {
            Subject::Driver => Default::default(),
            Subject::Fence(fence) => (CompactString::default(), fence.0.clone()),
            Subject::Order(order) | Subject::Leg(order, _) => {
                (order.0.clone(), CompactString::default())
            }
        };
        Self {
            id,
            kind: event.kind,
            driver: event.driver,
            order_id,
            fence_id,
            event_time_ms: event.event_time_ms,
            detected_at_ms: event.detected_at_ms,
            data,
        }
    }
}

/// Whether rows can be in their table already.
///
/// Either way no row may be given to one writer twice: a table is asked for what is stored, not
/// for what is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No run has sent them before.
    New,
    /// An earlier run may have stored them, as after a restart: those that their table has are
    /// not stored again. Asking costs time, so do not say it of rows that are new.
    Doubtful,
}

/// Rows of one `send`.
pub(super) struct Parcel {
    /// In the order of sending.
    pub(super) number: u64,
    pub(super) rows: Rows,
    pub(super) origin: Origin,
    pub(super) at: Instant,
}

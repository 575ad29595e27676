//! How a driver stands in a snapshot.
//!
//! An entry is a driver's sessions, which of its slices are still to be told, and slices: all
//! of them, or those that have changed since the snapshot before. Of the pane under way only
//! the fixes that were added since are written. What follows from the rest is not stored: the
//! latest fix, which panes are thin by now, whose turn it is to be told.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::driver_sessions::Sessions;
use super::grid::Pane;
use super::trail::Cells;
use crate::model::DriverId;

/// A driver, borrowed when it is written and owned when it is read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedDriver<'a> {
    pub(super) id: DriverId,
    pub(super) sessions: Cow<'a, Sessions>,
    /// The panes of slices that have not been told since they changed.
    pub(super) untold: Vec<Pane>,
    pub(super) slices: Vec<SavedSlice<'a>>,
}

/// A slice of a driver's trail.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSlice<'a> {
    pub(super) pane: Pane,
    pub(super) distance_m: f64,
    pub(super) max_speed_mps: Option<f64>,
    pub(super) updates: u32,
    pub(super) is_thin: bool,
    pub(super) dropped_max_speed_mps: Option<f64>,
    pub(super) cells: Cow<'a, Cells>,
    /// So many bytes of its fixes were written before: `fixes` are what follows them.
    pub(super) known_bytes: u32,
    pub(super) fixes: Bytes<'a>,
}

/// Bytes that are written and read as a whole.
#[derive(Debug)]
pub(super) struct Bytes<'a>(pub(super) Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Copied)
    }
}

struct Copied;

impl Visitor<'_> for Copied {
    type Value = Bytes<'static>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Bytes(Cow::Owned(bytes.to_vec())))
    }
}

//! Arriving at a leg's target, and leaving it again.

use serde::{Deserialize, Serialize};

use super::Rules;
use super::timers::Begun;
use crate::model::{EventKind, TimeMs};

/// How a driver stands to the target of a leg of its.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Stay {
    /// Not at the target, and not yet arrived.
    Away,
    /// At the target since this; it becomes an arrival in time.
    Within(Begun),
    /// Arrived, by a stay that began so.
    Arrived(Begun),
    /// Arrived and departed: all is told.
    Departed,
}

impl Stay {
    /// Judges the distance of a fix to the target, metres; and what to tell. A leg that is
    /// over, not `open`, begins no stay, but may still be departed from.
    pub(super) fn judge(
        self,
        open: bool,
        distance_m: f64,
        cause: Begun,
        rules: &Rules,
        arrive_ms: TimeMs,
    ) -> (Self, Option<EventKind>) {
        match self {
            Self::Away if open && distance_m <= rules.arrive_m => {
                if arrive_ms == 0 {
                    (Self::Arrived(cause), Some(EventKind::AgentArrived))
                } else {
                    (Self::Within(cause), None)
                }
            }
            Self::Within(_) if !open || distance_m > rules.arrive_m => (Self::Away, None),
            Self::Arrived(_) if distance_m > rules.depart_m => {
                (Self::Departed, Some(EventKind::AgentDeparted))
            }
            unchanged => (unchanged, None),
        }
    }

    /// What the stay began with that may become an arrival.
    pub(super) fn pending(&self) -> Option<Begun> {
        match self {
            Self::Within(begun) => Some(*begun),
            _ => None,
        }
    }

    /// The leg is over: a stay that is no arrival yet becomes none.
    pub(super) fn close(&mut self) {
        if let Self::Within(_) = self {
            *self = Self::Away;
        }
    }
}

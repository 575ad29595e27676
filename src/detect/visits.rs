//! Entering, dwelling in and leaving one fence.

use super::timers::{Begun, NEVER};
use crate::model::{EventKind, TimeMs};

/// How a driver stands to a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// No visit.
    Outside,
    /// On a visit: inside, or not yet farther outside than the exit margin.
    Visiting,
}

/// A driver's visit of a fence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Visit {
    /// The fence's.
    pub(super) slot: u32,
    /// With what it began.
    pub(super) begun: Begun,
    pub(super) dwell: Dwell,
}

/// What is to be told of a visit's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dwell {
    /// To be told so long after its beginning, ms; perhaps [`NEVER`].
    After(TimeMs),
    /// Told.
    Told,
}

impl Visit {
    /// A visit that begins now; and whether it dwells at once.
    pub(super) fn begin(slot: u32, begun: Begun, dwell_ms: TimeMs) -> (Self, bool) {
        let at_once = dwell_ms == 0;
        let dwell = if at_once {
            Dwell::Told
        } else {
            Dwell::After(dwell_ms)
        };
        (Self { slot, begun, dwell }, at_once)
    }

    /// How long after its beginning the visit dwells, if that is still to be told.
    pub(super) fn dwells_after_ms(&self) -> Option<TimeMs> {
        match self.dwell {
            Dwell::After(NEVER) | Dwell::Told => None,
            Dwell::After(dwell_ms) => Some(dwell_ms),
        }
    }

    /// Another version of the fence came into force at a merge time; whether the visit has
    /// by its measure dwelled already.
    pub(super) fn change_dwell(&mut self, dwell_ms: TimeMs, at_ms: TimeMs) -> bool {
        if self.dwell == Dwell::Told {
            return false;
        }
        let at_once = self.begun.due_ms(dwell_ms) <= at_ms;
        self.dwell = if at_once {
            Dwell::Told
        } else {
            Dwell::After(dwell_ms)
        };
        at_once
    }
}

/// Judges a fix by a version of the fence. `beyond_margin` is asked only where it decides:
/// whether the fix is outside by more than the exit margin.
pub(super) fn judge(
    stand: Stand,
    inside: bool,
    beyond_margin: impl FnOnce() -> bool,
) -> (Stand, Option<EventKind>) {
    match (stand, inside) {
        (Stand::Outside, false) => (Stand::Outside, None),
        (Stand::Outside, true) => (Stand::Visiting, Some(EventKind::GeofenceEntered)),
        (Stand::Visiting, false) if beyond_margin() => {
            (Stand::Outside, Some(EventKind::GeofenceExited))
        }
        (Stand::Visiting, _) => (Stand::Visiting, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_begins_inside_and_ends_beyond_the_margin() {
        use EventKind::{GeofenceEntered as Entered, GeofenceExited as Exited};
        use Stand::{Outside, Visiting};
        for (stand, inside, beyond, expected) in [
            (Outside, false, true, (Outside, None)),
            (Outside, false, false, (Outside, None)),
            (Outside, true, false, (Visiting, Some(Entered))),
            (Visiting, true, false, (Visiting, None)),
            (Visiting, false, false, (Visiting, None)),
            (Visiting, false, true, (Outside, Some(Exited))),
        ] {
            assert_eq!(judge(stand, inside, || beyond), expected);
        }
    }

    #[test]
    fn the_margin_is_not_measured_in_vain() {
        let unasked = || panic!("measured");
        judge(Stand::Outside, false, unasked);
        judge(Stand::Outside, true, unasked);
        judge(Stand::Visiting, true, unasked);
    }
}

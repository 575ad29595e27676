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

    /// A dwell in force when the visit begins at 1000, another at a time; what each tells.
    #[test]
    fn a_visit_dwells_once_by_the_version_in_force() {
        for (first, at_once, second, at_ms, then, pending) in [
            (0, true, 0, 5000, false, None),
            (NEVER, false, NEVER, 5000, false, None),
            (NEVER, false, 3000, 3999, false, Some(3000)),
            (NEVER, false, 3000, 4000, true, None),
            (9000, false, 3000, 5000, true, None),
            (9000, false, 20_000, 5000, false, Some(20_000)),
            (9000, false, NEVER, 5000, false, None),
            (9000, false, 0, 5000, true, None),
        ] {
            let source = crate::model::Source {
                input: crate::model::Input::Updates,
                partition: 0,
                offset: 0,
            };
            let begun = Begun {
                place: crate::model::Place {
                    at_ms: 1000,
                    source,
                },
                event_time_ms: 0,
            };
            let (mut visit, dwells) = Visit::begin(7, begun, first);
            assert_eq!(dwells, at_once, "{first}");
            assert_eq!(visit.change_dwell(second, at_ms), then, "{first} {second}");
            assert_eq!(visit.dwells_after_ms(), pending, "{first} {second}");
        }
    }
}

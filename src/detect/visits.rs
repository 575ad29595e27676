//! Entering and leaving one fence.

use crate::model::EventKind;

/// How a driver stands to a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// No visit.
    Outside,
    /// On a visit: inside, or not yet farther outside than the exit margin.
    Visiting,
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

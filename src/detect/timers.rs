//! When a driver's state must be looked at though nothing comes: the one timer service.
//!
//! A deadline is part of what it belongs to (a visit, a stay, a silence, a held update), so a
//! snapshot of the drivers carries all timers. The [`Agenda`] only knows when to look at a
//! driver again. It may be early, for a deadline that has moved on is not worth a change of
//! the agenda at every update; it is never late.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{Place, Source, TimeMs};

/// A deadline that never comes.
pub(super) const NEVER: TimeMs = TimeMs::MAX;

/// What started a visit, a stay or a silence, and so its timer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The record's place when it was judged.
    pub(super) place: Place,
    /// Its event time, ms since 1970.
    pub(super) event_time_ms: TimeMs,
}

impl Begun {
    /// The deadline on the clock.
    pub(super) fn due_ms(&self, after_ms: TimeMs) -> TimeMs {
        self.place.at_ms.saturating_add(after_ms)
    }

    /// The deadline in event time.
    pub(super) fn due_event_ms(&self, after_ms: TimeMs) -> TimeMs {
        self.event_time_ms.saturating_add(after_ms)
    }

    /// Seconds of event time until a moment; 0 if it lies before.
    pub(super) fn seconds_to(&self, event_time_ms: TimeMs) -> f64 {
        seconds(event_time_ms.saturating_sub(self.event_time_ms).max(0))
    }
}

/// A point of the merged order: the timers of a time stand before its records.
pub(super) type Moment = (TimeMs, Option<Source>);

/// The moment of a record.
pub(super) fn of(place: Place) -> Moment {
    (place.at_ms, Some(place.source))
}

/// Whole milliseconds of seconds, to the nearest; as many as there are if they are too many,
/// and none if they are below 0.
pub(super) fn millis(seconds: f64) -> TimeMs {
    (seconds * 1000.0).round().max(0.0) as TimeMs
}

/// Seconds of milliseconds.
pub(super) fn seconds(millis: TimeMs) -> f64 {
    millis as f64 / 1000.0
}

/// When to look at which driver; each at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeSet<(TimeMs, u32)>,
}

impl Agenda {
    /// Moves a driver from one time to another; [`NEVER`] is no time.
    pub(super) fn set(&mut self, number: usize, before_ms: TimeMs, at_ms: TimeMs) {
        let number = number as u32;
        if before_ms != NEVER {
            self.entries.remove(&(before_ms, number));
        }
        if at_ms != NEVER {
            self.entries.insert((at_ms, number));
        }
    }

    /// The earliest time.
    pub(super) fn first(&self) -> Option<TimeMs> {
        self.entries.first().map(|&(at_ms, _)| at_ms)
    }

    /// Appends the drivers that are to be looked at until a time, this included.
    pub(super) fn until(&self, at_ms: TimeMs, found: &mut Vec<u32>) {
        let until = self.entries.range(..=(at_ms, u32::MAX));
        found.extend(until.map(|&(_, number)| number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Input;

    #[test]
    fn seconds_become_milliseconds() {
        for (seconds, expected) in [
            (0.0, 0),
            (-0.0, 0),
            (-3.0, 0),
            (0.29, 290),
            (0.000_4, 0),
            (0.000_6, 1),
            (1e-300, 0),
            (10.0, 10_000),
            (1e300, NEVER),
            (f64::INFINITY, NEVER),
        ] {
            assert_eq!(millis(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_deadline_beyond_all_time_never_comes() {
        let source = Source {
            input: Input::Updates,
            partition: 0,
            offset: 0,
        };
        let begun = Begun {
            place: Place {
                at_ms: 1_790_000_000_000,
                source,
            },
            event_time_ms: 1_780_000_000_000,
        };
        assert_eq!(begun.due_ms(NEVER), NEVER);
        assert_eq!(begun.due_event_ms(NEVER), NEVER);
        assert_eq!(begun.due_ms(5), 1_790_000_000_005);
        assert_eq!(begun.seconds_to(1_780_000_001_500), 1.5);
        assert_eq!(begun.seconds_to(1_770_000_000_000), 0.0);
    }

    #[test]
    fn timers_stand_before_the_records_of_their_time() {
        let source = |input, offset| Source {
            input,
            partition: 0,
            offset,
        };
        let moments: [Moment; 5] = [
            (4, Some(source(Input::Updates, 9))),
            (5, None),
            (5, Some(source(Input::Geofences, 3))),
            (5, Some(source(Input::Updates, 1))),
            (6, None),
        ];
        assert!(moments.is_sorted());
    }

    #[test]
    fn a_driver_is_on_the_agenda_once() {
        let mut agenda = Agenda::default();
        agenda.set(7, NEVER, 50);
        agenda.set(3, NEVER, 60);
        agenda.set(7, 50, 70);
        assert_eq!(agenda.first(), Some(60));
        let mut found = Vec::new();
        agenda.until(70, &mut found);
        assert_eq!(found, [3, 7]);
        agenda.set(3, 60, NEVER);
        agenda.set(7, 70, NEVER);
        assert_eq!(agenda.first(), None);
    }
}

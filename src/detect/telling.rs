//! Events in the making.

use super::timers::Begun;
use crate::model::{Cause, DriverId, Event, EventKind, Place, Position, Subject, TimeMs};

/// What all events of one cause have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Telling {
    pub(super) cause: Cause,
    /// Where the events stand: the record's place.
    pub(super) place: Place,
    pub(super) event_time_ms: TimeMs,
    pub(super) now_ms: TimeMs,
}

impl Telling {
    /// The record, as what begins something.
    pub(super) fn begun(&self) -> Begun {
        Begun {
            place: self.place,
            event_time_ms: self.event_time_ms,
        }
    }

    /// An event of this cause, without what only some events have.
    pub(super) fn event(
        &self,
        kind: EventKind,
        driver: DriverId,
        subject: Subject,
        position: Option<Position>,
    ) -> Event {
        Event {
            kind,
            driver,
            subject,
            cause: self.cause,
            place: self.place,
            source: self.place.source,
            event_time_ms: self.event_time_ms,
            detected_at_ms: self.now_ms,
            position,
            at_place: None,
            status: None,
            distance_m: None,
            eta_s: None,
            dwell_s: None,
            initial: false,
        }
    }
}

/// Puts the events from `first` on, which have one cause, into telling order.
pub(super) fn arrange(events: &mut [Event], first: usize) {
    let new = &mut events[first..];
    if new.len() > 1 {
        new.sort_by(|a, b| a.telling_order().cmp(&b.telling_order()));
    }
}

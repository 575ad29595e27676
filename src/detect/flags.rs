//! What an update is to its driver's history.

use serde::{Deserialize, Serialize};

use super::Rules;
use crate::geo::is_within_m;
use crate::model::{Flag, Position, TimeMs, Update};

/// Where a driver was, and when by event time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spot {
    /// Where.
    pub position: Position,
    /// When, ms since 1970.
    pub event_time_ms: TimeMs,
}

impl Spot {
    /// Where an update says that the driver was.
    pub fn of(update: &Update) -> Self {
        Self {
            position: update.position,
            event_time_ms: update.event_time_ms,
        }
    }

    /// Whether one gets from here to a later spot without going too fast.
    fn reaches(&self, later: &Self, rules: &Rules) -> bool {
        let millis = later.event_time_ms.saturating_sub(self.event_time_ms);
        let limit_m = rules.max_speed_mps * millis as f64 / 1000.0;
        is_within_m(self.position, later.position, limit_m)
    }
}

/// An update, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub flag: Flag,
    /// It is `ok` because it goes on from a teleport: nobody knows the way there.
    pub jumped: bool,
}

impl Verdict {
    const fn plain(flag: Flag) -> Self {
        Self {
            flag,
            jumped: false,
        }
    }
}

/// Judges an update by the driver's last `ok` one and the teleport since, if there was one;
/// the first flag that applies.
pub fn judge(
    last_ok: Option<Spot>,
    teleport: Option<Spot>,
    update: &Update,
    rules: &Rules,
) -> Verdict {
    let here = Spot::of(update);
    match last_ok {
        Some(last) if here.event_time_ms < last.event_time_ms => {
            return Verdict::plain(Flag::Late);
        }
        Some(last) if here.event_time_ms == last.event_time_ms => {
            return Verdict::plain(Flag::Duplicate);
        }
        _ => {}
    }
    if (update.accuracy_m).is_some_and(|accuracy_m| f64::from(accuracy_m) > rules.max_accuracy_m) {
        return Verdict::plain(Flag::Inaccurate);
    }
    if last_ok.is_none_or(|last| last.reaches(&here, rules)) {
        return Verdict::plain(Flag::Ok);
    }
    let confirms = |teleport: Spot| {
        teleport.event_time_ms < here.event_time_ms && teleport.reaches(&here, rules)
    };
    if teleport.is_some_and(confirms) {
        Verdict {
            flag: Flag::Ok,
            jumped: true,
        }
    } else {
        Verdict::plain(Flag::Teleport)
    }
}

//! What an update is to its driver's history.

use crate::model::{Flag, TimeMs};

/// Judges an update by its event time and that of the driver's last `ok` update; the first
/// flag that applies.
pub(super) fn judge(last_ok_ms: Option<TimeMs>, event_time_ms: TimeMs) -> Flag {
    match last_ok_ms {
        Some(last) if event_time_ms < last => Flag::Late,
        Some(last) if event_time_ms == last => Flag::Duplicate,
        _ => Flag::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_event_time() {
        for (last, now, expected) in [
            (None, 5, Flag::Ok),
            (Some(5), 4, Flag::Late),
            (Some(5), 5, Flag::Duplicate),
            (Some(5), 6, Flag::Ok),
            (Some(-5), -6, Flag::Late),
        ] {
            assert_eq!(judge(last, now), expected, "{last:?} {now}");
        }
    }
}

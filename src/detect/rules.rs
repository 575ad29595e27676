//! The numbers in the rules.

use super::timers::millis;
use crate::model::TimeMs;

/// Limits of the contract's section 3, valid once and for all; the pipeline file gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Radius of `agent.near`, m. Default 500.
    pub near_m: f64,
    /// Whether `agent.near` repeats after having been past `rearm_m`. Default false.
    pub near_repeat: bool,
    /// Past this, `agent.near` may repeat, m. Default 700.
    pub rearm_m: f64,
    /// Radius of `agent.arrived`, m. Default 60.
    pub arrive_m: f64,
    /// Length of the stay that counts as arrival, s. Default 10.
    pub arrive_s: f64,
    /// Past this, an arrived driver has departed, m. Default 150.
    pub depart_m: f64,
    /// Silence of a driver with an open order that is told, s. Default 30.
    pub silent_s: f64,
    /// Two fixes further apart in time judge no crossing, s. Default 60.
    pub crossing_gap_s: f64,
    /// Implied speed over this is a teleport, m/s. Default 70.
    pub max_speed_mps: f64,
    /// `accuracy` over this is inaccurate, m. Default 100.
    pub max_accuracy_m: f64,
    /// How long an update is held so that older ones may overtake it, s. Default 0.
    pub lateness_s: f64,
}

/// The rules' times in whole milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    pub(super) arrive_ms: TimeMs,
    /// At least 1, so that silence is told after what it is counted from.
    pub(super) silent_ms: TimeMs,
    pub(super) crossing_gap_ms: TimeMs,
    pub(super) lateness_ms: TimeMs,
}

impl Spans {
    pub(super) fn of(rules: &Rules) -> Self {
        Self {
            arrive_ms: millis(rules.arrive_s),
            silent_ms: millis(rules.silent_s).max(1),
            crossing_gap_ms: millis(rules.crossing_gap_s),
            lateness_ms: millis(rules.lateness_s),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            near_m: 500.0,
            near_repeat: false,
            rearm_m: 700.0,
            arrive_m: 60.0,
            arrive_s: 10.0,
            depart_m: 150.0,
            silent_s: 30.0,
            crossing_gap_s: 60.0,
            max_speed_mps: 70.0,
            max_accuracy_m: 100.0,
            lateness_s: 0.0,
        }
    }
}

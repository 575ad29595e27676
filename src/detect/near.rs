//! Coming near a leg's target.

use serde::{Deserialize, Serialize};

use super::Rules;

/// Whether `agent.near` is still to be told for a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Near {
    /// To be told once within the radius.
    Armed,
    /// Told; with `near_repeat` armed again past `rearm_m`.
    Told,
}

impl Near {
    /// Judges the distance of a fix to the target, metres; and whether to tell.
    pub(super) fn judge(self, distance_m: f64, rules: &Rules) -> (Self, bool) {
        match self {
            Self::Armed if distance_m <= rules.near_m => (Self::Told, true),
            Self::Told if rules.near_repeat && distance_m > rules.rearm_m => (Self::Armed, false),
            unchanged => (unchanged, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_and_again_only_after_having_been_past() {
        let once = Rules::default();
        let repeating = Rules {
            near_repeat: true,
            ..Rules::default()
        };
        let walk = [
            900.0, 500.1, 500.0, 10.0, 600.0, 400.0, 700.0, 400.0, 700.1, 600.0, 500.0, 0.0,
        ];
        for (rules, expected) in [(once, vec![500.0]), (repeating, vec![500.0, 500.0])] {
            let mut state = Near::Armed;
            let mut told = Vec::new();
            for distance_m in walk {
                let (next, tell) = state.judge(distance_m, &rules);
                state = next;
                if tell {
                    told.push(distance_m);
                }
            }
            assert_eq!(told, expected);
        }
    }
}

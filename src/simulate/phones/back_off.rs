//! How long a phone waits before it connects again.

use std::time::Duration;

use crate::simulate::dice::Dice;

/// The first wait is at most this.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits whose limit doubles. Each is drawn at random up to its limit, so that phones that lost
/// the same gateway come back spread out.
pub(super) struct BackOff {
    failures: u32,
    dice: Dice,
}

impl BackOff {
    /// Each phone has a seed of its own.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            dice: Dice::new(seed, 5),
        }
    }

    /// A connection was good: the next wait is short again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        longest.mul_f64(self.dice.between(0.1, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_are_never_the_same() {
        let waits = |seed| {
            let mut back_off = BackOff::new(seed);
            (0..60).map(|_| back_off.next()).collect::<Vec<_>>()
        };
        let all: Vec<Vec<Duration>> = (0..200).map(waits).collect();
        for (turn, longest_ms) in [(0, 500), (1, 1_000), (2, 2_000), (5, 10_000), (59, 10_000)] {
            let turn: Vec<u128> = all.iter().map(|waits| waits[turn].as_millis()).collect();
            let (least, most) = (*turn.iter().min().unwrap(), *turn.iter().max().unwrap());
            assert!(most <= longest_ms && most > longest_ms * 9 / 10, "{most}");
            assert!(
                least >= longest_ms / 10 && least < longest_ms / 5,
                "{least}"
            );
        }
        let mut back_off = BackOff::new(1);
        for _ in 0..20 {
            back_off.next();
        }
        back_off.reset();
        assert!(back_off.next() <= Duration::from_millis(500));
    }
}

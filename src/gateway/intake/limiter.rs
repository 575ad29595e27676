//! How many updates a connection may send.
//!
//! The generic cell rate algorithm in two words, since there is one for each connection: what
//! matters is when the next update would come if all came evenly. Pure: the caller brings the
//! time.

use std::time::{Duration, Instant};

/// How long a quiet phone saves up for: it may send so much at once after a time without network.
const BURST: Duration = Duration::from_secs(10);

/// A rate, and how much of it is used up.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Between two updates.
    interval: Duration,
    /// When all that was sent would have been sent evenly.
    due: Instant,
}

impl Limiter {
    /// `per_s` updates a second, at least 1, and ten seconds' worth at once.
    pub(super) fn new(per_s: u32, now: Instant) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_s.max(1),
            due: now,
        }
    }

    /// Counts one update.
    ///
    /// # Errors
    /// How long to wait until there is room for a second's worth; it is not counted.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let due = self.due.max(now);
        let ahead = due + self.interval - now;
        if ahead > BURST {
            return Err(ahead.saturating_sub(BURST - Duration::from_secs(1)));
        }
        self.due = due + self.interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_after_the_burst() {
        let start = Instant::now();
        let mut limiter = Limiter::new(10, start);
        let at = |ms| start + Duration::from_millis(ms);
        let mut taken = |ms| {
            (0..500)
                .take_while(|_| limiter.take(at(ms)).is_ok())
                .count()
        };
        assert_eq!(taken(0), 100);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(1_099), 9);
        assert_eq!(taken(1_100), 1);
        // It does not save up for more than the burst.
        assert_eq!(taken(3_600_000), 100);
    }

    #[test]
    fn after_the_wait_there_is_room_for_a_second_s_worth() {
        let start = Instant::now();
        let mut limiter = Limiter::new(4, start);
        while limiter.take(start).is_ok() {}
        let wait = limiter.take(start).unwrap_err();
        let later = start + wait;
        assert!(wait <= Duration::from_millis(1_250), "{wait:?}");
        let room = (0..100).take_while(|_| limiter.take(later).is_ok()).count();
        assert!((4..=5).contains(&room), "{room}");
    }
}

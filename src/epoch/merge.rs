//! Where a record stands in the one merged order of all inputs.
//!
//! Each partition has a clock of its own. It never goes back, never runs ahead of the wall
//! clock, and while the partition has nothing unread it follows the wall clock. The slowest
//! partition's clock is what timely's frontier carries; so one that lags holds the others
//! back to its timestamp, and one with nothing unread holds back nobody.

use crate::model::{Epoch, TimeMs};

/// One partition's clock, in epochs of `interval_ms`.
#[derive(Clone, Debug)]
pub struct PartitionClock {
    interval_ms: u64,
    /// No record of this partition will be placed in an earlier epoch.
    floor: Epoch,
    /// The largest Kafka timestamp read.
    latest_ms: TimeMs,
    at_end: bool,
    replay: Option<Replay>,
}

/// Records that an earlier generation has committed already, read again for their state.
#[derive(Clone, Copy, Debug)]
struct Replay {
    /// The newest committed epoch: replayed records stand no later.
    last: Epoch,
    /// The first offset that is new.
    until_offset: i64,
}

impl PartitionClock {
    /// A clock for a partition read from `start_offset`, where `committed` is the newest
    /// committed epoch with the partition's next offset at its end.
    pub fn new(interval_ms: u64, start_offset: i64, committed: Option<(Epoch, i64)>) -> Self {
        let (floor, replay) = match committed {
            None => (Epoch(0), None),
            Some((last, next)) if start_offset < next => (
                Epoch(0),
                Some(Replay {
                    last,
                    until_offset: next,
                }),
            ),
            Some((last, _)) => (Epoch(last.0 + 1), None),
        };
        Self {
            interval_ms,
            floor,
            latest_ms: 0,
            at_end: false,
            replay,
        }
    }

    /// The earliest epoch that this partition may still add to.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Places the partition's next record: its epoch, and its merge time within it.
    pub fn admit(&mut self, offset: i64, timestamp_ms: TimeMs, wall_ms: TimeMs) -> (Epoch, TimeMs) {
        self.at_end = false;
        self.latest_ms = self.latest_ms.max(timestamp_ms);
        let by_time = Epoch::containing(self.latest_ms.min(wall_ms), self.interval_ms);
        let epoch = match self.replay {
            Some(replay) if offset < replay.until_offset => by_time.min(replay.last),
            Some(replay) => {
                self.replay = None;
                by_time.max(Epoch(replay.last.0 + 1))
            }
            None => by_time,
        };
        self.floor = self.floor.max(epoch);
        let at_ms = self.latest_ms.clamp(
            self.floor.start_ms(self.interval_ms),
            self.floor.now_ms(self.interval_ms) - 1,
        );
        (self.floor, at_ms)
    }

    /// The partition has nothing unread: from now on it follows the wall clock.
    pub fn reached_end(&mut self) {
        self.at_end = true;
        if let Some(replay) = self.replay.take() {
            self.floor = self.floor.max(Epoch(replay.last.0 + 1));
        }
    }

    /// Lets the wall clock carry a partition that has nothing unread.
    pub fn follow(&mut self, wall_ms: TimeMs) {
        if self.at_end {
            self.floor = self.floor.max(Epoch::containing(wall_ms, self.interval_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: TimeMs = 1_000_000;

    fn fresh() -> PartitionClock {
        PartitionClock::new(100, 0, None)
    }

    #[test]
    fn a_record_stands_at_its_timestamp() {
        assert_eq!(fresh().admit(0, 12_345, WALL), (Epoch(123), 12_345));
    }

    #[test]
    fn time_never_goes_back_within_a_partition() {
        let mut clock = fresh();
        clock.admit(0, 12_345, WALL);
        assert_eq!(clock.admit(1, 9_000, WALL), (Epoch(123), 12_345));
    }

    #[test]
    fn a_record_ahead_of_the_wall_clock_stands_at_the_end_of_the_wall_clocks_epoch() {
        assert_eq!(
            fresh().admit(0, 5_000_000, WALL),
            (Epoch(10_000), 1_000_099)
        );
    }

    #[test]
    fn a_partition_waits_until_something_is_known_of_it() {
        let mut clock = fresh();
        clock.follow(WALL);
        assert_eq!(clock.floor(), Epoch(0));
        clock.reached_end();
        clock.follow(WALL);
        assert_eq!(clock.floor(), Epoch(10_000));
    }

    #[test]
    fn a_record_that_was_under_way_stands_at_the_start_of_the_open_epoch() {
        let mut clock = fresh();
        clock.reached_end();
        clock.follow(WALL);
        assert_eq!(
            clock.admit(0, WALL - 250, WALL + 20),
            (Epoch(10_000), 1_000_000)
        );
        clock.follow(WALL + 500);
        assert_eq!(
            clock.floor(),
            Epoch(10_000),
            "a partition with unread records stays"
        );
    }

    #[test]
    fn replayed_records_stand_in_committed_epochs_and_new_ones_after_them() {
        let mut clock = PartitionClock::new(100, 5, Some((Epoch(50), 7)));
        assert_eq!(clock.admit(5, 4_900, WALL), (Epoch(49), 4_900));
        assert_eq!(clock.admit(6, 5_555, WALL), (Epoch(50), 5_099));
        assert_eq!(clock.admit(7, 5_060, WALL), (Epoch(55), 5_555));
    }

    #[test]
    fn a_replay_that_ends_at_the_partitions_end_is_over() {
        let mut clock = PartitionClock::new(100, 5, Some((Epoch(50), 7)));
        clock.admit(5, 4_900, WALL);
        clock.reached_end();
        assert_eq!(clock.floor(), Epoch(51));
    }

    #[test]
    fn a_partition_without_replay_starts_after_the_committed_epoch() {
        let clock = PartitionClock::new(100, 7, Some((Epoch(50), 7)));
        assert_eq!(clock.floor(), Epoch(51));
    }
}

//! Where a record stands in the one merged order of all inputs.
//!
//! Each partition has a clock of its own. It never goes back, never runs ahead of the wall
//! clock, and while the partition has nothing unread it follows the wall clock, but not far
//! beyond the moment as of which that is known. The slowest partition's clock is what timely's
//! frontier carries; so one that lags holds the others back to its timestamp, and one with
//! nothing unread holds back nobody.

use crate::model::{Epoch, TimeMs};

/// How long it is believed that a partition has nothing unread, ms.
const END_BELIEVED_MS: TimeMs = 500;
/// Records of one partition in one epoch; the next one begins a new epoch, so that records
/// without an order in time can't make an epoch that memory does not hold.
const EPOCH_LIMIT: u32 = 1_000_000;

/// One partition's clock, in epochs of `interval_ms`.
#[derive(Clone, Debug)]
pub struct PartitionClock {
    interval_ms: u64,
    /// No record of this partition will be placed in an earlier epoch.
    floor: Epoch,
    /// The largest Kafka timestamp read.
    latest_ms: TimeMs,
    /// As of when the partition is known to have nothing unread, ms since 1970.
    at_end_as_of_ms: Option<TimeMs>,
    /// Records placed in the epoch of `floor`.
    placed: u32,
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
            at_end_as_of_ms: None,
            placed: 0,
            replay,
        }
    }

    /// The earliest epoch that this partition may still add to.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Places the partition's next record: its epoch, and its merge time within it.
    pub fn admit(&mut self, offset: i64, timestamp_ms: TimeMs, wall_ms: TimeMs) -> (Epoch, TimeMs) {
        self.at_end_as_of_ms = None;
        self.latest_ms = self.latest_ms.max(timestamp_ms);
        let by_time = Epoch::containing(self.latest_ms.min(wall_ms), self.interval_ms);
        let epoch = match self.replay {
            Some(replay) if offset < replay.until_offset => by_time.min(replay.last),
            Some(replay) => {
                self.replay = None;
                by_time.max(Epoch(replay.last.0 + 1))
            }
            None if self.placed == EPOCH_LIMIT => by_time.max(Epoch(self.floor.0 + 1)),
            None => by_time,
        };
        self.raise_floor(epoch);
        self.placed += 1;
        let at_ms = self.latest_ms.clamp(
            self.floor.start_ms(self.interval_ms),
            self.floor.now_ms(self.interval_ms) - 1,
        );
        (self.floor, at_ms)
    }

    /// The partition had nothing unread as of `as_of_ms`: it follows the wall clock.
    pub fn reached_end(&mut self, as_of_ms: TimeMs) {
        self.at_end_as_of_ms = Some(as_of_ms);
        if let Some(replay) = self.replay.take() {
            self.raise_floor(Epoch(replay.last.0 + 1));
        }
    }

    /// What was known of the partition's end no longer holds. Returns whether anything was.
    pub fn forget_end(&mut self) -> bool {
        self.at_end_as_of_ms.take().is_some()
    }

    /// As of when the partition is known to have nothing unread, ms since 1970.
    pub fn at_end_as_of_ms(&self) -> Option<TimeMs> {
        self.at_end_as_of_ms
    }

    /// Lets the wall clock carry a partition that has nothing unread.
    pub fn follow(&mut self, wall_ms: TimeMs) {
        if let Some(as_of_ms) = self.at_end_as_of_ms {
            let known_ms = wall_ms.min(as_of_ms + END_BELIEVED_MS);
            self.raise_floor(Epoch::containing(known_ms, self.interval_ms));
        }
    }

    fn raise_floor(&mut self, epoch: Epoch) {
        if epoch > self.floor {
            self.floor = epoch;
            self.placed = 0;
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
        clock.reached_end(WALL);
        clock.follow(WALL);
        assert_eq!(clock.floor(), Epoch(10_000));
    }

    #[test]
    fn an_end_that_was_seen_long_ago_carries_nobody() {
        let mut clock = fresh();
        clock.reached_end(WALL);
        clock.follow(WALL + 3_000);
        assert_eq!(clock.floor(), Epoch(10_005));
        clock.forget_end();
        clock.follow(WALL + 3_000);
        assert_eq!(clock.floor(), Epoch(10_005));
    }

    #[test]
    fn records_without_an_order_in_time_fill_more_than_one_epoch() {
        let mut clock = fresh();
        let mut epochs = std::collections::BTreeSet::new();
        for offset in 0..i64::from(2 * EPOCH_LIMIT) + 1 {
            epochs.insert(clock.admit(offset, 0, WALL).0);
        }
        assert_eq!(epochs.len(), 3);
    }

    #[test]
    fn a_record_that_was_under_way_stands_at_the_start_of_the_open_epoch() {
        let mut clock = fresh();
        clock.reached_end(WALL);
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
        clock.reached_end(WALL);
        assert_eq!(clock.floor(), Epoch(51));
    }

    #[test]
    fn a_partition_without_replay_starts_after_the_committed_epoch() {
        let clock = PartitionClock::new(100, 7, Some((Epoch(50), 7)));
        assert_eq!(clock.floor(), Epoch(51));
    }
}

//! Where a record stands in the one merged order of all inputs.
//!
//! Each partition has a clock of its own. It never goes back, never runs ahead of the wall
//! clock, and while the partition has nothing unread it follows the wall clock, but not far
//! beyond the moment as of which that is known. The slowest partition's clock is what timely's
//! frontier carries; so one that lags holds the others back to its timestamp, and one with
//! nothing unread holds back nobody.

use std::collections::VecDeque;

use crate::model::{Epoch, TimeMs};

/// How long it is believed that a partition has nothing unread, ms.
const END_BELIEVED_MS: TimeMs = 500;
/// Records of one partition in one epoch; the next one begins a new epoch, so that records
/// without an order in time can't make an epoch that memory does not hold.
const EPOCH_LIMIT: u32 = 1_000_000;

/// After all epochs: where a partition stands of which nothing more is read.
const NO_EPOCH: Epoch = Epoch(u64::MAX);

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
    /// Committed epochs that are read again: each with the offset after its last.
    replay: VecDeque<(Epoch, i64)>,
    /// The first epoch that isn't committed: no new record stands before it.
    open: Epoch,
}

impl PartitionClock {
    /// A clock for a partition that is read from the start, when no epoch is committed.
    pub fn new(interval_ms: u64) -> Self {
        Self::resumed(interval_ms, 0, [], Epoch(0))
    }

    /// A clock for a partition that has been read up to `latest_ms` (see
    /// [`super::Position::latest_ms`]). What `replay` lists, in order, is read again: each
    /// epoch with the offset after its last, as the log recorded it. All records after those
    /// are new, and none of them stands before epoch `open`.
    pub fn resumed(
        interval_ms: u64,
        latest_ms: TimeMs,
        replay: impl IntoIterator<Item = (Epoch, i64)>,
        open: Epoch,
    ) -> Self {
        let replay: VecDeque<(Epoch, i64)> = replay.into_iter().collect();
        Self {
            interval_ms,
            floor: replay.front().map_or(open, |(epoch, _)| *epoch),
            latest_ms,
            at_end_as_of_ms: None,
            placed: 0,
            replay,
            open,
        }
    }

    /// A clock for a partition of which only `replay` is read again; see
    /// [`PartitionClock::resumed`].
    pub fn replaying(
        interval_ms: u64,
        latest_ms: TimeMs,
        replay: impl IntoIterator<Item = (Epoch, i64)>,
    ) -> Self {
        Self::resumed(interval_ms, latest_ms, replay, NO_EPOCH)
    }

    /// Whether all that was to be read again has been read: nothing more may be admitted.
    pub fn is_finished(&self) -> bool {
        self.floor == NO_EPOCH
    }

    /// The largest Kafka timestamp read, ms since 1970.
    pub fn latest_ms(&self) -> TimeMs {
        self.latest_ms
    }

    /// The earliest epoch that this partition may still add to.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Places the partition's next record: its epoch, and its merge time within it.
    pub fn admit(&mut self, offset: i64, timestamp_ms: TimeMs, wall_ms: TimeMs) -> (Epoch, TimeMs) {
        self.at_end_as_of_ms = None;
        self.latest_ms = self.latest_ms.max(timestamp_ms);
        // Offsets that hold no record, such as a transaction's marker, end no epoch.
        while let Some((_, next)) = self.replay.front()
            && *next <= offset
        {
            self.end_replayed_epoch();
        }
        if self.replay.is_empty() {
            let by_time = Epoch::containing(self.latest_ms.min(wall_ms), self.interval_ms);
            let by_time = by_time.max(self.open);
            self.raise_floor(match self.placed == EPOCH_LIMIT {
                true => by_time.max(Epoch(self.floor.0 + 1)),
                false => by_time,
            });
            self.placed += 1;
        }
        let epoch = self.floor;
        let at_ms = self.latest_ms.clamp(
            epoch.start_ms(self.interval_ms),
            epoch.now_ms(self.interval_ms) - 1,
        );
        if let Some((_, next)) = self.replay.front()
            && *next == offset + 1
        {
            self.end_replayed_epoch();
        }
        (epoch, at_ms)
    }

    /// Nothing more of the oldest replayed epoch will come.
    fn end_replayed_epoch(&mut self) {
        self.replay.pop_front();
        let next = self.replay.front().map_or(self.open, |(epoch, _)| *epoch);
        self.raise_floor(next);
    }

    /// The partition had nothing unread as of `as_of_ms`: it follows the wall clock.
    pub fn reached_end(&mut self, as_of_ms: TimeMs) {
        self.at_end_as_of_ms = Some(as_of_ms);
        self.replay.clear();
        self.raise_floor(self.open);
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
        PartitionClock::new(100)
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
    fn replayed_records_stand_in_their_recorded_epochs_and_new_ones_after_them() {
        let replay = [(Epoch(47), 6), (Epoch(50), 8)];
        let mut clock = PartitionClock::resumed(100, 4_750, replay, Epoch(52));
        assert_eq!(clock.floor(), Epoch(47));
        assert_eq!(clock.admit(5, 4_100, WALL), (Epoch(47), 4_750));
        assert_eq!(clock.floor(), Epoch(50), "nothing more of 47 can come");
        assert_eq!(clock.admit(6, 5_555, WALL), (Epoch(50), 5_099));
        assert_eq!(clock.admit(7, 5_060, WALL), (Epoch(50), 5_099));
        assert_eq!(clock.floor(), Epoch(52));
        assert_eq!(clock.admit(8, 5_060, WALL), (Epoch(55), 5_555));
    }

    #[test]
    fn an_offset_without_a_record_ends_a_replayed_epoch_with_the_next_record() {
        let replay = [(Epoch(47), 6), (Epoch(50), 9)];
        let mut clock = PartitionClock::resumed(100, 0, replay, Epoch(51));
        assert_eq!(clock.admit(4, 4_700, WALL), (Epoch(47), 4_700));
        assert_eq!(clock.admit(7, 4_800, WALL), (Epoch(50), 5_000));
        assert_eq!(clock.admit(9, 4_900, WALL), (Epoch(51), 5_100));
    }

    #[test]
    fn a_partition_that_is_only_replayed_is_finished_with_the_last_record() {
        let mut clock = PartitionClock::replaying(100, 0, [(Epoch(50), 7)]);
        clock.admit(5, 4_900, WALL);
        assert!(!clock.is_finished());
        assert_eq!(clock.admit(6, 5_000, WALL), (Epoch(50), 5_000));
        assert!(clock.is_finished());
        assert!(PartitionClock::replaying(100, 0, []).is_finished());
    }

    #[test]
    fn a_replay_that_ends_at_the_partitions_end_is_over() {
        let mut clock = PartitionClock::resumed(100, 0, [(Epoch(50), 7)], Epoch(51));
        clock.admit(5, 4_900, WALL);
        clock.reached_end(WALL);
        assert_eq!(clock.floor(), Epoch(51));
    }

    #[test]
    fn a_partition_without_replay_starts_after_the_committed_epoch() {
        let clock = PartitionClock::resumed(100, 0, [], Epoch(51));
        assert_eq!(clock.floor(), Epoch(51));
    }
}

//! One partition as its source sees it: how far it is, whether it may be read now, and what is known
//! of its end.
//!
//! Bounds what lies between the source and the end of detection: a partition that is ahead of the
//! frontier by more than [`AHEAD_LIMIT`] records may not be read; the slowest one always may.

use std::collections::VecDeque;

use super::Context;
use super::outboxes::{Outbox, Outboxes};
use crate::epoch::{OffsetRange, PartitionClock, Record};
use crate::model::{Epoch, Input, Source, TimeMs};

/// Records that a partition may be ahead of the frontier.
const AHEAD_LIMIT: usize = 100_000;
/// How often it is asked whether a partition still has nothing unread.
const ASK_EVERY_MS: TimeMs = 200;

/// A partition that the source reads.
pub(super) struct PartitionState {
    pub(super) partition: i32,
    pub(super) clock: PartitionClock,
    /// The wall clock at the last poll that left nothing waiting.
    pub(super) drained_ms: TimeMs,
    /// An end was known and was forgotten.
    pub(super) end_forgotten: bool,
    /// When it was last asked for.
    pub(super) end_asked_ms: TimeMs,
    /// Records sent and not known to be finished, by epoch.
    ahead: VecDeque<(Epoch, usize)>,
    ahead_total: usize,
    /// What this activation has read: epoch, first and next offset, latest timestamp.
    range: Option<(Epoch, i64, i64, TimeMs)>,
}

impl PartitionState {
    pub(super) fn new(partition: i32, clock: PartitionClock) -> Self {
        Self {
            partition,
            clock,
            drained_ms: 0,
            end_forgotten: false,
            end_asked_ms: 0,
            ahead: VecDeque::new(),
            ahead_total: 0,
            range: None,
        }
    }

    pub(super) fn finish_range(&mut self, input: Input, ranges: &mut Outbox<OffsetRange>) {
        if let Some((epoch, first, next, latest_ms)) = self.range.take() {
            let count = (next - first) as usize;
            match self.ahead.back_mut() {
                Some((last, total)) if *last == epoch => *total += count,
                _ => self.ahead.push_back((epoch, count)),
            }
            self.ahead_total += count;
            let partition = self.partition;
            ranges.push(
                epoch,
                OffsetRange {
                    input,
                    partition,
                    first,
                    next,
                    latest_ms,
                },
            );
        }
    }

    /// Places and decodes a record, unless it is one too many.
    pub(super) fn take(
        &mut self,
        record: &Record<'_>,
        wall_ms: TimeMs,
        out: &mut Outboxes,
        context: &Context,
    ) -> bool {
        self.end_forgotten = false;
        if self.clock.is_finished() {
            return false;
        }
        let Source { input, offset, .. } = record.source;
        let (epoch, at_ms) = self.clock.admit(offset, record.timestamp_ms, wall_ms);
        let next = offset + 1;
        let latest_ms = self.clock.latest_ms();
        match &mut self.range {
            Some((open, _, end, latest)) if *open == epoch => (*end, *latest) = (next, latest_ms),
            _ => {
                self.finish_range(input, &mut out.ranges);
                self.range = Some((epoch, offset, next, latest_ms));
            }
        }
        out.decode(record, epoch, at_ms, context);
        true
    }

    pub(super) fn forget_end(&mut self) {
        self.end_forgotten |= self.clock.forget_end();
    }

    /// Whether what is known of the end is too old, or was forgotten.
    pub(super) fn should_ask_for_end(&self, wall_ms: TimeMs) -> bool {
        let known_ms = self.clock.at_end_as_of_ms();
        let old = known_ms.is_some_and(|as_of_ms| wall_ms - as_of_ms > ASK_EVERY_MS);
        (old || self.end_forgotten) && wall_ms - self.end_asked_ms > ASK_EVERY_MS
    }

    /// Forgets what detection has finished.
    pub(super) fn follow_frontier(&mut self, frontier: Option<u64>) {
        while let (Some(frontier), Some((epoch, count))) = (frontier, self.ahead.front().copied())
            && epoch.0 < frontier
        {
            self.ahead.pop_front();
            self.ahead_total -= count;
        }
    }

    /// Whether anything may be read of it now.
    pub(super) fn may_be_read(&self, frontier: Option<u64>) -> bool {
        let is_slowest = || frontier.is_none_or(|frontier| self.clock.floor().0 <= frontier);
        !self.clock.is_finished() && (self.ahead_total <= AHEAD_LIMIT || is_slowest())
    }

    pub(super) fn progress(&self) -> (Epoch, TimeMs) {
        (self.clock.floor(), self.clock.latest_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_MS: TimeMs = 1_000_000;

    /// A partition of epochs of 100 ms that has read so many records of each.
    fn read(counts: &[(u64, usize)]) -> PartitionState {
        let mut state = PartitionState::new(0, PartitionClock::new(100));
        let mut ranges = Outbox::default();
        let mut next = 0;
        for &(epoch, count) in counts {
            let first = next;
            next += count as i64;
            let latest_ms = epoch as TimeMs * 100;
            state.clock.admit(next - 1, latest_ms, WALL_MS);
            state.range = Some((Epoch(epoch), first, next, latest_ms));
            state.finish_range(Input::Updates, &mut ranges);
        }
        state
    }

    #[test]
    fn a_partition_is_read_up_to_the_limit() {
        assert!(read(&[(5, AHEAD_LIMIT)]).may_be_read(Some(3)));
        assert!(!read(&[(5, AHEAD_LIMIT + 1)]).may_be_read(Some(3)));
    }

    #[test]
    fn the_slowest_partition_is_read_however_much_waits() {
        assert!(read(&[(5, 2 * AHEAD_LIMIT)]).may_be_read(Some(5)));
        assert!(read(&[(5, 2 * AHEAD_LIMIT)]).may_be_read(None));
    }

    #[test]
    fn what_detection_has_finished_counts_no_more() {
        let mut state = read(&[(5, AHEAD_LIMIT), (7, AHEAD_LIMIT), (9, 1)]);
        state.follow_frontier(Some(6));
        assert!(!state.may_be_read(Some(6)), "7 and 9 are one too many");
        state.follow_frontier(Some(7));
        assert!(!state.may_be_read(Some(7)), "7 is not finished");
        state.follow_frontier(Some(8));
        assert!(state.may_be_read(Some(8)));
    }

    #[test]
    fn a_partition_of_which_all_was_read_again_is_read_no_more() {
        let state = PartitionState::new(0, PartitionClock::replaying(100, 0, []));
        assert!(!state.may_be_read(None));
    }

    #[test]
    fn an_end_is_asked_for_when_it_is_old_or_forgotten_and_not_too_often() {
        let mut state = PartitionState::new(0, PartitionClock::new(100));
        assert!(!state.should_ask_for_end(WALL_MS), "none was known");
        state.clock.reached_end(WALL_MS);
        assert!(!state.should_ask_for_end(WALL_MS + ASK_EVERY_MS));
        assert!(state.should_ask_for_end(WALL_MS + ASK_EVERY_MS + 1));
        state.clock.reached_end(WALL_MS + 1_000);
        state.forget_end();
        assert!(state.should_ask_for_end(WALL_MS + 1_001));
        state.end_asked_ms = WALL_MS + 1_001;
        assert!(!state.should_ask_for_end(WALL_MS + 1_002));
    }
}

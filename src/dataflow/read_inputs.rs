//! The source operator: records become model values, placed in epochs.
//!
//! One instance a worker, reading the partitions that are its own. A record is decoded while
//! its bytes are still in the fetch buffer, so nothing is copied that isn't kept. The
//! operator holds, on each output, a capability at the floor of its slowest partition.
//!
//! The partition that is furthest behind is read first, so that epochs fill in their order.
//!
//! Bounds: a partition that is far ahead of the frontier is not read until the frontier follows;
//! the slowest partition always is, so the frontier always moves. One activation handles at most [`BATCH`] records of each input.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::{Scope, StreamVec};

use super::Context;
use super::outboxes::{Number, Outboxes, Parcel};
use super::partition::PartitionState;
use crate::epoch::{OffsetRange, PartitionClock, Polled, RecordReader};
use crate::model::{DeadLetter, Epoch, FenceChange, Input, OrderChange, TimeMs, Update};
use crate::snapshot::Mark;

/// Records of one partition before it is asked again which one is furthest behind.
const TURN: usize = 1_024;
/// Records of one input in one activation.
const BATCH: usize = 8_192;
/// A worker that has not polled for this long was held up; meanwhile anything may have come.
const HELD_UP_MS: TimeMs = 150;
/// How long an idle source sleeps before it polls again.
const IDLE: Duration = Duration::from_millis(2);

/// One input's reader and the partitions that it was opened with.
pub struct Feed<R> {
    /// Which input.
    pub input: Input,
    /// Where its records come from.
    pub reader: R,
    /// The partitions read, with their clocks.
    pub partitions: Vec<(i32, PartitionClock)>,
}

/// What the source gives, each in the epoch that it belongs to.
pub(super) struct Decoded<'scope> {
    /// By driver.
    pub(super) updates: StreamVec<'scope, u64, Parcel<Update>>,
    /// By driver.
    pub(super) numbers: StreamVec<'scope, u64, Parcel<Number>>,
    pub(super) orders: StreamVec<'scope, u64, OrderChange>,
    pub(super) fences: StreamVec<'scope, u64, FenceChange>,
    pub(super) dead_letters: StreamVec<'scope, u64, DeadLetter>,
    pub(super) ranges: StreamVec<'scope, u64, OffsetRange>,
    /// Where a snapshot is wanted.
    pub(super) marks: StreamVec<'scope, u64, Mark>,
}

/// Reads `feeds`. `complete` is the frontier of what detection and windows have finished.
pub(super) fn read_inputs<'scope, R: RecordReader>(
    scope: Scope<'scope, u64>,
    feeds: Vec<Feed<R>>,
    complete: Handle<u64>,
    context: Rc<Context>,
) -> Decoded<'scope> {
    let mut builder = OperatorBuilder::new("read_inputs".to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let peers = scope.peers() as u64;

    let (updates_out, updates) = builder.new_output();
    let (numbers_out, numbers) = builder.new_output();
    let (orders_out, orders) = builder.new_output();
    let (fences_out, fences) = builder.new_output();
    let (dead_letters_out, dead_letters) = builder.new_output();
    let (ranges_out, ranges) = builder.new_output();
    let (marks_out, marks) = builder.new_output();
    let mut updates_out = OutputBuilder::from(updates_out);
    let mut numbers_out = OutputBuilder::from(numbers_out);
    let mut orders_out = OutputBuilder::from(orders_out);
    let mut fences_out = OutputBuilder::from(fences_out);
    let mut dead_letters_out = OutputBuilder::from(dead_letters_out);
    let mut ranges_out = OutputBuilder::from(ranges_out);
    let mut marks_out = OutputBuilder::from(marks_out);

    builder.build(move |capabilities| {
        let mut capabilities = Some(capabilities);
        let mut feeds: Vec<FeedState<R>> = feeds.into_iter().map(FeedState::new).collect();
        let mut out = Outboxes::new(peers);
        move |_frontiers| {
            let Some(held) = &mut capabilities else {
                return;
            };
            let wall_ms = (context.clock)();
            let frontier = complete.with_frontier(|frontier| frontier.first().copied());
            let mut polled = 0;
            for feed in &mut feeds {
                match feed.poll(&mut out, frontier, wall_ms, &context) {
                    Ok(count) => polled += count,
                    Err(error) => {
                        (context.fail)(format!("could not read {}: {error}", feed.input.topic()));
                        // What is incomplete must not look complete: the capabilities stay.
                        return;
                    }
                }
            }

            let [
                updates_cap,
                numbers_cap,
                orders_cap,
                fences_cap,
                dead_letters_cap,
                ranges_cap,
                marks_cap,
            ] = &held[..]
            else {
                unreachable!("a capability for each of the seven outputs")
            };
            out.updates
                .send_parcels(&mut updates_out.activate(), updates_cap);
            out.numbers
                .send_parcels(&mut numbers_out.activate(), numbers_cap);
            out.orders.send(&mut orders_out.activate(), orders_cap);
            out.fences.send(&mut fences_out.activate(), fences_cap);
            out.dead_letters
                .send(&mut dead_letters_out.activate(), dead_letters_cap);
            out.ranges.send(&mut ranges_out.activate(), ranges_cap);
            if let Some(mark) = (context.wanted)() {
                out.marks.push(Epoch(*marks_cap.time()), mark);
                out.marks.send(&mut marks_out.activate(), marks_cap);
            }

            // A worker without partitions, or that has read again all it was to, holds nothing
            // back.
            let unfinished = feeds.iter().flat_map(FeedState::floors);
            match unfinished.min() {
                None => capabilities = None,
                Some(floor) => {
                    for capability in held.iter_mut().filter(|held| *held.time() < floor.0) {
                        capability.downgrade(&floor.0);
                    }
                    if polled > 0 {
                        activator.activate();
                    } else {
                        activator.activate_after(IDLE);
                    }
                }
            }
        }
    });

    Decoded {
        updates,
        numbers,
        orders,
        fences,
        dead_letters,
        ranges,
        marks,
    }
}

struct FeedState<R> {
    input: Input,
    reader: R,
    partitions: Vec<PartitionState>,
    /// The wall clock at the last activation.
    polled_ms: Option<TimeMs>,
    /// Room for the partitions that may be read, the one furthest behind first.
    queue: BinaryHeap<Reverse<(Epoch, TimeMs, usize)>>,
}

impl<R: RecordReader> FeedState<R> {
    fn new(feed: Feed<R>) -> Self {
        let partitions = feed.partitions.into_iter();
        Self {
            input: feed.input,
            reader: feed.reader,
            partitions: partitions
                .map(|(partition, clock)| PartitionState::new(partition, clock))
                .collect(),
            polled_ms: None,
            queue: BinaryHeap::new(),
        }
    }

    /// Of the partitions of which something may still come.
    fn floors(&self) -> impl Iterator<Item = Epoch> + '_ {
        let clocks = self.partitions.iter().map(|state| &state.clock);
        clocks
            .filter(|clock| !clock.is_finished())
            .map(PartitionClock::floor)
    }

    fn poll(
        &mut self,
        out: &mut Outboxes,
        frontier: Option<u64>,
        wall_ms: TimeMs,
        context: &Context,
    ) -> Result<usize, R::Error> {
        let last_ms = self.polled_ms.replace(wall_ms).unwrap_or(wall_ms);
        for (at, state) in self.partitions.iter_mut().enumerate() {
            state.follow_frontier(frontier);
            if state.drained_ms == 0 {
                state.drained_ms = wall_ms;
            }
            if wall_ms - last_ms > HELD_UP_MS {
                state.forget_end();
            }
            if state.may_be_read(frontier) {
                let (floor, latest_ms) = state.progress();
                self.queue.push(Reverse((floor, latest_ms, at)));
            }
        }

        let input = self.input;
        let (mut polled, mut records) = (0, 0);
        while polled < BATCH
            && let Some(Reverse((_, _, at))) = self.queue.pop()
        {
            let state = &mut self.partitions[at];
            let most = TURN.min(BATCH - polled);
            let taken = self
                .reader
                .poll(state.partition, most, &mut |polled| match polled {
                    Polled::Record(record) => {
                        records += u64::from(state.take(&record, wall_ms, out, context));
                    }
                    Polled::End => {
                        // It lay in the queue since after the last poll that emptied it.
                        state.end_forgotten = false;
                        state.clock.reached_end(state.drained_ms);
                    }
                })?;
            polled += taken;
            if taken < most {
                state.drained_ms = wall_ms;
                // Only now, since asking throws away what waits.
                if state.should_ask_for_end(wall_ms) {
                    state.end_asked_ms = wall_ms;
                    self.reader.ask_for_end(state.partition)?;
                }
            } else if state.may_be_read(frontier) {
                let (floor, latest_ms) = state.progress();
                self.queue.push(Reverse((floor, latest_ms, at)));
            }
        }
        self.queue.clear();
        // After the ends that were read, which may be older.
        if self.reader.was_disturbed()? {
            self.partitions
                .iter_mut()
                .for_each(PartitionState::forget_end);
        }

        for state in &mut self.partitions {
            state.finish_range(input, &mut out.ranges);
            state.clock.follow(wall_ms);
        }
        context.metrics.records_read.add(input, records);
        Ok(polled)
    }
}

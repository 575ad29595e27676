//! All that an epoch told, on one worker, in telling order, handed on when it is whole.

use std::collections::BTreeMap;
use std::rc::Rc;

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::{Context, EpochOutput, Output, frontier_of};
use crate::epoch::OffsetRange;
use crate::model::{DeadLetter, Epoch, Event, Input};
use crate::snapshot::Mark;

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    dead_letters: Vec<DeadLetter>,
    ranges: BTreeMap<(Input, i32), OffsetRange>,
    mark: Option<Mark>,
}

pub(super) fn collect_epoch<'scope>(
    events: StreamVec<'scope, u64, Event>,
    dead_letters: StreamVec<'scope, u64, DeadLetter>,
    ranges: StreamVec<'scope, u64, OffsetRange>,
    marks: StreamVec<'scope, u64, Mark>,
    forwarded: Option<StreamVec<'scope, u64, Output>>,
    context: Rc<Context>,
) {
    let mut builder = OperatorBuilder::new("collect_epoch".to_owned(), events.scope());
    let mut events = builder.new_input(events, Exchange::new(|_: &Event| 0));
    let mut dead_letters = builder.new_input(dead_letters, Exchange::new(|_: &DeadLetter| 0));
    let mut ranges = builder.new_input(ranges, Exchange::new(|_: &OffsetRange| 0));
    let mut marks = builder.new_input(marks, Exchange::new(|_: &Mark| 0));
    let mut forwarded =
        forwarded.map(|forwarded| builder.new_input(forwarded, Exchange::new(|_: &Output| 0)));

    builder.build(move |_capabilities| {
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        move |frontiers| {
            events.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    waiting.entry(*epoch).or_default().events.append(data);
                }
            });
            dead_letters.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    waiting.entry(*epoch).or_default().dead_letters.append(data);
                }
            });
            ranges.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    let ranges = &mut waiting.entry(*epoch).or_default().ranges;
                    for range in data.drain(..) {
                        let whole = ranges
                            .entry((range.input, range.partition))
                            .or_insert(range);
                        whole.first = whole.first.min(range.first);
                        whole.next = whole.next.max(range.next);
                        whole.latest_ms = whole.latest_ms.max(range.latest_ms);
                    }
                }
            });

            marks.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    waiting.entry(*epoch).or_default().mark = data.drain(..).next();
                }
            });
            if let Some(forwarded) = &mut forwarded {
                forwarded.for_each(|_, data| data.drain(..).for_each(|rows| context.give(rows)));
            }

            let complete = frontiers.iter().filter_map(frontier_of).min();
            while let Some(entry) = waiting.first_entry()
                && complete.is_none_or(|frontier| *entry.key() < frontier)
            {
                let (epoch, mut whole) = entry.remove_entry();
                whole
                    .events
                    .sort_by(|a, b| a.telling_order().cmp(&b.telling_order()));
                whole.dead_letters.sort_by_key(|letter| letter.place);
                context.give(Output::Epoch(EpochOutput {
                    epoch: Epoch(epoch),
                    events: whole.events,
                    dead_letters: whole.dead_letters,
                    ranges: whole.ranges.into_values().collect(),
                    mark: whole.mark,
                }));
            }
        }
    });
}

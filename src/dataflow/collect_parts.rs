//! The parts of a snapshot, on one worker, handed on when it is whole; and how far windows are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::{Context, Output, frontier_of};
use crate::model::Epoch;
use crate::snapshot::{Kind, Part};

/// One part of each kind and key group.
type Gathered = BTreeMap<(Kind, u16), Part>;

/// Cells of one key group come from several workers.
fn add(parts: &mut Gathered, part: Part) {
    match parts.entry((part.kind, part.group)) {
        Entry::Vacant(entry) => {
            entry.insert(part);
        }
        Entry::Occupied(mut entry) => {
            let known = entry.get_mut();
            known.whole |= part.whole;
            known.bytes.extend(part.bytes);
        }
    }
}

/// `parts` are those of all operators, so that its frontier is theirs; `forwarded` are the
/// windows of other processes.
pub(super) fn collect_parts<'scope>(
    parts: StreamVec<'scope, u64, Part>,
    forwarded: Option<StreamVec<'scope, u64, Output>>,
    context: Rc<Context>,
) {
    let mut builder = OperatorBuilder::new("collect_parts".to_owned(), parts.scope());
    let index = parts.scope().index();
    let mut parts = builder.new_input(parts, Exchange::new(|_: &Part| 0));
    let mut forwarded =
        forwarded.map(|forwarded| builder.new_input(forwarded, Exchange::new(|_: &Output| 0)));

    builder.build(move |_capabilities| {
        let mut waiting: BTreeMap<u64, Gathered> = BTreeMap::new();
        let mut settled = 0;
        move |frontiers| {
            parts.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    let parts = waiting.entry(*epoch).or_default();
                    data.drain(..).for_each(|part| add(parts, part));
                }
            });
            if let Some(forwarded) = &mut forwarded {
                forwarded.for_each(|_, data| data.drain(..).for_each(|rows| context.give(rows)));
            }
            let complete = frontiers.iter().filter_map(frontier_of).min();
            while let Some(entry) = waiting.first_entry()
                && complete.is_none_or(|frontier| *entry.key() < frontier)
            {
                let (epoch, parts) = entry.remove_entry();
                let epoch = Epoch(epoch);
                let parts = parts.into_values().collect();
                context.give(Output::Snapshot { epoch, parts });
            }
            if let Some(complete) = complete
                && index == 0
                && complete > settled
            {
                settled = complete;
                context.give(Output::Settled {
                    through: Epoch(complete - 1),
                });
            }
        }
    });
}

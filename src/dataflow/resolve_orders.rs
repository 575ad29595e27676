//! Orders become, for each driver concerned, one step that the driver's worker must know.
//!
//! Exchanged by order, so that all versions of an order meet on one worker, in their order.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use super::frontier_of;
use crate::detect::{OrderBook, OrderStep};
use crate::epoch::key_group;
use crate::model::OrderChange;

pub(super) fn resolve_orders<'scope>(
    orders: StreamVec<'scope, u64, OrderChange>,
) -> StreamVec<'scope, u64, OrderStep> {
    let by_order = Exchange::new(|change: &OrderChange| key_group(change.id.0.as_bytes()));
    orders.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
        by_order,
        "resolve_orders",
        |_capability, _info| {
            let mut book = OrderBook::default();
            let mut waiting = BTreeMap::new();
            let mut steps = Vec::new();
            move |(input, frontier), output| {
                input.for_each(|capability, changes| {
                    if let Some(capability) = capability.retain_least(output.output_index()) {
                        waiting
                            .entry(*capability.time())
                            .or_insert_with(|| (capability, Vec::new()))
                            .1
                            .append(changes);
                    }
                });
                let complete = frontier_of(frontier);
                while let Some(entry) = waiting.first_entry()
                    && complete.is_none_or(|frontier| *entry.key() < frontier)
                {
                    let (capability, mut changes) = entry.remove();
                    changes.sort_unstable_by_key(|change| change.place);
                    for change in changes {
                        book.apply(change, &mut steps);
                    }
                    output.session(&capability).give_container(&mut steps);
                    steps.clear();
                }
            }
        },
    )
}

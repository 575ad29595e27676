//! Orders become, for each driver concerned, one step that the driver's worker must know.
//!
//! Exchanged by order, so that all versions of an order meet on one worker, in their order.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::frontier_of;
use super::marks::{Marks, end_of};
use crate::detect::{OrderBook, OrderState, OrderStep};
use crate::epoch::key_group;
use crate::model::{OrderChange, OrderId};
use crate::snapshot::{Kind, Mark, Part, Parts};

fn group_of(id: &OrderId) -> u64 {
    key_group(id.0.as_bytes())
}

/// What an epoch has received so far.
#[derive(Default)]
struct Waiting {
    changes: Vec<OrderChange>,
    capability: Option<Capability<u64>>,
}

/// `restored` are the orders of this worker's key groups.
pub(super) fn resolve_orders<'scope>(
    orders: StreamVec<'scope, u64, OrderChange>,
    marks: StreamVec<'scope, u64, Mark>,
    restored: Vec<OrderState>,
) -> (
    StreamVec<'scope, u64, OrderStep>,
    StreamVec<'scope, u64, Part>,
) {
    let mut builder = OperatorBuilder::new("resolve_orders".to_owned(), orders.scope());
    let (index, peers) = (orders.scope().index() as u64, orders.scope().peers() as u64);
    let by_order = Exchange::new(|change: &OrderChange| group_of(&change.id));
    let mut orders = builder.new_input(orders, by_order);
    let mut marks = builder.new_input(marks, Pipeline);
    let (steps_out, steps) = builder.new_output();
    let mut steps_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(steps_out);
    let (parts_out, parts) = builder.new_output();
    let mut parts_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(parts_out);

    builder.build(move |_capabilities| {
        let mut book = OrderBook::default();
        restored.into_iter().for_each(|order| book.import(order));
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        let mut waiting_marks = Marks::default();
        let mut told = Vec::new();
        move |frontiers| {
            orders.for_each(|capability, data| {
                if let Some(capability) = capability.retain_least(0) {
                    let entry = waiting.entry(*capability.time()).or_default();
                    entry.changes.append(data);
                    entry.capability.get_or_insert(capability);
                }
            });
            marks.for_each(|capability, data| waiting_marks.take(&capability, 1, data));
            let complete = frontiers.iter().filter_map(frontier_of).min();
            loop {
                let mark = waiting_marks.next(complete);
                let end = end_of(&mark, complete);
                while let Some(entry) = waiting.first_entry()
                    && end.is_none_or(|end| *entry.key() < end)
                {
                    let mut received = entry.remove();
                    received.changes.sort_unstable_by_key(|change| change.place);
                    for change in received.changes {
                        book.apply(change, &mut told);
                    }
                    if let Some(capability) = received.capability {
                        steps_out
                            .activate()
                            .session(&capability)
                            .give_container(&mut told);
                        told.clear();
                    }
                }
                let Some((capability, mark)) = mark else {
                    return;
                };
                let mut parts = Parts::new(Kind::Orders, mark);
                book.export(
                    |id| mark.is_whole(group_of(id)),
                    |order| parts.add(group_of(order.order()), order),
                );
                let mut parts = parts.finish(|group| group % peers == index);
                parts_out
                    .activate()
                    .session(&capability)
                    .give_container(&mut parts);
            }
        }
    });
    (steps, parts)
}

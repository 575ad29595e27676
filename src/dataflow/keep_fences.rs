//! All fences in force, as a snapshot has them.
//!
//! Every worker judges by all fences; this keeps each of them once, by fence id.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::frontier_of;
use super::marks::{Marks, end_of};
use crate::epoch::key_group;
use crate::model::{Fence, FenceChange, FenceId};
use crate::snapshot::{Kind, Mark, Part, Parts};

/// An entry of a snapshot: a fence, or that it was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FenceState {
    pub(super) id: FenceId,
    pub(super) fence: Option<Fence>,
}

/// A [`FenceState`] as it is written: the same bytes, without a copy of the fence.
#[derive(Serialize)]
struct FenceEntry<'a> {
    id: &'a FenceId,
    fence: Option<&'a Fence>,
}

fn group_of(id: &FenceId) -> u64 {
    key_group(id.0.as_bytes())
}

/// Fences by id, and what has changed since they were exported.
#[derive(Default)]
struct Kept {
    fences: HashMap<FenceId, Fence>,
    changed: HashSet<FenceId>,
}

impl Kept {
    fn put(&mut self, id: FenceId, fence: Option<Fence>) {
        match fence {
            Some(fence) => self.fences.insert(id.clone(), fence),
            None => self.fences.remove(&id),
        };
        self.changed.insert(id);
    }

    fn export(&mut self, mark: Mark, owned: impl Fn(u64) -> bool) -> Vec<Part> {
        let mut parts = Parts::new(Kind::Fences, mark);
        for id in self.changed.drain() {
            let group = group_of(&id);
            if !mark.is_whole(group) {
                let fence = self.fences.get(&id);
                parts.add(group, &FenceEntry { id: &id, fence });
            }
        }
        for (id, fence) in &self.fences {
            let group = group_of(id);
            if mark.is_whole(group) {
                let fence = Some(fence);
                parts.add(group, &FenceEntry { id, fence });
            }
        }
        parts.finish(owned)
    }
}

/// `restored` are the fences of this worker's key groups.
pub(super) fn keep_fences<'scope>(
    fences: StreamVec<'scope, u64, FenceChange>,
    marks: StreamVec<'scope, u64, Mark>,
    restored: Vec<FenceState>,
) -> StreamVec<'scope, u64, Part> {
    let mut builder = OperatorBuilder::new("keep_fences".to_owned(), fences.scope());
    let (index, peers) = (fences.scope().index() as u64, fences.scope().peers() as u64);
    let by_id = Exchange::new(|change: &FenceChange| group_of(&change.id));
    let mut fences = builder.new_input(fences, by_id);
    let mut marks = builder.new_input(marks, Pipeline);
    let (parts_out, parts) = builder.new_output();
    let mut parts_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Part>>>::from(parts_out);

    builder.build(move |_capabilities| {
        let mut kept = Kept::default();
        for FenceState { id, fence } in restored {
            kept.put(id, fence);
        }
        kept.changed.clear();
        let mut waiting: BTreeMap<u64, Vec<FenceChange>> = BTreeMap::new();
        let mut waiting_marks = Marks::default();
        move |frontiers| {
            fences.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    waiting.entry(*epoch).or_default().append(data);
                }
            });
            marks.for_each(|capability, data| waiting_marks.take(&capability, 0, data));
            let complete = frontiers.iter().filter_map(frontier_of).min();
            loop {
                let mark = waiting_marks.next(complete);
                let end = end_of(&mark, complete);
                while let Some(entry) = waiting.first_entry()
                    && end.is_none_or(|end| *entry.key() < end)
                {
                    let mut changes = entry.remove();
                    changes.sort_unstable_by_key(|change| change.place);
                    for change in changes {
                        kept.put(change.id, change.fence);
                    }
                }
                let Some((capability, mark)) = mark else {
                    return;
                };
                let mut parts = kept.export(mark, |group| group % peers == index);
                parts_out
                    .activate()
                    .session(&capability)
                    .give_container(&mut parts);
            }
        }
    });
    parts
}

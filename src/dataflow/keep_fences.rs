//! All fences in force, as a snapshot has them.
//!
//! Every worker judges by all fences; this keeps each of them once, by fence id.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::frontier_of;
use crate::epoch::key_group;
use crate::model::{Fence, FenceChange, FenceId};
use crate::snapshot::{Kind, Mark, Part, Parts};

/// An entry of a snapshot: a fence, or that it was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FenceState {
    pub(super) id: FenceId,
    pub(super) fence: Option<Fence>,
}

fn group_of(id: &FenceId) -> u64 {
    key_group(id.0.as_bytes())
}

/// What an epoch has received so far.
#[derive(Default)]
struct Waiting {
    changes: Vec<FenceChange>,
    mark: Option<(Mark, Capability<u64>)>,
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
                let fence = self.fences.get(&id).cloned();
                parts.add(group, &FenceState { id, fence });
            }
        }
        for (id, fence) in &self.fences {
            let group = group_of(id);
            if mark.is_whole(group) {
                let (id, fence) = (id.clone(), Some(fence.clone()));
                parts.add(group, &FenceState { id, fence });
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
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        move |frontiers| {
            fences.for_each(|capability, data| {
                if let Some(epoch) = capability.least() {
                    waiting.entry(*epoch).or_default().changes.append(data);
                }
            });
            marks.for_each(|capability, data| {
                if let (Some(mark), Some(capability)) = (data.pop(), capability.retain_least(0)) {
                    let entry = waiting.entry(*capability.time()).or_default();
                    entry.mark = Some((mark, capability));
                }
            });
            let complete = frontiers.iter().filter_map(frontier_of).min();
            while let Some(entry) = waiting.first_entry()
                && complete.is_none_or(|frontier| *entry.key() < frontier)
            {
                let mut received = entry.remove();
                received.changes.sort_unstable_by_key(|change| change.place);
                for change in received.changes {
                    kept.put(change.id, change.fence);
                }
                if let Some((mark, capability)) = received.mark {
                    let mut parts = kept.export(mark, |group| group % peers == index);
                    parts_out
                        .activate()
                        .session(&capability)
                        .give_container(&mut parts);
                }
            }
        }
    });
    parts
}

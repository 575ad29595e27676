//! The marks at which an operator's state goes into a snapshot, as they wait for their epochs.

use std::collections::BTreeMap;

use timely::dataflow::operators::{Capability, InputCapability};

use crate::snapshot::Mark;

/// Marks that have come, by epoch, each with the right to tell of it.
#[derive(Default)]
pub(super) struct Marks(BTreeMap<u64, (Capability<u64>, Mark)>);

impl Marks {
    /// Takes marks in; their parts leave by an output of that index.
    pub(super) fn take(
        &mut self,
        capability: &InputCapability<u64>,
        output: usize,
        marks: &mut Vec<Mark>,
    ) {
        for mark in marks.drain(..) {
            if let Some(capability) = capability.retain_least(output) {
                self.0.insert(*capability.time(), (capability, mark));
            }
        }
    }

    /// The epoch of the oldest mark.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|(epoch, _)| *epoch)
    }

    /// The oldest mark, if its epoch is before `complete`; `None` is after all epochs.
    pub(super) fn next(&mut self, complete: Option<u64>) -> Option<(Capability<u64>, Mark)> {
        let entry = self.0.first_entry()?;
        let is_complete = complete.is_none_or(|complete| *entry.key() < complete);
        is_complete.then(|| entry.remove())
    }
}

/// The end of the epochs that an operator may judge before it exports its state for a mark, or
/// of all that are complete.
pub(super) fn end_of(mark: &Option<(Capability<u64>, Mark)>, complete: Option<u64>) -> Option<u64> {
    match mark {
        Some((capability, _)) => Some(*capability.time() + 1),
        None => complete,
    }
}

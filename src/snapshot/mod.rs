//! Snapshots: the state after an epoch, in parts, from which a start goes on.
//!
//! Owns the format (versioned, with a checksum on every part) and where snapshots are kept (a
//! folder or an object store). What a part holds is for whoever made it: bytes come in, bytes
//! go out. Never decides when a snapshot is taken or which one holds: that the epoch log says.
//!
//! A key group's state is the group's last *whole* part and what changed after it. Each
//! snapshot brings a [`ROUND`]th of the groups whole, so a start reads at most as many.

mod error;
mod file;
mod manifest;
mod objects;
mod store;
#[cfg(test)]
mod tests;

pub use error::SnapshotError;
pub use file::{Loaded, LoadedPart};
pub use manifest::{Manifest, Taken};
pub use store::Store;

use serde::{Deserialize, Serialize};

use crate::epoch::KEY_GROUPS;

/// Every key group is whole in one of so many snapshots in a row.
pub const ROUND: u64 = 32;

/// What a part is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Fences, by fence id.
    Fences,
    /// Orders, by order id.
    Orders,
    /// Drivers as detection knows them, by driver id.
    Drivers,
    /// Drivers' ways and sessions as windows know them, by driver id.
    Trails,
    /// Traffic of cells, by a window's start.
    Cells,
    /// The sessions of drivers whose updates bear numbers, by driver id; since format 2.
    Sessions,
}

/// The state of one kind in one key group, or what of it has changed since the snapshot before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is of.
    pub kind: Kind,
    /// The key group, below [`KEY_GROUPS`].
    pub group: u16,
    /// Whether it is all of the group, so that no earlier part counts.
    pub whole: bool,
    /// Entries, one after the other, as [`Parts`] wrote them.
    pub bytes: Vec<u8>,
}

/// The wish for a snapshot, as it flows through the dataflow at the epoch that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How many snapshots came before, in all.
    pub sequence: u64,
    /// All groups whole: what came before is not to be relied on.
    pub whole: bool,
}

impl Mark {
    /// Whether this snapshot has all of a group.
    pub fn is_whole(&self, group: u64) -> bool {
        self.whole || group % ROUND == self.sequence % ROUND
    }
}

/// Parts in the making: one operator's, of one kind.
pub struct Parts {
    kind: Kind,
    mark: Mark,
    groups: Vec<Vec<u8>>,
}

impl Parts {
    /// No entries yet.
    pub fn new(kind: Kind, mark: Mark) -> Self {
        let groups = vec![Vec::new(); KEY_GROUPS as usize];
        Self { kind, mark, groups }
    }

    /// Adds an entry to a group.
    pub fn add(&mut self, group: u64, entry: &impl Serialize) {
        let bytes = std::mem::take(&mut self.groups[group as usize]);
        self.groups[group as usize] =
            postcard::to_extend(entry, bytes).expect("state is made of plain data");
    }

    /// The parts: for each group `owned` one if it has entries or is whole.
    pub fn finish(self, owned: impl Fn(u64) -> bool) -> Vec<Part> {
        let Self { kind, mark, groups } = self;
        let groups = (0..).zip(groups);
        groups
            .map(|(group, bytes)| (mark.is_whole(group), group, bytes))
            .filter(|(whole, group, bytes)| (*whole && owned(*group)) || !bytes.is_empty())
            .map(|(whole, group, bytes)| Part {
                kind,
                group: group as u16,
                whole,
                bytes,
            })
            .collect()
    }
}

impl Part {
    /// Reads the entries back, in the order in which they were added.
    ///
    /// # Errors
    /// When the bytes are not what [`Parts::add`] wrote for this type.
    pub fn entries<T: for<'de> Deserialize<'de>>(
        &self,
        visit: impl FnMut(T),
    ) -> Result<(), postcard::Error> {
        visit_entries(&self.bytes, visit)
    }
}

fn visit_entries<T: for<'de> Deserialize<'de>>(
    mut rest: &[u8],
    mut visit: impl FnMut(T),
) -> Result<(), postcard::Error> {
    while !rest.is_empty() {
        let (entry, after) = postcard::take_from_bytes(rest)?;
        visit(entry);
        rest = after;
    }
    Ok(())
}

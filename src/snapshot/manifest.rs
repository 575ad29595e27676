//! The manifest: what a snapshot is of, and which files it takes to read it.
//!
//! Promises that a manifest that decodes is the one that was encoded, to the bit, and that its
//! files hold every key group's last whole part and all that came after it.
//!
//! On disk it is JSON, `{"format":2,"checksum":…,"snapshot":{…}}`. The outer object keeps this
//! shape in every format, so that each build can tell a newer format from damage: the checksum
//! is XXH3-64 of the text of `snapshot`, with the format as seed.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use super::{Kind, Mark, Part, SnapshotError};
use crate::epoch::{KEY_GROUPS, Position, Positions, SnapshotId};
use crate::model::{Input, TimeMs};

/// The format that this build writes, of manifests and of state files. It reads all up to it.
///
/// - 1: the first.
/// - 2: has [`Kind::Sessions`]; else as 1, so a chain may begin with files of format 1. What is
///   read from format 1 knows no session: an update that was sent before is taken once more.
pub(super) const FORMAT: u32 = 2;

/// Which snapshot is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub id: SnapshotId,
    /// As in [`Mark::sequence`].
    pub sequence: u64,
    /// Milliseconds of merge time in an epoch.
    pub interval_ms: u64,
    /// How far the inputs were read by the snapshot's epoch, that epoch included.
    pub positions: Positions,
    /// What the shape of trails and cells depends on, for whoever made them.
    pub windows: String,
}

/// What a snapshot is of, and which files it takes to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name.
    pub id: SnapshotId,
    /// As in [`Mark::sequence`].
    pub sequence: u64,
    /// When it was written, by this machine's clock.
    pub taken_at_ms: TimeMs,
    /// Milliseconds of merge time in an epoch.
    pub interval_ms: u64,
    /// The version of riderflow that wrote it.
    pub version: String,
    /// The size of its own state file, bytes.
    pub bytes: u64,
    /// The size of all state files that it takes, bytes.
    pub chain_bytes: u64,
    /// How far the inputs were read by the snapshot's epoch, that epoch included.
    #[serde(with = "rows")]
    pub positions: Positions,
    /// What the shape of trails and cells depends on, for whoever made them.
    #[serde(default)]
    pub windows: String,
    /// The state files, oldest first; the last is its own.
    pub(super) chain: Vec<ChainFile>,
    /// By kind and key group, the [`ChainFile::sequence`] from which on it is to be read:
    /// where it was last whole, or first had anything. `None`: it is empty.
    pub(super) bases: BTreeMap<Kind, Vec<Option<u64>>>,
}

/// A state file of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChainFile {
    /// Whose it is.
    pub(super) id: SnapshotId,
    /// That snapshot's sequence.
    pub(super) sequence: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// As in its last bytes.
    pub(super) checksum: u64,
}

/// The outer object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    format: u32,
    checksum: u64,
    #[serde(borrow)]
    snapshot: &'a RawValue,
}

impl Envelope<'_> {
    fn checksum_of(format: u32, text: &str) -> u64 {
        XxHash3_64::oneshot_with_seed(u64::from(format), text.as_bytes())
    }
}

impl Manifest {
    /// The manifest of what `parts` and the chain of `before` make. The state file's own entry
    /// is still without size and checksum: [`Self::complete`] adds them.
    ///
    /// # Errors
    /// [`SnapshotError::Unsound`] when that is not all of the state.
    pub(super) fn after(
        taken: &Taken,
        before: Option<&Self>,
        parts: &[Part],
        taken_at_ms: TimeMs,
    ) -> Result<Self, SnapshotError> {
        let Taken { id, sequence, .. } = *taken;
        let unsound = |reason: String| SnapshotError::Unsound { id, reason };
        if let Some(before) = before
            && before.sequence + 1 != sequence
        {
            let reason = format!(
                "its sequence is {sequence}, and that of the snapshot before is {}",
                before.sequence
            );
            return Err(unsound(reason));
        }
        let mut bases = before.map_or_else(BTreeMap::new, |before| before.bases.clone());
        let mut brought: BTreeMap<Kind, Vec<bool>> = BTreeMap::new();
        for part in parts {
            let Part { kind, group, .. } = *part;
            let (whole, index) = (part.whole, usize::from(group));
            if u64::from(group) >= KEY_GROUPS {
                return Err(unsound(format!("{kind:?} has a key group {group}")));
            }
            let none = || vec![None; KEY_GROUPS as usize];
            let base = &mut bases.entry(kind).or_insert_with(none)[index];
            if whole || base.is_none() {
                *base = Some(sequence);
            }
            let none = || vec![false; KEY_GROUPS as usize];
            let seen = &mut brought.entry(kind).or_insert_with(none)[index];
            if std::mem::replace(seen, true) {
                return Err(unsound(format!("{kind:?} has key group {group} twice")));
            }
        }
        // A group whose turn passes without a whole part was lost on the way here.
        let mark = Mark {
            sequence,
            whole: before.is_none(),
        };
        for (kind, groups) in &bases {
            for (group, base) in (0..).zip(groups) {
                let kept = base.is_some_and(|base| base < sequence);
                if kept && mark.is_whole(group) {
                    let reason = format!("{kind:?} lacks key group {group}, due to be whole");
                    return Err(unsound(reason));
                }
            }
        }
        let oldest = bases.values().flatten().flatten().min().copied();
        let oldest = oldest.unwrap_or(sequence);
        let older = before.map_or(&[][..], |before| &before.chain);
        let mut chain: Vec<ChainFile> = older
            .iter()
            .filter(|file| file.sequence >= oldest)
            .cloned()
            .collect();
        chain.push(ChainFile {
            id,
            sequence,
            bytes: 0,
            checksum: 0,
        });
        Ok(Self {
            id,
            sequence,
            taken_at_ms,
            interval_ms: taken.interval_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bytes: 0,
            chain_bytes: 0,
            positions: taken.positions.clone(),
            windows: taken.windows.clone(),
            chain,
            bases,
        })
    }

    /// Adds what is known once the state file has been made.
    pub(super) fn complete(&mut self, bytes: u64, checksum: u64) {
        let own = self.chain.last_mut().expect("a chain ends in its own file");
        own.bytes = bytes;
        own.checksum = checksum;
        self.bytes = bytes;
        self.chain_bytes = self.chain.iter().map(|file| file.bytes).sum();
    }

    /// The snapshots whose state files it takes, oldest first; the last is its own.
    pub fn files(&self) -> impl Iterator<Item = SnapshotId> {
        self.chain.iter().map(|file| file.id)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let text = serde_json::to_string(self).expect("a manifest is made of plain data");
        enveloped(FORMAT, &text)
    }

    /// Reads what [`Self::encode`] wrote for the snapshot `id`; `place` is for messages.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] and [`SnapshotError::Newer`].
    pub(super) fn decode(bytes: &[u8], id: SnapshotId, place: &str) -> Result<Self, SnapshotError> {
        let damaged = |reason: String| SnapshotError::Damaged {
            place: place.to_owned(),
            reason,
        };
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)
            .map_err(|error| damaged(format!("it is no manifest ({error})")))?;
        let text = envelope.snapshot.get();
        if Envelope::checksum_of(envelope.format, text) != envelope.checksum
            || enveloped(envelope.format, text) != bytes
        {
            return Err(damaged("its checksum is another".into()));
        }
        if envelope.format > FORMAT {
            /// All that is asked of a newer format.
            #[derive(Deserialize)]
            struct Any {
                version: Option<String>,
            }
            let version = serde_json::from_str(text)
                .ok()
                .and_then(|any: Any| any.version);
            return Err(SnapshotError::Newer {
                place: place.to_owned(),
                format: envelope.format,
                version: version.unwrap_or_else(|| "(unknown)".into()),
            });
        }
        let manifest: Self = serde_json::from_str(text)
            .map_err(|error| damaged(format!("its content is not of its format ({error})")))?;
        if manifest.id != id {
            return Err(damaged(format!("it is that of {}", manifest.id)));
        }
        if manifest.chain.last().is_none_or(|own| own.id != id) {
            return Err(damaged("it names no state file of its own".into()));
        }
        Ok(manifest)
    }
}

fn enveloped(format: u32, text: &str) -> Vec<u8> {
    let checksum = Envelope::checksum_of(format, text);
    let mut bytes =
        format!(r#"{{"format":{format},"checksum":{checksum},"snapshot":"#).into_bytes();
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'}');
    bytes
}

/// [`Positions`] as a list of rows: JSON has no pairs for keys.
mod rows {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        input: Input,
        partition: i32,
        next: i64,
        latest_ms: TimeMs,
    }

    pub(super) fn serialize<S: Serializer>(
        positions: &Positions,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(positions.iter().map(|(&(input, partition), at)| Row {
            input,
            partition,
            next: at.next,
            latest_ms: at.latest_ms,
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Positions, D::Error> {
        let rows = Vec::<Row>::deserialize(deserializer)?;
        let position = |row: Row| {
            let Row {
                next, latest_ms, ..
            } = row;
            ((row.input, row.partition), Position { next, latest_ms })
        };
        Ok(rows.into_iter().map(position).collect())
    }
}

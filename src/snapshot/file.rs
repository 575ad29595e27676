//! The state file: a snapshot's parts, one after the other, and an index of them.
//!
//! ```text
//! "RFSTATE\0" | format, u32 | parts' bytes … | index | index length, u64 | checksum, u64
//! ```
//!
//! Numbers are little-endian. The index is postcard: of each part its kind, group, whether it is
//! whole, length and checksum. The parts lie in the index's order without gaps. The checksum at
//! the end is over all but the parts' bytes, which have their own in the index; so each byte is
//! under exactly one checksum (XXH3-64), and is hashed once.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::manifest::{ChainFile, FORMAT, Manifest};
use super::{Kind, Part};

const MAGIC: [u8; 8] = *b"RFSTATE\0";
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>();
const TAIL_BYTES: usize = 2 * size_of::<u64>();

#[derive(Serialize, Deserialize)]
struct IndexEntry {
    kind: Kind,
    group: u16,
    whole: bool,
    bytes: u64,
    checksum: u64,
}

/// A state file to be written.
pub(super) struct Encoded {
    /// Its bytes, in pieces.
    pub(super) pieces: Vec<Bytes>,
    /// How many they are.
    pub(super) bytes: u64,
    /// Its last eight.
    pub(super) checksum: u64,
}

/// Makes a state file of parts; their bytes are not copied.
pub(super) fn encode(parts: Vec<Part>) -> Encoded {
    let mut head = MAGIC.to_vec();
    head.extend(FORMAT.to_le_bytes());
    let index: Vec<_> = parts
        .iter()
        .map(|part| IndexEntry {
            kind: part.kind,
            group: part.group,
            whole: part.whole,
            bytes: part.bytes.len() as u64,
            checksum: XxHash3_64::oneshot(&part.bytes),
        })
        .collect();
    let mut tail = postcard::to_stdvec(&index).expect("an index is made of plain data");
    tail.extend((tail.len() as u64).to_le_bytes());
    let checksum = checksum_of(&head, &tail);
    tail.extend(checksum.to_le_bytes());
    let parts = parts.into_iter().map(|part| Bytes::from(part.bytes));
    let pieces: Vec<Bytes> = std::iter::once(Bytes::from(head))
        .chain(parts.filter(|bytes| !bytes.is_empty()))
        .chain([Bytes::from(tail)])
        .collect();
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
    Encoded {
        pieces,
        bytes,
        checksum,
    }
}

/// Over all but the parts' bytes.
fn checksum_of(head: &[u8], tail: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(head), tail)
}

/// The state of a snapshot as read from the store: parts, which share the files' memory.
pub struct Loaded {
    parts: BTreeMap<(Kind, u16), Vec<Slice>>,
}

struct Slice {
    /// Its file's place in the sequence.
    sequence: u64,
    whole: bool,
    bytes: Bytes,
}

/// A [`Part`] that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedPart<'a> {
    /// What it is of.
    pub kind: Kind,
    /// The key group.
    pub group: u16,
    /// Whether it is all of the group.
    pub whole: bool,
    /// Entries, one after the other.
    pub bytes: &'a [u8],
}

impl LoadedPart<'_> {
    /// As [`Part::entries`].
    ///
    /// # Errors
    /// When the bytes are not what [`super::Parts::add`] wrote for this type.
    pub fn entries<T: for<'de> Deserialize<'de>>(
        &self,
        visit: impl FnMut(T),
    ) -> Result<(), postcard::Error> {
        super::visit_entries(self.bytes, visit)
    }
}

impl Loaded {
    /// The parts of a key group to be applied, in this order. The first is all of the group as
    /// of then (whole, or the first ever); an empty group has none, or only empty ones.
    pub fn parts(&self, kind: Kind, group: u64) -> impl Iterator<Item = LoadedPart<'_>> {
        let group = u16::try_from(group).unwrap_or(u16::MAX);
        let slices = self.parts.get(&(kind, group));
        slices.into_iter().flatten().map(move |slice| LoadedPart {
            kind,
            group,
            whole: slice.whole,
            bytes: &slice.bytes,
        })
    }

    pub(super) fn new() -> Self {
        Self {
            parts: BTreeMap::new(),
        }
    }

    /// Adds the next file of the chain, with all of it verified.
    ///
    /// # Errors
    /// In what way it is damaged.
    pub(super) fn add(&mut self, file: &ChainFile, bytes: &Bytes) -> Result<(), String> {
        let index = verified_index(file, bytes)?;
        let mut at = HEAD_BYTES;
        for entry in index {
            let part = bytes.slice(at..at + entry.bytes as usize);
            at += part.len();
            let (kind, group) = (entry.kind, entry.group);
            if XxHash3_64::oneshot(&part) != entry.checksum {
                return Err(format!(
                    "the part of {kind:?} in key group {group} has another checksum"
                ));
            }
            let slices = self.parts.entry((kind, group)).or_default();
            if entry.whole {
                slices.clear();
            }
            slices.push(Slice {
                sequence: file.sequence,
                whole: entry.whole,
                bytes: part,
            });
        }
        Ok(())
    }

    /// Whether each key group begins where the manifest says.
    ///
    /// # Errors
    /// Which doesn't.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let begins = |kind: Kind, group: u16| {
            let slices = self.parts.get(&(kind, group));
            slices
                .and_then(|slices| slices.first())
                .map(|slice| slice.sequence)
        };
        for (&kind, groups) in &manifest.bases {
            for (group, base) in (0..).zip(groups) {
                if begins(kind, group) != *base {
                    return Err(format!(
                        "its files lack where key group {group} of {kind:?} begins"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The index, when all but the parts' bytes are as they were written and add up.
fn verified_index(file: &ChainFile, bytes: &Bytes) -> Result<Vec<IndexEntry>, String> {
    let size = bytes.len();
    if size as u64 != file.bytes {
        return Err(format!("it has {size} of {} bytes", file.bytes));
    }
    let other = || "its index has another checksum".to_owned();
    let u64_at = |at: usize| {
        let raw = bytes.get(at..at + size_of::<u64>())?;
        Some(u64::from_le_bytes(raw.try_into().ok()?))
    };
    let end = size
        .checked_sub(TAIL_BYTES)
        .filter(|end| *end >= HEAD_BYTES)
        .ok_or_else(other)?;
    let index_bytes = u64_at(end).ok_or_else(other)?;
    let start = usize::try_from(index_bytes)
        .ok()
        .and_then(|length| end.checked_sub(length))
        .filter(|start| *start >= HEAD_BYTES)
        .ok_or_else(other)?;
    let checksum_at = end + size_of::<u64>();
    let checksum = u64_at(checksum_at).ok_or_else(other)?;
    let computed = checksum_of(&bytes[..HEAD_BYTES], &bytes[start..checksum_at]);
    if computed != checksum || checksum != file.checksum {
        return Err(other());
    }
    if bytes[..MAGIC.len()] != MAGIC {
        return Err("it is no state file".into());
    }
    let index: Vec<IndexEntry> =
        postcard::from_bytes(&bytes[start..end]).map_err(|error| error.to_string())?;
    let sum = index
        .iter()
        .try_fold(0u64, |sum, entry| sum.checked_add(entry.bytes));
    if sum != Some((start - HEAD_BYTES) as u64) {
        return Err("its parts are not as long as its index says".into());
    }
    Ok(index)
}

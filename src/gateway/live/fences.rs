//! The fences, as the operations map draws them.
//!
//! Owns each fence's Feature and which version of the view it is of. A removed one is kept for
//! [`REMOVED_STAYS_MS`], so that streams can tell of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use serde_json::value::RawValue;

use super::bbox::Bbox;
use crate::geo::{Area, LonLatBox};
use crate::model::{FenceChange, TimeMs};
use crate::wire::encode_fence;

/// A removed fence is told of for this long; a stream that has told nothing for longer begins
/// anew.
pub(super) const REMOVED_STAYS_MS: TimeMs = 60_000;

/// One fence, or where one was.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) version: u64,
    /// GeoJSON with its id; `None` once it is removed.
    pub(super) feature: Option<Arc<RawValue>>,
    boxes: Vec<LonLatBox>,
    changed_ms: TimeMs,
}

/// All fences by id.
#[derive(Debug, Default)]
pub(super) struct Fences(BTreeMap<CompactString, Drawn>);

impl Fences {
    pub(super) fn apply(&mut self, change: FenceChange, now_ms: TimeMs, version: u64) {
        let id = change.id.0;
        let drawn = match change.fence {
            // Decoding has held the geometry against the same checks.
            Some(fence) => {
                let feature = feature(&id, &encode_fence(&fence));
                let (Ok(area), Some(feature)) = (Area::new(&fence.geometry), feature) else {
                    return;
                };
                Drawn {
                    version,
                    feature: Some(feature),
                    boxes: area.boxes(),
                    changed_ms: now_ms,
                }
            }
            None => match self.0.remove(&id) {
                // Where it was: streams that showed it must hear of it.
                Some(was) => Drawn {
                    version,
                    feature: None,
                    boxes: was.boxes,
                    changed_ms: now_ms,
                },
                None => return,
            },
        };
        self.0.insert(id, drawn);
    }

    pub(super) fn sweep(&mut self, now_ms: TimeMs) {
        self.0.retain(|_, drawn| {
            drawn.feature.is_some() || now_ms - drawn.changed_ms <= REMOVED_STAYS_MS
        });
    }

    /// Those in a box that have changed since a version, by id.
    pub(super) fn since<'a>(
        &'a self,
        version: u64,
        bbox: &'a Bbox,
    ) -> impl Iterator<Item = (&'a CompactString, &'a Drawn)> {
        self.0.iter().filter(move |(_, drawn)| {
            drawn.version > version && drawn.boxes.iter().any(|b| bbox.overlaps(b))
        })
    }
}

/// A Feature with its id, which on Kafka is the key.
pub(super) fn feature(id: &str, encoded: &[u8]) -> Option<Arc<RawValue>> {
    let rest = std::str::from_utf8(encoded).ok()?.strip_prefix('{')?;
    let id = serde_json::Value::from(id);
    let text = format!("{{\"id\":{id},{rest}");
    RawValue::from_string(text).ok().map(Arc::from)
}

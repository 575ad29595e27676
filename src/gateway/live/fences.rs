//! The fences, as the operations map draws them.
//!
//! Owns each fence's Feature and which version of the view it is of. A removed one is kept for
//! [`REMOVED_STAYS_MS`], and so is where a moved one was, so that streams can tell of it.

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

/// Boxes of where a fence was are this many at most: its last ones.
const FORMER_BOXES: usize = 64;

/// One fence, or where one was.
#[derive(Debug)]
struct Drawn {
    version: u64,
    /// GeoJSON with its id; `None` once it is removed.
    feature: Option<Arc<RawValue>>,
    boxes: Vec<LonLatBox>,
    /// Where it was of late: streams that showed it there must hear of it.
    former: Vec<LonLatBox>,
    changed_ms: TimeMs,
}

impl Drawn {
    fn changed_before(&self, now_ms: TimeMs) -> bool {
        now_ms - self.changed_ms > REMOVED_STAYS_MS
    }
}

/// All fences by id.
#[derive(Debug, Default)]
pub(super) struct Fences(BTreeMap<CompactString, Drawn>);

impl Fences {
    pub(super) fn apply(&mut self, change: FenceChange, now_ms: TimeMs, version: u64) {
        let id = change.id.0;
        let (feature, boxes) = match change.fence {
            // Decoding has held the geometry against the same checks.
            Some(fence) => {
                let feature = feature(&id, &encode_fence(&fence));
                let (Ok(area), Some(feature)) = (Area::new(&fence.geometry), feature) else {
                    return;
                };
                (Some(feature), area.boxes())
            }
            None => (None, Vec::new()),
        };
        let mut former = Vec::new();
        match self.0.remove(&id) {
            Some(was) => {
                if !was.changed_before(now_ms) {
                    former = was.former;
                }
                former.extend(was.boxes);
                former.drain(..former.len().saturating_sub(FORMER_BOXES));
            }
            None if feature.is_none() => return,
            None => {}
        }
        let drawn = Drawn {
            version,
            feature,
            boxes,
            former,
            changed_ms: now_ms,
        };
        self.0.insert(id, drawn);
    }

    pub(super) fn sweep(&mut self, now_ms: TimeMs) {
        self.0.retain(|_, drawn| {
            if drawn.changed_before(now_ms) {
                drawn.former = Vec::new();
                return drawn.feature.is_some();
            }
            true
        });
    }

    /// Those that have changed since a version and are or were in a box, by id: with what to draw,
    /// or without for one that is not in it any more.
    pub(super) fn since<'a>(
        &'a self,
        version: u64,
        bbox: &'a Bbox,
    ) -> impl Iterator<Item = (&'a CompactString, Option<&'a Arc<RawValue>>)> {
        let meets = |boxes: &[LonLatBox]| boxes.iter().any(|each| bbox.overlaps(each));
        let changed = (self.0.iter()).filter(move |(_, drawn)| drawn.version > version);
        changed.filter_map(move |(id, drawn)| {
            let is_in = meets(&drawn.boxes);
            let feature = drawn.feature.as_ref().filter(|_| is_in);
            (is_in || meets(&drawn.former)).then_some((id, feature))
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

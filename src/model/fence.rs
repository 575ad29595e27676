//! Geofences.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Place, Position};

/// A fence's id, which is its message key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceId(pub CompactString);

/// A closed ring as on the wire: the last position equals the first.
pub type Ring = Vec<Position>;

/// What a fence encloses, as on the wire. Edges are straight in longitude–latitude; an edge
/// of more than 180° is read the short way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Geometry {
    /// An outer ring followed by its holes.
    Polygon(Vec<Ring>),
    /// Several polygons.
    MultiPolygon(Vec<Vec<Ring>>),
    /// A great-circle disc.
    Circle {
        /// The centre.
        center: Position,
        /// Metres, over 0.
        radius_m: f64,
    },
}

/// One version of a fence, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fence {
    /// Its id.
    pub id: FenceId,
    /// Its name, for people.
    pub name: Option<CompactString>,
    /// Free text, such as `restaurant`.
    pub kind: Option<CompactString>,
    /// What it encloses.
    pub geometry: Geometry,
    /// Seconds of a visit after which it counts as dwelled; `None`: never.
    pub dwell_s: Option<f64>,
    /// How far outside a fix must be to end a visit, metres.
    pub exit_margin_m: f64,
}

/// A record of `geofences`: a new version, or a removal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FenceChange {
    /// Its place in the merged order.
    pub place: Place,
    /// Which fence.
    pub id: FenceId,
    /// The version, or `None` to remove the fence.
    pub fence: Option<Fence>,
}

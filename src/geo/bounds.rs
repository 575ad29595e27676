//! Boxes in longitude–latitude and the flat points in them.

use robust::Coord;

use crate::model::Position;

/// A point of the unwrapped plane: `x` degrees east, not confined to ±180, `y` degrees north.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

impl Point {
    /// The point at a position, `turns` times 360° further east.
    pub(super) fn new(position: Position, turns: f64) -> Self {
        Self {
            x: settle(position.longitude) + 360.0 * turns,
            y: settle(position.latitude),
        }
    }

    /// Whether it comes first from west to east, then from south to north.
    pub(super) fn before(self, other: Self) -> bool {
        self.x < other.x || (self.x == other.x && self.y < other.y)
    }

    fn coord(self) -> Coord<f64> {
        Coord {
            x: self.x,
            y: self.y,
        }
    }
}

/// Nearer to zero than any atom: counts as zero, so that no product of two differences
/// underflows and the predicates stay exact.
fn settle(degrees: f64) -> f64 {
    if degrees.abs() < 1e-100 { 0.0 } else { degrees }
}

/// Over 0 if `c` lies to the left of the line from `a` to `b`, 0 exactly if on it.
pub(super) fn orient(a: Point, b: Point, c: Point) -> f64 {
    robust::orient2d(a.coord(), b.coord(), c.coord())
}

/// A closed box in unwrapped longitude–latitude, degrees. `east` is not below `west`, and
/// either may lie beyond ±180: the box is meant modulo 360.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LonLatBox {
    /// Least longitude, degrees.
    pub west: f64,
    /// Greatest longitude, degrees.
    pub east: f64,
    /// Least latitude, degrees.
    pub south: f64,
    /// Greatest latitude, degrees.
    pub north: f64,
}

impl LonLatBox {
    /// The smallest box around points; inside out if there are none.
    pub(super) fn around(points: &[Point]) -> Self {
        points.iter().fold(Self::NONE, |all, p| Self {
            west: all.west.min(p.x),
            east: all.east.max(p.x),
            south: all.south.min(p.y),
            north: all.north.max(p.y),
        })
    }

    /// The smallest box around boxes; inside out if there are none.
    pub(super) fn union(boxes: &[Self]) -> Self {
        boxes.iter().fold(Self::NONE, |all, b| Self {
            west: all.west.min(b.west),
            east: all.east.max(b.east),
            south: all.south.min(b.south),
            north: all.north.max(b.north),
        })
    }

    const NONE: Self = Self {
        west: f64::INFINITY,
        east: f64::NEG_INFINITY,
        south: f64::INFINITY,
        north: f64::NEG_INFINITY,
    };

    /// Whether the flat point is in the box, its boundary included.
    pub(super) fn contains(&self, p: Point) -> bool {
        self.west <= p.x && p.x <= self.east && self.south <= p.y && p.y <= self.north
    }

    /// Whether two boxes have a point in common; not modulo 360.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.west <= other.east
            && other.west <= self.east
            && self.south <= other.north
            && other.south <= self.north
    }

    /// The box grown by `degrees` on each side, latitudes kept on earth.
    pub(super) fn grown(&self, degrees: f64) -> Self {
        Self {
            west: self.west - degrees,
            east: self.east + degrees,
            south: (self.south - degrees).max(-90.0),
            north: (self.north + degrees).min(90.0),
        }
    }

    /// One box within ±180 around several, which holds all longitudes if one of them crosses
    /// the antimeridian; holds nothing if there are none.
    pub fn hull(boxes: &[Self]) -> Self {
        boxes.iter().fold(Self::NONE, |all, b| {
            let (first, second) = b.split();
            Self::union(&[all, first, second.unwrap_or(first)])
        })
    }

    /// Whether a position is in a box within ±180, its boundary included.
    pub fn holds(&self, position: Position) -> bool {
        // Without branches, since whole arrays of positions are asked.
        (self.west <= position.longitude)
            & (position.longitude <= self.east)
            & (self.south <= position.latitude)
            & (position.latitude <= self.north)
    }

    /// The box as one or two boxes within ±180.
    pub(super) fn split(&self) -> (Self, Option<Self>) {
        if self.east - self.west >= 360.0 {
            let all = Self {
                west: -180.0,
                east: 180.0,
                ..*self
            };
            return (all, None);
        }
        let turns = ((self.west + 180.0) / 360.0).floor();
        // Rounding may put `west` a hair outside; the box was grown by more than that.
        let west = (self.west - 360.0 * turns).clamp(-180.0, 180.0);
        let east = self.east - 360.0 * turns;
        if east <= 180.0 {
            return (
                Self {
                    west,
                    east,
                    ..*self
                },
                None,
            );
        }
        let first = Self {
            west,
            east: 180.0,
            ..*self
        };
        let second = Self {
            west: -180.0,
            east: east - 360.0,
            ..*self
        };
        (first, Some(second))
    }
}

//! A ring, prepared: its edges in ring order under a tree of boxes.
//!
//! Neighbouring edges lie near each other, so boxes around runs of 8, 64, 512 … edges make
//! a good tree without sorting. A run that lies wholly east of a point is settled by its two
//! ends, so containment opens only the boxes that the point is in.

use super::bounds::{LonLatBox, Point, orient};
use super::distance::Here;
use super::segment::Segment;
use crate::model::Position;

/// Edges, or nodes of the level below, per node.
const FAN: usize = 8;

/// The haversine of a millimetre.
const MILLIMETRE: f64 = 6.2e-21;

/// Where a point is with regard to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Boundary,
    Outside,
}

/// A closed path that never meets itself.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    /// The path; the last point is the first.
    path: Box<[Point]>,
    /// `levels[0]` has a box per `FAN` edges, `levels[1]` one per `FAN` of those, up to the
    /// one root.
    levels: Box<[Box<[LonLatBox]>]>,
}

impl Edges {
    pub(super) fn new(path: Vec<Point>) -> Self {
        let edges = path.len() - 1;
        let mut level: Vec<LonLatBox> = (0..edges)
            .step_by(FAN)
            .map(|first| LonLatBox::around(&path[first..=(first + FAN).min(edges)]))
            .collect();
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = level.chunks(FAN).map(LonLatBox::union).collect();
            levels.push(std::mem::replace(&mut level, above).into());
        }
        levels.push(level.into());
        Self {
            path: path.into(),
            levels: levels.into(),
        }
    }

    /// The box around all edges.
    pub(super) fn bounds(&self) -> &LonLatBox {
        &self.levels[self.top()][0]
    }

    /// Where a position is, at whatever multiple of 360° the ring runs past it.
    pub(super) fn side(&self, position: Position) -> Side {
        let plain = Point::new(position, 0.0);
        if self.is_within_180() {
            return self.side_of(plain);
        }
        self.side_around(plain)
    }

    /// Where a point is, at whatever multiple of 360° the ring runs past it.
    fn side_around(&self, p: Point) -> Side {
        for turns in self.turns(p.x, p.x) {
            let x = p.x + 360.0 * turns;
            match self.side_of(Point { x, ..p }) {
                Side::Outside => {}
                found => return found,
            }
        }
        Side::Outside
    }

    fn is_within_180(&self) -> bool {
        let bounds = self.bounds();
        -180.0 < bounds.west && bounds.east < 180.0
    }

    /// By how many turns longitudes from `west` to `east` must be moved to come to the ring.
    fn turns(&self, west: f64, east: f64) -> impl Iterator<Item = f64> + use<> {
        // One turn more on each side than needed, so that rounding here decides nothing.
        let first = ((self.bounds().west - east) / 360.0).floor() as i32;
        let last = ((self.bounds().east - west) / 360.0).ceil() as i32;
        (first..=last).map(f64::from)
    }

    /// Whether a segment touches any edge at a point that `counts`.
    pub(super) fn is_touched(&self, segment: &Segment, counts: impl Fn(Point) -> bool) -> bool {
        let bounds = segment.bounds();
        let touched = |segment: &Segment, bounds: &LonLatBox| {
            segment.meets_box(bounds, self.bounds())
                && self.touched(self.top(), 0, segment, bounds, &counts)
        };
        if self.is_within_180() && -180.0 <= bounds.west && bounds.east <= 180.0 {
            return touched(segment, &bounds);
        }
        self.turns(bounds.west, bounds.east).any(|turns| {
            let segment = segment.turned(turns);
            touched(&segment, &segment.bounds())
        })
    }

    fn touched(
        &self,
        level: usize,
        node: usize,
        segment: &Segment,
        bounds: &LonLatBox,
        counts: &impl Fn(Point) -> bool,
    ) -> bool {
        self.children(level, node).any(|child| {
            if level > 0 {
                return segment.meets_box(bounds, &self.levels[level - 1][child])
                    && self.touched(level - 1, child, segment, bounds, counts);
            }
            let touch = segment.touches(self.path[child], self.path[child + 1]);
            touch.is_some_and(|(at, and)| counts(at) || and.is_some_and(counts))
        })
    }

    /// Whether any edge comes into a box within ±180, or touches it.
    pub(super) fn meet_box(&self, b: &LonLatBox) -> bool {
        if self.is_within_180() {
            return self.meet(self.top(), 0, b);
        }
        self.turns(b.west, b.east).any(|turns| {
            let turned = LonLatBox {
                west: b.west + 360.0 * turns,
                east: b.east + 360.0 * turns,
                ..*b
            };
            self.meet(self.top(), 0, &turned)
        })
    }

    fn meet(&self, level: usize, node: usize, b: &LonLatBox) -> bool {
        self.levels[level][node].overlaps(b)
            && self.children(level, node).any(|child| {
                if level > 0 {
                    return self.meet(level - 1, child, b);
                }
                let edge = Segment {
                    from: self.path[child],
                    to: self.path[child + 1],
                };
                edge.meets_box(&edge.bounds(), b)
            })
    }

    /// Whether a point is inside, or within a millimetre of the boundary.
    pub(super) fn almost_contains(&self, p: Point) -> bool {
        self.side_around(p) != Side::Outside || self.almost_touches(p)
    }

    /// Whether a point is inside and not within a millimetre of the boundary.
    pub(super) fn clearly_contains(&self, p: Point) -> bool {
        self.side_around(p) == Side::Inside && !self.almost_touches(p)
    }

    fn almost_touches(&self, p: Point) -> bool {
        let here = Here::new(Position {
            longitude: p.x,
            latitude: p.y,
        });
        self.haversine_from(&here, MILLIMETRE) < MILLIMETRE
    }

    fn side_of(&self, p: Point) -> Side {
        if !self.bounds().contains(p) {
            return Side::Outside;
        }
        match self.crossings_are_odd(self.top(), 0, p) {
            None => Side::Boundary,
            Some(true) => Side::Inside,
            Some(false) => Side::Outside,
        }
    }

    fn top(&self) -> usize {
        self.levels.len() - 1
    }

    /// Nodes of the level below, or edges, that a node covers.
    fn children(&self, level: usize, node: usize) -> std::ops::Range<usize> {
        let below = match level {
            0 => self.path.len() - 1,
            _ => self.levels[level - 1].len(),
        };
        node * FAN..((node + 1) * FAN).min(below)
    }

    /// Whether the ray from `p` eastward crosses the node's edges an odd number of times;
    /// `None` if `p` is on one of them. An edge owns its lower end, so that a ray through a
    /// vertex counts once.
    fn crossings_are_odd(&self, level: usize, node: usize, p: Point) -> Option<bool> {
        let bounds = &self.levels[level][node];
        if !bounds.contains(p) {
            if p.x >= bounds.west {
                return Some(false);
            }
            let span = FAN.pow(level as u32 + 1);
            let first = self.path[node * span];
            let last = self.path[((node + 1) * span).min(self.path.len() - 1)];
            return Some((first.y > p.y) != (last.y > p.y));
        }
        let mut odd = false;
        for child in self.children(level, node) {
            odd ^= if level > 0 {
                self.crossings_are_odd(level - 1, child, p)?
            } else {
                crosses(self.path[child], self.path[child + 1], p)?
            };
        }
        Some(odd)
    }

    /// The haversine of the distance to the nearest edge, or `best` if that is less.
    pub(super) fn haversine_from(&self, here: &Here, best: f64) -> f64 {
        if here.haversine_to_box(self.bounds()) >= best {
            return best;
        }
        self.nearest(self.top(), 0, here, best)
    }

    fn nearest(&self, level: usize, node: usize, here: &Here, mut best: f64) -> f64 {
        let children = self.children(level, node);
        if level == 0 {
            for edge in children {
                best = here.haversine_to_edge(self.path[edge], self.path[edge + 1], best);
            }
            return best;
        }
        let mut order = [(f64::INFINITY, 0); FAN];
        let count = children.len();
        for (slot, child) in order.iter_mut().zip(children) {
            *slot = (here.haversine_to_box(&self.levels[level - 1][child]), child);
        }
        let order = &mut order[..count];
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        for &(bound, child) in order.iter() {
            if bound >= best {
                break;
            }
            best = self.nearest(level - 1, child, here, best);
        }
        best
    }
}

/// Whether the ray from `p` eastward crosses an edge; `None` if `p` is on the edge.
fn crosses(a: Point, b: Point, p: Point) -> Option<bool> {
    if (a.y > p.y) != (b.y > p.y) {
        let side = orient(a, b, p);
        return (side != 0.0).then_some((side > 0.0) == (b.y > a.y));
    }
    let on = if a.y == p.y && b.y == p.y {
        a.x.min(b.x) <= p.x && p.x <= a.x.max(b.x)
    } else {
        a == p || b == p
    };
    if on { None } else { Some(false) }
}

//! The straight way from one position to the next.

use super::bounds::{LonLatBox, Point, orient};
use super::distance::EARTH_RADIUS_M;
use super::ring::short_way;
use crate::model::Position;

/// A closed segment, straight in longitude–latitude, that goes the short way round the earth
/// as a ring's edge does.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Within ±180.
    pub(super) from: Point,
    /// Perhaps beyond, so that the way there is the straight one.
    pub(super) to: Point,
}

impl Segment {
    /// The segment between two positions.
    pub fn between(from: Position, to: Position) -> Self {
        let turns = short_way(from.longitude, to.longitude);
        Self {
            from: Point::new(from, 0.0),
            to: Point::new(to, turns),
        }
    }

    /// The same segment so many times 360° further east.
    pub(super) fn turned(&self, turns: f64) -> Self {
        let shift = |p: Point| Point {
            x: p.x + 360.0 * turns,
            ..p
        };
        Self {
            from: shift(self.from),
            to: shift(self.to),
        }
    }

    /// The smallest box around it.
    pub fn bounds(&self) -> LonLatBox {
        LonLatBox::around(&[self.from, self.to])
    }

    /// No less than its length, metres: as if all of it lay on the equator.
    pub(super) fn length_bound_m(&self) -> f64 {
        let (x, y) = (self.to.x - self.from.x, self.to.y - self.from.y);
        (x * x + y * y).sqrt().to_radians() * EARTH_RADIUS_M * (1.0 + 1e-9)
    }

    /// Whether it has a point in common with a box; `bounds` are its own.
    pub(super) fn meets_box(&self, bounds: &LonLatBox, b: &LonLatBox) -> bool {
        if !bounds.overlaps(b) {
            return false;
        }
        if b.contains(self.to) {
            return true;
        }
        let rising = (self.to.x > self.from.x) == (self.to.y > self.from.y);
        let (south, north) = if rising {
            (b.east, b.west)
        } else {
            (b.west, b.east)
        };
        let low = orient(
            self.from,
            self.to,
            Point {
                x: south,
                y: b.south,
            },
        );
        let high = orient(
            self.from,
            self.to,
            Point {
                x: north,
                y: b.north,
            },
        );
        !(low > 0.0 && high > 0.0 || low < 0.0 && high < 0.0)
    }

    /// Where it touches an edge, if it does: exactly one point, or the two ends of what they
    /// have in common. Whether it does is exact; where, is rounded inside the edge.
    pub(super) fn touches(&self, c: Point, d: Point) -> Option<(Point, Option<Point>)> {
        let (a, b) = (self.from, self.to);
        let apart = |u: f64, v: f64| (u > 0.0 && v > 0.0) || (u < 0.0 && v < 0.0);
        let (to_c, to_d) = (orient(a, b, c), orient(a, b, d));
        if apart(to_c, to_d) {
            return None;
        }
        if to_c == 0.0 && to_d == 0.0 {
            let sorted = |p: Point, q: Point| if p.before(q) { (p, q) } else { (q, p) };
            let ((first, last), (c, d)) = (sorted(a, b), sorted(c, d));
            let begins = if first.before(c) { c } else { first };
            let ends = if last.before(d) { last } else { d };
            return (!ends.before(begins)).then_some((begins, Some(ends)));
        }
        let (to_a, to_b) = (orient(c, d, a), orient(c, d, b));
        if apart(to_a, to_b) {
            return None;
        }
        let at = if to_c == 0.0 {
            c
        } else if to_d == 0.0 {
            d
        } else if to_a == 0.0 {
            a
        } else if to_b == 0.0 {
            b
        } else {
            let share = to_c / (to_c - to_d);
            Point {
                x: c.x + share * (d.x - c.x),
                y: c.y + share * (d.y - c.y),
            }
        };
        Some((at, None))
    }
}

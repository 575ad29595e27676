//! Whether a closed path meets itself: a sweep in O(n log n), exact.
//!
//! Shamos and Hoey: going from west to east, keep the edges under the sweep line sorted
//! from south to north; two edges that meet become neighbours there before they meet, so
//! it is enough to try each pair of new neighbours. The sort order of two edges that don't
//! cross never changes, hence a plain ordered set; the first pair that meets ends the sweep,
//! before the order could break.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use super::bounds::{Point, orient};

/// Finds two edges of a closed path without repetitions that meet anywhere but at the vertex
/// that they share as neighbours; edge `i` goes from point `i` to point `i + 1`. With
/// `round`, edges also meet those 360° away.
pub(super) fn meets_itself(path: &[Point], round: bool) -> Option<(usize, usize)> {
    let count = path.len().saturating_sub(1);
    if count == 2 {
        return Some((0, 1));
    }
    let segments = if round {
        wrapped(path)
    } else {
        path.windows(2)
            .enumerate()
            .map(|(edge, w)| Segment::new(edge, w[0], w[1]))
            .collect()
    };
    let mut events: Vec<(Point, bool, usize)> = Vec::with_capacity(2 * segments.len());
    for (i, segment) in segments.iter().enumerate() {
        events.push((segment.left, false, i));
        events.push((segment.right, true, i));
    }
    // At one point beginnings come before ends, so that edges that only touch are together.
    events.sort_unstable_by(|a, b| {
        (west_to_east(a.0, b.0))
            .then(a.1.cmp(&b.1))
            .then(a.2.cmp(&b.2))
    });
    let mut active = BTreeSet::new();
    for (_, ends, i) in events {
        let segment = segments[i];
        let below = active.range(..segment).next_back().copied();
        let above = active.range((Excluded(segment), Unbounded)).next().copied();
        if ends {
            active.remove(&segment);
            if let Some(pair) = meeting(below, above, count) {
                return Some(pair);
            }
        } else {
            let pair = meeting(below, Some(segment), count)
                .or_else(|| meeting(Some(segment), above, count));
            if pair.is_some() {
                return pair;
            }
            active.insert(segment);
        }
    }
    None
}

/// Each edge once between the path's first longitude and 360° on, and those that reach
/// beyond once more at the beginning.
fn wrapped(path: &[Point]) -> Vec<Segment> {
    let start = path[0].x;
    let mut segments = Vec::with_capacity(2 * path.len());
    for (edge, w) in path.windows(2).enumerate() {
        let west = w[0].x.min(w[1].x);
        let turns = ((west - start) / 360.0).floor();
        let shifted = |p: Point, turns: f64| Point {
            x: p.x - 360.0 * turns,
            y: p.y,
        };
        let base = Segment::new(edge, shifted(w[0], turns), shifted(w[1], turns));
        if base.right.x >= start + 360.0 {
            let again = turns + 1.0;
            segments.push(Segment::new(
                edge,
                shifted(w[0], again),
                shifted(w[1], again),
            ));
        }
        segments.push(base);
    }
    segments
}

fn west_to_east(a: Point, b: Point) -> Ordering {
    a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y))
}

/// One edge, with its ends in sweep order.
#[derive(Clone, Copy, Debug)]
struct Segment {
    left: Point,
    right: Point,
    edge: usize,
    /// Whether the path runs from left to right.
    forward: bool,
}

impl Segment {
    fn new(edge: usize, from: Point, to: Point) -> Self {
        let forward = west_to_east(from, to).is_lt();
        let (left, right) = if forward { (from, to) } else { (to, from) };
        Self {
            left,
            right,
            edge,
            forward,
        }
    }

    fn from(&self) -> Point {
        if self.forward { self.left } else { self.right }
    }

    fn to(&self) -> Point {
        if self.forward { self.right } else { self.left }
    }
}

impl Ord for Segment {
    /// From south to north where both are under the sweep line.
    fn cmp(&self, other: &Self) -> Ordering {
        let later = west_to_east(self.left, other.left).is_gt();
        let (earlier, late) = if later { (other, self) } else { (self, other) };
        let mut side = orient(earlier.left, earlier.right, late.left);
        if side == 0.0 {
            side = orient(earlier.left, earlier.right, late.right);
        }
        let late_above = side.partial_cmp(&0.0).unwrap_or(Ordering::Equal);
        let order = if later {
            late_above
        } else {
            late_above.reverse()
        };
        order.then_with(|| {
            (self.edge.cmp(&other.edge)).then_with(|| west_to_east(self.left, other.left))
        })
    }
}

impl PartialOrd for Segment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Segment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Segment {}

fn meeting(a: Option<Segment>, b: Option<Segment>, count: usize) -> Option<(usize, usize)> {
    let (a, b) = a.zip(b)?;
    meet(&a, &b, count).then_some((a.edge, b.edge))
}

/// Whether two edges of a path of `count` edges meet where they may not.
fn meet(a: &Segment, b: &Segment, count: usize) -> bool {
    let (next_a, next_b) = ((a.edge + 1) % count, (b.edge + 1) % count);
    if a.edge == b.edge {
        // The same edge 360° away, which is parallel: never a meeting of its own.
        false
    } else if next_a == b.edge && a.to() == b.from() {
        doubles_back(a.from(), a.to(), b.to())
    } else if next_b == a.edge && b.to() == a.from() {
        doubles_back(b.from(), b.to(), a.to())
    } else {
        touch(a, b)
    }
}

/// Whether the edge from `vertex` to `after` lies on the one from `before` to `vertex`.
fn doubles_back(before: Point, vertex: Point, after: Point) -> bool {
    orient(before, vertex, after) == 0.0
        && west_to_east(vertex, before) == west_to_east(vertex, after)
}

/// Whether two closed segments have a point in common.
fn touch(a: &Segment, b: &Segment) -> bool {
    let apart = |u: f64, v: f64| (u > 0.0 && v > 0.0) || (u < 0.0 && v < 0.0);
    let b_left = orient(a.left, a.right, b.left);
    let b_right = orient(a.left, a.right, b.right);
    if b_left == 0.0 && b_right == 0.0 {
        // In line: the one that begins later must begin after the other's end.
        let (first, second) = if west_to_east(a.left, b.left).is_le() {
            (a, b)
        } else {
            (b, a)
        };
        return west_to_east(second.left, first.right).is_le();
    }
    !apart(b_left, b_right)
        && !apart(
            orient(b.left, b.right, a.left),
            orient(b.left, b.right, a.right),
        )
}

//! From a ring on the wire to a closed path in the unwrapped plane, or a refusal.

use super::bounds::{LonLatBox, Point, orient};
use super::simple;
use crate::model::Position;

/// Why a geometry encloses nothing in a well-defined way: the ring, the vertex, the fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGeometry(String);

impl InvalidGeometry {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same refusal, of a part: `ring 0: …`.
    pub(super) fn within(self, part: std::fmt::Arguments<'_>) -> Self {
        Self(format!("{part}: {}", self.0))
    }
}

/// Checks one ring and unwraps its longitudes.
///
/// The path returned is closed (its last point is its first), has no two equal points in a
/// row, at least 3 different ones, and never meets itself.
///
/// # Errors
/// Names the vertex, counted from 0 in the ring as given.
pub(super) fn unwrap(ring: &[Position]) -> Result<Vec<Point>, InvalidGeometry> {
    check_positions(ring)?;
    let Some((first, last)) = ring.first().zip(ring.last()) else {
        return Err(InvalidGeometry::new("has no positions"));
    };
    if first != last {
        return Err(InvalidGeometry::new(format!(
            "is open: vertex {} is not vertex 0",
            ring.len() - 1
        )));
    }
    if ring.len() < 4 {
        return Err(InvalidGeometry::new(format!(
            "has fewer than 4 positions: it ends at vertex {}",
            ring.len() - 1
        )));
    }
    let (path, vertices) = walk(ring)?;
    if path.windows(3).all(|w| orient(w[0], w[1], w[2]) == 0.0) {
        return Err(InvalidGeometry::new(format!(
            "has no area: all vertices up to vertex {} are in line",
            ring.len() - 1
        )));
    }
    let bounds = LonLatBox::around(&path);
    // A ring of exactly 360° may touch itself along the one meridian where it begins and
    // ends: that is how the whole world, or a belt round it, is written.
    let round = bounds.east - bounds.west > 360.0;
    if let Some((a, b)) = simple::meets_itself(&path, round) {
        return Err(InvalidGeometry::new(format!(
            "meets itself: the edge from vertex {} and the edge from vertex {}",
            vertices[a.min(b)],
            vertices[a.max(b)]
        )));
    }
    Ok(path)
}

/// Refuses what no decoder should let through, so that the rest may count on degrees.
pub(super) fn check_positions(positions: &[Position]) -> Result<(), InvalidGeometry> {
    let on_earth = |p: &Position| p.longitude.abs() <= 180.0 && p.latitude.abs() <= 90.0;
    match positions.iter().position(|p| !on_earth(p)) {
        None => Ok(()),
        Some(vertex) => Err(InvalidGeometry::new(format!(
            "vertex {vertex} is not on earth: {}, {}",
            positions[vertex].longitude, positions[vertex].latitude
        ))),
    }
}

/// The unwrapped path without repetitions, and for each of its edges the vertex of the ring
/// that the edge starts from.
fn walk(ring: &[Position]) -> Result<(Vec<Point>, Vec<usize>), InvalidGeometry> {
    let mut path = vec![Point::new(ring[0], 0.0)];
    let mut vertices = Vec::new();
    let mut turns = 0.0;
    let mut rounded = 0;
    for (vertex, pair) in ring.windows(2).enumerate() {
        let step = short_way(pair[0].longitude, pair[1].longitude);
        if step != 0.0 {
            turns += step;
            rounded = vertex + 1;
        }
        let point = Point::new(pair[1], turns);
        if path.last() != Some(&point) {
            path.push(point);
            vertices.push(vertex);
        }
    }
    if turns != 0.0 {
        return Err(InvalidGeometry::new(format!(
            "closes only by going round a pole: it last crosses the antimeridian at vertex {rounded}"
        )));
    }
    Ok((path, vertices))
}

/// How many turns east (−1, 0 or 1) to add after an edge between two longitudes, so that
/// it is no longer than 180°. Exact: the difference is not rounded.
pub(super) fn short_way(from: f64, to: f64) -> f64 {
    let difference = to - from;
    // The error of the difference, after Knuth.
    let b = difference - to;
    let error = (to - (difference - b)) + (-from - b);
    if difference > 180.0 || (difference == 180.0 && error > 0.0) {
        -1.0
    } else if difference < -180.0 || (difference == -180.0 && error < 0.0) {
        1.0
    } else {
        0.0
    }
}

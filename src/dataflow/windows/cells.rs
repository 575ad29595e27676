//! The H3 cells of drivers' ways.
//!
//! Owns [`CircleFinder`]. Promises the very cell that H3 gives. A driver's next update mostly is
//! where the last one was, so a circle that is kept with the driver answers, and no memory is
//! looked up. [`crate::geo::CellFinder`] is for positions that bring nothing along, such as rows
//! of many drivers: it finds cells by where a position is, and needs a table of such places.

use h3o::Resolution;
use hashbrown::HashMap;

use crate::geo::h3_cell;
use crate::model::Position;

/// Circles that are remembered; some megabytes.
const CIRCLES: usize = 65_536;
/// How much of the distance to the cell's border is taken, so that no rounding matters: H3
/// itself decides within some metres of a border.
const SHARE: f64 = 0.98;
/// Further from the equator a degree of longitude changes too much within a cell.
const MAX_LATITUDE: f64 = 80.0;

/// The cell of resolution 8; 0 for a position without one, which no valid update has.
pub(super) fn cell_of(position: Position) -> u64 {
    h3_cell(position, Resolution::Eight).map_or(0, u64::from)
}

/// A cell, and a circle around its middle that lies within it: most fixes of a driver are in
/// the circle that the one before was in, and need no projection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circle {
    cell: u64,
    middle: Position,
    /// Degrees of latitude in a degree of longitude.
    narrowing: f64,
    radius_deg: f64,
}

impl Circle {
    fn within(cell: h3o::CellIndex) -> Self {
        let middle = h3o::LatLng::from(cell);
        let vertices: Vec<_> = cell.boundary().iter().map(vector).collect();
        let nexts = vertices.iter().cycle().skip(1);
        // A border is a great circle's arc, no nearer than the great circle.
        let radius = vertices
            .iter()
            .zip(nexts)
            .map(|(one, next)| distance_to_great_circle(vector(&middle), *one, *next))
            .fold(f64::INFINITY, f64::min);
        let is_usable = radius.is_finite() && middle.lat().abs() < MAX_LATITUDE;
        Self {
            cell: cell.into(),
            middle: Position {
                longitude: middle.lng(),
                latitude: middle.lat(),
            },
            narrowing: middle.lat_radians().cos(),
            radius_deg: if is_usable {
                SHARE * radius.to_degrees()
            } else {
                0.0
            },
        }
    }

    fn holds(&self, position: Position) -> bool {
        let north = position.latitude - self.middle.latitude;
        let east = (position.longitude - self.middle.longitude) * self.narrowing;
        north * north + east * east < self.radius_deg * self.radius_deg
    }
}

/// Finds cells, and remembers the circles within them.
#[derive(Debug, Default)]
pub(super) struct CircleFinder {
    circles: HashMap<u64, Circle>,
}

impl CircleFinder {
    /// [`cell_of`], where `last` is the circle that its last position led to.
    pub(super) fn find(&mut self, position: Position, last: &mut Option<Circle>) -> u64 {
        if let Some(circle) = last
            && circle.holds(position)
        {
            return circle.cell;
        }
        let Some(cell) = h3_cell(position, Resolution::Eight) else {
            return 0;
        };
        if self.circles.len() >= CIRCLES {
            self.circles.clear();
        }
        let circle = self
            .circles
            .entry(cell.into())
            .or_insert_with(|| Circle::within(cell));
        *last = Some(*circle);
        cell.into()
    }
}

type Vector = [f64; 3];

fn vector(place: &h3o::LatLng) -> Vector {
    let (sin_lat, cos_lat) = place.lat_radians().sin_cos();
    let (sin_lng, cos_lng) = place.lng_radians().sin_cos();
    [cos_lat * cos_lng, cos_lat * sin_lng, sin_lat]
}

/// Radians from `place` to the great circle through two others; not a number if they are one.
fn distance_to_great_circle(place: Vector, one: Vector, other: Vector) -> f64 {
    let normal = [
        one[1] * other[2] - one[2] * other[1],
        one[2] * other[0] - one[0] * other[2],
        one[0] * other[1] - one[1] * other[0],
    ];
    let dot = |a: Vector, b: Vector| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    (dot(place, normal) / dot(normal, normal).sqrt())
        .abs()
        .asin()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;
    use crate::geo::icosahedron::{on_edge, vertices};

    /// All over the world, and densely where the icosahedron's edges cross cells.
    #[test]
    fn a_circle_lies_within_its_cell() {
        let mut dice = Pcg64Mcg::seed_from_u64(8);
        let mut finder = CircleFinder::default();
        let (mut from_circle, mut all) = (0, 0);
        let vertices = vertices();
        for round in 0..30_000 {
            let (latitude, longitude): (f64, f64) = if round % 2 == 0 {
                on_edge(&vertices, &mut dice)
            } else {
                let z: f64 = dice.random_range(-1.0..1.0);
                (z.asin().to_degrees(), dice.random_range(-180.0..180.0))
            };
            let mut last = None;
            for _ in 0..12 {
                let position = Position {
                    latitude: (latitude + dice.random_range(-0.006..0.006)).clamp(-90.0, 90.0),
                    longitude: (longitude + dice.random_range(-0.006..0.006)).clamp(-180.0, 180.0),
                };
                let held = last.is_some_and(|circle: Circle| circle.holds(position));
                from_circle += u32::from(held);
                all += 1;
                assert_eq!(
                    finder.find(position, &mut last),
                    cell_of(position),
                    "{position:?}"
                );
            }
        }
        assert!(from_circle > all / 8, "{from_circle} of {all}");
    }

    #[test]
    fn the_circle_is_most_of_the_cell() {
        let bengaluru = Position {
            longitude: 77.5946,
            latitude: 12.9716,
        };
        let circle = Circle::within(h3_cell(bengaluru, Resolution::Eight).expect("valid"));
        let metres = circle.radius_deg.to_radians() * crate::geo::EARTH_RADIUS_M;
        assert!((300.0..520.0).contains(&metres), "{metres} m");
    }
}

//! What a fence encloses, prepared for questions.

use super::bounds::{LonLatBox, Point};
use super::distance::{EARTH_RADIUS_M, Here, ROUNDING_M, distance_m, metres};
use super::edges::{Edges, Side};
use super::ring::{self, InvalidGeometry};
use super::segment::Segment;
use super::tile::Tile;
use crate::model::{Geometry, Position, Ring};

/// Added around a polygon's boxes, degrees: more than any rounding of a shift by 360°.
const HAIR_DEG: f64 = 1e-9;

/// Added to a circle's radius for its box, radians (6 cm): more than a haversine's rounding,
/// which is worst at the far side of the earth.
const HAIR_RAD: f64 = 1e-8;

/// Checks what the contract asks of a geometry, at the cost of [`Area::new`].
///
/// # Errors
/// Names the polygon (if there may be several), the ring and the vertex.
pub fn validate(geometry: &Geometry) -> Result<(), InvalidGeometry> {
    Area::new(geometry).map(|_| ())
}

/// A geometry, checked and prepared: a union of parts, each a polygon with holes or a
/// circle.
///
/// Containment is flat in longitude–latitude and exact, the boundary (of holes, too) being
/// inside; a circle contains what its centre is no farther from than its radius.
#[derive(Clone, Debug)]
pub struct Area {
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    Polygons(Box<[Polygon]>),
    Circle { center: Position, radius_m: f64 },
}

#[derive(Clone, Debug)]
struct Polygon {
    outer: Edges,
    holes: Box<[Edges]>,
}

impl Area {
    /// Prepares a geometry, in O(n log n) of its vertices.
    ///
    /// Rings are checked one by one; how rings lie to each other is not. A part of a hole
    /// outside its polygon encloses nothing, and polygons may overlap.
    ///
    /// # Errors
    /// A ring that is open, has fewer than 4 positions or no area, meets itself anywhere but
    /// at neighbouring vertices, or closes only by going round a pole; no rings at all; a
    /// position off the earth; a radius that is not over 0 and finite. Names the polygon,
    /// the ring and the vertex.
    pub fn new(geometry: &Geometry) -> Result<Self, InvalidGeometry> {
        let shape = match geometry {
            Geometry::Circle { center, radius_m } => {
                ring::check_positions(&[*center])?;
                if !(*radius_m > 0.0 && radius_m.is_finite()) {
                    let message = format!("radius is not over 0: {radius_m}");
                    return Err(InvalidGeometry::new(message));
                }
                Shape::Circle {
                    center: *center,
                    radius_m: *radius_m,
                }
            }
            Geometry::Polygon(rings) => Shape::Polygons(Box::new([Polygon::new(rings)?])),
            Geometry::MultiPolygon(polygons) if polygons.is_empty() => {
                return Err(InvalidGeometry::new("has no polygons"));
            }
            Geometry::MultiPolygon(polygons) => {
                let prepare = |(number, rings): (usize, &Vec<Ring>)| {
                    Polygon::new(rings).map_err(|e| e.within(format_args!("polygon {number}")))
                };
                let parts: Result<_, _> = polygons.iter().enumerate().map(prepare).collect();
                Shape::Polygons(parts?)
            }
        };
        Ok(Self { shape })
    }

    /// Whether a position is inside or on the boundary.
    pub fn contains(&self, position: Position) -> bool {
        match &self.shape {
            Shape::Circle { center, radius_m } => distance_m(*center, position) <= *radius_m,
            Shape::Polygons(polygons) => polygons.iter().any(|p| p.contains(position)),
        }
    }

    /// Whether a position is inside one part or on its boundary; parts are numbered as
    /// [`Area::boxes`] lists them. A part that doesn't exist contains nothing.
    pub fn part_contains(&self, part: u32, position: Position) -> bool {
        match &self.shape {
            Shape::Circle { .. } => part == 0 && self.contains(position),
            Shape::Polygons(polygons) => polygons
                .get(part as usize)
                .is_some_and(|p| p.contains(position)),
        }
    }

    /// Whether a segment whose ends are outside one part meets it, boundary included; parts
    /// are numbered as [`Area::boxes`] lists them.
    ///
    /// Exact for polygons whose holes lie in them side by side. Where holes overlap or reach
    /// out, what the segment touches counts if it is within a millimetre of the area.
    pub fn part_is_crossed(&self, part: u32, segment: &Segment) -> bool {
        if segment.from == segment.to {
            return false;
        }
        match &self.shape {
            Shape::Circle { center, radius_m } => {
                part == 0 && circle_is_crossed(*center, *radius_m, segment)
            }
            Shape::Polygons(polygons) => polygons
                .get(part as usize)
                .is_some_and(|p| p.is_crossed(segment)),
        }
    }

    /// Whether nothing of one part's boundary is in a tile or touches it, so that all of the
    /// tile is inside the part or all of it outside; perhaps no, too, where it comes near.
    pub fn part_is_even_in(&self, part: u32, tile: Tile) -> bool {
        let bounds = tile.bounds();
        match &self.shape {
            Shape::Circle { center, radius_m } => {
                // No point of the tile is farther from its middle.
                let reach_m = Tile::REACH_M + ROUNDING_M;
                (distance_m(*center, tile.middle()) - radius_m).abs() > reach_m
            }
            Shape::Polygons(polygons) => (polygons.get(part as usize)).is_none_or(|polygon| {
                let holes = polygon.holes.iter();
                !holes
                    .chain([&polygon.outer])
                    .any(|ring| ring.meet_box(&bounds))
            }),
        }
    }

    /// Great-circle distance to the nearest point, metres: 0 inside, else to the nearest
    /// point of any edge.
    pub fn distance_m(&self, position: Position) -> f64 {
        match &self.shape {
            Shape::Circle { center, radius_m } => {
                (distance_m(*center, position) - radius_m).max(0.0)
            }
            Shape::Polygons(_) if self.contains(position) => 0.0,
            Shape::Polygons(polygons) => {
                let here = Here::new(position);
                // Over any haversine, so that the first edge counts.
                let h = polygons.iter().fold(2.0, |best, polygon| {
                    let best = polygon.outer.haversine_from(&here, best);
                    (polygon.holes.iter()).fold(best, |best, hole| hole.haversine_from(&here, best))
                });
                metres(h)
            }
        }
    }

    /// For each part a box that holds all of it, a hair larger than need be.
    pub fn boxes(&self) -> Vec<LonLatBox> {
        match &self.shape {
            Shape::Circle { center, radius_m } => vec![circle_box(*center, *radius_m)],
            Shape::Polygons(polygons) => polygons
                .iter()
                .map(|p| p.outer.bounds().grown(HAIR_DEG))
                .collect(),
        }
    }
}

impl Polygon {
    fn new(rings: &[Ring]) -> Result<Self, InvalidGeometry> {
        let prepare = |(number, ring): (usize, &Ring)| {
            ring::unwrap(ring)
                .map(Edges::new)
                .map_err(|e| e.within(format_args!("ring {number}")))
        };
        let mut edges = rings.iter().enumerate().map(prepare);
        let outer = edges
            .next()
            .unwrap_or_else(|| Err(InvalidGeometry::new("has no rings")))?;
        Ok(Self {
            outer,
            holes: edges.collect::<Result<_, _>>()?,
        })
    }

    /// Both ends being outside, the segment can't come in but over an edge, and a point of
    /// an edge is in the polygon unless another ring says that it isn't.
    fn is_crossed(&self, segment: &Segment) -> bool {
        let is_out_of_holes = |p: Point, but: Option<usize>| {
            let others = self.holes.iter().enumerate();
            (others.filter(|(number, _)| Some(*number) != but))
                .all(|(_, hole)| !hole.clearly_contains(p))
        };
        self.outer.is_touched(segment, |p| is_out_of_holes(p, None))
            || self.holes.iter().enumerate().any(|(number, hole)| {
                hole.is_touched(segment, |p| {
                    self.outer.almost_contains(p) && is_out_of_holes(p, Some(number))
                })
            })
    }

    fn contains(&self, position: Position) -> bool {
        self.outer.side(position) != Side::Outside
            && (self.holes.iter()).all(|hole| hole.side(position) != Side::Inside)
    }
}

fn circle_is_crossed(center: Position, radius_m: f64, segment: &Segment) -> bool {
    let here = Here::new(center);
    let to_end = metres(here.haversine(segment.to.x, segment.to.y));
    to_end <= radius_m + segment.length_bound_m()
        && metres(here.haversine_to_edge(segment.from, segment.to, 2.0)) <= radius_m
}

/// A box around a circle; all longitudes if it reaches a pole.
fn circle_box(center: Position, radius_m: f64) -> LonLatBox {
    let radius = radius_m / EARTH_RADIUS_M + HAIR_RAD;
    let lat = center.latitude.to_radians();
    let quarter = std::f64::consts::FRAC_PI_2;
    let (south, north) = (lat - radius, lat + radius);
    let half_width = if south <= -quarter || north >= quarter {
        180.0
    } else {
        (radius.sin() / lat.cos()).min(1.0).asin().to_degrees()
    };
    LonLatBox {
        west: center.longitude - half_width,
        east: center.longitude + half_width,
        south: south.to_degrees(),
        north: north.to_degrees(),
    }
    .grown(HAIR_RAD.to_degrees())
}

//! Geometry on the earth: how far, inside or not, and which fences are worth asking.
//!
//! Owns distances, rings, prepared [`Area`]s, the [`FenceIndex`], [`Tile`]s, and how a position's
//! H3 cell is found. Promises that containment is exact (flat in longitude–latitude, the boundary
//! inside, decided by robust predicates and never by a rounded sum), that whether a segment meets
//! an area is as exact, that the index misses no area that contains a point, meets a segment or is
//! in a [`Tile`], and that a cell is the one that H3 gives. Never does I/O, never
//! looks at a clock, and knows fences only as dense slots.
//!
//! ```text
//! Geometry ── unwrap ──> rings ── meets_itself ──> Edges (a tree of boxes) ──> Area
//!                                                          Area::boxes ──> FenceIndex
//! ```
//!
//! Longitudes are unwrapped first: each edge is read the short way, so a ring over the
//! antimeridian runs on past ±180 and a point is tried at its longitude plus every multiple
//! of 360 that falls into the ring's box. Adding 360 rounds to at most 2⁻⁴⁴ of a degree
//! (some nanometres); coordinates within 1e-100 of zero count as zero, which keeps the
//! predicates clear of underflow.

mod area;
mod bounds;
mod cells;
mod distance;
mod edges;
mod grid;
mod index;
mod ring;
mod segment;
mod simple;
mod tile;

#[cfg(test)]
mod area_tests;
#[cfg(test)]
pub(crate) mod icosahedron;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod ring_tests;
#[cfg(test)]
mod segment_tests;
#[cfg(test)]
mod tile_tests;

pub use area::{Area, validate};
pub use bounds::LonLatBox;
pub use cells::{CellFinder, h3_cell};
pub use distance::{EARTH_RADIUS_M, distance_m, is_clearly_beyond_m, is_within_m};
pub use index::{BoxedPart, FenceIndex};
pub use ring::InvalidGeometry;
pub use segment::Segment;
pub use tile::Tile;

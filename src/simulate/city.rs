//! The streets, places and states of a made-up city: pure geometry.
//!
//! A crooked grid of streets around a centre, with broader avenues every few blocks, some of
//! them diagonal. Everything is planar metres east and north of the centre; [`City::position`]
//! turns them into degrees.

use crate::geo::EARTH_RADIUS_M;
use crate::model::Position;

use super::dice::Dice;
use super::{CENTER, Plan};

/// Index of a street corner.
pub(super) type Node = u32;

/// Every this many streets one is an avenue.
const AVENUE_EVERY: i32 = 6;
/// Every this many corners a diagonal avenue starts, in both directions.
const DIAGONAL_EVERY: i32 = 17;
/// Corners along the side of a cell that has restaurants of its own.
const CELL: i32 = 3;
/// A place is at most this far from its corner, m.
const PLACE_OFFSET_M: f32 = 18.0;

/// The states, by index.
pub(super) const STATES: [&str; 4] = ["south", "north", "east", "west"];

/// Metres east and north of the centre.
pub(super) type Point = [f32; 2];

/// Somewhere to fetch from or bring to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Venue {
    /// Where drivers stop for it.
    pub(super) node: Node,
    /// Its own place, a few metres off the corner.
    pub(super) at: Point,
    /// Its number among its kind.
    pub(super) number: u32,
}

/// A street from end to end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Street {
    /// Whether it is an avenue, all the way.
    pub(super) is_avenue: bool,
    /// Its corners in order; it is straight between them.
    pub(super) corners: Vec<Node>,
}

/// The city.
pub(super) struct City {
    center: Position,
    degrees_per_m: [f64; 2],
    side: i32,
    nodes: Vec<Point>,
    restaurants: Vec<Venue>,
    cells_per_side: i32,
    /// Restaurants of cell `c` are `restaurants[cell_starts[c]..cell_starts[c + 1]]`.
    cell_starts: Vec<u32>,
}

impl City {
    /// The plan's city. Its streets have dice of their own, so that they stay when only the
    /// number of orders or fences changes.
    pub(super) fn of(plan: &Plan) -> Self {
        Self::new(CENTER, plan.drivers, &mut Dice::new(plan.seed, 1))
    }

    /// A city for so many drivers: its side grows as their number to the power 0.35, so that
    /// more drivers also drive more densely.
    pub(super) fn new(center: Position, drivers: u32, dice: &mut Dice) -> Self {
        let half_m = (2_500.0 * (f64::from(drivers) / 1_000.0).powf(0.35)).clamp(1_000.0, 40_000.0);
        let side = (2.0 * half_m / 140.0) as i32 + 1;
        let metres_per_degree = EARTH_RADIUS_M.to_radians();
        let axis = |dice: &mut Dice| {
            let mut at = 0.0;
            let mut line: Vec<f64> = (0..side)
                .map(|_| {
                    let here = at;
                    at += dice.between(80.0, 200.0);
                    here
                })
                .collect();
            let middle = line[line.len() - 1] / 2.0;
            line.iter_mut().for_each(|x| *x -= middle);
            line
        };
        let (xs, ys) = (axis(dice), axis(dice));
        let bend: Vec<f64> = (0..4)
            .map(|_| dice.between(0.0, std::f64::consts::TAU))
            .collect();
        let (sin, cos) = 0.13_f64.sin_cos();
        let mut nodes = Vec::with_capacity((side * side) as usize);
        for &y in &ys {
            for &x in &xs {
                let bent_x = x + 90.0 * (y / 900.0 + bend[0]).sin() + 25.0 * (y / 210.0).sin();
                let bent_y = y + 90.0 * (x / 1_100.0 + bend[1]).sin() + 25.0 * (x / 240.0).sin();
                nodes.push([
                    (bent_x * cos - bent_y * sin) as f32,
                    (bent_x * sin + bent_y * cos) as f32,
                ]);
            }
        }
        let mut city = Self {
            center,
            degrees_per_m: [
                1.0 / (metres_per_degree * center.latitude.to_radians().cos()),
                1.0 / metres_per_degree,
            ],
            side,
            nodes,
            restaurants: Vec::new(),
            cells_per_side: (side + CELL - 1) / CELL,
            cell_starts: vec![0],
        };
        for row in 0..city.cells_per_side {
            for column in 0..city.cells_per_side {
                for _ in 0..=dice.below(2) {
                    let i = (column * CELL + dice.below(CELL as u32) as i32).min(side - 1);
                    let j = (row * CELL + dice.below(CELL as u32) as i32).min(side - 1);
                    let number = city.restaurants.len() as u32;
                    let venue = city.venue((j * side + i) as Node, number, dice.bits());
                    city.restaurants.push(venue);
                }
                city.cell_starts.push(city.restaurants.len() as u32);
            }
        }
        city
    }

    /// Degrees.
    pub(super) fn position(&self, at: Point) -> Position {
        Position {
            longitude: self.center.longitude + f64::from(at[0]) * self.degrees_per_m[0],
            latitude: self.center.latitude + f64::from(at[1]) * self.degrees_per_m[1],
        }
    }

    /// Index into [`STATES`]: the south lies below a jagged line through the centre.
    pub(super) fn state(&self, at: Point) -> usize {
        let [x, y] = at;
        let wave = x / 1_500.0;
        let border = 300.0 * (2.0 * (wave - wave.floor()) - 1.0).abs() - 150.0;
        if y < border {
            0
        } else if y > x.abs() {
            1
        } else if x > 0.0 {
            2
        } else {
            3
        }
    }

    /// Area in square metres.
    pub(super) fn area_m2(&self) -> f64 {
        let side = f64::from(self.side) * 140.0;
        side * side
    }

    /// Corners along each side.
    pub(super) fn side(&self) -> i32 {
        self.side
    }

    /// The corner of a column and a row, both `0..side`.
    pub(super) fn corner(&self, column: i32, row: i32) -> Node {
        (row * self.side + column) as Node
    }

    /// Every street on which anyone may drive: all columns, all rows, all diagonals;
    /// the avenues last.
    pub(super) fn streets(&self) -> Vec<Street> {
        let side = self.side;
        let street = |is_avenue: bool, corners: &mut dyn Iterator<Item = (i32, i32)>| Street {
            is_avenue,
            corners: corners.map(|(i, j)| self.corner(i, j)).collect(),
        };
        let mut streets = Vec::new();
        for line in 0..side {
            let is_avenue = line % AVENUE_EVERY == 0;
            streets.push(street(is_avenue, &mut (0..side).map(|j| (line, j))));
            streets.push(street(is_avenue, &mut (0..side).map(|i| (i, line))));
        }
        for rising in [true, false] {
            // From each corner of the left and the lower (or upper) edge.
            let edge = if rising { 0 } else { side - 1 };
            let starts = (0..side)
                .map(|j| (0, j))
                .chain((1..side).map(|i| (i, edge)));
            for (i, j) in starts.filter(|&(i, j)| self.is_diagonal(i, j, rising)) {
                let up = if rising { 1 } else { -1 };
                let mut corners = (0..side)
                    .map(|step| (i + step, j + step * up))
                    .take_while(|&(i, j)| i < side && (0..side).contains(&j));
                streets.push(street(true, &mut corners));
            }
        }
        streets.retain(|street| street.corners.len() > 1);
        streets.sort_by_key(|street| street.is_avenue);
        streets
    }

    /// Whether a diagonal avenue runs through the block right and above of this corner.
    pub(super) fn is_cut_by_a_diagonal(&self, column: i32, row: i32) -> bool {
        self.is_diagonal(column, row, true) || self.is_diagonal(column, row + 1, false)
    }

    /// Where a corner is.
    pub(super) fn at(&self, node: Node) -> Point {
        self.nodes[node as usize]
    }

    /// All restaurants.
    pub(super) fn restaurants(&self) -> &[Venue] {
        &self.restaurants
    }

    /// A corner, more likely towards the centre.
    pub(super) fn any_corner(&self, dice: &mut Dice) -> Node {
        let mut axis = || {
            let towards_center = (dice.unit() + dice.unit()) / 2.0;
            (towards_center * f64::from(self.side)) as i32
        };
        let (i, j) = (axis(), axis());
        (j * self.side + i) as Node
    }

    /// A corner at most `blocks` away on both axes, and not the corner itself if `blocks` > 0.
    pub(super) fn corner_near(&self, node: Node, blocks: i32, dice: &mut Dice) -> Node {
        let (i, j) = self.split(node);
        for _ in 0..4 {
            let di = dice.within(-i64::from(blocks), i64::from(blocks)) as i32;
            let dj = dice.within(-i64::from(blocks), i64::from(blocks)) as i32;
            let i = (i + di).clamp(0, self.side - 1);
            let j = (j + dj).clamp(0, self.side - 1);
            let near = (j * self.side + i) as Node;
            if near != node {
                return near;
            }
        }
        node
    }

    /// A restaurant of this corner's cell or of a cell beside it.
    pub(super) fn restaurant_near(&self, node: Node, dice: &mut Dice) -> Venue {
        let (i, j) = self.split(node);
        let mut cell =
            |at: i32| (at / CELL + dice.within(-1, 1) as i32).clamp(0, self.cells_per_side - 1);
        let cell = (cell(j) * self.cells_per_side + cell(i)) as usize;
        let (first, end) = (self.cell_starts[cell], self.cell_starts[cell + 1]);
        self.restaurants[(first + dice.below(end - first)) as usize]
    }

    /// One of the eight customers of a corner; always at the same place.
    pub(super) fn customer(&self, node: Node, dice: &mut Dice) -> Venue {
        let number = node * 8 + dice.below(8);
        let scatter = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.venue(node, number, scatter ^ scatter >> 29)
    }

    /// Blocks between two corners: the larger of the two axes.
    pub(super) fn blocks_between(&self, a: Node, b: Node) -> i32 {
        let ((ai, aj), (bi, bj)) = (self.split(a), self.split(b));
        (ai - bi).abs().max((aj - bj).abs())
    }

    /// The corner after `at`, coming from `from` (or standing there, if equal), on the way to
    /// `target`; `target` is another corner than `at`. A diagonal avenue is taken if it helps;
    /// else straight on is preferred to turning.
    pub(super) fn next_corner(&self, from: Node, at: Node, target: Node, dice: &mut Dice) -> Node {
        let ((i, j), (ti, tj)) = (self.split(at), self.split(target));
        let (di, dj) = ((ti - i).signum(), (tj - j).signum());
        let step = if di == 0 {
            (0, dj)
        } else if dj == 0 {
            (di, 0)
        } else if self.is_diagonal(i, j, di == dj) {
            (di, dj)
        } else {
            let (fi, fj) = self.split(from);
            let came = (i - fi, j - fj);
            let along_i = if (came == (di, 0) || came == (0, dj)) && dice.chance(0.75) {
                came.0 != 0
            } else {
                let (far_i, far_j) = ((ti - i).abs(), (tj - j).abs());
                dice.below((far_i + far_j) as u32) < far_i as u32
            };
            if along_i { (di, 0) } else { (0, dj) }
        };
        ((j + step.1) * self.side + i + step.0) as Node
    }

    /// Whether the street between two neighbouring corners is an avenue.
    pub(super) fn is_avenue(&self, a: Node, b: Node) -> bool {
        let ((ai, aj), (bi, bj)) = (self.split(a), self.split(b));
        match (ai == bi, aj == bj) {
            (true, _) => ai % AVENUE_EVERY == 0,
            (_, true) => aj % AVENUE_EVERY == 0,
            _ => true,
        }
    }

    /// A corner beside this one.
    pub(super) fn neighbour(&self, node: Node, dice: &mut Dice) -> Node {
        let (i, j) = self.split(node);
        let inward = |at: i32| if at + 1 < self.side { at + 1 } else { at - 1 };
        let (i, j) = if dice.chance(0.5) {
            (inward(i), j)
        } else {
            (i, inward(j))
        };
        (j * self.side + i) as Node
    }

    fn is_diagonal(&self, i: i32, j: i32, rising: bool) -> bool {
        let line = if rising { i - j } else { i + j };
        (line - self.side / 2).rem_euclid(DIAGONAL_EVERY) == 0
    }

    fn split(&self, node: Node) -> (i32, i32) {
        let node = node as i32;
        (node % self.side, node / self.side)
    }

    fn venue(&self, node: Node, number: u32, scatter: u64) -> Venue {
        let part = |bits: u64| ((bits & 0xffff) as f32 / 65_535.0 * 2.0 - 1.0) * PLACE_OFFSET_M;
        let [x, y] = self.at(node);
        let scale = std::f32::consts::FRAC_1_SQRT_2;
        Venue {
            node,
            at: [x + part(scatter) * scale, y + part(scatter >> 16) * scale],
            number,
        }
    }
}

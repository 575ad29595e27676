//! The city's fences: quarters, parks with a lake, twin campuses, toll gates across a street,
//! discs around restaurants, and surges that come, move and go.

use compact_str::{CompactString, format_compact};

use crate::model::{Fence, FenceId, Geometry, Ring};

use super::city::{City, Point};
use super::dice::Dice;

/// A gate's depth along the street, m: less than a driver covers between two fixes.
const GATE_M: f32 = 4.0;

/// The fences that stand from the beginning.
pub(super) fn fences(city: &City, count: u32, dice: &mut Dice) -> Vec<Fence> {
    // So that, however many there are, a driver is inside a few at a time.
    let share_m = (2.0 * city.area_m2() / (f64::from(count.max(1)) * std::f64::consts::PI)).sqrt();
    let radius_m = share_m.clamp(40.0, 500.0);
    let mut restaurants = city.restaurants().iter().cycle();
    let stride = (city.restaurants().len() / count.max(1) as usize).max(1);
    (0..count)
        .map(|number| {
            let center = city.at(city.any_corner(dice));
            let radius = (radius_m * dice.between(0.5, 1.0)) as f32;
            let (kind, geometry, dwell_s, exit_margin_m) = match number % 10 {
                0 => {
                    let corners = corners(center, radius, dice);
                    let lake = corners.iter().rev().map(|&corner| {
                        [0, 1].map(|axis| center[axis] + (corner[axis] - center[axis]) * 0.4)
                    });
                    let rings = vec![ring(city, corners.iter().copied()), ring(city, lake)];
                    ("park", Geometry::Polygon(rings), Some(30.0), 10.0)
                }
                1 => {
                    let twins = [-0.8, 0.8].map(|side| {
                        let center = [center[0] + side * radius, center[1]];
                        let corners = corners(center, radius * 0.6, dice);
                        vec![ring(city, corners.into_iter())]
                    });
                    ("campus", Geometry::MultiPolygon(twins.into()), None, 15.0)
                }
                2 | 3 => ("gate", gate(city, dice), None, 0.0),
                4 | 5 => {
                    let corners = corners(center, radius, dice);
                    let rings = vec![ring(city, corners.into_iter())];
                    ("quarter", Geometry::Polygon(rings), Some(20.0), 15.0)
                }
                _ => {
                    let venue = restaurants.nth(stride - 1);
                    let center = city.position(venue.map_or(center, |venue| venue.at));
                    let radius_m = (radius_m * 0.3).clamp(25.0, 90.0);
                    let disc = Geometry::Circle { center, radius_m };
                    ("restaurant", disc, Some(10.0), 20.0)
                }
            };
            Fence {
                id: FenceId(format_compact!("fence-{number}")),
                name: Some(format_compact!("{kind} {number}")),
                kind: Some(CompactString::const_new(kind)),
                geometry,
                dwell_s,
                exit_margin_m,
            }
        })
        .collect()
}

/// A passing disc of high demand.
pub(super) fn surge(city: &City, id: FenceId, center: Point, dice: &mut Dice) -> Fence {
    Fence {
        name: Some(format_compact!("surge {}", id.0)),
        id,
        kind: Some(CompactString::const_new("surge")),
        geometry: Geometry::Circle {
            center: city.position(center),
            radius_m: dice.between(150.0, 400.0).round(),
        },
        dwell_s: Some(15.0),
        exit_margin_m: 10.0,
    }
}

/// A star-shaped outline, counter-clockwise.
fn corners(center: Point, radius: f32, dice: &mut Dice) -> Vec<Point> {
    let count = 5 + dice.below(8);
    let turn = dice.between(0.0, 1.0);
    (0..count)
        .map(|corner| {
            let angle = (f64::from(corner) + turn) * std::f64::consts::TAU / f64::from(count);
            let reach = radius * dice.between(0.7, 1.0) as f32;
            let (sin, cos) = angle.sin_cos();
            [
                center[0] + reach * cos as f32,
                center[1] + reach * sin as f32,
            ]
        })
        .collect()
}

/// A strip across the middle of a street.
fn gate(city: &City, dice: &mut Dice) -> Geometry {
    let corner = city.any_corner(dice);
    let (a, b) = (city.at(corner), city.at(city.neighbour(corner, dice)));
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let length = dx.hypot(dy);
    let along = [dx / length * GATE_M / 2.0, dy / length * GATE_M / 2.0];
    let across = [-dy / length * 20.0, dx / length * 20.0];
    let middle = [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
    let corners = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
        .map(|(u, v)| [0, 1].map(|axis| middle[axis] + u * along[axis] + v * across[axis]));
    Geometry::Polygon(vec![ring(city, corners.into_iter())])
}

fn ring(city: &City, corners: impl Iterator<Item = Point>) -> Ring {
    let mut ring: Ring = corners.map(|corner| city.position(corner)).collect();
    if let Some(&first) = ring.first() {
        ring.push(first);
    }
    ring
}

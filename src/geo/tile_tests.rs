//! Tiles against the exact answers for positions in them.

use proptest::prelude::*;

use super::index_tests::{geometry, position, wrap};
use super::{Area, FenceIndex, LonLatBox, Segment, Tile, distance_m, is_clearly_beyond_m};
use crate::model::{Geometry, Position};

/// A position in the tile at another, by shares of its sides; its borders are common.
fn within(tile: Tile, (x, y): (f64, f64)) -> Option<Position> {
    let b = tile.bounds();
    let position = Position {
        longitude: wrap(b.west + x * (b.east - b.west)),
        latitude: (b.south + y * (b.north - b.south)).clamp(-90.0, 90.0),
    };
    (Tile::at(position) == tile).then_some(position)
}

fn shares() -> impl Strategy<Value = (f64, f64)> {
    let share = || prop_oneof![0.0..1.0f64, Just(1e-6), Just(1.0 - 1e-6)];
    (share(), share())
}

/// A spot that is a little off another, within ±180.
fn beside(spot: Position, dx: f64, dy: f64) -> Position {
    Position {
        longitude: wrap(spot.longitude + dx),
        latitude: (spot.latitude + dy).clamp(-90.0, 90.0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Tiles near the boundaries of areas of all sizes, the antimeridian and the poles.
    #[test]
    fn what_is_not_found_in_a_tile_or_even_in_it_is_the_same_everywhere_in_it(
        geometries in proptest::collection::vec(geometry(), 1..8),
        near in (0..8usize, -1.0..1.0f64, -1.0..1.0f64, -6..1i32),
        shares in proptest::collection::vec(shares(), 2..8),
    ) {
        let mut index = FenceIndex::new();
        let areas: Vec<Area> = geometries.iter().filter_map(|g| Area::new(g).ok()).collect();
        prop_assume!(!areas.is_empty());
        for (slot, area) in (0..).zip(&areas) {
            index.insert(slot, area.boxes());
        }
        let (number, dx, dy, digits) = near;
        let boxes = areas[number % areas.len()].boxes();
        let size = 10f64.powi(digits);
        let corner = Position { longitude: wrap(boxes[0].west.rem_euclid(360.0)), latitude: boxes[0].south };
        let tile = Tile::at(beside(corner, dx * size, dy * size));
        let spots: Vec<Position> = shares.iter().filter_map(|&share| within(tile, share)).collect();
        let mut found = Vec::new();
        let all = index.visit_tile(tile, |part| {
            found.push((part.slot, part.part, part.bounds()));
            true
        });
        prop_assert!(all);
        for (slot, area) in (0..).zip(&areas) {
            for part in 0..area.boxes().len() as u32 {
                let boxes: Vec<LonLatBox> = (found.iter())
                    .filter(|(a, b, _)| (*a, *b) == (slot, part)).map(|(.., b)| *b).collect();
                let is_even = boxes.is_empty() || area.part_is_even_in(part, tile);
                let inside = !boxes.is_empty() && area.part_contains(part, tile.middle());
                for pair in spots.windows(2) {
                    let [begins, ends] = [0, 1].map(|n| area.part_contains(part, pair[n]));
                    let way = Segment::between(pair[0], pair[1]);
                    let crosses = !begins && !ends && area.part_is_crossed(part, &way);
                    if is_even {
                        prop_assert_eq!((begins, ends, crosses), (inside, inside, false));
                    }
                    prop_assert!(!ends || boxes.iter().any(|b| b.holds(pair[1])));
                    prop_assert!(!crosses || boxes.iter().any(|b| b.overlaps(&way.bounds())));
                }
            }
        }
    }

    #[test]
    fn a_tile_that_is_beyond_a_limit_has_no_position_within_it(
        from in position(), near in any::<bool>(), dx in -0.02..0.02f64, dy in -0.02..0.02f64,
        other in position(), limit_m in 0.0..3000.0f64, far in any::<bool>(), share in shares(),
    ) {
        let limit_m = if far { limit_m * 6000.0 } else { limit_m };
        let tile = Tile::at(if near { beside(from, dx, dy) } else { other });
        let spot = within(tile, share);
        prop_assume!(spot.is_some());
        let spot = spot.unwrap();
        if tile.is_beyond_m(from, limit_m) {
            prop_assert!(distance_m(from, spot) > limit_m);
        }
        if is_clearly_beyond_m(from, spot, limit_m) {
            prop_assert!(distance_m(from, spot) > limit_m);
        }
    }

    #[test]
    fn all_tiles_around_a_box_are_found(
        at in position(), width in 0.0..0.01f64, height in 0.0..0.01f64,
        x in 0.0..1.0f64, y in 0.0..1.0f64, share in shares(),
    ) {
        let b = LonLatBox {
            west: at.longitude, east: (at.longitude + width).min(180.0),
            south: at.latitude, north: (at.latitude + height).min(90.0),
        };
        let inside = Position {
            longitude: b.west + x * (b.east - b.west), latitude: b.south + y * (b.north - b.south),
        };
        prop_assert!(b.holds(inside));
        let tile = Tile::at(inside);
        let (first, last) = Tile::corners(&b);
        prop_assert!((first.column()..=last.column()).contains(&tile.column()));
        prop_assert!((first.row()..=last.row()).contains(&tile.row()));
        if let Some(spot) = within(tile, share) {
            prop_assert!(Tile::around(&b).holds(spot));
        }
    }
}

#[test]
fn a_rectangle_has_all_tiles_between_two_and_few() {
    let at = |longitude, latitude| {
        Tile::at(Position {
            longitude,
            latitude,
        })
    };
    let side = 360.0 / f64::from(1 << 18);
    let here = at(77.0, 12.0);
    let count = |to: Tile| here.rectangle(to, 6).map(Iterator::count);
    assert_eq!(count(here), Some(1));
    assert_eq!(count(at(77.0 - side, 12.0)), Some(2));
    assert_eq!(count(at(77.0 + side, 12.0 - side)), Some(4));
    assert_eq!(count(at(77.0 + 5.0 * side, 12.0)), Some(6));
    assert_eq!(count(at(77.0 + 2.0 * side, 12.0 + 2.0 * side)), None);
    assert_eq!(
        at(-180.0, 0.0).rectangle(at(180.0, 0.0), 6).map(|_| ()),
        None
    );
    assert_eq!(at(0.0, -90.0).rectangle(at(0.0, 90.0), 6).map(|_| ()), None);
}

#[test]
fn a_tile_is_even_off_the_boundary_only() {
    let at = |longitude, latitude| Position {
        longitude,
        latitude,
    };
    let round = Geometry::Circle {
        center: at(77.0, 12.0),
        radius_m: 5000.0,
    };
    let ring = |half: f64| {
        let (west, east) = (77.0 - half, 77.0 + half);
        let (south, north) = (12.0 - half, 12.0 + half);
        let corners = [
            (west, south),
            (east, south),
            (east, north),
            (west, north),
            (west, south),
        ];
        corners.map(|(x, y)| at(x, y)).to_vec()
    };
    let framed = Geometry::Polygon(vec![ring(0.045), ring(0.01)]);
    for (geometry, uneven) in [(round, vec![5000.0]), (framed, vec![1111.9, 5003.7])] {
        let area = Area::new(&geometry).unwrap();
        let mut index = FenceIndex::new();
        index.insert(0, area.boxes());
        for step in 0..60 {
            let east_m = f64::from(step) * 100.0;
            let lon = 77.0 + east_m / (111_195.0 * 12f64.to_radians().cos());
            let lon = if uneven.len() == 2 {
                77.0 + east_m / 111_195.0
            } else {
                lon
            };
            let tile = Tile::at(at(lon, 12.0));
            let is_even = index.visit_tile(tile, |part| area.part_is_even_in(part.part, tile));
            let off_m = uneven
                .iter()
                .map(|at_m| (at_m - east_m).abs())
                .fold(1e9, f64::min);
            match is_even {
                true => assert!(off_m > 0.5, "{geometry:?} {east_m}"),
                false => assert!(off_m < 260.0, "{geometry:?} {east_m}"),
            }
        }
    }
}

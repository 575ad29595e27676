//! The index against asking every area.

use proptest::prelude::*;

use super::{Area, EARTH_RADIUS_M, FenceIndex};
use crate::model::{Geometry, Position};

fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

/// A longitude, degrees, brought into ±180.
pub(super) fn wrap(lon: f64) -> f64 {
    if lon > 180.0 {
        lon - 360.0
    } else if lon < -180.0 {
        lon + 360.0
    } else {
        lon
    }
}

/// Positions that crowd the antimeridian, the poles and the cells' lines.
pub(super) fn position() -> impl Strategy<Value = Position> {
    let lon = prop_oneof![
        -180.0..=180.0,
        178.0..=180.0,
        -180.0..=-178.0,
        Just(180.0),
        Just(-180.0),
        Just(0.0),
        (-8..=8i32).prop_map(|i| f64::from(i) * 22.5),
    ];
    let lat = prop_oneof![
        -90.0..=90.0,
        88.0..=90.0,
        -90.0..=-88.0,
        Just(90.0),
        Just(-90.0),
        Just(0.0)
    ];
    (lon, lat).prop_map(|(lon, lat)| at(lon, lat))
}

/// Circles from a doorway to half the world, and triangles likewise.
pub(super) fn geometry() -> impl Strategy<Value = Geometry> {
    let size = (-6.0..2.2f64).prop_map(|e| 10f64.powf(e));
    (position(), size, any::<bool>(), 0.0..1.0f64).prop_map(|(center, degrees, round, slant)| {
        if round {
            let radius_m = EARTH_RADIUS_M.to_radians() * degrees;
            return Geometry::Circle { center, radius_m };
        }
        let width = degrees.min(170.0);
        let lat = |d: f64| (center.latitude + d).clamp(-90.0, 90.0);
        let ring = vec![
            center,
            at(wrap(center.longitude + width), lat(width * slant)),
            at(wrap(center.longitude + width * slant), lat(-width)),
            center,
        ];
        let second = vec![vec![
            at(-180.0, 1.0),
            at(-179.0, 1.0),
            at(-180.0, 2.0),
            at(-180.0, 1.0),
        ]];
        Geometry::MultiPolygon(vec![vec![ring], second])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_area_that_contains_a_point_is_missed(
        geometries in proptest::collection::vec(geometry(), 1..40),
        probes in proptest::collection::vec(position(), 20),
        near in proptest::collection::vec((0..40usize, -1.0..1.0f64, -1.0..1.0f64, -9..1i32), 40),
        removed in proptest::collection::vec(any::<bool>(), 40),
        again in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let areas: Vec<Option<Area>> = geometries.iter().map(|g| Area::new(g).ok()).collect();
        let mut index = FenceIndex::new();
        let mut present = vec![false; areas.len()];
        for (slot, area) in areas.iter().enumerate() {
            if let Some(area) = area {
                index.insert(slot as u32, area.boxes());
                present[slot] = true;
            }
        }
        for slot in 0..areas.len() {
            if removed[slot] {
                index.remove(slot as u32);
                present[slot] = false;
                index.remove(slot as u32);
            }
            if let (Some(area), true) = (&areas[slot], again[slot]) {
                index.insert(slot as u32, area.boxes());
                present[slot] = true;
            }
        }
        let corners = near.iter().map(|&(slot, dx, dy, e)| {
            let middle = match &geometries[slot % geometries.len()] {
                Geometry::Circle { center, .. } => *center,
                Geometry::MultiPolygon(p) => p[0][0][slot % 3],
                Geometry::Polygon(_) => at(0.0, 0.0),
            };
            let scale = 10f64.powi(e);
            at(wrap(middle.longitude + dx * scale), (middle.latitude + dy * scale).clamp(-90.0, 90.0))
        });
        for p in probes.iter().copied().chain(corners) {
            let mut found = vec![0; areas.len()];
            let mut visited = vec![0; areas.len()];
            index.visit(p, |slot, part| {
                visited[slot as usize] += 1;
                if areas[slot as usize].as_ref().unwrap().part_contains(part, p) {
                    found[slot as usize] += 1;
                }
            });
            for (slot, area) in areas.iter().enumerate() {
                let inside = area.as_ref().is_some_and(|a| a.contains(p));
                prop_assert_eq!(found[slot] > 0, present[slot] && inside, "{:?} {:?}", p, geometries[slot]);
                prop_assert!(visited[slot] <= 4);
                prop_assert!(present[slot] || visited[slot] == 0);
            }
        }
    }
}

#[test]
fn a_circle_is_found_along_its_whole_rim() {
    for (lat, radius_m) in [
        (0.0, 5.0),
        (60.0, 5e4),
        (89.9, 1e4),
        (-89.0, 2e5),
        (12.0, 3e6),
    ] {
        let center = at(179.99, lat);
        let area = Area::new(&Geometry::Circle { center, radius_m }).unwrap();
        let mut index = FenceIndex::new();
        index.insert(7, area.boxes());
        let (sin_lat, cos_lat) = center.latitude.to_radians().sin_cos();
        let r = radius_m / EARTH_RADIUS_M * (1.0 - 1e-9);
        for step in 0..3600 {
            // The point at distance `r` in each direction.
            let bearing = f64::from(step).to_radians() / 10.0;
            let sin_to = sin_lat * r.cos() + cos_lat * r.sin() * bearing.cos();
            let d_lon = (bearing.sin() * r.sin() * cos_lat).atan2(r.cos() - sin_lat * sin_to);
            let p = at(
                wrap(center.longitude + d_lon.to_degrees()),
                sin_to.asin().to_degrees(),
            );
            if area.contains(p) {
                let mut hits = 0;
                index.visit(p, |slot, _| hits += usize::from(slot == 7));
                assert!(hits > 0, "{p:?}");
            }
        }
    }
}

#[test]
fn an_emptied_index_keeps_nothing() {
    let mut index = FenceIndex::new();
    let area = Area::new(&Geometry::Circle {
        center: at(77.0, 13.0),
        radius_m: 40.0,
    })
    .unwrap();
    for slot in 0..100 {
        index.insert(slot, area.boxes());
    }
    for slot in 0..100 {
        index.remove(slot);
    }
    index.visit(at(77.0, 13.0), |_, _| panic!("nothing is left"));
}

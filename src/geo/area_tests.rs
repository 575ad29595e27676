//! Containment against ray crossing in integers, and what a distance is.

use proptest::prelude::*;

use super::{Area, EARTH_RADIUS_M, distance_m};
use crate::model::{Geometry, Position, Ring};

fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

fn square(west: f64, south: f64, east: f64, north: f64) -> Ring {
    vec![
        at(west, south),
        at(east, south),
        at(east, north),
        at(west, north),
        at(west, south),
    ]
}

fn circle(longitude: f64, latitude: f64, radius_m: f64) -> Geometry {
    Geometry::Circle {
        center: at(longitude, latitude),
        radius_m,
    }
}

#[test]
fn inside_and_outside() {
    let holed = Geometry::Polygon(vec![
        square(0.0, 0.0, 8.0, 8.0),
        square(2.0, 2.0, 4.0, 4.0),
        square(4.0, 4.0, 6.0, 6.0),
    ]);
    let over = Geometry::Polygon(vec![square(179.0, -1.0, -179.0, 1.0)]);
    let two = Geometry::MultiPolygon(vec![
        vec![square(170.0, 0.0, 180.0, 10.0)],
        vec![square(-180.0, 0.0, -170.0, 10.0)],
    ]);
    let world = Geometry::Polygon(vec![vec![
        at(-180.0, -90.0),
        at(0.0, -90.0),
        at(180.0, -90.0),
        at(180.0, 90.0),
        at(0.0, 90.0),
        at(-180.0, 90.0),
        at(-180.0, -90.0),
    ]]);
    let degree = EARTH_RADIUS_M.to_radians();
    let polar = circle(20.0, 89.0, 2.0 * degree);
    let across = circle(179.9, 60.0, degree);
    for (geometry, position, expected) in [
        (&holed, at(1.0, 1.0), true),
        (&holed, at(3.0, 3.0), false),
        (&holed, at(5.0, 5.0), false),
        (&holed, at(2.0, 3.0), true),
        (&holed, at(4.0, 4.0), true),
        (&holed, at(8.0, 8.0), true),
        (&holed, at(8.0, 3.0), true),
        (&holed, at(8.000_000_000_000_002, 3.0), false),
        (&holed, at(-0.0, 5.0), true),
        (&over, at(180.0, 0.0), true),
        (&over, at(-180.0, 1.0), true),
        (&over, at(-179.0, -1.0), true),
        (&over, at(-178.999, 0.0), false),
        (&over, at(178.999, 0.0), false),
        (&over, at(0.0, 0.0), false),
        (&two, at(-180.0, 5.0), true),
        (&two, at(180.0, 10.0), true),
        (&two, at(-175.0, 5.0), true),
        (&two, at(169.0, 5.0), false),
        (&world, at(180.0, 90.0), true),
        (&world, at(-180.0, -90.0), true),
        (&world, at(77.0, 13.0), true),
        (&polar, at(-160.0, 89.5), true),
        (&polar, at(-160.0, 88.5), false),
        (&polar, at(110.0, 90.0), true),
        (&across, at(-179.0, 60.0), true),
        (&across, at(-176.0, 60.0), false),
    ] {
        let area = Area::new(geometry).unwrap();
        assert_eq!(area.contains(position), expected, "{position:?}");
        let distance = area.distance_m(position);
        assert_eq!(distance == 0.0, expected, "{position:?}: {distance}");
    }
}

#[test]
fn distances_are_to_the_nearest_edge() {
    let degree = EARTH_RADIUS_M.to_radians();
    let holed = Geometry::Polygon(vec![
        square(0.0, -4.0, 8.0, 4.0),
        square(2.0, -1.0, 4.0, 1.0),
    ]);
    let far = Geometry::MultiPolygon(vec![
        vec![square(100.0, 0.0, 110.0, 1.0)],
        vec![square(179.0, -1.0, -179.0, 1.0)],
    ]);
    // The parallel of 60° bends south of the great circle; the nearest point of the edge to
    // a point due north of its middle is its middle.
    let wide = Geometry::Polygon(vec![square(-80.0, 20.0, 80.0, 60.0)]);
    for (geometry, position, expected) in [
        (&holed, at(9.0, 0.0), degree),
        (&holed, at(-2.0, 0.0), 2.0 * degree),
        (&holed, at(3.0, 0.5), 0.5 * degree),
        (&holed, at(9.0, 5.0), distance_m(at(8.0, 4.0), at(9.0, 5.0))),
        (&far, at(-178.0, 0.0), degree),
        (&far, at(178.0, 0.0), degree),
        (&far, at(112.0, 0.0), 2.0 * degree),
        (&wide, at(0.0, 61.0), degree),
        (&wide, at(180.0, 90.0), 30.0 * degree),
        (&circle(0.0, 0.0, degree), at(0.0, 3.0), 2.0 * degree),
    ] {
        let got = Area::new(geometry).unwrap().distance_m(position);
        assert!(
            (got - expected).abs() < 1e-3,
            "{position:?}: {got} {expected}"
        );
    }
}

/// Ray crossing in integers: 1 inside, 0 on the boundary, −1 outside.
fn side(ring: &[(i64, i64)], p: (i64, i64)) -> i64 {
    let mut winding = 0;
    for w in ring.windows(2) {
        let ((ax, ay), (bx, by)) = (w[0], w[1]);
        let cross = (bx - ax) * (p.1 - ay) - (by - ay) * (p.0 - ax);
        let in_box =
            p.0 >= ax.min(bx) && p.0 <= ax.max(bx) && p.1 >= ay.min(by) && p.1 <= ay.max(by);
        if cross == 0 && in_box {
            return 0;
        }
        if ay <= p.1 && by > p.1 && cross > 0 {
            winding += 1;
        }
        if by <= p.1 && ay > p.1 && cross < 0 {
            winding -= 1;
        }
    }
    if winding != 0 { 1 } else { -1 }
}

/// Whole degrees `east`, wrapped into ±180, in eighths.
fn place(x: i64, y: i64, east: i64) -> Position {
    let lon = (x + 8 * east + 8 * 180).rem_euclid(8 * 360) - 8 * 180;
    at(lon as f64 / 8.0, y as f64 / 8.0)
}

fn check(
    rings: &[Vec<(i64, i64)>],
    east: i64,
    probes: impl IntoIterator<Item = (i64, i64)>,
) -> Result<bool, TestCaseError> {
    let geometry = Geometry::Polygon(
        rings
            .iter()
            .map(|ring| ring.iter().map(|&(x, y)| place(x, y, east)).collect())
            .collect(),
    );
    let Ok(area) = Area::new(&geometry) else {
        return Ok(false);
    };
    for p in probes {
        let expected = side(&rings[0], p) >= 0 && rings[1..].iter().all(|hole| side(hole, p) <= 0);
        let mut places = vec![place(p.0, p.1, east)];
        if places[0].longitude == -180.0 {
            places.push(at(180.0, places[0].latitude));
        }
        for position in places {
            prop_assert_eq!(area.contains(position), expected, "{:?}", position);
        }
    }
    Ok(true)
}

/// A ring around the origin through lattice points, star-shaped.
fn star(radii: &[i64]) -> Vec<(i64, i64)> {
    let n = radii.len() as f64;
    let mut points: Vec<(i64, i64)> = (radii.iter().enumerate())
        .map(|(i, &r)| {
            let angle = i as f64 / n * std::f64::consts::TAU;
            let r = r as f64;
            (
                (r * angle.cos()).round() as i64,
                (r * angle.sin()).round() as i64,
            )
        })
        .collect();
    points.push(points[0]);
    points
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0i64), Just(180), Just(-180), 170..190i64, -180..180i64]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_small_ring_contains_what_the_oracle_says(
        ring in proptest::collection::vec((0..6i64, 0..6i64), 3..9), east in offset(),
    ) {
        let mut ring: Vec<(i64, i64)> = ring.iter().map(|&(x, y)| (2 * x, 2 * y)).collect();
        ring.push(ring[0]);
        check(&[ring], east, (-1..12).flat_map(|x| (-1..12).map(move |y| (x, y))))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn stars_with_holes_contain_what_the_oracle_says(
        radii in proptest::collection::vec(200..400i64, 3..200),
        hole in proptest::collection::vec(20..190i64, 3..80),
        east in offset(),
        probes in proptest::collection::vec((-420..420i64, -420..420i64), 200),
    ) {
        let rings = [star(&radii), star(&hole)];
        let corners: Vec<_> = rings.iter().flatten().copied().collect();
        let middles: Vec<_> = rings.iter().flat_map(|r| r.windows(2))
            .map(|w| ((w[0].0 + w[1].0) / 2, (w[0].1 + w[1].1) / 2)).collect();
        let level: Vec<_> = corners.iter().flat_map(|c| [(c.0 - 1, c.1), (c.0 + 1, c.1), (0, c.1)]).collect();
        check(&rings, east, probes.into_iter().chain(corners).chain(middles).chain(level))?;
    }

    /// Edges out of step with the boxes' tree: a comb of many teeth.
    #[test]
    fn combs_contain_what_the_oracle_says(
        teeth in proptest::collection::vec((1..40i64, 1..40i64), 2..300), slant in -7..7i64,
        probes in proptest::collection::vec((-40..700i64, -45..45i64), 200),
    ) {
        let mut ring = vec![(-2, -41)];
        for (i, &(up, down)) in teeth.iter().enumerate() {
            let x = 2 * i as i64;
            ring.push((x, up));
            ring.push((x + 1, -down));
        }
        ring.push((2 * teeth.len() as i64, -41));
        ring.push((-2, -41));
        let sheared = |&(x, y): &(i64, i64)| (x + slant * y, y);
        let ring: Vec<_> = ring.iter().map(sheared).collect();
        let corners = ring.clone();
        prop_assert!(check(&[ring], 0, probes.iter().map(sheared).chain(corners))?);
    }

    #[test]
    fn outside_a_polygon_the_distance_is_to_a_sampled_edge(
        radii in proptest::collection::vec(200..400i64, 3..100), east in offset(),
        x in -800..800i64, y in -600..600i64,
    ) {
        let ring = star(&radii);
        let geometry = Geometry::Polygon(vec![ring.iter().map(|&(x, y)| place(x, y, east)).collect()]);
        if let Ok(area) = Area::new(&geometry) {
            let p = place(x, y, east);
            let got = area.distance_m(p);
            let mut sampled = f64::INFINITY;
            let mut step = 0f64;
            for w in ring.windows(2) {
                for i in 0..=200 {
                    let t = f64::from(i) / 200.0;
                    let along = |a: i64, b: i64| (a as f64 + t * (b - a) as f64) / 8.0;
                    let q = at(along(w[0].0, w[1].0) + east as f64, along(w[0].1, w[1].1));
                    sampled = sampled.min(distance_m(p, q));
                }
                let long = ((w[1].0 - w[0].0).abs() + (w[1].1 - w[0].1).abs()) as f64 / 8.0 / 200.0;
                step = step.max(EARTH_RADIUS_M.to_radians() * long);
            }
            if side(&ring, (x, y)) >= 0 {
                prop_assert_eq!(got, 0.0);
            } else {
                prop_assert!(got <= sampled + 0.01 && got >= sampled - step, "{} {}", got, sampled);
            }
        }
    }
}

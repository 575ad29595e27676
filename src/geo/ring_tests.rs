//! What is refused, and why; and the sweep against trying all pairs in integers.

use proptest::prelude::*;

use super::{Area, validate};
use crate::model::{Geometry, Position, Ring};

fn ring(points: &[(f64, f64)]) -> Ring {
    points
        .iter()
        .map(|&(longitude, latitude)| Position {
            longitude,
            latitude,
        })
        .collect()
}

fn verdict(points: &[(f64, f64)]) -> String {
    match validate(&Geometry::Polygon(vec![ring(points)])) {
        Ok(()) => "ok".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn rings_and_their_verdicts() {
    let cases: &[(&[(f64, f64)], &str)] = &[
        (&[(0., 0.), (4., 0.), (0., 4.), (0., 0.)], "ok"),
        (&[(0., 0.), (0., 4.), (4., 0.), (0., 0.)], "ok"),
        (&[], "ring 0: has no positions"),
        (
            &[(0., 0.)],
            "ring 0: has fewer than 4 positions: it ends at vertex 0",
        ),
        (
            &[(0., 0.), (1., 1.), (0., 0.)],
            "ring 0: has fewer than 4 positions: it ends at vertex 2",
        ),
        (
            &[(0., 0.), (4., 0.), (0., 4.), (0., 1.)],
            "ring 0: is open: vertex 3 is not vertex 0",
        ),
        (
            &[(0., 0.), (1., 1.), (3., 3.), (0., 0.)],
            "ring 0: has no area: all vertices up to vertex 3 are in line",
        ),
        (
            &[(1., 1.), (1., 1.), (1., 1.), (1., 1.)],
            "ring 0: has no area: all vertices up to vertex 3 are in line",
        ),
        // Repeated vertices are neighbours.
        (
            &[
                (0., 0.),
                (0., 0.),
                (4., 0.),
                (4., 0.),
                (4., 0.),
                (0., 4.),
                (0., 0.),
                (0., 0.),
            ],
            "ok",
        ),
        // Vertices in line, going on.
        (
            &[(0., 0.), (1., 0.), (2., 0.), (2., 2.), (1., 1.), (0., 0.)],
            "ok",
        ),
        // A bow tie.
        (
            &[(0., 0.), (2., 2.), (2., 0.), (0., 2.), (0., 0.)],
            "ring 0: meets itself: the edge from vertex 0 and the edge from vertex 2",
        ),
        // A spike, forth and back.
        (
            &[
                (0., 0.),
                (2., 0.),
                (2., 2.),
                (2., 5.),
                (2., 2.),
                (0., 2.),
                (0., 0.),
            ],
            "ring 0: meets itself: the edge from vertex 1 and the edge from vertex 4",
        ),
        // A vertex on an edge far along the ring.
        (
            &[(0., 0.), (4., 0.), (4., 4.), (2., 0.), (0., 4.), (0., 0.)],
            "ring 0: meets itself: the edge from vertex 0 and the edge from vertex 3",
        ),
        // Two vertices in one place, not neighbours.
        (
            &[
                (0., 0.),
                (2., 1.),
                (4., 0.),
                (4., 4.),
                (2., 1.),
                (0., 4.),
                (0., 0.),
            ],
            "ring 0: meets itself: the edge from vertex 0 and the edge from vertex 4",
        ),
        // Across the antimeridian, on it, and its corner on it.
        (
            &[(179., 0.), (-179., 0.), (-179., 1.), (179., 1.), (179., 0.)],
            "ok",
        ),
        (
            &[(170., 0.), (180., 0.), (-170., 1.), (-180., 2.), (170., 0.)],
            "ok",
        ),
        (&[(180., 0.), (-170., 0.), (-170., 1.), (180., 0.)], "ok"),
        // −180 is where 180 is, but not the same position.
        (
            &[(180., 0.), (-170., 0.), (-170., 1.), (-180., 0.)],
            "ring 0: is open: vertex 3 is not vertex 0",
        ),
        // A bow tie over the antimeridian.
        (
            &[(179., 0.), (-179., 2.), (-179., 0.), (179., 2.), (179., 0.)],
            "ring 0: meets itself: the edge from vertex 0 and the edge from vertex 2",
        ),
        // Round the pole.
        (
            &[(0., 60.), (120., 60.), (-120., 60.), (0., 60.)],
            "ring 0: closes only by going round a pole: it last crosses the antimeridian at vertex 2",
        ),
        // An edge of 180° is as it is; 360° is no way at all.
        (&[(-90., 0.), (90., 0.), (0., 9.), (-90., 0.)], "ok"),
        (
            &[
                (-180., 0.),
                (180., 0.),
                (180., 9.),
                (-180., 9.),
                (-180., 0.),
            ],
            "ring 0: has no area: all vertices up to vertex 4 are in line",
        ),
        // The whole world, and a belt.
        (
            &[
                (-180., -90.),
                (0., -90.),
                (180., -90.),
                (180., 90.),
                (0., 90.),
                (-180., 90.),
                (-180., -90.),
            ],
            "ok",
        ),
        // More than once round: over itself, or past itself.
        (
            &[
                (-180., 0.),
                (-60., 0.),
                (60., 0.),
                (180., 0.),
                (-170., 0.),
                (-170., 9.),
                (180., 9.),
                (60., 9.),
                (-60., 9.),
                (-180., 9.),
                (-180., 0.),
            ],
            "ring 0: meets itself: the edge from vertex 0 and the edge from vertex 2",
        ),
        (
            &[
                (-180., 0.),
                (-60., 20.),
                (60., 40.),
                (180., 60.),
                (-60., 80.),
                (-60., 85.),
                (180., 65.),
                (60., 45.),
                (-60., 25.),
                (-180., 5.),
                (-180., 0.),
            ],
            "ok",
        ),
        (
            &[(0., 0.), (181., 0.), (0., 1.), (0., 0.)],
            "ring 0: vertex 1 is not on earth: 181, 0",
        ),
        (
            &[(0., 0.), (1., 0.), (0., f64::NAN), (0., 0.)],
            "ring 0: vertex 2 is not on earth: 0, NaN",
        ),
    ];
    for (points, expected) in cases {
        assert_eq!(verdict(points), *expected, "{points:?}");
    }
}

#[test]
fn geometries_name_the_part() {
    let good = ring(&[(0., 0.), (4., 0.), (0., 4.), (0., 0.)]);
    let flat = ring(&[(0., 0.), (1., 1.), (3., 3.), (0., 0.)]);
    let tail = "has no area: all vertices up to vertex 3 are in line";
    let circle = |longitude, radius_m| Geometry::Circle {
        center: Position {
            longitude,
            latitude: 0.0,
        },
        radius_m,
    };
    for (geometry, expected) in [
        (Geometry::Polygon(vec![]), "has no rings".to_owned()),
        (Geometry::MultiPolygon(vec![]), "has no polygons".into()),
        (
            Geometry::MultiPolygon(vec![vec![good.clone()], vec![]]),
            "polygon 1: has no rings".into(),
        ),
        (
            Geometry::Polygon(vec![good.clone(), flat.clone()]),
            format!("ring 1: {tail}"),
        ),
        (
            Geometry::MultiPolygon(vec![vec![good.clone()], vec![good, flat]]),
            format!("polygon 1: ring 1: {tail}"),
        ),
        (
            circle(200.0, 5.0),
            "vertex 0 is not on earth: 200, 0".into(),
        ),
        (circle(2.0, 0.0), "radius is not over 0: 0".into()),
        (circle(2.0, -1.0), "radius is not over 0: -1".into()),
        (
            circle(2.0, f64::INFINITY),
            "radius is not over 0: inf".into(),
        ),
        (circle(2.0, f64::NAN), "radius is not over 0: NaN".into()),
    ] {
        let error = Area::new(&geometry).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some(&*expected));
    }
}

/// 40,000 parallel edges whose boxes all overlap: trying pairs would take minutes.
#[test]
fn a_comb_of_80_000_vertices_is_checked_at_once() {
    let teeth = 40_000;
    let mut points = Vec::new();
    for i in 0..teeth {
        let x = f64::from(i) * 0.001;
        points.push((x, x));
        points.push((x + 40.0, x - 40.0));
    }
    let mut closed = points.clone();
    closed.push((81.0, 41.0));
    closed.push((-1.0, 41.0));
    closed.push((0.0, 0.0));
    assert_eq!(verdict(&closed), "ok");
    // The last tooth bent over its neighbour.
    closed[2 * teeth as usize - 1].0 -= 0.0021;
    assert!(verdict(&closed).contains("meets itself"));
}

/// Tries all pairs, in integers.
fn is_simple(ring: &[(i64, i64)]) -> bool {
    let mut path = ring.to_vec();
    path.dedup();
    let n = path.len() - 1;
    let cross = |o: (i64, i64), a: (i64, i64), b: (i64, i64)| {
        ((a.0 - o.0) * (b.1 - o.1) - (a.1 - o.1) * (b.0 - o.0)).signum()
    };
    let within = |a: (i64, i64), b: (i64, i64), p: (i64, i64)| {
        cross(a, b, p) == 0
            && p.0 >= a.0.min(b.0)
            && p.0 <= a.0.max(b.0)
            && p.1 >= a.1.min(b.1)
            && p.1 <= a.1.max(b.1)
    };
    if n < 3 {
        return false;
    }
    for i in 0..n {
        for j in i + 1..n {
            let (a, b, c, d) = (path[i], path[i + 1], path[j], path[j + 1]);
            let meets = if j == i + 1 {
                within(a, b, d) || within(c, d, a)
            } else if i == 0 && j == n - 1 {
                within(a, b, c) || within(c, d, b)
            } else {
                let proper =
                    cross(a, b, c) * cross(a, b, d) < 0 && cross(c, d, a) * cross(c, d, b) < 0;
                proper || within(a, b, c) || within(a, b, d) || within(c, d, a) || within(c, d, b)
            };
            if meets {
                return false;
            }
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn the_sweep_agrees_with_all_pairs(
        points in proptest::collection::vec((0..6i64, 0..6i64), 3..10),
        scale in prop_oneof![Just(1.0), Just(17.0), Just(1.0 / 1024.0)],
        east in prop_oneof![Just(0i64), -20..20i64, 170..180i64],
    ) {
        let mut points = points;
        points.push(points[0]);
        let wrapped: Vec<(f64, f64)> = points.iter().map(|&(x, y)| {
            let lon = x as f64 * scale + east as f64;
            (if lon > 180.0 { lon - 360.0 } else { lon }, y as f64 * scale)
        }).collect();
        let got = verdict(&wrapped);
        prop_assert_eq!(got == "ok", is_simple(&points), "{}", got);
    }

    #[test]
    fn the_sweep_agrees_with_all_pairs_on_near_simple_rings(
        radii in proptest::collection::vec(1..60i64, 8..40), bend in 0..40usize, to in (-60..60i64, -60..60i64),
        bent: bool,
    ) {
        let n = radii.len();
        let mut points: Vec<(i64, i64)> = radii.iter().enumerate().map(|(i, &r)| {
            let angle = i as f64 / n as f64 * std::f64::consts::TAU;
            ((r as f64 * angle.cos()).round() as i64, (r as f64 * angle.sin()).round() as i64)
        }).collect();
        if bent {
            points[bend % n] = to;
        }
        points.push(points[0]);
        let floats: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (x as f64, y as f64)).collect();
        prop_assert_eq!(verdict(&floats) == "ok", is_simple(&points));
    }
}

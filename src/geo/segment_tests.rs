//! Whether a segment meets an area, against exact fractions; and whether the index finds all
//! that it may meet.

use proptest::prelude::*;

use super::{Area, EARTH_RADIUS_M, FenceIndex, Segment, distance_m};
use crate::model::{Geometry, Position, Ring};

type Xy = (i128, i128);

fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

fn cross(a: Xy, b: Xy) -> i128 {
    a.0 * b.1 - a.1 * b.0
}

fn minus(a: Xy, b: Xy) -> Xy {
    (a.0 - b.0, a.1 - b.1)
}

/// Winding in integers: 1 inside, 0 on the boundary, −1 outside.
fn side(ring: &[Xy], p: Xy) -> i32 {
    let mut winding = 0;
    for w in ring.windows(2) {
        let (a, b) = (minus(w[0], p), minus(w[1], p));
        let turn = cross(a, b);
        if turn == 0 && a.0 * b.0 <= 0 && a.1 * b.1 <= 0 {
            return 0;
        }
        winding += i32::from(a.1 <= 0 && b.1 > 0 && turn > 0);
        winding -= i32::from(b.1 <= 0 && a.1 > 0 && turn < 0);
    }
    if winding == 0 { -1 } else { 1 }
}

/// Whether the point with coordinates `p` / `scale` is in the polygon.
fn contains(rings: &[Vec<Xy>], p: Xy, scale: i128) -> bool {
    let mut sides = rings.iter().map(|ring| {
        let scaled: Vec<Xy> = ring.iter().map(|&(x, y)| (x * scale, y * scale)).collect();
        side(&scaled, p)
    });
    sides.next() >= Some(0) && sides.all(|side| side <= 0)
}

/// All shares of the way from `a` to `b` at which it meets an edge, and those between, as
/// fractions.
fn shares(rings: &[Vec<Xy>], a: Xy, b: Xy) -> Vec<(i128, i128)> {
    let way = minus(b, a);
    let mut shares = vec![(0, 1), (1, 1)];
    for w in rings.iter().flat_map(|ring| ring.windows(2)) {
        let (edge, to_edge) = (minus(w[1], w[0]), minus(w[0], a));
        let det = cross(way, edge);
        if det != 0 {
            let (t, u) = (cross(to_edge, edge), cross(to_edge, way));
            let sign = det.signum();
            if (0..=det.abs()).contains(&(t * sign)) && (0..=det.abs()).contains(&(u * sign)) {
                shares.push((t * sign, det.abs()));
            }
        } else if cross(way, to_edge) == 0 {
            for end in [w[0], w[1]] {
                let to_end = minus(end, a);
                let (t, all) = (
                    to_end.0 * way.0 + to_end.1 * way.1,
                    way.0 * way.0 + way.1 * way.1,
                );
                if (0..=all).contains(&t) {
                    shares.push((t, all));
                }
            }
        }
    }
    shares.sort_by(|s, t| (s.0 * t.1).cmp(&(t.0 * s.1)));
    let between: Vec<_> = (shares.windows(2))
        .map(|w| (w[0].0 * w[1].1 + w[1].0 * w[0].1, 2 * w[0].1 * w[1].1))
        .collect();
    shares.extend(between);
    shares
}

fn meets(rings: &[Vec<Xy>], a: Xy, b: Xy) -> bool {
    let way = minus(b, a);
    shares(rings, a, b).into_iter().any(|(t, all)| {
        let p = (a.0 * all + t * way.0, a.1 * all + t * way.1);
        contains(rings, p, all)
    })
}

/// Eighths of degrees, `east` whole degrees on, wrapped into ±180.
fn place(p: Xy, east: i128) -> Position {
    let lon = (p.0 + 8 * east + 8 * 180).rem_euclid(8 * 360) - 8 * 180;
    at(lon as f64 / 8.0, p.1 as f64 / 8.0)
}

fn area(rings: &[Vec<Xy>], east: i128) -> Option<Area> {
    let ring = |ring: &Vec<Xy>| ring.iter().map(|&p| place(p, east)).collect::<Ring>();
    Area::new(&Geometry::Polygon(rings.iter().map(ring).collect())).ok()
}

/// Compares, for a way whose ends are outside.
fn check(
    rings: &[Vec<Xy>],
    east: i128,
    ways: impl IntoIterator<Item = (Xy, Xy)>,
) -> Result<usize, TestCaseError> {
    let Some(area) = area(rings, east) else {
        return Ok(0);
    };
    let mut met = 0;
    for (a, b) in ways {
        if contains(rings, a, 1) || contains(rings, b, 1) {
            continue;
        }
        let segment = Segment::between(place(a, east), place(b, east));
        let expected = a != b && meets(rings, a, b);
        prop_assert_eq!(
            area.part_is_crossed(0, &segment),
            expected,
            "{:?} {:?}",
            a,
            b
        );
        met += usize::from(expected);
    }
    Ok(met)
}

fn closed(points: impl IntoIterator<Item = (i64, i64)>) -> Vec<Xy> {
    let mut ring: Vec<Xy> = (points.into_iter())
        .map(|(x, y)| (i128::from(x), i128::from(y)))
        .collect();
    ring.push(ring[0]);
    ring
}

fn square(west: i64, south: i64, east: i64, north: i64) -> Vec<Xy> {
    closed([(west, south), (east, south), (east, north), (west, north)])
}

#[test]
fn ways_past_and_through_a_frame() {
    let frame = [square(0, 0, 12, 12), square(3, 3, 9, 9)];
    // Two holes that meet in a point, one at the outer ring.
    let holes = [square(0, 0, 12, 12), square(0, 3, 6, 6), square(6, 6, 9, 9)];
    for (rings, a, b, expected) in [
        // Along an edge, past a corner, and from corner to corner's other side.
        (&frame[..], (-1, 0), (13, 0), true),
        (&frame, (-1, 12), (13, 12), true),
        (&frame, (0, -5), (0, -1), false),
        (&frame, (-1, 1), (1, -1), true),
        (&frame, (-1, 0), (0, -1), false),
        (&frame, (-6, 6), (18, 6), true),
        // Within the hole, and out of it.
        (&frame, (4, 4), (8, 8), false),
        (&frame, (4, 4), (18, 18), true),
        // Holes: from one into the other through the point where they meet.
        (&holes, (5, 5), (7, 7), true),
        (&holes, (1, 4), (5, 5), false),
        // Out of the hole that lies at the edge: the edge is inside.
        (&holes, (1, 4), (-1, 4), true),
        // The hole alone, without a ring around it, is nothing.
        (
            &[square(0, 0, 2, 2), square(4, 4, 6, 6)],
            (3, 5),
            (7, 5),
            false,
        ),
        // A hole over the edge takes that part of the edge away.
        (
            &[square(0, 0, 9, 9), square(-3, 3, 3, 6)],
            (-1, 4),
            (1, 4),
            false,
        ),
        (
            &[square(0, 0, 9, 9), square(-3, 3, 3, 6)],
            (-1, 4),
            (-1, 9),
            false,
        ),
        (
            &[square(0, 0, 9, 9), square(-3, 3, 3, 6)],
            (1, 4),
            (4, 10),
            true,
        ),
        // All of it is hole but its boundary.
        (
            &[square(0, 0, 9, 9), square(0, 0, 9, 9)],
            (-1, 4),
            (4, 4),
            true,
        ),
        (
            &[square(0, 0, 9, 9), square(0, 0, 9, 9)],
            (1, 4),
            (4, 4),
            false,
        ),
    ] {
        assert_eq!(meets(rings, a, b), expected, "the oracle: {a:?} {b:?}");
        for east in [0, 77, 180, -180, 179] {
            for (a, b) in [(a, b), (b, a)] {
                let segment = Segment::between(place(a, east), place(b, east));
                let got = area(rings, east).unwrap().part_is_crossed(0, &segment);
                assert_eq!(got, expected, "{a:?} {b:?} {east}");
            }
        }
    }
}

#[test]
fn circles_on_the_way() {
    let degree = EARTH_RADIUS_M.to_radians();
    for (center, radius_m, from, to, expected) in [
        (at(0.0, 0.0), degree, at(-2.0, 0.9), at(2.0, 0.9), true),
        (at(0.0, 0.0), degree, at(-2.0, 1.1), at(2.0, 1.1), false),
        (
            at(180.0, 0.0),
            degree,
            at(178.0, 0.5),
            at(-178.0, 0.5),
            true,
        ),
        (
            at(-180.0, 0.0),
            degree,
            at(-178.0, 0.5),
            at(178.0, 0.5),
            true,
        ),
        (at(0.0, 0.0), degree, at(178.0, 0.5), at(-178.0, 0.5), false),
        // Over the pole: straight in longitude–latitude is along the parallel.
        (
            at(20.0, 89.0),
            2.0 * degree,
            at(20.0, 86.5),
            at(-160.0, 86.5),
            false,
        ),
        (
            at(20.0, 89.0),
            2.0 * degree,
            at(-160.0, 86.5),
            at(-160.0, 90.0),
            true,
        ),
        (
            at(20.0, 90.0),
            degree,
            at(0.0, 88.9),
            at(179.0, 88.9),
            false,
        ),
        // The parallel of 60° reaches less far north than it seems to the circle's south.
        (
            at(0.0, 61.0),
            0.99 * degree,
            at(-60.0, 60.0),
            at(60.0, 60.0),
            false,
        ),
        (
            at(0.0, 61.0),
            1.01 * degree,
            at(-60.0, 60.0),
            at(60.0, 60.0),
            true,
        ),
        (at(77.0, 13.0), 20.0, at(77.0, 12.9), at(77.0, 13.1), true),
        (at(77.0, 13.0), 20.0, at(77.0, 13.1), at(77.0, 13.1), false),
    ] {
        let area = Area::new(&Geometry::Circle { center, radius_m }).unwrap();
        for (from, to) in [(from, to), (to, from)] {
            let got = area.part_is_crossed(0, &Segment::between(from, to));
            assert_eq!(got, expected, "{center:?} {from:?} {to:?}");
        }
        assert!(!area.part_is_crossed(1, &Segment::between(from, to)));
    }
}

/// 100,000 doorways and one fence around the world, and ways across all of it.
#[test]
fn a_way_round_the_world_pays_for_what_lies_along_it() {
    let mut index = FenceIndex::new();
    for number in 0..100_000u32 {
        let spread = |by: u32| f64::from(number.wrapping_mul(by) % 100_003) / 100_003.0 * 0.3;
        let center = at(77.45 + spread(40_503), 12.85 + spread(30_011));
        let radius_m = 20.0;
        index.insert(
            number,
            Area::new(&Geometry::Circle { center, radius_m })
                .unwrap()
                .boxes(),
        );
    }
    let belt = [
        (-180.0, -50.0),
        (0.0, -50.0),
        (180.0, -50.0),
        (180.0, 50.0),
        (0.0, 50.0),
        (-180.0, 50.0),
        (-180.0, -50.0),
    ];
    let belt = Geometry::Polygon(vec![belt.map(|(lon, lat)| at(lon, lat)).to_vec()]);
    index.insert(100_000, Area::new(&belt).unwrap().boxes());
    let started = std::time::Instant::now();
    let mut found = 0;
    for n in 0..200 {
        let south = f64::from(n) * 0.01 - 1.0;
        let way = Segment::between(at(-40.0, south), at(130.0, 19.0 + south));
        index.visit_along(&way, |_, _, _| found += 1);
        let way = Segment::between(at(-179.0, south), at(178.0, -south));
        index.visit_along(&way, |slot, _, _| assert_eq!(slot, 100_000));
    }
    // Asking each finest cell on the way, 400 times some millions, would take minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert!(found > 200, "{found}");
}

fn offset() -> impl Strategy<Value = i128> {
    prop_oneof![Just(0), Just(180), Just(-180), 170..190i128, -180..180i128]
}

fn grid(size: i64) -> impl Strategy<Value = Xy> {
    (-2..size, -2..size).prop_map(|(x, y)| (i128::from(x), i128::from(y)))
}

fn small_ring() -> impl Strategy<Value = Vec<Xy>> {
    proptest::collection::vec((0..10i64, 0..10i64), 3..8).prop_map(closed)
}

fn star(middle: i64, radii: &[i64]) -> Vec<Xy> {
    let n = radii.len() as f64;
    closed(radii.iter().enumerate().map(|(i, &r)| {
        let (sin, cos) = (i as f64 / n * std::f64::consts::TAU).sin_cos();
        let r = r as f64;
        (middle + (r * cos).round() as i64, (r * sin).round() as i64)
    }))
}

fn position() -> impl Strategy<Value = Position> {
    let lon = prop_oneof![
        -180.0..=180.0,
        178.0..=180.0,
        -180.0..=-178.0,
        Just(180.0),
        Just(-180.0)
    ];
    let lat = prop_oneof![
        -90.0..=90.0,
        88.0..=90.0,
        Just(90.0),
        Just(-90.0),
        Just(0.0)
    ];
    (lon, lat).prop_map(|(lon, lat)| at(lon, lat))
}

/// A longitude, degrees, brought into ±180.
fn wrap(lon: f64) -> f64 {
    (lon + 540.0).rem_euclid(360.0) - 180.0
}

fn near(p: Position, dx: f64, dy: f64) -> Position {
    at(wrap(p.longitude + dx), (p.latitude + dy).clamp(-90.0, 90.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Rings with whatever holes: side by side, overlapping, reaching out.
    #[test]
    fn small_rings_are_met_where_fractions_say(
        outer in small_ring(), holes in proptest::collection::vec(small_ring(), 0..3),
        east in offset(), ways in proptest::collection::vec((grid(12), grid(12)), 40),
    ) {
        let rings: Vec<_> = std::iter::once(outer).chain(holes).collect();
        check(&rings, east, ways)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn stars_with_holes_are_met_where_fractions_say(
        radii in proptest::collection::vec(100..400i64, 3..150),
        hole in proptest::collection::vec(10..95i64, 3..60),
        east in offset(),
        ways in proptest::collection::vec((-420..420i128, -420..420i128, -60..60i128, -60..60i128), 60),
    ) {
        let rings = [star(0, &radii), star(5, &hole)];
        let ways = ways.into_iter().flat_map(|(x, y, dx, dy)| {
            [((x, y), (x + dx, y + dy)), ((x, y), (-y, x)), ((x / 8, y / 8), (dx / 2, dy / 2))]
        });
        check(&rings, east, ways)?;
    }

    #[test]
    fn a_circle_is_met_where_samples_are_inside(
        center in position(), size in -5.0..1.5f64, dx in -3.0..3.0f64, dy in -3.0..3.0f64,
        ex in -3.0..3.0f64, ey in -3.0..3.0f64,
    ) {
        let degrees = 10f64.powf(size);
        let radius_m = EARTH_RADIUS_M.to_radians() * degrees;
        let area = Area::new(&Geometry::Circle { center, radius_m }).unwrap();
        let (from, to) = (near(center, dx * degrees, dy * degrees), near(center, ex * degrees, ey * degrees));
        let mut along = to.longitude - from.longitude;
        along -= 360.0 * (along / 360.0).round();
        let nearest = (0..=4000).map(|i| {
            let t = f64::from(i) / 4000.0;
            distance_m(center, at(from.longitude + t * along, from.latitude + t * (to.latitude - from.latitude)))
        }).fold(f64::INFINITY, f64::min);
        let slack = EARTH_RADIUS_M.to_radians() * 6.0 * degrees / 4000.0 + 0.1;
        let got = area.part_is_crossed(0, &Segment::between(from, to));
        prop_assume!(along.abs() < 179.0 && from != to);
        if nearest <= radius_m - 0.2 {
            prop_assert!(got, "{} {}", nearest, radius_m);
        }
        if nearest > radius_m + slack {
            prop_assert!(!got, "{} {}", nearest, radius_m);
        }
    }

    #[test]
    fn the_index_misses_nothing_on_the_way(
        areas in proptest::collection::vec((position(), -6.0..2.0f64, any::<bool>()), 1..40),
        ways in proptest::collection::vec((position(), position()), 8),
        hops in proptest::collection::vec((0..40usize, -3.0..3.0f64, -3.0..3.0f64, -3.0..3.0f64, -3.0..3.0f64), 30),
    ) {
        let geometry = |&(p, size, round): &(Position, f64, bool)| {
            let degrees = 10f64.powf(size);
            if round {
                let radius_m = EARTH_RADIUS_M.to_radians() * degrees;
                return Geometry::Circle { center: p, radius_m };
            }
            let degrees = degrees.min(60.0);
            let ring = vec![p, near(p, degrees, -degrees / 3.0), near(p, degrees / 2.0, degrees), p];
            let other = near(p, 3.0 * degrees, 0.0);
            let ring2 = vec![other, near(other, degrees, 0.0), near(other, 0.0, degrees / 2.0), other];
            Geometry::MultiPolygon(vec![vec![ring], vec![ring2]])
        };
        let prepared: Vec<Option<Area>> = areas.iter().map(|a| Area::new(&geometry(a)).ok()).collect();
        let mut index = FenceIndex::new();
        for (slot, area) in (0..).zip(&prepared) {
            if let Some(area) = area {
                index.insert(slot, area.boxes());
            }
        }
        let hops = hops.into_iter().map(|(slot, dx, dy, ex, ey)| {
            let (p, size, _) = areas[slot % areas.len()];
            let scale = 10f64.powf(size);
            (near(p, dx * scale, dy * scale), near(p, ex * scale, ey * scale))
        });
        for (from, to) in ways.into_iter().chain(hops) {
            let way = Segment::between(from, to);
            let mut found = Vec::new();
            index.visit_along(&way, |slot, part, at_end| found.push((slot, part, at_end)));
            for (slot, area) in (0..).zip(&prepared) {
                let Some(area) = area else { continue };
                for part in 0..area.boxes().len() as u32 {
                    if area.part_contains(part, to) {
                        prop_assert!(found.contains(&(slot, part, true)), "{slot} {to:?}");
                    } else if !area.part_contains(part, from) && area.part_is_crossed(part, &way) {
                        let is_found = found.iter().any(|f| (f.0, f.1) == (slot, part));
                        prop_assert!(is_found, "{slot} {from:?} {to:?}");
                    }
                }
            }
        }
    }
}

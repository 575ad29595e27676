//! The cells of a lattice are those of H3.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

type Vector = [f64; 3];

fn position(latitude: f64, longitude: f64) -> Position {
    Position {
        longitude: longitude.clamp(-180.0, 180.0),
        latitude: latitude.clamp(-90.0, 90.0),
    }
}

/// On the icosahedron's edges, where lattices meet.
fn on_edge(vertices: &[Vector], dice: &mut Pcg64Mcg) -> (f64, f64) {
    loop {
        let (one, other) = (dice.random_range(0..12), dice.random_range(0..12));
        let (one, other) = (vertices[one], vertices[other]);
        let cos: f64 = (0..3).map(|i| one[i] * other[i]).sum();
        // Neighbours are 63.4° apart.
        if (cos - 0.447).abs() < 0.01 {
            let part = dice.random_range(0.0..1.0);
            let [x, y, z] = [0, 1, 2].map(|i| one[i] * part + other[i] * (1.0 - part));
            let latitude = z.atan2(x.hypot(y)).to_degrees();
            return (latitude, y.atan2(x).to_degrees());
        }
    }
}

/// Pentagons are the icosahedron's vertices.
fn vertices() -> Vec<Vector> {
    let pentagons = h3o::CellIndex::base_cells().filter(|cell| cell.is_pentagon());
    let vector = |cell| {
        let place = h3o::LatLng::from(cell);
        let (sin_lat, cos_lat) = place.lat_radians().sin_cos();
        let (sin_lng, cos_lng) = place.lng_radians().sin_cos();
        [cos_lat * cos_lng, cos_lat * sin_lng, sin_lat]
    };
    pentagons.map(vector).collect()
}

/// All over the world, and densely where faces of the icosahedron meet.
#[test]
fn a_lattice_finds_the_cells_of_h3() {
    let mut dice = Pcg64Mcg::seed_from_u64(9);
    let vertices = vertices();
    assert_eq!(vertices.len(), 12);
    for resolution in [h3o::Resolution::Eight, h3o::Resolution::Nine] {
        let (mut found, mut all, mut crooked) = (0_u32, 0, 0);
        for round in 0..3_000 {
            let (latitude, longitude): (f64, f64) = if round % 3 == 0 {
                on_edge(&vertices, &mut dice)
            } else {
                let z: f64 = dice.random_range(-1.0..1.0);
                (z.asin().to_degrees(), dice.random_range(-180.0..180.0))
            };
            let start = position(latitude, longitude);
            let Some(lattice) = Lattice::fit(start, resolution) else {
                crooked += u32::from(round % 3 != 0);
                continue;
            };
            let (south, west) = corner(start);
            for _ in 0..100 {
                let mut near = |corner| {
                    let part: f64 = dice.random_range(0.0..1.0);
                    (f64::from(corner) + part) * PATCH_DEG
                };
                let here = position(near(south), near(west));
                all += 1;
                let Some(cell) = lattice.cell(here) else {
                    continue;
                };
                found += 1;
                let expected = h3_cell(here, resolution).map(u64::from);
                assert_eq!(Some(cell), expected, "{here:?}");
            }
        }
        eprintln!("{resolution}: {found} of {all}, {crooked} patches without a fit");
        assert!(f64::from(found) > 0.9 * f64::from(all), "{found} of {all}");
        assert!(crooked < 200, "{crooked}");
    }
}

#[test]
fn what_is_found_at_any_time_is_the_cell_of_h3() {
    let mut dice = Pcg64Mcg::seed_from_u64(10);
    let mut finder = CellFinder::new(h3o::Resolution::Nine);
    for (latitude, longitude) in [
        (12.9716, 77.5946),
        (-33.87, 151.21),
        (0.0, 0.0),
        (78.22, 15.65),
        (89.999, 10.0),
        (-90.0, 0.0),
        (10.0, 180.0),
        (10.0, -180.0),
    ] {
        for _ in 0..3_000 {
            let here = position(
                latitude + dice.random_range(-0.01..0.01),
                longitude + dice.random_range(-0.01..0.01),
            );
            let expected = h3_cell(here, h3o::Resolution::Nine).map_or(0, u64::from);
            assert_eq!(finder.find(here), expected, "{here:?}");
        }
    }
    assert!(finder.fits >= 8, "{} fits", finder.fits);
    assert_eq!(finder.find(position(f64::NAN, 0.0)), 0);
}

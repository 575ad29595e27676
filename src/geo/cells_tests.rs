//! The cells of a lattice are those of H3.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::geo::icosahedron::{on_edge, vertices};

fn position(latitude: f64, longitude: f64) -> Position {
    Position {
        longitude: longitude.clamp(-180.0, 180.0),
        latitude: latitude.clamp(-90.0, 90.0),
    }
}

/// All over the world, and densely where faces of the icosahedron meet.
#[test]
fn a_lattice_finds_the_cells_of_h3() {
    let mut dice = Pcg64Mcg::seed_from_u64(9);
    let vertices = vertices();
    for (resolution, rounds) in [
        (h3o::Resolution::Eight, 3_000),
        (h3o::Resolution::Nine, 3_000),
        (h3o::Resolution::Ten, 1_000),
    ] {
        let (mut found, mut all, mut crooked) = (0_u32, 0, 0);
        for round in 0..rounds {
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
        assert!(f64::from(found) > 0.9 * f64::from(all), "{found} of {all}");
        assert!(crooked < rounds / 15, "{crooked}");
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

/// Asks once in each of so many patches.
fn ask_many(finder: &mut CellFinder, patches: usize) {
    for number in 0..patches as i32 {
        let (row, column) = (number / 256, number % 256);
        let side = |n| f64::from(n) * PATCH_DEG + 0.001;
        finder.find(position(side(row) - 45.0, side(column)));
    }
}

#[test]
fn patches_are_forgotten_only_for_one_that_is_new() {
    let mut finder = CellFinder::new(h3o::Resolution::Nine);
    ask_many(&mut finder, PATCHES);
    assert_eq!(finder.patches.len(), PATCHES);
    // None of them has a fit, so all of them are asked again.
    ask_many(&mut finder, 1000);
    assert_eq!(finder.patches.len(), PATCHES);
    finder.find(position(78.0, 15.0));
    assert_eq!(finder.patches.len(), 1);
}

#[test]
fn a_patch_that_there_is_no_room_for_a_fit_of_is_left_to_h3() {
    let mut finder = CellFinder::new(h3o::Resolution::Nine);
    let (first, second) = (position(12.97, 77.59), position(-33.87, 151.21));
    let find_often = |finder: &mut CellFinder, here| {
        let expected = h3_cell(here, h3o::Resolution::Nine).map_or(0, u64::from);
        for _ in 0..2 * WORTH_A_FIT {
            assert_eq!(finder.find(here), expected);
        }
    };
    find_often(&mut finder, first);
    assert_eq!(finder.fits, 1);
    finder.fits = FITS;
    find_often(&mut finder, second);
    assert_eq!((finder.patches.len(), finder.fits), (2, FITS));
    let fits = finder.patches.values();
    assert_eq!(
        fits.filter(|patch| matches!(patch, Patch::Fit(_))).count(),
        1
    );
    finder.fits = 1;
    find_often(&mut finder, second);
    assert_eq!((finder.patches.len(), finder.fits), (2, 2));
}

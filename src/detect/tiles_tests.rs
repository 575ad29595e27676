//! Drivers that go step by step, so that most fixes are in a tile known: against the contract,
//! and against a detector that forgets all tiles before each fix.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::oracle::Oracle;
use super::oracle_tests::{Job, end_of, history, rules, told};
use super::oracle_world::{Record, TICK_MS, Timed, Told, Xy};
use super::tiles::{Fenced, Ground, Legs, Tiles};
use super::{Detector, Rules};
use crate::geo::{LonLatBox, Tile};
use crate::model::Position;

impl Detector {
    /// Forgets what follows from the rest.
    fn forget_tiles(&mut self) {
        for driver in &mut self.drivers.records {
            driver.ground = Ground::default();
        }
        self.fences.tiles = Tiles::default();
    }
}

/// Histories whose updates mostly go on from the driver's last one, by a part of a tile.
fn walks() -> impl Strategy<Value = Vec<Timed>> {
    let step = || -0.0007..0.0007f64;
    let steps = proptest::collection::vec(proptest::option::weighted(0.9, (step(), step())), 160);
    (history(160), steps).prop_map(|(mut history, steps)| {
        let mut last: BTreeMap<u64, Xy> = BTreeMap::new();
        for ((_, record), step) in history.iter_mut().zip(steps) {
            if let Record::Update { driver, xy, .. } = record {
                if let (Some((x, y)), Some(last)) = (step, last.get(driver)) {
                    *xy = (last.0 + x, last.1 + y);
                }
                last.insert(*driver, *xy);
            }
        }
        history
    })
}

/// The end of each tick.
fn ticks(until_ms: i64) -> Vec<i64> {
    (1..until_ms / TICK_MS).map(|n| n * TICK_MS).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_is_told_otherwise_than_without_tiles(walk in walks(), rules in rules()) {
        let until_ms = end_of(&walk);
        let ends = ticks(until_ms);
        let story = Job::new(1, &rules).run_with(&walk, &ends, until_ms, |_, _| {});
        let forgetful = Job::new(1, &rules).run_with(&walk, &ends, until_ms, |job, _| {
            job.detectors[0].forget_tiles();
        });
        prop_assert_eq!(&story, &forgetful);
        let oracle = Oracle::tell(&walk, &rules, until_ms);
        prop_assert_eq!(&story.1, &oracle.flags);
        for driver in 0..5 {
            let got: Vec<Told> =
                story.0.iter().map(told).filter(|told| told.driver == driver).collect();
            let expected: Vec<Told> =
                oracle.told.iter().filter(|told| told.driver == driver).cloned().collect();
            prop_assert_eq!(got, expected);
        }
    }
}

/// What the walks are worth: drivers are in tiles of every kind.
#[test]
fn walks_lead_over_tiles_of_every_kind() {
    let mut runner = TestRunner::deterministic();
    let (mut fences, mut legs) = ([0; 3], [0; 3]);
    let mut both = 0;
    for _ in 0..60 {
        let walk = walks().new_tree(&mut runner).unwrap().current();
        let until_ms = end_of(&walk);
        let job = Job::new(1, &Rules::default());
        job.run_with(&walk, &ticks(until_ms), until_ms, |job, _| {
            for driver in &job.detectors[0].drivers.records {
                let Ground {
                    fences: fenced,
                    legs: far,
                    ..
                } = driver.ground;
                fences[fenced as usize] += 1;
                legs[far as usize] += 1;
                let has_some = !driver.visits.is_empty() && driver.has_open_order();
                both += u32::from(has_some && fenced == Fenced::Even && far == Legs::Far);
            }
        });
    }
    assert!(
        fences.iter().chain(&legs).all(|&n| n > 1000),
        "{fences:?} {legs:?}"
    );
    assert!(both > 1000, "{both}");
}

#[test]
fn what_is_known_of_a_tile_is_asked_once_until_it_is_forgotten() {
    let spot = |longitude, latitude| Position {
        longitude,
        latitude,
    };
    let at = |longitude, latitude| Tile::at(spot(longitude, latitude));
    let unasked = || panic!("asked");
    let mut tiles = Tiles::default();
    assert!(tiles.is_even(at(77.0, 12.0), || true));
    assert!(!tiles.is_even(at(77.1, 12.1), || false));
    assert!(tiles.is_even(at(77.0, 12.0), unasked));
    assert!(!tiles.is_even(at(77.1, 12.1), unasked));
    // Whole multiples of the width apart, so that one takes the other's room.
    let apart = 360.0 / f64::from(1 << 10);
    assert!(!tiles.is_even(at(77.0 + apart, 12.0), || false));
    assert!(tiles.is_even(at(77.0, 12.0), || true));

    let around = |west, east, south, north| LonLatBox {
        west,
        east,
        south,
        north,
    };
    tiles.forget(&around(77.05, 77.2, 12.05, 12.2));
    assert!(tiles.is_even(at(77.0, 12.0), unasked));
    assert!(tiles.is_even(at(77.1, 12.1), || true));
    tiles.forget(&around(-180.0, 180.0, 12.1, 12.1));
    assert!(tiles.is_even(at(77.0, 12.0), unasked));
    assert!(!tiles.is_even(at(77.1, 12.1), || false));
    tiles.forget(&around(-180.0, 180.0, -90.0, 90.0));
    assert!(!tiles.is_even(at(77.0, 12.0), || false));
}

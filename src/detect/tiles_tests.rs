//! Drivers that go step by step, so that most fixes are in a tile known: against the contract,
//! and against a detector that forgets all tiles after each tick that brought records.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::oracle::Oracle;
use super::oracle_tests::{Job, Story, end_of, history, rules, told};
use super::oracle_world::{Record, Shape, TICK_MS, Timed, Told, Xy};
use super::tiles::{ALL_INSIDE, Ground, Legs, MOST_PARTS, Tiles};
use super::{Detector, Rules};
use crate::geo::{BoxedPart, LonLatBox, Tile};
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

/// As many columns as are remembered, so that tiles so far apart share a room.
const APART_DEG: f64 = 360.0 / (1 << 10) as f64;

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
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_is_told_otherwise_than_without_tiles(walk in walks(), rules in rules()) {
        same_without_tiles(&walk, &rules)?;
    }

    #[test]
    fn nothing_is_told_otherwise_where_tiles_share_rooms(
        walk in walks_in_two_cities(), rules in rules(),
    ) {
        same_without_tiles(&walk, &rules)?;
    }
}

fn same_without_tiles(walk: &[Timed], rules: &Rules) -> Result<(), TestCaseError> {
    let until_ms = end_of(walk);
    let ends = ticks(until_ms);
    let story = Job::new(1, rules).run_with(walk, &ends, until_ms, |_, _| {});
    let mut before = 0;
    let forgetful = Job::new(1, rules).run_with(walk, &ends, until_ms, |job, taken| {
        if taken > std::mem::replace(&mut before, taken) {
            job.detectors[0].forget_tiles();
        }
    });
    prop_assert_eq!(&story, &forgetful);
    same_as_the_oracle(&story, &Oracle::tell(walk, rules, until_ms))
}

/// As [`walks`], but every other driver and fence is so far off that its tiles share rooms with
/// those of the rest.
fn walks_in_two_cities() -> impl Strategy<Value = Vec<Timed>> {
    walks().prop_map(|mut walk| {
        for (_, record) in &mut walk {
            let (number, xy) = match record {
                Record::Fence(id, Some((Shape::Box(xy, ..) | Shape::Disc(xy, ..), _))) => {
                    (u64::from(*id), xy)
                }
                Record::Update { driver, xy, .. } => (*driver, xy),
                _ => continue,
            };
            if number % 2 == 1 {
                xy.0 += APART_DEG;
            }
        }
        walk
    })
}

/// Whether all flags and, driver by driver, all events are those of the contract.
pub(super) fn same_as_the_oracle(story: &Story, oracle: &Oracle) -> Result<(), TestCaseError> {
    prop_assert_eq!(&story.1, &oracle.flags);
    for driver in 0..5 {
        let got: Vec<Told> = (story.0.iter().map(told))
            .filter(|told| told.driver == driver)
            .collect();
        let expected: Vec<Told> = (oracle.told.iter())
            .filter(|told| told.driver == driver)
            .cloned()
            .collect();
        prop_assert_eq!(got, expected);
    }
    Ok(())
}

/// In an even tile, too, a visit ends once its fence's margin is passed.
#[test]
fn a_visit_ends_beyond_the_margin_wherever_that_is() {
    const MARGIN_M: f64 = 400.0;
    for direction in 0..16 {
        let angle = f64::from(direction) / 16.0 * std::f64::consts::TAU;
        // 10 m a second, from the middle of a disc of 100 m on; a degree of longitude is half
        // of one of latitude there.
        let step = (20.0 * angle.cos(), 10.0 * angle.sin());
        let mut walk: Vec<Timed> = (0..70)
            .map(|n| {
                let xy = (
                    step.0 * f64::from(n) / 111_195.0,
                    step.1 * f64::from(n) / 111_195.0,
                );
                let update = Record::Update {
                    driver: 1,
                    xy,
                    age_ms: 0,
                    speed: None,
                    accuracy: None,
                    partition: 0,
                    sequence: None,
                };
                (2000 + i64::from(n) * 1000, update)
            })
            .collect();
        let disc = Shape::Disc((0.0, 0.0), 100.0, MARGIN_M);
        walk.insert(0, (1000, Record::Fence(1, Some((disc, None)))));
        let until_ms = end_of(&walk);
        let rules = Rules::default();
        let (events, ..) = Job::new(1, &rules).run_with(&walk, &[], until_ms, |_, _| {});
        let got: Vec<Told> = events.iter().map(told).collect();
        assert_eq!(got.len(), 2, "{got:?}");
        assert_eq!(got, Oracle::tell(&walk, &rules, until_ms).told);
    }
}

/// What the walks are worth: drivers are in tiles of every kind.
#[test]
fn walks_lead_over_tiles_of_every_kind() {
    let mut runner = TestRunner::deterministic();
    let (mut even, mut legs) = ([0; 2], [0; 3]);
    let mut both = 0;
    for _ in 0..60 {
        let walk = walks().new_tree(&mut runner).unwrap().current();
        let until_ms = end_of(&walk);
        let job = Job::new(1, &Rules::default());
        job.run_with(&walk, &ticks(until_ms), until_ms, |job, _| {
            for driver in &job.detectors[0].drivers.records {
                let ground = driver.ground;
                even[usize::from(ground.even)] += 1;
                legs[ground.legs as usize] += 1;
                let has_some = !driver.visits.is_empty() && driver.has_open_order();
                both += u32::from(has_some && ground.even && ground.legs == Legs::Far);
            }
        });
    }
    assert!(
        even.iter().chain(&legs).all(|&n| n > 1000),
        "{even:?} {legs:?}"
    );
    assert!(both > 1000, "{both}");
}

/// In two cities whose tiles share rooms, drivers come to both kinds of them.
#[test]
fn walks_in_two_cities_are_in_tiles_known_and_not() {
    let mut runner = TestRunner::deterministic();
    let mut counts = [[0; 2]; 2];
    for _ in 0..60 {
        let walk = walks_in_two_cities()
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let until_ms = end_of(&walk);
        let job = Job::new(1, &Rules::default());
        job.run_with(&walk, &ticks(until_ms), until_ms, |job, _| {
            let detector = &job.detectors[0];
            for driver in &detector.drivers.records {
                let Some(fix) = driver.last else {
                    continue;
                };
                let is_known = detector.fences.tiles.has_room(Tile::at(fix.position));
                counts[(driver.id.0 % 2) as usize][usize::from(is_known)] += 1;
            }
        });
    }
    assert!(
        counts.as_flattened().iter().all(|&n| n > 1000),
        "{counts:?}"
    );
}

const ALL: LonLatBox = LonLatBox {
    west: -180.0,
    east: 180.0,
    south: -90.0,
    north: 90.0,
};

fn tile(longitude: f64, latitude: f64) -> Tile {
    Tile::at(Position {
        longitude,
        latitude,
    })
}

/// What is found in a tile that so many parts are in, if it is asked.
fn look(tiles: &mut Tiles, tile: Tile, parts: usize) -> Option<(usize, bool)> {
    let found = tiles.look(tile, |found| {
        found.extend((0..parts as u32).map(|slot| BoxedPart::new(slot, 0, &ALL)));
        parts <= MOST_PARTS
    });
    found.map(|(parts, is_even)| (parts.len(), is_even))
}

#[test]
fn what_is_in_a_tile_is_asked_once_until_it_is_forgotten() {
    const UNASKED: usize = usize::MAX;
    let mut tiles = Tiles::default();
    let (here, there) = (tile(77.0, 12.0), tile(77.1, 12.1));
    assert_eq!(look(&mut tiles, here, 0), Some((0, true)));
    assert_eq!(look(&mut tiles, there, 2), Some((2, false)));
    assert_eq!(look(&mut tiles, here, UNASKED), Some((0, true)));
    assert_eq!(look(&mut tiles, there, UNASKED), Some((2, false)));
    // One takes the other's room, since that isn't used any more when it is asked of again.
    let other = tile(77.0 + APART_DEG, 12.0);
    assert_eq!(look(&mut tiles, other, UNASKED), None);
    assert_eq!(look(&mut tiles, other, 1), Some((1, false)));
    assert_eq!(look(&mut tiles, here, 3), Some((3, false)));

    tiles.forget(&LonLatBox {
        west: 77.05,
        east: 77.2,
        south: 12.05,
        north: 12.2,
    });
    assert_eq!(look(&mut tiles, here, UNASKED), Some((3, false)));
    assert_eq!(look(&mut tiles, there, 4), Some((4, false)));
    tiles.forget(&LonLatBox {
        south: 12.1,
        north: 12.1,
        ..ALL
    });
    assert_eq!(look(&mut tiles, here, UNASKED), Some((3, false)));
    assert_eq!(look(&mut tiles, there, 5), Some((5, false)));
    tiles.forget(&ALL);
    assert_eq!(look(&mut tiles, here, 0), Some((0, true)));
}

#[test]
fn a_room_that_is_in_use_is_left_to_its_tile() {
    let mut tiles = Tiles::default();
    let (here, other) = (tile(77.0, 12.0), tile(77.0 + APART_DEG, 12.0));
    let mut asked = 0;
    let mut known = |tile| {
        let found = tiles.look(tile, |_| {
            asked += 1;
            true
        });
        found.is_some()
    };
    assert!(known(here));
    for _ in 0..100 {
        assert!(known(here));
        assert!(!known(other));
    }
    // Nobody is there any more.
    for _ in 0..100 {
        assert!(known(other));
    }
    assert_eq!(asked, 2);
}

#[test]
fn a_crowded_tile_is_remembered_as_that() {
    let mut tiles = Tiles::default();
    let here = tile(77.0, 12.0);
    assert_eq!(look(&mut tiles, here, MOST_PARTS + 1), None);
    assert_eq!(look(&mut tiles, here, 1), None);
    tiles.forget(&ALL);
    assert_eq!(
        look(&mut tiles, here, MOST_PARTS),
        Some((MOST_PARTS, false))
    );
}

#[test]
fn what_contains_all_of_a_tile_leaves_it_even() {
    let mut tiles = Tiles::default();
    let found = tiles.look(tile(77.0, 12.0), |found| {
        found.push(BoxedPart::new(7, ALL_INSIDE, &ALL));
        true
    });
    assert!(found.is_some_and(|(parts, is_even)| parts[0].slot == 7 && is_even));
}

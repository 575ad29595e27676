//! Looking for fences: where a part has two boxes in a tile, and where a tile is crowded.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::Rules;
use super::fences::Fences;
use super::oracle::Oracle;
use super::oracle_tests::{Job, end_of, told};
use super::oracle_world::{Record, Shape, TICK_MS, Timed, Xy, merge, position};
use super::tiles::{CROWDED, MOST_PARTS};
use super::tiles_tests::same_as_the_oracle;
use crate::geo::{Area, Segment, Tile};
use crate::model::{EventKind, Fence, FenceId, Geometry, Position};

fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

/// Puts a polygon without holes in force.
fn put(fences: &mut Fences, id: usize, ring: Vec<Position>) -> u32 {
    let geometry = Geometry::Polygon(vec![ring]);
    let area = Area::new(&geometry).unwrap();
    let fence = Fence {
        id: FenceId(format!("f{id}").into()),
        name: None,
        kind: None,
        geometry,
        dwell_s: None,
        exit_margin_m: 0.0,
    };
    fences.put(fence, area)
}

/// What a look finds, whatever is found already; and which fences its way crosses.
fn look(fences: &mut Fences, from: Option<Position>, to: Position) -> (Vec<u32>, Vec<u32>) {
    let way = from.map(|from| (from, Segment::between(from, to)));
    let (mut found, mut passed) = (vec![70, 71], vec![(72, 0), (73, 0)]);
    fences.look(to, way, &mut found, &mut passed);
    assert!(way.is_some() || passed.is_empty(), "{passed:?}");
    passed.retain(|&(slot, part)| {
        let fence = fences.get(slot).expect("in force");
        let (_, way) = way.as_ref().expect("a way");
        !found.contains(&slot) && fence.area.part_is_crossed(part, way)
    });
    let mut crossed: Vec<u32> = passed.into_iter().map(|(slot, _)| slot).collect();
    crossed.sort_unstable();
    crossed.dedup();
    (found, crossed)
}

/// Its ends are 40 m apart, in one tile; so each is a box of its own there.
#[test]
fn both_ends_of_a_part_around_the_earth_are_found_in_a_tile() {
    let (west, east) = (0.0010, 0.0005);
    let along = [west, 100.0, -160.0, -60.0, east];
    let south = along.iter().map(|&longitude| at(longitude, 10.0));
    let north = along.iter().rev().map(|&longitude| at(longitude, 11.0));
    let mut fences = Fences::default();
    let ring = south.chain(north).chain([at(west, 10.0)]).collect();
    let slot = put(&mut fences, 0, ring);
    for (longitude, is_inside) in [(0.0003, true), (0.0007, false), (0.0012, true)] {
        let here = at(longitude, 10.5);
        assert_eq!(Tile::at(here), Tile::at(at(0.0, 10.5)));
        let found = look(&mut fences, None, here).0;
        assert_eq!(found, vec![slot; usize::from(is_inside)], "{longitude}");
    }
    // Over the corner of either end, from the south into the gap between them.
    for from in [0.0002, 0.0013] {
        let (from, gap) = (at(from, 9.9999), at(0.0007, 10.0002));
        assert_eq!(Tile::at(from), Tile::at(gap));
        assert_eq!(look(&mut fences, Some(from), gap), (vec![], vec![slot]));
    }
}

/// Fences in one tile, more than are remembered of it.
const FENCES: u8 = 30;
/// So few of them are remembered again.
const REMOVED: u8 = 10;
const _: () = assert!(FENCES as usize > MOST_PARTS && ((FENCES - REMOVED) as usize) < MOST_PARTS);

/// The south-western corner of a small fence, off the places of fixes.
fn corner(id: u8) -> Xy {
    let (column, row) = (f64::from(id % 6), f64::from(id / 6));
    (
        0.000_501_234 + 0.0002 * column,
        -0.000_801_234 + 0.000_24 * row,
    )
}

/// 5 m by 13 m.
const SIZE: Xy = (0.0001, 0.000_12);

fn middle(id: u8) -> Position {
    let (x, y) = corner(id);
    position((x + SIZE.0 / 2.0, y + SIZE.1 / 2.0))
}

fn ring(id: u8) -> Vec<Position> {
    let (x, y) = corner(id);
    let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)];
    let corner = |(east, north)| position((x + SIZE.0 * east, y + SIZE.1 * north));
    corners.map(corner).to_vec()
}

#[test]
fn a_crowded_tile_is_looked_into_as_any_other() {
    let mut fences = Fences::default();
    let mut slots: Vec<u32> = (0..FENCES)
        .map(|id| put(&mut fences, id.into(), ring(id)))
        .collect();
    let tile = Tile::at(middle(0));
    assert!((0..FENCES).all(|id| Tile::at(middle(id)) == tile));
    let mut in_force = FENCES;
    for is_crowded in [true, false, true] {
        for id in 0..in_force {
            let own = vec![slots[usize::from(id)]];
            assert_eq!(look(&mut fences, None, middle(id)), (own.clone(), vec![]));
            // A way along a row of fences: from within the tile, from one that isn't crowded,
            // and from too far off for tiles.
            let row = id / 6 * 6..id;
            let mut row: Vec<u32> = row.map(|id| slots[usize::from(id)]).collect();
            row.sort_unstable();
            let beside = |longitude| at(longitude, middle(id).latitude);
            for from in [179.990_45, 179.9902, 179.95].map(beside) {
                let got = look(&mut fences, Some(from), middle(id));
                assert_eq!(got, (own.clone(), row.clone()), "{from:?} {id}");
            }
        }
        assert_eq!(fences.tiles.touch(tile) & CROWDED != 0, is_crowded);
        for id in FENCES - REMOVED..FENCES {
            if is_crowded {
                fences.remove(slots[usize::from(id)]);
            } else {
                slots[usize::from(id)] = put(&mut fences, id.into(), ring(id));
            }
        }
        in_force = if is_crowded { FENCES - REMOVED } else { FENCES };
    }
}

/// Drivers that walk among the fences, in the tile and around it; of the fences some are taken
/// away, and put back later.
fn walks() -> impl Strategy<Value = Vec<Timed>> {
    let gap = prop_oneof![9 => 1..6i64, 1 => 40..80i64];
    let step = (-0.0004..0.0004f64, -0.0004..0.0004f64);
    let fixes = proptest::collection::vec((gap, 0..3usize, step), 180);
    let dwell_s = prop_oneof![Just(None), Just(Some(0.0)), Just(Some(1.0))];
    (fixes, dwell_s, 0..FENCES).prop_map(|(fixes, dwell_s, removed)| {
        let fence = |id| Some((Shape::Box(corner(id), SIZE.0, SIZE.1, None), dwell_s));
        let mut at_ms = 30_000;
        let mut walk: Vec<Timed> = (0..FENCES)
            .map(|id| (at_ms, Record::Fence(id, fence(id))))
            .collect();
        let mut drivers = [(0.0011, -0.0002); 3];
        let removed = (0..REMOVED).map(|id| (id + removed) % FENCES);
        for (number, (ticks, driver, step)) in fixes.into_iter().enumerate() {
            at_ms += ticks * TICK_MS;
            if number == 60 || number == 120 {
                let change = |id| Record::Fence(id, fence(id).filter(|_| number == 120));
                walk.extend(removed.clone().map(|id| (at_ms, change(id))));
            }
            let xy = &mut drivers[driver];
            *xy = (
                (xy.0 + step.0).clamp(0.0002, 0.0020),
                (xy.1 + step.1).clamp(-0.0011, 0.0006),
            );
            let update = Record::Update {
                driver: driver as u64,
                xy: *xy,
                age_ms: 0,
                speed: None,
                accuracy: None,
                partition: 0,
                sequence: None,
            };
            walk.push((at_ms, update));
        }
        merge(&mut walk);
        walk
    })
}

fn rules() -> Rules {
    Rules {
        max_speed_mps: 1e6,
        crossing_gap_s: 10.0,
        ..Rules::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn walks_through_a_crowded_tile_are_told_as_the_contract_says(walk in walks()) {
        let until_ms = end_of(&walk);
        let story = Job::new(1, &rules()).run_with(&walk, &[], until_ms, |_, _| {});
        same_as_the_oracle(&story, &Oracle::tell(&walk, &rules(), until_ms))?;
    }
}

/// What these walks are worth: the tile is crowded first, then not, then again.
#[test]
fn walks_through_a_crowded_tile_cross_and_enter_fences_there() {
    let mut runner = TestRunner::deterministic();
    let tile = Tile::at(middle(0));
    let mut told_by_crowd = [[0; 2]; 3];
    for _ in 0..10 {
        let walk = walks().new_tree(&mut runner).unwrap().current();
        let until_ms = end_of(&walk);
        let removed_ms = walk[usize::from(FENCES)..]
            .iter()
            .filter_map(|timed| matches!(timed.1, Record::Fence(..)).then_some(timed.0));
        let removed_ms: Vec<i64> = removed_ms.collect();
        let (first_ms, second_ms) = (removed_ms[0], removed_ms[usize::from(REMOVED)]);
        let phase = |at_ms| usize::from(at_ms >= first_ms) + usize::from(at_ms >= second_ms);
        let mut crowded = Vec::new();
        let job = Job::new(1, &rules());
        let ends = [first_ms, second_ms];
        let (events, ..) = job.run_with(&walk, &ends, until_ms, |job, _| {
            crowded.push(job.detectors[0].fences.tiles.touch(tile) & CROWDED != 0);
        });
        assert_eq!(crowded, [true, false, true]);
        for event in events.iter().map(told) {
            let counts = &mut told_by_crowd[phase(event.at_ms)];
            counts[0] += u32::from(event.kind == EventKind::GeofenceEntered);
            counts[1] += u32::from(event.kind == EventKind::GeofenceCrossed);
        }
    }
    let counts = told_by_crowd.as_flattened();
    assert!(counts.iter().all(|&n| n > 20), "{told_by_crowd:?}");
}

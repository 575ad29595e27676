//! How long a driver's way is kept, what a late update still corrects, and what it all takes.

use super::drivers::{Drivers, Outcome, Saving};
use super::fix::{Counted, Fix};
use super::grid::Grid;
use super::{Refresh, Settings};
use crate::model::{DriverId, Epoch, Position, TimeMs, WindowRows};
use crate::snapshot::{Mark, Part};

const INTERVAL_MS: u64 = 1_000;
const START_S: i64 = 1_790_000_040;

fn grid(horizon_s: i64) -> Grid {
    let settings = Settings {
        size_ms: 60_000,
        hop_ms: 60_000,
        session_gap_ms: 600_000,
        horizon_ms: horizon_s * 1000,
        known_from_ms: TimeMs::MIN,
    };
    Grid::new(&settings, INTERVAL_MS)
}

/// A driver that goes north at 10 m/s.
fn counted(driver: u64, second: i64) -> Counted {
    let degrees_per_s = 10.0 / (6_371_008.8_f64.to_radians());
    Counted {
        driver: DriverId(driver),
        fix: Fix {
            at_ms: (START_S + second) * 1000,
            offset: second * 1_000 + driver as i64,
            partition: 0,
            speed_mps: None,
            position: Position {
                longitude: 77.6,
                latitude: 12.9 + degrees_per_s * second as f64,
            },
            after_dropped: false,
        },
    }
}

struct Fleet {
    drivers: Drivers,
    rows: WindowRows,
}

impl Fleet {
    fn new(horizon_s: i64) -> Self {
        let slots = Refresh::new(INTERVAL_MS).epochs();
        Self {
            drivers: Drivers::new(grid(horizon_s), slots),
            rows: WindowRows::default(),
        }
    }

    fn add(&mut self, counted: &Counted, now_s: i64) -> Outcome {
        self.drivers.add(counted, (START_S + now_s) * 1000)
    }

    fn finish(&mut self, now_s: i64) {
        let epoch = Epoch((START_S + now_s) as u64 - 1);
        let rows = &mut self.rows;
        self.drivers
            .finish(epoch, &mut rows.drivers, &mut rows.sessions);
        assert!(self.drivers.take_traffic().count() < 1_000);
    }

    /// A driver's window that holds now: metres and updates.
    fn minute(&mut self, driver: u64, minute: i64) -> (f64, u64) {
        let rows = &mut self.rows;
        self.drivers
            .tell_all(Epoch(u64::MAX), &mut rows.drivers, &mut rows.sessions);
        let start_ms = (START_S + 60 * minute) * 1000;
        let told = rows.drivers.iter().rev();
        let row = told
            .into_iter()
            .find(|row| row.driver.0 == driver && row.start_ms == start_ms)
            .expect("told");
        (row.distance_m, row.updates)
    }
}

#[test]
fn updates_sent_after_a_hole_fill_it_exactly_within_the_horizon() {
    let mut fleet = Fleet::new(86_400);
    let hole = 3_607..4_193;
    for second in (0..14_400).filter(|second| !hole.contains(second)) {
        assert_eq!(fleet.add(&counted(1, second), second + 1), Outcome::Exact);
        fleet.finish(second + 1);
    }
    // Almost three hours later, every other one backwards.
    for second in hole.clone().filter(|second| second % 2 == 0).rev() {
        let outcome = fleet.add(&counted(1, second), 14_400);
        assert_ne!(outcome, Outcome::BeyondHorizon);
    }
    let mut fleet_in_order = Fleet::new(86_400);
    for second in (0..14_400).filter(|second| !hole.contains(second)) {
        fleet_in_order.add(&counted(1, second), second + 1);
    }
    for second in hole.clone() {
        let outcome = fleet_in_order.add(&counted(1, second), 14_400);
        assert_eq!(outcome, Outcome::Exact, "second {second}");
    }
    for minute in 61..69 {
        let (metres, updates) = fleet_in_order.minute(1, minute);
        assert!((metres - 600.0).abs() < 1e-6, "{metres} m in {minute}");
        assert_eq!(updates, 60);
        let (metres, updates) = fleet.minute(1, minute);
        assert!((metres - 600.0).abs() < 1e-6, "{metres} m in {minute}");
        assert_eq!(updates, 30);
    }
}

#[test]
fn a_late_update_within_an_old_minute_counts_but_the_distance_goes_past_it() {
    let mut fleet = Fleet::new(86_400);
    for second in (0..7_200).step_by(2) {
        fleet.add(&counted(1, second), second + 1);
    }
    let aside = |second: i64| {
        let mut aside = counted(1, second);
        aside.fix.position.longitude += 0.01;
        aside
    };
    assert_eq!(fleet.add(&aside(7_200 - 851), 7_201), Outcome::Exact);
    let (metres, updates) = fleet.minute(1, 105);
    assert!(metres > 2_000.0, "{metres}");
    assert_eq!(updates, 31);

    assert_eq!(fleet.add(&aside(1_801), 7_201), Outcome::Approximate);
    let (metres, updates) = fleet.minute(1, 30);
    assert!((metres - 600.0).abs() < 1e-6, "{metres}");
    assert_eq!(updates, 31);
}

#[test]
fn memory_is_bounded_by_the_horizon() {
    let mut fleet = Fleet::new(1_800);
    let mut bytes = Vec::new();
    for second in 0..10_800 {
        for driver in 0..20 {
            fleet.add(&counted(driver, second), second + 1);
        }
        fleet.finish(second + 1);
        if second % 600 == 599 {
            bytes.push(fleet.drivers.heap_bytes());
        }
    }
    let (least, most) = (bytes[4..].iter().min(), bytes[4..].iter().max());
    let (least, most) = (*least.expect("some"), *most.expect("some"));
    assert!(most < least * 5 / 4, "it no longer grows: {bytes:?}");
    assert_eq!(fleet.drivers.len(), 20);

    // All go home; a sweep looks at every driver within minutes.
    for second in 10_800..14_400 {
        fleet.finish(second + 1);
    }
    assert_eq!(fleet.drivers.len(), 0);
}

#[test]
fn what_a_driver_takes_is_as_documented() {
    let hours = 4;
    let mut fleet = Fleet::new(86_400);
    for second in 0..hours * 3_600 {
        for driver in 0..5 {
            fleet.add(&counted(driver, second), second + 1);
        }
        fleet.finish(second + 1);
    }
    let (whole_fixes, minutes) = (16 * 60, hours as usize * 60);
    let bound = 5 * (1_000 + whole_fixes * 16 + minutes * 180);
    let bytes = fleet.drivers.heap_bytes();
    assert!(bytes <= bound, "{bytes} of {bound}");
}

/// A driver that goes north-east in the city, as phones tell it.
fn as_told(driver: u64, second: i64) -> Counted {
    let mut counted = counted(driver, second);
    let fix = &mut counted.fix;
    fix.at_ms += 37 * (second % 3);
    fix.offset = 123_456_789 + 50_000 * second + driver as i64;
    fix.speed_mps = Some(6.25 + (second % 20) as f32 / 4.0);
    fix.position = Position {
        longitude: (775_946_000 + 700 * second) as f64 / 1e7,
        latitude: (129_716_000 + 650 * second) as f64 / 1e7,
    };
    counted
}

impl Fleet {
    /// A second of all drivers.
    fn tick(&mut self, drivers: u64, second: i64) {
        for driver in 0..drivers {
            self.add(&as_told(driver, second), second + 1);
        }
        self.finish(second + 1);
    }

    fn save(&mut self, whole: bool, budget: usize) -> (Vec<Part>, u32) {
        // Of this number no driver's group is whole by turns.
        let mark = Mark { sequence: 1, whole };
        let (mut saving, mut portions) = (Saving::new(mark), 1);
        while !self.drivers.save(&mut saving, budget) {
            portions += 1;
        }
        (saving.finish(|_| false), portions)
    }
}

fn bytes_of(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.bytes.len()).sum()
}

/// Drivers none of whose key groups is whole at [`Fleet::save`].
const IN_PARTS: u64 = 12;

#[test]
fn a_snapshot_has_what_was_added_since_the_one_before() {
    let mut fleet = Fleet::new(86_400);
    (0..900).for_each(|second| fleet.tick(IN_PARTS, second));
    let (whole, _) = fleet.save(true, usize::MAX);
    let whole_bytes = bytes_of(&whole) / IN_PARTS as usize;
    assert_eq!(fleet.save(false, usize::MAX).0, [], "nothing has changed");
    let mut bytes = Vec::new();
    for ten_seconds in 90..102 {
        (10 * ten_seconds..10 * (ten_seconds + 1)).for_each(|second| fleet.tick(IN_PARTS, second));
        let (changes, _) = fleet.save(false, usize::MAX);
        bytes.push(bytes_of(&changes) / IN_PARTS as usize);
    }
    println!("a driver: {whole_bytes} bytes in all, changes in ten seconds {bytes:?}");
    let fixes = 900 * 15;
    assert!(whole_bytes < fixes + 16 * 80, "{whole_bytes}");
    let mean = bytes.iter().sum::<usize>() / bytes.len();
    assert!(mean < 10 * 15 + 120, "{bytes:?}");
}

#[test]
fn drivers_saved_in_portions_are_those_saved_at_once() {
    let mut fleets = [Fleet::new(86_400), Fleet::new(86_400)];
    for fleet in &mut fleets {
        (0..100).for_each(|second| fleet.tick(40, second));
    }
    let [one, other] = &mut fleets;
    let (at_once, portions) = one.save(true, usize::MAX);
    assert_eq!(portions, 1);
    let (in_portions, portions) = other.save(true, 5_000);
    assert!((8..=14).contains(&portions), "{portions}");
    assert_eq!(at_once, in_portions);
}

#[test]
fn changes_are_not_taken_for_the_whole() {
    let mut fleet = Fleet::new(86_400);
    (0..15).for_each(|second| fleet.tick(IN_PARTS, second));
    let (whole, _) = fleet.save(true, usize::MAX);
    (15..20).for_each(|second| fleet.tick(IN_PARTS, second));
    let (changes, _) = fleet.save(false, usize::MAX);
    let now_ms = (START_S + 20) * 1000;
    let drivers = || Drivers::new(grid(86_400), 10);
    let missing = drivers().restore(&changes, now_ms).expect_err("half of it");
    assert!(missing.ends_with("an earlier part is missing"), "{missing}");
    assert_restores(&mut fleet, &[whole, changes].concat(), 20);
}

/// What is restored is, when saved again, what was saved.
fn assert_restores(fleet: &mut Fleet, parts: &[Part], now_s: i64) {
    let mut again = Fleet::new(86_400);
    let restored = again.drivers.restore(parts, (START_S + now_s) * 1000);
    restored.expect("all of it");
    let (whole, _) = fleet.save(true, usize::MAX);
    assert_eq!(again.save(true, usize::MAX).0, whole);
}

/// Its pane is thin by then: what was saved of it before is not what it goes on from.
#[test]
fn an_update_held_back_for_long_goes_on_from_a_thin_pane() {
    let mut fleet = Fleet::new(86_400);
    (0..40).for_each(|second| fleet.tick(IN_PARTS, second));
    let (mut parts, _) = fleet.save(true, usize::MAX);
    for second in [45, 50] {
        for driver in 0..IN_PARTS {
            let outcome = fleet.add(&as_told(driver, second), 2_000 + second);
            assert_eq!(outcome, Outcome::Exact);
        }
        parts.extend(fleet.save(false, usize::MAX).0);
        assert_restores(&mut fleet, &parts, 2_000 + second);
    }
}

#[test]
fn what_is_told_is_not_told_again_after_a_restart() {
    let mut fleet = Fleet::new(86_400);
    (0..40).for_each(|second| fleet.tick(IN_PARTS, second));
    let (mut parts, _) = fleet.save(true, usize::MAX);
    (40..50).for_each(|second| fleet.finish(second + 1));
    parts.extend(fleet.save(false, usize::MAX).0);
    let mut again = Fleet::new(86_400);
    let now_ms = (START_S + 50) * 1000;
    again.drivers.restore(&parts, now_ms).expect("all of it");
    (50..60).for_each(|second| again.finish(second + 1));
    assert_eq!(again.rows, WindowRows::default());
}

#[test]
fn a_session_that_is_gone_is_told_after_a_restart() {
    let mut fleet = Fleet::new(86_400);
    fleet.add(&as_told(1, 0), 1);
    fleet.add(&as_told(1, 700), 701);
    (701..711).for_each(|second| fleet.finish(second));
    fleet.add(&as_told(1, 350), 711);
    let (parts, _) = fleet.save(true, usize::MAX);
    let mut again = Fleet::new(86_400);
    let now_ms = (START_S + 711) * 1000;
    again.drivers.restore(&parts, now_ms).expect("all of it");
    (711..721).for_each(|second| again.finish(second));
    let told = again.rows.sessions.iter();
    let updates: Vec<_> = told.map(|row| (row.start_ms, row.updates)).collect();
    let start_ms = |second| as_told(1, second).fix.at_ms;
    assert_eq!(updates, [(start_ms(700), 0), (start_ms(0), 3)]);
}

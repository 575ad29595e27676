//! The windows against loops over all updates: random drivers with late, simultaneous and
//! missing updates, cut up between workers and batches at random.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use timely::CommunicationConfig;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::operators::{Exchange as _, Input};

use super::fix::Fix;
use super::{Counted, Settings, windows};
use crate::dataflow::{Context, Output};
use crate::detect::Rules;
use crate::geo::distance_m;
use crate::model::{DriverId, Position, WindowRows};
use crate::telemetry::Metrics;
use crate::wire::Limits;

pub(super) const INTERVAL_MS: u64 = 1_000;
pub(super) const START_EPOCH: u64 = 1_790_000_000;

pub(super) fn settings() -> Settings {
    Settings {
        size_ms: 60_000,
        hop_ms: 60_000,
        session_gap_ms: 600_000,
        horizon_ms: 86_400_000,
        known_from_ms: i64::MIN,
    }
}

pub(super) struct Dice(pub(super) Pcg64Mcg);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

pub(super) type History = Vec<(u64, Vec<Counted>)>;

/// Drivers on their ways through some cells; some phones keep updates back for a while.
pub(super) fn history(dice: &mut Dice, drivers: u64, epochs: u64, latest_ms: u64) -> History {
    let mut held: BTreeMap<u64, Vec<Counted>> = BTreeMap::new();
    let mut at: Vec<(f64, f64)> = vec![(77.59, 12.97); drivers as usize];
    let mut away_until = vec![0; drivers as usize];
    let mut offset = 0;
    for epoch in START_EPOCH..START_EPOCH + epochs {
        for driver in 0..drivers {
            let number = driver as usize;
            if dice.one_in(600) {
                let pause = [70, 300, 599, 600, 601, 1_500][dice.below(6) as usize];
                away_until[number] = epoch + pause;
            }
            if epoch < away_until[number] || dice.one_in(2) {
                continue;
            }
            at[number].0 += (dice.below(400) as f64 - 195.0) * 1e-6;
            at[number].1 += (dice.below(400) as f64 - 200.0) * 1e-6;
            let delay_ms = match dice.below(10) {
                0 => dice.below(latest_ms),
                1 => dice.below(5_000),
                _ => 0,
            };
            // Whole seconds now and then, so that some are at the same time.
            let within = if dice.one_in(3) { 0 } else { dice.below(1_000) };
            let counted = Counted {
                driver: DriverId(driver),
                fix: Fix {
                    at_ms: (epoch * INTERVAL_MS + within) as i64,
                    offset,
                    partition: dice.below(2) as i32,
                    speed_mps: (!dice.one_in(3)).then(|| dice.below(2_000) as f32 / 100.0),
                    position: Position {
                        longitude: at[number].0,
                        latitude: at[number].1,
                    },
                    after_dropped: false,
                },
            };
            offset += 1;
            let arrives = epoch + delay_ms / INTERVAL_MS;
            held.entry(arrives).or_default().push(counted);
            if dice.one_in(50) {
                // Another one of the very same time.
                let mut twin = counted;
                twin.fix.offset = offset;
                twin.fix.position.latitude += 2e-4;
                offset += 1;
                held.entry(arrives + dice.below(30)).or_default().push(twin);
            }
        }
    }
    held.into_iter().collect()
}

/// What a worker's operators share.
pub(super) fn context(
    settings: Settings,
    outputs: SyncSender<Output>,
    metrics: Metrics,
    fail: impl Fn(String) + Send + Sync + 'static,
) -> Rc<Context> {
    Rc::new(Context {
        interval_ms: INTERVAL_MS,
        limits: Limits::default(),
        rules: Rules::default(),
        until: None,
        keep_history: false,
        windows: Some(settings),
        clock: Box::new(|| 0),
        outputs: Some(outputs),
        wanted: Box::new(|| None),
        is_spread: false,
        trays: Default::default(),
        fail: Arc::new(fail),
        metrics,
    })
}

/// Runs the dataflow and returns what it told, and the counts of updates beyond the horizon
/// and of approximations.
fn told(
    history: &History,
    settings: Settings,
    workers: usize,
    seed: u64,
) -> (WindowRows, u64, u64) {
    let (outputs, received) = sync_channel(1 << 20);
    let metrics = Metrics::new();
    let all = Arc::new(history.clone());
    let config = timely::Config {
        communication: CommunicationConfig::Process(workers),
        worker: timely::WorkerConfig::default(),
    };
    let counters = metrics.clone();
    let guards = timely::execute(config, move |worker| {
        let fail = |message: String| panic!("{message}");
        let context = context(settings, outputs.clone(), counters.clone(), fail);
        let mut input: InputHandle<u64, _> = InputHandle::new();
        let done = worker.dataflow::<u64, _, _>(|scope| {
            let counted = scope
                .input_from(&mut input)
                .exchange(|counted: &Counted| counted.driver.0 * 7 + 3);
            let marks = empty(scope);
            windows(counted, marks, None, &settings, &context, &Handle::new()).0
        });
        let index = worker.index() as u64;
        let peers = worker.peers() as u64;
        let mut dice = Dice(Pcg64Mcg::seed_from_u64(seed + index));
        for (epoch, counted) in all.iter() {
            input.advance_to(*epoch);
            for counted in counted {
                // Who reads a driver's updates changes from epoch to epoch.
                if (counted.driver.0 + epoch + seed) % peers == index {
                    input.send(*counted);
                    if dice.one_in(100) {
                        input.flush();
                        worker.step();
                    }
                }
            }
            if dice.one_in(5) {
                worker.step();
            }
        }
        // The clock goes on, and with it what is due is told.
        let end = all.last().map_or(0, |(epoch, _)| epoch + 20);
        input.advance_to(end);
        while done.less_than(&end) {
            worker.step();
        }
    });
    drop(guards.expect("timely starts"));
    let mut rows = WindowRows::default();
    for output in received.try_iter() {
        let Output::Windows { rows: some, .. } = output else {
            panic!("windows only");
        };
        rows.cells.extend(some.cells);
        rows.drivers.extend(some.drivers);
        rows.sessions.extend(some.sessions);
    }
    rows.cells
        .sort_by_key(|row| (row.start_ms, row.cell, row.version));
    rows.drivers
        .sort_by_key(|row| (row.driver, row.start_ms, row.version));
    rows.sessions
        .sort_by_key(|row| (row.driver, row.start_ms, row.version));
    let beyond = metrics.updates_beyond_horizon.get();
    (rows, beyond, metrics.window_approximations.get())
}

/// A cell's drivers, updates and speeds.
type Traffic = (BTreeSet<u64>, u64, Vec<f64>);

/// A cell's traffic; a driver's updates, metres and greatest speed; a
/// session's end, metres and updates.
#[derive(Default)]
struct Expected {
    cells: BTreeMap<(i64, u64), Traffic>,
    drivers: BTreeMap<(u64, i64), (u64, f64, Option<f64>)>,
    sessions: BTreeMap<(u64, i64), (i64, f64, u64)>,
}

/// The contract as loops over all updates up to an epoch.
fn expected(history: &History, settings: &Settings, through: u64) -> Expected {
    let mut by_driver: BTreeMap<u64, Vec<Fix>> = BTreeMap::new();
    for (epoch, counted) in history {
        let now_ms = ((epoch + 1) * INTERVAL_MS) as i64;
        for counted in counted.iter().filter(|_| *epoch <= through) {
            let pane = counted.fix.at_ms.div_euclid(settings.hop_ms);
            if (pane + 1) * settings.hop_ms > now_ms - settings.horizon_ms {
                by_driver
                    .entry(counted.driver.0)
                    .or_default()
                    .push(counted.fix);
            }
        }
    }
    let mut expected = Expected::default();
    for (driver, mut fixes) in by_driver {
        fixes.sort_by_key(|fix| (fix.at_ms, fix.partition, fix.offset));
        let mut session = 0;
        for (index, fix) in fixes.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &fixes[before]);
            let near = before.filter(|before| fix.at_ms - before.at_ms <= 60_000);
            let distance = near.map_or(0.0, |before| distance_m(before.position, fix.position));
            let took = near.map_or(0, |before| fix.at_ms - before.at_ms);
            let implied = (took > 0).then(|| distance / (took as f64 / 1000.0));
            let speed = fix.speed_mps.map(f64::from).or(implied);

            let mut start = fix.at_ms.div_euclid(settings.hop_ms) * settings.hop_ms;
            while fix.at_ms < start + settings.size_ms {
                let cell = h3o::LatLng::new(fix.position.latitude, fix.position.longitude)
                    .expect("valid")
                    .to_cell(h3o::Resolution::Eight);
                let entry = expected.cells.entry((start, cell.into())).or_default();
                entry.0.insert(driver);
                entry.1 += 1;
                entry.2.extend(speed);
                let entry = expected.drivers.entry((driver, start)).or_default();
                entry.0 += 1;
                entry.1 += distance;
                entry.2 = entry.2.into_iter().chain(speed).reduce(f64::max);
                start -= settings.hop_ms;
            }
            if before.is_none_or(|before| fix.at_ms - before.at_ms >= settings.session_gap_ms) {
                session = fix.at_ms;
            }
            let entry = expected.sessions.entry((driver, session)).or_default();
            entry.0 = fix.at_ms;
            entry.1 += distance;
            entry.2 += 1;
        }
    }
    expected
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-6 + 1e-9 * other.abs()
}

fn both_close(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => close(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Of each window the version that holds at `through` is the expected one.
fn assert_told(rows: &WindowRows, expected: &Expected, through: u64) {
    let mut cells = BTreeMap::new();
    for row in rows.cells.iter().filter(|row| row.version.0 <= through) {
        cells.insert((row.start_ms, row.cell), row);
    }
    assert!(cells.keys().eq(expected.cells.keys()), "cells at {through}");
    for (key, (drivers, updates, speeds)) in &expected.cells {
        let row = cells[key];
        let mean = (!speeds.is_empty()).then(|| speeds.iter().sum::<f64>() / speeds.len() as f64);
        let same = row.drivers == drivers.len() as u64 && row.updates == *updates;
        assert!(same, "{row:?} {drivers:?} {updates}");
        assert!(both_close(row.mean_speed_mps, mean), "{row:?} {mean:?}");
    }

    let mut drivers = BTreeMap::new();
    for row in rows.drivers.iter().filter(|row| row.version.0 <= through) {
        drivers.insert((row.driver.0, row.start_ms), row);
    }
    assert!(drivers.keys().eq(expected.drivers.keys()));
    for (key, (updates, distance, speed)) in &expected.drivers {
        let row = drivers[key];
        assert_eq!(row.updates, *updates, "{row:?}");
        assert!(close(row.distance_m, *distance), "{row:?} {distance}");
        assert!(both_close(row.max_speed_mps, *speed), "{row:?} {speed:?}");
    }

    let mut sessions = BTreeMap::new();
    for row in rows.sessions.iter().filter(|row| row.version.0 <= through) {
        sessions.insert((row.driver.0, row.start_ms), row);
    }
    sessions.retain(|_, row| row.updates > 0);
    assert!(sessions.keys().eq(expected.sessions.keys()), "at {through}");
    for (key, (end, distance, updates)) in &expected.sessions {
        let row = sessions[key];
        assert_eq!((row.end_ms, row.updates), (*end, *updates), "{row:?}");
        assert!(close(row.distance_m, *distance), "{row:?} {distance}");
    }
}

fn assert_each_version_once(rows: &WindowRows) {
    let cells: BTreeSet<_> = rows
        .cells
        .iter()
        .map(|r| (r.cell, r.start_ms, r.version))
        .collect();
    assert_eq!(cells.len(), rows.cells.len());
    let drivers: BTreeSet<_> = rows
        .drivers
        .iter()
        .map(|r| (r.driver, r.start_ms, r.version))
        .collect();
    assert_eq!(drivers.len(), rows.drivers.len());
    let sessions: BTreeSet<_> = rows
        .sessions
        .iter()
        .map(|r| (r.driver, r.start_ms, r.version))
        .collect();
    assert_eq!(sessions.len(), rows.sessions.len());
}

fn assert_same<R: std::fmt::Debug + PartialEq>(one: &[R], other: &[R]) {
    let differ = one.iter().zip(other).find(|(one, other)| one != other);
    assert_eq!(differ, None);
    assert_eq!(one.len(), other.len());
}

fn assert_same_rows(one: &WindowRows, other: &WindowRows) {
    assert_same(&one.cells, &other.cells);
    assert_same(&one.drivers, &other.drivers);
    assert_same(&one.sessions, &other.sessions);
}

#[test]
fn windows_are_those_of_loops_over_all_updates() {
    for seed in 0..4 {
        let mut dice = Dice(Pcg64Mcg::seed_from_u64(seed));
        let history = history(&mut dice, 5, 1_600, 700_000);
        let mut settings = settings();
        if seed % 2 == 1 {
            settings.hop_ms = 20_000;
        }
        let (rows, beyond, approximations) = told(&history, settings, 1, seed);
        assert_eq!((beyond, approximations), (0, 0));
        assert_each_version_once(&rows);
        let end = history.last().expect("not empty").0;
        assert_told(&rows, &expected(&history, &settings, end), end + 20);
        for workers in [2, 4] {
            let (again, ..) = told(&history, settings, workers, seed + 100);
            assert_same_rows(&again, &rows);
        }
    }
}

#[test]
fn at_every_refresh_of_cells_each_is_what_the_updates_so_far_make_it() {
    let mut dice = Dice(Pcg64Mcg::seed_from_u64(77));
    let history = history(&mut dice, 5, 300, 60_000);
    let (rows, ..) = told(&history, settings(), 2, 5);
    for through in (START_EPOCH..START_EPOCH + 300).step_by(10) {
        let expected = expected(&history, &settings(), through);
        let mut cells = BTreeMap::new();
        for row in rows.cells.iter().filter(|row| row.version.0 <= through) {
            cells.insert((row.start_ms, row.cell), row.updates);
        }
        let wanted: BTreeMap<_, _> = expected.cells.iter().map(|(k, v)| (*k, v.1)).collect();
        assert_eq!(cells, wanted, "at {through}");
    }
    let versions: BTreeSet<_> = rows.sessions.iter().map(|row| row.version).collect();
    assert!(
        versions.len() > 20,
        "drivers are told in turns: {versions:?}"
    );
}

#[test]
fn windows_beyond_the_horizon_hear_no_more() {
    let mut dice = Dice(Pcg64Mcg::seed_from_u64(3));
    let history = history(&mut dice, 4, 3_000, 1_200_000);
    let settings = Settings {
        horizon_ms: 900_000,
        ..settings()
    };
    let (rows, beyond, approximations) = told(&history, settings, 1, 1);
    assert!(beyond > 20, "{beyond}");
    assert_eq!(approximations, 0);
    let end = history.last().expect("not empty").0;
    assert_told(&rows, &expected(&history, &settings, end), end + 20);
    let (again, beyond_again, _) = told(&history, settings, 4, 2);
    assert_same_rows(&again, &rows);
    assert_eq!(beyond_again, beyond);
}

//! A run that is killed again and again, each time to go on from a snapshot with another
//! number of workers, against one that nothing disturbs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use timely::CommunicationConfig;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::operators::{Exchange as _, Input, Inspect};

use super::fix::Fix;
use super::oracle_tests::{Dice, History, START_EPOCH, context, history, settings};
use super::{Counted, Restored, Settings, windows};
use crate::dataflow::Output;
use crate::epoch::key_group;
use crate::model::{
    CellWindow, DriverId, DriverWindow, Epoch, Position, SessionWindow, WindowRows,
};
use crate::snapshot::{Kind, Mark, Part};
use crate::telemetry::Metrics;

/// A snapshot: its mark, its epoch, and the parts of all workers.
#[derive(Clone)]
struct Snapshot {
    mark: Mark,
    epoch: u64,
    parts: Vec<Part>,
}

/// What a restart reads of snapshots in a row: of each kind and group all since the last whole.
fn to_read(chain: &[Snapshot], kind: Kind, group: u64) -> Vec<Part> {
    let from = chain
        .iter()
        .rposition(|snapshot| snapshot.mark.is_whole(group));
    chain[from.expect("the first one is whole")..]
        .iter()
        .flat_map(|snapshot| &snapshot.parts)
        .filter(|part| part.kind == kind && u64::from(part.group) == group)
        .cloned()
        .collect()
}

/// Each worker's part of what a restart goes on from.
fn restored(chain: &[Snapshot], workers: usize, seed: u64) -> Vec<Restored> {
    let epoch = Epoch(chain.last().expect("not empty").epoch);
    let none = |_| Restored {
        epoch,
        trails: Vec::new(),
        cells: Vec::new(),
    };
    let mut restored: Vec<_> = (0..workers).map(none).collect();
    for group in 0..crate::epoch::KEY_GROUPS {
        let own = (group % workers as u64) as usize;
        let any = ((group / 3 + seed) % workers as u64) as usize;
        restored[own]
            .trails
            .extend(to_read(chain, Kind::Trails, group));
        restored[any]
            .cells
            .extend(to_read(chain, Kind::Cells, group));
    }
    restored
}

/// What a run told, the snapshots that it made, and why it failed.
#[derive(Default)]
struct Run {
    rows: WindowRows,
    snapshots: Vec<Snapshot>,
    failures: Vec<String>,
}

/// Runs the dataflow over some epochs, with marks, until all of them are in the windows or it
/// has failed; then drops it.
fn run(
    history: &History,
    epochs: RangeInclusive<u64>,
    marks: &[(u64, Mark)],
    restored: Vec<Restored>,
    settings: Settings,
    workers: usize,
    seed: u64,
) -> Run {
    let (outputs, received) = sync_channel(1 << 20);
    let in_range = history.iter().filter(|(epoch, _)| epochs.contains(epoch));
    let mut inputs: BTreeMap<u64, (Vec<Counted>, Option<Mark>)> = in_range
        .map(|(epoch, counted)| (*epoch, (counted.clone(), None)))
        .collect();
    for (epoch, mark) in marks {
        inputs.entry(*epoch).or_default().1 = Some(*mark);
    }
    let restored = Mutex::new(restored.into_iter().map(Some).collect::<Vec<_>>());
    let saved = Arc::new(Mutex::new(Vec::<(u64, Part)>::new()));
    let failures = Arc::new(Mutex::new(Vec::<String>::new()));
    let (collected, failed) = (Arc::clone(&saved), Arc::clone(&failures));
    let end = *epochs.end() + 1;
    let config = timely::Config {
        communication: CommunicationConfig::Process(workers),
        worker: timely::WorkerConfig::default(),
    };
    let guards = timely::execute(config, move |worker| {
        let index = worker.index();
        let told = Arc::clone(&failed);
        let fail = move |message| told.lock().expect("no panic").push(message);
        let context = context(settings, outputs.clone(), Metrics::new(), fail);
        let restored = restored
            .lock()
            .expect("no panic")
            .get_mut(index)
            .map(Option::take);
        let mut input: InputHandle<u64, _> = InputHandle::new();
        let mut marks: InputHandle<u64, _> = InputHandle::new();
        let collected = Arc::clone(&collected);
        let done = worker.dataflow::<u64, _, _>(|scope| {
            let counted = scope
                .input_from(&mut input)
                .exchange(|counted: &Counted| key_group(&counted.driver.0.to_le_bytes()));
            let (done, parts) = windows(
                counted,
                scope.input_from(&mut marks),
                restored.flatten(),
                &settings,
                &context,
                &Handle::new(),
            );
            parts.inspect_core(move |event| {
                if let Ok((stamp, parts)) = event {
                    let epoch = *stamp.least().expect("an epoch");
                    let mut collected = collected.lock().expect("no panic");
                    collected.extend(parts.iter().map(|part| (epoch, part.clone())));
                }
            });
            done
        });
        let peers = worker.peers() as u64;
        let mut dice = Dice(Pcg64Mcg::seed_from_u64(seed + index as u64));
        let mut late_marks = Vec::new();
        for (epoch, (counted, mark)) in &inputs {
            input.advance_to(*epoch);
            late_marks.extend(mark.map(|mark| (*epoch, mark)));
            if dice.one_in(10) {
                // What follows a mark may be there before it.
                worker.step();
                for (epoch, mark) in late_marks.drain(..) {
                    marks.advance_to(epoch);
                    marks.send(mark);
                }
                marks.advance_to(*epoch);
            }
            for counted in counted {
                if (counted.driver.0 + epoch + seed) % peers == index as u64 {
                    input.send(*counted);
                }
            }
            if dice.one_in(5) {
                worker.step();
            }
        }
        input.advance_to(end);
        for (epoch, mark) in late_marks {
            marks.advance_to(epoch);
            marks.send(mark);
        }
        marks.advance_to(end);
        while done.less_than(&end) && failed.lock().expect("no panic").is_empty() {
            worker.step();
        }
        for _ in 0..10 {
            worker.step();
        }
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    });
    drop(guards.expect("timely starts"));

    let mut run = Run {
        failures: std::mem::take(&mut failures.lock().expect("no panic")),
        ..Run::default()
    };
    let mut saved = std::mem::take(&mut *saved.lock().expect("no panic"));
    for (epoch, mark) in marks {
        let parts = saved.extract_if(.., |(of, _)| of == epoch);
        run.snapshots.push(Snapshot {
            mark: *mark,
            epoch: *epoch,
            parts: parts.map(|(_, part)| part).collect(),
        });
    }
    assert!(saved.is_empty(), "parts are of the epochs of marks");
    for output in received.try_iter() {
        let Output::Windows { rows, through } = output else {
            panic!("windows only");
        };
        assert!(through.0 < end);
        run.rows.cells.extend(rows.cells);
        run.rows.drivers.extend(rows.drivers);
        run.rows.sessions.extend(rows.sessions);
    }
    run
}

/// Tables as ClickHouse shows them: of each window the row with the greatest version.
#[derive(Debug, Default)]
struct Tables {
    cells: BTreeMap<(i64, u64), CellWindow>,
    drivers: BTreeMap<(u64, i64), DriverWindow>,
    sessions: BTreeMap<(u64, i64), SessionWindow>,
}

fn upsert<K: Ord, R>(table: &mut BTreeMap<K, R>, key: K, row: R, version: impl Fn(&R) -> Epoch) {
    if table
        .get(&key)
        .is_none_or(|old| version(old) < version(&row))
    {
        table.insert(key, row);
    }
}

impl Tables {
    fn add(&mut self, rows: WindowRows) {
        for row in rows.cells {
            upsert(&mut self.cells, (row.start_ms, row.cell), row, |row| {
                row.version
            });
        }
        for row in rows.drivers {
            upsert(
                &mut self.drivers,
                (row.driver.0, row.start_ms),
                row,
                |row| row.version,
            );
        }
        for row in rows.sessions {
            upsert(
                &mut self.sessions,
                (row.driver.0, row.start_ms),
                row,
                |row| row.version,
            );
        }
    }
}

fn assert_same<R: std::fmt::Debug + PartialEq>(one: Vec<R>, other: Vec<R>, what: &str) {
    let differ = one.iter().zip(&other).find(|(one, other)| one != other);
    assert_eq!(differ, None, "{what}");
    assert_eq!(one.len(), other.len(), "{what}");
}

/// Every row that was told in some epochs, in order.
fn told_in(rows: &WindowRows, epochs: RangeInclusive<u64>) -> WindowRows {
    let mut rows = rows.clone();
    rows.cells.retain(|row| epochs.contains(&row.version.0));
    rows.drivers.retain(|row| epochs.contains(&row.version.0));
    rows.sessions.retain(|row| epochs.contains(&row.version.0));
    rows.cells
        .sort_by_key(|row| (row.version, row.start_ms, row.cell));
    rows.drivers
        .sort_by_key(|row| (row.version, row.driver, row.start_ms));
    rows.sessions
        .sort_by_key(|row| (row.version, row.driver, row.start_ms));
    rows
}

fn assert_same_rows(one: WindowRows, other: WindowRows, what: &str) {
    assert_same(one.drivers, other.drivers, what);
    assert_same(one.sessions, other.sessions, what);
    assert_same(one.cells, other.cells, what);
}

/// Marks at random epochs, some in a row and some `most_s` apart; the very first is whole.
fn marks_in(
    dice: &mut Dice,
    epochs: RangeInclusive<u64>,
    most_s: u64,
    sequence: &mut u64,
) -> Vec<(u64, Mark)> {
    let mut marks = Vec::new();
    let mut epoch = *epochs.start() + dice.below(40);
    while epoch < *epochs.end() {
        let whole = *sequence == 0 || dice.one_in(6);
        let mark = Mark {
            sequence: *sequence,
            whole,
        };
        marks.push((epoch, mark));
        *sequence += 1;
        epoch += 1 + if dice.one_in(4) {
            0
        } else {
            dice.below(most_s)
        };
    }
    marks
}

/// Kills a run over `history` several times; in the end all must be as if it never was.
fn survives(history: &History, settings: Settings, most_s: u64, seed: u64) {
    let mut dice = Dice(Pcg64Mcg::seed_from_u64(seed));
    let end = history.last().expect("not empty").0 + 20;
    let undisturbed = run(
        history,
        START_EPOCH..=end,
        &[],
        Vec::new(),
        settings,
        1,
        seed,
    );
    let mut expected = Tables::default();
    expected.add(undisturbed.rows.clone());

    let mut tables = Tables::default();
    let mut chain: Vec<Snapshot> = Vec::new();
    let (mut from, mut sequence) = (START_EPOCH, 0);
    loop {
        let workers = [1, 2, 4][dice.below(3) as usize];
        let to = end.min(from + 150 + dice.below(500));
        let state = match chain.is_empty() {
            true => Vec::new(),
            false => restored(&chain, workers, seed),
        };
        let marks = marks_in(&mut dice, from..=to, most_s, &mut sequence);
        let run = run(
            history,
            from..=to,
            &marks,
            state,
            settings,
            workers,
            seed + to,
        );
        assert_eq!(run.failures, [""; 0]);
        let whole = |part: &&Part| part.whole && part.kind == Kind::Cells;
        for snapshot in &run.snapshots {
            let wholes = snapshot.parts.iter().filter(whole).count();
            assert!(wholes >= 8, "an empty group is whole too");
        }
        // The next run goes on from one of its snapshots, nearly always the last.
        let back = if dice.one_in(3) {
            dice.below(4) as usize
        } else {
            0
        };
        let kept = run.snapshots.len().saturating_sub(back).max(1);
        chain.extend(run.snapshots.into_iter().take(kept));
        let last = chain.last().expect("a mark within 150 epochs");
        let through = if to == end { end } else { last.epoch };
        let what = format!("seed {seed}: {workers} workers from {from} through {through}");
        assert_same_rows(
            told_in(&run.rows, from..=through),
            told_in(&undisturbed.rows, from..=through),
            &what,
        );
        tables.add(run.rows);
        if to == end {
            break;
        }
        (from, sequence) = (last.epoch + 1, last.mark.sequence + 1);
    }
    let changes = chain.iter().filter(|snapshot| !snapshot.mark.whole);
    assert!(changes.count() > 8);
    let text = |tables: &Tables| format!("{tables:#?}");
    let (expected, tables) = (text(&expected), text(&tables));
    let differ = expected
        .lines()
        .zip(tables.lines())
        .find(|(one, other)| one != other);
    assert_eq!(differ, None, "seed {seed}");
    assert_eq!(expected.len(), tables.len(), "seed {seed}");
}

#[test]
fn a_killed_run_tells_what_an_undisturbed_one_does() {
    for seed in 0..4 {
        let mut dice = Dice(Pcg64Mcg::seed_from_u64(seed));
        let history = history(&mut dice, 5, 1_600, 700_000);
        let mut settings = settings();
        if seed % 2 == 1 {
            settings.hop_ms = 20_000;
        }
        survives(&history, settings, 25, seed);
    }
}

/// Drivers and windows leave memory, and old updates come that count no more.
#[test]
fn what_has_passed_the_horizon_does_not_come_back() {
    for (seed, horizon_ms) in [(10, 200_000), (11, 400_000), (12, 1_100_000)] {
        let mut dice = Dice(Pcg64Mcg::seed_from_u64(seed));
        let history = history(&mut dice, 4, 1_800, horizon_ms + 200_000);
        let settings = Settings {
            horizon_ms: horizon_ms as i64,
            hop_ms: if seed == 11 { 30_000 } else { 60_000 },
            ..settings()
        };
        // Windows are told, expire and are forgotten between two marks.
        survives(&history, settings, 250, seed);
    }
}

#[test]
fn a_part_that_cannot_be_read_ends_the_job_and_nothing_is_told() {
    let mut dice = Dice(Pcg64Mcg::seed_from_u64(20));
    let history = history(&mut dice, 5, 120, 10_000);
    let epochs = START_EPOCH..=START_EPOCH + 100;
    let mut sequence = 0;
    let marks = marks_in(
        &mut dice,
        START_EPOCH + 10..=START_EPOCH + 90,
        25,
        &mut sequence,
    );
    let made = run(&history, epochs, &marks, Vec::new(), settings(), 2, 1);
    let from = made.snapshots.last().expect("some").epoch + 1;
    for kind in [Kind::Trails, Kind::Cells] {
        let mut chain = made.snapshots.clone();
        let parts = &mut chain.last_mut().expect("some").parts;
        let mut filled = parts.iter_mut().filter(|part| !part.bytes.is_empty());
        let part = filled.find(|part| part.kind == kind).expect("some");
        part.bytes.pop();
        let state = restored(&chain, 2, 0);
        let torn = run(&history, from..=from + 20, &[], state, settings(), 2, 2);
        assert_eq!(torn.failures.len(), 1, "{:?}", torn.failures);
        let message = &torn.failures[0];
        assert!(message.starts_with("could not decode"), "{message}");
        assert!(torn.rows.cells.is_empty(), "cells need all workers' trails");
    }
}

/// One run through all marks, and one that goes on from the last of them.
fn resumes(history: &History, settings: Settings, marks: &[(u64, Mark)], end: u64) {
    let epochs = START_EPOCH..=end;
    let whole = run(history, epochs, marks, Vec::new(), settings, 1, 0);
    let from = marks.last().expect("some").0 + 1;
    let state = restored(&whole.snapshots, 2, 0);
    let resumed = run(history, from..=end, &[], state, settings, 2, 0);
    let expected = told_in(&whole.rows, from..=end);
    assert_same_rows(told_in(&resumed.rows, from..=end), expected, "resumed");
}

fn update(epoch: u64, at_ms: i64) -> (u64, Vec<Counted>) {
    let fix = Fix {
        at_ms,
        offset: epoch as i64,
        partition: 0,
        speed_mps: Some(5.0),
        position: Position {
            longitude: 77.59,
            latitude: 12.97,
        },
        after_dropped: false,
    };
    let driver = DriverId(7);
    (epoch, vec![Counted { driver, fix }])
}

fn mark(sequence: u64) -> Mark {
    let whole = sequence == 0;
    Mark { sequence, whole }
}

/// The first epoch by which a minute has passed a horizon of 203 s.
fn expiry(minute: i64) -> u64 {
    (minute * 60 + 60 + 203 - 1) as u64
}

#[test]
fn what_expires_before_it_is_told_is_told_after_a_restart() {
    let settings = Settings {
        horizon_ms: 203_000,
        ..settings()
    };
    let minute = START_EPOCH as i64 / 60 + 1;
    let late = expiry(minute) - 1;
    assert_eq!(late % 10, 1, "told nine epochs later");
    let history = vec![update(late, minute * 60_000 + 5_000)];
    resumes(&history, settings, &[(late + 3, mark(0))], late + 20);
}

#[test]
fn what_was_told_and_has_expired_is_not_told_again_after_a_restart() {
    let settings = Settings {
        horizon_ms: 203_000,
        ..settings()
    };
    let minute = START_EPOCH as i64 / 60 + 1;
    let first = minute as u64 * 60 + 1;
    let later = expiry(minute) + 100;
    let history = [first, later, later + 20]
        .map(|epoch| update(epoch, epoch as i64 * 1000))
        .to_vec();
    let start_ms = minute * 60_000;
    assert!(!mark(1).is_whole(key_group(&start_ms.to_le_bytes())));
    let marks = [(first + 2, mark(0)), (later + 15, mark(1))];
    resumes(&history, settings, &marks, later + 40);
}

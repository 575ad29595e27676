//! What one update costs the detector, once everything is known: 100,000 drivers, 20,000
//! orders, 1,000 and 100,000 fences, on one core.
//!
//! The city is that of `common/city.rs`. Each round takes 1 s of event time; every fifth driver
//! has an open order. Figures per update are process CPU time of the timed calls alone, the end
//! of the round's epoch and the handing on of the judged update among them; how many fences a
//! fix is in, and how many events come of it, is printed beside. What an export for a snapshot
//! costs, and an import, is for all drivers as they are then, written by postcard into parts by
//! key group.
//!
//! Run with `cargo bench --bench detect`.

#[path = "common/city.rs"]
mod city;

use std::time::{Duration, Instant};

use riderflow::detect::{Detector, DriverState, Outputs, Rules};
use riderflow::epoch::key_group;
use riderflow::geo::{Area, FenceIndex};
use riderflow::model::{DriverId, EventKind, FenceChange};
use riderflow::snapshot::{Kind, Mark, Parts};

use city::{Dice, Going, judge, round};

const DRIVERS: usize = 100_000;
const ORDERS: usize = 20_000;
const ROUNDS: i64 = 20;

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this runs on Linux");
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = (fields.split_whitespace().skip(11).take(2))
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this runs on Linux");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|p| p.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn measure(fences: usize, lateness_s: f64, dwell_s: Option<f64>) {
    let mut dice = Dice(7);
    let rules = Rules {
        lateness_s,
        ..Rules::default()
    };
    let mut detector = Detector::new(rules.clone());
    let mut out = Outputs::default();
    let mut going = dice.drivers(DRIVERS);

    for update in round(&mut dice, &mut going, 1000) {
        detector.on_update(update, 0, &mut out);
    }

    let changes = city::fences(&mut dice, fences, dwell_s, 1001);
    let mut index = FenceIndex::new();
    let mut areas = Vec::new();
    for (slot, change) in (0..).zip(&changes) {
        let fence = change.fence.as_ref().expect("none is removed");
        let area = Area::new(&fence.geometry).expect("the rings are stars");
        index.insert(slot, area.boxes());
        areas.push(area);
    }
    let versions = changes.clone();
    let started = Instant::now();
    for change in versions {
        detector.on_fence(change, 0, &mut out);
    }
    let per_fence = started.elapsed() / fences as u32;

    for step in city::orders(&mut dice, ORDERS, 1002) {
        detector.on_order(step, 0, &mut out);
    }

    out = Outputs::default();
    let (mut busy, mut wall) = (Duration::ZERO, Duration::ZERO);
    let mut near = 0;
    let mut events = 0;
    for n in 2..2 + ROUNDS {
        let updates = round(&mut dice, &mut going, n * 1000);
        let (cpu_before, started) = (cpu(), Instant::now());
        judge(&mut detector, updates, n * 1000 + 1, &mut out);
        wall += started.elapsed();
        busy += cpu() - cpu_before;
        near += out
            .events
            .iter()
            .filter(|e| e.kind == EventKind::AgentNear)
            .count();
        events += out.events.len();
        out.events.clear();
        out.judged.clear();
    }
    let updates = (DRIVERS as i64 * ROUNDS) as f64;

    let (mut candidates, mut inside) = (0u64, 0u64);
    for Going { spot, .. } in &going {
        index.visit(*spot, |slot, _| {
            candidates += 1;
            inside += u64::from(areas[slot as usize].contains(*spot));
        });
    }
    println!(
        "{fences} fences: {:.0} ns CPU ({:.0} ns wall) per update; a fix has {:.2} candidates \
         and is in {:.2} fences; {:.4} events per update, {near} of them near; {per_fence:?} per fence added before {DRIVERS} drivers",
        busy.as_nanos() as f64 / updates,
        wall.as_nanos() as f64 / updates,
        candidates as f64 / DRIVERS as f64,
        inside as f64 / DRIVERS as f64,
        events as f64 / updates,
    );
    snapshot(detector, rules, changes);
}

/// All drivers' state out into parts, and into another detector.
fn snapshot(mut detector: Detector, rules: Rules, fences: Vec<FenceChange>) {
    const TIMES: u32 = 50;
    let group = |driver: DriverId| key_group(&driver.0.to_le_bytes());
    let mut export = |whole| {
        let mark = Mark { sequence: 0, whole };
        let (mut parts, mut shown) = (Vec::new(), 0);
        let mut busy = Duration::ZERO;
        for _ in 0..TIMES {
            let mut new = Parts::new(Kind::Drivers, mark);
            shown = 0;
            let cpu_before = cpu();
            detector.export(
                |driver| mark.is_whole(group(driver)),
                |state, _| {
                    new.add(group(state.driver()), state);
                    shown += 1;
                },
            );
            busy += cpu() - cpu_before;
            parts = new.finish(|_| true);
        }
        (parts, shown, busy / TIMES)
    };
    let (parts, all, all_busy) = export(true);
    let (_, some, some_busy) = export(false);
    assert_eq!(all, DRIVERS);
    let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();

    let mut fresh = Detector::new(rules);
    for change in fences {
        fresh.on_fence(change, 0, &mut Outputs::default());
    }
    let cpu_before = cpu();
    for part in &parts {
        part.entries(|state: DriverState| fresh.import(state))
            .expect("it was just written");
    }
    let import_busy = cpu() - cpu_before;
    assert_eq!(fresh.driver_count(), DRIVERS);
    let each = |busy: Duration| busy.as_nanos() as f64 / DRIVERS as f64;
    println!(
        "    export: {:.0} ns CPU and {:.0} bytes per driver, of {DRIVERS}; {some_busy:?} in all \
         where none has changed and the groups that are whole have {some}; import: {:.0} ns per \
         driver",
        each(all_busy),
        bytes as f64 / DRIVERS as f64,
        each(import_busy),
    );
}

/// Memory of drivers that have sent one update and are in no fence.
fn idle() {
    let mut dice = Dice(7);
    let mut detector = Detector::new(Rules::default());
    let mut going = dice.drivers(DRIVERS);
    let updates = round(&mut dice, &mut going, 1000);
    let before = resident();
    for update in updates {
        let mut out = Outputs::default();
        detector.on_update(update, 0, &mut out);
    }
    let bytes = (resident() - before) as f64 / DRIVERS as f64;
    println!(
        "{} idle drivers: {bytes:.0} bytes each",
        detector.driver_count()
    );
}

fn main() {
    idle();
    for fences in [1_000, 100_000] {
        measure(fences, 0.0, None);
    }
    print!("2 s of lateness, 5 s of dwell: ");
    measure(1_000, 2.0, Some(5.0));
}

//! What one update costs the detector, once everything is known: 100,000 drivers, 20,000
//! orders, 1,000 and 100,000 fences, on one core.
//!
//! Density of the input: a city of 33 × 33 km. 10 fences are districts (polygons of 60
//! vertices, 4 to 12 km across), up to 1,000 are quarters (30 vertices, 0.3 to 1.5 km), the
//! rest doorways (circles of 10 to 40 m). Each round moves each driver by 10 m, more or less
//! straight on, and takes 1 s of event time; the drivers report in an order of their own each
//! round, as from a topic, so each finds its state cold; every fifth driver has an open order.
//! Figures per update are
//! process CPU time of the timed calls alone, the end of the round's epoch and the handing on
//! of the judged update among them; how many fences a fix is in, and how many events come of
//! it, is printed beside. What an export for a snapshot costs, and an import, is for all
//! drivers as they are then, written by postcard into parts by key group.
//!
//! Run with `cargo bench --bench detect`.

use std::time::{Duration, Instant};

use riderflow::detect::{Detector, DriverState, OrderBook, Outputs, Rules};
use riderflow::epoch::key_group;
use riderflow::geo::{Area, FenceIndex};
use riderflow::model::{
    DriverId, EventKind, Fence, FenceChange, FenceId, Geometry, Input, Order, OrderChange, OrderId,
    OrderStatus, Place, Position, Source, Stop, Update,
};
use riderflow::snapshot::{Kind, Mark, Parts};

const DRIVERS: usize = 100_000;
const ORDERS: usize = 20_000;
const ROUNDS: i64 = 20;

/// SplitMix64: the same city every time.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    fn spot(&mut self) -> Position {
        Position {
            longitude: self.between(77.45, 77.75),
            latitude: self.between(12.85, 13.15),
        }
    }
}

fn place(input: Input, at_ms: i64) -> Place {
    let partition = 0;
    let offset = at_ms;
    Place {
        at_ms,
        source: Source {
            input,
            partition,
            offset,
        },
    }
}

/// A ragged ring around a spot, `across` metres wide.
fn ring(dice: &mut Dice, across: f64, vertices: usize) -> Geometry {
    let middle = dice.spot();
    let mut ring: Vec<Position> = (0..vertices)
        .map(|i| {
            let angle = i as f64 / vertices as f64 * std::f64::consts::TAU;
            let r = across / 2.0 / 111_195.0 * dice.between(0.7, 1.0);
            Position {
                longitude: middle.longitude + r * angle.cos(),
                latitude: middle.latitude + r * angle.sin(),
            }
        })
        .collect();
    ring.push(ring[0]);
    Geometry::Polygon(vec![ring])
}

fn geometry(dice: &mut Dice, number: usize, count: usize) -> Geometry {
    let quarters = 10 + (count / 10).min(1000);
    if number < 10 {
        let across = dice.between(4000.0, 12_000.0);
        ring(dice, across, 60)
    } else if number < quarters {
        let across = dice.between(300.0, 1500.0);
        ring(dice, across, 30)
    } else {
        Geometry::Circle {
            center: dice.spot(),
            radius_m: dice.between(10.0, 40.0),
        }
    }
}

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

/// Where a driver is, and where it heads, radians.
struct Going {
    spot: Position,
    heading: f64,
}

fn drivers(dice: &mut Dice) -> Vec<Going> {
    (0..DRIVERS)
        .map(|_| Going {
            spot: dice.spot(),
            heading: dice.between(0.0, std::f64::consts::TAU),
        })
        .collect()
}

fn round(dice: &mut Dice, drivers: &mut [Going], at_ms: i64) -> Vec<Update> {
    let mut updates: Vec<Update> = (0..)
        .zip(drivers)
        .map(|(driver, going)| {
            going.heading += dice.between(-0.5, 0.5);
            going.spot.longitude += 9e-5 * going.heading.cos();
            going.spot.latitude += 9e-5 * going.heading.sin();
            Update {
                place: place(Input::Updates, at_ms),
                driver: DriverId(driver),
                position: going.spot,
                event_time_ms: at_ms,
                received_at_ms: at_ms,
                accuracy_m: Some(8.0),
                speed_mps: Some(6.0),
                heading_deg: None,
                state: None,
            }
        })
        .collect();
    for last in (1..updates.len()).rev() {
        updates.swap(last, dice.between(0.0, (last + 1) as f64) as usize);
    }
    updates
}

fn measure(fences: usize, lateness_s: f64, dwell_s: Option<f64>) {
    let mut dice = Dice(7);
    let rules = Rules {
        lateness_s,
        ..Rules::default()
    };
    let mut detector = Detector::new(rules.clone());
    let mut out = Outputs::default();
    let mut going = drivers(&mut dice);

    for update in round(&mut dice, &mut going, 1000) {
        detector.on_update(update, 0, &mut out);
    }

    let mut changes = Vec::new();
    let mut index = FenceIndex::new();
    let mut areas = Vec::new();
    let started = Instant::now();
    for number in 0..fences {
        let id = FenceId(format!("fence-{number}").into());
        let geometry = geometry(&mut dice, number, fences);
        let area = Area::new(&geometry).expect("the rings are stars");
        index.insert(number as u32, area.boxes());
        areas.push(area);
        let fence = Some(Fence {
            id: id.clone(),
            name: None,
            kind: None,
            geometry,
            dwell_s,
            exit_margin_m: 20.0,
        });
        let place = place(Input::Geofences, 1001);
        let change = FenceChange { place, id, fence };
        changes.push(change.clone());
        detector.on_fence(change, 0, &mut out);
    }
    let per_fence = started.elapsed() / fences as u32;

    let mut book = OrderBook::new();
    let mut steps = Vec::new();
    for number in 0..ORDERS {
        let id = OrderId(format!("order-{number}").into());
        let stop = |position| Stop {
            position,
            place: None,
        };
        let order = Some(Order {
            id: id.clone(),
            driver: Some(DriverId((number * 5) as u64)),
            status: OrderStatus::Assigned,
            pickup: stop(dice.spot()),
            dropoff: stop(dice.spot()),
            updated_at_ms: 1002,
        });
        let place = place(Input::Orders, 1002);
        book.apply(OrderChange { place, id, order }, &mut steps);
    }
    for step in steps {
        detector.on_order(step, 0, &mut out);
    }

    out = Outputs::default();
    let (mut busy, mut wall) = (Duration::ZERO, Duration::ZERO);
    let mut near = 0;
    let mut events = 0;
    for n in 2..2 + ROUNDS {
        let updates = round(&mut dice, &mut going, n * 1000);
        let (cpu_before, started) = (cpu(), Instant::now());
        let mut updates = updates.into_iter();
        loop {
            detector.look_ahead(updates.as_slice());
            let Some(update) = updates.next() else { break };
            detector.on_update(update, n * 1000, &mut out);
        }
        detector.end_epoch(n * 1000 + 1, &mut out);
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
    let mut going = drivers(&mut dice);
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

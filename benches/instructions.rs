//! How many instructions the hot paths take: parse, fence lookup, detection and encoding, under
//! valgrind, so that load on the machine doesn't matter.
//!
//! Each count must be at most 5 % over the one in `instructions.toml`, or the run fails. Run with
//! `.ci/instructions`, which has what that needs and compares; `.ci/instructions renew` takes
//! what it finds as the new counts. What is counted is the function of the benchmark alone, not
//! how its input was made.
//!
//! Density of the input, the same every time: 5,000 updates of 118 bytes, of which one in five
//! bears a `state`; the city of `common/city.rs` with 1,000 or 100,000 fences, asked for 5,000
//! positions, or steps of about 10 m; 4 rounds of 5,000 drivers who have an update a second, 1,000
//! orders and 1,000 fences, and have been heard 3 times before; 5,800 events.

#![allow(missing_docs, reason = "of what gungraun's macros write")]

#[path = "common/city.rs"]
mod city;

use std::hint::black_box;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use riderflow::detect::{Detector, Outputs, Rules};
use riderflow::geo::{Area, FenceIndex, Segment};
use riderflow::model::{Event, Place, Position, Update};
use riderflow::wire::{
    EncodedEvent, Limits, UpdateMessage, decode_update, encode_event, encode_update,
};

use city::{Dice, judge, round};

const DRIVERS: usize = 5_000;
const ORDERS: usize = 1_000;
const FENCES: usize = 1_000;
/// A time that phones could send.
const START_MS: i64 = 1_760_000_000_000;
/// Rounds that nothing is counted of, by which all buffers have found their size.
const WARM_UP: i64 = 3;
const ROUNDS: i64 = 4;

/// At most 5 % over the committed count; nothing at all where there is none; anything while
/// they are renewed.
fn limit(name: &str) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    if std::env::var_os("INSTRUCTIONS_RENEW").is_none() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");
        let text = std::fs::read_to_string(file).expect("the committed counts");
        let counts: toml::Table = text.parse().expect("instructions.toml is TOML");
        let count = counts.get(name).and_then(toml::Value::as_integer);
        let most = count.unwrap_or(0).unsigned_abs() * 105 / 100;
        callgrind.hard_limits([(EventKind::Ir, most)]);
    }
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// Values as phones send them.
fn plain() -> Vec<(Place, Vec<u8>)> {
    let message = |update: &Update| {
        let mut value = Vec::new();
        let number = update.driver.0;
        let message = UpdateMessage {
            driver: update.driver,
            position: update.position,
            state: number.is_multiple_of(5).then_some("south"),
            timestamp_ms: Some(update.event_time_ms),
            accuracy_m: update.accuracy_m,
            speed_mps: update.speed_mps,
            heading_deg: None,
        };
        encode_update(&message, &mut value);
        (update.place, value)
    };
    let mut dice = Dice(7);
    let mut going = dice.drivers(DRIVERS);
    let updates = round(&mut dice, &mut going, START_MS);
    updates.iter().map(message).collect()
}

/// The same, each with something that only the slower reader takes: an unknown object or list, a
/// number with an exponent, an escape, a null; or a fault, which it refuses.
fn unusual() -> Vec<(Place, Vec<u8>)> {
    const ODD: [&str; 6] = [
        r#","battery":{"level":0.5,"cells":[1,2]}}"#,
        r#","heading":1.5e2}"#,
        r#","via":"s\u00fcd"}"#,
        r#","heading":null}"#,
        r#","via":["a",2,true]}"#,
        r#","heading":"north"}"#,
    ];
    let mut values = plain();
    for ((_, value), odd) in values.iter_mut().zip(ODD.iter().cycle()) {
        value.pop();
        value.extend_from_slice(odd.as_bytes());
    }
    values
}

#[library_benchmark]
#[bench::plain(args = (), setup = plain, config = limit("parse.plain"))]
#[bench::unusual(args = (), setup = unusual, config = limit("parse.unusual"))]
fn parse(values: Vec<(Place, Vec<u8>)>) -> Vec<(Place, Vec<u8>)> {
    let limits = Limits::default();
    for (place, value) in &values {
        let update = decode_update(Some(black_box(value)), *place, place.at_ms, &limits);
        let _ = black_box(update);
    }
    values
}

/// An index of so many fences, and each driver's step from one fix to the next.
struct Steps {
    index: FenceIndex,
    steps: Vec<[Position; 2]>,
}

fn steps(fences: usize) -> Steps {
    let mut index = FenceIndex::new();
    for (slot, change) in (0..).zip(city::fences(&mut Dice(11), fences, None, START_MS)) {
        let fence = change.fence.expect("none is removed");
        let area = Area::new(&fence.geometry).expect("the rings are stars");
        index.insert(slot, area.boxes());
    }
    let mut dice = Dice(7);
    let mut going = dice.drivers(DRIVERS);
    let from = going.clone();
    round(&mut dice, &mut going, START_MS);
    let steps = from
        .iter()
        .zip(&going)
        .map(|(from, to)| [from.spot, to.spot])
        .collect();
    Steps { index, steps }
}

// As for a driver's first fix.
#[library_benchmark]
#[bench::thousand(args = (1_000), setup = steps, config = limit("lookup.thousand"))]
#[bench::hundred_thousand(
    args = (100_000),
    setup = steps,
    config = limit("lookup.hundred_thousand")
)]
fn lookup(around: Steps) -> Steps {
    for [_, to] in &around.steps {
        around.index.visit(black_box(*to), |slot, part| {
            black_box((slot, part));
        });
    }
    around
}

// As for each further fix.
#[library_benchmark]
#[bench::thousand(args = (1_000), setup = steps, config = limit("pass.thousand"))]
#[bench::hundred_thousand(
    args = (100_000),
    setup = steps,
    config = limit("pass.hundred_thousand")
)]
fn pass(around: Steps) -> Steps {
    for [from, to] in &around.steps {
        let segment = Segment::between(black_box(*from), black_box(*to));
        around.index.visit_along(&segment, |slot, part, at_end| {
            black_box((slot, part, at_end));
        });
    }
    around
}

/// A detector that knows its city, and the rounds to come.
struct Town {
    detector: Detector,
    out: Outputs,
    rounds: Vec<(i64, Vec<Update>)>,
}

impl Town {
    fn new(rules: Rules, dwell_s: Option<f64>, mut told: impl FnMut(&Outputs)) -> Self {
        let mut dice = Dice(7);
        let mut going = dice.drivers(DRIVERS);
        let mut detector = Detector::new(rules);
        let mut out = Outputs::default();
        for change in city::fences(&mut dice, FENCES, dwell_s, START_MS) {
            detector.on_fence(change, START_MS + 1, &mut out);
        }
        let mut rounds = (1..=WARM_UP + ROUNDS).map(|n| {
            let at_ms = START_MS + n * 1000;
            (at_ms, round(&mut dice, &mut going, at_ms))
        });
        let mut warm_up: Vec<_> = rounds.by_ref().take(WARM_UP as usize).collect();
        let rounds = rounds.collect();
        let rest = warm_up.split_off(1);
        let mut town = Self {
            detector,
            out,
            rounds: warm_up,
        };
        town.drive(&mut told);
        for step in city::orders(&mut dice, ORDERS, START_MS + 1500) {
            town.detector.on_order(step, START_MS + 1600, &mut town.out);
        }
        town.rounds = rest;
        town.drive(&mut told);
        town.rounds = rounds;
        town
    }

    /// Goes through the rounds, as a worker does: an epoch each.
    fn drive(&mut self, mut told: impl FnMut(&Outputs)) {
        for (at_ms, updates) in std::mem::take(&mut self.rounds) {
            judge(&mut self.detector, updates, at_ms + 1, &mut self.out);
            told(&self.out);
            self.out.events.clear();
            self.out.judged.clear();
        }
    }
}

/// As the shipped pipeline has it.
fn prompt() -> Town {
    Town::new(Rules::default(), None, |_| {})
}

/// Each update waits for 2 s, and fences tell of a dwell of 3 s.
fn late() -> Town {
    let rules = Rules {
        lateness_s: 2.0,
        ..Rules::default()
    };
    Town::new(rules, Some(3.0), |_| {})
}

#[library_benchmark]
#[bench::prompt(args = (), setup = prompt, config = limit("detect.prompt"))]
#[bench::late(args = (), setup = late, config = limit("detect.late"))]
fn detect(mut town: Town) -> Town {
    town.drive(|out| {
        black_box(out);
    });
    town
}

/// What there is to tell until everyone is where they are, has an order and has dwelled.
fn told() -> Vec<Event> {
    let mut events = Vec::new();
    Town::new(Rules::default(), Some(1.0), |out| {
        events.extend_from_slice(&out.events);
    });
    events
}

#[library_benchmark]
#[bench::events(args = (), setup = told, config = limit("encode.events"))]
fn encode(events: Vec<Event>) -> (Vec<Event>, Vec<EncodedEvent>) {
    let encoded = events.iter().map(encode_event).collect();
    (events, encoded)
}

library_benchmark_group!(
    name = counts,
    benchmarks = [parse, lookup, pass, detect, encode]
);
main!(library_benchmark_groups = counts);

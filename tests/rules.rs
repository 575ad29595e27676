//! The rules of detection, case by case: a golden file each, from the bytes of the inputs to
//! the bytes of the events.
//!
//! A file's first line says what it is about, and which rules differ from their defaults. Then
//! come the inputs, in merged order, then what is told, then the flags of the updates in turn.
//! `UPDATE_GOLDEN=1` writes anew what is told. Stories too long for a file are generated here;
//! theirs has the events alone.

#[path = "common/dice.rs"]
mod dice;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dice::Dice;
use riderflow::detect::{Detector, OrderBook, Outputs, Rules};
use riderflow::model::{Event, EventKind, Flag, Input, Place, Source};
use riderflow::wire::{self, Limits, decode_fence, decode_order, decode_update};
use serde_json::{Value, json};

const START_MS: i64 = 1_790_000_000_000;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/rules/{name}.jsonl"))
}

fn rules(overrides: &Value) -> Rules {
    let mut rules = Rules::default();
    for (name, value) in overrides.as_object().into_iter().flatten() {
        let number = value.as_f64();
        match name.as_str() {
            "near_repeat" => rules.near_repeat = value.as_bool().expect("a bool"),
            "arrive_s" => rules.arrive_s = number.expect("a number"),
            "silent_s" => rules.silent_s = number.expect("a number"),
            "lateness_s" => rules.lateness_s = number.expect("a number"),
            other => panic!("no case sets {other} yet"),
        }
    }
    rules
}

/// The job in small, over some workers, in epochs of some length.
struct Job {
    books: Vec<OrderBook>,
    workers: Vec<(Detector, Outputs)>,
    offsets: BTreeMap<Input, i64>,
}

impl Job {
    fn run(
        inputs: &[Value],
        rules: &Rules,
        workers: usize,
        interval_ms: i64,
        until_ms: i64,
    ) -> (Vec<Event>, Vec<Flag>) {
        let mut job = Self {
            books: vec![OrderBook::new(); workers],
            workers: vec![(Detector::new(rules.clone()), Outputs::default()); workers],
            offsets: BTreeMap::new(),
        };
        let mut inputs = inputs.iter().peekable();
        let mut now_ms = START_MS;
        let mut events = Vec::new();
        let mut flags = BTreeMap::new();
        while now_ms < until_ms {
            now_ms += interval_ms;
            while let Some(input) = inputs.next_if(|input| at_ms(input) < now_ms) {
                job.take(input, now_ms);
            }
            let first = events.len();
            for (detector, out) in &mut job.workers {
                detector.end_epoch(now_ms, out);
                events.append(&mut out.events);
                for location in out.judged.drain(..) {
                    flags.insert(location.update.place.source.offset, location.flag);
                }
            }
            events[first..].sort_by(|a, b| a.telling_order().cmp(&b.telling_order()));
        }
        assert!(
            inputs.peek().is_none(),
            "inputs after the end: {:?}",
            inputs.next()
        );
        (events, flags.into_values().collect())
    }

    fn take(&mut self, input: &Value, now_ms: i64) {
        let topic = input["topic"].as_str().expect("a topic");
        let of = Input::ALL.into_iter().find(|input| input.topic() == topic);
        let of = of.expect("a known topic");
        let offset = self.offsets.entry(of).or_default();
        let place = Place {
            at_ms: at_ms(input),
            source: Source {
                input: of,
                partition: 0,
                offset: *offset,
            },
        };
        *offset += 1;
        let key = input["key"].as_str().expect("a key").as_bytes();
        let value = Some(&input["value"]).filter(|value| !value.is_null());
        let value = value.map(|value| value.to_string().into_bytes());
        let value = value.as_deref();
        let count = self.workers.len();
        match of {
            Input::Updates => {
                let limits = Limits::default();
                let update = decode_update(value, place, place.at_ms, &limits).expect("valid");
                let (detector, out) = &mut self.workers[update.driver.0 as usize % count];
                detector.on_update(update, now_ms, out);
            }
            Input::Orders => {
                let change = decode_order(Some(key), value, place, place.at_ms).expect("valid");
                let mut steps = Vec::new();
                self.books[key.len() % count].apply(change, &mut steps);
                for step in steps {
                    let (detector, out) = &mut self.workers[step.driver.0 as usize % count];
                    detector.on_order(step, now_ms, out);
                }
            }
            Input::Geofences => {
                let change = decode_fence(Some(key), value, place).expect("valid");
                for (detector, out) in &mut self.workers {
                    detector.on_fence(change.clone(), now_ms, out);
                }
            }
        }
    }
}

fn at_ms(input: &Value) -> i64 {
    input["at"].as_i64().expect("a time")
}

/// A line per event: what its message holds, but for when it was detected.
fn lines(events: &[Event], schemas: &Schemas) -> Vec<Value> {
    (events.iter())
        .map(|event| {
            let encoded = wire::encode_event(event);
            let mut data: Value = serde_json::from_slice(&encoded.data).expect("JSON");
            schemas.hold(encoded.type_name, &data);
            let fields = data.as_object_mut().expect("an object");
            fields.remove("detectedAt");
            json!({"told": encoded.id, "time": encoded.time, "data": data})
        })
        .collect()
}

/// The published schema of each type.
struct Schemas(BTreeMap<&'static str, jsonschema::Validator>);

impl Schemas {
    fn new() -> Self {
        let schema = |kind: EventKind| {
            let name = wire::ce_type(kind);
            let root = env!("CARGO_MANIFEST_DIR");
            let text = std::fs::read_to_string(format!("{root}/schemas/events/{name}.json"));
            let schema = serde_json::from_str(&text.expect("a schema")).expect("JSON");
            (name, jsonschema::draft202012::new(&schema).expect("valid"))
        };
        Self(EventKind::ALL.into_iter().map(schema).collect())
    }

    fn hold(&self, name: &str, data: &Value) {
        let errors: Vec<String> = (self.0[name].iter_errors(data))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {data}: {errors:?}");
    }
}

/// Compares with a golden file, or writes it.
fn hold(name: &str, got: &[Value]) {
    let got: String = got.iter().map(|line| format!("{line}\n")).collect();
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &got).expect("writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (got, expected)) in (1..).zip(got.lines().zip(expected.lines())) {
        assert_eq!(got, expected, "{name}.jsonl:{number}");
    }
    assert_eq!(got.lines().count(), expected.lines().count(), "{name}");
}

/// Runs a story with one worker, and with three and other epochs; both must tell the same.
fn tell(name: &str, inputs: &[Value], rules: &Rules, until_ms: i64) -> (Vec<Event>, Vec<Flag>) {
    let (mut events, flags) = Job::run(inputs, rules, 1, 100, until_ms);
    let (mut others, other_flags) = Job::run(inputs, rules, 3, 7_000, until_ms);
    // The longer epochs may end later.
    others.retain(|event| event.place.at_ms < until_ms);
    for event in events.iter_mut().chain(&mut others) {
        event.detected_at_ms = 0;
    }
    assert_eq!(events, others, "{name}");
    assert_eq!(flags, other_flags, "{name}");
    (events, flags)
}

#[test]
fn each_case_is_told_as_its_file_says() {
    let schemas = Schemas::new();
    let mut kinds: BTreeMap<EventKind, usize> = BTreeMap::new();
    let mut cases = 0;
    let folder = golden("x").with_file_name("");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let parse = |line: &str| serde_json::from_str::<Value>(line);
        let file: Vec<Value> = (text.lines())
            .map(|line| parse(line).unwrap_or_else(|error| panic!("{path:?}: {line}: {error}")))
            .collect();
        let head = &file[0];
        if head["generated"] == true {
            continue;
        }
        let inputs: Vec<Value> = (file.iter().filter(|line| line.get("topic").is_some()))
            .cloned()
            .collect();
        let last_ms = inputs.last().map_or(START_MS, at_ms);
        let until_ms = head["until"].as_i64().unwrap_or(last_ms + 1000);
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let name = name.expect("a name");
        let (events, flags) = tell(name, &inputs, &rules(&head["rules"]), until_ms);
        for event in &events {
            *kinds.entry(event.kind).or_default() += 1;
        }
        let flags: Vec<&str> = flags.into_iter().map(Flag::as_str).collect();
        let mut got = vec![head.clone()];
        got.extend(inputs);
        got.extend(lines(&events, &schemas));
        got.push(json!({"flags": flags}));
        hold(name, &got);
        cases += 1;
    }
    assert!(cases >= 20, "{cases}");
    assert_eq!(kinds.len(), EventKind::ALL.len(), "{kinds:?}");
}

/// Normal deviates.
impl Dice {
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// One of standard deviation `sigma`, drawn again until it is no more than
    /// `bound` off.
    fn within(&mut self, sigma: f64, bound: f64) -> f64 {
        loop {
            let deviate = sigma * self.normal();
            if deviate.abs() <= bound {
                return deviate;
            }
        }
    }
}

/// Degrees of metres north.
fn degrees(metres: f64) -> f64 {
    (metres / riderflow::geo::EARTH_RADIUS_M).to_degrees()
}

/// A phone that lies on the edge of a yard with an exit margin of 30 m, and reports once a
/// second for an hour with an error of σ = 5, 10 or 15 m across and along: each of 10 phones
/// comes in at most once and never goes out.
///
/// Only errors that reach the margin are drawn again: a fix beyond it is an exit by the rule,
/// not a false one. What is drawn is wider than σ by as much as that takes away, so that the
/// errors' own standard deviation is σ, which is held.
#[test]
fn a_phone_on_the_edge_of_a_fence() {
    let schemas = Schemas::new();
    let mut told = vec![json!({
        "about": "a phone on a fence's edge, 1 Hz for an hour: by σ of its error in metres, how \
                  often 10 phones came in and went out, with a margin of 30 m",
        "generated": true,
    })];
    const BOUND_M: f64 = 29.9;
    for (sigma, drawn) in [(5.0, 5.0), (10.0, 10.159), (15.0, 20.841)] {
        let mut squares = 0.0;
        let mut dice = Dice(sigma as u64);
        let (west, north) = (77.0, 13.0);
        let edge = north;
        let yard = json!([[
            [west, edge - 0.01],
            [west + 0.01, edge - 0.01],
            [west + 0.01, edge],
            [west, edge],
            [west, edge - 0.01],
        ]]);
        let mut inputs = vec![json!({
            "at": START_MS, "topic": "geofences", "key": "yard",
            "value": {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": yard},
                "properties": {"exitMargin": 30},
            },
        })];
        for second in 1..=3600 {
            for driver in 0..10 {
                let across = dice.within(drawn, BOUND_M);
                squares += across * across;
                inputs.push(json!({
                    "at": START_MS + second * 1000, "topic": "rider-updates",
                    "key": driver.to_string(),
                    "value": {
                        "driverId": driver,
                        "longitude": west + 0.005 + degrees(dice.within(drawn, BOUND_M)),
                        "latitude": edge + degrees(across),
                        "accuracy": sigma,
                    },
                }));
            }
        }
        let until_ms = START_MS + 3_601_000;
        let (events, flags) = Job::run(&inputs, &Rules::default(), 1, 1000, until_ms);
        lines(&events, &schemas);
        let count = |kind| events.iter().filter(|event| event.kind == kind).count();
        let (entered, exited) = (
            count(EventKind::GeofenceEntered),
            count(EventKind::GeofenceExited),
        );
        let spread = (squares / f64::from(3600 * 10)).sqrt();
        assert!(
            (spread / sigma - 1.0).abs() < 0.02,
            "σ is {spread}, not {sigma}"
        );
        let mut entries = BTreeMap::new();
        for event in events
            .iter()
            .filter(|e| e.kind == EventKind::GeofenceEntered)
        {
            *entries.entry(event.driver).or_insert(0) += 1;
        }
        assert!(entries.values().all(|&count| count <= 1), "{entries:?}");
        assert_eq!(exited, 0, "no false exit at σ {sigma}");
        let teleports = flags.iter().filter(|flag| **flag == Flag::Teleport).count();
        told.push(
            json!({"sigma": sigma, "entered": entered, "exited": exited, "teleports": teleports}),
        );
    }
    hold("phone_on_the_edge", &told);
}

//! The job over a real Kafka and a real ClickHouse: given records in, exact events, rows and
//! dead letters out, for 1, 2 and 4 workers, and while services go away and come back.

mod common;
#[path = "fixtures/bad_inputs.rs"]
mod fixtures;

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Lab, Received, Sender, lab, now_ms, wait_until};
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const LONG: Duration = Duration::from_secs(60);

/// An event as promised: what is equal between any two runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    id: String,
}

fn told(topic: &str, partition: i32, offset: i64, event: &str, object: &str, driver: u64) -> Told {
    Told {
        id: format!("{topic}/{partition}/{offset}/{event}/{object}/{driver}"),
    }
}

/// The events of one pipeline, in each partition's order.
fn events_of(lab: &Lab, pipeline: &str) -> Vec<Received> {
    let source = format!("/riderflow/{pipeline}");
    let all = lab.read_all("rider-notifications");
    all.into_iter()
        .filter(|event| event.header("ce_source") == source)
        .collect()
}

/// Every event is what its published schema says.
fn assert_schemas(events: &[Received]) {
    let mut validators = BTreeMap::new();
    for event in events {
        let kind = event.header("ce_type").to_owned();
        let validator = validators.entry(kind).or_insert_with_key(|kind| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/events");
            let text = std::fs::read_to_string(format!("{folder}/{kind}.json")).expect(kind);
            let schema = serde_json::from_str(&text).expect("a schema is JSON");
            jsonschema::draft202012::new(&schema).expect("a valid schema")
        });
        let data = event.json();
        let faults: Vec<String> = validator
            .iter_errors(&data)
            .map(|e| e.to_string())
            .collect();
        assert!(
            faults.is_empty(),
            "{}: {faults:?}: {data}",
            event.header("ce_id")
        );
    }
}

fn ids(events: &[Received]) -> Vec<String> {
    events
        .iter()
        .map(|event| event.header("ce_id").to_owned())
        .collect()
}

fn update(driver: u64, longitude: f64, latitude: f64, timestamp: i64) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "driverId": driver, "longitude": longitude, "latitude": latitude,
        "state": "south", "timestamp": timestamp,
    }))
    .expect("JSON")
}

fn order(id: &str, driver: u64, status: &str, at: i64) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "orderId": id, "driverId": driver, "status": status, "updatedAt": at,
        "pickup": {"longitude": 77.602, "latitude": 12.972, "place": "restaurant-9"},
        "dropoff": {"longitude": 77.700, "latitude": 12.970, "place": "customer-77"},
    }))
    .expect("JSON")
}

fn fence(geometry: Value, properties: Value) -> Vec<u8> {
    serde_json::to_vec(&json!({"type": "Feature", "geometry": geometry, "properties": properties}))
        .expect("JSON")
}

fn square(west: f64, south: f64, side: f64) -> Value {
    let (east, north) = (west + side, south + side);
    json!([
        [west, south],
        [east, south],
        [east, north],
        [west, north],
        [west, south]
    ])
}

/// The records of the story, and what must come of them.
struct Story {
    events: Vec<Told>,
    /// (partition, offset, flag) of every valid update.
    rows: BTreeSet<String>,
}

/// An hour of backlog: driver 453 alternates between partitions on every update while an
/// order and fences change, driver 7 sits in a multipolygon.
fn write_story(sender: &mut Sender) -> Story {
    let start = now_ms() - 60 * MINUTE;
    let at = |seconds: i64| start + seconds * 1000;
    let mut events = Vec::new();
    let mut rows = BTreeSet::new();

    let holed = json!({"type": "Polygon", "coordinates":
        [square(77.600, 12.970, 0.010), square(77.604, 12.974, 0.002)]});
    let twofold = json!({"type": "MultiPolygon", "coordinates":
        [[square(77.500, 12.970, 0.005)], [square(77.520, 12.970, 0.005)]]});
    let disc = json!({"type": "Point", "coordinates": [77.700, 12.970]});
    let mut fences = |id: &str, at: i64, value: Option<Vec<u8>>| {
        sender.send("geofences", 0, at, Some(id.as_bytes()), value.as_deref())
    };
    fences(
        "f-holed",
        at(0),
        Some(fence(holed, json!({"name": "Holed"}))),
    );
    fences(
        "f-twofold",
        at(0),
        Some(fence(twofold.clone(), json!(null))),
    );
    fences("f-disc", at(0), Some(fence(disc, json!({"radius": 200}))));
    // A second fence over driver 7 comes and goes while the driver stands still.
    let added = fences("f-passing", at(60), Some(fence(twofold, json!({}))));
    let removed = fences("f-passing", at(75), None);

    let mut orders = |status: &str, seconds: i64| {
        let value = order("o-1", 453, status, at(seconds));
        sender.send("orders", 1, at(seconds), Some(b"o-1"), Some(&value))
    };
    let assigned = orders("assigned", 5);
    let picked_up = orders("picked_up", 55);
    let delivered = orders("delivered", 370);

    let mut send = |partition: i32, driver: u64, lon: f64, lat: f64, seconds, event_s, flag| {
        let value = update(driver, lon, lat, at(event_s));
        let key = driver.to_string();
        let offset = sender.send(
            "rider-updates",
            partition,
            at(seconds),
            Some(key.as_bytes()),
            Some(&value),
        );
        rows.insert(format!("{partition} {offset} {flag}"));
        offset
    };
    let mut tell = |topic, partition, offset, event, object, driver| {
        events.push(told(topic, partition, offset, event, object, driver));
    };
    let updates = "rider-updates";

    let sitting = send(0, 7, 77.522, 12.972, 3, 3, "ok");
    send(0, 453, 77.595, 12.972, 10, 10, "ok");
    let inside = send(1, 453, 77.602, 12.972, 30, 30, "ok");
    let in_hole = send(0, 453, 77.605, 12.975, 45, 45, "ok");
    let on_edge = send(1, 453, 77.605, 12.974, 50, 50, "ok");
    send(0, 453, 77.605, 12.960, 51, 50, "duplicate");
    send(1, 453, 77.605, 12.960, 52, 31, "late");
    let outside = send(0, 453, 77.611, 12.975, 65, 65, "ok");
    for step in 1..=14 {
        let lon = 77.611 + 0.0058 * step as f64;
        let seconds = 65 + 20 * step;
        send(step as i32 % 2, 453, lon, 12.970, seconds, seconds, "ok");
    }
    let at_door = send(1, 453, 77.699, 12.970, 365, 365, "ok");

    // In the order of their causes; all of a driver's go to one partition.
    tell(updates, 0, sitting, "geofence.entered", "f-twofold", 7);
    tell("orders", 1, assigned, "order.assigned", "o-1", 453);
    tell(updates, 1, inside, "geofence.entered", "f-holed", 453);
    tell(updates, 1, inside, "agent.near", "o-1.pickup", 453);
    // Ten seconds within 60 m, though no further fix comes in them.
    tell(updates, 1, inside, "agent.arrived", "o-1.pickup", 453);
    tell(updates, 0, in_hole, "geofence.exited", "f-holed", 453);
    tell(updates, 0, in_hole, "agent.departed", "o-1.pickup", 453);
    tell(updates, 1, on_edge, "geofence.entered", "f-holed", 453);
    tell("orders", 1, picked_up, "order.picked_up", "o-1", 453);
    tell(updates, 0, outside, "geofence.exited", "f-holed", 453);
    tell("geofences", 0, added, "geofence.entered", "f-passing", 7);
    tell("geofences", 0, removed, "geofence.exited", "f-passing", 7);
    tell(updates, 1, at_door, "geofence.entered", "f-disc", 453);
    tell(updates, 1, at_door, "agent.near", "o-1.dropoff", 453);
    tell("orders", 1, delivered, "order.delivered", "o-1", 453);
    sender.flush();
    Story { events, rows }
}

#[test]
fn given_records_give_exact_events_and_rows_with_1_2_and_4_workers() {
    let lab = lab("story");
    let names = ["story-1", "story-2", "story-4"];
    for name in names {
        lab.init(&lab.pipeline(name, ""));
    }
    let story = write_story(&mut lab.sender());

    for (name, workers) in names.into_iter().zip([1, 2, 4]) {
        lab.query("TRUNCATE TABLE riderflow.driver_locations");
        lab.query("TRUNCATE TABLE riderflow.events");
        let job = lab.run(&lab.pipeline(name, ""), workers);
        lab.wait_for_no_lag(name, LONG);
        assert_eq!(job.stop().code(), Some(0), "SIGTERM ends a job well");

        let events = events_of(&lab, name);
        assert_schemas(&events);
        for driver in ["7", "453"] {
            let of_driver = |id: &String| id.ends_with(&format!("/{driver}"));
            let expected: Vec<String> = story
                .events
                .iter()
                .map(|told| told.id.clone())
                .filter(of_driver)
                .collect();
            let found: Vec<String> = ids(&events).into_iter().filter(of_driver).collect();
            assert_eq!(
                found, expected,
                "{workers} workers, driver {driver}, in order"
            );
        }
        check_details(&events, name);

        let rows = lab.query(
            "SELECT concat(toString(kafka_partition), ' ', toString(kafka_offset), ' ', \
             toString(flag)) FROM riderflow.driver_locations",
        );
        assert_eq!(rows.len(), story.rows.len(), "each row once");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), story.rows);
        let mut stored = lab.query("SELECT id FROM riderflow.events ORDER BY id");
        let mut sent = ids(&events);
        stored.sort();
        sent.sort();
        assert_eq!(stored, sent, "the table holds what the topic holds");
    }
}

fn check_details(events: &[Received], pipeline: &str) {
    let by_id = |part: &str| {
        let found = events
            .iter()
            .find(|event| event.header("ce_id").contains(part));
        found.unwrap_or_else(|| panic!("no event {part}"))
    };
    let near = by_id("agent.near/o-1.pickup");
    assert_eq!(near.header("ce_type"), "riderflow.agent.near.v1");
    assert_eq!(near.header("ce_source"), format!("/riderflow/{pipeline}"));
    assert_eq!(near.header("ce_subject"), "driver/453");
    assert_eq!(near.header("ce_specversion"), "1.0");
    assert_eq!(near.header("content-type"), "application/json");
    assert_eq!(near.key.as_deref(), Some(&b"453"[..]));
    let data = near.json();
    assert_eq!(data["place"], "restaurant-9");
    assert_eq!(data["leg"], "pickup");
    assert_eq!(data["distance_m"], 0.0);
    assert_eq!(data["eta_method"], "straight_line");
    assert_eq!(data["cause"], "position");
    assert_eq!(data["source"]["topic"], "rider-updates");
    assert_eq!(by_id("entered/f-twofold").json()["initial"], true);
    assert!(by_id("entered/f-passing").json().get("initial").is_none());
    assert_eq!(by_id("entered/f-passing").json()["cause"], "fence");
    let delivered = by_id("order.delivered").json();
    let distance = delivered["distance_m"].as_f64().expect("a number");
    assert!((distance - 108.3).abs() < 1.0, "{distance}");
    assert_eq!(delivered["status"], "delivered");
}

/// Two hundred drivers wander over forty fences, with every update in another partition than
/// the driver's last.
fn write_crowd(sender: &mut Sender) -> usize {
    let start = now_ms() - 10 * MINUTE;
    for index in 0..40_u32 {
        let (column, row) = (f64::from(index % 8), f64::from(index / 8));
        let ring = square(77.5 + 0.01 * column, 12.9 + 0.01 * row, 0.007);
        let geometry = json!({"type": "Polygon", "coordinates": [ring]});
        let id = format!("f-{index}");
        let value = fence(geometry, json!({"exitMargin": 20}));
        sender.send("geofences", 0, start, Some(id.as_bytes()), Some(&value));
    }
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    let mut sent = 0;
    for step in 0..100_i64 {
        for driver in 0..200_u64 {
            let lon = 77.5 + 0.0004 * ((driver * 7 + step as u64 * (1 + driver % 3)) % 200) as f64;
            let lat = 12.9 + 0.0003 * ((driver * 11 + step as u64) % 160) as f64;
            let at = start + step * 1000 + roll(1000) as i64;
            let partition = ((driver as i64 + step) % 2) as i32;
            // One in twenty arrives with an older event time.
            let event_at = if roll(20) == 0 { at - 30_000 } else { at };
            let value = update(driver, lon, lat, event_at);
            let key = driver.to_string();
            sender.send(
                "rider-updates",
                partition,
                at,
                Some(key.as_bytes()),
                Some(&value),
            );
            sent += 1;
        }
    }
    sender.flush();
    sent
}

#[test]
fn a_driver_who_alternates_between_partitions_is_one_driver() {
    let lab = lab("crowd");
    let names = ["crowd-1", "crowd-2", "crowd-4"];
    for name in names {
        lab.init(&lab.pipeline(name, "clickhouse.enabled = false"));
    }
    let sent = write_crowd(&mut lab.sender());
    let mut runs = Vec::new();
    for (name, workers) in names.into_iter().zip([1, 2, 4]) {
        let job = lab.run(&lab.pipeline(name, "clickhouse.enabled = false"), workers);
        lab.wait_for_no_lag(name, LONG);
        assert_eq!(job.stop().code(), Some(0));
        let events = events_of(&lab, name);
        let unique: BTreeSet<String> = ids(&events).into_iter().collect();
        assert_eq!(unique.len(), events.len(), "no event twice");
        assert!(
            events.len() > sent / 100,
            "the crowd crosses fences: {}",
            events.len()
        );
        // Order within a partition is part of the promise.
        runs.push(
            events
                .iter()
                .map(|e| (e.partition, ids(std::slice::from_ref(e))))
                .collect(),
        );
    }
    let first: &Vec<(i32, Vec<String>)> = &runs[0];
    assert_eq!(first, &runs[1], "2 workers tell what 1 tells");
    assert_eq!(first, &runs[2], "4 workers tell what 1 tells");
}

#[test]
fn every_bad_message_is_answered_by_its_reason_and_harms_no_good_one() {
    let lab = lab("bad input");
    let pipeline = lab.pipeline("refusals", "");
    lab.init(&pipeline);
    let mut sender = lab.sender();
    let mut expected = BTreeMap::new();
    let mut good = BTreeSet::new();
    for (index, bad) in fixtures::bad_inputs().into_iter().enumerate() {
        if bad.key.is_none() && bad.topic != "rider-updates" {
            continue; // A compacted topic refuses it itself.
        }
        let at = fixtures::RECEIVED_AT_MS;
        let offset = sender.send(bad.topic, 0, at, bad.key.as_deref(), bad.value.as_deref());
        expected.insert((bad.topic, offset), bad);
        let value = update(9_000 + index as u64, 77.6, 12.9, at);
        good.insert(sender.send("rider-updates", 0, at, Some(b"x"), Some(&value)));
    }
    sender.flush();
    assert!(expected.len() >= 40, "{}", expected.len());

    let job = lab.run(&pipeline, 2);
    lab.wait_for_no_lag("refusals", LONG);
    assert_eq!(job.stop().code(), Some(0));

    let letters = lab.read_all("rider-updates-dead-letter");
    let mut found = BTreeSet::new();
    for letter in &letters {
        let at = (
            letter.header("rf-topic"),
            letter.header("rf-offset").parse().expect("decimal"),
        );
        let bad = expected
            .get(&at)
            .unwrap_or_else(|| panic!("{at:?} was not bad"));
        assert_eq!(letter.header("rf-reason"), bad.reason, "{}", bad.about);
        assert_eq!(letter.key, bad.key, "{}: the key is untouched", bad.about);
        assert_eq!(
            letter.value, bad.value,
            "{}: the bytes are untouched",
            bad.about
        );
        assert_eq!(letter.header("rf-partition"), "0");
        assert!(found.insert(at), "{}: one dead letter", bad.about);
    }
    assert_eq!(found.len(), expected.len());

    let rows = lab.query("SELECT toString(kafka_offset) FROM riderflow.driver_locations");
    let stored: BTreeSet<i64> = rows
        .iter()
        .map(|row| row.parse().expect("a number"))
        .collect();
    assert_eq!(stored, good, "good messages around bad ones are unharmed");
    assert_eq!(rows.len(), good.len());
    let rejected = lab.query(
        "SELECT concat(topic, ' ', toString(kafka_offset), ' ', toString(reason)) \
         FROM riderflow.rejected_updates",
    );
    let wanted: BTreeSet<String> = expected
        .iter()
        .map(|((topic, offset), bad)| format!("{topic} {offset} {}", bad.reason))
        .collect();
    assert_eq!(rejected.len(), wanted.len());
    assert_eq!(rejected.into_iter().collect::<BTreeSet<_>>(), wanted);
}

/// Sends one update a second of each of `drivers` for `seconds`, as of now, from a thread of
/// its own; returns how many. A driver goes to and fro through the fence of [`add_fence`] at
/// 65 m/s; each of its updates goes to another partition than the one before.
fn stream(lab: &Lab, seconds: u64, drivers: u64) -> JoinHandle<usize> {
    let mut sender = lab.sender();
    std::thread::spawn(move || {
        let start = Instant::now();
        let mut sent = 0;
        for round in 0..20 * seconds {
            let there_and_back = (round % 200).min(200 - round % 200);
            let lon = 77.600 + 0.000_03 * there_and_back as f64;
            for driver in (0..drivers).filter(|driver| driver % 20 == round % 20) {
                let value = update(driver, lon, 12.975, now_ms());
                let key = driver.to_string();
                let partition = ((driver + round / 20) % 2) as i32;
                sender.send(
                    "rider-updates",
                    partition,
                    now_ms(),
                    Some(key.as_bytes()),
                    Some(&value),
                );
                sent += 1;
            }
            let next = Duration::from_millis(50 * (round + 1));
            std::thread::sleep(next.saturating_sub(start.elapsed()));
        }
        sender.flush();
        sent
    })
}

/// Each driver was told, in the same order, what a run tells that nothing disturbed.
fn assert_as_undisturbed(lab: &Lab, pipeline: &str) {
    let name = format!("{pipeline}-calm");
    let calm = lab.pipeline(&name, "clickhouse.enabled = false");
    lab.init(&calm);
    let job = lab.run(&calm, 1);
    lab.wait_for_no_lag(&name, LONG);
    assert_eq!(job.stop().code(), Some(0));
    let by_driver = |pipeline: &str| {
        let mut told: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
        for event in events_of(lab, pipeline) {
            let id = event.header("ce_id").to_owned();
            told.entry(event.key.unwrap_or_default())
                .or_default()
                .push(id);
        }
        told
    };
    let (disturbed, undisturbed) = (by_driver(pipeline), by_driver(&name));
    assert!(undisturbed.len() >= 100, "{} drivers", undisturbed.len());
    let wrong = undisturbed
        .iter()
        .filter(|(driver, told)| disturbed.get(*driver) != Some(told));
    if let Some((driver, told)) = wrong.clone().next() {
        panic!(
            "{} of {} drivers were told otherwise, such as {}: {:?} instead of {told:?}",
            wrong.count(),
            undisturbed.len(),
            String::from_utf8_lossy(driver),
            disturbed.get(driver),
        );
    }
    assert_eq!(
        disturbed.len(),
        undisturbed.len(),
        "no other driver was told anything"
    );
}

fn add_fence(lab: &Lab) {
    let geometry = json!({"type": "Polygon", "coordinates": [square(77.601, 12.9745, 0.001)]});
    let value = fence(geometry, json!({}));
    let mut sender = lab.sender();
    sender.send("geofences", 0, now_ms(), Some(b"f-1"), Some(&value));
    sender.flush();
}

fn rows_stored(lab: &Lab, table: &str) -> usize {
    let count = format!("SELECT toString(count()) FROM riderflow.{table}");
    lab.query(&count)[0].parse().expect("a number")
}

fn assert_each_row_once(lab: &Lab, updates: usize, events: usize) {
    let distinct = "SELECT toString(uniqExact(kafka_partition, kafka_offset)) \
                    FROM riderflow.driver_locations";
    assert_eq!(lab.query(distinct)[0], updates.to_string(), "every row");
    assert_eq!(rows_stored(lab, "driver_locations"), updates, "once");
    let distinct = lab.query("SELECT toString(uniqExact(id)) FROM riderflow.events");
    assert_eq!(distinct[0], events.to_string(), "every event");
    assert_eq!(rows_stored(lab, "events"), events, "once");
}

#[test]
fn clickhouse_away_for_20_seconds_delays_only_clickhouse() {
    let mut lab = lab("clickhouse away");
    let pipeline = lab.pipeline("outage", "clickhouse.batch_rows = 1000");
    lab.init(&pipeline);
    add_fence(&lab);
    let job = lab.run(&pipeline, 2);
    let stream = stream(&lab, 30, 2_000);

    wait_until(LONG, "rows come in", || {
        rows_stored(&lab, "driver_locations") > 2_000
    });
    lab.services().stop_clickhouse().expect("ClickHouse stops");
    let before = events_of(&lab, "outage").len();
    std::thread::sleep(Duration::from_secs(20));
    let after = events_of(&lab, "outage").len();
    lab.services()
        .start_clickhouse()
        .expect("ClickHouse starts");
    assert!(
        after >= before + 100,
        "events flow meanwhile: {before}, then {after}"
    );

    let sent = stream.join().expect("everything was sent");
    wait_until(LONG, "every row is there", || {
        rows_stored(&lab, "driver_locations") >= sent
    });
    assert_eq!(job.stop().code(), Some(0));
    assert_each_row_once(&lab, sent, events_of(&lab, "outage").len());
}

#[test]
fn a_job_that_is_started_again_goes_on_where_it_stopped() {
    let lab = lab("start again");
    let pipeline = lab.pipeline("again", "");
    lab.init(&pipeline);
    add_fence(&lab);
    let stream = stream(&lab, 15, 2_000);
    for workers in [1, 2] {
        let job = lab.run(&pipeline, workers);
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(job.stop().code(), Some(0));
    }
    let sent = stream.join().expect("everything was sent");
    let job = lab.run(&pipeline, 2);
    lab.wait_for_no_lag("again", LONG);
    assert_eq!(job.stop().code(), Some(0));
    assert_eq!(lab.lag("again"), Some(0), "lag tools agree after a stop");
    assert_each_row_once(&lab, sent, events_of(&lab, "again").len());
    assert_as_undisturbed(&lab, "again");
}

#[test]
fn a_message_that_fits_into_no_dead_letter_is_cut_and_stops_nobody() {
    let lab = lab("too large");
    let pipeline = lab.pipeline("large", "clickhouse.enabled = false");
    lab.init(&pipeline);
    lab.alter_topic("rider-updates-dead-letter", "max.message.bytes", "1048576");
    let mut sender = lab.sender();
    // Random bytes, which no compression makes smaller.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice as u8
    })
    .take(3_000_000)
    .collect();
    sender.send("rider-updates", 0, now_ms(), Some(b"1"), Some(&large));
    let good = update(1, 77.6, 12.9, now_ms());
    sender.send("rider-updates", 0, now_ms(), Some(b"1"), Some(&good));
    sender.flush();
    let job = lab.run(&pipeline, 1);
    lab.wait_for_no_lag("large", LONG);
    assert_eq!(job.stop().code(), Some(0));
    let letters = lab.read_all("rider-updates-dead-letter");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header("rf-reason"), "oversize");
    assert_eq!(letters[0].header("rf-cut-from-bytes"), "3000000");
    let cut = letters[0].value.as_deref().expect("a value");
    assert!(
        large.starts_with(cut) && cut.len() >= 500_000,
        "{} bytes",
        cut.len()
    );
}

#[test]
fn a_stop_takes_less_than_30_seconds_even_while_kafka_is_away() {
    let mut lab = lab("stop without Kafka");
    let pipeline = lab.pipeline("alone", "clickhouse.enabled = false");
    lab.init(&pipeline);
    add_fence(&lab);
    let job = lab.run(&pipeline, 2);
    let stream = stream(&lab, 3, 200);
    wait_until(LONG, "events come", || !events_of(&lab, "alone").is_empty());
    lab.services().kill_kafka().expect("Kafka is killed");
    let began = Instant::now();
    let status = job.stop();
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    assert!(status.code().is_some(), "it ends by itself: {status}");
    lab.services().start_kafka().expect("Kafka starts");
    stream.join().expect("everything was sent");
}

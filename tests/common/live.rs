//! A seeded city that is written in time, and of which every run must tell the same.
//!
//! Two runs have two epoch logs, and where a record stands is a function of the log: one that
//! reaches the job when its partition was known to have nothing unread stands at the beginning
//! of the open epoch, up to half a second after the time that it bears. So the input is such
//! that this can't matter:
//!
//! - Time goes in ticks of [`TICK_MS`]; all records of a tick bear the tick's time, and a tick
//!   begins when Kafka has acknowledged all of the tick before.
//! - The city has [`ZONES`] zones far from each other, and a tick belongs to one zone. Whatever
//!   concerns a zone's drivers, be it an update, an order or a fence, is written in its own
//!   ticks, so [`PERIOD_MS`] apart; in one tick a driver is concerned by one record only, or by
//!   fences alone.
//! - Every deadline is over before the next record that concerns its driver, and stands apart
//!   from it, and from a deadline of another kind, by a quarter of a period: silence takes one
//!   quarter, a dwell two ([`DWELL_S`]), an arrival three. So drivers with orders fall silent
//!   between any two of their updates.
//! - A tick that Kafka takes over [`LATE_MS`] to acknowledge is followed by a pause that is
//!   longer than any deadline and a whole number of periods, so that the above still holds.
//!
//! A record stands at most [`LATE_MS`] and 600 ms (half a second for which an end is believed,
//! and an epoch) behind its time, and a deadline as much; so records and timers that concern
//! each other come in the order of their times in every run, whatever its epochs.
//!
//! There are drivers who alternate between partitions, sit still, fall silent, jump, send late,
//! twice or inaccurately; orders through all states, given to another driver on the way;
//! fences that come, change, go and are refused; and bad messages on all topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use riderflow::model::Input;
use serde_json::{Value, json};

use super::bad_inputs::{self, BadInput};
use super::common::{Lab, Sender, now_ms};

const TICK_MS: i64 = 300;
const ZONES: i64 = 16;
const PERIOD_MS: i64 = TICK_MS * ZONES;
const LATE_MS: i64 = 500;
/// Half a period.
const DWELL_S: f64 = 2.4;
/// Longer than any deadline, and what it and a record may be moved.
const PAUSE_MS: i64 = 5_000;

/// What a pipeline must say of the deadlines.
pub const PIPELINE: &str = "drivers.silent_s = 1.2\norders.arrive_s = 3.6";
/// All timers have fired this long after the last record.
pub const SETTLED_MS: i64 = 5_000;

const METRES_PER_DEGREE: f64 = 111_194.9;
const SOUTH: f64 = 12.9;
/// Between the ways of two drivers: 20 m.
const ROW_DEG: f64 = 0.000_18;
/// Metres that a driver goes in a period.
const STEP_M: f64 = 155.0;
/// Where the way ends.
const END_M: f64 = 6.0 * STEP_M;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    /// Updates a second.
    pub rate: u64,
    /// Seconds of input that are there when the first job starts.
    pub backlog_s: i64,
    /// Of so many drivers one is among fences and has orders; nothing happens to the others.
    pub quiet: i64,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Written {
    /// Valid updates, as `partition/offset`.
    pub valid: BTreeSet<String>,
    /// Messages to be refused, as `topic/partition/offset`.
    pub bad: BTreeSet<String>,
    /// Where every partition ends.
    pub ends: BTreeMap<(Input, i32), i64>,
    /// The newest timestamp.
    pub last_ms: i64,
    /// How often Kafka took long.
    pub pauses: u32,
}

/// The city, being written from a thread of its own until it is ended or dropped.
pub struct Live {
    stop: Arc<AtomicBool>,
    updates: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Written>>,
}

impl Live {
    /// Writes the backlog, then goes on in time.
    pub fn start(lab: &Lab, settings: Settings) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let updates = Arc::new(AtomicUsize::new(0));
        let in_time = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            city: City::new(settings),
            sender: lab.sender(),
            written: Written::default(),
            updates: Arc::clone(&updates),
        };
        let thread = {
            let (stop, in_time) = (Arc::clone(&stop), Arc::clone(&in_time));
            let backlog_ms = settings.backlog_s * 1000;
            std::thread::spawn(move || {
                writer.write(backlog_ms, &stop, &in_time);
                writer.written
            })
        };
        while !in_time.load(Ordering::SeqCst) && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            stop,
            updates,
            thread: Some(thread),
        }
    }

    /// Updates written so far, bad ones not counted.
    pub fn updates(&self) -> usize {
        self.updates.load(Ordering::SeqCst)
    }

    pub fn end(mut self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("everything was written")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Writer {
    city: City,
    sender: Sender,
    written: Written,
    updates: Arc<AtomicUsize>,
}

impl Writer {
    fn write(&mut self, backlog_ms: i64, stop: &AtomicBool, in_time: &AtomicBool) {
        let mut base_ms = now_ms() - backlog_ms;
        for tick in 0.. {
            let at_ms = base_ms + tick * TICK_MS;
            let wait_ms = at_ms - now_ms();
            if wait_ms > 0 {
                in_time.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(wait_ms as u64));
            }
            if stop.load(Ordering::SeqCst) {
                break;
            }
            for message in self.city.tick(tick, at_ms) {
                self.send(&message, at_ms);
            }
            self.sender.settle();
            self.written.last_ms = at_ms;
            let late_ms = now_ms() - at_ms;
            if in_time.load(Ordering::SeqCst) && late_ms > LATE_MS {
                self.written.pauses += 1;
                base_ms += (late_ms + PAUSE_MS) / PERIOD_MS * PERIOD_MS + PERIOD_MS;
            }
        }
        for input in Input::ALL {
            for partition in 0..partitions(input) {
                let end = self.sender.end(input.topic(), partition);
                self.written.ends.insert((input, partition), end);
            }
        }
    }

    fn send(&mut self, message: &Message, at_ms: i64) {
        let topic = message.input.topic();
        let offset = self.sender.send(
            topic,
            message.partition,
            at_ms,
            message.key.as_deref(),
            message.value.as_deref(),
        );
        let partition = message.partition;
        if message.is_bad {
            let id = format!("{topic}/{partition}/{offset}");
            self.written.bad.insert(id);
        } else if message.input == Input::Updates {
            let id = format!("{partition}/{offset}");
            self.written.valid.insert(id);
            self.updates.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn partitions(input: Input) -> i32 {
    match input {
        Input::Geofences => 1,
        Input::Orders | Input::Updates => 2,
    }
}

struct Message {
    input: Input,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    is_bad: bool,
}

/// What the next records say. Knows no Kafka.
struct City {
    dice: u64,
    /// Of one zone.
    drivers: i64,
    quiet: i64,
    /// By zone and driver.
    last_event_ms: BTreeMap<(i64, i64), i64>,
    /// The cycle until which a driver keeps silent.
    silent_until: BTreeMap<(i64, i64), i64>,
    bad: Vec<BadInput>,
}

impl City {
    fn new(settings: Settings) -> Self {
        let bad = bad_inputs::bad_inputs().into_iter();
        Self {
            dice: settings.seed | 1,
            drivers: (settings.rate as i64 * PERIOD_MS / 1000 / ZONES).max(4),
            quiet: settings.quiet,
            last_event_ms: BTreeMap::new(),
            silent_until: BTreeMap::new(),
            // A compacted topic refuses what has no key.
            bad: bad
                .filter(|bad| bad.key.is_some() || bad.topic == "rider-updates")
                .collect(),
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn tick(&mut self, tick: i64, at_ms: i64) -> Vec<Message> {
        let (zone, cycle) = (tick % ZONES, tick / ZONES);
        let mut messages = Vec::new();
        if cycle == 0 {
            messages.extend(FENCES.iter().map(|name| self.fence(zone, name, false)));
        } else if (cycle + zone) % 12 == 5 {
            let name = FENCES[self.roll(FENCES.len() as u64) as usize];
            messages.push(self.fence(zone, name, true));
            if self.roll(3) == 0 {
                messages.push(refused_fence(zone, name));
            }
            // Twice in one moment: each version is judged in turn.
            messages.push(self.fence(zone, name, true));
        } else {
            for driver in 0..self.drivers {
                match self.order_step(zone, driver, cycle, at_ms) {
                    Step::Order(message) => messages.push(message),
                    Step::Concerned => {}
                    Step::Free => messages.extend(self.update(zone, driver, cycle, at_ms)),
                }
            }
        }
        let bad = self.bad[tick as usize % self.bad.len()].clone();
        let input = Input::ALL.into_iter().find(|it| it.topic() == bad.topic);
        let input = input.expect("an input's topic");
        messages.push(Message {
            input,
            partition: self.roll(2) as i32 % partitions(input),
            key: bad.key,
            value: bad.value,
            is_bad: true,
        });
        messages
    }

    /// Of five busy drivers the first two share an order in turn: one gets it, the other takes it
    /// over and delivers it.
    fn order_step(&mut self, zone: i64, driver: i64, cycle: i64, at_ms: i64) -> Step {
        if driver % 5 > 1 || !self.is_busy(driver) {
            return Step::Free;
        }
        let first = driver - driver % 5;
        let (first_id, second_id) = (driver_id(zone, first), driver_id(zone, first + 1));
        let round = (cycle + first) / 16;
        let (holder, status) = match (cycle + first) % 16 {
            2 => (first_id, "placed"),
            3 => (first_id, "assigned"),
            5 => (second_id, "assigned"),
            9 => (second_id, "picked_up"),
            13 if round % 3 == 2 => (second_id, "cancelled"),
            13 => (second_id, "delivered"),
            15 => (second_id, ""),
            _ => return Step::Free,
        };
        if driver != first {
            return Step::Concerned;
        }
        let id = format!("o-{zone}-{first}-{round}");
        let row_latitude = self.latitude(first);
        let value = json!({
            "orderId": id, "driverId": holder, "status": status, "updatedAt": at_ms - 40,
            "pickup": {"longitude": longitude(zone, 0.0), "latitude": row_latitude,
                "place": format!("restaurant-{zone}-{first}")},
            "dropoff": {"longitude": longitude(zone, END_M), "latitude": row_latitude},
        });
        Step::Order(Message {
            input: Input::Orders,
            partition: (first / 5 % 2) as i32,
            key: Some(id.into_bytes()),
            value: (!status.is_empty()).then(|| bytes(&value)),
            is_bad: false,
        })
    }

    fn is_busy(&self, driver: i64) -> bool {
        driver / 5 % self.quiet == 0
    }

    /// Five drivers who share orders drive next to each other.
    fn latitude(&self, driver: i64) -> f64 {
        let away = if self.is_busy(driver) { 0.0 } else { 0.2 };
        SOUTH + away + ROW_DEG * (driver % 40) as f64
    }

    /// To and fro, with a stay at both ends.
    fn update(&mut self, zone: i64, driver: i64, cycle: i64, at_ms: i64) -> Option<Message> {
        let own = (zone, driver);
        if self
            .silent_until
            .get(&own)
            .is_some_and(|until| cycle < *until)
        {
            return None;
        }
        let on_way = match (cycle + 7 * driver) % 20 {
            there @ 0..=5 => there as f64 * STEP_M,
            6..=9 => END_M,
            back @ 10..=15 => END_M - (back - 10) as f64 * STEP_M,
            _ => 0.0,
        };
        let id = driver_id(zone, driver);
        let mut value = json!({
            "driverId": id, "longitude": longitude(zone, on_way), "latitude": self.latitude(driver),
            "state": if driver % 3 == 0 { "south" } else { "north" },
        });
        let regular_ms = at_ms - self.roll(200) as i64;
        let mut event_ms = regular_ms;
        match self.roll(200) {
            0..=4 => event_ms = at_ms - 9_000,
            5..=9 => event_ms = *self.last_event_ms.get(&own).unwrap_or(&event_ms),
            10..=13 => value["latitude"] = json!(self.latitude(driver) + 0.5),
            14..=18 => value["accuracy"] = json!(500.0),
            19 => {
                let cycles = 2 + self.roll(3) as i64;
                self.silent_until.insert(own, cycle + cycles);
            }
            20..=99 => {
                value["accuracy"] = json!(8.5);
                value["speed"] = json!(self.roll(3000) as f64 / 100.0);
                value["heading"] = json!(self.roll(3600) as f64 / 10.0);
            }
            _ => {}
        }
        if event_ms == regular_ms {
            self.last_event_ms.insert(own, event_ms);
        }
        value["timestamp"] = json!(event_ms);
        let alternates = driver % 2 == 1;
        let turn = if alternates { cycle } else { driver / 2 };
        Some(Message {
            input: Input::Updates,
            partition: (turn % 2) as i32,
            key: Some(id.to_string().into_bytes()),
            value: Some(bytes(&value)),
            is_bad: false,
        })
    }

    /// One of a zone's fences; `varied`: moved, with other properties, or removed.
    fn fence(&mut self, zone: i64, name: &str, varied: bool) -> Message {
        let shift = if varied {
            self.roll(200) as f64 - 100.0
        } else {
            0.0
        };
        let strip = |west: f64, east: f64| {
            let (west, east) = (longitude(zone, west + shift), longitude(zone, east + shift));
            let (south, north) = (SOUTH - 0.01, SOUTH + 0.02);
            json!([
                [west, south],
                [east, south],
                [east, north],
                [west, north],
                [west, south]
            ])
        };
        let polygon = |rings: Value| json!({"type": "Polygon", "coordinates": rings});
        let (geometry, mut properties) = match name {
            "margin" => (
                polygon(json!([strip(250.0, 650.0)])),
                json!({"exitMargin": 60}),
            ),
            "end" => (
                polygon(json!([strip(850.0, 1010.0)])),
                json!({"dwell": DWELL_S}),
            ),
            "narrow" => (
                polygon(json!([strip(60.0, 90.0)])),
                json!({"name": "narrow"}),
            ),
            "disc" => {
                let centre = json!([longitude(zone, END_M), SOUTH + ROW_DEG * 20.0]);
                let geometry = json!({"type": "Point", "coordinates": centre});
                (
                    geometry,
                    json!({"radius": 400, "dwell": DWELL_S, "kind": "disc"}),
                )
            }
            _ => {
                let parts = json!([[strip(-100.0, 100.0)], [strip(700.0, 780.0)]]);
                let geometry = json!({"type": "MultiPolygon", "coordinates": parts});
                (geometry, json!({"dwell": DWELL_S, "exitMargin": 10}))
            }
        };
        if varied && self.roll(2) == 0 {
            properties["dwell"] = json!(DWELL_S);
        }
        let value = json!({"type": "Feature", "geometry": geometry, "properties": properties});
        let removed = varied && self.roll(3) == 0;
        Message {
            input: Input::Geofences,
            partition: 0,
            key: Some(format!("{name}-{zone}").into_bytes()),
            value: (!removed).then(|| bytes(&value)),
            is_bad: false,
        }
    }
}

const FENCES: [&str; 5] = ["margin", "end", "narrow", "disc", "twofold"];

enum Step {
    Order(Message),
    /// Another driver's order record concerns this one.
    Concerned,
    Free,
}

/// An open ring: the former version stays in force.
fn refused_fence(zone: i64, name: &str) -> Message {
    let ring = json!([[77.0, 12.0], [77.1, 12.0], [77.1, 12.1], [77.0, 12.1]]);
    let geometry = json!({"type": "Polygon", "coordinates": [ring]});
    let value = json!({"type": "Feature", "geometry": geometry, "properties": null});
    Message {
        input: Input::Geofences,
        partition: 0,
        key: Some(format!("{name}-{zone}").into_bytes()),
        value: Some(bytes(&value)),
        is_bad: true,
    }
}

fn driver_id(zone: i64, driver: i64) -> i64 {
    zone * 1_000_000 + driver
}

/// Zones are more than 10 km apart.
fn longitude(zone: i64, metres: f64) -> f64 {
    let per_degree = METRES_PER_DEGREE * SOUTH.to_radians().cos();
    77.0 + 0.1 * zone as f64 + metres / per_degree
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

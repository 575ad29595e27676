use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher};

use serde_json::Value;

use super::*;
use crate::model::Input;

const START_MS: i64 = 1_790_000_000_000;

/// Metres between two positions of one city: flat is exact enough.
fn distance_m(a: (f64, f64), b: (f64, f64)) -> f64 {
    let north = (b.1 - a.1) * 111_195.0;
    let east = (b.0 - a.0) * 111_195.0 * 12.9716_f64.to_radians().cos();
    north.hypot(east)
}

/// One message, taken out of its batch.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    what: What,
    timestamp_ms: i64,
    state: Option<&'static str>,
    key: String,
    value: Option<Vec<u8>>,
}

impl Sent {
    fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap()).unwrap()
    }
}

fn sent(batch: &Batch) -> impl Iterator<Item = Sent> + '_ {
    batch.messages().iter().map(|message| Sent {
        what: message.what,
        timestamp_ms: message.timestamp_ms,
        state: message.state,
        key: String::from_utf8(batch.key(message).to_vec()).unwrap(),
        value: batch.value(message).map(<[u8]>::to_vec),
    })
}

/// All that a plan sends in so much city time: fences, then steps.
fn story(plan: Plan, city_s: i64) -> Vec<Sent> {
    let mut simulation = Simulation::new(plan);
    let mut batch = Batch::new();
    simulation.fences(&mut batch);
    let mut all: Vec<_> = sent(&batch).collect();
    while simulation.now_ms() < city_s * 1_000 {
        simulation.next_step(&mut batch);
        all.extend(sent(&batch));
    }
    all
}

fn demo(seed: u64) -> Plan {
    Plan::new(1_000, 300, 100, seed, START_MS)
}

fn hash(story: &[Sent]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for sent in story {
        hasher.write(sent.key.as_bytes());
        hasher.write(sent.value.as_deref().unwrap_or_default());
        hasher.write_i64(sent.timestamp_ms);
        hasher.write(sent.state.unwrap_or_default().as_bytes());
    }
    hasher.finish()
}

#[test]
fn a_seed_fixes_every_byte() {
    let first = hash(&story(demo(7), 20));
    assert_eq!(first, hash(&story(demo(7), 20)));
    assert_ne!(first, hash(&story(demo(8), 20)));
}

#[test]
fn a_story_does_not_depend_on_how_it_is_sliced() {
    let fine = story(demo(7), 20);
    for slice_ms in [1, 7, 1_000, 20_000] {
        let coarse = story(
            Plan {
                slice_ms,
                ..demo(7)
            },
            20,
        );
        let common = fine.len().min(coarse.len());
        assert!(
            common > 20_000 && coarse[..common] == fine[..common],
            "{slice_ms} ms"
        );
    }
}

#[test]
fn a_later_start_only_moves_the_times() {
    let plan = demo(3);
    let later = Plan {
        start_ms: START_MS + 86_400_000,
        ..plan.clone()
    };
    let (today, tomorrow) = (story(plan, 5), story(later, 5));
    assert_eq!(today.len(), tomorrow.len());
    for (a, b) in today.iter().zip(&tomorrow) {
        assert_eq!((a.what, &a.key, a.state), (b.what, &b.key, b.state));
        assert_eq!(a.timestamp_ms + 86_400_000, b.timestamp_ms);
    }
}

#[test]
fn times_never_go_back_and_updates_are_spread_evenly() {
    let story = story(demo(1), 30);
    let mut last = 0;
    let mut per_100_ms = BTreeMap::new();
    for sent in &story {
        assert!(sent.timestamp_ms >= last, "{sent:?}");
        last = sent.timestamp_ms;
        if sent.what.input() == Input::Updates {
            *per_100_ms.entry(sent.timestamp_ms / 100).or_insert(0) += 1;
        }
    }
    assert_eq!(per_100_ms.len(), 300);
    assert!(
        per_100_ms.values().all(|n| (85..=115).contains(n)),
        "{per_100_ms:?}"
    );
}

#[test]
fn drivers_move_plausibly() {
    for (drivers, interval_us) in [(1_000, 1_000_000), (50, 5_000_000), (20, 50_000)] {
        let plan = Plan {
            interval_us,
            ..Plan::new(drivers, drivers / 3, 20, 11, START_MS)
        };
        let mut last: HashMap<String, (i64, (f64, f64))> = HashMap::new();
        let mut moved: HashMap<String, f64> = HashMap::new();
        let (mut fast, mut steps) = (0, 0);
        for sent in story(plan, 120) {
            let What::Update(oddity) = sent.what else {
                continue;
            };
            let json = sent.json();
            let at = (
                json["longitude"].as_f64().unwrap(),
                json["latitude"].as_f64().unwrap(),
            );
            let taken_ms = json["timestamp"].as_i64().unwrap();
            assert!(distance_m((77.5946, 12.9716), at) < 12_000.0, "{json}");
            match oddity {
                Oddity::None => {
                    assert!(taken_ms == sent.timestamp_ms);
                    if let Some((then_ms, from)) = last.insert(sent.key.clone(), (taken_ms, at)) {
                        let time_s = (taken_ms - then_ms) as f64 / 1e3;
                        assert!(time_s > 0.0);
                        let distance_m = distance_m(from, at);
                        // The wandering fix may add a few metres to what 17 m/s allow.
                        assert!(
                            distance_m <= 17.0 * time_s + 9.0,
                            "{distance_m} in {time_s} s: {json}"
                        );
                        fast += usize::from(distance_m > 30.0 * time_s);
                        steps += 1;
                        *moved.entry(sent.key).or_default() += distance_m;
                    }
                }
                Oddity::Late | Oddity::Duplicate => {
                    assert!(taken_ms <= last[&sent.key].0, "{json}");
                }
                Oddity::Inaccurate => {
                    assert!(json["accuracy"].as_f64().unwrap() > 100.0);
                }
                Oddity::Teleport => {
                    if let Some(&(then_ms, from)) = last.get(&sent.key) {
                        let time_s = (taken_ms - then_ms) as f64 / 1e3;
                        assert!(distance_m(from, at) > 70.0 * time_s, "{json}");
                    }
                }
            }
        }
        if interval_us >= 1_000_000 {
            assert_eq!(fast, 0, "of {steps}");
        }
        assert_eq!(moved.len(), drivers as usize);
        let far = moved.values().filter(|&&m| m > 100.0).count();
        assert!(
            far * 10 > moved.len() * 8,
            "{far} of {} went anywhere",
            moved.len()
        );
    }
}

#[test]
fn updates_have_the_contracts_fields_and_states_route_both_ways() {
    let mut states = BTreeMap::new();
    let mut detailed = BTreeSet::new();
    let mut crossed: HashMap<String, BTreeSet<&str>> = HashMap::new();
    for sent in story(demo(2), 60) {
        let What::Update(oddity) = sent.what else {
            continue;
        };
        let json = sent.json();
        let fields: BTreeSet<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        for field in ["driverId", "longitude", "latitude", "state", "timestamp"] {
            assert!(fields.contains(field), "{json}");
        }
        assert_eq!(json["driverId"].as_u64().unwrap().to_string(), sent.key);
        assert_eq!(json["state"].as_str(), sent.state);
        if oddity == Oddity::None {
            *states.entry(sent.state.unwrap()).or_insert(0) += 1;
            crossed
                .entry(sent.key.clone())
                .or_default()
                .insert(sent.state.unwrap());
            if fields.contains("speed") {
                assert!((0.0..=17.0).contains(&json["speed"].as_f64().unwrap()));
                assert!((0.0..=360.0).contains(&json["heading"].as_f64().unwrap()));
                assert!((0.0..=100.0).contains(&json["accuracy"].as_f64().unwrap()));
                detailed.insert(sent.key);
            }
        }
    }
    assert!((400..=600).contains(&detailed.len()), "{}", detailed.len());
    let all: u32 = states.values().sum();
    assert_eq!(states.len(), 4);
    assert!(
        (all * 35 / 100..all * 65 / 100).contains(&states["south"]),
        "{states:?}"
    );
    assert!(
        crossed
            .values()
            .any(|states| states.len() > 1 && states.contains("south"))
    );
}

#[test]
fn orders_live_legally_and_their_number_is_kept_up() {
    let mut status: HashMap<String, (What, Value)> = HashMap::new();
    let mut removed = BTreeSet::new();
    let mut counts = Counts::default();
    let mut reassigned = 0;
    let is_open = |what: What| matches!(what, What::Order(status) if !status.is_ended());
    let mut next_check_ms = START_MS + 5_000;
    for sent in story(demo(5), 180) {
        if sent.timestamp_ms >= next_check_ms {
            next_check_ms += 5_000;
            let open = status.values().filter(|(what, _)| is_open(*what)).count();
            assert!((280..=300).contains(&open), "{open} open");
        }
        counts.add(sent.what);
        match sent.what {
            What::OrderRemoved => {
                assert!(sent.value.is_none());
                let (last, _) = status.remove(&sent.key).unwrap();
                assert!(!is_open(last), "{sent:?}");
                removed.insert(sent.key);
            }
            What::Order(now) => {
                use crate::model::OrderStatus::*;
                let json = sent.json();
                assert_eq!(json["orderId"], sent.key.as_str());
                assert_eq!(json["status"], now.as_str());
                assert_eq!(json["updatedAt"], sent.timestamp_ms);
                assert!(
                    json["pickup"]["place"]
                        .as_str()
                        .unwrap()
                        .starts_with("restaurant-")
                );
                assert!(json["dropoff"]["longitude"].is_f64());
                assert_eq!(
                    json.get("driverId").is_some(),
                    now != Placed || !json["driverId"].is_null()
                );
                assert!(!removed.contains(&sent.key));
                let before = status.insert(sent.key.clone(), (sent.what, json.clone()));
                let legal = match (before.as_ref().map(|(what, _)| *what), now) {
                    (None, Placed) => true,
                    (Some(What::Order(Placed)), Assigned | Cancelled) => true,
                    (Some(What::Order(Assigned)), Assigned) => {
                        reassigned += 1;
                        before.unwrap().1["driverId"] != json["driverId"]
                    }
                    (Some(What::Order(Assigned)), PickedUp | Cancelled) => true,
                    (Some(What::Order(PickedUp)), Delivered) => true,
                    _ => false,
                };
                assert!(legal, "{sent:?}");
            }
            _ => {}
        }
    }
    for what in What::ALL {
        assert!(
            counts.of(what) > 0 || what == What::FenceRemoved,
            "no {what:?} in {counts:?}"
        );
    }
    assert!(reassigned > 5, "{reassigned}");
    let carried: Vec<_> = status
        .values()
        .filter(|(what, _)| is_open(*what))
        .filter_map(|(_, json)| json["driverId"].as_u64())
        .collect();
    let distinct: BTreeSet<_> = carried.iter().collect();
    assert_eq!(carried.len(), distinct.len(), "a driver has two orders");
}

#[test]
fn fences_are_valid_and_of_every_shape() {
    let mut simulation = Simulation::new(demo(9));
    let mut batch = Batch::new();
    simulation.fences(&mut batch);
    let mut kinds = BTreeMap::new();
    for sent in sent(&batch) {
        assert_eq!(sent.what, What::Fence);
        let json = sent.json();
        assert_eq!(json["type"], "Feature");
        let kind = json["properties"]["kind"].as_str().unwrap().to_owned();
        let geometry = json["geometry"]["type"].as_str().unwrap().to_owned();
        *kinds.entry((kind, geometry)).or_insert(0) += 1;
    }
    let expected = [
        (("campus", "MultiPolygon"), 10),
        (("gate", "Polygon"), 20),
        (("park", "Polygon"), 10),
        (("quarter", "Polygon"), 20),
        (("restaurant", "Point"), 40),
    ];
    let expected = expected.map(|((kind, geometry), n)| ((kind.into(), geometry.into()), n));
    assert_eq!(kinds, BTreeMap::from(expected));
    for fence in simulation.initial_fences() {
        crate::geo::validate(&fence.geometry).unwrap();
    }
    // Surges come and go, and closing removes what is left.
    let mut surges = BTreeSet::new();
    let (mut set, mut gone) = (0, 0);
    while simulation.now_ms() < 120_000 {
        simulation.next_step(&mut batch);
        for sent in sent(&batch) {
            match sent.what {
                What::Fence => {
                    set += 1;
                    surges.insert(sent.key);
                }
                What::FenceRemoved => {
                    gone += 1;
                    assert!(surges.remove(&sent.key));
                }
                _ => {}
            }
        }
    }
    assert!(
        set > 5 && gone > 0 && surges.len() <= 3,
        "{set} {gone} {surges:?}"
    );
    simulation.closing(&mut batch);
    for sent in sent(&batch) {
        assert!(sent.value.is_none());
        surges.remove(&sent.key);
    }
    assert!(surges.is_empty());
}

/// What the contract's rules make of a minute, near enough: stays near targets, approaches,
/// departures, silences, fence entries, exits and crossings all happen.
#[test]
fn a_demo_minute_has_every_kind_of_event() {
    let story = story(demo(1), 60);
    let mut target: HashMap<u64, (String, (f64, f64))> = HashMap::new();
    let mut near_since: HashMap<u64, i64> = HashMap::new();
    let mut arrived: HashMap<u64, (f64, f64)> = HashMap::new();
    let mut heard: HashMap<u64, i64> = HashMap::new();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for sent in &story {
        match sent.what {
            What::Order(status) => {
                *seen.entry(status.as_str()).or_default() += 1;
                let json = sent.json();
                let Some(driver) = json["driverId"].as_u64() else {
                    continue;
                };
                let leg = match status.as_str() {
                    "assigned" => &json["pickup"],
                    "picked_up" => &json["dropoff"],
                    _ => {
                        target.remove(&driver);
                        continue;
                    }
                };
                let at = (
                    leg["longitude"].as_f64().unwrap(),
                    leg["latitude"].as_f64().unwrap(),
                );
                near_since.remove(&driver);
                target.insert(driver, (sent.key.clone(), at));
            }
            What::Update(Oddity::None) => {
                let json = sent.json();
                let driver = json["driverId"].as_u64().unwrap();
                let at = (
                    json["longitude"].as_f64().unwrap(),
                    json["latitude"].as_f64().unwrap(),
                );
                let now_ms = sent.timestamp_ms;
                let before = heard.insert(driver, now_ms);
                if let Some((_, to)) = target.get(&driver) {
                    if before.is_some_and(|before| now_ms - before > 30_000) {
                        *seen.entry("resumed").or_default() += 1;
                    }
                    if distance_m(at, *to) <= 60.0 {
                        let since = *near_since.entry(driver).or_insert(now_ms);
                        if now_ms - since >= 10_000 && arrived.insert(driver, *to).is_none() {
                            *seen.entry("arrived").or_default() += 1;
                        }
                    } else {
                        near_since.remove(&driver);
                    }
                }
                if let Some(from) = arrived.get(&driver)
                    && distance_m(at, *from) > 150.0
                {
                    arrived.remove(&driver);
                    *seen.entry("departed").or_default() += 1;
                }
            }
            _ => {}
        }
    }
    for (kind, least) in [
        ("placed", 300),
        ("assigned", 250),
        ("picked_up", 120),
        ("delivered", 20),
        ("cancelled", 3),
        ("resumed", 3),
        ("arrived", 80),
        ("departed", 20),
    ] {
        let count = seen.get(kind).copied().unwrap_or_default();
        assert!(count >= least, "{count} {kind}: {seen:?}");
    }
}

#[test]
fn more_orders_than_drivers_wait_as_placed() {
    let plan = Plan::new(10, 200, 0, 1, START_MS);
    let mut counts = Counts::default();
    for sent in story(plan, 30) {
        counts.add(sent.what);
    }
    assert!(counts.input(Input::Updates) >= 200);
    assert!(counts.of(What::Order(crate::model::OrderStatus::Placed)) >= 200);
    assert_eq!(counts.input(Input::Geofences), 0);
}

#[test]
fn one_driver_and_any_rate_work() {
    let plan = Plan {
        oddities: Oddities::NONE,
        ..Plan::new(1, 1, 1, 1, START_MS).with_rate(2_000.0)
    };
    assert_eq!(plan.interval_us, 500);
    assert_eq!(
        story(plan, 1)
            .iter()
            .filter(|s| s.what.input() == Input::Updates)
            .count(),
        2_000
    );
    let plan = Plan {
        oddities: Oddities::NONE,
        ..Plan::new(0, 0, 0, 1, START_MS)
    };
    assert_eq!(story(plan, 5).len(), 5);
}

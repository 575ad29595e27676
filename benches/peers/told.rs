//! What was told: read back from Kafka and held together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rdkafka::message::{Headers, Message};
use riderflow::model::EventKind;

use crate::common::read_to_end;

/// For each driver the ids and times of its events, as they were told.
pub(crate) type Told = HashMap<String, Vec<(String, String)>>;

/// The events of a topic that have the source of a pipeline, or of a peer called so.
pub(crate) fn read(brokers: &str, topic: &str, name: &str) -> Told {
    let source = format!("/riderflow/{name}");
    let mut told = Told::new();
    read_to_end(brokers, topic, |message| {
        let header = |name: &str| {
            let headers = message.headers().expect("an event has headers");
            let value = headers.iter().find(|header| header.key == name)?.value?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        if header("ce_source").is_some_and(|its| its == source) {
            let driver = String::from_utf8_lossy(message.key().expect("a key")).into_owned();
            let id = header("ce_id").expect("an id");
            let time = header("ce_time").expect("a time");
            told.entry(driver).or_default().push((id, time));
        }
    });
    told
}

/// Fails unless each driver was told the same by both, in the same order.
pub(crate) fn compare(job: &Told, peer: &Told, name: &str) {
    let drivers: BTreeSet<&String> = job.keys().chain(peer.keys()).collect();
    let differ: Vec<_> = (drivers.into_iter())
        .filter(|driver| job.get(*driver) != peer.get(*driver))
        .collect();
    for driver in differ.iter().take(5) {
        let (job, peer) = (job.get(*driver), peer.get(*driver));
        eprintln!("driver {driver}:\n  job  {job:?}\n  peer {peer:?}");
    }
    let all = differ.len();
    assert!(
        differ.is_empty(),
        "{name} told {all} drivers something else"
    );
}

/// From so many updates on, there are events of all types that the input can have.
const WHOLE: u64 = 4_000_000;
/// Those that it can't: orders never end.
const NEVER: [EventKind; 2] = [EventKind::OrderDelivered, EventKind::OrderCancelled];

/// Fails unless something was told, and all that so many updates must bring.
pub(crate) fn is_whole(told: &Told, updates: u64) {
    let counts = counts(told);
    assert!(!counts.is_empty(), "nothing was told");
    let wanted = EventKind::ALL.into_iter().filter(|it| !NEVER.contains(it));
    let missing: Vec<&str> = wanted
        .map(EventKind::name)
        .filter(|kind| !counts.contains_key(kind))
        .collect();
    assert!(
        updates < WHOLE || missing.is_empty(),
        "{updates} updates brought no {missing:?}"
    );
}

fn counts(told: &Told) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, _) in told.values().flatten() {
        let kind = id.split('/').nth(3).expect("an id has a type");
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// How many events of each type.
pub(crate) fn described(told: &Told) -> String {
    let counts = counts(told);
    let all: usize = counts.values().sum();
    let each: Vec<String> =
        (counts.iter().map(|(kind, count)| format!("{count} {kind}"))).collect();
    format!(
        "{all} events of {} drivers ({})",
        told.len(),
        each.join(", ")
    )
}

//! The events that are received, and when what set them off was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;
use riderflow::runtime::wall_clock_ms;
use serde::Deserialize;

use crate::common::{assign_all, read_to_end};

const EVENTS: &str = "rider-notifications";

/// An event as it came.
pub(crate) struct Received {
    topic: String,
    partition: i32,
    offset: i64,
    received_ms: i64,
}

/// An event with the time of its cause.
pub(crate) struct Told {
    /// The Kafka timestamp of what set it off.
    pub(crate) cause_ms: i64,
    received_ms: i64,
}

impl Told {
    pub(crate) fn latency_ms(&self) -> i64 {
        self.received_ms - self.cause_ms
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    cause: &'a str,
    source: Source<'a>,
}

#[derive(Deserialize)]
struct Source<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
}

/// Receives events on a thread of its own.
pub(crate) struct Listener {
    stop: Arc<AtomicBool>,
    all: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Received>>,
}

impl Listener {
    pub(crate) fn start(brokers: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "bench-latency")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "100")
            .create()
            .expect("a consumer");
        assign_all(&consumer, EVENTS);
        let (stop, all) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&all));
        let thread = std::thread::spawn(move || {
            let mut received = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                // An error is a broken connection, which the client mends.
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    received.extend(read(message.payload().unwrap_or_default()));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            received
        });
        Self { stop, all, thread }
    }

    /// How many events have been received so far, those that timers set off among them.
    pub(crate) fn count(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Those that an input set off.
    pub(crate) fn finish(self) -> Vec<Received> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the listener lives")
    }
}

/// Nothing for one that a timer set off.
fn read(payload: &[u8]) -> Option<Received> {
    let received_ms = wall_clock_ms();
    let data: Data<'_> = serde_json::from_slice(payload).expect("an event is JSON");
    (data.cause != "timer").then(|| Received {
        topic: data.source.topic.to_owned(),
        partition: data.source.partition,
        offset: data.source.offset,
        received_ms,
    })
}

/// Looks the causes up in Kafka, which takes a while.
pub(crate) fn resolve(brokers: &str, mut received: Vec<Received>) -> Vec<Told> {
    received.sort_by(|one, other| {
        let key = |received: &Received| (received.partition, received.offset);
        one.topic
            .cmp(&other.topic)
            .then_with(|| key(one).cmp(&key(other)))
    });
    let mut told = Vec::with_capacity(received.len());
    for of_topic in received.chunk_by(|one, other| one.topic == other.topic) {
        let mut left: BTreeMap<i32, &[Received]> = of_topic
            .chunk_by(|one, other| one.partition == other.partition)
            .map(|chunk| (chunk[0].partition, chunk))
            .collect();
        read_to_end(brokers, &of_topic[0].topic, |message| {
            let Some(wanted) = left.get_mut(&message.partition()) else {
                return;
            };
            while let Some((first, rest)) = wanted.split_first()
                && first.offset <= message.offset()
            {
                assert_eq!(first.offset, message.offset(), "a cause is in Kafka");
                told.push(Told {
                    cause_ms: message.timestamp().to_millis().expect("a timestamp"),
                    received_ms: first.received_ms,
                });
                *wanted = rest;
            }
        });
        assert!(
            left.values().all(|wanted| wanted.is_empty()),
            "every cause was found"
        );
    }
    told
}

/// Of sorted latencies; of none it is not a number, which no bar holds.
pub(crate) fn quantile_ms(sorted: &[i64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.max(1) - 1)
        .map_or(f64::NAN, |&ms| ms as f64)
}

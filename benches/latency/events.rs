//! The events that are received, and when what set them off was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use riderflow::runtime::wall_clock_ms;
use serde::Deserialize;

use crate::common::read_to_end;

const EVENTS: &str = "rider-notifications";
const ANSWER: Duration = Duration::from_secs(30);

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
        let metadata = consumer
            .fetch_metadata(Some(EVENTS), ANSWER)
            .expect("metadata");
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(EVENTS, partition.id(), Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&list).expect("assigned");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut received = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                // An error is a broken connection, which the client mends.
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    received.extend(read(message.payload().unwrap_or_default()));
                }
            }
            received
        });
        Self { stop, thread }
    }

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

/// Of sorted latencies; 0 of none.
pub(crate) fn quantile_ms(sorted: &[i64], share: f64) -> i64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0)
}

//! Follows all that the gateway shows: fences, orders, updates and events, live.
//!
//! Owns one consumer with all partitions of the four topics assigned by hand, so that any
//! number of gateways read the same. Promises each partition's committed records in their
//! order, each at once when Kafka has it, and to say when everything has been read to the end
//! that it had at the start. Survives the broker: the client reconnects and reads on. Where
//! Kafka no longer holds what comes next it goes on with what is there, for what is live is
//! worth more than what is whole. Never joins a group, never commits an offset, and never sees
//! partitions that are added while it runs.

use std::ffi::CStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::NOTIFICATIONS;
use super::client::{
    ANSWER_TIMEOUT, KafkaError, Logged, Partitions, partitions_of, reading_config,
};
use super::header::{last_header, sequence_of};
use crate::model::{Input, TimeMs};
use crate::wire::split_sequence;

/// Of each partition of a moving topic at most so many of its last offsets are read at the
/// start, however old the time that was asked for.
pub const PAST_OFFSETS: i64 = 500_000;

/// How often the client's callbacks are served while nothing comes.
const SERVE_INTERVAL: Duration = Duration::from_millis(500);

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Followed {
    /// `geofences`, from the beginning.
    Geofences,
    /// `orders`, from the beginning.
    Orders,
    /// `rider-updates`, from a while back.
    Updates,
    /// `rider-notifications`, from a while back.
    Events,
}

impl Followed {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Geofences, Self::Orders, Self::Updates, Self::Events];

    /// The topic's name.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Geofences => Input::Geofences.topic(),
            Self::Orders => Input::Orders.topic(),
            Self::Updates => Input::Updates.topic(),
            Self::Events => NOTIFICATIONS,
        }
    }
}

/// A record as it came; its bytes are borrowed from the fetch buffer.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Of which topic.
    pub topic: Followed,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The Kafka timestamp, ms since 1970; 0 where the producer gave none.
    pub timestamp_ms: TimeMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    message: &'a BorrowedMessage<'a>,
}

impl<'a> Seen<'a> {
    /// The value of the last header of this name.
    pub fn header(&self, name: &CStr) -> Option<&'a [u8]> {
        last_header(self.message, name)
    }

    /// The session and the number in it that a gateway gave this update.
    pub fn seq(&self) -> Option<(&'a str, u64)> {
        split_sequence(sequence_of(self.message)?)
    }
}

/// Rung when something can be read.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits for a ring since the last wait.
    fn wait(&self, time: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = self
            .heard
            .wait_timeout_while(rung, time, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

/// One partition, read by itself: the client tells its end by number alone, and several topics
/// have the same numbers.
struct Lane {
    topic: Followed,
    queue: PartitionQueue<Logged>,
    read_to_end: bool,
}

/// Reads the four topics live.
pub struct Follower {
    lanes: Vec<Lane>,
    consumer: Arc<BaseConsumer<Logged>>,
    brokers: String,
    bell: Arc<Bell>,
    /// The lane whose turn it is, so that a busy one doesn't starve the others.
    turn: usize,
}

impl Follower {
    /// Begins with `geofences` and `orders`, whole; what moves comes with
    /// [`Follower::follow_since`].
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] or [`KafkaError::MissingTopic`].
    pub fn open(brokers: &str) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer<Logged> = reading_config(brokers, "riderflow-gateway")
            .set("auto.offset.reset", "earliest")
            // The broker answers as soon as there is something; this only bounds how long an
            // idle question stays open.
            .set("fetch.wait.max.ms", "500")
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.min.messages", "50000")
            .set("queued.max.messages.kbytes", "32768")
            .create_with_context(Logged)
            .map_err(KafkaError::failed("make a Kafka consumer"))?;
        let mut follower = Self {
            lanes: Vec::new(),
            consumer: Arc::new(consumer),
            brokers: brokers.into(),
            bell: Arc::default(),
            turn: 0,
        };
        let mut assignment = TopicPartitionList::new();
        for topic in [Followed::Geofences, Followed::Orders] {
            for partition in 0..follower.partitions(topic)? {
                follower.add(&mut assignment, topic, partition, Offset::Beginning)?;
            }
        }
        follower.assign(&assignment)?;
        Ok(follower)
    }

    /// Adds topics that move, each from its first record that is no older than the time given,
    /// but at most [`PAST_OFFSETS`] of each partition.
    ///
    /// # Errors
    /// As [`Follower::open`].
    pub fn follow_since(&mut self, topics: &[(Followed, TimeMs)]) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::new();
        for &(topic, since_ms) in topics {
            let count = self.partitions(topic)?;
            let mut times = TopicPartitionList::new();
            for partition in 0..count {
                times
                    .add_partition_offset(topic.topic(), partition, Offset::Offset(since_ms.max(0)))
                    .map_err(KafkaError::failed("name a partition"))?;
            }
            // Asked before the times: what comes in between is read. Both answers end where the
            // first open transaction begins, so its records are not passed over.
            let held = (0..count)
                .map(|partition| {
                    self.consumer
                        .fetch_watermarks(topic.topic(), partition, ANSWER_TIMEOUT)
                        .map_err(|cause| self.unreachable(cause))
                })
                .collect::<Result<Vec<_>, _>>()?;
            let found = self
                .consumer
                .offsets_for_times(times, ANSWER_TIMEOUT)
                .map_err(|cause| self.unreachable(cause))?;
            for (partition, (first, next)) in (0..count).zip(held) {
                let by_time = found
                    .find_partition(topic.topic(), partition)
                    .map(|found| found.offset());
                let from = match by_time {
                    Some(Offset::Offset(offset)) => offset.min(next),
                    _ => next,
                };
                let from = from.max(next - PAST_OFFSETS).max(first);
                self.add(&mut assignment, topic, partition, Offset::Offset(from))?;
            }
        }
        self.assign(&assignment)
    }

    /// Whether each partition has been read to an end that it had since it was assigned.
    pub fn is_caught_up(&self) -> bool {
        self.lanes.iter().all(|lane| lane.read_to_end)
    }

    /// Waits up to `wait` for a first record, then hands about `max` of those that are there
    /// to `visit`, a fair share of each partition. Returns how many.
    ///
    /// # Errors
    /// Only what no retry of the client mends; a new follower may.
    pub fn poll(
        &mut self,
        wait: Duration,
        max: usize,
        visit: &mut dyn FnMut(Seen<'_>),
    ) -> Result<usize, KafkaError> {
        let deadline = Instant::now() + wait;
        loop {
            // Serves the client's callbacks; records come by their lanes.
            if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
                pass_or_fail(error)?;
            }
            let before = self.is_caught_up();
            let count = self.poll_lanes(max, visit)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if count > 0 || left.is_zero() || before != self.is_caught_up() {
                return Ok(count);
            }
            self.bell.wait(left.min(SERVE_INTERVAL));
        }
    }

    fn poll_lanes(
        &mut self,
        max: usize,
        visit: &mut dyn FnMut(Seen<'_>),
    ) -> Result<usize, KafkaError> {
        let lanes = self.lanes.len().max(1);
        let share = max.div_ceil(lanes);
        let mut count = 0;
        self.turn = (self.turn + 1) % lanes;
        let turn = self.turn.min(self.lanes.len());
        let (after, before) = self.lanes.split_at_mut(turn);
        for lane in before.iter_mut().chain(after) {
            for _ in 0..share {
                match lane.queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        count += 1;
                        visit(Seen {
                            topic: lane.topic,
                            partition: message.partition(),
                            offset: message.offset(),
                            timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0),
                            key: message.key(),
                            value: message.payload(),
                            message: &message,
                        });
                    }
                    Some(Err(ClientError::PartitionEOF(_))) => lane.read_to_end = true,
                    Some(Err(error)) => pass_or_fail(error)?,
                }
            }
        }
        if count >= share {
            // Some lane may have more, and will not ring for it again.
            self.bell.ring();
        }
        Ok(count)
    }

    fn partitions(&self, topic: Followed) -> Result<i32, KafkaError> {
        let Partitions(count) = partitions_of(&self.brokers, &[topic.topic()])?[0];
        Ok(count)
    }

    fn add(
        &mut self,
        assignment: &mut TopicPartitionList,
        topic: Followed,
        partition: i32,
        from: Offset,
    ) -> Result<(), KafkaError> {
        assignment
            .add_partition_offset(topic.topic(), partition, from)
            .map_err(KafkaError::failed("name a partition"))?;
        // Before it is assigned, so that nothing of it comes the common way.
        let queue = self
            .consumer
            .split_partition_queue(topic.topic(), partition);
        let Some(mut queue) = queue else {
            let cause = ClientError::Subscription(format!("{}[{partition}]", topic.topic()));
            return Err(KafkaError::failed("follow a partition by itself")(cause));
        };
        let bell = Arc::clone(&self.bell);
        queue.set_nonempty_callback(move || bell.ring());
        self.lanes.push(Lane {
            topic,
            queue,
            read_to_end: false,
        });
        Ok(())
    }

    fn assign(&self, assignment: &TopicPartitionList) -> Result<(), KafkaError> {
        self.consumer
            .incremental_assign(assignment)
            .map_err(KafkaError::failed("assign partitions to follow"))
    }

    fn unreachable(&self, cause: ClientError) -> KafkaError {
        KafkaError::Unreachable {
            brokers: self.brokers.clone(),
            cause,
        }
    }
}

/// Most errors are passing: the client reconnects and reads on where it was.
#[cold]
fn pass_or_fail(error: ClientError) -> Result<(), KafkaError> {
    let fatal = matches!(error, ClientError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
    if fatal {
        return Err(KafkaError::failed("follow the topics")(error));
    }
    tracing::debug!(target: "kafka", "following: {error}; going on");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_heard_also_before_the_wait() {
        let bell = Bell::default();
        bell.ring();
        let started = Instant::now();
        bell.wait(Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
        bell.wait(Duration::from_millis(1));
    }
}

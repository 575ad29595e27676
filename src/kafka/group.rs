//! A consumer that joins a group and shares its partitions: what `riderflow tail` reads with.
//!
//! Owns one librdkafka consumer. It promises to follow rebalances, to commit what it has
//! handed out, and to leave the group when dropped. The job itself never uses it: its inputs
//! are assigned by hand.

use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::{KafkaError, Logged, base_config, partitions_of};

/// What a group member reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bootstrap servers.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Where a group without committed offsets begins: at the first record, else at the next.
    pub from_beginning: bool,
}

/// Something a member sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A record.
    Record {
        /// Its topic.
        topic: &'a str,
        /// Its partition.
        partition: i32,
        /// Its value; `None` is a tombstone.
        value: Option<&'a [u8]>,
    },
    /// The group has shared the topic anew; these partitions were given to, or taken from,
    /// this member.
    Rebalanced {
        /// Given, or taken.
        given: bool,
        /// Which, ascending.
        partitions: Vec<i32>,
    },
}

#[derive(Default)]
struct Rebalances(std::sync::Mutex<Vec<(bool, Vec<i32>)>>);

impl Rebalances {
    fn push(&self, given: bool, list: &TopicPartitionList) {
        let mut partitions: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
        partitions.sort_unstable();
        if let Ok(mut seen) = self.0.lock() {
            seen.push((given, partitions));
        }
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logged.log(level, facility, message);
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        Logged.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.push(false, list);
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.push(true, list);
        }
    }
}

/// A member of a consumer group.
pub struct Member {
    inner: BaseConsumer<Rebalances>,
    settings: Settings,
}

impl Member {
    /// Joins the group, after making sure that a broker answers and has the topic.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`], [`KafkaError::MissingTopic`], and [`KafkaError::Failed`]
    /// for a group that the client refuses.
    pub fn join(settings: &Settings) -> Result<Self, KafkaError> {
        partitions_of(&settings.brokers, &[&settings.topic])?;
        let attempt = || format!("join group {} at {}", settings.group, settings.brokers);
        let offsets = if settings.from_beginning {
            "earliest"
        } else {
            "latest"
        };
        let inner: BaseConsumer<Rebalances> = base_config(&settings.brokers)
            .set("client.id", "riderflow-tail")
            .set("group.id", &settings.group)
            .set("auto.offset.reset", offsets)
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("session.timeout.ms", "10000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .create_with_context(Rebalances::default())
            .map_err(KafkaError::failed(attempt()))?;
        inner
            .subscribe(&[settings.topic.as_str()])
            .map_err(KafkaError::failed(attempt()))?;
        Ok(Self {
            inner,
            settings: settings.clone(),
        })
    }

    /// Waits up to `time` for something and shows it.
    ///
    /// # Errors
    /// Only what no retry helps: librdkafka reconnects by itself.
    pub fn poll(&self, time: Duration, mut show: impl FnMut(Seen<'_>)) -> Result<(), KafkaError> {
        let deadline = Instant::now() + time;
        loop {
            let polled = self.inner.poll(time.min(Duration::from_millis(100)));
            let rebalances = self
                .inner
                .context()
                .0
                .lock()
                .map(|mut seen| std::mem::take(&mut *seen))
                .unwrap_or_default();
            let mut shown = !rebalances.is_empty();
            for (given, partitions) in rebalances {
                show(Seen::Rebalanced { given, partitions });
            }
            match polled {
                Some(Ok(message)) => {
                    show(Seen::Record {
                        topic: message.topic(),
                        partition: message.partition(),
                        value: message.payload(),
                    });
                    shown = true;
                }
                Some(Err(error)) if passes(&error) => {}
                Some(Err(error)) => {
                    let Settings { topic, brokers, .. } = &self.settings;
                    let attempt = format!("read {topic} at {brokers}");
                    return Err(KafkaError::failed(attempt)(error));
                }
                None => {}
            }
            if shown || Instant::now() >= deadline {
                return Ok(());
            }
        }
    }
}

/// Errors that librdkafka mends by itself.
fn passes(error: &rdkafka::error::KafkaError) -> bool {
    !matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::InconsistentGroupProtocol
        )
    )
}

//! A consumer that joins a group and shares its partitions: what `riderflow tail` reads with.
//!
//! Owns one librdkafka consumer. It promises to follow rebalances, to commit what it has
//! handed out, and to leave the group when dropped. The job itself never uses it: its inputs
//! are assigned by hand.

use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;

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

/// What went wrong, with the broker and what to do.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The client refuses its settings.
    #[error("could not join group {group} at {brokers}: {detail}")]
    Settings {
        /// The bootstrap servers.
        brokers: String,
        /// The group.
        group: String,
        /// librdkafka's words.
        detail: String,
    },
    /// No broker answers.
    #[error(
        "could not reach Kafka at {brokers}: {detail}; start one with `riderflow up`, or set \
         --brokers or RIDERFLOW_KAFKA"
    )]
    Unreachable {
        /// The bootstrap servers.
        brokers: String,
        /// librdkafka's words.
        detail: String,
    },
    /// The broker has no such topic.
    #[error("Kafka at {brokers} has no topic {topic}; create it with `riderflow init PIPELINE`")]
    NoTopic {
        /// The bootstrap servers.
        brokers: String,
        /// The topic.
        topic: String,
    },
    /// Reading failed for good.
    #[error("could not read {topic} at {brokers}: {detail}")]
    Read {
        /// The bootstrap servers.
        brokers: String,
        /// The topic.
        topic: String,
        /// librdkafka's words.
        detail: String,
    },
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
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
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
    /// As [`GroupError`] says.
    pub fn join(settings: &Settings) -> Result<Self, GroupError> {
        let refused = |error: KafkaError| GroupError::Settings {
            brokers: settings.brokers.clone(),
            group: settings.group.clone(),
            detail: words(&error),
        };
        let offsets = if settings.from_beginning {
            "earliest"
        } else {
            "latest"
        };
        let inner: BaseConsumer<Rebalances> = ClientConfig::new()
            .set("bootstrap.servers", &settings.brokers)
            .set("client.id", "riderflow-tail")
            .set("group.id", &settings.group)
            .set("auto.offset.reset", offsets)
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("session.timeout.ms", "10000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .create_with_context(Rebalances::default())
            .map_err(refused)?;
        let metadata = inner
            .fetch_metadata(Some(&settings.topic), Duration::from_secs(10))
            .map_err(|error| GroupError::Unreachable {
                brokers: settings.brokers.clone(),
                detail: words(&error),
            })?;
        if metadata
            .topics()
            .iter()
            .all(|topic| topic.error().is_some() || topic.partitions().is_empty())
        {
            return Err(GroupError::NoTopic {
                brokers: settings.brokers.clone(),
                topic: settings.topic.clone(),
            });
        }
        inner
            .subscribe(&[settings.topic.as_str()])
            .map_err(refused)?;
        Ok(Self {
            inner,
            settings: settings.clone(),
        })
    }

    /// Waits up to `time` for something and shows it.
    ///
    /// # Errors
    /// Only what no retry helps: librdkafka reconnects by itself.
    pub fn poll(&self, time: Duration, mut show: impl FnMut(Seen<'_>)) -> Result<(), GroupError> {
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
                    return Err(GroupError::Read {
                        brokers: self.settings.brokers.clone(),
                        topic: self.settings.topic.clone(),
                        detail: words(&error),
                    });
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
fn passes(error: &KafkaError) -> bool {
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

fn words(error: &KafkaError) -> String {
    error
        .rdkafka_error_code()
        .map_or_else(|| error.to_string(), |code| code.to_string())
}

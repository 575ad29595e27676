//! Whether a job of a pipeline runs, as Kafka sees it: a job is a member of a consumer group
//! of its own, and does nothing there.
//!
//! Promises that a job that runs and reaches Kafka is seen. One that was killed is still seen
//! for [`SEEN_AFTER_DEATH`]; one that has been frozen for as long is not seen. So this is for
//! telling and for asking before something is done; what keeps two jobs apart is the fence of
//! the transactional id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::client::{ANSWER_TIMEOUT, KafkaError, Logged, base_config};
use super::epoch_log_topic;

/// How long a job that was killed is still seen; brokers allow no less by default.
pub const SEEN_AFTER_DEATH: Duration = Duration::from_secs(6);
/// How often a job says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The longest that the thread takes to notice that it is to end.
const POLL: Duration = Duration::from_millis(50);
/// How long leaving the group may take, with a broker that doesn't answer.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

fn group(pipeline: &str) -> String {
    format!("riderflow-{pipeline}-jobs")
}

/// Reads nothing: whatever partition it is given, it takes none.
struct TakesNothing;

impl ClientContext for TakesNothing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logged.log(level, facility, message);
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        Logged.error(error, reason);
    }
}

impl ConsumerContext for TakesNothing {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        _partitions: &mut TopicPartitionList,
    ) {
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                consumer.assign(&TopicPartitionList::new())
            }
            _ => consumer.unassign(),
        };
        if let Err(error) = outcome {
            tracing::debug!("could not answer a rebalance: {error}");
        }
    }
}

/// Says that a job runs, until it is dropped.
pub struct Presence {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Presence {
    /// Begins to say so. Does not wait for Kafka.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn announce(brokers: &str, pipeline: &str) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer<TakesNothing> = base_config(brokers)
            .set("client.id", format!("riderflow-{}", std::process::id()))
            .set("group.id", group(pipeline))
            .set("enable.auto.commit", "false")
            .set(
                "session.timeout.ms",
                SEEN_AFTER_DEATH.as_millis().to_string(),
            )
            .set("heartbeat.interval.ms", HEARTBEAT.as_millis().to_string())
            .create_with_context(TakesNothing)
            .map_err(KafkaError::failed("make a Kafka consumer"))?;
        consumer
            .subscribe(&[&epoch_log_topic(pipeline)])
            .map_err(KafkaError::failed("join the group of the pipeline's jobs"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("riderflow-presence".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || {
                    while !stop.load(Ordering::Acquire) {
                        if let Some(Err(error)) = consumer.poll(POLL) {
                            tracing::debug!("{}: {error}", "the group of the pipeline's jobs");
                        }
                    }
                }
            })
            .expect("the system gives a thread");
        Ok(Self { stop, thread })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + LEAVE_LIMIT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A job that Kafka sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct JobSeen {
    /// `riderflow-` and the process's id.
    pub client: String,
    /// The address that it speaks to Kafka from.
    pub host: String,
}

impl std::fmt::Display for JobSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.client, self.host)
    }
}

/// The jobs of a pipeline that run, as far as Kafka sees.
///
/// # Errors
/// When Kafka does not answer.
pub fn jobs_seen(brokers: &str, pipeline: &str) -> Result<Vec<JobSeen>, KafkaError> {
    let client: BaseConsumer<Logged> = base_config(brokers)
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make a Kafka client"))?;
    let group = group(pipeline);
    let list = client
        .fetch_group_list(Some(&group), ANSWER_TIMEOUT)
        .map_err(|cause| KafkaError::Unreachable {
            brokers: brokers.into(),
            cause,
        })?;
    let members = list.groups().iter().flat_map(|group| group.members());
    let mut jobs: Vec<_> = members
        .map(|member| JobSeen {
            client: member.client_id().into(),
            host: member.client_host().trim_start_matches('/').into(),
        })
        .collect();
    jobs.sort();
    Ok(jobs)
}

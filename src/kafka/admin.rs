//! The topics: what they are called, how they are set, and whether those that exist are so.
//!
//! Owns the contract's table of topics and the job's own epoch log. [`create_topics`] makes
//! what is missing; it never alters a topic that exists, nor does [`verify_topics`]: a
//! difference is an error that names topic, setting, expected and found, and the command that
//! would mend it.
//!
//! A setting that keeps more than asked for (longer retention, larger messages) is no
//! difference.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::{DEAD_LETTERS, NOTIFICATIONS, epoch_log_topic};
use crate::config::Pipeline;
use crate::model::Input;

const HOUR_MS: i64 = 3_600_000;
/// `rider-updates` is kept for a day: no replay begins earlier.
const UPDATES_RETENTION_MS: i64 = 24 * HOUR_MS;
/// Events and dead letters are kept for a week.
const RESULTS_RETENTION_MS: i64 = 7 * 24 * HOUR_MS;
/// A replay reads orders and fences by offset, so none of the versions since it begins may
/// have been compacted away: twice what `rider-updates` keeps.
const COMPACTION_LAG_MS: i64 = 2 * UPDATES_RETENTION_MS;
/// Well above what inputs usually take, with the `rf-` headers; a larger value is cut.
const DEAD_LETTER_BYTES: i64 = 8 << 20;
/// Roughly 15 minutes of epoch records; what compaction has not seen yet is read at a start.
const EPOCH_SEGMENT_BYTES: i64 = 8 << 20;
const EPOCH_SEGMENT_MS: i64 = 10 * 60_000;

/// How long Kafka may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to make topics.
const CREATION_LIMIT: Duration = Duration::from_secs(30);

/// What a setting must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Exactly(&'static str),
    /// As a number; −1 is unlimited.
    AtLeast(i64),
    /// For a new topic; one that exists may differ.
    Initially(i64),
}

impl Setting {
    fn value(&self) -> String {
        match self {
            Self::Exactly(text) => (*text).to_owned(),
            Self::AtLeast(number) | Self::Initially(number) => number.to_string(),
        }
    }

    fn accepts(&self, found: &str) -> bool {
        match self {
            Self::Exactly(text) => *text == found,
            Self::AtLeast(least) => found
                .parse::<i64>()
                .is_ok_and(|number| number == -1 || number >= *least),
            Self::Initially(_) => true,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::AtLeast(_) = self {
            f.write_str("at least ")?;
        }
        f.write_str(&self.value())
    }
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Topic {
    name: String,
    partitions: i32,
    settings: Vec<(&'static str, Setting)>,
}

impl Topic {
    fn deleting(name: &str, partitions: i32, retention_ms: i64) -> Self {
        Self::new(name, partitions, "delete").with("retention.ms", Setting::AtLeast(retention_ms))
    }

    fn compacted(name: &str, partitions: i32) -> Self {
        Self::new(name, partitions, "compact")
            .with("min.compaction.lag.ms", Setting::AtLeast(COMPACTION_LAG_MS))
            .with("delete.retention.ms", Setting::AtLeast(COMPACTION_LAG_MS))
    }

    fn new(name: &str, partitions: i32, cleanup: &'static str) -> Self {
        let topic = Self {
            name: name.into(),
            partitions,
            settings: Vec::new(),
        };
        topic
            .with("cleanup.policy", Setting::Exactly(cleanup))
            .with("message.timestamp.type", Setting::Exactly("CreateTime"))
    }

    fn with(mut self, name: &'static str, setting: Setting) -> Self {
        self.settings.push((name, setting));
        self
    }
}

/// The topics of a pipeline: the contract's, and its epoch log.
fn topics(pipeline: &Pipeline) -> Vec<Topic> {
    let partitions = pipeline.topics.partitions;
    vec![
        Topic::deleting(Input::Updates.topic(), partitions, UPDATES_RETENTION_MS),
        Topic::compacted(Input::Orders.topic(), partitions),
        Topic::compacted(Input::Geofences.topic(), 1),
        Topic::deleting(NOTIFICATIONS, partitions, RESULTS_RETENTION_MS),
        Topic::deleting(DEAD_LETTERS, 1, RESULTS_RETENTION_MS)
            .with("max.message.bytes", Setting::AtLeast(DEAD_LETTER_BYTES)),
        Topic::new(&epoch_log_topic(&pipeline.name), 1, "compact")
            .with("segment.bytes", Setting::Initially(EPOCH_SEGMENT_BYTES))
            .with("segment.ms", Setting::Initially(EPOCH_SEGMENT_MS)),
    ]
}

/// What [`create_topics`] did about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOutcome {
    /// The topic.
    pub name: String,
    /// Whether it was made now, or was there as it should be.
    pub created: bool,
}

impl fmt::Display for TopicOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, created } = self;
        write!(
            f,
            "topic {name}: {}",
            if *created { "created" } else { "was there" }
        )
    }
}

/// Something about a topic that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDifference {
    /// The topic.
    pub topic: String,
    /// What about it: `topic`, `partitions` or a setting's name.
    pub property: String,
    /// As it should be.
    pub expected: String,
    /// As it is.
    pub found: String,
    /// What would mend it.
    pub fix: String,
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            property,
            expected,
            found,
            fix,
        } = self;
        write!(
            f,
            "{topic}: {property}: expected {expected}, found {found}; {fix}"
        )
    }
}

/// Topics that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No broker answers.
    #[error(
        "could not reach Kafka at {brokers}: {reason}; start it (`riderflow up` starts one on this machine) or set kafka.brokers or RIDERFLOW_KAFKA to its address"
    )]
    Unreachable {
        /// The addresses.
        brokers: String,
        /// What the attempt came to.
        reason: KafkaError,
    },
    /// Kafka answered with an error.
    #[error("could not {attempt} in Kafka at {brokers}: {reason}")]
    Refused {
        /// What was attempted.
        attempt: String,
        /// The addresses.
        brokers: String,
        /// Kafka's words.
        reason: String,
    },
    /// Topics differ from the expected ones.
    #[error("{}", lines(.0))]
    Different(Vec<TopicDifference>),
}

fn lines(differences: &[TopicDifference]) -> String {
    let mut text = String::from("the topics in Kafka are not as expected:");
    for difference in differences {
        text.push_str(&format!("\n  {difference}"));
    }
    text
}

/// Makes the topics that are missing, and checks the others. Safe to repeat. Replication is
/// the broker's default.
///
/// # Errors
/// See [`TopicError`]. When a topic differs, those that were missing have been made.
pub fn create_topics(brokers: &str, pipeline: &Pipeline) -> Result<Vec<TopicOutcome>, TopicError> {
    let wanted = topics(pipeline);
    let admin = Admin::connect(brokers)?;
    let there = admin.partitions()?;
    let missing: Vec<_> = wanted
        .iter()
        .filter(|topic| !there.contains_key(&topic.name))
        .collect();
    let created = admin.create(&missing)?;
    // New ones too: a broker may have its own idea of a setting.
    let differences = admin.differences(&wanted, &admin.partitions()?, &created)?;
    if !differences.is_empty() {
        return Err(TopicError::Different(differences));
    }
    Ok(wanted
        .into_iter()
        .map(|topic| TopicOutcome {
            created: created.contains(&topic.name),
            name: topic.name,
        })
        .collect())
}

/// Checks that all topics are there as they should be.
///
/// # Errors
/// See [`TopicError`].
pub fn verify_topics(brokers: &str, pipeline: &Pipeline) -> Result<(), TopicError> {
    let admin = Admin::connect(brokers)?;
    let differences = admin.differences(&topics(pipeline), &admin.partitions()?, &[])?;
    if differences.is_empty() {
        Ok(())
    } else {
        Err(TopicError::Different(differences))
    }
}

/// For how long each input keeps what was written, ms: updates until they are removed, orders
/// and fences until an older version may be. Inputs without such a limit are left out.
///
/// # Errors
/// See [`TopicError`].
pub fn kept_ms(brokers: &str) -> Result<BTreeMap<Input, i64>, TopicError> {
    let admin = Admin::connect(brokers)?;
    let topics = Input::ALL.map(|input| ResourceSpecifier::Topic(input.topic()));
    let described = admin
        .runtime
        .block_on(admin.client.describe_configs(&topics, &admin.options))
        .map_err(|error| admin.refused("describe topics", error))?;
    let mut kept = BTreeMap::new();
    // Answers come in the order of the questions.
    for (input, resource) in Input::ALL.into_iter().zip(described) {
        let resource = resource
            .map_err(|code| admin.refused(format!("describe topic {}", input.topic()), code))?;
        let setting = match input {
            Input::Updates => "retention.ms",
            Input::Orders | Input::Geofences => "min.compaction.lag.ms",
        };
        let value = resource.get(setting).and_then(|entry| entry.value.as_ref());
        if let Some(ms) = value
            .and_then(|value| value.parse().ok())
            .filter(|ms| *ms >= 0)
        {
            kept.insert(input, ms);
        }
    }
    Ok(kept)
}

/// Deletes a consumer group, with its offsets. Returns whether there was one.
///
/// # Errors
/// See [`TopicError`]; among them that the group has members.
pub fn delete_group(brokers: &str, group: &str) -> Result<bool, TopicError> {
    let admin = Admin::connect(brokers)?;
    let attempt = || format!("delete the consumer group {group}");
    let results = admin
        .runtime
        .block_on(admin.client.delete_groups(&[group], &admin.options))
        .map_err(|error| admin.refused(attempt(), error))?;
    match results.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::GroupIdNotFound))) | None => Ok(false),
        Some(Err((_, code))) => Err(admin.refused(attempt(), code)),
        Some(Ok(_)) => Ok(true),
    }
}

struct Admin<'a> {
    brokers: &'a str,
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    options: AdminOptions,
}

impl<'a> Admin<'a> {
    fn connect(brokers: &'a str) -> Result<Self, TopicError> {
        let refused = |reason: String| TopicError::Refused {
            attempt: "make a client".into(),
            brokers: brokers.into(),
            reason,
        };
        let client = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("log.connection.close", "false")
            // Failures come back as errors.
            .set("log_level", "0")
            .create()
            .map_err(|error: KafkaError| refused(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let options = AdminOptions::new()
            .request_timeout(Some(CREATION_LIMIT))
            .operation_timeout(Some(CREATION_LIMIT));
        Ok(Self {
            brokers,
            client,
            runtime,
            options,
        })
    }

    fn refused(&self, attempt: impl Into<String>, reason: impl fmt::Display) -> TopicError {
        TopicError::Refused {
            attempt: attempt.into(),
            brokers: self.brokers.into(),
            reason: reason.to_string(),
        }
    }

    /// All topics, with how many partitions each has.
    fn partitions(&self) -> Result<BTreeMap<String, i32>, TopicError> {
        let metadata = self
            .client
            .inner()
            // All topics: asking for one by name may create it.
            .fetch_metadata(None, LIMIT)
            .map_err(|reason| TopicError::Unreachable {
                brokers: self.brokers.into(),
                reason,
            })?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32))
            .collect())
    }

    /// Makes topics, and waits until brokers know of them; returns which were not there.
    fn create(&self, missing: &[&Topic]) -> Result<Vec<String>, TopicError> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<Vec<_>> = missing
            .iter()
            .map(|topic| {
                topic
                    .settings
                    .iter()
                    .map(|(name, s)| (*name, s.value()))
                    .collect()
            })
            .collect();
        let new: Vec<_> = missing
            .iter()
            .zip(&values)
            .map(|(topic, values)| {
                let mut new =
                    NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1));
                for (name, value) in values {
                    new = new.set(name, value);
                }
                new
            })
            .collect();
        let results = self
            .runtime
            .block_on(self.client.create_topics(&new, &self.options))
            .map_err(|error| self.refused("create topics", error))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(name) => created.push(name),
                // Somebody else was faster; it is checked like any other.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(self.refused(format!("create topic {name}"), code));
                }
            }
        }
        Ok(created)
    }

    /// What is not as it should be. Topics that were `created` just now may not be in every
    /// broker's answer yet.
    fn differences(
        &self,
        wanted: &[Topic],
        there: &BTreeMap<String, i32>,
        created: &[String],
    ) -> Result<Vec<TopicDifference>, TopicError> {
        let mut differences = Vec::new();
        let mut known = Vec::new();
        for topic in wanted {
            match there.get(&topic.name) {
                Some(partitions) => {
                    if *partitions != topic.partitions {
                        differences.push(self.other_partitions(topic, *partitions));
                    }
                    known.push(topic);
                }
                None if created.contains(&topic.name) => {}
                None => differences.push(TopicDifference {
                    topic: topic.name.clone(),
                    property: "topic".into(),
                    expected: format!("{} partitions", topic.partitions),
                    found: "nothing".into(),
                    fix: "run `riderflow init`".into(),
                }),
            }
        }
        let specifiers: Vec<_> = known
            .iter()
            .map(|topic| ResourceSpecifier::Topic(&topic.name))
            .collect();
        if specifiers.is_empty() {
            return Ok(differences);
        }
        let described = self
            .runtime
            .block_on(self.client.describe_configs(&specifiers, &self.options))
            .map_err(|error| self.refused("describe topics", error))?;
        // Answers come in the order of the questions.
        for (topic, resource) in known.into_iter().zip(described) {
            let resource = resource
                .map_err(|code| self.refused(format!("describe topic {}", topic.name), code))?;
            for (name, setting) in &topic.settings {
                let found = resource.get(name).and_then(|entry| entry.value.as_deref());
                if !found.is_some_and(|found| setting.accepts(found)) {
                    differences.push(self.other_setting(topic, name, setting, found));
                }
            }
        }
        Ok(differences)
    }

    fn other_partitions(&self, topic: &Topic, found: i32) -> TopicDifference {
        let Topic {
            name, partitions, ..
        } = topic;
        let fix = if found < *partitions {
            format!(
                "run kafka-topics.sh --bootstrap-server {} --alter --topic {name} --partitions {partitions} \
                 (keys then move to other partitions), or set topics.partitions in the pipeline file",
                self.brokers
            )
        } else {
            "partitions can't be taken away: set topics.partitions in the pipeline file, or delete the topic and run `riderflow init`"
                .into()
        };
        TopicDifference {
            topic: name.clone(),
            property: "partitions".into(),
            expected: partitions.to_string(),
            found: found.to_string(),
            fix,
        }
    }

    fn other_setting(
        &self,
        topic: &Topic,
        name: &str,
        setting: &Setting,
        found: Option<&str>,
    ) -> TopicDifference {
        TopicDifference {
            topic: topic.name.clone(),
            property: name.into(),
            expected: setting.to_string(),
            found: found.unwrap_or("nothing").into(),
            fix: format!(
                "run kafka-configs.sh --bootstrap-server {} --alter --entity-type topics \
                 --entity-name {} --add-config {name}={}",
                self.brokers,
                topic.name,
                setting.value()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_topics() {
        let pipeline: Pipeline =
            toml::from_str("name = \"p\"\n[topics]\npartitions = 3").expect("valid");
        let shapes: Vec<_> = topics(&pipeline)
            .into_iter()
            .map(|topic| (topic.name, topic.partitions, topic.settings[0].1.value()))
            .collect();
        let expected = [
            ("rider-updates", 3, "delete"),
            ("orders", 3, "compact"),
            ("geofences", 1, "compact"),
            ("rider-notifications", 3, "delete"),
            ("rider-updates-dead-letter", 1, "delete"),
            ("riderflow-p-epochs", 1, "compact"),
        ]
        .map(|(name, partitions, cleanup)| (name.to_owned(), partitions, cleanup.to_owned()));
        assert_eq!(shapes, expected);
    }

    #[test]
    fn keeping_more_is_no_difference() {
        let day = Setting::AtLeast(UPDATES_RETENTION_MS);
        assert!(day.accepts("86400000") && day.accepts("86400001") && day.accepts("-1"));
        assert!(!day.accepts("86399999") && !day.accepts("x"));
        assert!(Setting::Exactly("compact").accepts("compact"));
        assert!(!Setting::Exactly("compact").accepts("compact,delete"));
        assert!(Setting::Initially(5).accepts("7"));
        assert_eq!(day.to_string(), "at least 86400000");
    }
}

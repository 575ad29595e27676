//! One Kafka transaction an epoch, or for a run of epochs that wait.
//!
//! The transaction holds notifications, dead letters and the epoch record. It is drained
//! before it is committed, since an undrained commit waits for the client's 100 ms slices.
//! After any outcome that isn't clear the producer is dropped, a new one fences whatever is
//! left of it, the log is read again, and only epochs that it lacks are written once more.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::{KafkaError, Logged, base_config};
use super::{DEAD_LETTERS, NOTIFICATIONS, epoch_log_topic, read_epoch_log};
use crate::epoch::{EpochRecord, Head, LogRecord};
use crate::fail;
use crate::model::{DeadLetter, Epoch};
use crate::wire::{EncodedEvent, ce_source, dead_letter_headers};

/// A transaction that is open for longer is ended by the broker.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);
/// One attempt, handing over and commit together, has no clear outcome after this; within it
/// the broker does not end the transaction by itself.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);
/// Of which handing everything over may take this.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// The largest message, bytes: an input untouched, with the headers of a dead letter. Topics
/// have limits of their own; this one must not be in their way.
const MESSAGE_MAX_BYTES: u32 = 64 << 20;
/// A dead letter's value is cut to this, bytes, once Kafka has refused a whole one as too
/// large: a message that fits nowhere must not stop the good ones.
const CUT_VALUE_BYTES: usize = 512 << 10;
/// Between attempts.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What ends committing for good.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another job took the pipeline's name over.
    #[error(
        "the pipeline {pipeline} was taken over: another job with its name has started, or this \
         one was held up for over {} s, so that Kafka ended its transaction; nothing was \
         committed since, and a start goes on from there",
        TRANSACTION_TIMEOUT.as_secs()
    )]
    Fenced {
        /// The pipeline.
        pipeline: String,
    },
    /// Kafka will never take it.
    #[error(
        "Kafka refuses what the epochs up to {} hold ({cause}): look at the topics' \
         max.message.bytes and at this client's rights; `riderflow check --connect` compares them",
        epoch.0
    )]
    Refused {
        /// The newest epoch of the transaction.
        epoch: Epoch,
        /// What the client said.
        cause: ClientError,
    },
    /// The producer can't go on.
    #[error("the Kafka producer can't go on: {0}")]
    Fatal(ClientError),
    /// Kafka could not be asked what was committed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// One epoch, encoded.
pub struct EpochToCommit {
    /// What is recorded of it.
    pub record: EpochRecord,
    /// Its events, in telling order.
    pub events: Vec<EncodedEvent>,
    /// Its dead letters.
    pub dead_letters: Vec<DeadLetter>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// How often it had to be tried.
    pub attempts: u32,
}

/// The one committer of a pipeline. Its calls block: it wants a thread of its own.
pub struct Committer {
    brokers: String,
    pipeline: String,
    log_topic: String,
    ce_source: String,
    /// The longest value of a dead letter, bytes.
    value_limit: usize,
    producer: BaseProducer<Logged>,
}

impl Committer {
    /// Takes the pipeline over: fences an older owner and ends its open transaction.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn take_over(brokers: &str, pipeline: &str) -> Result<Self, CommitError> {
        Ok(Self {
            brokers: brokers.into(),
            pipeline: pipeline.into(),
            log_topic: epoch_log_topic(pipeline),
            ce_source: ce_source(pipeline),
            value_limit: usize::MAX,
            producer: new_producer(brokers, pipeline)?,
        })
    }

    /// Commits `epochs`, which are in order, and the head, if given, in one transaction. Waits
    /// as long as Kafka is away.
    ///
    /// # Errors
    /// Only what no retry can mend.
    pub fn commit(
        &mut self,
        epochs: &[EpochToCommit],
        head: &Head,
    ) -> Result<Committed, CommitError> {
        self.value_limit = usize::MAX;
        let newest = epochs.last().map(|epoch| epoch.record.epoch);
        let mut waiting = epochs;
        for attempts in 1.. {
            let Err(error) = self.write(waiting, head) else {
                return Ok(Committed { attempts });
            };
            let too_large =
                error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
            if too_large && self.value_limit > CUT_VALUE_BYTES {
                self.value_limit = CUT_VALUE_BYTES;
            } else {
                self.refuse_what_no_retry_mends(&error, newest)?;
            }
            tracing::warn!("a commit has no clear outcome ({error}); asking the log");
            let log = self.start_over(head)?;
            let newest_head = log.iter().rev().find_map(LogRecord::head);
            let committed = log
                .iter()
                .filter_map(LogRecord::epoch)
                .map(|it| it.epoch)
                .max();
            let known = waiting
                .iter()
                .take_while(|epoch| committed.is_some_and(|last| epoch.record.epoch <= last))
                .count();
            waiting = &waiting[known..];
            let is_head_known = newest_head == Some(head);
            if waiting.is_empty() && is_head_known {
                return Ok(Committed { attempts });
            }
        }
        unreachable!("the attempts don't end")
    }

    fn write(&self, epochs: &[EpochToCommit], head: &Head) -> Result<(), ClientError> {
        let began = Instant::now();
        let deadline = began + DRAIN_TIMEOUT;
        self.producer.begin_transaction()?;
        fail::point("commit-begun");
        for epoch in epochs {
            for event in &epoch.events {
                let all = event.headers(&self.ce_source);
                let mut headers = OwnedHeaders::new_with_capacity(all.len());
                for (key, value) in all {
                    headers = headers.insert(Header {
                        key,
                        value: Some(value),
                    });
                }
                let record: BaseRecord<'_, str, [u8]> = BaseRecord::to(NOTIFICATIONS)
                    .key(event.key.as_str())
                    .payload(&event.data);
                self.send(record.headers(headers), deadline)?;
            }
            fail::point("commit-some-sent");
            for letter in &epoch.dead_letters {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &dead_letter_headers(letter) {
                    headers = headers.insert(Header {
                        key,
                        value: Some(value.as_str()),
                    });
                }
                let whole = letter.value.as_deref();
                let value = whole.map(|value| &value[..value.len().min(self.value_limit)]);
                let length = whole.map_or(0, <[u8]>::len).to_string();
                if value != whole {
                    headers = headers.insert(Header {
                        key: "rf-cut-from-bytes",
                        value: Some(length.as_str()),
                    });
                }
                let mut record: BaseRecord<'_, [u8], [u8]> =
                    BaseRecord::to(DEAD_LETTERS).headers(headers);
                record.key = letter.key.as_deref();
                record.payload = value;
                self.send(record, deadline)?;
            }
            self.send_record(&LogRecord::Epoch(epoch.record.clone()), deadline)?;
        }
        self.send_record(&LogRecord::Head(head.clone()), deadline)?;
        fail::point("commit-sent");
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
            if Instant::now() > deadline {
                return Err(ClientError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        fail::point("commit-drained");
        self.producer
            .commit_transaction(ATTEMPT_TIMEOUT.saturating_sub(began.elapsed()))?;
        fail::point("commit-done");
        Ok(())
    }

    fn send_record(&self, record: &LogRecord, deadline: Instant) -> Result<(), ClientError> {
        let value =
            serde_json::to_vec(record).expect("a record of the log is made of numbers and text");
        let to = BaseRecord::to(&self.log_topic).partition(0);
        self.send(to.key(&record.key()).payload(&value), deadline)
    }

    /// Hands one message over; waits while the client's queue is full.
    fn send<K, P>(
        &self,
        mut record: BaseRecord<'_, K, P>,
        deadline: Instant,
    ) -> Result<(), ClientError>
    where
        K: rdkafka::message::ToBytes + ?Sized,
        P: rdkafka::message::ToBytes + ?Sized,
    {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !full || Instant::now() > deadline {
                        return Err(error);
                    }
                    record = back;
                    self.producer.poll(Duration::from_millis(1));
                }
            }
        }
    }

    /// A fenced job must end; it never quietly makes a new producer, which would fence the
    /// other one in turn.
    fn refuse_what_no_retry_mends(
        &self,
        error: &ClientError,
        epoch: Option<Epoch>,
    ) -> Result<(), CommitError> {
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        let code = fatal.or(error.rdkafka_error_code());
        let fenced = matches!(
            code,
            Some(
                RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch
            )
        );
        let refused = matches!(
            code,
            Some(
                RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidMessageSize
                    | RDKafkaErrorCode::InvalidMessage
                    | RDKafkaErrorCode::InvalidRecord
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            )
        );
        if fenced {
            Err(CommitError::Fenced {
                pipeline: self.pipeline.clone(),
            })
        } else if refused {
            Err(CommitError::Refused {
                epoch: epoch.unwrap_or(Epoch(0)),
                cause: error.clone(),
            })
        } else if fatal.is_some() || matches!(error, ClientError::Transaction(e) if e.is_fatal()) {
            Err(CommitError::Fatal(error.clone()))
        } else {
            Ok(())
        }
    }

    /// Whether the newest head is another job's that has taken over: neither our own nor one
    /// from before us.
    fn refuse_successor(&self, log: &[LogRecord], own: &Head) -> Result<(), CommitError> {
        match log.iter().rev().find_map(LogRecord::head) {
            Some(other) if other.run != own.run && other.generation >= own.generation => {
                Err(CommitError::Fenced {
                    pipeline: self.pipeline.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// A new producer, and what the log's end holds: a head and an epoch, if there are any.
    /// Waits while Kafka is away. A job that has a successor makes no producer, which would
    /// fence that one; one that is only just starting is seen once it is fenced.
    fn start_over(&mut self, own: &Head) -> Result<Vec<LogRecord>, CommitError> {
        let is_enough = |log: &[LogRecord]| {
            log.iter().any(|record| record.head().is_some())
                && log.iter().any(|record| record.epoch().is_some())
        };
        loop {
            std::thread::sleep(BACK_OFF);
            let read = || read_epoch_log(&self.brokers, &self.pipeline, is_enough);
            let asked = read().map_err(CommitError::from).and_then(|log| {
                self.refuse_successor(&log, own)?;
                let producer = new_producer(&self.brokers, &self.pipeline)?;
                let log = read()?;
                self.refuse_successor(&log, own)?;
                Ok((producer, log))
            });
            match asked {
                Ok((producer, log)) => {
                    self.producer = producer;
                    return Ok(log);
                }
                Err(CommitError::Kafka(error)) => {
                    tracing::warn!("waiting for Kafka: {error}");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn new_producer(brokers: &str, pipeline: &str) -> Result<BaseProducer<Logged>, CommitError> {
    let producer: BaseProducer<Logged> = base_config(brokers)
        .set("transactional.id", pipeline)
        .set(
            "transaction.timeout.ms",
            TRANSACTION_TIMEOUT.as_millis().to_string(),
        )
        .set(
            "message.timeout.ms",
            TRANSACTION_TIMEOUT.as_millis().to_string(),
        )
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        // An epoch's events within one batch: while one is on its way, librdkafka waits for the
        // answer in a busy loop if the next is ready.
        .set("linger.ms", "5")
        .set("message.max.bytes", MESSAGE_MAX_BYTES.to_string())
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(Logged)
        .map_err(KafkaError::failed("make the transactional producer"))?;
    producer
        .init_transactions(Duration::from_secs(30))
        .map_err(|cause| KafkaError::Unreachable {
            brokers: brokers.into(),
            cause,
        })?;
    Ok(producer)
}

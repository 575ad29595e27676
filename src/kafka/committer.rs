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
use crate::epoch::EpochRecord;
use crate::model::{DeadLetter, Epoch};
use crate::wire::{EncodedEvent, ce_source, dead_letter_headers};

/// A transaction that is open for longer is ended by the broker.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one attempt to hand everything to the broker may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one commit may take before its outcome counts as unclear.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What ends committing for good.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another job took the pipeline's name over.
    #[error(
        "another job runs the pipeline {pipeline}: it fenced this one off, which has committed \
         nothing since; a pipeline has one job at a time"
    )]
    Fenced {
        /// The pipeline.
        pipeline: String,
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
    /// The newest epoch of the transaction.
    pub epoch: Epoch,
    /// How often it had to be tried.
    pub attempts: u32,
}

/// The one committer of a pipeline. Its calls block: it wants a thread of its own.
pub struct Committer {
    brokers: String,
    pipeline: String,
    log_topic: String,
    ce_source: String,
    producer: BaseProducer<Logged>,
}

enum Attempt {
    Done,
    /// Nothing is known: make a new producer and ask the log.
    Unclear(ClientError),
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
            producer: new_producer(brokers, pipeline)?,
        })
    }

    /// Commits `epochs`, which are in order, in one transaction. Waits as long as Kafka is
    /// away.
    ///
    /// # Errors
    /// Only what no retry can mend.
    pub fn commit(&mut self, epochs: &[EpochToCommit]) -> Result<Committed, CommitError> {
        let newest = epochs
            .last()
            .expect("there is an epoch to commit")
            .record
            .epoch;
        let mut waiting = epochs;
        for attempts in 1.. {
            match self.attempt(waiting)? {
                Attempt::Done => {
                    return Ok(Committed {
                        epoch: newest,
                        attempts,
                    });
                }
                Attempt::Unclear(error) => {
                    tracing::warn!(
                        "commit of epochs to {} has no clear outcome ({error}); asking the log",
                        newest.0
                    );
                }
            }
            let newest_known = self.start_over()?;
            let own = waiting[0].record.generation;
            if newest_known
                .as_ref()
                .is_some_and(|record| record.generation > own)
            {
                return Err(CommitError::Fenced {
                    pipeline: self.pipeline.clone(),
                });
            }
            let committed = newest_known.map(|record| record.epoch);
            let known = waiting
                .iter()
                .take_while(|epoch| committed.is_some_and(|last| epoch.record.epoch <= last))
                .count();
            waiting = &waiting[known..];
            if waiting.is_empty() {
                return Ok(Committed {
                    epoch: newest,
                    attempts,
                });
            }
        }
        unreachable!("the attempts don't end")
    }

    fn attempt(&self, epochs: &[EpochToCommit]) -> Result<Attempt, CommitError> {
        match self.write(epochs) {
            Ok(()) => Ok(Attempt::Done),
            Err(error) => {
                self.refuse_if_fenced(&error)?;
                Ok(Attempt::Unclear(error))
            }
        }
    }

    fn write(&self, epochs: &[EpochToCommit]) -> Result<(), ClientError> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        self.producer.begin_transaction()?;
        for epoch in epochs {
            for event in &epoch.events {
                let mut headers = OwnedHeaders::new();
                for (key, value) in event.headers(&self.ce_source) {
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
            for letter in &epoch.dead_letters {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &dead_letter_headers(letter) {
                    headers = headers.insert(Header {
                        key,
                        value: Some(value.as_str()),
                    });
                }
                let mut record: BaseRecord<'_, [u8], [u8]> =
                    BaseRecord::to(DEAD_LETTERS).headers(headers);
                record.key = letter.key.as_deref();
                record.payload = letter.value.as_deref();
                self.send(record, deadline)?;
            }
            let record = serde_json::to_vec(&epoch.record)
                .expect("an epoch record is made of numbers and text");
            let key = epoch.record.key();
            self.send(
                BaseRecord::to(&self.log_topic)
                    .partition(0)
                    .key(&key)
                    .payload(&record),
                deadline,
            )?;
        }
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
            if Instant::now() > deadline {
                return Err(ClientError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        self.producer.commit_transaction(COMMIT_TIMEOUT)
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
    fn refuse_if_fenced(&self, error: &ClientError) -> Result<(), CommitError> {
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
        if fenced {
            Err(CommitError::Fenced {
                pipeline: self.pipeline.clone(),
            })
        } else if fatal.is_some() || matches!(error, ClientError::Transaction(e) if e.is_fatal()) {
            Err(CommitError::Fatal(error.clone()))
        } else {
            Ok(())
        }
    }

    /// A new producer, and the newest record that the log holds. Waits while Kafka is away.
    fn start_over(&mut self) -> Result<Option<EpochRecord>, CommitError> {
        loop {
            std::thread::sleep(BACK_OFF);
            let asked = new_producer(&self.brokers, &self.pipeline).and_then(|producer| {
                self.producer = producer;
                Ok(read_epoch_log(&self.brokers, &self.pipeline)?)
            });
            match asked {
                Ok(log) => return Ok(log.into_iter().max_by_key(|record| record.epoch)),
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
        .set("linger.ms", "1")
        .set("message.max.bytes", "4194304")
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

//! The fetched messages of one partition, by librdkafka's own functions: the client's hand them
//! out with an allocation for each.
//!
//! Promises each message once and in offset order, and that none is looked at after it is freed.
//! What is no partition's, such as that no broker is left, comes by the consumer's own queue.
//!
//! Not many at a time: `rd_kafka_consume_batch_queue` takes the end of a partition for a message
//! that was read, and goes on one offset after it when the partition is resumed; and while
//! `rd_kafka_consume_callback_queue` visits, the queue looks empty, so that librdkafka fetches
//! without a bound.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings::{
    rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_message_next,
    rd_kafka_message_timestamp, rd_kafka_queue_destroy, rd_kafka_queue_forward,
    rd_kafka_queue_get_partition, rd_kafka_queue_poll, rd_kafka_queue_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};

use super::client::Logged;
use super::header::sequence_at;

/// A partition's own queue.
pub(super) struct PartitionQueue {
    queue: NonNull<rd_kafka_queue_t>,
    partition: i32,
    /// What the queue belongs to, which must outlive it.
    _consumer: Arc<BaseConsumer<Logged>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PartitionQueue {}

/// A message, while it is being visited.
#[derive(Clone, Copy)]
pub(super) struct Fetched<'a>(&'a RDKafkaMessage);

impl PartitionQueue {
    /// Has the messages of a partition come by a queue of their own. This must be done before
    /// the partition is assigned, so that none of them comes another way.
    ///
    /// `None` if the topic's name holds a zero byte, or the partition is negative.
    pub(super) fn of(
        consumer: &Arc<BaseConsumer<Logged>>,
        topic: &str,
        partition: i32,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        let client = consumer.client().native_ptr();
        // SAFETY: the client is alive, and copies the name.
        let queue = unsafe { rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
        let queue = NonNull::new(queue)?;
        // SAFETY: the queue was just given; null means that it is forwarded to no other.
        unsafe { rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut()) };
        Some(Self {
            queue,
            partition,
            _consumer: Arc::clone(consumer),
        })
    }

    /// Which partition it is.
    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// Hands at most `max` of what has come, messages and errors, to `visit`, without waiting.
    /// Returns how many; fewer than `max` mean that no more had come.
    pub(super) fn take(&mut self, max: usize, visit: Visit<'_>) -> usize {
        for count in 0..max {
            // SAFETY: the queue is alive; the event is ours until it is destroyed, below.
            let event = unsafe { rd_kafka_queue_poll(self.queue.as_ptr(), 0) };
            if event.is_null() {
                return count;
            }
            // SAFETY: a fetch event has one message, which lives as long as the event, and only
            // this thread has it; any other event has none.
            let message = unsafe { rd_kafka_event_message_next(event).as_ref() };
            let code = match message {
                Some(message) => message.err,
                // SAFETY: the event is alive.
                None => unsafe { rd_kafka_event_error(event) },
            };
            match message {
                _ if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => visit(Err(code.into())),
                Some(message) => visit(Ok(Fetched(message))),
                None => {}
            }
            // SAFETY: it is ours, and nothing borrows from it any more.
            unsafe { rd_kafka_event_destroy(event) };
        }
        max
    }
}

/// What is called for each message or error.
pub(super) type Visit<'a> = &'a mut dyn FnMut(Result<Fetched<'_>, RDKafkaErrorCode>);

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: it is ours, and is used no more; the consumer still lives.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

impl<'a> Fetched<'a> {
    pub(super) fn offset(self) -> i64 {
        self.0.offset
    }

    /// The Kafka timestamp, ms since 1970, if it has one.
    pub(super) fn timestamp_ms(self) -> Option<i64> {
        // SAFETY: the message is alive; the kind of its timestamp isn't asked for.
        let ms = unsafe { rd_kafka_message_timestamp(self.0, std::ptr::null_mut()) };
        (ms >= 0).then_some(ms)
    }

    pub(super) fn key(self) -> Option<&'a [u8]> {
        // SAFETY: a message's key is so many bytes, or null.
        unsafe { bytes(self.0.key.cast(), self.0.key_len) }
    }

    pub(super) fn value(self) -> Option<&'a [u8]> {
        // SAFETY: a message's value is so many bytes, or null.
        unsafe { bytes(self.0.payload.cast(), self.0.len) }
    }

    /// As [`super::header::sequence_of`].
    pub(super) fn sequence(self) -> Option<&'a [u8]> {
        // SAFETY: the message is alive for `'a`, and only this thread has it.
        unsafe { sequence_at(std::ptr::from_ref(self.0).cast_mut()) }
    }
}

/// # Safety
/// `first` must be null, or the first of `length` bytes that live, unchanged, for `'a`.
unsafe fn bytes<'a>(first: *const u8, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's word.
    (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first, length) })
}

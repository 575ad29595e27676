//! The ways by which the city's messages get to Kafka.
//!
//! Owns the choice between them, which a run knows nothing of: [`Straight`] produces all of
//! them; [`ByPhone`] gives updates to phones, who send them through the gateway, and the rest
//! straight to Kafka. Each promises that [`Road::acked`] counts exactly what has arrived.

use std::time::{Duration, Instant};

use crate::config::Routes;
use crate::kafka::producer::{Producer, Record};
use crate::kafka::routing::RouteTable;
use crate::model::Input;

use super::message::{Batch, Counts, Message, What};
use super::phones::{GatewaySummary, Phones};
use super::run::{Pace, RunError};

/// A way to Kafka.
pub trait Road {
    /// Takes a message, or returns false at once when there is no room: [`Road::serve`], then
    /// try again.
    ///
    /// # Errors
    /// Kafka has not taken an earlier message, or will not take this one.
    fn try_send(&self, batch: &Batch, message: &Message) -> Result<bool, RunError>;

    /// Serves acknowledgements for exactly `time`; with zero, those at hand.
    fn serve(&self, time: Duration);

    /// Whether all went well so far.
    ///
    /// # Errors
    /// Kafka has not taken a message.
    fn check(&self) -> Result<(), RunError>;

    /// Messages that were taken and are not settled.
    fn in_flight(&self) -> u64;

    /// Waits until every message is settled.
    ///
    /// # Errors
    /// As [`Road::check`], and when it takes longer than `timeout`.
    fn flush(&self, timeout: Duration) -> Result<(), RunError>;

    /// What was acknowledged since this road was made.
    fn acked(&self) -> Counts;

    /// What went through a gateway; none if there is none.
    fn gateway(&self) -> Option<GatewaySummary> {
        None
    }
}

/// Straight to Kafka, by a producer.
pub struct Straight<'a> {
    producer: &'a Producer,
    table: RouteTable,
    historic: bool,
    acked_before: Counts,
}

impl<'a> Straight<'a> {
    /// By this producer. At [`Pace::Max`] records bear city time as their timestamp, else that
    /// of their sending.
    ///
    /// # Errors
    /// A topic that is missing, a route without a partition.
    pub fn new(producer: &'a Producer, routes: &Routes, pace: Pace) -> Result<Self, RunError> {
        let partitions = producer.partitions(Input::Updates.topic())?;
        producer.partitions(Input::Orders.topic())?;
        producer.partitions(Input::Geofences.topic())?;
        Ok(Self {
            producer,
            table: RouteTable::new(routes, partitions)?,
            historic: pace == Pace::Max,
            acked_before: Counts::of_each(|what| producer.acked(what.tag())),
        })
    }
}

impl Road for Straight<'_> {
    fn try_send(&self, batch: &Batch, message: &Message) -> Result<bool, RunError> {
        let key = batch.key(message);
        let input = message.what.input();
        let record = Record {
            topic: input.topic(),
            partition: (input == Input::Updates)
                .then(|| self.table.partition_for(message.state, key)),
            timestamp_ms: self.historic.then_some(message.timestamp_ms),
            key: Some(key),
            value: batch.value(message),
            tag: message.what.tag(),
        };
        Ok(self.producer.try_send(record)?)
    }

    fn serve(&self, time: Duration) {
        self.producer.poll(time);
    }

    fn check(&self) -> Result<(), RunError> {
        Ok(self.producer.check()?)
    }

    fn in_flight(&self) -> u64 {
        self.producer.in_flight()
    }

    fn flush(&self, timeout: Duration) -> Result<(), RunError> {
        Ok(self.producer.flush(timeout)?)
    }

    fn acked(&self) -> Counts {
        let acked = |what: What| self.producer.acked(what.tag());
        Counts::of_each(|what| acked(what) - self.acked_before.of(what))
    }
}

/// Updates of drivers with a phone through the gateway, everything else straight.
pub struct ByPhone<'a> {
    straight: Straight<'a>,
    phones: Phones,
}

impl<'a> ByPhone<'a> {
    /// Of these phones, which have sent nothing yet.
    pub fn new(straight: Straight<'a>, phones: Phones) -> Self {
        Self { straight, phones }
    }
}

impl Road for ByPhone<'_> {
    fn try_send(&self, batch: &Batch, message: &Message) -> Result<bool, RunError> {
        if let (What::Update(_), Some(value)) = (message.what, batch.value(message))
            && self
                .phones
                .give(driver_of(batch.key(message)), message.what, text_of(value))
        {
            return Ok(true);
        }
        self.straight.try_send(batch, message)
    }

    fn serve(&self, time: Duration) {
        self.straight.serve(time);
    }

    fn check(&self) -> Result<(), RunError> {
        self.straight.check()
    }

    fn in_flight(&self) -> u64 {
        self.straight.in_flight() + self.phones.waiting()
    }

    fn flush(&self, timeout: Duration) -> Result<(), RunError> {
        let start = Instant::now();
        self.straight.flush(timeout)?;
        Ok(self.phones.flush(timeout.saturating_sub(start.elapsed()))?)
    }

    fn acked(&self) -> Counts {
        let straight = self.straight.acked();
        Counts::of_each(|what| straight.of(what) + self.phones.acked(what))
    }

    fn gateway(&self) -> Option<GatewaySummary> {
        Some(self.phones.summary())
    }
}

/// The driver that an update's key names.
fn driver_of(key: &[u8]) -> u64 {
    key.iter().fold(0, |number, digit| {
        debug_assert!(digit.is_ascii_digit(), "the city writes decimal keys");
        number * 10 + u64::from(digit - b'0')
    })
}

fn text_of(value: &[u8]) -> &str {
    std::str::from_utf8(value).expect("the city writes JSON, which is UTF-8")
}

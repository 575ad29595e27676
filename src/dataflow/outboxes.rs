//! What the source's operator has made of records and not sent yet, by epoch.
//!
//! Owns decoding a record into the outbox that it belongs to, and parcels: updates go to the worker
//! that owns their driver.

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilderSession;

use super::{Context, group_of};
use crate::epoch::{OffsetRange, Record};
use crate::model::{
    DeadLetter, DriverId, Epoch, Fault, FenceChange, Input, OrderChange, Place, Sequence, TimeMs,
    Update,
};
use crate::snapshot::Mark;
use crate::wire;

/// The number that an update bears, as a record of its own, so that updates without one are no
/// larger.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Number {
    /// The update's.
    pub(super) place: Place,
    /// The update's.
    pub(super) driver: DriverId,
    pub(super) sequence: Sequence,
}

/// What goes to one worker, in one piece: timely's exchange of single values would copy each
/// into buffers of a few dozen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Parcel<T> {
    pub(super) worker: u64,
    pub(super) values: Vec<T>,
}

/// Values waiting to be sent, by epoch.
pub(super) struct Outbox<T> {
    epochs: Vec<(Epoch, Vec<T>)>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self { epochs: Vec::new() }
    }
}

impl<T: 'static> Outbox<T> {
    /// What waits of an epoch; `empty` makes it where there is nothing yet.
    fn of(&mut self, epoch: Epoch, empty: impl FnOnce() -> Vec<T>) -> &mut Vec<T> {
        // Nearly always it is the last.
        let known = self.epochs.iter().rposition(|(other, _)| *other == epoch);
        let at = known.unwrap_or_else(|| {
            self.epochs.push((epoch, empty()));
            self.epochs.len() - 1
        });
        &mut self.epochs[at].1
    }

    pub(super) fn push(&mut self, epoch: Epoch, value: T) {
        self.of(epoch, Vec::new).push(value);
    }

    /// One container an epoch.
    pub(super) fn send(
        &mut self,
        output: &mut OutputBuilderSession<'_, u64, CapacityContainerBuilder<Vec<T>>>,
        capability: &Capability<u64>,
    ) {
        for (epoch, mut values) in self.epochs.drain(..) {
            output
                .session(&capability.delayed(&epoch.0))
                .give_container(&mut values);
        }
    }
}

impl<T: 'static> Outbox<Parcel<T>> {
    /// Puts a value into the parcel for the worker that owns the driver.
    fn push_by_driver(&mut self, epoch: Epoch, driver: DriverId, value: T, peers: u64) {
        let worker = group_of(driver) % peers;
        let parcel = |worker| Parcel {
            worker,
            values: Vec::new(),
        };
        let parcels = self.of(epoch, || (0..peers).map(parcel).collect());
        parcels[worker as usize].values.push(value);
    }

    /// As [`Outbox::send`], without the parcels that hold nothing.
    pub(super) fn send_parcels(
        &mut self,
        output: &mut OutputBuilderSession<'_, u64, CapacityContainerBuilder<Vec<Parcel<T>>>>,
        capability: &Capability<u64>,
    ) {
        for (_, parcels) in &mut self.epochs {
            parcels.retain(|parcel| !parcel.values.is_empty());
        }
        self.send(output, capability);
    }
}

/// What the source's operator has made of records and not sent yet.
pub(super) struct Outboxes {
    /// How many workers there are.
    pub(super) peers: u64,
    pub(super) updates: Outbox<Parcel<Update>>,
    pub(super) numbers: Outbox<Parcel<Number>>,
    pub(super) orders: Outbox<OrderChange>,
    pub(super) fences: Outbox<FenceChange>,
    pub(super) dead_letters: Outbox<DeadLetter>,
    pub(super) ranges: Outbox<OffsetRange>,
    pub(super) marks: Outbox<Mark>,
}

impl Outboxes {
    pub(super) fn new(peers: u64) -> Self {
        Self {
            peers,
            updates: Outbox::default(),
            numbers: Outbox::default(),
            orders: Outbox::default(),
            fences: Outbox::default(),
            dead_letters: Outbox::default(),
            ranges: Outbox::default(),
            marks: Outbox::default(),
        }
    }

    pub(super) fn decode(
        &mut self,
        record: &Record<'_>,
        epoch: Epoch,
        at_ms: TimeMs,
        context: &Context,
    ) {
        let place = Place {
            at_ms,
            source: record.source,
        };
        let outcome = match record.source.input {
            Input::Updates => {
                wire::decode_update(record.value, place, record.timestamp_ms, &context.limits).map(
                    |update| {
                        if let Some(header) = record.sequence {
                            self.number(header, epoch, &update);
                        }
                        let driver = update.driver;
                        (self.updates).push_by_driver(epoch, driver, update, self.peers);
                    },
                )
            }
            Input::Orders => {
                wire::decode_order(record.key, record.value, place, record.timestamp_ms)
                    .map(|change| self.orders.push(epoch, change))
            }
            Input::Geofences => wire::decode_fence(record.key, record.value, place)
                .map(|change| self.fences.push(epoch, change)),
        };
        if let Err(fault) = outcome {
            self.refuse(record, epoch, place, fault);
        }
    }

    fn number(&mut self, header: &[u8], epoch: Epoch, update: &Update) {
        if let Some(sequence) = wire::decode_sequence(header) {
            let number = Number {
                place: update.place,
                driver: update.driver,
                sequence,
            };
            (self.numbers).push_by_driver(epoch, update.driver, number, self.peers);
        }
    }

    #[cold]
    fn refuse(&mut self, record: &Record<'_>, epoch: Epoch, place: Place, fault: Fault) {
        let letter = DeadLetter {
            place,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            fault,
        };
        self.dead_letters.push(epoch, letter);
    }
}

//! An epoch's outputs as they are written: encoded, counted and hashed; and as rows.

use super::{JobError, start};
use crate::clickhouse::{Rows, StoredEvent};
use crate::config::Pipeline;
use crate::dataflow::EpochOutput;
use crate::epoch::{EpochRecord, Head, OffsetRange, OutputHash, Position, Positions};
use crate::kafka::EpochToCommit;
use crate::model::{DeadLetter, Epoch, Event};
use crate::wire::{self, EncodedEvent};

/// What an epoch told, encoded.
pub(super) struct Encoded {
    pub(super) events: Vec<EncodedEvent>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) ranges: Vec<OffsetRange>,
    pub(super) hash: u64,
    /// The events as they were, for their rows.
    pub(super) told: Vec<Event>,
}

impl Encoded {
    pub(super) fn new(output: EpochOutput) -> Self {
        let mut hash = OutputHash::default();
        let events: Vec<_> = output.events.iter().map(wire::encode_event).collect();
        for event in &events {
            hash.add(&[event.id.as_bytes(), &event.data]);
        }
        for letter in &output.dead_letters {
            hash.add(&[
                letter.fault.reason.as_str().as_bytes(),
                letter.value.as_deref().unwrap_or_default(),
            ]);
        }
        Self {
            events,
            dead_letters: output.dead_letters,
            ranges: output.ranges,
            hash: hash.value(),
            told: output.events,
        }
    }

    /// Whether nothing was read and nothing told.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dead_letters.is_empty() && self.ranges.is_empty()
    }
}

/// Makes epochs ready to be committed, one after the other.
pub(super) struct Recorder {
    interval_ms: u64,
    rules: u64,
    /// Of every input partition, after the newest epoch that was made ready.
    pub(super) positions: Positions,
}

impl Recorder {
    pub(super) fn new(pipeline: &Pipeline, positions: Positions) -> Self {
        Self {
            interval_ms: pipeline.epoch.interval_ms,
            rules: start::rules_hash(pipeline),
            positions,
        }
    }

    pub(super) fn rules(&self) -> u64 {
        self.rules
    }

    /// The epoch with its record; and its events as they were. The ranges join those of the
    /// epoch before: offsets between two records may hold none, as where a topic was compacted
    /// or a transaction ended.
    ///
    /// # Errors
    /// When a record was read twice, which is a bug.
    pub(super) fn record(
        &mut self,
        epoch: Epoch,
        encoded: Encoded,
        head: &Head,
    ) -> Result<(EpochToCommit, Vec<Event>), JobError> {
        let mut given = encoded.ranges.into_iter().peekable();
        let mut ranges = Vec::with_capacity(self.positions.len());
        for (&(input, partition), position) in &mut self.positions {
            let own = |range: &OffsetRange| (range.input, range.partition) == (input, partition);
            let joined = OffsetRange {
                input,
                partition,
                first: position.next,
                next: position.next,
                latest_ms: position.latest_ms,
            };
            let range = match given.next_if(own) {
                None => joined,
                Some(range) if range.first >= position.next => OffsetRange {
                    first: position.next,
                    ..range
                },
                Some(range) => {
                    return Err(JobError::Failed(format!(
                        "{}[{partition}] was read up to offset {}, and offset {} came again in \
                         epoch {}: this is a bug in riderflow; nothing of it was written",
                        input.topic(),
                        position.next,
                        range.first,
                        epoch.0
                    )));
                }
            };
            *position = Position {
                next: range.next,
                latest_ms: range.latest_ms,
            };
            ranges.push(range);
        }
        let record = EpochRecord {
            epoch,
            interval_ms: self.interval_ms,
            now_ms: epoch.now_ms(self.interval_ms),
            generation: head.generation,
            run: head.run,
            ranges,
            events: encoded.events.len() as u64,
            dead_letters: encoded.dead_letters.len() as u64,
            hash: encoded.hash,
            version: env!("CARGO_PKG_VERSION").into(),
            rules: self.rules,
        };
        let to_commit = EpochToCommit {
            record,
            events: encoded.events,
            dead_letters: encoded.dead_letters,
        };
        Ok((to_commit, encoded.told))
    }
}

/// The rows of an epoch's events and dead letters.
pub(super) fn rows(
    told: Vec<Event>,
    events: Vec<EncodedEvent>,
    dead_letters: Vec<DeadLetter>,
) -> [Rows; 2] {
    let stored = told.into_iter().zip(events).map(|(event, encoded)| {
        let data = String::from_utf8(encoded.data).expect("JSON is UTF-8");
        StoredEvent::new(encoded.id, &event, data)
    });
    [Rows::Events(stored.collect()), Rows::Rejected(dead_letters)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Input;

    const AT: (Input, i32) = (Input::Orders, 0);

    #[test]
    fn ranges_join_over_offsets_without_a_record() {
        let pipeline = Pipeline::defaults("p");
        let positions = Positions::from([(AT, Position::default())]);
        let mut recorder = Recorder::new(&pipeline, positions);
        let head = Head {
            generation: 1,
            run: 1,
            snapshots: Vec::new(),
            stored: Epoch(0),
            version: "test".into(),
            reset: None,
        };
        let mut record = |first, next| {
            let range = OffsetRange {
                input: AT.0,
                partition: AT.1,
                first,
                next,
                latest_ms: 7,
            };
            let output = EpochOutput {
                epoch: Epoch(1),
                events: Vec::new(),
                dead_letters: Vec::new(),
                ranges: vec![range],
                mark: None,
            };
            let recorded = recorder.record(Epoch(1), Encoded::new(output), &head);
            recorded.map(|(epoch, _)| {
                let range = epoch.record.ranges[0];
                (range.first, range.next)
            })
        };
        assert_eq!(
            record(3, 5).ok(),
            Some((0, 5)),
            "the first ones were compacted away"
        );
        assert_eq!(record(6, 7).ok(), Some((5, 7)), "a transaction ended at 5");
        assert_eq!(record(7, 8).ok(), Some((7, 8)));
        assert!(record(7, 9).is_err(), "7 again");
    }
}

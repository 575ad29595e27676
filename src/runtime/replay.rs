//! Reading committed epochs again: which record belongs to which epoch, and whether what comes
//! out is what was committed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::JobError;
use super::encode::Encoded;
use crate::config::Pipeline;
use crate::epoch::{EpochRecord, LogRecord, OffsetRange, PartitionClock, Position, Positions};
use crate::kafka;
use crate::model::{Epoch, Input};
use crate::snapshot::Manifest;

/// What the log says of the epochs after a snapshot, in order.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    after: Epoch,
    epochs: BTreeMap<Epoch, EpochRecord>,
    /// Whether all of them were told by this version and these rules; `None` until it is asked.
    told_alike: Option<bool>,
}

/// Where each partition is read from, and what of it is read again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Replayed {
    pub(super) partitions: Vec<ReplayedPartition>,
}

/// One partition of an input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReplayedPartition {
    pub(super) input: Input,
    pub(super) partition: i32,
    pub(super) from: Position,
    /// Committed epochs, each with the offset after its last.
    epochs: Vec<(Epoch, i64)>,
}

impl ReplayedPartition {
    /// A clock for a job that goes on after the committed epochs.
    pub(super) fn clock(&self, interval_ms: u64, open: Epoch) -> PartitionClock {
        let epochs = self.epochs.iter().copied();
        PartitionClock::resumed(interval_ms, self.from.latest_ms, epochs, open)
    }

    /// A clock for reading only the committed epochs again.
    pub(super) fn clock_to_the_end(&self, interval_ms: u64) -> PartitionClock {
        let epochs = self.epochs.iter().copied();
        PartitionClock::replaying(interval_ms, self.from.latest_ms, epochs)
    }
}

impl Replayed {
    /// The partitions of an input that are a worker's: those whose index modulo the number of
    /// workers is its own.
    pub(super) fn of_worker(
        &self,
        input: Input,
        index: usize,
        peers: usize,
    ) -> Vec<&ReplayedPartition> {
        let own = |start: &&ReplayedPartition| {
            start.input == input && start.partition as usize % peers == index
        };
        self.partitions.iter().filter(own).collect()
    }

    /// How many records are read again, at most.
    pub(super) fn records(&self) -> i64 {
        let count = |start: &ReplayedPartition| {
            let last = start.epochs.last();
            last.map_or(0, |(_, next)| next - start.from.next)
        };
        self.partitions.iter().map(count).sum()
    }
}

impl Recorded {
    /// Reads the log from after a snapshot to its end, or to an epoch.
    pub(super) fn read(
        pipeline: &Pipeline,
        manifest: &Manifest,
        through: Option<Epoch>,
    ) -> Result<Self, JobError> {
        let after = manifest.id.epoch;
        let is_enough = |log: &[LogRecord]| {
            let mut epochs = log.iter().filter_map(LogRecord::epoch);
            epochs.next().is_some_and(|oldest| oldest.epoch <= after)
        };
        let log = kafka::read_epoch_log(&pipeline.kafka.brokers, &pipeline.name, is_enough)?;
        Self::of(log, manifest, through)
    }

    /// What `log` says of the epochs after a snapshot.
    pub(super) fn of(
        log: Vec<LogRecord>,
        manifest: &Manifest,
        through: Option<Epoch>,
    ) -> Result<Self, JobError> {
        let after = manifest.id.epoch;
        let epochs = log.into_iter().filter_map(|record| match record {
            LogRecord::Epoch(record) => Some((record.epoch, record)),
            LogRecord::Head(_) => None,
        });
        let within = |epoch: &Epoch| *epoch > after && through.is_none_or(|last| *epoch <= last);
        let recorded = Self {
            after,
            epochs: epochs.filter(|(epoch, _)| within(epoch)).collect(),
            told_alike: None,
        };
        recorded.check_ranges(&manifest.positions)?;
        Ok(recorded)
    }

    /// Ranges must join, from the snapshot on.
    fn check_ranges(&self, from: &Positions) -> Result<(), JobError> {
        let mut next: BTreeMap<(Input, i32), i64> = from
            .iter()
            .map(|(at, position)| (*at, position.next))
            .collect();
        for record in self.epochs.values() {
            for range in &record.ranges {
                let at = (range.input, range.partition);
                let expected = next.insert(at, range.next).unwrap_or(range.first);
                if range.first != expected {
                    return Err(JobError::Refused(format!(
                        "the epoch log has a gap: epoch {} begins {}[{}] at offset {}, but {} comes \
                         next; was the log's topic changed? `riderflow reset` starts the pipeline \
                         anew",
                        record.epoch.0,
                        range.input.topic(),
                        range.partition,
                        range.first,
                        expected
                    )));
                }
            }
        }
        Ok(())
    }

    /// The epoch after which they are: the snapshot's.
    pub(super) fn after(&self) -> Epoch {
        self.after
    }

    /// How many epochs there are.
    pub(super) fn len(&self) -> usize {
        self.epochs.len()
    }

    /// The newest epoch; the snapshot's if there is none.
    pub(super) fn last(&self) -> Epoch {
        let last = self.epochs.last_key_value();
        last.map_or(self.after, |(epoch, _)| *epoch)
    }

    /// What is read again, and where partitions begin that are new.
    pub(super) fn replayed(&self, manifest: &Manifest, first: &Positions) -> Replayed {
        let mut from = manifest.positions.clone();
        for record in self.epochs.values() {
            for range in &record.ranges {
                from.entry((range.input, range.partition))
                    .or_insert(Position {
                        next: range.first,
                        latest_ms: 0,
                    });
            }
        }
        for (at, position) in first {
            from.entry(*at).or_insert(*position);
        }
        let mut epochs: BTreeMap<(Input, i32), Vec<(Epoch, i64)>> = BTreeMap::new();
        for record in self.epochs.values() {
            for range in record
                .ranges
                .iter()
                .filter(|range| range.first < range.next)
            {
                let at = (range.input, range.partition);
                epochs
                    .entry(at)
                    .or_default()
                    .push((record.epoch, range.next));
            }
        }
        let partitions = from
            .into_iter()
            .map(|((input, partition), from)| ReplayedPartition {
                input,
                partition,
                from,
                epochs: epochs.remove(&(input, partition)).unwrap_or_default(),
            });
        Replayed {
            partitions: partitions.collect(),
        }
    }

    /// How far each partition has been read in all these epochs.
    pub(super) fn positions(&self, replayed: &Replayed) -> Positions {
        let starts = replayed.partitions.iter();
        let mut positions: Positions = starts
            .map(|start| ((start.input, start.partition), start.from))
            .collect();
        if let Some((_, newest)) = self.epochs.last_key_value() {
            for range in &newest.ranges {
                let position = Position {
                    next: range.next,
                    latest_ms: range.latest_ms,
                };
                positions.insert((range.input, range.partition), position);
            }
        }
        positions
    }

    /// Whether another version, or other rules, may rightly tell something else of these
    /// epochs; and so tell something in others, since deadlines may be others.
    fn may_differ(&mut self, rules: u64) -> bool {
        let epochs = &self.epochs;
        let alike = self.told_alike.get_or_insert_with(|| {
            let mut records = epochs.values();
            records.all(|record| is_told_alike(record, rules))
        });
        !*alike
    }

    /// Holds an epoch that was read again against what was recorded of it. Returns whether
    /// anything was: of an epoch that wasn't committed nothing was told.
    ///
    /// # Errors
    /// When they differ: it is a bug, and the job must not go on from such a state.
    pub(super) fn compare(
        &mut self,
        epoch: Epoch,
        encoded: &Encoded,
        rules: u64,
    ) -> Result<bool, JobError> {
        let may_differ = self.may_differ(rules);
        let recorded = self.epochs.remove(&epoch);
        self.refuse_missing(epoch, may_differ)?;
        let Some(recorded) = recorded else {
            let only_deadlines = may_differ && encoded.ranges.is_empty();
            return match encoded.is_empty() || only_deadlines {
                true => Ok(false),
                false => Err(mismatch(epoch, "it was not committed")),
            };
        };
        if ends_of_updates(&recorded.ranges) != ends_of_updates(&encoded.ranges) {
            return Err(mismatch(epoch, "it was made of other updates"));
        }
        if !is_told_alike(&recorded, rules) {
            return Ok(true);
        }
        let counts = (
            encoded.events.len() as u64,
            encoded.dead_letters.len() as u64,
        );
        if counts != (recorded.events, recorded.dead_letters) {
            return Err(mismatch(
                epoch,
                &format!(
                    "{} events and {} dead letters, not {} and {}",
                    counts.0, counts.1, recorded.events, recorded.dead_letters
                ),
            ));
        }
        if encoded.hash != recorded.hash {
            return Err(mismatch(epoch, "as many outputs, but others"));
        }
        Ok(true)
    }

    /// All epochs up to the last have been read again.
    ///
    /// # Errors
    /// As [`Recorded::compare`].
    pub(super) fn finish(&mut self, rules: u64) -> Result<(), JobError> {
        let may_differ = self.may_differ(rules);
        self.refuse_missing(Epoch(u64::MAX), may_differ)
    }

    /// Epochs before this one have been read again; but of those with deadlines alone nothing
    /// need have come where these may be others.
    fn refuse_missing(&mut self, before: Epoch, may_differ: bool) -> Result<(), JobError> {
        while let Some(missing) = self.epochs.first_entry()
            && *missing.key() < before
        {
            let (epoch, record) = missing.remove_entry();
            let was_read = record.ranges.iter().any(|range| range.first < range.next);
            if was_read || !may_differ {
                return Err(mismatch(epoch, "nothing came of it"));
            }
        }
        Ok(())
    }
}

/// Where the updates of an epoch ended. Orders and fences may have been compacted since.
fn ends_of_updates(ranges: &[OffsetRange]) -> Vec<(i32, i64)> {
    let updates = ranges.iter().filter(|range| range.input == Input::Updates);
    let with_some = updates.filter(|range| range.first < range.next);
    with_some
        .map(|range| (range.partition, range.next))
        .collect()
}

/// Whether this version and these rules must tell the same.
fn is_told_alike(record: &EpochRecord, rules: u64) -> bool {
    record.version == env!("CARGO_PKG_VERSION") && record.rules == rules
}

fn mismatch(epoch: Epoch, what: &str) -> JobError {
    JobError::Refused(format!(
        "epoch {}, read again, gave something else than was committed ({what}): this is a bug in \
         riderflow, or Kafka's records have changed; nothing was written. Please report it; \
         `riderflow reset` starts the pipeline anew",
        epoch.0
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::EpochOutput;

    const AT: (Input, i32) = (Input::Updates, 0);

    fn range(first: i64, next: i64) -> OffsetRange {
        OffsetRange {
            input: AT.0,
            partition: AT.1,
            first,
            next,
            latest_ms: 0,
        }
    }

    /// What rules 1 told: epoch 5 with a record, 7 at a deadline, 9 with a record.
    fn recorded() -> Recorded {
        let record = |(epoch, first, next)| {
            let record = EpochRecord {
                epoch: Epoch(epoch),
                interval_ms: 100,
                now_ms: 0,
                generation: 1,
                run: 1,
                ranges: vec![range(first, next)],
                events: 0,
                dead_letters: 0,
                hash: 0,
                version: env!("CARGO_PKG_VERSION").into(),
                rules: 1,
            };
            (Epoch(epoch), record)
        };
        Recorded {
            after: Epoch(4),
            epochs: [(5, 0, 1), (7, 1, 1), (9, 1, 2)].map(record).into(),
            told_alike: None,
        }
    }

    fn came(epoch: u64, ranges: &[OffsetRange]) -> (Epoch, Encoded) {
        let output = EpochOutput {
            epoch: Epoch(epoch),
            events: Vec::new(),
            dead_letters: Vec::new(),
            ranges: ranges.to_vec(),
            mark: None,
        };
        (output.epoch, Encoded::new(output))
    }

    #[test]
    fn an_epoch_of_deadlines_may_be_missing_under_other_rules_alone() {
        for rules in [1, 2] {
            let mut recorded = recorded();
            let mut compare = |(epoch, encoded)| recorded.compare(epoch, &encoded, rules);
            assert_eq!(compare(came(5, &[range(0, 1)])).ok(), Some(true));
            let last = compare(came(9, &[range(1, 2)]));
            assert_eq!(last.is_ok(), rules == 2, "{last:?}");
            assert!(recorded.finish(rules).is_ok());
        }
    }

    #[test]
    fn an_epoch_of_other_updates_is_refused_under_any_rules() {
        for rules in [1, 2] {
            let (epoch, encoded) = came(5, &[range(0, 2)]);
            let error = recorded().compare(epoch, &encoded, rules);
            assert!(error.is_err(), "{error:?}");
        }
    }

    #[test]
    fn an_epoch_with_records_is_never_missing() {
        let mut recorded = recorded();
        assert!(recorded.clone().finish(2).is_err());
        let (epoch, encoded) = came(9, &[range(1, 2)]);
        let error = recorded
            .compare(epoch, &encoded, 2)
            .expect_err("5 is missing");
        assert!(error.to_string().contains("epoch 5"), "{error}");
    }
}

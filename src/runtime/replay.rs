//! Reading committed epochs again: which record belongs to which epoch, and whether what comes
//! out is what was committed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::JobError;
use super::encode::Encoded;
use crate::config::Pipeline;
use crate::epoch::{EpochRecord, LogRecord, PartitionClock, Position, Positions};
use crate::kafka;
use crate::model::{Epoch, Input};
use crate::snapshot::Manifest;

/// What the log says of the epochs after a snapshot, in order.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    after: Epoch,
    epochs: BTreeMap<Epoch, EpochRecord>,
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
        let partitions = from.into_iter().map(|((input, partition), from)| {
            let ranges = self.epochs.values().flat_map(|record| &record.ranges);
            let own = ranges.zip(
                self.epochs
                    .values()
                    .flat_map(|record| std::iter::repeat_n(record.epoch, record.ranges.len())),
            );
            ReplayedPartition {
                input,
                partition,
                from,
                epochs: own
                    .filter(|(range, _)| (range.input, range.partition) == (input, partition))
                    .filter(|(range, _)| range.first < range.next)
                    .map(|(range, epoch)| (epoch, range.next))
                    .collect(),
            }
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

    /// Holds an epoch that was read again against what was recorded of it.
    ///
    /// # Errors
    /// When they differ: it is a bug, and the job must not go on from such a state.
    pub(super) fn compare(
        &mut self,
        epoch: Epoch,
        encoded: &Encoded,
        rules: u64,
    ) -> Result<(), JobError> {
        let recorded = self.epochs.remove(&epoch);
        if let Some((missing, _)) = self.epochs.range(..epoch).next() {
            return Err(mismatch(*missing, "nothing came of it"));
        }
        let Some(recorded) = recorded else {
            return match encoded.is_empty() {
                true => Ok(()),
                false => Err(mismatch(epoch, "it was not committed")),
            };
        };
        // Another version or other rules may rightly tell something else.
        if recorded.version != env!("CARGO_PKG_VERSION") || recorded.rules != rules {
            return Ok(());
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
        Ok(())
    }

    /// All epochs up to the last have been read again.
    ///
    /// # Errors
    /// As [`Recorded::compare`].
    pub(super) fn finish(&self) -> Result<(), JobError> {
        match self.epochs.first_key_value() {
            None => Ok(()),
            Some((missing, _)) => Err(mismatch(*missing, "nothing came of it")),
        }
    }
}

fn mismatch(epoch: Epoch, what: &str) -> JobError {
    JobError::Refused(format!(
        "epoch {}, read again, gave something else than was committed ({what}): this is a bug in \
         riderflow, or Kafka's records have changed; nothing was written. Please report it; \
         `riderflow reset` starts the pipeline anew",
        epoch.0
    ))
}

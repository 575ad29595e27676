//! The running dataflow without Kafka: records from memory, in any batching, on any number of
//! workers, give the same outputs; and the operators are those that `explain` names.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use riderflow::config::Pipeline;
use riderflow::dataflow::graph::Graph;
use riderflow::dataflow::windows::Settings;
use riderflow::dataflow::{self, Context, Feed, Output, Restored, Trays};
use riderflow::epoch::{PartitionClock, Polled, Record, RecordReader};
use riderflow::model::{Epoch, Flag, Input, Source, TimeMs};
use riderflow::simulate::{Batch, Plan, Simulation};
use riderflow::snapshot::{Kind, Mark, Part};
use riderflow::telemetry::Metrics;
use riderflow::wire::{self, Limits};
use timely::dataflow::operators::probe::Handle;
use timely::logging::{TimelyEvent, TimelyEventBuilder};

const INTERVAL_MS: u64 = 100;
const START_MS: TimeMs = 1_790_000_000_000;
/// Long after all records.
const WALL_MS: TimeMs = START_MS + 3_600_000;

#[derive(Clone, Debug)]
struct Stored {
    source: Source,
    timestamp_ms: TimeMs,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    sequence: Option<Vec<u8>>,
}

/// Every partition of every input.
type Log = BTreeMap<(Input, i32), Vec<Stored>>;

/// Hands out a log in chunks of random size, often none.
struct Replay {
    partitions: BTreeMap<i32, VecDeque<Stored>>,
    ended: BTreeSet<i32>,
    dice: Pcg64Mcg,
}

impl RecordReader for Replay {
    type Error = Infallible;

    fn poll(
        &mut self,
        partition: i32,
        max: usize,
        visit: &mut dyn FnMut(Polled<'_>),
    ) -> Result<usize, Infallible> {
        let records = self
            .partitions
            .get_mut(&partition)
            .expect("a known partition");
        let count = self.dice.random_range(0..=max.min(100)).min(records.len());
        for stored in records.drain(..count) {
            visit(Polled::Record(Record {
                source: stored.source,
                timestamp_ms: stored.timestamp_ms,
                key: Some(&stored.key),
                value: stored.value.as_deref(),
                sequence: stored.sequence.as_deref(),
            }));
        }
        if records.is_empty() && self.ended.insert(partition) {
            visit(Polled::End);
        }
        Ok(count)
    }

    fn ask_for_end(&mut self, partition: i32) -> Result<(), Infallible> {
        self.ended.remove(&partition);
        Ok(())
    }

    fn was_disturbed(&mut self) -> Result<bool, Infallible> {
        Ok(self.dice.random_ratio(1, 100))
    }
}

/// What a run gives that must be the same for every run over the same log.
#[derive(Debug, Default)]
struct Given {
    /// Ids of events, in telling order, with their epoch.
    events: Vec<(Epoch, String)>,
    dead_letters: Vec<(Epoch, Source)>,
    flags: BTreeMap<Source, (Epoch, Flag)>,
    /// Epoch, input, partition, first and next offset.
    ranges: Vec<(Epoch, Input, i32, i64, i64)>,
    /// Where they are depends on the run.
    snapshots: Vec<Snapshot>,
}

/// Without the snapshots.
impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        (&self.events, &self.dead_letters, &self.flags, &self.ranges)
            == (
                &other.events,
                &other.dead_letters,
                &other.flags,
                &other.ranges,
            )
    }
}

impl Given {
    /// What was given after an epoch.
    fn after(&self, epoch: Epoch) -> Self {
        fn later<T: Clone>(all: &[T], is_later: impl Fn(&T) -> bool) -> Vec<T> {
            all.iter().filter(|each| is_later(each)).cloned().collect()
        }
        Self {
            events: later(&self.events, |(at, _)| *at > epoch),
            dead_letters: later(&self.dead_letters, |(at, _)| *at > epoch),
            flags: (self.flags.iter())
                .filter(|(_, (at, _))| *at > epoch)
                .map(|(source, flag)| (*source, *flag))
                .collect(),
            ranges: later(&self.ranges, |(at, ..)| *at > epoch),
            snapshots: Vec::new(),
        }
    }

    /// Names records by where they were in another log; those that weren't keep their names.
    fn name_by(&mut self, origins: &BTreeMap<Source, Source>) {
        let of = |source: &Source| origins.get(source).copied().unwrap_or(*source);
        let flags = std::mem::take(&mut self.flags).into_iter();
        self.flags = flags.map(|(source, flag)| (of(&source), flag)).collect();
        for (_, source) in &mut self.dead_letters {
            *source = of(source);
        }
        for (_, id) in &mut self.events {
            let mut parts = id.splitn(4, '/');
            let mut part = || parts.next().expect("topic, partition, offset and the rest");
            let (topic, partition, offset, rest) = (part(), part(), part(), part());
            let input = Input::ALL.into_iter().find(|input| input.topic() == topic);
            let source = of(&Source {
                input: input.expect("an input's topic"),
                partition: partition.parse().expect("a partition"),
                offset: offset.parse().expect("an offset"),
            });
            *id = format!("{topic}/{}/{}/{rest}", source.partition, source.offset);
        }
    }

    /// What the epoch log says to a start that goes on from a snapshot when the epochs up to
    /// `last` are committed.
    fn from(&self, snapshot: &Snapshot, last: Epoch, log: &Log) -> From {
        let mut positions = BTreeMap::new();
        let mut replayed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for &(epoch, input, partition, _, next) in &self.ranges {
            let at = (input, partition);
            if epoch <= snapshot.epoch {
                let read = &log[&at][..next as usize];
                let latest_ms = read.iter().map(|record| record.timestamp_ms).max();
                positions.insert(at, (next, latest_ms.unwrap_or(0)));
            } else if epoch <= last {
                replayed.entry(at).or_default().push((epoch, next));
            }
        }
        From {
            snapshot: snapshot.clone(),
            positions,
            replayed,
            open: Epoch(last.max(snapshot.epoch).0 + 1),
            until: None,
        }
    }
}

const WINDOWS: Settings = Settings {
    size_ms: 60_000,
    hop_ms: 60_000,
    session_gap_ms: 600_000,
    horizon_ms: 86_400_000,
    known_from_ms: i64::MIN,
};

fn context(outputs: std::sync::mpsc::SyncSender<Output>) -> Context {
    Context {
        interval_ms: INTERVAL_MS,
        limits: Limits::default(),
        rules: riderflow::detect::Rules::default(),
        until: None,
        keep_history: true,
        windows: None,
        clock: Box::new(|| WALL_MS),
        outputs: Some(outputs),
        wanted: Box::new(|| None),
        fail: Arc::new(|message| panic!("{message}")),
        is_spread: false,
        trays: Trays::default(),
        metrics: Metrics::new(),
    }
}

/// What a run goes on from.
#[derive(Clone)]
struct From {
    /// The state after this epoch.
    snapshot: Snapshot,
    /// Of each partition: the next offset, and the latest timestamp until then.
    positions: BTreeMap<(Input, i32), (i64, TimeMs)>,
    /// Epochs that are read again, each with the offset after its last.
    replayed: BTreeMap<(Input, i32), Vec<(Epoch, i64)>>,
    /// The first epoch after those.
    open: Epoch,
    /// The last epoch, if nothing after it is read.
    until: Option<Epoch>,
}

/// The state after an epoch: for each group its last whole part and what came after it.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    epoch: Epoch,
    parts: BTreeMap<(Kind, u16), Vec<Part>>,
}

impl Snapshot {
    fn add(&mut self, epoch: Epoch, parts: Vec<Part>) {
        self.epoch = epoch;
        for part in parts {
            let group = self.parts.entry((part.kind, part.group)).or_default();
            if part.whole {
                group.clear();
            }
            group.push(part);
        }
    }

    fn restored(&self, index: usize, peers: usize) -> Restored {
        let of = |kind: Kind, is_own: bool| -> Vec<Part> {
            let parts = self.parts.iter().filter(|((of, group), _)| {
                *of == kind && (!is_own || Restored::is_own(u64::from(*group), index, peers))
            });
            parts.flat_map(|(_, parts)| parts.clone()).collect()
        };
        Restored {
            epoch: self.epoch,
            fences: of(Kind::Fences, false),
            orders: of(Kind::Orders, true),
            drivers: of(Kind::Drivers, true),
            sessions: of(Kind::Sessions, true),
            trails: of(Kind::Trails, true),
            cells: of(Kind::Cells, true),
        }
    }
}

/// Wants a snapshot now and then.
fn now_and_then(seed: u64) -> Box<dyn Fn() -> Option<Mark>> {
    let dice = RefCell::new(Pcg64Mcg::seed_from_u64(seed));
    let sequence = Cell::new(0);
    Box::new(move || {
        let is_wanted = dice.borrow_mut().random_range(0..3) == 0;
        is_wanted.then(|| Mark {
            sequence: sequence.replace(sequence.get() + 1),
            whole: sequence.get() == 1,
        })
    })
}

fn run(log: &Log, workers: usize, seed: u64) -> Given {
    run_from(log, workers, seed, None)
}

fn run_from(log: &Log, workers: usize, seed: u64, from: Option<From>) -> Given {
    let (outputs, received) = sync_channel(64);
    let outputs = Mutex::new(Some(outputs));
    let log = log.clone();
    let collected = std::thread::spawn(move || collect(received.iter()));
    let guards = timely::execute(timely::Config::process(workers), {
        let outputs = outputs.lock().expect("not poisoned").take().expect("once");
        move |worker| {
            let (index, peers) = (worker.index(), worker.peers());
            let feeds = Input::ALL
                .into_iter()
                .filter_map(|input| {
                    let next = |at: &(Input, i32)| {
                        let from = from.as_ref().and_then(|from| from.positions.get(at));
                        from.copied().unwrap_or((0, 0))
                    };
                    let partitions: BTreeMap<i32, VecDeque<Stored>> = log
                        .iter()
                        .filter(|((of, at), _)| *of == input && *at as usize % peers == index)
                        .map(|(at, records)| {
                            let unread = records.iter().skip(next(at).0 as usize);
                            (at.1, unread.cloned().collect())
                        })
                        .collect();
                    let clock = |at: i32| match &from {
                        None => PartitionClock::new(INTERVAL_MS),
                        Some(from) => {
                            let replayed = from.replayed.get(&(input, at));
                            let replayed = replayed.into_iter().flatten().copied();
                            let latest_ms = next(&(input, at)).1;
                            match from.until {
                                Some(_) => {
                                    PartitionClock::replaying(INTERVAL_MS, latest_ms, replayed)
                                }
                                None => PartitionClock::resumed(
                                    INTERVAL_MS,
                                    latest_ms,
                                    replayed,
                                    from.open,
                                ),
                            }
                        }
                    };
                    let clocks = partitions
                        .keys()
                        .map(|&at| (at, clock(at)))
                        .collect::<Vec<_>>();
                    (!clocks.is_empty()).then(|| Feed {
                        input,
                        reader: Replay {
                            partitions,
                            ended: BTreeSet::new(),
                            dice: Pcg64Mcg::seed_from_u64(seed ^ (index as u64) << 8),
                        },
                        partitions: clocks,
                    })
                })
                .collect();
            let mut context = context(outputs.clone());
            context.until = from.as_ref().and_then(|from| from.until);
            if context.until.is_some() {
                worker.dataflow::<u64, _, _>(|scope| {
                    dataflow::build(scope, feeds, None, context);
                });
                let deadline = Instant::now() + Duration::from_secs(30);
                while worker.step_or_park(Some(Duration::from_millis(1))) {
                    assert!(Instant::now() < deadline, "it does not end");
                }
                return;
            }
            if index == 0 {
                context.wanted = now_and_then(seed);
            }
            let restored = from
                .as_ref()
                .map(|from| from.snapshot.restored(index, peers));
            let complete: Handle<u64> = worker
                .dataflow::<u64, _, _>(|scope| dataflow::build(scope, feeds, restored, context))
                .judged;
            let end = Epoch::containing(WALL_MS, INTERVAL_MS).0;
            while complete.less_than(&end) {
                worker.step();
            }
            // What is whole has been handed on once the collector has run again.
            for _ in 0..100 {
                worker.step();
            }
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        }
    });
    drop(guards.expect("workers start"));
    collected.join().expect("the collector ends")
}

fn collect(outputs: impl Iterator<Item = Output>) -> Given {
    let mut given = Given::default();
    for output in outputs {
        match output {
            Output::Locations { epoch, rows } => {
                for location in rows {
                    let source = location.update.place.source;
                    assert!(
                        given.flags.insert(source, (epoch, location.flag)).is_none(),
                        "{source:?} twice"
                    );
                }
            }
            Output::Windows { .. } => unreachable!("no windows are computed"),
            Output::Settled { .. } => {}
            Output::Snapshot { epoch, parts } => {
                let mut snapshot = given.snapshots.last().cloned().unwrap_or_default();
                snapshot.add(epoch, parts);
                given.snapshots.push(snapshot);
            }
            Output::Epoch(whole) => {
                let epoch = whole.epoch;
                given.events.extend(
                    whole
                        .events
                        .iter()
                        .map(|event| (epoch, wire::encode_event(event).id)),
                );
                given.dead_letters.extend(
                    whole
                        .dead_letters
                        .iter()
                        .map(|letter| (epoch, letter.place.source)),
                );
                given.ranges.extend(
                    whole.ranges.iter().map(|range| {
                        (epoch, range.input, range.partition, range.first, range.next)
                    }),
                );
            }
        }
    }
    given
}

/// A city's records in `partitions` partitions; a driver's updates go to any of them.
fn city(drivers: u32, steps: u32, partitions: i32, seed: u64) -> Log {
    let mut city = Simulation::new(Plan {
        slice_ms: 500,
        ..Plan::new(drivers, drivers / 3, 30, seed, START_MS)
    });
    let mut dice = Pcg64Mcg::seed_from_u64(seed);
    let mut log: Log = BTreeMap::new();
    for at in 0..partitions {
        log.entry((Input::Updates, at)).or_default();
        log.entry((Input::Orders, at)).or_default();
    }
    log.entry((Input::Geofences, 0)).or_default();
    let mut batch = Batch::new();
    city.fences(&mut batch);
    for step in 0..=steps {
        for message in batch.messages() {
            let input = message.what.input();
            let partition = match input {
                Input::Geofences => 0,
                Input::Orders => batch.key(message).len() as i32 % partitions,
                Input::Updates => dice.random_range(0..partitions),
            };
            let mut value = batch.value(message).map(<[u8]>::to_vec);
            if input == Input::Updates && dice.random_range(0..100) == 0 {
                value = Some(b"{}".to_vec());
            }
            let records = log.get_mut(&(input, partition)).expect("a known partition");
            let offset = records.len() as i64;
            records.push(Stored {
                source: Source {
                    input,
                    partition,
                    offset,
                },
                timestamp_ms: message.timestamp_ms,
                key: batch.key(message).to_vec(),
                value,
                sequence: None,
            });
        }
        if step < steps {
            city.next_step(&mut batch);
        }
    }
    log
}

/// Numbers a city's updates, each driver's in sessions of its own, and sends good ones again: a
/// while later, in the partition of the first copy. No driver has more sessions and partitions than
/// are kept of it.
/// Also gives where each record that is no resend was before.
fn with_resends(log: &Log, seed: u64) -> (Log, BTreeMap<Source, Source>) {
    let mut dice = Pcg64Mcg::seed_from_u64(seed);
    let mut numbers: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut sessions: BTreeMap<Vec<u8>, BTreeSet<(i32, String)>> = BTreeMap::new();
    let (mut with, mut origins): (Log, BTreeMap<Source, Source>) = Default::default();
    for (&(input, partition), records) in log {
        let mut copies: VecDeque<Stored> = VecDeque::new();
        let to = with.entry((input, partition)).or_default();
        let mut put = |mut stored: Stored, timestamp_ms, origin: Option<Source>| {
            let offset = to.len() as i64;
            stored.source.offset = offset;
            stored.timestamp_ms = timestamp_ms;
            origins.extend(origin.map(|origin| (stored.source, origin)));
            to.push(stored);
        };
        for stored in records {
            let mut stored = stored.clone();
            let at_ms = stored.timestamp_ms;
            if input == Input::Updates {
                let number = numbers.entry(stored.key.clone()).or_default();
                *number += 1;
                // Some have none, some what is none; a session ends after 100 updates.
                let session = format!("run-{}", *number / 100);
                let of_driver = sessions.entry(stored.key.clone()).or_default();
                of_driver.insert((partition, session.clone()));
                assert!(of_driver.len() <= 4, "{of_driver:?}");
                stored.sequence = match dice.random_range(0..20) {
                    0 => None,
                    1 => Some(b"run/-1".to_vec()),
                    _ => Some(format!("{session}/{number}").into_bytes()),
                };
                let is_numbered = stored.sequence.as_deref().is_some_and(|s| s != b"run/-1");
                let is_good = stored.value.as_deref().is_some_and(|value| value != b"{}");
                if is_numbered && is_good && dice.random_range(0..10) == 0 {
                    copies.push_back(stored.clone());
                }
            }
            let origin = stored.source;
            put(stored, at_ms, Some(origin));
            while !copies.is_empty() && dice.random_range(0..8) == 0 {
                put(copies.pop_front().expect("one"), at_ms, None);
            }
        }
    }
    (with, origins)
}

/// Ranges of all epochs of a partition join without gap or overlap, from 0 to its end.
fn assert_ranges_join(given: &Given, log: &Log) {
    let mut next: BTreeMap<(Input, i32), i64> = BTreeMap::new();
    for &(epoch, input, partition, first, end) in &given.ranges {
        let expected = next.insert((input, partition), end).unwrap_or(0);
        assert_eq!(first, expected, "{input:?}[{partition}] in {epoch:?}");
    }
    for (at, records) in log.iter().filter(|(_, records)| !records.is_empty()) {
        assert_eq!(next.get(at).copied(), Some(records.len() as i64), "{at:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn batching_and_workers_change_nothing(seed in 0_u64..1_000_000, partitions in 1..4_i32) {
        let (log, _) = with_resends(&city(60, 120, partitions, seed), seed);
        let alone = run(&log, 1, seed);
        assert_ranges_join(&alone, &log);
        prop_assert!(alone.events.len() > 50, "{} events", alone.events.len());
        prop_assert!(!alone.dead_letters.is_empty());
        for workers in [1, 2, 4] {
            prop_assert_eq!(&run(&log, workers, seed + workers as u64 + 1), &alone);
        }
    }

    /// Whatever is told, it is what would be told if they had not come, in the same epochs.
    #[test]
    fn updates_that_are_resent_change_nothing(seed in 0_u64..1_000_000, partitions in 1..3_i32) {
        let log = city(60, 120, partitions, seed);
        let (with, origins) = with_resends(&log, seed);
        let count = |log: &Log| log.values().map(Vec::len).sum::<usize>();
        let resent = count(&with) - count(&log);
        prop_assert!(resent > 100, "{} of {}", resent, count(&with));
        let alone = run(&log, 1, seed);
        for workers in [1, 2, 4] {
            let mut given = run(&with, workers, seed);
            given.name_by(&origins);
            prop_assert_eq!(&given.flags, &alone.flags);
            prop_assert_eq!(&given.events, &alone.events);
            prop_assert_eq!(&given.dead_letters, &alone.dead_letters);
        }
    }

    /// From any snapshot, with any number of epochs to be read again, by any number of workers.
    #[test]
    fn a_restart_from_a_snapshot_changes_nothing(seed in 0_u64..1_000_000, partitions in 1..4_i32) {
        let (log, _) = with_resends(&city(60, 120, partitions, seed), seed);
        let before = run(&log, 2, seed);
        let mut dice = Pcg64Mcg::seed_from_u64(seed);
        let epochs: Vec<Epoch> = before.ranges.iter().map(|(epoch, ..)| *epoch).collect();
        prop_assert!(before.snapshots.len() > 2, "{} snapshots", before.snapshots.len());
        for workers in [1, 2, 4] {
            let snapshot = &before.snapshots[dice.random_range(0..before.snapshots.len())];
            let last = epochs[dice.random_range(0..epochs.len())];
            let from = before.from(snapshot, last, &log);
            let after = run_from(&log, workers, seed + workers as u64, Some(from));
            prop_assert_eq!(&after, &before.after(snapshot.epoch));
        }
    }
}

#[test]
fn epochs_that_are_read_again_by_themselves_end_with_what_was_due_in_the_last() {
    let log = city(60, 120, 2, 7);
    let before = run(&log, 1, 7);
    let reading = |last: Epoch| {
        let from = From {
            until: Some(last),
            ..before.from(&Snapshot::default(), last, &log)
        };
        run_from(&log, 1, 8, Some(from))
    };
    let (read, last) = (before.ranges.last(), before.events.last());
    let (read, last) = (read.expect("a range").0, last.expect("an event").0);
    assert!(read < last, "the last epochs are those of deadlines");
    let told = before.events.iter().map(|(epoch, _)| *epoch);
    let first_due = told.clone().find(|epoch| *epoch > read).expect("some");
    assert!(first_due < last, "and there are several");
    assert_eq!(reading(last), before);
    let again = reading(first_due);
    let count = told.filter(|epoch| *epoch <= first_due).count();
    assert_eq!(again.events[..], before.events[..count]);
    assert_eq!(again.ranges, before.ranges);
}

/// Adds a partition of updates whose phones are an hour ahead or behind, and one in which
/// nothing ever comes.
fn with_strangers(log: &Log, partitions: i32) -> Log {
    let mut log = log.clone();
    let source = |offset| Source {
        input: Input::Updates,
        partition: partitions,
        offset,
    };
    let updates = log
        .iter()
        .filter(|((input, _), _)| *input == Input::Updates);
    let times: Vec<TimeMs> = updates
        .flat_map(|(_, records)| records.iter().map(|record| record.timestamp_ms))
        .collect();
    let (first_ms, last_ms) = (
        *times.iter().min().expect("updates"),
        *times.iter().max().expect("updates"),
    );
    let strangers = (first_ms..last_ms)
        .step_by(500)
        .enumerate()
        .map(|(offset, at_ms)| {
            let (driver, event_ms) = if offset % 2 == 0 {
                (STRANGERS, at_ms + 3_600_000)
            } else {
                (STRANGERS + 1, at_ms - 3_600_000)
            };
            let value = format!(
                r#"{{"driverId":{driver},"longitude":77.59,"latitude":12.97,"timestamp":{event_ms}}}"#
            );
            Stored {
                source: source(offset as i64),
                timestamp_ms: at_ms,
                key: driver.to_string().into_bytes(),
                value: Some(value.into_bytes()),
                sequence: None,
            }
        })
        .collect();
    log.insert((Input::Updates, partitions), strangers);
    log.insert((Input::Updates, partitions + 1), Vec::new());
    log
}

/// Ids that no driver of the city has.
const STRANGERS: u64 = 1_000_000;

#[test]
fn a_wrong_clock_and_a_quiet_partition_delay_and_change_nothing_for_others() {
    let log = city(60, 120, 2, 7);
    let strange = with_strangers(&log, 2);
    let alone = run(&log, 2, 1);
    let among = run(&strange, 2, 1);
    let of_others: Vec<_> = among
        .events
        .iter()
        .filter(|(_, id)| !id.ends_with("/1000000") && !id.ends_with("/1000001"))
        .cloned()
        .collect();
    // With their epochs: neither changed nor later.
    assert_eq!(of_others, alone.events);
    let flags: BTreeMap<Source, (Epoch, Flag)> = among
        .flags
        .iter()
        .filter(|(source, _)| source.partition != 2 || source.input != Input::Updates)
        .map(|(source, flag)| (*source, *flag))
        .collect();
    assert_eq!(flags, alone.flags);
    let ahead = strange[&(Input::Updates, 2)].len().div_ceil(2);
    let refused = among
        .dead_letters
        .iter()
        .filter(|(_, source)| source.partition == 2);
    assert_eq!(
        refused.count(),
        ahead,
        "an hour ahead is refused, each time"
    );
    let behind = among
        .flags
        .iter()
        .filter(|(source, _)| source.partition == 2);
    assert!(
        behind.clone().count() > 50,
        "an hour behind is history, and judged"
    );
    assert!(behind.clone().all(|(_, (_, flag))| *flag == Flag::Ok));
}

#[test]
fn the_operators_are_those_that_explain_names() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (outputs, _received) = sync_channel(1);
    let heard = Arc::clone(&seen);
    let guards = timely::execute(timely::Config::thread(), move |worker| {
        let heard = Arc::clone(&heard);
        worker
            .log_register()
            .expect("logging is on")
            .insert::<TimelyEventBuilder, _>("timely", move |_, events| {
                for (_, event) in events.iter().flat_map(|events| events.iter()) {
                    if let TimelyEvent::Operates(operator) = event {
                        heard
                            .lock()
                            .expect("not poisoned")
                            .insert(operator.name.clone());
                    }
                }
            });
        let feeds: Vec<Feed<Replay>> = Vec::new();
        let context = Context {
            windows: Some(WINDOWS),
            ..context(outputs.clone())
        };
        worker.dataflow::<u64, _, _>(|scope| dataflow::build(scope, feeds, None, context));
        worker.step();
    });
    drop(guards.expect("a worker starts"));
    let pipeline = Pipeline::defaults("named");
    let named: BTreeSet<String> = Graph::of(&pipeline)
        .operators()
        .map(str::to_owned)
        .collect();
    let running = seen.lock().expect("not poisoned");
    let unnamed: Vec<&String> = named.difference(&running).collect();
    assert!(
        unnamed.is_empty(),
        "explain names {unnamed:?}, which do not run: {running:?}"
    );
    // Timely's own helpers: the dataflow itself, the broadcast's parts and the probe; and
    // differential dataflow's, between the stages of cells.
    let helpers = [
        "Dataflow",
        "Broadcast",
        "Exchange",
        "Map",
        "FlatMap",
        "Probe",
        "Concatenate",
        "CountTotal",
        "Feedback",
    ];
    let unsaid: Vec<&String> = running
        .difference(&named)
        .filter(|name| !helpers.iter().any(|helper| name.starts_with(helper)))
        .collect();
    assert!(
        unsaid.is_empty(),
        "these run and explain does not name them: {unsaid:?}"
    );
}

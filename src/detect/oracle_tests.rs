//! The detector against the contract written as plain loops, over random histories, cut up
//! into epochs and between workers in any way.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::oracle::Oracle;
use super::oracle_world::{Record, Shape, TICK_MS, Timed, Told, Xy, merge, position};
use super::{Detector, OrderBook, Outputs, Rules};
use crate::model::{
    DriverId, Event, EventKind, Fence, FenceChange, FenceId, Flag, Geometry, Input, Order,
    OrderChange, OrderId, OrderStatus, Place, Sequence, Source, Stop, Subject, Update,
};

pub(super) fn told(event: &Event) -> Told {
    Told {
        driver: event.driver.0,
        kind: event.kind,
        object: match &event.subject {
            Subject::Driver => "-".to_owned(),
            Subject::Fence(id) => id.0.to_string(),
            Subject::Order(id) => id.0.to_string(),
            Subject::Leg(id, leg) => format!("{}.{}", id.0, leg.as_str()),
        },
        cause: event.cause,
        at_ms: event.place.at_ms,
        source: event.source.offset as usize,
        event_time_ms: event.event_time_ms,
        initial: event.initial,
        status: event.status,
        distance: event.distance_m.map(|d| (d * 100.0).round() as i64),
        eta: event.eta_s.map(|s| (s * 100.0).round() as i64),
        dwell_ms: event.dwell_s.map(|s| (s * 1000.0).round() as i64),
        fix: event.position,
    }
}

/// The job in small: detectors and order books side by side, each with its share, epochs of
/// any length.
pub(super) struct Job {
    pub(super) books: Vec<OrderBook>,
    pub(super) detectors: Vec<Detector>,
}

/// All that was told in telling order, the flags by record, and how many were resent.
pub(super) type Story = (Vec<Event>, BTreeMap<usize, Flag>, u64);

impl Job {
    pub(super) fn new(count: usize, rules: &Rules) -> Self {
        Self {
            books: vec![OrderBook::new(); count],
            detectors: vec![Detector::new(rules.clone()); count],
        }
    }

    /// Runs a history whose epochs end at the times given, and at `until_ms`.
    fn run(count: usize, rules: &Rules, history: &[Timed], ends: &[i64], until_ms: i64) -> Story {
        let job = Self::new(count, rules);
        job.run_with(history, ends, until_ms, |_, _| {})
    }

    /// As [`Job::run`]; `after` has the job after each epoch, and how many records it took.
    pub(super) fn run_with(
        self,
        history: &[Timed],
        ends: &[i64],
        until_ms: i64,
        mut after: impl FnMut(&mut Self, usize),
    ) -> Story {
        let mut job = self;
        let mut taken = 0;
        let mut ends = ends.to_vec();
        ends.push(until_ms);
        ends.sort_unstable();
        let mut records = history.iter().enumerate().peekable();
        let (mut events, mut flags, mut resent) = (Vec::new(), BTreeMap::new(), 0);
        let mut begin_ms = 0;
        for now_ms in ends {
            let mut epoch: Vec<Event> = Vec::new();
            let mut outputs = vec![Outputs::default(); job.detectors.len()];
            while let Some((number, (at_ms, record))) =
                records.next_if(|(_, (at_ms, _))| *at_ms < now_ms)
            {
                job.take(number, *at_ms, record, now_ms, &mut outputs);
                taken = number + 1;
            }
            for (detector, out) in job.detectors.iter_mut().zip(&mut outputs) {
                detector.end_epoch(now_ms, out);
                assert!(detector.next_deadline().is_none_or(|next| next >= now_ms));
                epoch.append(&mut out.events);
                resent += out.resent;
                for location in &out.judged {
                    let number = location.update.place.source.offset as usize;
                    assert_eq!(flags.insert(number, location.flag), None, "judged twice");
                }
            }
            epoch.sort_by(|a, b| a.telling_order().cmp(&b.telling_order()));
            for event in &mut epoch {
                assert_eq!(event.detected_at_ms, now_ms);
                assert!((begin_ms..now_ms).contains(&event.place.at_ms), "{event:?}");
                event.detected_at_ms = 0;
            }
            events.append(&mut epoch);
            begin_ms = now_ms;
            after(&mut job, taken);
        }
        (events, flags, resent)
    }

    fn take(
        &mut self,
        number: usize,
        at_ms: i64,
        record: &Record,
        now_ms: i64,
        out: &mut [Outputs],
    ) {
        let count = self.detectors.len();
        let place = |input| Place {
            at_ms,
            source: Source {
                input,
                partition: record.partition(),
                offset: number as i64,
            },
        };
        match record {
            Record::Fence(id, version) => {
                let id = FenceId(format!("f{id}").into());
                let change = FenceChange {
                    place: place(Input::Geofences),
                    id: id.clone(),
                    fence: version.map(|(shape, dwell_s)| fence(id, shape, dwell_s)),
                };
                for (detector, out) in self.detectors.iter_mut().zip(out) {
                    detector.on_fence(change.clone(), now_ms, out);
                }
            }
            Record::Order(id, version) => {
                let mut steps = Vec::new();
                let change = order(place(Input::Orders), *id, *version);
                self.books[*id as usize % count].apply(change, &mut steps);
                for step in steps {
                    let owner = step.driver.0 as usize % count;
                    self.detectors[owner].on_order(step, now_ms, &mut out[owner]);
                }
            }
            Record::Update {
                driver,
                xy,
                age_ms,
                speed,
                accuracy,
                sequence,
                ..
            } => {
                let update = Update {
                    place: place(Input::Updates),
                    driver: DriverId(*driver),
                    position: position(*xy),
                    event_time_ms: at_ms - age_ms,
                    received_at_ms: at_ms,
                    accuracy_m: *accuracy,
                    speed_mps: *speed,
                    heading_deg: None,
                    state: None,
                };
                let owner = *driver as usize % count;
                let (detector, out) = (&mut self.detectors[owner], &mut out[owner]);
                match *sequence {
                    None => detector.on_update(update, now_ms, out),
                    Some((session, number)) => {
                        let sequence = Sequence { session, number };
                        detector.on_numbered_update(update, sequence, now_ms, out);
                    }
                }
            }
        }
    }
}

pub(super) fn order(
    place: Place,
    id: u8,
    version: Option<(OrderStatus, Option<u64>, Xy, Xy)>,
) -> OrderChange {
    let id = OrderId(format!("o{id}").into());
    let stop = |xy| Stop {
        position: position(xy),
        place: None,
    };
    OrderChange {
        place,
        id: id.clone(),
        order: version.map(|(status, driver, pickup, dropoff)| Order {
            id,
            driver: driver.map(DriverId),
            status,
            pickup: stop(pickup),
            dropoff: stop(dropoff),
            updated_at_ms: place.at_ms - 3 * TICK_MS,
        }),
    }
}

pub(super) fn fence(id: FenceId, shape: Shape, dwell_s: Option<f64>) -> Fence {
    let (geometry, exit_margin_m) = match shape {
        Shape::Disc(center, radius_m, margin) => {
            let center = position(center);
            (Geometry::Circle { center, radius_m }, margin)
        }
        Shape::Box((x, y), w, h, frame) => {
            let ring = |(west, south): Xy, (east, north): Xy| {
                let corners = [
                    (west, south),
                    (east, south),
                    (east, north),
                    (west, north),
                    (west, south),
                ];
                corners.map(position).to_vec()
            };
            let mut rings = vec![ring((x, y), (x + w, y + h))];
            rings.extend(frame.map(|frame| {
                let (sw, ne) = Shape::hole((x, y), w, h, frame);
                ring(sw, ne)
            }));
            (Geometry::Polygon(rings), 0.0)
        }
    };
    Fence {
        id,
        name: None,
        kind: None,
        geometry,
        dwell_s,
        exit_margin_m,
    }
}

/// Few targets, so that orders come back to them.
const TARGETS: [Xy; 3] = [(0.01, 0.005), (0.013, 0.006), (0.02, 0.01)];

/// A square of 1.6 km or so; often near a target.
fn xy() -> impl Strategy<Value = Xy> {
    let near = (0..3usize, -0.001..0.001f64, -0.0005..0.0005f64);
    prop_oneof![
        2 => (0.0..0.03f64, 0.0..0.015f64),
        2 => near.prop_map(|(at, x, y)| (TARGETS[at].0 + x, TARGETS[at].1 + y)),
        1 => Just(TARGETS[0]),
    ]
}

/// Off the places of fixes, so that rounding decides nothing.
fn askew() -> impl Strategy<Value = Xy> {
    xy().prop_map(|xy| (xy.0 + 1.234_567e-6, xy.1 + 7.654_321e-7))
}

fn shape() -> impl Strategy<Value = Shape> {
    let frame = proptest::option::weighted(0.3, 0.05..0.45f64);
    prop_oneof![
        (askew(), 0.0005..0.01f64, 0.0005..0.01f64, frame)
            .prop_map(|(sw, w, h, frame)| Shape::Box(sw, w, h, frame)),
        (
            askew(),
            30.0..600.0f64,
            prop_oneof![Just(0.0), 0.0..200.0f64]
        )
            .prop_map(|(c, r, m)| Shape::Disc(c, r, m)),
    ]
}

/// Seconds, whole ticks.
fn dwell() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        Just(Some(0.0)),
        (1..40i32).prop_map(|quarters| Some(f64::from(quarters) / 4.0)),
        Just(Some(1e300)),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let status = prop_oneof![
        2 => Just(OrderStatus::Placed),
        8 => Just(OrderStatus::Assigned),
        6 => Just(OrderStatus::PickedUp),
        1 => Just(OrderStatus::Delivered),
        1 => Just(OrderStatus::Cancelled),
    ];
    let target = || (0..3usize).prop_map(|at| TARGETS[at]);
    let version = (status, 0..5u64, any::<bool>(), target(), target()).prop_map(
        |(status, driver, given, pickup, dropoff)| {
            let given = match status {
                OrderStatus::Placed => false,
                OrderStatus::Assigned | OrderStatus::PickedUp => true,
                OrderStatus::Delivered | OrderStatus::Cancelled => given,
            };
            (status, Some(driver).filter(|_| given), pickup, dropoff)
        },
    );
    let age = prop_oneof![
        4 => Just(0i64),
        2 => (-8..12i64).prop_map(|ticks| ticks * TICK_MS),
        1 => (-80..80i64).prop_map(|ticks| ticks * TICK_MS),
    ];
    let speed = prop_oneof![Just(None), (0.0..3.0f32).prop_map(Some)];
    let accuracy = prop_oneof![3 => Just(None), 3 => Just(Some(100.0f32)), 1 => Just(Some(100.1))];
    // More sessions and partitions than are kept; small numbers, so that many were there.
    let sequence = proptest::option::weighted(0.5, (0..3u64, 1..30u64));
    prop_oneof![
        2 => (0..6u8, proptest::option::weighted(0.85, (shape(), dwell())))
            .prop_map(|(id, version)| Record::Fence(id, version)),
        3 => (0..4u8, proptest::option::weighted(0.93, version))
            .prop_map(|(id, version)| Record::Order(id, version)),
        12 => (0..5u64, xy(), age, speed, accuracy, 0..2i32, sequence).prop_map(
            |(driver, xy, age_ms, speed, accuracy, partition, sequence)| Record::Update {
                driver, xy, age_ms, speed, accuracy, partition, sequence,
            },
        ),
    ]
}

/// Records in their merged order, from 30 s on.
pub(super) fn history(longest: usize) -> impl Strategy<Value = Vec<Timed>> {
    let gap = prop_oneof![2 => Just(0i64), 6 => 1..6i64, 2 => 6..20i64, 1 => 20..80i64];
    proptest::collection::vec((gap, record()), 1..longest).prop_map(|records| {
        let mut at_ms = 30_000;
        let mut history: Vec<Timed> = (records.into_iter())
            .map(|(ticks, record)| {
                at_ms += ticks * TICK_MS;
                (at_ms, record)
            })
            .collect();
        merge(&mut history);
        history
    })
}

pub(super) fn rules() -> impl Strategy<Value = Rules> {
    let lateness_s = prop_oneof![2 => Just(0.0), 1 => Just(1.0), 1 => Just(4.0)];
    let speed = prop_oneof![Just(100.0), Just(400.0), Just(1e6)];
    let arrive_s = prop_oneof![4 => Just(2.5), 1 => Just(0.0), 1 => Just(1e300)];
    (any::<bool>(), lateness_s, speed, arrive_s).prop_map(
        |(near_repeat, lateness_s, max_speed_mps, arrive_s)| Rules {
            near_repeat,
            rearm_m: 600.0,
            arrive_s,
            silent_s: 6.0,
            crossing_gap_s: 10.0,
            max_speed_mps,
            lateness_s,
            ..Rules::default()
        },
    )
}

/// After the last record and all that it may start.
pub(super) fn end_of(history: &[Timed]) -> i64 {
    history.last().map_or(0, |(at_ms, _)| *at_ms) + 60_000
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_history_is_told_as_the_contract_says(
        history in history(120), rules in rules(),
        ends in proptest::collection::vec(0..200_000i64, 0..60),
        others in proptest::collection::vec(0..200_000i64, 0..60),
        step in prop_oneof![Just(100i64), Just(1000i64)],
    ) {
        let until_ms = end_of(&history);
        let oracle = Oracle::tell(&history, &rules, until_ms);
        let ends: Vec<i64> = ends.into_iter().filter(|end| *end < until_ms).collect();
        let others: Vec<i64> = others.into_iter().filter(|end| *end < until_ms).collect();
        let (events, flags, resent) = Job::run(1, &rules, &history, &ends, until_ms);
        prop_assert_eq!(&flags, &oracle.flags);
        prop_assert_eq!(resent, oracle.resent.len() as u64);
        let got: Vec<Told> = events.iter().map(told).collect();
        for driver in 0..5 {
            let of = |events: &[Told]| -> Vec<Told> {
                events.iter().filter(|event| event.driver == driver).cloned().collect()
            };
            let (got, expected) = (of(&got), of(&oracle.told));
            for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
                prop_assert_eq!(got, expected, "event {} of driver {}", number, driver);
            }
            prop_assert_eq!(got.len(), expected.len(), "{:?} {:?}", got, expected);
        }
        let ids: BTreeSet<_> = (events.iter())
            .map(|event| (event.source, event.kind, &event.subject, event.driver))
            .collect();
        prop_assert_eq!(ids.len(), events.len());
        prop_assert!(events.is_sorted_by(|a, b| a.telling_order() < b.telling_order()));
        let steps: Vec<i64> = (1..until_ms / step).map(|n| n * step).collect();
        for (count, ends) in [(2, &others), (4, &ends), (1, &steps)] {
            let story = Job::run(count, &rules, &history, ends, until_ms);
            prop_assert_eq!(&story.0, &events, "{} workers", count);
            prop_assert_eq!(&story.1, &flags);
            prop_assert_eq!(story.2, resent);
        }
    }
}

/// What the histories above are worth: everything that can be told is.
#[test]
fn random_histories_tell_of_everything() {
    let mut runner = TestRunner::deterministic();
    let mut kinds: BTreeMap<EventKind, usize> = BTreeMap::new();
    let mut flags: BTreeMap<Flag, usize> = BTreeMap::new();
    let (mut jumps, mut by_fix, mut resent, mut forgotten) = (0, 0, 0, 0);
    for _ in 0..300 {
        let history = history(120).new_tree(&mut runner).unwrap().current();
        let rules = rules().new_tree(&mut runner).unwrap().current();
        let oracle = Oracle::tell(&history, &rules, end_of(&history));
        jumps += oracle.jumps;
        by_fix += oracle.by_fix;
        resent += oracle.resent.len();
        forgotten += oracle.forgotten;
        for event in &oracle.told {
            *kinds.entry(event.kind).or_default() += 1;
        }
        for flag in oracle.flags.into_values() {
            *flags.entry(flag).or_default() += 1;
        }
    }
    for kind in EventKind::ALL {
        let count = kinds.get(&kind).copied().unwrap_or_default();
        assert!(count >= 10, "{count} {}: {kinds:?}", kind.name());
    }
    for flag in Flag::ALL {
        let count = flags.get(&flag).copied().unwrap_or_default();
        assert!(count >= 10, "{count} {}: {flags:?}", flag.as_str());
    }
    assert!(jumps >= 10 && by_fix >= 10, "{jumps} {by_fix}");
    assert!(resent >= 50 && forgotten >= 50, "{resent} {forgotten}");
}

/// A driver's trace: for each fix, ticks since the one before, place, accuracy.
fn trace() -> impl Strategy<Value = Vec<(i64, Xy, Option<f32>)>> {
    let gap = prop_oneof![4 => 1..6i64, 1 => 6..40i64];
    let accuracy = prop_oneof![5 => Just(None), 1 => Just(Some(100.1f32))];
    proptest::collection::vec((gap, xy(), accuracy), 0..25)
}

fn fences() -> impl Strategy<Value = Vec<Timed>> {
    let fences = proptest::collection::vec((shape(), dwell()), 0..6);
    fences.prop_map(|fences| {
        (0..)
            .zip(fences)
            .map(|(id, version)| (30_000, Record::Fence(id, Some(version))))
            .collect()
    })
}

/// An update by the number of the fix that it reports, its arrival and its event time.
fn report(driver: u64, at_ms: i64, event_ms: i64, fix: &(i64, Xy, Option<f32>)) -> Timed {
    let record = Record::Update {
        driver,
        xy: fix.1,
        age_ms: at_ms - event_ms,
        speed: None,
        accuracy: fix.2,
        partition: 0,
        sequence: None,
    };
    (at_ms, record)
}

/// What was told, by event time of the source instead of its number.
fn by_event_time(story: &Story, history: &[Timed]) -> Vec<(Told, i64)> {
    let event_ms = |number: usize| match &history[number] {
        (at_ms, Record::Update { age_ms, .. }) => at_ms - age_ms,
        (at_ms, _) => *at_ms,
    };
    (story.0.iter())
        .map(|event| {
            let event = told(event);
            let source_ms = event_ms(event.source);
            (Told { source: 0, ..event }, source_ms)
        })
        .collect()
}

/// The flags by driver and event time.
fn flags_by_event_time(story: &Story, history: &[Timed]) -> BTreeMap<(u64, i64), Flag> {
    (story.1.iter())
        .map(|(&number, &flag)| match &history[number] {
            (at_ms, Record::Update { driver, age_ms, .. }) => ((*driver, at_ms - age_ms), flag),
            other => panic!("{other:?} has a flag"),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_of_arrival_within_the_lateness_tells_the_same(
        fences in fences(), traces in proptest::collection::vec(trace(), 1..4),
        delays in proptest::collection::vec((0..=16i64, 0..=16i64), 75),
        rules in rules(), others in history(20),
        ends in proptest::collection::vec(0..200_000i64, 0..60),
    ) {
        // No silence: it is the clock's, and so of when something came.
        let rules = Rules { lateness_s: 4.0, silent_s: 1e9, ..rules };
        let changes = others.into_iter().filter(|(_, record)| !matches!(record, Record::Update { .. }));
        let fixed: Vec<Timed> = fences.into_iter().chain(changes).collect();
        let mut delays = delays.into_iter().cycle();
        let (mut once, mut again) = (fixed.clone(), fixed);
        for (driver, trace) in (0..).zip(&traces) {
            let mut event_ms = 30_000;
            for fix in trace {
                event_ms += fix.0 * TICK_MS;
                let (one, other) = delays.next().unwrap_or_default();
                once.push(report(driver, event_ms + one * TICK_MS, event_ms, fix));
                again.push(report(driver, event_ms + other * TICK_MS, event_ms, fix));
            }
        }
        merge(&mut once);
        merge(&mut again);
        let until_ms = end_of(&once).max(end_of(&again));
        let ends: Vec<i64> = ends.into_iter().filter(|end| *end < until_ms).collect();
        let stories = [&once, &again].map(|history| {
            let story = Job::run(1, &rules, history, &ends, until_ms);
            (by_event_time(&story, history), flags_by_event_time(&story, history))
        });
        for driver in 0..5 {
            let of = |story: &Vec<(Told, i64)>| -> Vec<(Told, i64)> {
                story.iter().filter(|(event, _)| event.driver == driver).cloned().collect()
            };
            prop_assert_eq!(of(&stories[0].0), of(&stories[1].0));
        }
        prop_assert_eq!(&stories[0].1, &stories[1].1);
    }

    #[test]
    fn fixes_that_come_all_at_once_tell_what_they_would_have_told_in_time(
        fences in fences(), traces in proptest::collection::vec(trace(), 1..4), rules in rules(),
    ) {
        let rules = Rules { lateness_s: 0.0, silent_s: 1e9, ..rules };
        let order = |driver, status| {
            Record::Order(driver as u8, Some((status, Some(driver), TARGETS[0], TARGETS[1])))
        };
        let mut in_time = fences;
        in_time.extend((0..4).map(|driver| (30_000, order(driver, OrderStatus::Assigned))));
        let mut at_once = in_time.clone();
        for (driver, trace) in (0..).zip(&traces) {
            let mut event_ms = 30_000;
            for fix in trace {
                event_ms += fix.0 * TICK_MS;
                in_time.push(report(driver, event_ms, event_ms, fix));
                at_once.push(report(driver, 1_000_000, event_ms, fix));
            }
            // A last fix after all deadlines: those still open when the fixes end are the
            // clock's, which knows only that the fixes came together.
            let last = (0, trace.last().map_or(TARGETS[2], |fix| fix.1), None);
            event_ms += 100_000;
            in_time.push(report(driver, event_ms, event_ms, &last));
            at_once.push(report(driver, 1_000_000, event_ms, &last));
        }
        merge(&mut in_time);
        merge(&mut at_once);
        for driver in 0..traces.len() as u64 {
            // All but when it stands in the merged order.
            let of = |history: &Vec<Timed>| -> Vec<(Told, i64)> {
                let story = Job::run(1, &rules, history, &[], 2_000_000);
                let mut told = by_event_time(&story, history);
                told.retain(|(event, _)| event.driver == driver);
                told.iter_mut().for_each(|(event, _)| event.at_ms = 0);
                told
            };
            prop_assert_eq!(of(&in_time), of(&at_once));
        }
    }
}

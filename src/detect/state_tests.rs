//! Exports and imports: a job that is put together from its parts again and again tells what
//! one that never stopped tells; and the format, byte by byte.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};

use super::drivers::{Fix, Held};
use super::flags::Spot;
use super::legs::{LegState, OrderLegs};
use super::near::Near;
use super::oracle_tests::{Job, end_of, fence, history, order, rules};
use super::oracle_world::{Record, Timed};
use super::orders::{Open, State};
use super::sessions::Session;
use super::silence::Silence;
use super::state::VisitState;
use super::stay::Stay;
use super::timers::Begun;
use super::{Detector, DriverState, OrderBook, OrderState, Outputs, Rules, SessionsState};
use crate::model::{
    DriverId, FenceChange, FenceId, Input, Leg, OrderId, OrderStatus, Place, Position, Sequence,
    Source, Stop, Update,
};

const GROUPS: u64 = 3;

fn group_of_driver(driver: DriverId) -> usize {
    (driver.0 % GROUPS) as usize
}

fn group_of_order(order: &OrderId) -> usize {
    order.0.bytes().map(u64::from).sum::<u64>() as usize % GROUPS as usize
}

/// What happens after an epoch.
#[derive(Clone, Debug)]
enum Then {
    GoOn,
    /// All is saved, the groups of the mask whole.
    Save(u8),
    /// All is saved, and another job with so many workers goes on from it.
    Restart(u8, usize),
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![
        3 => Just(Then::GoOn),
        3 => (0..1u8 << GROUPS).prop_map(Then::Save),
        3 => (0..1u8 << GROUPS, 1..4usize).prop_map(|(mask, count)| Then::Restart(mask, count)),
    ]
}

/// The parts by group, one after the other: the last whole one, and all after it.
#[derive(Default)]
struct Store {
    drivers: [Vec<u8>; GROUPS as usize],
    sessions: [Vec<u8>; GROUPS as usize],
    orders: [Vec<u8>; GROUPS as usize],
}

fn add(bytes: &mut Vec<u8>, entry: &impl Serialize) {
    *bytes = postcard::to_extend(entry, std::mem::take(bytes)).unwrap();
}

fn entries<T: for<'de> Deserialize<'de>>(bytes: &[u8], mut visit: impl FnMut(T)) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let entry;
        (entry, rest) = postcard::take_from_bytes(rest).unwrap();
        visit(entry);
    }
}

impl Store {
    fn save_drivers(&mut self, mask: u8, detectors: &mut [Detector]) {
        let whole = |group: usize| mask & 1 << group != 0;
        let groups = self.drivers.iter_mut().enumerate();
        let groups = groups.chain(self.sessions.iter_mut().enumerate());
        (groups.filter(|(group, _)| whole(*group))).for_each(|(_, bytes)| bytes.clear());
        for detector in detectors {
            detector.export(
                |driver| whole(group_of_driver(driver)),
                |state, sessions| {
                    let group = group_of_driver(state.driver());
                    add(&mut self.drivers[group], state);
                    if let Some(sessions) = sessions {
                        assert_eq!(sessions.driver(), state.driver());
                        add(&mut self.sessions[group], sessions);
                    }
                },
            );
        }
    }

    fn save_orders(&mut self, mask: u8, books: &mut [OrderBook]) {
        let whole = |group: usize| mask & 1 << group != 0;
        let groups = self.orders.iter_mut().enumerate();
        (groups.filter(|(group, _)| whole(*group))).for_each(|(_, bytes)| bytes.clear());
        for book in books {
            book.export(
                |order| whole(group_of_order(order)),
                |state| add(&mut self.orders[group_of_order(state.order())], state),
            );
        }
    }

    fn load_drivers(&self, detectors: &mut [Detector]) {
        let count = detectors.len();
        for bytes in &self.drivers {
            entries(bytes, |state: DriverState| {
                detectors[state.driver().0 as usize % count].import(state);
            });
        }
        for bytes in &self.sessions {
            entries(bytes, |state: SessionsState| {
                detectors[state.driver().0 as usize % count].import_sessions(state);
            });
        }
    }

    /// Orders go to the books as [`Job`] has it.
    fn load_orders(&self, books: &mut [OrderBook]) {
        let count = books.len();
        for bytes in &self.orders {
            entries(bytes, |state: OrderState| {
                let number: usize = state.order().0[1..].parse().unwrap();
                books[number % count].import(state);
            });
        }
    }
}

/// Puts those fences in force that are so after a history, the last first.
fn put_fences(history: &[Timed], detectors: &mut [Detector]) {
    let mut fences = BTreeMap::new();
    for (offset, (at_ms, record)) in (0..).zip(history) {
        if let Record::Fence(id, version) = record {
            fences.insert(id, (*at_ms, offset, version));
        }
    }
    for (id, (at_ms, offset, version)) in fences.into_iter().rev() {
        let Some((shape, dwell_s)) = *version else {
            continue;
        };
        let id = FenceId(format!("f{id}").into());
        let change = FenceChange {
            place: place(Input::Geofences, at_ms, offset),
            id: id.clone(),
            fence: Some(fence(id, shape, dwell_s)),
        };
        for detector in &mut *detectors {
            let mut out = Outputs::default();
            detector.on_fence(change.clone(), at_ms + 1, &mut out);
            assert!(out.events.is_empty() && out.judged.is_empty());
        }
    }
}

fn place(input: Input, at_ms: i64, offset: i64) -> Place {
    let partition = 0;
    let source = Source {
        input,
        partition,
        offset,
    };
    Place { at_ms, source }
}

/// All drivers' states, which neither shows nor changes what an export would show.
fn drivers_of(detectors: &[Detector]) -> BTreeMap<u64, DriverState<'static>> {
    let mut store = Store::default();
    store.save_drivers(u8::MAX, &mut detectors.to_vec());
    let mut states = BTreeMap::new();
    for bytes in &store.drivers {
        entries(bytes, |mut state: DriverState| {
            state.visits.to_mut().sort_by(|a, b| a.fence.cmp(&b.fence));
            assert!(states.insert(state.driver.0, state).is_none());
        });
    }
    states
}

/// All drivers' sessions.
fn sessions_of(detectors: &[Detector]) -> BTreeMap<u64, Vec<Session>> {
    let mut store = Store::default();
    store.save_drivers(u8::MAX, &mut detectors.to_vec());
    let mut sessions = BTreeMap::new();
    for bytes in &store.sessions {
        entries(bytes, |state: SessionsState| {
            let driver = state.driver().0;
            assert!(
                sessions
                    .insert(driver, state.sessions.into_owned())
                    .is_none()
            );
        });
    }
    sessions
}

fn orders_of(books: &[OrderBook]) -> BTreeMap<OrderId, State> {
    let orders = books.iter().flat_map(|book| &book.orders);
    orders
        .map(|(order, kept)| (order.clone(), kept.state.clone()))
        .collect()
}

/// What is made anew is as it must be.
fn check_derived(detector: &Detector) {
    let mut visitors: BTreeMap<u32, usize> = BTreeMap::new();
    for driver in &detector.drivers.records {
        assert!(driver.visits.is_sorted_by(|a, b| a.slot < b.slot));
        for visit in &driver.visits {
            *visitors.entry(visit.slot).or_default() += 1;
        }
        let release = driver.next_release().map(|place| place.at_ms);
        assert!(release.is_none_or(|at_ms| driver.wake_ms <= at_ms));
        assert!(driver.wake_ms <= driver.first_deadline(&detector.spans));
        assert!(driver.wake_event_ms <= driver.first_event_deadline(&detector.spans));
    }
    let mut fences = 0;
    for (slot, fence) in (0..64).filter_map(|slot| Some((slot, detector.fences.get(slot)?))) {
        assert_eq!(fence.visitors, visitors.remove(&slot).unwrap_or_default());
        fences += 1;
    }
    assert_eq!(fences, detector.fence_count());
    assert!(visitors.is_empty(), "{visitors:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_job_made_of_its_parts_tells_what_one_that_never_stopped_tells(
        history in history(120), rules in rules(),
        ends in proptest::collection::vec((0..240_000i64, then()), 0..60),
        count in 1..4usize,
    ) {
        let until_ms = end_of(&history);
        let mut ends: Vec<(i64, Then)> =
            ends.into_iter().filter(|(end, _)| *end < until_ms).collect();
        ends.sort_by_key(|(end, _)| *end);
        let (ends, plan): (Vec<i64>, Vec<Then>) = ends.into_iter().unzip();
        let undisturbed = Job::new(count, &rules).run_with(&history, &ends, until_ms, |_, _| {});
        let mut store = Store::default();
        let mut plan = plan.into_iter();
        let chain = Job::new(count, &rules).run_with(&history, &ends, until_ms, |job, taken| {
            let (mask, restart) = match plan.next().unwrap_or(Then::GoOn) {
                Then::GoOn => return,
                Then::Save(mask) => (mask, None),
                Then::Restart(mask, count) => (mask, Some(count)),
            };
            store.save_drivers(mask, &mut job.detectors);
            store.save_orders(mask, &mut job.books);
            let Some(count) = restart else {
                return;
            };
            let mut fresh = Job::new(count, &rules);
            put_fences(&history[..taken], &mut fresh.detectors);
            store.load_drivers(&mut fresh.detectors);
            store.load_orders(&mut fresh.books);
            assert_eq!(drivers_of(&fresh.detectors), drivers_of(&job.detectors));
            assert_eq!(sessions_of(&fresh.detectors), sessions_of(&job.detectors));
            assert_eq!(orders_of(&fresh.books), orders_of(&job.books));
            fresh.detectors.iter().for_each(check_derived);
            *job = fresh;
        });
        for (number, (got, expected)) in chain.0.iter().zip(&undisturbed.0).enumerate() {
            prop_assert_eq!(got, expected, "event {}", number);
        }
        prop_assert_eq!(chain.0.len(), undisturbed.0.len());
        prop_assert_eq!(&chain.1, &undisturbed.1);
        prop_assert_eq!(chain.2, undisturbed.2);
    }

    #[test]
    fn a_book_made_of_its_parts_makes_the_steps_of_one_that_never_closed(
        history in history(300),
        plan in proptest::collection::vec(then(), 1..60),
    ) {
        let (mut book, mut books) = (OrderBook::new(), vec![OrderBook::new()]);
        let mut store = Store::default();
        let mut plan = plan.into_iter().cycle();
        for (offset, (at_ms, record)) in (0..).zip(&history) {
            let Record::Order(id, version) = record else {
                continue;
            };
            let change = order(place(Input::Orders, *at_ms, offset), *id, *version);
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            book.apply(change.clone(), &mut expected);
            let owner = *id as usize % books.len();
            books[owner].apply(change, &mut got);
            prop_assert_eq!(got, expected);
            match plan.next().unwrap_or(Then::GoOn) {
                Then::GoOn => {}
                Then::Save(mask) => store.save_orders(mask, &mut books),
                Then::Restart(mask, count) => {
                    store.save_orders(mask, &mut books);
                    let before = orders_of(&books);
                    books = vec![OrderBook::new(); count];
                    store.load_orders(&mut books);
                    prop_assert_eq!(orders_of(&books), before);
                }
            }
        }
        let known: usize = books.iter().map(OrderBook::len).sum();
        prop_assert_eq!(known, book.len());
    }
}

/// What the restarts above are worth: all that a state can have is in some of them.
#[test]
fn random_jobs_are_restarted_in_every_state() {
    let mut runner = TestRunner::deterministic();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..100 {
        let history = history(120).new_tree(&mut runner).unwrap().current();
        let rules = rules().new_tree(&mut runner).unwrap().current();
        let ends: Vec<i64> = (1..60).map(|n| n * 4000).collect();
        let job = Job::new(1, &rules);
        job.run_with(&history, &ends, end_of(&history), |job, _| {
            let mut count = |what, found| *counts.entry(what).or_default() += usize::from(found);
            for state in drivers_of(&job.detectors).values() {
                let legs = || state.orders.iter().flat_map(|order| &order.legs);
                count("no fix", state.last.is_none());
                count("previous", state.previous.is_some());
                count("teleport", state.teleport.is_some());
                count("held", state.held.len() > 1);
                count("visit", state.visits.iter().any(|visit| !visit.dwelled));
                count("dwelled", state.visits.iter().any(|visit| visit.dwelled));
                count("near", legs().any(|leg| leg.near == Near::Told));
                count("within", legs().any(|leg| leg.stay.pending().is_some()));
                count(
                    "arrived",
                    legs().any(|l| matches!(l.stay, Stay::Arrived(_))),
                );
                count("departed", legs().any(|leg| leg.stay == Stay::Departed));
                count("closed", state.orders.iter().any(|o| o.open.is_none()));
                count("silent", state.silence.counts_from().is_none());
            }
            for sessions in sessions_of(&job.detectors).values() {
                count("one session", sessions.len() == 1);
                count("all sessions", sessions.len() == 4);
            }
            for state in orders_of(&job.books).values() {
                count("ended", *state == State::Ended);
                count("open", *state != State::Ended);
            }
        });
    }
    assert_eq!(counts.len(), 16);
    assert!(counts.values().all(|count| *count >= 20), "{counts:?}");
}

fn update(driver: u64, at_ms: i64, longitude: f64) -> Update {
    Update {
        place: place(Input::Updates, at_ms, at_ms),
        driver: DriverId(driver),
        position: Position {
            longitude,
            latitude: 0.5,
        },
        event_time_ms: at_ms - 3,
        received_at_ms: at_ms - 2,
        accuracy_m: Some(8.0),
        speed_mps: None,
        heading_deg: Some(90.0),
        state: Some("busy".into()),
    }
}

/// Whom an export shows, by number.
fn shown(detector: &mut Detector, whole: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut shown = Vec::new();
    detector.export(
        |driver| whole(driver.0),
        |state, _| shown.push(state.driver().0),
    );
    shown
}

#[test]
fn an_export_shows_what_changed_and_what_is_whole() {
    let mut detector = Detector::new(Rules::default());
    let mut out = Outputs::default();
    for driver in 0..4 {
        detector.on_update(update(driver, 10, 10.0 * driver as f64), 100, &mut out);
    }
    assert_eq!(shown(&mut detector, |_| false), [0, 1, 2, 3]);
    assert_eq!(shown(&mut detector, |_| false), [0; 0]);
    assert_eq!(shown(&mut detector, |driver| driver > 2), [3]);
    // Even if it is of no consequence but that the driver was heard.
    detector.on_update(update(1, 10, 10.0), 100, &mut out);
    assert_eq!(shown(&mut detector, |driver| driver > 2), [1, 3]);
    // A fence shows whoever it changes something for, and so does its dwell.
    let id = FenceId("f".into());
    let center = Position {
        longitude: 20.0,
        latitude: 0.5,
    };
    let radius_m = 100.0;
    let mut disc = fence(
        id.clone(),
        super::oracle_world::Shape::Disc((0.0, 0.0), radius_m, 0.0),
        Some(1.0),
    );
    disc.geometry = crate::model::Geometry::Circle { center, radius_m };
    let change = |at_ms, fence| FenceChange {
        place: place(Input::Geofences, at_ms, 0),
        id: id.clone(),
        fence,
    };
    detector.on_fence(change(200, Some(disc.clone())), 300, &mut out);
    assert_eq!(shown(&mut detector, |_| false), [2]);
    detector.end_epoch(1000, &mut out);
    assert_eq!(shown(&mut detector, |_| false), [0; 0]);
    detector.end_epoch(2000, &mut out);
    assert_eq!(shown(&mut detector, |_| false), [2]);
    detector.on_fence(change(2200, Some(disc)), 2300, &mut out);
    assert_eq!(shown(&mut detector, |_| false), [0; 0]);
    detector.on_fence(change(2300, None), 2400, &mut out);
    assert_eq!(shown(&mut detector, |_| false), [2]);
    // What is put in counts as exported.
    let state = drivers_of(&[detector.clone()]).remove(&2).unwrap();
    let mut other = Detector::new(Rules::default());
    other.import(state);
    assert_eq!(shown(&mut other, |_| false), [0; 0]);
    assert_eq!(shown(&mut other, |_| true), [2]);
}

/// Whose sessions an export shows, by number.
fn shown_sessions(detector: &mut Detector, whole: bool) -> Vec<u64> {
    let mut shown = Vec::new();
    detector.export(
        |_| whole,
        |_, sessions| shown.extend(sessions.map(|sessions| sessions.driver().0)),
    );
    shown
}

#[test]
fn sessions_are_exported_with_their_driver_and_outlast_what_is_imported_of_it() {
    let mut detector = Detector::new(Rules::default());
    let mut out = Outputs::default();
    let sequence = |number| Sequence { session: 9, number };
    detector.on_update(update(1, 10, 1.0), 100, &mut out);
    detector.on_numbered_update(update(2, 10, 1.0), sequence(3), 100, &mut out);
    assert_eq!(shown_sessions(&mut detector, false), [2]);
    assert_eq!(shown_sessions(&mut detector, false), [0; 0]);
    assert_eq!(shown_sessions(&mut detector, true), [2]);
    // A resend is a use of its session, and of no other consequence.
    let before = drivers_of(&[detector.clone()]);
    out = Outputs::default();
    detector.on_numbered_update(update(2, 90_000, 2.0), sequence(3), 90_001, &mut out);
    assert_eq!((out.resent, out.judged.len(), out.events.len()), (1, 0, 0));
    assert_eq!(drivers_of(&[detector.clone()]), before);
    assert_eq!(shown_sessions(&mut detector, false), [2]);
    // In either order.
    let mut store = Store::default();
    store.save_drivers(u8::MAX, &mut [detector]);
    let mut other = Detector::new(Rules::default());
    let mut others = [other.clone()];
    store.load_drivers(&mut others);
    let expected = sessions_of(&others);
    assert_eq!(expected[&2].len(), 1);
    for bytes in &store.sessions {
        entries(bytes, |state: SessionsState| other.import_sessions(state));
    }
    for bytes in &store.drivers {
        entries(bytes, |state: DriverState| other.import(state));
    }
    assert_eq!(sessions_of(&[other.clone()]), expected);
    assert_eq!(drivers_of(&[other]), drivers_of(&others));
}

#[test]
fn a_removal_is_told_once_and_only_of_what_was_exported() {
    let mut book = OrderBook::new();
    let stop = (0.0, 0.0);
    let placed = Some((OrderStatus::Placed, None, stop, stop));
    let steps = &mut Vec::new();
    let mut apply = |book: &mut OrderBook, id, version| {
        book.apply(order(place(Input::Orders, 1, 1), id, version), steps);
    };
    let shown = |book: &mut OrderBook, all: bool| {
        let mut shown = Vec::new();
        let short = |state: &OrderState| format!("{} {}", state.order.0, state.state.is_some());
        book.export(|_| all, |state| shown.push(short(state)));
        shown
    };
    // Never exported: nothing to tell, and nothing kept.
    apply(&mut book, 1, placed);
    apply(&mut book, 1, None);
    assert!(book.removed.is_empty());
    assert_eq!(shown(&mut book, true), [""; 0]);
    // Exported, then removed.
    apply(&mut book, 1, placed);
    assert_eq!(shown(&mut book, false), ["o1 true"]);
    assert_eq!(shown(&mut book, false), [""; 0]);
    assert_eq!(shown(&mut book, true), ["o1 true"]);
    apply(&mut book, 1, None);
    assert_eq!(shown(&mut book, false), ["o1 false"]);
    assert_eq!(shown(&mut book, true), [""; 0]);
    // Removed, there again, and both once more, between two exports.
    apply(&mut book, 1, placed);
    assert_eq!(shown(&mut book, false), ["o1 true"]);
    apply(&mut book, 1, placed);
    for version in [None, placed, None, placed] {
        apply(&mut book, 1, version);
    }
    assert_eq!(shown(&mut book, false), ["o1 false", "o1 true"]);
    // What is put in is in a snapshot, so its removal must be told.
    let order = OrderId("o2".into());
    book.import(OrderState {
        order: Cow::Owned(order),
        state: Some(Cow::Owned(State::Ended)),
    });
    assert_eq!(shown(&mut book, false), [""; 0]);
    apply(&mut book, 2, None);
    assert_eq!(shown(&mut book, false), ["o2 false"]);
}

#[test]
fn a_visit_of_a_fence_that_is_not_in_force_is_dropped() {
    let mut detector = Detector::new(Rules::default());
    detector.import(a_driver());
    assert!(drivers_of(&[detector.clone()])[&300].visits.is_empty());
    check_derived(&detector);
}

fn begun(at_ms: i64) -> Begun {
    Begun {
        place: place(Input::Updates, at_ms, 70),
        event_time_ms: at_ms - 1,
    }
}

fn spot(longitude: f64) -> Position {
    let latitude = -0.5;
    Position {
        longitude,
        latitude,
    }
}

/// A driver with something of everything.
fn a_driver() -> DriverState<'static> {
    let mut silence = Silence::default();
    silence.hear(begun(1_790_000_000_000));
    silence.follow(true, begun(64));
    silence.tell();
    let visit = |id: &str, dwelled| VisitState {
        fence: Cow::Owned(FenceId(id.into())),
        begun: begun(1000),
        dwelled,
    };
    let leg = |leg, near, stay| LegState {
        leg,
        stop: Stop {
            position: spot(1.0),
            place: Some("p".into()),
        },
        near,
        stay,
    };
    let legs = vec![
        leg(Leg::Pickup, Near::Armed, Stay::Away),
        leg(Leg::Pickup, Near::Told, Stay::Within(begun(1))),
        leg(Leg::Dropoff, Near::Told, Stay::Arrived(begun(2))),
        leg(Leg::Dropoff, Near::Told, Stay::Departed),
    ];
    let update = update(300, 9, 1.0);
    let mut held = VecDeque::new();
    held.push_back(Held {
        place: place(Input::Updates, 12, 9),
        update,
    });
    DriverState {
        driver: DriverId(300),
        last: Some(Fix {
            position: spot(1.0),
            event_time_ms: 1_790_000_000_000,
            speed_mps: Some(2.0),
        }),
        previous: Some(Spot {
            position: spot(2.0),
            event_time_ms: 1_789_999_999_000,
        }),
        teleport: Some(Spot {
            position: spot(4.0),
            event_time_ms: -1,
        }),
        silence: Cow::Owned(silence),
        visits: Cow::Owned(vec![visit("f", false), visit("g", true)]),
        orders: Cow::Owned(vec![OrderLegs {
            order: OrderId("o".into()),
            status: OrderStatus::PickedUp,
            legs,
            open: Some(2),
        }]),
        held: Cow::Owned(held),
    }
}

fn hex(entry: &impl Serialize) -> String {
    let bytes = postcard::to_stdvec(entry).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// If this fails, snapshots that were written before can no longer be read. Then their
/// format's version must be raised, so that a start refuses them; and the bytes here be
/// replaced.
#[test]
fn the_format_is_what_it_was() {
    let driver = a_driver();
    let expected = [
        "ac02",
        // The last fix, the one before, the teleport.
        "01 000000000000f03f 000000000000e0bf 80b083c59868 01 00000040",
        "01 0000000000000040 000000000000e0bf b0a083c59868",
        "01 0000000000001040 000000000000e0bf 01",
        // Heard, with an order open since, and silence told.
        "01 80b083c59868 02 00 8c01 feaf83c59868",
        "01 8001 02 00 8c01 7e",
        "01",
        // Two visits.
        "02",
        "0166 d00f 02 00 8c01 ce0f 00",
        "0167 d00f 02 00 8c01 ce0f 01",
        // One order, its four legs, the third of them open.
        "01 016f 02 04",
        "00 000000000000f03f 000000000000e0bf 01 0170 00 00",
        "00 000000000000f03f 000000000000e0bf 01 0170 01 01 02 02 00 8c01 00",
        "01 000000000000f03f 000000000000e0bf 01 0170 01 02 04 02 00 8c01 02",
        "01 000000000000f03f 000000000000e0bf 01 0170 01 03",
        "01 02",
        // One update that waits.
        "01 18 02 00 12 12 02 00 12 ac02 000000000000f03f 000000000000e03f 0c 0e",
        "01 00000041 00 01 0000b442 01 04 62757379",
    ];
    let expected = expected.concat().replace(' ', "");
    assert_eq!(hex(&driver), expected);
    let bytes = postcard::to_stdvec(&driver).unwrap();
    assert_eq!(postcard::from_bytes::<DriverState>(&bytes).unwrap(), driver);

    let session = |partition, session, number| Session {
        partition,
        session,
        number,
    };
    let sessions = SessionsState {
        driver: DriverId(300),
        sessions: Cow::Owned(vec![session(1, u64::MAX, 300), session(0, 2, 1)]),
    };
    let expected = "ac02 02 02 ffffffffffffffffff01 ac02 00 02 01".replace(' ', "");
    assert_eq!(hex(&sessions), expected);
    let bytes = postcard::to_stdvec(&sessions).unwrap();
    let read: SessionsState = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, sessions);

    let stop = |longitude| Stop {
        position: spot(longitude),
        place: None,
    };
    let open = State::Open(Box::new(Open {
        status: OrderStatus::Assigned,
        driver: Some(DriverId(300)),
        pickup: stop(1.0),
        dropoff: stop(2.0),
        drivers: vec![DriverId(5), DriverId(300)],
    }));
    for (state, expected) in [
        (
            Some(open),
            // Status, driver, pickup, drop-off, drivers.
            "016f 01 00 01 01ac02 000000000000f03f 000000000000e0bf 00 \
             0000000000000040 000000000000e0bf 00 02 05 ac02",
        ),
        (Some(State::Ended), "016f 01 01"),
        (None, "016f 00"),
    ] {
        let state = OrderState {
            order: Cow::Owned(OrderId("o".into())),
            state: state.map(Cow::Owned),
        };
        assert_eq!(hex(&state), expected.replace(' ', ""));
        let bytes = postcard::to_stdvec(&state).unwrap();
        assert_eq!(postcard::from_bytes::<OrderState>(&bytes).unwrap(), state);
    }
}

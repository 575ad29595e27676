//! Is the join of orders with drivers' updates cheaper by hand, or in differential dataflow?
//!
//! Density of the input: 100,000 drivers at one update per second of event time in epochs of
//! 10,000 updates, 20,000 open orders on as many drivers, 20 of them (1 in 1,000) changing per
//! epoch, for 200 epochs: 2,000,000 updates, 1 in 50 near its order. Figures are CPU time of the
//! one worker, from input in memory to matches counted, once everyone is known. In each round:
//!
//! - by hand: a hash map from driver to open legs, looked up per update, as `detect` does;
//! - latest: a join of two arrangements; the input retracts the driver's update before;
//! - passing: the same, but the input retracts an update in the next epoch, so few are kept.
//!
//! Run with `cargo bench --bench join`.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use differential_dataflow::AsCollection;
use hashbrown::HashMap;
use timely::dataflow::operators::{Input, Inspect, Probe, generic::Operator, probe::Handle};
use timely::dataflow::{InputHandle, StreamVec};
use timely::{container::CapacityContainerBuilder, dataflow::channels::pact::Exchange};

const PER_EPOCH: usize = 10_000;
const TURNS: usize = 10; // epochs in which each driver is heard once
const ORDERS: u32 = 20_000;
const CHANGED: u32 = ORDERS / 1_000;
const WARM_UP: u32 = 2 * TURNS as u32;
const EPOCHS: u32 = 200;
const NEAR_M: i32 = 200;

/// Metres on a plane, and the epoch in which a driver was there.
type Fix = ((i32, i32), u32);
/// Its number, and where it goes to, in metres.
type Leg = (u32, (i32, i32));
/// What is so of a driver, from which epoch on, and whether it begins (1) or ends (−1).
type Change<V> = ((u32, V), u64, isize);
/// Order, driver, and the fix that is near.
type Match = ((u32, u32, Fix), u64, isize);
type Changes<'scope, V> = StreamVec<'scope, u64, Change<V>>;
type Join = for<'s> fn(Changes<'s, Leg>, Changes<'s, Fix>) -> StreamVec<'s, u64, Match>;

/// Chance, much as SplitMix64 has it: the same every time.
fn chance(driver: u32, salt: u32) -> u64 {
    let mut z = (u64::from(driver) << 32 | u64::from(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

/// A place in the driver's square kilometre.
fn spot(driver: u32, salt: u32) -> (i32, i32) {
    let chance = chance(driver, salt);
    (chance as i32 & 0x3ff, (chance >> 24) as i32 & 0x3ff)
}

fn near(driver: u32, leg: &Leg, fix: &Fix) -> Option<(u32, u32, Fix)> {
    let (dx, dy) = (leg.1.0 - fix.0.0, leg.1.1 - fix.0.1);
    (dx * dx + dy * dy < NEAR_M * NEAR_M).then_some((leg.0, driver, *fix))
}

/// What happens to orders in an epoch: all open in the first, then some change drivers.
fn legs(epoch: u32) -> Vec<Change<Leg>> {
    let leg = |order: u32, version: u32, diff| {
        let driver = order * 5 + version;
        let leg = (order, spot(driver, u32::MAX));
        ((driver, leg), u64::from(epoch), diff)
    };
    let Some(before) = epoch.checked_sub(1) else {
        return (0..ORDERS).map(|order| leg(order, 0, 1)).collect();
    };
    let changed = (before * CHANGED..epoch * CHANGED).map(|order| order * 7_919 % ORDERS);
    let moved = |order| [leg(order, 0, -1), leg(order, 1, 1)];
    changed.flat_map(moved).collect()
}

/// An epoch's updates, and the end of those that were `age` epochs before.
fn fixes(drivers: &[u32], epoch: u32, age: Option<u32>) -> Vec<Change<Fix>> {
    let heard = |of: u32, diff| {
        let turn = drivers.chunks(PER_EPOCH).nth(of as usize % TURNS);
        let fix = move |&driver| ((driver, (spot(driver, of), of)), u64::from(epoch), diff);
        turn.into_iter().flatten().map(fix)
    };
    let past = age.and_then(|age| epoch.checked_sub(age));
    let ended = past.map(|past| heard(past, -1)).into_iter().flatten();
    ended.chain(heard(epoch, 1)).collect()
}

/// Judges an epoch's updates when it is complete, after its changes to legs.
fn by_hand<'s>(legs: Changes<'s, Leg>, fixes: Changes<'s, Fix>) -> StreamVec<'s, u64, Match> {
    legs.binary_frontier::<_, CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
        fixes,
        Exchange::new(|((driver, _), ..): &Change<Leg>| u64::from(*driver)),
        Exchange::new(|((driver, _), ..): &Change<Fix>| u64::from(*driver)),
        "by_hand",
        |_, _| {
            let (mut changes, mut waiting) = (Vec::new(), BTreeMap::new());
            let mut open: HashMap<u32, Vec<Leg>> = HashMap::new();
            move |(legs, legs_frontier), (fixes, fixes_frontier), output| {
                legs.for_each(|_, data| changes.append(data));
                fixes.for_each(|capability, data| {
                    let new = (capability.retain_least(0).expect("an epoch"), vec![]);
                    let entry = waiting.entry(*new.0.time()).or_insert(new);
                    entry.1.push(std::mem::take(data));
                });
                while let Some(entry) = waiting.first_entry()
                    && !legs_frontier.less_equal(entry.key())
                    && !fixes_frontier.less_equal(entry.key())
                {
                    let (at, (capability, fixes)) = entry.remove_entry();
                    for ((driver, leg), _, diff) in changes.extract_if(.., |leg| leg.1 <= at) {
                        let legs = open.entry(driver).or_default();
                        legs.retain(|open| *open != leg);
                        if diff > 0 {
                            legs.push(leg);
                        }
                        if legs.is_empty() {
                            open.remove(&driver);
                        }
                    }
                    let mut session = output.session(&capability);
                    for ((driver, fix), ..) in fixes.iter().flatten() {
                        let legs = open.get(driver).into_iter().flatten();
                        let found = |leg| Some((near(*driver, leg, fix)?, at, 1));
                        session.give_iterator(legs.filter_map(found));
                    }
                }
            }
        },
    )
}

fn differential<'s>(legs: Changes<'s, Leg>, fixes: Changes<'s, Fix>) -> StreamVec<'s, u64, Match> {
    let fixes = fixes.as_collection().arrange_by_key();
    let legs = legs.as_collection().arrange_by_key();
    let found = legs.join_core(fixes, |driver, leg, fix| near(*driver, leg, fix));
    found.inner
}

/// CPU time of this thread, ns; the kernel brings its account up to date when one yields.
fn cpu_ns() -> u64 {
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this runs on Linux");
    let (ns, _) = stat.split_once(' ').expect("it has three fields");
    ns.parse().expect("the first is a number")
}

/// Runs a join: CPU ns per update, and how many matches there were.
fn run(join: Join, age: Option<u32>) -> (f64, isize) {
    let mut drivers: Vec<u32> = (0..(TURNS * PER_EPOCH) as u32).collect();
    drivers.sort_unstable_by_key(|driver| chance(*driver, 0));
    let input = |epoch| (legs(epoch), fixes(&drivers, epoch, age));
    let mut epochs: Vec<_> = (0..EPOCHS + WARM_UP).map(input).collect();
    timely::execute_directly(move |worker| {
        let found = Rc::new(Cell::new(0));
        let (counted, done) = (Rc::clone(&found), Handle::new());
        let (mut legs, mut fixes) = (InputHandle::new(), InputHandle::new());
        worker.dataflow::<u64, _, _>(|scope| {
            join(scope.input_from(&mut legs), scope.input_from(&mut fixes))
                // What an update matches in its own epoch: not its end, nor a later order's.
                .inspect(move |((_, _, (_, heard)), at, diff)| {
                    let own = isize::from(u64::from(*heard) == *at);
                    counted.set(counted.get() + own * diff);
                })
                .probe_with(&done);
        });
        let mut began = 0;
        for ((new_legs, new_fixes), epoch) in epochs.iter_mut().zip(1..) {
            legs.send_batch(new_legs);
            fixes.send_batch(new_fixes);
            legs.advance_to(epoch);
            fixes.advance_to(epoch);
            while done.less_than(&epoch) {
                worker.step();
            }
            if epoch == u64::from(WARM_UP) {
                found.set(0);
                began = cpu_ns();
            }
        }
        let spent = (cpu_ns() - began) as f64;
        (spent / f64::from(EPOCHS) / PER_EPOCH as f64, found.get())
    })
}

fn main() {
    let joins: [(&str, Join, Option<u32>); 3] = [
        ("by hand", by_hand, None),
        ("latest", differential, Some(TURNS as u32)),
        ("passing", differential, Some(1)),
    ];
    for round in 1..=3 {
        let mut hand = None;
        for (name, join, age) in joins {
            let (ns, matches) = run(join, age);
            let (hand_ns, hand_matches) = *hand.get_or_insert((ns, matches));
            assert_eq!(matches, hand_matches, "{name} finds what is found by hand");
            let ratio = ns / hand_ns;
            println!("{round}, {name}: {ns:.0} ns per update, {ratio:.0} x; {matches} matches");
        }
    }
}

//! The comparison itself: it finds nothing where nothing is, and each planted fault.

use std::collections::BTreeMap;

use riderflow::epoch::{EpochRecord, OffsetRange};
use riderflow::model::{Epoch, Input};

use crate::compare::{Counts, Item, Outcome, Report, Told, compare};

fn item(group: &str, id: &str) -> Item {
    Item {
        group: group.into(),
        id: id.into(),
        content: format!("what {id} says"),
    }
}

fn range(input: Input, partition: i32, first: i64, next: i64) -> OffsetRange {
    OffsetRange {
        input,
        partition,
        first,
        next,
        latest_ms: 0,
    }
}

fn record(epoch: u64, ranges: Vec<OffsetRange>, events: u64, dead_letters: u64) -> EpochRecord {
    EpochRecord {
        epoch: Epoch(epoch),
        interval_ms: 100,
        now_ms: epoch as i64 * 100,
        generation: 1,
        run: 1,
        ranges,
        events,
        dead_letters,
        hash: 0,
        version: "test".into(),
        rules: 0,
    }
}

/// Three drivers' events, rows and dead letters, in two epochs.
fn outcome() -> Outcome {
    let (zero, one) = ((Input::Updates, 0), (Input::Updates, 1));
    let told = |partition, (input, part): (Input, i32), offset| Told {
        partition,
        cause: (input, part, offset),
    };
    Outcome {
        events: vec![
            item("0/7", "a"),
            item("0/7", "b"),
            item("0/8", "c"),
            item("0/7", "d"),
            item("1/9", "e"),
        ],
        told: vec![
            told(0, zero, 0),
            told(0, one, 0),
            told(0, zero, 2),
            told(1, one, 1),
        ],
        dead_letters: vec![
            item("orders/0", "x"),
            item("orders/0", "y"),
            item("orders/1", "z"),
        ],
        tables: BTreeMap::from([(
            "rows",
            vec![item("", "0/0"), item("", "0/1"), item("", "1/0")],
        )]),
        epochs: vec![
            record(4, vec![range(zero.0, 0, 0, 2), range(one.0, 1, 0, 1)], 3, 2),
            record(9, vec![range(zero.0, 0, 2, 3), range(one.0, 1, 1, 2)], 2, 1),
        ],
        ends: BTreeMap::from([(zero, 3), (one, 2)]),
    }
}

fn found(plant: impl Fn(&mut Outcome)) -> Report {
    let mut disturbed = outcome();
    plant(&mut disturbed);
    compare(&disturbed, &outcome())
}

/// What was found of one kind, when nothing was found of any other.
fn only(kind: &str, plant: impl Fn(&mut Outcome)) -> Counts {
    let report = found(plant);
    assert!(
        !report.is_clean() && !report.examples.is_empty(),
        "{report}"
    );
    let others = report.kinds.iter().filter(|(name, _)| **name != kind);
    for (name, counts) in others {
        let none = Counts {
            wanted: counts.wanted,
            ..Counts::default()
        };
        assert_eq!(*counts, none, "{name}");
    }
    Counts {
        wanted: 0,
        ..report.kinds[kind]
    }
}

fn counts(change: impl Fn(&mut Counts)) -> Counts {
    let mut counts = Counts::default();
    change(&mut counts);
    counts
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let report = found(|_| {});
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.sum(|counts| counts.wanted), 11);
}

#[test]
fn another_order_between_drivers_or_of_rows_is_no_fault() {
    let report = found(|it| {
        it.events.swap(1, 2);
        it.tables.get_mut("rows").expect("a table").reverse();
        it.dead_letters.rotate_right(1);
    });
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_loss_is_found() {
    let lost = counts(|it| it.lost = 1);
    assert_eq!(only("notifications", |it| drop(it.events.remove(1))), lost);
    assert_eq!(only("dead_letters", |it| drop(it.dead_letters.pop())), lost);
    let row = |it: &mut Outcome| drop(it.tables.get_mut("rows").expect("a table").remove(0));
    assert_eq!(only("rows", row), lost);
    let table = |it: &mut Outcome| it.tables.clear();
    assert_eq!(only("rows", table), counts(|it| it.lost = 3));
}

#[test]
fn a_duplicate_is_found() {
    let twice = counts(|it| it.duplicated = 1);
    let event = |it: &mut Outcome| it.events.push(it.events[0].clone());
    assert_eq!(only("notifications", event), twice);
    let letter = |it: &mut Outcome| it.dead_letters.insert(1, it.dead_letters[0].clone());
    assert_eq!(only("dead_letters", letter), twice);
    let row = |it: &mut Outcome| {
        let rows = it.tables.get_mut("rows").expect("a table");
        rows.push(rows[2].clone());
    };
    assert_eq!(only("rows", row), twice);
}

#[test]
fn a_swap_is_found() {
    let moved = counts(|it| it.misordered = 1);
    assert_eq!(only("notifications", |it| it.events.swap(1, 3)), moved);
    assert_eq!(only("dead_letters", |it| it.dead_letters.swap(0, 1)), moved);
    // Rows have no order: what two rows say is swapped.
    let row = |it: &mut Outcome| {
        let rows = it.tables.get_mut("rows").expect("a table");
        let content = std::mem::take(&mut rows[0].content);
        rows[0].content = std::mem::replace(&mut rows[1].content, content);
    };
    assert_eq!(only("rows", row), counts(|it| it.changed = 2));
}

#[test]
fn what_nobody_should_tell_and_what_says_something_else_is_found() {
    let event = |it: &mut Outcome| it.events.push(item("0/7", "f"));
    assert_eq!(only("notifications", event), counts(|it| it.invented = 1));
    let other = |it: &mut Outcome| it.events[0].content.push('!');
    assert_eq!(only("notifications", other), counts(|it| it.changed = 1));
    let partition = |it: &mut Outcome| it.events[4].group = "0/9".into();
    assert_eq!(
        only("notifications", partition),
        counts(|it| it.changed = 1)
    );
}

#[test]
fn a_fault_of_the_epoch_log_is_found() {
    let log = |plant: fn(&mut Outcome)| found(plant).log.join("; ");
    let gap = log(|it| it.epochs[1].ranges[0].first = 3);
    assert!(gap.contains("3..3 follows 2"), "{gap}");
    let overlap = log(|it| it.epochs[1].ranges[0].first = 1);
    assert!(overlap.contains("1..3 follows 2"), "{overlap}");
    let twice = log(|it| it.epochs.insert(1, it.epochs[0].clone()));
    assert!(twice.contains("epoch 4 stands behind"), "{twice}");
    let end = log(|it| drop(it.epochs.pop()));
    assert!(end.contains("ends at 2, not at 3"), "{end}");
    let missing = log(|it| {
        it.epochs[0].ranges.pop();
    });
    assert!(
        missing.contains("does not name every partition"),
        "{missing}"
    );
    let torn = log(|it| it.epochs[0].events = 2);
    assert!(torn.contains("4 events and 3 dead letters"), "{torn}");
    let order = log(|it| it.told.swap(1, 2));
    assert!(order.contains("an event of epoch 4"), "{order}");
}

use std::path::PathBuf;

use super::*;
use crate::epoch::OffsetRange;
use crate::snapshot::Taken;

const INTERVAL_MS: u64 = 100;
const NOW_MS: TimeMs = 1_000_000;
const AT: (Input, i32) = (Input::Updates, 0);

fn ids() -> [SnapshotId; 2] {
    [100, 200].map(|epoch| SnapshotId {
        epoch: Epoch(epoch),
        run: 1,
    })
}

fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().display().to_string(), "p").expect("a store")
}

fn position(next: i64) -> Position {
    Position {
        next,
        latest_ms: 100 * next,
    }
}

/// Two snapshots in a folder of their own, of epochs 100 and 200.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let mut before = None;
    for (sequence, id) in (0..).zip(ids()) {
        let taken = Taken {
            windows: String::new(),
            id,
            sequence,
            interval_ms: INTERVAL_MS,
            positions: [(AT, position(10 * (id.epoch.0 as i64 - 100)))].into(),
        };
        let written = store.write(&taken, before.as_ref(), Vec::new());
        before = Some(written.expect("written"));
    }
    folder
}

/// The log has epochs 101 to 210 of ten records each; Kafka holds all, and 50 more.
fn facts(folder: &tempfile::TempDir) -> Facts {
    let store = open(folder);
    let epochs = (101..=210).map(|number: u64| {
        let first = 10 * (number as i64 - 101);
        LogRecord::Epoch(EpochRecord {
            epoch: Epoch(number),
            interval_ms: INTERVAL_MS,
            now_ms: Epoch(number).now_ms(INTERVAL_MS),
            generation: 1,
            run: 1,
            ranges: vec![OffsetRange {
                input: AT.0,
                partition: AT.1,
                first,
                next: first + 10,
                latest_ms: 0,
            }],
            events: 0,
            dead_letters: 0,
            hash: 0,
            version: "test".into(),
            rules: 0,
        })
    });
    let listed = store.list_all().map_err(|error| error.to_string());
    let looks = ids().into_iter().rev();
    let looks = looks.map(|id| look(&store, &listed, id)).collect();
    Facts {
        at_ms: NOW_MS,
        jobs: Vec::new(),
        head: Some(Head {
            generation: 1,
            run: 1,
            snapshots: ids().to_vec(),
            stored: Epoch(208),
            version: "test".into(),
            reset: None,
        }),
        log: epochs.collect(),
        ends: Ends {
            first: [(AT, position(0))].into(),
            next: [(AT, 1_150)].into(),
        },
        kept_ms: [(Input::Updates, 2_000_000)].into(),
        group_offsets: BTreeMap::new(),
        snapshots: looks,
        store: listed,
        answers: Some(true),
    }
}

fn pipeline() -> Pipeline {
    Pipeline::defaults("p")
}

fn manifest_path(folder: &tempfile::TempDir, epoch: u64) -> PathBuf {
    let id = SnapshotId {
        epoch: Epoch(epoch),
        run: 1,
    };
    folder
        .path()
        .join("p")
        .join(id.to_string())
        .join("manifest")
}

#[test]
fn a_restart_reads_again_what_came_after_the_newest_snapshot() {
    let folder = folder();
    let survey = facts(&folder).survey(&pipeline());
    let restart = &survey.restart;
    assert!(restart.possible && survey.problems.is_empty(), "{survey:?}");
    assert_eq!(restart.snapshot_epoch, Some(Epoch(200)));
    assert_eq!((restart.epochs, restart.records), (10, 100));
    assert_eq!(restart.rows_from_epoch, None);
    assert_eq!(
        (restart.needs[0].from, restart.needs[0].margin),
        (1_000, 1_000)
    );
    // The newest record before it is of 100 s; it is kept for 2,000 s, and now is 1,000 s.
    assert_eq!(restart.needs[0].kept_for_s, Some(1_100.0));
    let input = &survey.inputs[0];
    assert_eq!((input.next, input.lag), (Some(1_100), 50));
}

#[test]
fn rows_behind_are_counted_from_the_first_epoch_that_is_not_stored() {
    let folder = folder();
    let clickhouse = facts(&folder).survey(&pipeline()).clickhouse;
    assert_eq!(
        (clickhouse.epochs_behind, clickhouse.records_behind),
        (2, 20)
    );
    assert_eq!(clickhouse.seconds_behind, 0.2);
}

#[test]
fn a_damaged_snapshot_is_passed_over() {
    let folder = folder();
    std::fs::write(manifest_path(&folder, 200), "?").expect("damaged");
    let survey = facts(&folder).survey(&pipeline());
    assert_eq!(survey.snapshots[0].readable, Readable::Damaged);
    let restart = &survey.restart;
    assert_eq!(
        (restart.possible, restart.snapshot_epoch),
        (true, Some(Epoch(100)))
    );
    assert_eq!((restart.epochs, restart.records), (110, 1_100));
    assert_eq!(survey.problems.len(), 1);
}

#[test]
fn a_restart_is_impossible_without_a_snapshot_or_what_came_after_it() {
    let folder = folder();
    let mut gone = facts(&folder);
    gone.ends.first.insert(
        AT,
        Position {
            next: 1_001,
            latest_ms: 0,
        },
    );
    let survey = gone.survey(&pipeline());
    assert!(!survey.restart.possible);
    assert_eq!(survey.restart.needs[0].margin, -1);
    assert!(
        survey.problems[0].contains("1 records were removed unread"),
        "{survey:?}"
    );

    let mut anew = facts(&folder);
    anew.ends.next.insert(AT, 5);
    assert!(
        !anew.survey(&pipeline()).restart.possible,
        "the topic was made anew"
    );

    std::fs::remove_dir_all(folder.path().join("p")).expect("removed");
    let survey = facts(&folder).survey(&pipeline());
    assert!(
        survey
            .snapshots
            .iter()
            .all(|it| it.readable == Readable::Missing)
    );
    assert!(!survey.restart.possible);
}

#[test]
fn rows_of_before_the_snapshot_take_an_older_one() {
    let folder = folder();
    let mut behind = facts(&folder);
    let stored = |facts: &mut Facts, epoch| {
        facts.head.as_mut().expect("a head").stored = Epoch(epoch);
    };
    stored(&mut behind, 150);
    let survey = behind.survey(&pipeline());
    assert_eq!(survey.restart.rows_from_epoch, Some(Epoch(100)));
    assert!(survey.restart.possible && survey.problems.is_empty());

    let mut lost = facts(&folder);
    stored(&mut lost, 50);
    let survey = lost.survey(&pipeline());
    assert!(survey.restart.possible, "events go on");
    assert!(
        survey.problems[0].contains("no snapshot from before"),
        "{survey:?}"
    );
}

//! The store against a model of the state, and against damage of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use twox_hash::XxHash3_64;

use super::*;
use crate::epoch::{Position, Positions, SnapshotId};
use crate::model::{Epoch, Input};

const NAME: &str = "alerts";
const RUN: u64 = 0xabc;

fn id(sequence: u64) -> SnapshotId {
    SnapshotId {
        epoch: Epoch(100 + 10 * sequence),
        run: RUN,
    }
}

fn positions() -> Positions {
    let at = |next| Position {
        next,
        latest_ms: 1_700_000_000_000 + next,
    };
    BTreeMap::from([
        ((Input::Geofences, 0), Position::default()),
        ((Input::Orders, 0), at(7)),
        ((Input::Updates, 0), at(1)),
        ((Input::Updates, 1), at(i64::MAX - 1_700_000_000_000)),
    ])
}

fn taken(sequence: u64) -> Taken {
    Taken {
        id: id(sequence),
        sequence,
        interval_ms: 100,
        windows: String::new(),
        positions: positions(),
    }
}

fn open(folder: &Path) -> Store {
    Store::open(folder.to_str().unwrap(), NAME).unwrap()
}

/// A keyed state as an operator has it, and what changed in it since the last export.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(Kind, u64), u64>,
    changed: BTreeSet<(Kind, u64)>,
}

/// A key, and what it has now: nothing if it was removed.
type Entry = (u64, Option<u64>);

const KINDS: [Kind; 3] = [Kind::Fences, Kind::Drivers, Kind::Cells];

impl Model {
    fn group(key: u64) -> u64 {
        key % KEY_GROUPS
    }

    fn set(&mut self, kind: Kind, key: u64, value: Option<u64>) {
        match value {
            Some(value) => self.entries.insert((kind, key), value),
            None => self.entries.remove(&(kind, key)),
        };
        self.changed.insert((kind, key));
    }

    fn export(&mut self, mark: Mark) -> Vec<Part> {
        let changed = std::mem::take(&mut self.changed);
        let mut all = Vec::new();
        for kind in KINDS {
            let mut parts = Parts::new(kind, mark);
            for (&(_, key), &value) in self.entries.range((kind, 0)..=(kind, u64::MAX)) {
                if mark.is_whole(Self::group(key)) {
                    let entry: Entry = (key, Some(value));
                    parts.add(Self::group(key), &entry);
                }
            }
            for &(_, key) in changed.range((kind, 0)..=(kind, u64::MAX)) {
                if !mark.is_whole(Self::group(key)) {
                    let entry: Entry = (key, self.entries.get(&(kind, key)).copied());
                    parts.add(Self::group(key), &entry);
                }
            }
            all.extend(parts.finish(|_| true));
        }
        // As from several workers.
        all.reverse();
        all
    }
}

fn restored(loaded: &Loaded) -> BTreeMap<(Kind, u64), u64> {
    let mut model = Model::default();
    for kind in KINDS {
        for group in 0..KEY_GROUPS {
            for (at, part) in loaded.parts(kind, group).enumerate() {
                assert!(at == 0 || !part.whole, "what a whole part replaces is gone");
                assert_eq!((part.kind, u64::from(part.group)), (kind, group));
                let apply = |(key, value): Entry| model.set(kind, key, value);
                part.entries(apply).unwrap();
            }
        }
    }
    model.entries
}

/// Writes snapshots `0..count` with changes in between, each verified by loading it.
fn write_chain(store: &Store, count: u64) -> (Vec<Manifest>, Model) {
    let mut model = Model::default();
    let mut manifests: Vec<Manifest> = Vec::new();
    for sequence in 0..count {
        for step in 0..sequence.min(40) {
            let key = (sequence * 7919 + step * 104_729) % 1000;
            let kind = KINDS[(step % 3) as usize];
            let value = (!(sequence + step).is_multiple_of(4)).then_some(sequence * 1000 + step);
            model.set(kind, key, value);
        }
        let mark = Mark {
            sequence,
            whole: sequence == 0,
        };
        let parts = model.export(mark);
        let before = manifests.last();
        let manifest = store.write(&taken(sequence), before, parts).unwrap();
        assert_eq!(store.manifest(id(sequence)).unwrap(), manifest);
        assert_eq!(restored(&store.load(&manifest).unwrap()), model.entries);
        manifests.push(manifest);
    }
    (manifests, model)
}

fn file(folder: &Path, sequence: u64, name: &str) -> PathBuf {
    folder.join(NAME).join(id(sequence).to_string()).join(name)
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let path = path.strip_prefix(folder).unwrap();
                files.insert(path.display().to_string());
            }
        }
    }
    files
}

#[test]
fn what_was_written_is_loaded_over_three_rounds() {
    let folder = tempfile::tempdir().unwrap();
    let (manifests, model) = write_chain(&open(folder.path()), 3 * ROUND);
    assert!(model.entries.len() > 300, "{}", model.entries.len());
    let last = manifests.last().unwrap();
    assert_eq!(last.chain.len() as u64, ROUND);
    assert_eq!(last.positions, positions());
    assert_eq!(last.interval_ms, 100);
    assert_eq!(last.version, env!("CARGO_PKG_VERSION"));
    let size = |sequence| {
        let file = file(folder.path(), sequence, "state");
        file.metadata().unwrap().len()
    };
    assert_eq!(last.bytes, size(3 * ROUND - 1));
    let chain = 2 * ROUND..3 * ROUND;
    assert_eq!(last.chain_bytes, chain.map(size).sum::<u64>());
    // Another start reads the same, and goes on.
    let store = open(folder.path());
    assert_eq!(store.list().unwrap().len() as u64, 3 * ROUND);
    assert_eq!(store.manifest(last.id).unwrap(), *last);
    assert_eq!(restored(&store.load(last).unwrap()), model.entries);
}

#[test]
fn a_pipeline_without_state_has_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = store.write(&taken(0), None, Vec::new()).unwrap();
    assert_eq!(first.chain.len(), 1);
    let loaded = store.load(&store.manifest(first.id).unwrap()).unwrap();
    assert_eq!(restored(&loaded), BTreeMap::new());
    // What comes next has no whole part before its turn, and counts from there.
    let mut model = Model::default();
    model.set(Kind::Orders, 5, Some(1));
    let mut parts = Parts::new(
        Kind::Orders,
        Mark {
            sequence: 1,
            whole: false,
        },
    );
    parts.add(5, &(5u64, Some(1u64)));
    let second = store
        .write(&taken(1), Some(&first), parts.finish(|_| false))
        .unwrap();
    let loaded = store.load(&second).unwrap();
    let part = loaded.parts(Kind::Orders, 5).next().unwrap();
    assert!(!part.whole);
    assert_eq!(loaded.parts(Kind::Orders, 6).count(), 0);
    assert_eq!(loaded.parts(Kind::Orders, 999_999).count(), 0);
}

#[test]
fn a_new_beginning_needs_nothing_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (_, mut model) = write_chain(&store, 5);
    model.set(Kind::Drivers, 77, Some(1));
    let mark = Mark {
        sequence: 9,
        whole: true,
    };
    let parts = model.export(mark);
    let manifest = store.write(&taken(9), None, parts).unwrap();
    assert_eq!(manifest.chain.len(), 1);
    assert_eq!(manifest.chain_bytes, manifest.bytes);
    assert_eq!(
        store.keep_only(std::slice::from_ref(&manifest)).unwrap(),
        10
    );
    assert_eq!(restored(&store.load(&manifest).unwrap()), model.entries);
}

#[test]
fn parts_that_lack_state_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (manifests, mut model) = write_chain(&store, 3);
    let last = manifests.last().unwrap();
    let before = files(folder.path());
    model.set(Kind::Drivers, 3, Some(9));
    let parts = model.export(Mark {
        sequence: 3,
        whole: false,
    });
    let refused = |sequence, parts: Vec<Part>| {
        let error = store
            .write(&taken(sequence), Some(last), parts)
            .unwrap_err();
        assert!(matches!(error, SnapshotError::Unsound { .. }), "{error}");
        error.to_string()
    };
    let error = refused(4, parts.clone());
    assert!(
        error.contains("sequence is 4, and that of the snapshot before is 2"),
        "{error}"
    );
    let mut lost = parts.clone();
    lost.retain(|part| (part.kind, part.group) != (Kind::Drivers, 3 + 64));
    let error = refused(3, lost);
    assert!(
        error.contains("Drivers lacks key group 67, due to be whole"),
        "{error}"
    );
    let mut twice = parts.clone();
    twice.push(parts[0].clone());
    let error = refused(3, twice);
    assert!(error.contains("twice"), "{error}");
    let mut outside = parts.clone();
    outside[0].group = 256;
    assert!(refused(3, outside).contains("key group 256"));
    assert_eq!(files(folder.path()), before);
    assert!(store.write(&taken(3), Some(last), parts).is_ok());
}

#[test]
fn what_is_kept_keeps_its_chain() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (manifests, model) = write_chain(&store, 2 * ROUND + 3);
    let keep = &manifests[manifests.len() - 2..];
    // A job that has taken over writes too; this one must not take that away.
    let later = taken(2 * ROUND + 5);
    let whole = Mark {
        sequence: later.sequence,
        whole: true,
    };
    let parts = Model::default().export(whole);
    store.write(&later, None, parts).unwrap();
    // What killed jobs left, and what isn't ours.
    let left = file(folder.path(), 1, "state#1");
    std::fs::write(&left, "half").unwrap();
    let half = SnapshotId {
        epoch: Epoch(3),
        run: 1,
    };
    let half = folder.path().join(NAME).join(half.to_string());
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("state#2"), "half").unwrap();
    let foreign = folder.path().join(NAME).join("notes.txt");
    std::fs::write(&foreign, "mine").unwrap();

    let needed = ROUND + 1;
    let removed = store.keep_only(keep).unwrap() as u64;
    assert_eq!(removed, 2 * (2 * ROUND + 3) - needed - 2);
    assert!(foreign.exists());
    assert!(!left.exists() && !left.parent().unwrap().exists() && !half.exists());
    assert_eq!(store.list().unwrap(), [keep[0].id, keep[1].id, later.id]);
    for manifest in keep {
        store.load(&store.manifest(manifest.id).unwrap()).unwrap();
    }
    assert_eq!(restored(&store.load(&keep[1]).unwrap()), model.entries);
    assert_eq!(store.keep_only(keep).unwrap(), 0);
    assert_eq!(store.keep_only(&[]).unwrap(), 0);
    assert_eq!(remove_all(&store).unwrap() as u64, needed + 2 + 2);
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(files(folder.path()).len(), 1, "the foreign file is left");
}

#[test]
fn pipelines_in_one_folder_dont_touch_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    // Names that are paths or prefixes of one another are but names.
    let names = ["a", "ab", "..", "."];
    let stores = names.map(|name| Store::open(&url, name).unwrap());
    for store in &stores {
        assert_eq!(store.url(), url);
        write_chain(store, 2);
    }
    assert_eq!(files(folder.path()).len(), 4 * names.len());
    for (at, store) in stores.iter().enumerate() {
        assert_eq!(store.list().unwrap().len(), 2);
        assert_eq!(remove_all(store).unwrap(), 4);
        assert_eq!(remove_all(store).unwrap(), 0);
        assert_eq!(files(folder.path()).len(), 4 * (names.len() - at - 1));
    }
}

#[test]
fn what_is_missing_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (manifests, _) = write_chain(&store, 3);
    std::fs::remove_file(file(folder.path(), 1, "state")).unwrap();
    for (manifest, is_whole) in manifests.iter().zip([true, false, false]) {
        let loaded = store.load(manifest);
        assert_eq!(loaded.is_ok(), is_whole);
        if let Err(error) = loaded {
            assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
            let expected = format!("{}/state is damaged: it is missing", id(1));
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
    std::fs::remove_file(file(folder.path(), 2, "manifest")).unwrap();
    let error = store.manifest(id(2)).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    assert_eq!(store.list().unwrap(), [id(0), id(1)]);
}

#[test]
fn a_file_in_anothers_place_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (manifests, _) = write_chain(&store, 3);
    for name in ["manifest", "state"] {
        let from = file(folder.path(), 1, name);
        std::fs::copy(from, file(folder.path(), 2, name)).unwrap();
    }
    let error = store.manifest(id(2)).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    let error = store.load(&manifests[2]).err().unwrap();
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(&taken(0), None, Vec::new()).unwrap();
    // As any later build would write it: the outer object never changes.
    let body = r#"{"version":"9.1.0","what":["a","later","build","has"]}"#;
    let checksum = XxHash3_64::oneshot_with_seed(3, body.as_bytes());
    let text = format!(r#"{{"format":3,"checksum":{checksum},"snapshot":{body}}}"#);
    std::fs::write(file(folder.path(), 0, "manifest"), text).unwrap();
    let error = store.manifest(id(0)).unwrap_err();
    assert!(matches!(error, SnapshotError::Newer { .. }), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("has format 3, written by riderflow 9.1.0, and this build reads format 2"),
        "{error}"
    );
}

#[test]
fn a_format_1_snapshot_is_readable_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let place = file(folder.path(), 0, "manifest");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, FORMAT_1_MANIFEST).unwrap();
    std::fs::write(file(folder.path(), 0, "state"), FORMAT_1_STATE).unwrap();
    let manifest = store.manifest(id(0)).unwrap();
    assert_eq!(manifest.positions[&(Input::Orders, 0)].next, 7);
    let loaded = store.load(&manifest).unwrap();
    let mut entries = Vec::new();
    let part = loaded.parts(Kind::Drivers, 5).next().unwrap();
    part.entries(|entry: Entry| entries.push(entry)).unwrap();
    assert_eq!(entries, [(5, Some(50)), (261, None)]);
}

#[test]
fn a_chain_goes_on_from_format_1() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let place = file(folder.path(), 0, "manifest");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, FORMAT_1_MANIFEST).unwrap();
    std::fs::write(file(folder.path(), 0, "state"), FORMAT_1_STATE).unwrap();
    let before = store.manifest(id(0)).unwrap();
    assert!(!before.bases.contains_key(&Kind::Sessions));
    // What it had was whole in the first snapshot and is so in the next 31 again.
    let mark = Mark {
        sequence: 1,
        whole: false,
    };
    let of = |kind: Kind, group: u64, entry: Entry| {
        let mut parts = Parts::new(kind, mark);
        parts.add(group, &entry);
        parts.finish(|_| true)
    };
    let mut parts = of(Kind::Sessions, 5, (5, Some(1)));
    for kind in before.bases.keys() {
        parts.extend(of(*kind, 5, (5, Some(51))));
    }
    let manifest = store.write(&taken(1), Some(&before), parts).unwrap();
    assert_eq!(store.manifest(id(1)).unwrap(), manifest);
    let loaded = store.load(&manifest).unwrap();
    let entries = |kind| {
        let mut entries: Vec<Entry> = Vec::new();
        for part in loaded.parts(kind, 5) {
            part.entries(|entry| entries.push(entry)).unwrap();
        }
        entries
    };
    assert_eq!(entries(Kind::Sessions), [(5, Some(1))]);
    assert_eq!(
        entries(Kind::Drivers),
        [(5, Some(50)), (261, None), (5, Some(51))]
    );
}

const FORMAT_1_MANIFEST: &[u8] = include_bytes!("testdata/format-1-manifest.json");
const FORMAT_1_STATE: &[u8] = include_bytes!("testdata/format-1-state");

#[test]
fn a_place_that_cant_be_opened_says_why() {
    for url in ["ftp://host/path", "s3://", "memory:///x", "s3:// /x"] {
        let error = Store::open(url, NAME).err().expect(url);
        let text = error.to_string();
        assert!(matches!(error, SnapshotError::Url { .. }), "{text}");
        assert!(
            text.contains(url) && text.contains("snapshots go to"),
            "{text}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let taken_by_a_file = folder.path().join("file");
    std::fs::write(&taken_by_a_file, "").unwrap();
    let error = Store::open(taken_by_a_file.join("sub").to_str().unwrap(), NAME)
        .err()
        .unwrap();
    assert!(
        matches!(error, SnapshotError::Unreachable { remote: false, .. }),
        "{error}"
    );
}

#[test]
fn a_store_that_is_away_is_no_damage() {
    // A port that nobody listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/state", port.local_addr().unwrap());
    drop(port);
    let store = Store::open(&url, NAME).unwrap();
    let error = store.manifest(id(0)).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Unreachable { remote: true, .. }),
        "{error}"
    );
    let text = error.to_string();
    let expected = format!(
        "could not read the snapshot file {url}/alerts/{}/manifest",
        id(0)
    );
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_folder_that_cant_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // A file where the pipeline's folder would be.
    std::fs::write(folder.path().join(NAME), "").unwrap();
    let error = store.write(&taken(0), None, Vec::new()).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Unreachable { remote: false, .. }),
        "{error}"
    );
}

/// A copy of a folder with three snapshots, and the state after them.
fn copied() -> (tempfile::TempDir, &'static BTreeMap<(Kind, u64), u64>) {
    type Written = (Vec<(PathBuf, Vec<u8>)>, BTreeMap<(Kind, u64), u64>);
    static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let (_, model) = write_chain(&open(folder.path()), 3);
        let files = files(folder.path()).into_iter().map(PathBuf::from);
        let read = |file: PathBuf| {
            let bytes = std::fs::read(folder.path().join(&file)).unwrap();
            (file, bytes)
        };
        (files.map(read).collect(), model.entries)
    });
    let folder = tempfile::tempdir().unwrap();
    for (file, bytes) in &WRITTEN.0 {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    (folder, &WRITTEN.1)
}

/// The files that the third snapshot takes.
const TAKES: [(u64, &str); 4] = [(0, "state"), (1, "state"), (2, "state"), (2, "manifest")];

/// The state of the third snapshot.
fn read(store: &Store) -> Result<BTreeMap<(Kind, u64), u64>, SnapshotError> {
    let manifest = store.manifest(id(2))?;
    store.load(&manifest).map(|loaded| restored(&loaded))
}

/// As a reset does it.
fn remove_all(store: &Store) -> Result<usize, SnapshotError> {
    store.remove_these(&store.list_all()?)
}

fn assert_damaged(store: &Store) {
    let error = read(store).expect_err("a changed file is noticed");
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
}

#[test]
fn no_bit_lies_outside_all_checksums() {
    let manifest = |bytes: &[u8]| Manifest::decode(bytes, id(0), "here");
    let whole = manifest(FORMAT_1_MANIFEST).unwrap();
    let load = |bytes: &[u8]| {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        Loaded::new().add(&whole.chain[0], &bytes)
    };
    load(FORMAT_1_STATE).unwrap();
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..8 * FORMAT_1_MANIFEST.len() {
        let error = manifest(&flipped(FORMAT_1_MANIFEST, bit)).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    }
    for bit in 0..8 * FORMAT_1_STATE.len() {
        assert!(load(&flipped(FORMAT_1_STATE, bit)).is_err(), "bit {bit}");
    }
}

proptest! {
    /// Any change of any file of a snapshot is noticed as damage, never as a newer format.
    #[test]
    fn no_changed_bits_pass(
        at in any::<prop::sample::Index>(),
        other in 1..=255u8,
        which in prop::sample::select(&TAKES[..]),
    ) {
        let (folder, _) = copied();
        let file = file(folder.path(), which.0, which.1);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= other;
        prop_assert!(read(&open(folder.path())).is_ok());
        std::fs::write(&file, bytes).unwrap();
        assert_damaged(&open(folder.path()));
    }

    /// A file that was cut, or has more at its end, is noticed.
    #[test]
    fn no_other_length_passes(
        at in any::<prop::sample::Index>(),
        more in 0..3usize,
        which in prop::sample::select(&TAKES[..]),
    ) {
        let (folder, _) = copied();
        let file = file(folder.path(), which.0, which.1);
        let mut bytes = std::fs::read(&file).unwrap();
        if more > 0 {
            bytes.extend(std::iter::repeat_n(b'\n', more));
        } else {
            bytes.truncate(at.index(bytes.len()));
        }
        std::fs::write(&file, bytes).unwrap();
        assert_damaged(&open(folder.path()));
    }
}

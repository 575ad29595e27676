//! A start whose newest snapshot is damaged.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::SETTINGS;
use crate::common::{lab, wait_until};
use crate::trial::{Trial, published_snapshots, said, time_to_first_commit};

const LONG: Duration = Duration::from_secs(60);

fn truncate(file: &Path) {
    let bytes = fs::read(file).expect("a file of the snapshot");
    fs::write(file, &bytes[..bytes.len() / 2]).expect("it is truncated");
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).expect("a file of the snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0b100;
    fs::write(file, &bytes).expect("a bit is flipped");
}

#[test]
fn a_damaged_snapshot_is_passed_over() {
    let lab = lab("damaged snapshots");
    let trial = Trial::begin(&lab, "damage", "", SETTINGS);
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("state", truncate),
        ("state", flip_a_bit),
        ("manifest", truncate),
        ("manifest", flip_a_bit),
    ];
    let (mut job, mut log) = trial.job_that_is_heard(&lab, 2, |_| {});
    for (file, damage) in damages {
        // Two that are younger than what the start went on from.
        let known = published_snapshots(&lab, "damage");
        let mut published = Vec::new();
        wait_until(LONG, "two snapshots are taken", || {
            assert!(job.is_running(), "it ended by itself: {}", said(&log));
            published = published_snapshots(&lab, "damage");
            let young = published.iter().filter(|id| !known.contains(id));
            young.count() >= 2
        });
        job.kill();
        // Since then there may have been another.
        let published = published_snapshots(&lab, "damage");
        let name = published.last().expect("there are some").to_string();
        let newest = trial.snapshots.join("damage").join(&name);
        damage(&newest.join(file));

        (job, log) = trial.job_that_is_heard(&lab, 2, |_| {});
        let recovered = time_to_first_commit(&mut job, Instant::now(), LONG);
        let said = said(&log);
        assert!(recovered.is_some(), "{file} of {name}: {said}");
        assert!(said.contains(&name), "it says what it passes over: {said}");
    }
    trial.finish(&lab, job).assert_clean();
}

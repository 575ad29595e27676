//! The job dies at each step of the protocol.

use std::time::Duration;

use riderflow::fail::POINTS;

use crate::SETTINGS;
use crate::common::lab;
use crate::trial::{Trial, wait_for_end, was_killed};

/// How far a job may have to come before it passes a point.
const PATIENCE: Duration = Duration::from_secs(40);

/// A start passes the committer's points with its head; so they are passed again later, when
/// epochs are committed. What is passed in time is passed at several times. Two points have a
/// time behind them in which the other side works.
fn traps() -> Vec<String> {
    let mut traps = Vec::new();
    for point in POINTS {
        traps.push((*point).to_owned());
        match *point {
            "commit-begun" | "commit-sent" | "commit-drained" | "commit-done" => {
                traps.push(format!("{point}:12"));
            }
            "commit-some-sent" | "rows-passed" | "insert-begun" | "insert-sent" | "insert-done" => {
                traps.push(format!("{point}:5"));
            }
            _ if point.starts_with("snapshot-") => traps.push(format!("{point}:2")),
            _ => {}
        }
    }
    traps.push("commit-drained:9:after=1".into());
    traps.push("insert-sent:4:after=3".into());
    traps
}

#[test]
fn a_kill_at_every_fail_point_changes_nothing() {
    let lab = lab("fail points");
    let toml = "clickhouse.batch_rows = 1000\nclickhouse.batch_ms = 200";
    let trial = Trial::begin(&lab, "points", toml, SETTINGS);
    for (trap, workers) in traps().iter().zip([1, 2, 4].into_iter().cycle()) {
        let mut job = trial.job_that_fails(&lab, workers, trap);
        let status = wait_for_end(&mut job, PATIENCE);
        let died = status.is_some_and(was_killed);
        assert!(
            died,
            "{trap}: the point is passed, and kills it: {status:?}"
        );
    }
    let job = trial.job(&lab, 2);
    trial.finish(&lab, job).assert_clean();
}

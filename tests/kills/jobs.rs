//! Two jobs of one pipeline, and jobs that are frozen in the middle of a transaction until
//! Kafka has ended it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::SETTINGS;
use crate::common::{Lab, Running, lab, wait_until};
use crate::trial::{Trial, said, time_to_first_commit, wait_for_end};

const LONG: Duration = Duration::from_secs(60);
/// Kafka ends a transaction that is open for 15 s.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(18);

/// A job that is frozen while a transaction of it is open and full.
fn frozen_in_a_transaction(lab: &Lab, trial: &Trial, workers: usize) -> (Running, PathBuf) {
    let pause = |command: &mut Command| {
        command.env("RIDERFLOW_FAIL", "commit-drained:25:pause=4000");
    };
    let (mut job, log) = trial.job_that_is_heard(lab, workers, pause);
    let commits = |job: &Running| {
        let done = job.try_metric("riderflow_epochs_committed_total");
        done.unwrap_or(0.0)
    };
    let (mut last, mut since) = (0.0, Instant::now());
    wait_until(LONG, "it pauses in the transaction", || {
        assert!(job.is_running(), "it ended by itself: {}", said(&log));
        let now = commits(&job);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        last > 0.0 && since.elapsed() > Duration::from_millis(1_200)
    });
    job.signal(Signal::STOP);
    (job, log)
}

fn assert_fenced(mut job: Running, log: &PathBuf) {
    let status = wait_for_end(&mut job, LONG, "a job that was taken over ends");
    let said = said(log);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("was taken over"), "{said}");
}

#[test]
fn of_two_jobs_one_survives_and_one_that_was_frozen_tells_nothing_any_more() {
    let lab = lab("two jobs");
    let toml = "clickhouse.batch_rows = 1000\nclickhouse.batch_ms = 200";
    let trial = Trial::begin(&lab, "jobs", toml, SETTINGS);

    let (mut first, first_log) = trial.job_that_is_heard(&lab, 1, |_| {});
    let began = Instant::now();
    time_to_first_commit(&mut first, began, LONG).expect("the first job commits");
    let (second, second_log) = frozen_in_a_transaction(&lab, &trial, 2);
    assert_fenced(first, &first_log);

    // It has a successor when it wakes up; the successor has none.
    let began = Instant::now();
    let (third, third_log) = frozen_in_a_transaction(&lab, &trial, 4);
    let third_began = Instant::now();
    std::thread::sleep(BEYOND_TIMEOUT.saturating_sub(began.elapsed()));
    second.signal(Signal::CONT);
    assert_fenced(second, &second_log);
    std::thread::sleep(BEYOND_TIMEOUT.saturating_sub(third_began.elapsed()));
    third.signal(Signal::CONT);
    assert_fenced(third, &third_log);

    let job = trial.job(&lab, 2);
    trial.finish(&lab, job).assert_clean();
}

//! Two jobs of one pipeline, and jobs that are frozen in the middle of a transaction until
//! Kafka has ended it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::SETTINGS;
use crate::common::{Lab, Running, lab, wait_until};
use crate::trial::{Trial, said, time_to_first_commit, wait_for_end};

const LONG: Duration = Duration::from_secs(60);
/// Kafka ends a transaction that is open for 15 s.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(18);

fn commits(job: &Running) -> f64 {
    let done = job.try_metric("riderflow_epochs_committed_total");
    done.unwrap_or(0.0)
}

/// A job that is frozen while a transaction of it is open and full.
fn frozen_in_a_transaction(lab: &Lab, trial: &Trial, workers: usize) -> (Running, PathBuf) {
    let pause = |command: &mut Command| {
        command.env("RIDERFLOW_FAIL", "commit-drained:25:pause=4000");
    };
    let (mut job, log) = trial.job_that_is_heard(lab, workers, pause);
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

fn assert_fenced(mut job: Running, log: &Path) {
    let status = wait_for_end(&mut job, LONG);
    let said = said(log);
    let code = status.map(|status| status.code());
    assert_eq!(
        code,
        Some(Some(1)),
        "a job that was taken over ends: {said}"
    );
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
    trial.note("the second job is frozen");
    assert_fenced(first, &first_log);
    trial.note("the first has ended");

    // It has a successor when it wakes up; the successor has none, so that it may go on, if it
    // finds out what became of its transaction.
    let began = Instant::now();
    let (mut third, third_log) = frozen_in_a_transaction(&lab, &trial, 4);
    let third_began = Instant::now();
    std::thread::sleep(BEYOND_TIMEOUT.saturating_sub(began.elapsed()));
    second.signal(Signal::CONT);
    assert_fenced(second, &second_log);
    trial.note("the second has ended");
    std::thread::sleep(BEYOND_TIMEOUT.saturating_sub(third_began.elapsed()));
    third.signal(Signal::CONT);
    let before = commits(&third);
    wait_until(LONG, "the third job goes on or ends", || {
        commits(&third) > before || !third.is_running()
    });
    trial.note("the third goes on, or has ended");
    if !third.is_running() {
        assert_fenced(third, &third_log);
        third = trial.job(&lab, 2);
    }
    trial.finish(&lab, third).assert_clean();
}

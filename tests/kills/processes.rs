//! A job of two processes of which one is killed.

use std::time::{Duration, Instant};

use crate::SETTINGS;
use crate::common::{Lab, Running, free_address, lab};
use crate::trial::{Trial, said, time_to_first_commit, wait_for_end};

const LONG: Duration = Duration::from_secs(60);
/// Within this the other ends too; `tests/cluster.rs` holds it to 2 s, without load.
const SOON: Duration = Duration::from_secs(5);

fn two_processes(lab: &Lab, trial: &Trial, round: usize) -> [(Running, std::path::PathBuf); 2] {
    let hosts = lab.folder().join(format!("hosts-{round}"));
    let text = format!("{}\n{}\n", free_address(), free_address());
    std::fs::write(&hosts, text).expect("the hosts file is written");
    [0, 1].map(|index| {
        trial.job_that_is_heard(lab, 1 + round % 2, |command| {
            command
                .args(["--processes", "2", "--process", &index.to_string()])
                .arg("--hosts")
                .arg(&hosts);
        })
    })
}

#[test]
fn of_two_processes_one_is_killed_and_the_other_ends_too() {
    let lab = lab("two processes");
    let toml = "clickhouse.batch_rows = 1000\nclickhouse.batch_ms = 200";
    let trial = Trial::begin(&lab, "processes", toml, SETTINGS);
    // Which one is killed, and how long after the first commit.
    for (round, (victim, after_ms)) in [(1, 2_000), (0, 1_000), (1, 0)].into_iter().enumerate() {
        let mut processes = two_processes(&lab, &trial, round);
        // The first has the committer.
        let (first, log) = &mut processes[0];
        let commits = time_to_first_commit(first, Instant::now(), LONG);
        assert!(commits.is_some(), "round {round}: {}", said(log));
        std::thread::sleep(Duration::from_millis(after_ms));
        processes[victim].0.kill();
        let (other, log) = &mut processes[1 - victim];
        let status = wait_for_end(other, SOON);
        let said = said(log);
        let code = status.map(|status| status.code());
        assert_eq!(
            code,
            Some(Some(1)),
            "round {round}, the other ends too: {said}"
        );
        assert!(said.contains("error: "), "it says why: {said}");
    }
    // A rescale is a restart with other numbers.
    let job = trial.job(&lab, 2);
    trial.finish(&lab, job).assert_clean();
}

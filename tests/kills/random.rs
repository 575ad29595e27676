//! The job dies at no particular moment: in a start, in recovery, under load.

use std::time::Duration;

use crate::SETTINGS;
use crate::common::lab;
use crate::trial::Trial;

const KILLS: u64 = 20;

#[test]
fn twenty_random_kills_with_1_2_and_4_workers_in_turn_change_nothing() {
    let lab = lab("random kills");
    let toml = "clickhouse.batch_rows = 1000\nclickhouse.batch_ms = 200";
    let trial = Trial::begin(&lab, "random", toml, SETTINGS);
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    for (kill, workers) in (0..KILLS).zip([1, 2, 4].into_iter().cycle()) {
        let mut job = trial.job(&lab, workers);
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Every fourth hardly gets to anything.
        let limit_ms = if kill % 4 == 3 { 600 } else { 4_000 };
        std::thread::sleep(Duration::from_millis(100 + (dice >> 33) % limit_ms));
        assert!(job.is_running(), "kill {kill}: it ended by itself");
        job.kill();
    }
    let job = trial.job(&lab, 2);
    trial.finish(&lab, job).assert_clean();
}

//! Whatever is killed, whenever: the job, Kafka, ClickHouse. What is told, stored and refused
//! equals what a job tells that nothing disturbs.
//!
//! Every test writes one input in time, has something killed meanwhile, and then runs a second
//! job over the same input: see `common/live.rs`, `common/trial.rs` and `common/compare.rs`.

#[path = "../fixtures/bad_inputs.rs"]
mod bad_inputs;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/compare.rs"]
#[allow(dead_code, unreachable_pub, reason = "the bench uses the rest")]
mod compare;
#[path = "../common/live.rs"]
#[allow(dead_code, unreachable_pub, reason = "the bench uses the rest")]
mod live;
#[path = "../common/trial.rs"]
#[allow(dead_code, unreachable_pub, reason = "the bench uses the rest")]
mod trial;

#[path = "../clickhouse/proxy.rs"]
#[allow(dead_code, reason = "only answers are lost here")]
mod proxy;

mod idle;
mod jobs;
mod planted;
mod points;
mod processes;
mod random;
mod services;
mod snapshots;

/// A rate that a debug build keeps up with on two cores.
const SETTINGS: live::Settings = live::Settings {
    seed: 0x5eed,
    rate: 800,
    backlog_s: 20,
    quiet: 3,
};

//! The live streams over a real Kafka: what a customer, a restaurant and operations see, when,
//! and what nobody sees.
//!
//! The gateway's live part runs in this process behind a bare server; the job, where one is
//! needed, is the real one.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/described.rs"]
mod described;

mod client;
mod feeder;
mod follower;
mod gateway;
mod measured;
mod orders;
mod places;
mod slow;

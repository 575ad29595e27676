//! What the benches over a whole job share: a Kafka and a ClickHouse of their own, a city written
//! to Kafka beforehand, the job as a process, and what a process costs.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each bench uses its own part"
)]

mod bars;
mod cost;
mod lab;
#[path = "../../tests/common/measured.rs"]
mod measured;
mod progress;
#[path = "../../tests/common/running.rs"]
mod running;

pub use bars::Bars;
pub use cost::{Cost, cost_of, median};
pub use lab::{
    DRIVERS, Drain, FENCES, Lab, ORDERS, Preloaded, UPDATES, became_consumer, read_to_end, send,
};
pub use measured::{Latencies, cpu_s, resident_mib};
pub use progress::{ANSWER, assign_all, ends_of, left_for, until_none_left};
pub use running::{Running, sum_of};

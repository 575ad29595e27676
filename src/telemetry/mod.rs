//! What the job says about itself: metrics and health over HTTP.
//!
//! ```text
//! workers, committer, writer ──counts──▶ Metrics ──┐
//!                            ──conditions─▶ Health ─┴▶ Server: /metrics /livez /readyz
//! ```
//!
//! Owns the metric names (`riderflow_<name>_<unit>[_total]`), the rule for ready and live, and
//! the HTTP thread. Handles are cheap to clone and never block a worker: counts go to atomics,
//! one call a batch. It never decides anything about the data.

mod gauges;
mod health;
mod histogram;
mod metrics;
mod process;
mod server;

pub use gauges::{Gauges, Held};
pub use health::{Condition, Health, Heartbeat, STALL_LIMIT};
pub use histogram::{Histogram, HistogramSnapshot};
pub use metrics::{
    CodeCounters, Counters, EpochAge, Label, LagGauges, Metrics, SECONDS, Series, TableCounters,
};
pub use process::{ProcessMemory, openmetrics};
pub use server::{DEFAULT_ADDRESS, Exposition, ServeError, Server, serve};

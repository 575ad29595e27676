//! riderflow: proximity, arrivals and geofence events from live rider positions.
//!
//! Data flows one way: `source → decode → detect → encode → sink`.
//!
//! | module | owns |
//! |---|---|
//! | [`model`] | plain data: drivers, positions, updates, orders, fences, events, epochs |
//! | [`geo`] | distances, rings, areas and the fence index; pure |
//! | [`detect`] | the state machines `(state, input) -> (state, outputs)`; pure |
//! | [`wire`] | bytes to model and back: JSON inputs, CloudEvents |
//! | [`epoch`] | the epoch log's records, and where a record stands |
//! | [`snapshot`] | the state after an epoch, in parts, from which a start goes on |
//! | [`dataflow`] | the timely operators around `detect` |
//! | [`kafka`] | reading partitions, the transactional committer, topics |
//! | [`clickhouse`] | migrations, rows and the batch writer |
//! | [`runtime`] | the job: workers, committer and writer wired together |
//! | [`gateway`] | positions in by WebSocket, live positions out, pages |
//! | [`config`] | the pipeline file |
//! | [`services`] | a real Kafka and ClickHouse as child processes |
//! | [`simulate`] | a city of drivers, orders and fences |
//! | [`telemetry`] | metrics and health over HTTP |
//! | [`fail`] | moments at which a test has the process die; debug builds only |
//! | [`cli`] | one file a command |
//!
//! `ARCHITECTURE.md` says who may import whom, and a test holds it. Without the feature `job` there
//! are the pure modules only: `config`, `detect`, `epoch`, `geo`, `model` and `wire`.

#[cfg(feature = "job")]
pub mod cli;
#[cfg(feature = "job")]
pub mod clickhouse;
pub mod config;
#[cfg(feature = "job")]
pub mod dataflow;
pub mod detect;
pub mod epoch;
#[cfg(feature = "job")]
pub mod fail;
#[cfg(feature = "job")]
pub mod gateway;
pub mod geo;
#[cfg(feature = "job")]
pub mod kafka;
pub mod model;
#[cfg(feature = "job")]
pub mod runtime;
#[cfg(feature = "job")]
pub mod services;
#[cfg(feature = "job")]
pub mod simulate;
#[cfg(feature = "job")]
pub mod snapshot;
#[cfg(feature = "job")]
pub mod telemetry;
pub mod wire;

//! The pipeline file: one struct per stage, unknown keys rejected.
//!
//! Owns the keys, their units and defaults (contract, section 8), and the errors that name
//! file, line, column and the nearest right word. [`load`] is the only way in.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A whole pipeline file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The consumer group and the `transactional.id`.
    pub name: String,
    /// The broker.
    #[serde(default)]
    pub kafka: Kafka,
    /// The database.
    #[serde(default)]
    pub clickhouse: Clickhouse,
    /// Limits on rider updates.
    #[serde(default)]
    pub updates: Updates,
    /// Topic shapes.
    #[serde(default)]
    pub topics: Topics,
    /// State to partition.
    #[serde(default)]
    pub routes: Routes,
    /// Rules for orders.
    #[serde(default)]
    pub orders: Orders,
    /// Rules for drivers.
    #[serde(default)]
    pub drivers: Drivers,
    /// Rules for fences.
    #[serde(default)]
    pub fences: Fences,
    /// Event-time windows.
    #[serde(default)]
    pub windows: Windows,
    /// The epoch.
    #[serde(default)]
    pub epoch: EpochConfig,
    /// Snapshots.
    #[serde(default)]
    pub snapshots: Snapshots,
}

macro_rules! stage {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

stage! {
    /// `[kafka]`
    Kafka {
        /// Bootstrap servers; `RIDERFLOW_KAFKA` overrides. Default `localhost:9092`.
        brokers: String = "localhost:9092".into(),
    }
}
stage! {
    /// `[clickhouse]`
    Clickhouse {
        /// HTTP address; `RIDERFLOW_CLICKHOUSE` overrides. Default `http://localhost:8123`.
        url: String = "http://localhost:8123".into(),
        /// Whether rows are written at all. Default true.
        enabled: bool = true,
        /// A batch is sent at this many rows. Default 100000.
        batch_rows: usize = 100_000,
        /// A batch is sent at this age, ms. Default 1000.
        batch_ms: u64 = 1_000,
    }
}
stage! {
    /// `[updates]`
    Updates {
        /// How long an update is held so that older ones may overtake it, s. Default 0.
        lateness_s: f64 = 0.0,
        /// How far the event time may be ahead of the Kafka timestamp, s. Default 60.
        future_limit_s: f64 = 60.0,
        /// The largest update, bytes. Default 16384.
        max_bytes: usize = 16_384,
        /// Implied speed over this is a teleport, m/s. Default 70.
        max_speed_mps: f64 = 70.0,
        /// `accuracy` over this is inaccurate, m. Default 100.
        max_accuracy_m: f64 = 100.0,
    }
}
stage! {
    /// `[topics]`
    Topics {
        /// Partitions of `rider-updates`, `orders` and `rider-notifications`. Default 2.
        partitions: i32 = 2,
    }
}
/// `[routes]`: the partition of `rider-updates` for each state.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Routes(
    /// State to partition; the row `default` serves every state without one of its own, and
    /// without it the key's murmur2 decides. Default `south = 0`, `default = 1`.
    pub BTreeMap<String, i32>,
);

impl Default for Routes {
    fn default() -> Self {
        Self(BTreeMap::from([("south".into(), 0), ("default".into(), 1)]))
    }
}
stage! {
    /// `[orders]`
    Orders {
        /// Radius of `agent.near`, m. Default 500.
        near_m: f64 = 500.0,
        /// Whether `agent.near` repeats after having been past `rearm_m`. Default false.
        near_repeat: bool = false,
        /// Past this, `agent.near` may repeat, m. Default 700.
        rearm_m: f64 = 700.0,
        /// Radius of `agent.arrived`, m. Default 60.
        arrive_m: f64 = 60.0,
        /// Length of the stay that counts as arrival, s. Default 10.
        arrive_s: f64 = 10.0,
        /// Past this, an arrived driver has departed, m. Default 150.
        depart_m: f64 = 150.0,
    }
}
stage! {
    /// `[drivers]`
    Drivers {
        /// Silence of a driver with an open order that is told, s. Default 30.
        silent_s: f64 = 30.0,
    }
}
stage! {
    /// `[fences]`
    Fences {
        /// Two fixes further apart in time judge no crossing, s. Default 60.
        crossing_gap_s: f64 = 60.0,
    }
}
stage! {
    /// `[windows]`
    Windows {
        /// Whether windows are computed. Default true.
        enabled: bool = true,
        /// A session ends after this without an update, s. Default 600.
        session_gap_s: f64 = 600.0,
        /// Windows older than this leave memory, s. Default 86400.
        horizon_s: f64 = 86_400.0,
    }
}
stage! {
    /// `[epoch]`
    EpochConfig {
        /// Length of an epoch, ms. Default 100.
        interval_ms: u64 = 100,
    }
}
stage! {
    /// `[snapshots]`
    Snapshots {
        /// Where snapshots go: a folder or an object store's URL. Default `./riderflow-state`.
        url: String = "./riderflow-state".into(),
        /// How often, s. Default 10.
        interval_s: f64 = 10.0,
    }
}

/// A pipeline file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Reads and validates a pipeline file, then applies the environment's overrides.
///
/// # Errors
/// A file that can't be read or isn't valid, with file, line, column and the nearest right word.
pub fn load(path: &std::path::Path) -> Result<Pipeline, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("could not read {}: {error}", path.display())))?;
    let mut pipeline: Pipeline = toml::from_str(&text)
        .map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
    if let Ok(brokers) = std::env::var("RIDERFLOW_KAFKA") {
        pipeline.kafka.brokers = brokers;
    }
    if let Ok(url) = std::env::var("RIDERFLOW_CLICKHOUSE") {
        pipeline.clickhouse.url = url;
    }
    Ok(pipeline)
}

//! The pipeline file: one struct per stage, unknown keys rejected.
//!
//! Owns the keys, their units and defaults ([`KEYS`]), and the errors that name file, line,
//! column and the nearest right word, all of a file at once. [`load`] is the way in: file,
//! checks, then the environment's overrides. A [`Pipeline`] that came out of it is valid.

mod error;
mod nearest;
mod schema;
mod syntax;
#[cfg(test)]
mod tests;
mod validate;
mod values;

pub use error::{At, ConfigError, Problem};
pub use schema::{KEYS, Key, Kind, NUMBER_MAX, STAGES, Unit};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A whole pipeline file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    /// The gateway; the job doesn't look at it.
    #[serde(default)]
    pub gateway: Gateway,
}

macro_rules! stage {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
        /// Never in the file: `RIDERFLOW_CLICKHOUSE_USER`. Default: ClickHouse's own.
        #[serde(skip)]
        user: Option<String> = None,
        /// Never in the file: `RIDERFLOW_CLICKHOUSE_PASSWORD`. Default: none.
        #[serde(skip)]
        password: Option<Secret> = None,
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
        /// Length of a cell's or driver's window, s. Default 60.
        size_s: i64 = 60,
        /// A window begins every so many seconds; 0: when the one before ends. Default 0.
        hop_s: i64 = 0,
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

stage! {
    /// `[gateway]`
    Gateway {
        /// Where it listens, `address:port`. Default `127.0.0.1:8080`.
        listen: String = "127.0.0.1:8080".into(),
        /// The `iss` of every token. Default `riderflow`.
        issuer: String = "riderflow".into(),
        /// What the `aud` of every token is or holds. Default `riderflow`.
        audience: String = "riderflow".into(),
        /// The one algorithm of all tokens: `HS256`, `RS256` or `ES256`. Default `HS256`.
        algorithm: String = "HS256".into(),
        /// The file with the issuer's public keys, for RS256 and ES256. Default none.
        jwks: String = String::new(),
        /// Origins that browsers may come from, separated by commas. Default: only its own.
        origins: String = String::new(),
        /// The PEM file with the certificate chain for TLS. Default none: no TLS.
        certificate: String = String::new(),
        /// The PEM file with its private key. Default none.
        private_key: String = String::new(),
        /// Connections at a time. Default 100000.
        connections: usize = 100_000,
        /// Connections at a time whose first request has not come yet. Default 1000.
        handshakes: usize = 1_000,
        /// How long a connection may take to its first request, s. Default 10.
        handshake_s: f64 = 10.0,
        /// Connections at a time of one address. Default 5000.
        address_connections: usize = 5_000,
        /// New connections of one address in a second. Default 500.
        address_per_s: u32 = 500,
        /// Updates of one connection in a second; ten seconds' worth at once. Default 20.
        updates_per_s: u32 = 20,
        /// Updates that wait for Kafka, of all connections. Default 100000.
        buffer_updates: usize = 100_000,
        /// Never in the file: `RIDERFLOW_GATEWAY_KEY`, the shared key of HS256. Default none.
        #[serde(skip)]
        key: Option<Secret> = None,
    }
}

impl Gateway {
    /// The origins that browsers may come from, beside the gateway's own.
    pub fn allowed_origins(&self) -> impl Iterator<Item = &str> {
        self.origins
            .split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty())
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Snapshots {
    /// The folder that snapshots go to.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(self.url.strip_prefix("file://").unwrap_or(&self.url))
    }
}

impl Pipeline {
    /// A pipeline of this name with every default.
    pub fn defaults(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kafka: Kafka::default(),
            clickhouse: Clickhouse::default(),
            updates: Updates::default(),
            topics: Topics::default(),
            routes: Routes::default(),
            orders: Orders::default(),
            drivers: Drivers::default(),
            fences: Fences::default(),
            windows: Windows::default(),
            epoch: EpochConfig::default(),
            snapshots: Snapshots::default(),
            gateway: Gateway::default(),
        }
    }

    /// Reads and validates the text of a pipeline file; `file_name` is for the messages.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        let problems = validate::problems(text);
        if !problems.is_empty() {
            return Err(ConfigError::new(file_name, problems));
        }
        let mut pipeline: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map(|span| At::new(text, span));
            let message = error.message().to_owned();
            let help = Vec::new();
            ConfigError::new(file_name, vec![Problem { at, message, help }])
        })?;
        // Rows of the file were checked; only the default rows can be beyond the last partition.
        for partition in pipeline.routes.0.values_mut() {
            *partition = (*partition).min(pipeline.topics.partitions - 1);
        }
        Ok(pipeline)
    }

    /// Applies the environment's overrides; an empty variable counts as unset.
    fn override_from(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if let Some(brokers) = given("RIDERFLOW_KAFKA") {
            refuse("RIDERFLOW_KAFKA", values::brokers_fault(&brokers))?;
            self.kafka.brokers = brokers;
        }
        if let Some(url) = given("RIDERFLOW_CLICKHOUSE") {
            refuse("RIDERFLOW_CLICKHOUSE", values::url_fault(&url))?;
            self.clickhouse.url = url;
        }
        if let Some(user) = given("RIDERFLOW_CLICKHOUSE_USER") {
            self.clickhouse.user = Some(user);
        }
        if let Some(password) = given("RIDERFLOW_CLICKHOUSE_PASSWORD") {
            self.clickhouse.password = Some(Secret::new(password));
        }
        if let Some(key) = given("RIDERFLOW_GATEWAY_KEY") {
            self.gateway.key = Some(Secret::new(key));
        }
        Ok(())
    }
}

fn refuse(variable: &str, fault: Option<String>) -> Result<(), ConfigError> {
    match fault {
        None => Ok(()),
        Some(fault) => Err(ConfigError::whole(
            "environment",
            format!("{variable} {fault}"),
        )),
    }
}

/// Reads and validates a pipeline file, then applies the environment's overrides.
///
/// # Errors
/// A file that can't be read, or everything that is wrong with it: file, line, column and the
/// nearest right word.
pub fn load(path: &Path) -> Result<Pipeline, ConfigError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| ConfigError::whole(&file, format!("could not read it: {error}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| ConfigError::whole(&file, format!("it is not UTF-8: {error}")))?;
    let mut pipeline = Pipeline::parse(&text, &file)?;
    pipeline.override_from(|name| std::env::var(name).ok())?;
    Ok(pipeline)
}

//! The keys of a pipeline file: unit, range and default of each, in one table.
//!
//! The checks, the messages and the README's table are held against [`KEYS`]; a test holds the
//! run-time types against it.

/// A stage of the pipeline file: one TOML table.
pub const STAGES: [&str; 12] = [
    "clickhouse",
    "drivers",
    "epoch",
    "fences",
    "gateway",
    "kafka",
    "orders",
    "routes",
    "snapshots",
    "topics",
    "updates",
    "windows",
];

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// m
    Metres,
    /// s
    Seconds,
    /// ms
    Milliseconds,
    /// m/s
    MetresPerSecond,
    /// bytes
    Bytes,
    /// rows of a table
    Rows,
    /// partitions of a topic
    Partitions,
    /// connections that are open
    Connections,
    /// new connections a second
    ConnectionsPerSecond,
    /// rider updates
    Updates,
    /// rider updates a second
    UpdatesPerSecond,
}

/// What can be converted into what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    Length,
    Time,
    Speed,
    Size,
    Count,
    Rate,
}

impl Unit {
    /// The unit in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Metres => "metres",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::MetresPerSecond => "metres per second",
            Self::Bytes => "bytes",
            Self::Rows => "rows",
            Self::Partitions => "partitions",
            Self::Connections => "connections",
            Self::ConnectionsPerSecond => "connections per second",
            Self::Updates => "updates",
            Self::UpdatesPerSecond => "updates per second",
        }
    }

    /// The dimension, and how many of its base unit one of this is.
    pub(super) fn scale(self) -> (Dimension, f64) {
        match self {
            Self::Metres => (Dimension::Length, 1.0),
            Self::Seconds => (Dimension::Time, 1.0),
            Self::Milliseconds => (Dimension::Time, 0.001),
            Self::MetresPerSecond => (Dimension::Speed, 1.0),
            Self::Bytes => (Dimension::Size, 1.0),
            Self::Rows | Self::Partitions | Self::Connections | Self::Updates => {
                (Dimension::Count, 1.0)
            }
            Self::ConnectionsPerSecond | Self::UpdatesPerSecond => (Dimension::Rate, 1.0),
        }
    }
}

/// What people write for units, with the dimension and how many of its base unit one is.
const UNIT_WORDS: &[(&[&str], Dimension, f64)] = &[
    (
        &["m", "metre", "metres", "meter", "meters"],
        Dimension::Length,
        1.0,
    ),
    (
        &["km", "kilometre", "kilometres", "kilometer", "kilometers"],
        Dimension::Length,
        1_000.0,
    ),
    (&["cm"], Dimension::Length, 0.01),
    (&["mi", "mile", "miles"], Dimension::Length, 1_609.344),
    (&["ft", "foot", "feet"], Dimension::Length, 0.304_8),
    (
        &["s", "sec", "secs", "second", "seconds"],
        Dimension::Time,
        1.0,
    ),
    (
        &["ms", "msec", "millis", "millisecond", "milliseconds"],
        Dimension::Time,
        0.001,
    ),
    (&["us", "micros"], Dimension::Time, 0.000_001),
    (&["min", "mins", "minute", "minutes"], Dimension::Time, 60.0),
    (
        &["h", "hr", "hrs", "hour", "hours"],
        Dimension::Time,
        3_600.0,
    ),
    (&["d", "day", "days"], Dimension::Time, 86_400.0),
    (&["mps", "m/s"], Dimension::Speed, 1.0),
    (&["kmh", "kph", "km/h"], Dimension::Speed, 1.0 / 3.6),
    (&["mph"], Dimension::Speed, 0.447_04),
    (&["b", "byte", "bytes"], Dimension::Size, 1.0),
    (&["kb"], Dimension::Size, 1_000.0),
    (&["kib"], Dimension::Size, 1_024.0),
    (&["mb"], Dimension::Size, 1_000_000.0),
    (&["mib"], Dimension::Size, 1_048_576.0),
    (&["row", "rows", "size", "count"], Dimension::Count, 1.0),
];

/// The dimension of a unit's name, and how many of its base unit one is.
pub(super) fn unit_word(word: &str) -> Option<(Dimension, f64)> {
    let word = word.to_ascii_lowercase();
    let known = UNIT_WORDS
        .iter()
        .find(|(names, _, _)| names.contains(&word.as_str()))?;
    Some((known.1, known.2))
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Text, not empty.
    Text,
    /// Text; empty is none.
    TextOrNone,
    /// true or false.
    Flag,
    /// A whole number in a range.
    Whole {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A finite number, up to [`NUMBER_MAX`].
    Number {
        /// Whether 0 is allowed; what is below never is.
        zero: bool,
    },
}

/// The largest number of metres, seconds or metres per second that a key takes.
pub const NUMBER_MAX: f64 = 1e9;

/// One key of a pipeline file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The TOML table that it is in.
    pub stage: &'static str,
    /// Its name in that table.
    pub name: &'static str,
    /// What its number counts, if it is one.
    pub unit: Option<Unit>,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as TOML.
    pub default: &'static str,
}

impl Key {
    /// The dotted name, such as `orders.near_m`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.stage, self.name)
    }
}

const fn text(stage: &'static str, name: &'static str, default: &'static str) -> Key {
    Key {
        stage,
        name,
        unit: None,
        kind: Kind::Text,
        default,
    }
}

/// A text that is empty by default.
const fn optional(stage: &'static str, name: &'static str) -> Key {
    Key {
        stage,
        name,
        unit: None,
        kind: Kind::TextOrNone,
        default: "\"\"",
    }
}

const fn flag(stage: &'static str, name: &'static str, default: &'static str) -> Key {
    Key {
        stage,
        name,
        unit: None,
        kind: Kind::Flag,
        default,
    }
}

const fn whole(
    stage: &'static str,
    name: &'static str,
    unit: Unit,
    (min, max): (i64, i64),
    default: &'static str,
) -> Key {
    Key {
        stage,
        name,
        unit: Some(unit),
        kind: Kind::Whole { min, max },
        default,
    }
}

/// A number over 0.
const fn over0(stage: &'static str, name: &'static str, unit: Unit, default: &'static str) -> Key {
    Key {
        stage,
        name,
        unit: Some(unit),
        kind: Kind::Number { zero: false },
        default,
    }
}

/// A number, 0 or more.
const fn from0(stage: &'static str, name: &'static str, unit: Unit, default: &'static str) -> Key {
    Key {
        stage,
        name,
        unit: Some(unit),
        kind: Kind::Number { zero: true },
        default,
    }
}

/// What a cap may be.
const MANY: (i64, i64) = (1, 10_000_000);

/// Every key except `name`, which has no default, and the rows of `[routes]`, which are free.
pub const KEYS: &[Key] = {
    use Unit::{
        Bytes, Connections, ConnectionsPerSecond, Metres, MetresPerSecond, Milliseconds,
        Partitions, Rows, Seconds, Updates, UpdatesPerSecond,
    };
    &[
        text("kafka", "brokers", "\"localhost:9092\""),
        text("clickhouse", "url", "\"http://localhost:8123\""),
        flag("clickhouse", "enabled", "true"),
        whole("clickhouse", "batch_rows", Rows, (1, 1_000_000), "100000"),
        whole(
            "clickhouse",
            "batch_ms",
            Milliseconds,
            (10, 600_000),
            "1000",
        ),
        from0("updates", "lateness_s", Seconds, "0"),
        from0("updates", "future_limit_s", Seconds, "60"),
        whole("updates", "max_bytes", Bytes, (1, 1_048_576), "16384"),
        over0("updates", "max_speed_mps", MetresPerSecond, "70"),
        over0("updates", "max_accuracy_m", Metres, "100"),
        whole("topics", "partitions", Partitions, (1, 1_024), "2"),
        over0("orders", "near_m", Metres, "500"),
        flag("orders", "near_repeat", "false"),
        over0("orders", "rearm_m", Metres, "700"),
        over0("orders", "arrive_m", Metres, "60"),
        from0("orders", "arrive_s", Seconds, "10"),
        over0("orders", "depart_m", Metres, "150"),
        over0("drivers", "silent_s", Seconds, "30"),
        from0("fences", "crossing_gap_s", Seconds, "60"),
        flag("windows", "enabled", "true"),
        whole("windows", "size_s", Seconds, (1, 3_600), "60"),
        whole("windows", "hop_s", Seconds, (0, 3_600), "0"),
        over0("windows", "session_gap_s", Seconds, "600"),
        over0("windows", "horizon_s", Seconds, "86400"),
        whole("epoch", "interval_ms", Milliseconds, (10, 10_000), "100"),
        text("snapshots", "url", "\"./riderflow-state\""),
        over0("snapshots", "interval_s", Seconds, "10"),
        text("gateway", "listen", "\"127.0.0.1:8080\""),
        text("gateway", "issuer", "\"riderflow\""),
        text("gateway", "audience", "\"riderflow\""),
        text("gateway", "algorithm", "\"HS256\""),
        optional("gateway", "jwks"),
        optional("gateway", "origins"),
        optional("gateway", "certificate"),
        optional("gateway", "private_key"),
        whole("gateway", "connections", Connections, MANY, "100000"),
        whole("gateway", "handshakes", Connections, MANY, "1000"),
        over0("gateway", "handshake_s", Seconds, "10"),
        whole("gateway", "address_connections", Connections, MANY, "5000"),
        whole(
            "gateway",
            "address_per_s",
            ConnectionsPerSecond,
            MANY,
            "500",
        ),
        whole(
            "gateway",
            "updates_per_s",
            UpdatesPerSecond,
            (1, 10_000),
            "20",
        ),
        whole("gateway", "buffer_updates", Updates, MANY, "100000"),
    ]
};

/// The key of this name in this stage.
pub(super) fn key(stage: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.stage == stage && key.name == name)
}

/// The keys of a stage.
pub(super) fn keys_of(stage: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.stage == stage)
}

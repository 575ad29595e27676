//! The metrics, one field each, and their text for Prometheus.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process::{ProcessMemory, openmetrics};
use super::{Exposition, Histogram};
use crate::model::{EventKind, Flag, Input, Reason, TimeMs};

/// Bounds for what should take milliseconds, seconds.
pub const SECONDS: &[f64] = &[
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15,
    0.175, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0,
    60.0,
];

/// Bounds for batch sizes, rows.
const ROWS: &[f64] = &[
    1.0,
    10.0,
    100.0,
    300.0,
    1_000.0,
    3_000.0,
    10_000.0,
    30_000.0,
    100_000.0,
    300_000.0,
    1_000_000.0,
];

/// A label with a closed set of values.
pub trait Label: Copy + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value that it can have.
    const VALUES: &'static [Self];
    /// The value's text.
    fn text(self) -> &'static str;
}

impl Label for Flag {
    const NAME: &'static str = "flag";
    const VALUES: &'static [Self] = &[
        Self::Ok,
        Self::Late,
        Self::Duplicate,
        Self::Inaccurate,
        Self::Teleport,
    ];
    fn text(self) -> &'static str {
        self.as_str()
    }
}

impl Label for EventKind {
    const NAME: &'static str = "type";
    const VALUES: &'static [Self] = &Self::ALL;
    fn text(self) -> &'static str {
        self.name()
    }
}

impl Label for Reason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [Self] = &Self::ALL;
    fn text(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Input {
    const NAME: &'static str = "topic";
    const VALUES: &'static [Self] = &Self::ALL;
    fn text(self) -> &'static str {
        self.topic()
    }
}

/// One counter per value of a label; all of them are there from the start, at 0.
#[derive(Debug)]
pub struct Counters<L> {
    each: Arc<[Counter]>,
    label: PhantomData<L>,
}

impl<L> Clone for Counters<L> {
    fn clone(&self) -> Self {
        Self {
            each: self.each.clone(),
            label: PhantomData,
        }
    }
}

impl<L: Label> Default for Counters<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Label> Counters<L> {
    /// All at 0.
    pub fn new() -> Self {
        Self {
            each: L::VALUES.iter().map(|_| Counter::default()).collect(),
            label: PhantomData,
        }
    }

    fn counter(&self, label: L) -> Option<&Counter> {
        let index = L::VALUES.iter().position(|&value| value == label)?;
        self.each.get(index)
    }

    /// Counts `n` more under `label`.
    pub fn add(&self, label: L, n: u64) {
        if let Some(counter) = self.counter(label) {
            counter.inc_by(n);
        }
    }

    /// How many were counted under `label`.
    pub fn get(&self, label: L) -> u64 {
        self.counter(label).map_or(0, |counter| counter.get())
    }

    /// How many were counted under all labels.
    pub fn total(&self) -> u64 {
        self.each.iter().map(|counter| counter.get()).sum()
    }
}

impl<L: Label> EncodeMetric for Counters<L> {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        for (value, counter) in L::VALUES.iter().zip(self.each.iter()) {
            counter.encode(encoder.encode_family(&[(L::NAME, value.text())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held leaves a number, which is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters by ClickHouse table.
#[derive(Clone, Debug, Default)]
pub struct TableCounters(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl TableCounters {
    /// Counts `n` more for `table`.
    pub fn add(&self, table: &'static str, n: u64) {
        *lock(&self.0).entry(table).or_default() += n;
    }

    /// How many were counted for `table`.
    pub fn get(&self, table: &str) -> u64 {
        lock(&self.0).get(table).copied().unwrap_or(0)
    }
}

impl EncodeMetric for TableCounters {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        for (table, n) in lock(&self.0).iter() {
            encoder
                .encode_family(&[("table", *table)])?
                .encode_counter::<[(&str, &str); 0], _, u64>(n, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Counters by ClickHouse error code; a failure without one (a timeout, a lost connection)
/// counts as `none`.
#[derive(Clone, Debug, Default)]
pub struct CodeCounters(Arc<Mutex<BTreeMap<Option<u32>, u64>>>);

impl CodeCounters {
    /// Counts `n` more for `code`.
    pub fn add(&self, code: Option<u32>, n: u64) {
        *lock(&self.0).entry(code).or_default() += n;
    }

    /// How many were counted under all codes.
    pub fn total(&self) -> u64 {
        lock(&self.0).values().sum()
    }
}

impl EncodeMetric for CodeCounters {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        for (code, n) in lock(&self.0).iter() {
            let text = code.map_or_else(|| "none".into(), |code| code.to_string());
            encoder
                .encode_family(&[("code", text)])?
                .encode_counter::<[(&str, &str); 0], _, u64>(n, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// How far behind each input partition the job is, records.
#[derive(Clone, Debug, Default)]
pub struct LagGauges(Arc<Mutex<BTreeMap<(Input, i32), i64>>>);

impl LagGauges {
    /// Sets the lag of one partition; a negative one counts as 0.
    pub fn set(&self, input: Input, partition: i32, records: i64) {
        lock(&self.0).insert((input, partition), records.max(0));
    }

    /// The lag of all partitions together, records.
    pub fn total(&self) -> i64 {
        lock(&self.0).values().sum()
    }
}

impl EncodeMetric for LagGauges {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        for (&(input, partition), records) in lock(&self.0).iter() {
            let partition = partition.to_string();
            encoder
                .encode_family(&[("topic", input.topic()), ("partition", partition.as_str())])?
                .encode_gauge(records)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How far the newest finished epoch's `now` is behind the wall clock.
#[derive(Clone, Debug)]
pub struct EpochAge(Arc<AtomicI64>);

impl EpochAge {
    /// Says that the epoch whose `now` is `now_ms` is finished; an older one changes nothing.
    pub fn advance_to(&self, now_ms: TimeMs) {
        self.0.fetch_max(now_ms, Relaxed);
    }

    /// Seconds, 0 at least; `None` before the first epoch.
    pub fn seconds(&self) -> Option<f64> {
        let now_ms = self.0.load(Relaxed);
        if now_ms == i64::MIN {
            return None;
        }
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some((clock.as_secs_f64() - now_ms as f64 / 1e3).max(0.0))
    }
}

/// What is measured at the moment it is asked for.
#[derive(Debug)]
struct OnScrape {
    epoch_age: EpochAge,
}

impl Collector for OnScrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        if let Some(seconds) = self.epoch_age.seconds() {
            let help = "How far the newest finished epoch is behind the clock";
            let unit = Some(&Unit::Seconds);
            let gauge = ConstGauge::new(seconds);
            let metric = encoder.encode_descriptor("epoch_age", help, unit, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// Every metric that the job counts, by field.
#[derive(Debug)]
pub struct Series {
    /// `riderflow_records_read_total{topic}`
    pub records_read: Counters<Input>,
    /// `riderflow_updates_total{flag}`: judged updates.
    pub updates: Counters<Flag>,
    /// `riderflow_events_total{type}`: committed events.
    pub events: Counters<EventKind>,
    /// `riderflow_dead_letters_total{reason}`: committed dead letters.
    pub dead_letters: Counters<Reason>,
    /// `riderflow_window_rows_total{table}`: versions of windows told.
    pub window_rows: TableCounters,
    /// `riderflow_updates_beyond_horizon_total`: updates whose windows had left memory, so
    /// that they are history only.
    pub updates_beyond_horizon: Counter,
    /// `riderflow_window_approximations_total`: late updates that fell between two fixes of an
    /// old minute, so that their windows' distance goes past them.
    pub window_approximations: Counter,
    /// `riderflow_lag_records{topic,partition}`
    pub lag: LagGauges,
    /// `riderflow_epoch_age_seconds`
    pub epoch_age: EpochAge,
    /// `riderflow_epochs_committed_total`
    pub epochs_committed: Counter,
    /// `riderflow_commit_seconds`: one Kafka transaction, from begin to committed.
    pub commit_seconds: Histogram,
    /// `riderflow_event_latency_seconds`: Kafka timestamp of the cause to committed.
    pub event_latency_seconds: Histogram,
    /// `riderflow_clickhouse_rows_total{table}`: rows that ClickHouse has.
    pub clickhouse_rows: TableCounters,
    /// `riderflow_clickhouse_batch_rows`: rows of each insert.
    pub clickhouse_batch_rows: Histogram,
    /// `riderflow_clickhouse_buffered_rows`: rows that wait in memory.
    pub clickhouse_buffered_rows: Gauge,
    /// `riderflow_clickhouse_behind`: 1 while rows are let go for want of room, to be read again.
    pub clickhouse_behind: Gauge,
    /// `riderflow_clickhouse_reread_epochs`: committed epochs whose rows are still to be read
    /// again from Kafka.
    pub clickhouse_reread_epochs: Gauge,
    /// `riderflow_clickhouse_stored_epoch`: ClickHouse has all rows up to this epoch.
    pub clickhouse_stored_epoch: Gauge,
    /// `riderflow_committed_epoch`: the newest committed epoch.
    pub committed_epoch: Gauge,
    /// `riderflow_snapshot_seconds`: from the parts to the manifest.
    pub snapshot_seconds: Histogram,
    /// `riderflow_snapshot_pause_seconds`: for how long a worker does nothing but give out state
    /// of drivers, at one go.
    pub snapshot_pause_seconds: Histogram,
    /// `riderflow_snapshot_written_bytes`: what the last snapshot wrote.
    pub snapshot_bytes: Gauge,
    /// `riderflow_snapshot_failures_total`: snapshots that could not be written.
    pub snapshot_failures: Counter,
    /// `riderflow_replay_margin_records{topic,partition}`: records that Kafka still holds before
    /// the first that a restart, or ClickHouse, needs. Below 0, some are gone.
    pub replay_margin: LagGauges,
    /// `riderflow_clickhouse_retries_total{code}`: failed inserts, by ClickHouse's error code.
    pub clickhouse_retries: CodeCounters,
}

/// The metrics and their registry; a clone is another handle on the same ones.
///
/// ```
/// use riderflow::model::EventKind;
/// use riderflow::telemetry::Metrics;
///
/// let metrics = Metrics::new();
/// metrics.events.add(EventKind::AgentNear, 3);
/// metrics.event_latency_seconds.observe_n(0.08, 3);
/// assert!(metrics.encode().contains("riderflow_events_total{type=\"agent.near\"} 3\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Arc<Series>,
    registry: Arc<Registry>,
}

impl Deref for Metrics {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.series
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at 0.
    pub fn new() -> Self {
        let series = Series {
            records_read: Counters::new(),
            updates: Counters::new(),
            events: Counters::new(),
            dead_letters: Counters::new(),
            window_rows: TableCounters::default(),
            updates_beyond_horizon: Counter::default(),
            window_approximations: Counter::default(),
            lag: LagGauges::default(),
            epoch_age: EpochAge(Arc::new(AtomicI64::new(i64::MIN))),
            epochs_committed: Counter::default(),
            commit_seconds: Histogram::new(SECONDS),
            event_latency_seconds: Histogram::new(SECONDS),
            clickhouse_rows: TableCounters::default(),
            clickhouse_batch_rows: Histogram::new(ROWS),
            clickhouse_buffered_rows: Gauge::default(),
            clickhouse_behind: Gauge::default(),
            clickhouse_reread_epochs: Gauge::default(),
            clickhouse_stored_epoch: Gauge::default(),
            committed_epoch: Gauge::default(),
            snapshot_seconds: Histogram::new(SECONDS),
            snapshot_pause_seconds: Histogram::new(SECONDS),
            snapshot_bytes: Gauge::default(),
            snapshot_failures: Counter::default(),
            replay_margin: LagGauges::default(),
            clickhouse_retries: CodeCounters::default(),
        };
        Self {
            registry: Arc::new(register(&series)),
            series: Arc::new(series),
        }
    }

    /// All metrics as text, in the OpenMetrics format that Prometheus reads.
    pub fn encode(&self) -> String {
        openmetrics(&self.registry)
    }

    /// The 99th percentile of event latency since the start, seconds, from the histogram's
    /// buckets. For a recent one, keep a snapshot of `event_latency_seconds` and use
    /// [`super::HistogramSnapshot::since`].
    pub fn event_latency_p99_seconds(&self) -> Option<f64> {
        self.event_latency_seconds.quantile(0.99)
    }
}

impl Exposition for Metrics {
    fn encode(&self) -> String {
        Self::encode(self)
    }
}

fn register(series: &Series) -> Registry {
    let mut registry = Registry::with_prefix("riderflow");
    let records = || Unit::Other("records".into());
    let rows = || Unit::Other("rows".into());
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program's version", build);
    let s = series;
    registry.register("records_read", "Records read", s.records_read.clone());
    registry.register("updates", "Judged rider updates", s.updates.clone());
    registry.register("events", "Committed events", s.events.clone());
    let help = "Committed dead letters";
    registry.register("dead_letters", help, s.dead_letters.clone());
    let help = "Versions of windows told";
    registry.register("window_rows", help, s.window_rows.clone());
    let help = "Counted updates whose windows had left memory";
    let beyond = s.updates_beyond_horizon.clone();
    registry.register("updates_beyond_horizon", help, beyond);
    let help = "Late updates that the distance of their windows goes past";
    let approximations = s.window_approximations.clone();
    registry.register("window_approximations", help, approximations);
    let help = "Records of an input partition that were not read yet";
    registry.register_with_unit("lag", help, records(), s.lag.clone());
    let help = "Committed epochs";
    registry.register("epochs_committed", help, s.epochs_committed.clone());
    let help = "Duration of one Kafka transaction";
    registry.register_with_unit("commit", help, Unit::Seconds, s.commit_seconds.clone());
    let help = "From the Kafka timestamp of an event's cause to its commit";
    let latency = s.event_latency_seconds.clone();
    registry.register_with_unit("event_latency", help, Unit::Seconds, latency);
    let help = "Rows that ClickHouse has";
    registry.register("clickhouse_rows", help, s.clickhouse_rows.clone());
    let help = "Rows of one insert";
    let batch = s.clickhouse_batch_rows.clone();
    registry.register_with_unit("clickhouse_batch", help, rows(), batch);
    let help = "Rows that wait in memory for ClickHouse";
    let buffered = s.clickhouse_buffered_rows.clone();
    registry.register_with_unit("clickhouse_buffered", help, rows(), buffered);
    let help = "Whether rows are let go for want of room, to be read again";
    registry.register("clickhouse_behind", help, s.clickhouse_behind.clone());
    let help = "Epochs whose rows are still to be read again for ClickHouse";
    let epochs = Unit::Other("epochs".into());
    let reread = s.clickhouse_reread_epochs.clone();
    registry.register_with_unit("clickhouse_reread", help, epochs, reread);
    let help = "The epoch up to which ClickHouse has all rows";
    let stored = s.clickhouse_stored_epoch.clone();
    registry.register("clickhouse_stored_epoch", help, stored);
    let help = "The newest committed epoch";
    registry.register("committed_epoch", help, s.committed_epoch.clone());
    let help = "Writing one snapshot";
    let seconds = s.snapshot_seconds.clone();
    registry.register_with_unit("snapshot", help, Unit::Seconds, seconds);
    let help = "How long a worker does nothing but give out state, at one go";
    let seconds = s.snapshot_pause_seconds.clone();
    registry.register_with_unit("snapshot_pause", help, Unit::Seconds, seconds);
    let help = "What the last snapshot wrote";
    let written = s.snapshot_bytes.clone();
    registry.register_with_unit("snapshot_written", help, Unit::Bytes, written);
    let help = "Snapshots that could not be written";
    registry.register("snapshot_failures", help, s.snapshot_failures.clone());
    let help = "Records that Kafka holds before the first that is needed again";
    let margin = s.replay_margin.clone();
    registry.register_with_unit("replay_margin", help, records(), margin);
    let help = "Failed inserts that are tried again, by ClickHouse's error code";
    registry.register("clickhouse_retries", help, s.clickhouse_retries.clone());
    registry.register_collector(Box::new(OnScrape {
        epoch_age: s.epoch_age.clone(),
    }));
    registry.register_collector(Box::new(ProcessMemory));
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are an interface: dashboards and alerts are written against them.
    #[test]
    fn every_metric_has_its_name_unit_and_labels() {
        let metrics = Metrics::new();
        metrics.records_read.add(Input::Updates, 7);
        metrics.updates.add(Flag::Late, 2);
        metrics.events.add(EventKind::GeofenceEntered, 3);
        metrics.dead_letters.add(Reason::Oversize, 1);
        metrics.window_rows.add("cell_minutes", 4);
        metrics.updates_beyond_horizon.inc();
        metrics.lag.set(Input::Orders, 1, 42);
        metrics.lag.set(Input::Orders, 0, -1);
        metrics.epoch_age.advance_to(0);
        metrics.epochs_committed.inc();
        metrics.commit_seconds.observe(0.004);
        metrics.event_latency_seconds.observe_n(0.08, 3);
        metrics.clickhouse_rows.add("events", 3);
        metrics.clickhouse_batch_rows.observe(1_000.0);
        metrics.clickhouse_buffered_rows.set(5);
        metrics.clickhouse_behind.set(1);
        metrics.clickhouse_reread_epochs.set(30);
        metrics.clickhouse_stored_epoch.set(8);
        metrics.committed_epoch.set(9);
        metrics.snapshot_seconds.observe(0.004);
        metrics.snapshot_pause_seconds.observe(0.002);
        metrics.snapshot_bytes.set(77);
        metrics.snapshot_failures.inc();
        metrics.replay_margin.set(Input::Updates, 0, 5);
        metrics.clickhouse_retries.add(Some(252), 1);
        metrics.clickhouse_retries.add(None, 2);
        let text = metrics.encode();
        for line in [
            concat!(
                "riderflow_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
            "riderflow_records_read_total{topic=\"rider-updates\"} 7",
            "riderflow_records_read_total{topic=\"geofences\"} 0",
            "riderflow_updates_total{flag=\"late\"} 2",
            "riderflow_updates_total{flag=\"ok\"} 0",
            "riderflow_events_total{type=\"geofence.entered\"} 3",
            "riderflow_dead_letters_total{reason=\"oversize\"} 1",
            "riderflow_window_rows_total{table=\"cell_minutes\"} 4",
            "riderflow_updates_beyond_horizon_total 1",
            "riderflow_window_approximations_total 0",
            "riderflow_lag_records{topic=\"orders\",partition=\"1\"} 42",
            "riderflow_lag_records{topic=\"orders\",partition=\"0\"} 0",
            "riderflow_epochs_committed_total 1",
            "riderflow_commit_seconds_bucket{le=\"0.005\"} 1",
            "riderflow_event_latency_seconds_count 3",
            "riderflow_event_latency_seconds_bucket{le=\"+Inf\"} 3",
            "riderflow_clickhouse_rows_total{table=\"events\"} 3",
            "riderflow_clickhouse_batch_rows_bucket{le=\"1000.0\"} 1",
            "riderflow_clickhouse_buffered_rows 5",
            "riderflow_clickhouse_behind 1",
            "riderflow_clickhouse_reread_epochs 30",
            "riderflow_clickhouse_stored_epoch 8",
            "riderflow_committed_epoch 9",
            "riderflow_snapshot_seconds_count 1",
            "riderflow_snapshot_pause_seconds_bucket{le=\"0.002\"} 1",
            "riderflow_snapshot_written_bytes 77",
            "riderflow_snapshot_failures_total 1",
            "riderflow_replay_margin_records{topic=\"rider-updates\",partition=\"0\"} 5",
            "riderflow_clickhouse_retries_total{code=\"252\"} 1",
            "riderflow_clickhouse_retries_total{code=\"none\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        }
        for name in [
            "riderflow_epoch_age_seconds ",
            "riderflow_process_resident_memory_bytes ",
        ] {
            let found = text.lines().any(|l| l.starts_with(name));
            assert!(found, "no `{name}` in\n{text}");
        }
    }

    #[test]
    fn a_clone_counts_into_the_same_metric() {
        let metrics = Metrics::new();
        metrics.clone().events.add(EventKind::AgentNear, 2);
        metrics.events.add(EventKind::AgentArrived, 1);
        assert_eq!(metrics.events.get(EventKind::AgentNear), 2);
        assert_eq!(metrics.events.total(), 3);
    }

    #[test]
    fn the_epoch_age_is_unknown_before_the_first_epoch_and_never_grows_by_an_older_one() {
        let metrics = Metrics::new();
        assert_eq!(metrics.epoch_age.seconds(), None);
        metrics.epoch_age.advance_to(1_000_000);
        metrics.epoch_age.advance_to(2_000);
        assert_eq!(metrics.epoch_age.0.load(Relaxed), 1_000_000);
        metrics.epoch_age.advance_to(TimeMs::MAX);
        assert_eq!(metrics.epoch_age.seconds(), Some(0.0));
    }
}

//! A histogram of atomics, which can also be read back: [`HistogramSnapshot::quantile`].
//!
//! The `prometheus-client` histogram takes a lock per observation and can't be read by its
//! owner; this one counts with one atomic addition, any number of equal values at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

#[derive(Debug)]
struct Inner {
    bounds: &'static [f64],
    /// One more than `bounds`: the last is for values over every bound.
    counts: Box<[AtomicU64]>,
    /// The bits of an f64.
    sum: AtomicU64,
}

/// Counts values into fixed buckets; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

impl Histogram {
    /// A histogram with these upper bounds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner {
            bounds,
            counts,
            sum: AtomicU64::new(0f64.to_bits()),
        }))
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        self.observe_n(value, 1);
    }

    /// Counts `n` equal values.
    pub fn observe_n(&self, value: f64, n: u64) {
        if n == 0 || value.is_nan() {
            return;
        }
        let bucket = self.0.bounds.partition_point(|&bound| bound < value);
        self.0.counts[bucket].fetch_add(n, Relaxed);
        let add = value * n as f64;
        // The closure always returns `Some`, so the update can't be refused.
        let _ = self.0.sum.fetch_update(Relaxed, Relaxed, |bits| {
            Some((f64::from_bits(bits) + add).to_bits())
        });
    }

    /// The counts as they are now, to be compared with later ones.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: self.0.bounds,
            counts: self.0.counts.iter().map(|c| c.load(Relaxed)).collect(),
        }
    }

    /// The value that a share `q` (0..=1) of all values so far don't exceed; `None` if there
    /// are none. See [`HistogramSnapshot::quantile`] for how exact it is.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.snapshot().quantile(q)
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let snapshot = self.snapshot();
        let bounds = snapshot.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(snapshot.counts.iter().copied()).collect();
        let sum = f64::from_bits(self.0.sum.load(Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, snapshot.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A histogram's counts at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    bounds: &'static [f64],
    counts: Vec<u64>,
}

impl HistogramSnapshot {
    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted after `earlier`, a snapshot of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Self {
            bounds: self.bounds,
            counts: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
        }
    }

    /// The value that a share `q` (0..=1) of the values don't exceed; `None` if there are none.
    ///
    /// Interpolated within the bucket it falls in, so it is wrong by at most that bucket's
    /// width. Over the last bound it is the last bound: read it as "at least".
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * total as f64).max(1.0);
        let mut below = 0u64;
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count > 0 && (below + count) as f64 >= rank {
                let last = self.bounds.last().copied().unwrap_or(0.0);
                let Some(&upper) = self.bounds.get(bucket) else {
                    return Some(last);
                };
                let lower = bucket.checked_sub(1).map_or(0.0, |b| self.bounds[b]);
                let share = (rank - below as f64) / count as f64;
                return Some(lower + (upper - lower) * share);
            }
            below += count;
        }
        self.bounds.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.0, 4.0];

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe_n(1.0, 3);
        histogram.observe(1.5);
        histogram.observe(9.0);
        assert_eq!(histogram.snapshot().counts, [3, 1, 0, 1]);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let histogram = Histogram::new(BOUNDS);
        assert_eq!(histogram.quantile(0.99), None);
        histogram.observe_n(0.5, 98);
        histogram.observe_n(3.0, 2);
        let p50 = histogram.quantile(0.5).unwrap();
        let p99 = histogram.quantile(0.99).unwrap();
        assert!(p50 <= 1.0, "{p50}");
        assert!((2.0..=4.0).contains(&p99), "{p99}");
        histogram.observe_n(100.0, 1_000);
        assert_eq!(histogram.quantile(0.99), Some(4.0));
    }

    #[test]
    fn a_later_snapshot_tells_what_was_counted_since() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe_n(0.5, 1_000);
        let earlier = histogram.snapshot();
        histogram.observe_n(3.0, 10);
        let recent = histogram.snapshot().since(&earlier);
        assert_eq!(recent.count(), 10);
        assert!(recent.quantile(0.01).unwrap() > 2.0);
    }

    #[test]
    fn what_is_no_number_is_not_counted() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe(f64::NAN);
        histogram.observe_n(1.0, 0);
        assert_eq!(histogram.snapshot().count(), 0);
    }
}

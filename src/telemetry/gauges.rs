//! How many of something there are now, by kind.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;

use super::Label;

/// One gauge per value of a label; all of them are there from the start, at 0.
#[derive(Debug)]
pub struct Gauges<L> {
    each: Arc<[Gauge]>,
    label: std::marker::PhantomData<L>,
}

impl<L> Clone for Gauges<L> {
    fn clone(&self) -> Self {
        Self {
            each: self.each.clone(),
            label: std::marker::PhantomData,
        }
    }
}

impl<L: Label> Default for Gauges<L> {
    fn default() -> Self {
        Self {
            each: L::VALUES.iter().map(|_| Gauge::default()).collect(),
            label: std::marker::PhantomData,
        }
    }
}

impl<L: Label> Gauges<L> {
    fn gauge(&self, label: L) -> Option<&Gauge> {
        let index = L::VALUES.iter().position(|&value| value == label)?;
        self.each.get(index)
    }

    /// One more of `label`, until what is returned is dropped.
    pub fn hold(&self, label: L) -> Held {
        Held::of(self.gauge(label).cloned().unwrap_or_default())
    }

    /// How many there are of `label`.
    pub fn get(&self, label: L) -> i64 {
        self.gauge(label).map_or(0, |gauge| gauge.get())
    }
}

impl<L: Label> EncodeMetric for Gauges<L> {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        for (value, gauge) in L::VALUES.iter().zip(self.each.iter()) {
            gauge.encode(encoder.encode_family(&[(L::NAME, value.text())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// One of what a gauge counts; no longer when it is dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// One more.
    pub fn of(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

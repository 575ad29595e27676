//! What became of the phones' updates and connections.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::link::Fault;
use crate::simulate::What;
use crate::telemetry::Histogram;

/// Bounds of the acknowledgements' latency, s: a fifth apart.
const BOUNDS_S: &[f64] = &[
    0.001, 0.0012, 0.0015, 0.0018, 0.0022, 0.0027, 0.0033, 0.0039, 0.0047, 0.0056, 0.0068, 0.0082,
    0.01, 0.012, 0.015, 0.018, 0.022, 0.027, 0.033, 0.039, 0.047, 0.056, 0.068, 0.082, 0.1, 0.12,
    0.15, 0.18, 0.22, 0.27, 0.33, 0.39, 0.47, 0.56, 0.68, 0.82, 1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3,
    3.9, 4.7, 5.6, 6.8, 8.2, 10.0, 15.0, 22.0, 33.0, 47.0, 68.0, 100.0, 150.0, 220.0, 330.0, 470.0,
    680.0, 1000.0,
];

/// Counters that all phones share.
pub(super) struct Tally {
    given: AtomicU64,
    acked: [AtomicU64; What::ALL.len()],
    refused: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
    connected: AtomicU64,
    connections: AtomicU64,
    faults: AtomicU64,
    ack_latency_s: Histogram,
    last_fault: Mutex<Option<Fault>>,
    last_refusal: Mutex<Option<String>>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            given: AtomicU64::new(0),
            acked: [const { AtomicU64::new(0) }; What::ALL.len()],
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            ack_latency_s: Histogram::new(BOUNDS_S),
            last_fault: Mutex::new(None),
            last_refusal: Mutex::new(None),
        }
    }

    pub(super) fn on_given(&self) {
        self.given.fetch_add(1, Relaxed);
    }

    pub(super) fn on_acked(&self, what: What, latency: Duration) {
        self.ack_latency_s.observe(latency.as_secs_f64());
        self.acked[what.tag()].fetch_add(1, Relaxed);
    }

    pub(super) fn on_refused(&self, reason: &str, field: Option<&str>) {
        let refusal = match field {
            Some(field) => format!("{reason} of {field}"),
            None => reason.to_owned(),
        };
        *lock(&self.last_refusal) = Some(refusal);
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn on_dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn on_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn on_connected(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connected.fetch_add(1, Relaxed);
    }

    pub(super) fn on_disconnected(&self) {
        self.connected.fetch_sub(1, Relaxed);
    }

    pub(super) fn on_fault(&self, fault: Fault) {
        *lock(&self.last_fault) = Some(fault);
        self.faults.fetch_add(1, Relaxed);
    }

    /// Acknowledged updates of a kind.
    pub(super) fn acked(&self, what: What) -> u64 {
        self.acked[what.tag()].load(Relaxed)
    }

    /// All acknowledged updates.
    pub(super) fn acked_total(&self) -> u64 {
        What::ALL.into_iter().map(|what| self.acked(what)).sum()
    }

    /// Updates that are neither acknowledged, nor refused, nor dropped.
    pub(super) fn waiting(&self) -> u64 {
        let settled = self.acked_total() + self.refused() + self.dropped();
        self.given.load(Relaxed).saturating_sub(settled)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Connections that are open now.
    pub(super) fn connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    /// Connections that were ever opened.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Connections that were lost or never came about.
    pub(super) fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    pub(super) fn last_fault(&self) -> Option<Fault> {
        lock(&self.last_fault).clone()
    }

    pub(super) fn last_refusal(&self) -> Option<String> {
        lock(&self.last_refusal).clone()
    }

    /// What a share `q` of the acknowledged updates waited for at most, s.
    pub(super) fn ack_latency_s(&self, q: f64) -> Option<f64> {
        self.ack_latency_s.quantile(q)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

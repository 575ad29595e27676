//! What the intake counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::socket::End;

/// Counts since the start; whoever serves metrics reads them.
#[derive(Default)]
pub struct Counters {
    /// Connections now.
    pub connections: AtomicU64,
    /// Connections ever.
    pub connected: AtomicU64,
    /// Updates handed to Kafka's client.
    pub taken: AtomicU64,
    /// Of those, how many Kafka has.
    pub stored: AtomicU64,
    /// Updates that were taken before, here or by another gateway.
    pub resent: AtomicU64,
    /// Updates refused, with an `error`.
    pub refused: AtomicU64,
    /// Updates not taken since the buffer is full, with a `retry`.
    pub busy: AtomicU64,
    /// Updates not taken since the connection sends too many, with a `retry`.
    pub limited: AtomicU64,
    /// Updates that came after a `retry` before the phone went back.
    pub out_of_turn: AtomicU64,
    /// Acknowledgements told.
    pub acks: AtomicU64,
    /// Connections ended, by [`End`], in the order of [`End::ALL`].
    pub ended: [AtomicU64; End::ALL.len()],
    on_stored: Option<Box<dyn Fn(Duration) + Send + Sync>>,
}

impl Counters {
    /// All zero; `on_stored` is told for each update how long Kafka took to have it.
    pub fn new(on_stored: Option<Box<dyn Fn(Duration) + Send + Sync>>) -> Self {
        Self {
            on_stored,
            ..Self::default()
        }
    }

    pub(super) fn on_stored(&self, after: Duration) {
        add(&self.stored);
        if let Some(on_stored) = &self.on_stored {
            on_stored(after);
        }
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts a connection for as long as it lives.
pub(super) struct Present(Arc<Counters>);

impl Present {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        add(&counters.connected);
        add(&counters.connections);
        Self(counters)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

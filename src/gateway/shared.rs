//! What the parts of a gateway are given.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::access::Access;
use super::metrics::GatewayMetrics;
use super::server::Draining;
use crate::config::Pipeline;
use crate::telemetry::Health;

/// What every part of a gateway shares.
#[expect(
    dead_code,
    reason = "the parts that use all of it come with their routes"
)]
pub(crate) struct Shared {
    /// The whole pipeline, valid.
    pub(crate) pipeline: Pipeline,
    /// Checks tokens.
    pub(crate) access: Arc<Access>,
    /// Counts.
    pub(crate) metrics: GatewayMetrics,
    /// To name conditions of being ready.
    pub(crate) health: Health,
    /// When to leave.
    pub(crate) draining: Draining,
    /// To say that this gateway can't go on.
    pub(crate) alarm: Alarm,
    /// The base map's GeoJSON, if another than the one that is built in.
    pub(crate) base_map: Option<Bytes>,
}

/// Ends the gateway for a reason: the first one counts. A clone raises the same alarm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm(Arc<OnceLock<String>>);

impl Alarm {
    /// The gateway can't go on.
    pub(crate) fn raise(&self, message: impl Into<String>) {
        // A later failure follows from the first.
        let _ = self.0.set(message.into());
    }

    /// Whether it can't.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.get().is_some()
    }

    /// Why it can't.
    pub(crate) fn message(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

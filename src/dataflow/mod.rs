//! The timely dataflow around [`crate::detect`].
//!
//! ```text
//!  read_inputs ──updates──────────────(by driver)──▶ detect_epochs ──events──┐
//!      │ ├──────orders─(by order)▶ resolve_orders ─(by driver)─▶ │           │
//!      │ └──────fences──────────────(to all)───────────────────▶ │      (to one)
//!      ├────────dead letters──────────────────────────────────────────▶ collect_epoch
//!      └────────offset ranges─────────────────────────────────────────▶      │
//!                                         judged updates ─▶ Output ◀─────────┘
//! ```
//!
//! The timely time is the epoch. Operators read no clock but the source's, which decides
//! into which epoch a record falls; everything after it is a function of the epochs.
//! Owns the operators and the vocabulary over frontiers. Never does I/O of its own: records
//! come from a [`RecordReader`], and [`Output`]s leave by a bounded channel, which blocks
//! the worker when it is full.

mod collect_epoch;
mod detect_epochs;
pub mod graph;
mod read_inputs;
mod resolve_orders;
pub mod windows;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use timely::dataflow::Scope;
use timely::dataflow::operators::probe::{Handle, Probe};
use timely::progress::frontier::MutableAntichain;

pub use read_inputs::Feed;

use crate::detect::Rules;
use crate::epoch::{OffsetRange, RecordReader};
use crate::model::{DeadLetter, Epoch, Event, Location, TimeMs, WindowRows};
use crate::telemetry::Metrics;
use crate::wire::Limits;

/// What every operator of one worker shares.
pub struct Context {
    /// Milliseconds in an epoch.
    pub interval_ms: u64,
    /// Limits on updates.
    pub limits: Limits,
    /// The rules of detection.
    pub rules: Rules,
    /// Whether judged updates are handed on.
    pub keep_history: bool,
    /// The windows to compute, if any.
    pub windows: Option<windows::Settings>,
    /// The wall clock, ms since 1970; read by the source alone.
    pub clock: Box<dyn Fn() -> TimeMs>,
    /// Where outputs go.
    pub outputs: SyncSender<Output>,
    /// Told when the job can't go on.
    pub fail: Arc<dyn Fn(String) + Send + Sync>,
    /// Counters.
    pub metrics: Metrics,
}

impl Context {
    /// Hands an output on; waits while the channel is full. A receiver that has gone has
    /// told why already, and the job is ending.
    fn give(&self, output: Output) {
        let _ = self.outputs.send(output);
    }
}

/// What leaves the dataflow. The locations of an epoch, of every worker, come before the
/// epoch itself.
pub enum Output {
    /// Some judged updates of an epoch that is whole on one worker.
    Locations {
        /// The epoch.
        epoch: Epoch,
        /// The updates.
        rows: Vec<Location>,
    },
    /// Windows that have changed. They are upserts: repeating them is harmless.
    Windows {
        /// The newest epoch whose updates are in them: they may be stored once it is committed.
        through: Epoch,
        /// The windows.
        rows: WindowRows,
    },
    /// An epoch that is whole on every worker; epochs come in order.
    Epoch(EpochOutput),
}

/// An epoch's outputs, in the order in which they are told.
pub struct EpochOutput {
    /// The epoch.
    pub epoch: Epoch,
    /// Its events.
    pub events: Vec<Event>,
    /// Its dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The offsets that it was made of: only partitions that gave something.
    pub ranges: Vec<OffsetRange>,
}

/// How far one worker's dataflow is.
pub struct Progress {
    /// At the oldest epoch that isn't judged yet.
    pub judged: Handle<u64>,
    /// At the oldest epoch that isn't in the windows yet, if there are any.
    pub windows: Option<Handle<u64>>,
}

/// Builds one worker's part of the dataflow.
pub fn build<R: RecordReader>(
    scope: Scope<'_, u64>,
    feeds: Vec<Feed<R>>,
    context: Context,
) -> Progress {
    let context = Rc::new(context);
    let (judged, finished) = (Handle::new(), Handle::new());
    let decoded = read_inputs::read_inputs(scope, feeds, finished.clone(), Rc::clone(&context));
    let steps = resolve_orders::resolve_orders(decoded.orders);
    let (events, counted) =
        detect_epochs::detect_epochs(decoded.updates, steps, decoded.fences, Rc::clone(&context));
    let events = events.probe_with(&judged).probe_with(&finished);
    let windows = context.windows.map(|settings| {
        let marks = timely::dataflow::operators::generic::operator::empty(scope);
        windows::windows(counted, marks, None, &settings, &context, &finished).0
    });
    collect_epoch::collect_epoch(events, decoded.dead_letters, decoded.ranges, context);
    Progress { judged, windows }
}

/// The least time that may still come; `None` when nothing can.
fn frontier_of(frontier: &MutableAntichain<u64>) -> Option<u64> {
    frontier.frontier().first().copied()
}

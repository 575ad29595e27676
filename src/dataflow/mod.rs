//! The timely dataflow around [`crate::detect`].
//!
//! ```text
//!  read_inputs ──updates──────────────(by driver)──▶ detect_epochs ──events──┐
//!      │ ├──────orders─(by order)▶ resolve_orders ─(by driver)─▶ │           │
//!      │ ├──────fences──────────────(to all)───────────────────▶ │           │
//!      │ │                        └▶ keep_fences                 ▼      (to one)
//!      │ │                                          counted ▶ windows        │
//!      ├────────dead letters──────────────────────────────────────────▶ collect_epoch
//!      ├────────offset ranges─────────────────────────────────────────▶      │
//!      └────────marks ─▶ all that have state ─parts─(to one)─▶ collect_parts │
//!                             judged updates, windows ─▶ Output ◀─────────┴──┘
//! ```
//!
//! The timely time is the epoch. Operators read no clock but the source's, which decides
//! into which epoch a record falls; everything after it is a function of the epochs.
//! Owns the operators and the vocabulary over frontiers. Never does I/O of its own: records
//! come from a [`RecordReader`], and [`Output`]s leave by a bounded channel, which blocks
//! the worker when it is full.

mod collect_epoch;
mod collect_parts;
mod detect_epochs;
mod forward;
pub mod graph;
mod keep_fences;
mod marks;
mod outboxes;
mod partition;
mod read_inputs;
mod resolve_orders;
pub mod windows;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::probe::{Handle, Probe};
use timely::dataflow::operators::vec::Broadcast;
use timely::progress::frontier::MutableAntichain;

use forward::Tray;
use keep_fences::FenceState;
pub use read_inputs::Feed;

use crate::detect::Rules;
use crate::epoch::{OffsetRange, RecordReader, key_group};
use crate::model::{DeadLetter, DriverId, Epoch, Event, Location, TimeMs, WindowRows};
use crate::snapshot::{Mark, Part};
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
    /// The last epoch, where all there is to read ends: what is due by then is told, though
    /// nothing comes.
    pub until: Option<Epoch>,
    /// Whether judged updates are handed on.
    pub keep_history: bool,
    /// The windows to compute, if any.
    pub windows: Option<windows::Settings>,
    /// The wall clock, ms since 1970; read by the source alone.
    pub clock: Box<dyn Fn() -> TimeMs>,
    /// Where outputs go; `None` in a process that sends its outputs to the first one.
    pub outputs: Option<SyncSender<Output>>,
    /// Asked by the source, whether to take a snapshot; only on the first worker of all may it
    /// say yes.
    pub wanted: Box<dyn Fn() -> Option<Mark>>,
    /// Told when the job can't go on.
    pub fail: Arc<dyn Fn(String) + Send + Sync>,
    /// Whether there are other processes.
    pub is_spread: bool,
    /// Empty at the start.
    pub trays: Trays,
    /// Counters.
    pub metrics: Metrics,
}

impl Context {
    /// Hands an output on; waits while the channel is full. A receiver that has gone has
    /// told why already, and the job is ending.
    fn give(&self, output: Output) {
        let Some(outputs) = &self.outputs else {
            let tray = match &output {
                Output::Windows { .. } => &self.trays.windows,
                _ => &self.trays.judged,
            };
            return tray.borrow_mut().push(output);
        };
        let _ = outputs.send(output);
    }
}

/// Outputs of a process that isn't the first, by the operators that made them.
#[derive(Default)]
pub struct Trays {
    judged: Tray,
    windows: Tray,
}

/// What a start goes on from: the parts of a snapshot that one worker needs, of each key group
/// from the last whole one on, the oldest first.
#[derive(Default)]
pub struct Restored {
    /// It is the state after this epoch.
    pub epoch: Epoch,
    /// Of all key groups.
    pub fences: Vec<Part>,
    /// Of the worker's own key groups.
    pub orders: Vec<Part>,
    /// Of the worker's own key groups.
    pub drivers: Vec<Part>,
    /// Of the worker's own key groups.
    pub sessions: Vec<Part>,
    /// Of the worker's own key groups.
    pub trails: Vec<Part>,
    /// Of the worker's own key groups.
    pub cells: Vec<Part>,
}

impl Restored {
    /// Whether a key group is a worker's own.
    pub fn is_own(group: u64, index: usize, peers: usize) -> bool {
        group % peers as u64 == index as u64
    }
}

/// What leaves the dataflow. The locations of an epoch, of every worker, come before the
/// epoch itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// The state after an epoch whose [`EpochOutput::mark`] said so; it comes some time after
    /// the epoch.
    Snapshot {
        /// The epoch.
        epoch: Epoch,
        /// The parts of all workers.
        parts: Vec<Part>,
    },
    /// All that windows had to tell of the epochs up to this one has come.
    Settled {
        /// The epoch.
        through: Epoch,
    },
}

/// An epoch's outputs, in the order in which they are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochOutput {
    /// The epoch.
    pub epoch: Epoch,
    /// Its events.
    pub events: Vec<Event>,
    /// Its dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The offsets that it was made of: only partitions that gave something.
    pub ranges: Vec<OffsetRange>,
    /// Whether the state after it is a snapshot's.
    pub mark: Option<Mark>,
}

/// How far one worker's dataflow is.
pub struct Progress {
    /// At the oldest epoch that isn't judged yet.
    pub judged: Handle<u64>,
    /// At the oldest epoch that isn't in the windows yet, if there are any.
    pub windows: Option<Handle<u64>>,
}

/// The key group of a driver, which says which worker it belongs to.
fn group_of(driver: DriverId) -> u64 {
    key_group(&driver.0.to_le_bytes())
}

/// Builds one worker's part of the dataflow.
pub fn build<R: RecordReader>(
    scope: Scope<'_, u64>,
    feeds: Vec<Feed<R>>,
    restored: Option<Restored>,
    context: Context,
) -> Progress {
    let is_spread = context.is_spread;
    let context = Rc::new(context);
    let (judged, finished) = (Handle::new(), Handle::new());
    let restored = restored.unwrap_or_default();
    let decoded = read_inputs::read_inputs(scope, feeds, finished.clone(), Rc::clone(&context));
    let marks = decoded.marks.broadcast();

    let (restored_fences, restored_windows) = (
        entries(&restored.fences, &context),
        windows::Restored {
            epoch: restored.epoch,
            trails: restored.trails,
            cells: restored.cells,
        },
    );
    let is_own = |fence: &FenceState| {
        let group = key_group(fence.id.0.as_bytes());
        Restored::is_own(group, scope.index(), scope.peers())
    };
    let own_fences = restored_fences
        .iter()
        .filter(|&fence| is_own(fence))
        .cloned();
    let fence_parts =
        keep_fences::keep_fences(decoded.fences.clone(), marks.clone(), own_fences.collect());
    let (steps, order_parts) = resolve_orders::resolve_orders(
        decoded.orders,
        marks.clone(),
        entries(&restored.orders, &context),
    );
    let detected = detect_epochs::detect_epochs(
        decoded.updates,
        decoded.numbers,
        steps,
        decoded.fences,
        marks.clone(),
        detect_epochs::Known {
            fences: restored_fences,
            drivers: entries(&restored.drivers, &context),
            sessions: entries(&restored.sessions, &context),
        },
        Rc::clone(&context),
    );
    let events = detected.events.probe_with(&judged).probe_with(&finished);
    let forwarded = is_spread.then(|| {
        forward::forward(
            "forward_rows",
            events.clone(),
            Rc::clone(&context.trays.judged),
        )
    });

    let mut parts = fence_parts.concat(order_parts).concat(detected.parts);
    let mut windows = None;
    let mut forwarded_windows = None;
    if let Some(settings) = context.windows {
        let (done, window_parts) = windows::windows(
            detected.counted,
            marks.clone(),
            Some(restored_windows),
            &settings,
            &context,
            &finished,
        );
        windows = Some(done);
        forwarded_windows = is_spread.then(|| {
            let tray = Rc::clone(&context.trays.windows);
            forward::forward("forward_windows", window_parts.clone(), tray)
        });
        parts = parts.concat(window_parts);
    }
    collect_parts::collect_parts(parts, forwarded_windows, Rc::clone(&context));
    collect_epoch::collect_epoch(
        events,
        decoded.dead_letters,
        decoded.ranges,
        marks,
        forwarded,
        context,
    );
    Progress { judged, windows }
}

/// The entries of parts, in their order.
fn entries<T: for<'de> Deserialize<'de>>(parts: &[Part], context: &Context) -> Vec<T> {
    let mut entries = Vec::new();
    for part in parts {
        if let Err(error) = part.entries(|entry| entries.push(entry)) {
            (context.fail)(format!(
                "could not read the snapshot's {:?} of key group {}: {error}",
                part.kind, part.group
            ));
        }
    }
    entries
}

/// The least time that may still come; `None` when nothing can.
fn frontier_of(frontier: &MutableAntichain<u64>) -> Option<u64> {
    frontier.frontier().first().copied()
}

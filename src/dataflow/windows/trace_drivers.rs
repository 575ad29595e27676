//! Follows every driver's counted updates: the driver's own windows are told from here, and
//! what changes in cells goes on as differences.
//!
//! At a mark all drivers are saved as they are after its epoch, some in each activation, so
//! that the worker's other operators have their turns; later epochs wait meanwhile.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::cell_minutes::Change;
use super::drivers::{Drivers, Outcome, Saving};
use super::fix::Counted;
use super::grid::Grid;
use super::{Refresh, keep_from, owned_groups};
use crate::dataflow::marks::{Marks, end_of};
use crate::dataflow::{Context, Output, frontier_of};
use crate::model::{Epoch, WindowRows};
use crate::snapshot::{Mark, Part};

/// What is saved in one activation, bytes: some milliseconds. Tests are to see many.
const SAVE_BYTES: usize = if cfg!(test) { 1_000 } else { 1 << 20 };

/// By epoch, counted updates with the right to tell of it.
type Waiting = BTreeMap<u64, (Capability<u64>, Vec<Vec<Counted>>)>;

/// `counted` comes by driver already, each epoch's in merged order. Goes on from the parts of
/// an epoch, if any are given.
pub(super) fn trace_drivers<'scope>(
    counted: StreamVec<'scope, u64, Counted>,
    marks: StreamVec<'scope, u64, Mark>,
    restored: Option<(Epoch, &[Part])>,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
) -> (StreamVec<'scope, u64, Change>, StreamVec<'scope, u64, Part>) {
    let scope = counted.scope();
    let owned = owned_groups(scope);
    let mut builder = OperatorBuilder::new("trace_drivers".to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let mut counted = builder.new_input(counted, Pipeline);
    let mut marks = builder.new_input(marks, Pipeline);
    let (output, traffic) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Change>>>::from(output);
    let (parts_out, parts) = builder.new_output();
    let mut parts_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Part>>>::from(parts_out);

    let mut tracing = Tracing::new(grid, refresh, Rc::clone(&context));
    if let Some((epoch, saved)) = restored
        && let Err(message) = tracing.restore(epoch, saved)
    {
        (context.fail)(message);
        // What is incomplete must not look complete: the capabilities stay.
        builder.build(|capabilities| move |_frontiers| _ = &capabilities);
        return (traffic, parts);
    }
    builder.build(move |capabilities| {
        // Held until what is due has been told: others take what the frontier has passed for
        // told.
        let mut untold = capabilities.into_iter().nth(1);
        let mut waiting = Waiting::new();
        let mut waiting_marks = Marks::default();
        let mut saving: Option<(Capability<u64>, Saving)> = None;
        move |frontiers| {
            counted.for_each(|capability, counted| {
                if let Some(capability) = capability.retain_least(0) {
                    waiting
                        .entry(*capability.time())
                        .or_insert_with(|| (capability, Vec::new()))
                        .1
                        .push(std::mem::take(counted));
                }
            });
            marks.for_each(|capability, marks| waiting_marks.take(&capability, 1, marks));

            let complete = frontiers.iter().filter_map(frontier_of).min();
            let mut output = output.activate();
            loop {
                if let Some((_, under_way)) = &mut saving
                    && !tracing.save(under_way)
                {
                    activator.activate();
                    return;
                }
                if let Some((capability, saved)) = saving.take() {
                    parts_out
                        .activate()
                        .session(&capability)
                        .give_iterator(saved.finish(&owned).into_iter());
                }
                let mark = waiting_marks.next(complete);
                let end = end_of(&mark, complete);
                while let Some(entry) = waiting.first_entry()
                    && end.is_none_or(|end| *entry.key() < end)
                {
                    let (epoch, (capability, counted)) = entry.remove_entry();
                    tracing.epoch(epoch, &counted);
                    let traffic = tracing.drivers.take_traffic();
                    output
                        .session(&capability)
                        .give_iterator(traffic.map(|(key, traffic)| (key, epoch, traffic)));
                }
                tracing.advance(end.unwrap_or(tracing.through + 1));
                let Some((capability, mark)) = mark else {
                    keep_from(&mut untold, complete);
                    return;
                };
                saving = Some((capability, Saving::new(mark)));
            }
        }
    });
    (traffic, parts)
}

struct Tracing {
    drivers: Drivers,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
    rows: WindowRows,
    /// The newest epoch with updates.
    through: u64,
    /// Epochs before this one have been told as far as they were due.
    next: u64,
}

impl Tracing {
    fn new(grid: Grid, refresh: Refresh, context: Rc<Context>) -> Self {
        Self {
            drivers: Drivers::new(grid, refresh.epochs()),
            grid,
            refresh,
            context,
            rows: WindowRows::default(),
            through: 0,
            next: 0,
        }
    }

    /// Goes on after an epoch.
    fn restore(&mut self, epoch: Epoch, parts: &[Part]) -> Result<(), String> {
        self.drivers.restore(parts, self.grid.now_ms(epoch))?;
        self.through = epoch.0;
        self.next = epoch.0 + 1;
        Ok(())
    }

    /// Saves some drivers; true once all are.
    fn save(&mut self, saving: &mut Saving) -> bool {
        let began = Instant::now();
        let is_done = self.drivers.save(saving, SAVE_BYTES);
        let pause_s = began.elapsed().as_secs_f64();
        self.context.metrics.snapshot_pause_seconds.observe(pause_s);
        is_done
    }

    fn epoch(&mut self, epoch: u64, counted: &[Vec<Counted>]) {
        self.advance(epoch);
        let now_ms = self.grid.now_ms(Epoch(epoch));
        let (mut beyond, mut approximate) = (0, 0);
        for counted in counted.iter().flatten() {
            match self.drivers.add(counted, now_ms) {
                Outcome::Exact => {}
                Outcome::Approximate => approximate += 1,
                Outcome::BeyondHorizon => beyond += 1,
            }
        }
        let metrics = &self.context.metrics;
        metrics.updates_beyond_horizon.inc_by(beyond);
        metrics.window_approximations.inc_by(approximate);
        self.through = epoch;
    }

    /// Tells what is due before `frontier`.
    fn advance(&mut self, frontier: u64) {
        // After a jump, one round tells all there is.
        let from = self.next;
        for epoch in from..frontier.min(from + self.refresh.epochs()) {
            let rows = &mut self.rows;
            self.drivers
                .finish(Epoch(epoch), &mut rows.drivers, &mut rows.sessions);
        }
        self.next = self.next.max(frontier);
        self.give();
    }

    fn give(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        let metrics = &self.context.metrics;
        metrics
            .window_rows
            .add("driver_minutes", rows.drivers.len() as u64);
        metrics
            .window_rows
            .add("driver_sessions", rows.sessions.len() as u64);
        self.context.give(Output::Windows {
            through: Epoch(self.through),
            rows,
        });
    }
}

/// A job that stops tells what it has: the next one would tell it again.
impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(done) = self.next.checked_sub(1) {
            let rows = &mut self.rows;
            self.drivers
                .tell_all(Epoch(done), &mut rows.drivers, &mut rows.sessions);
            self.give();
        }
    }
}

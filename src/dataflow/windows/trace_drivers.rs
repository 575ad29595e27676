//! Follows every driver's counted updates: the driver's own windows are told from here, and
//! what changes in cells goes on as differences.

use std::collections::BTreeMap;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::Refresh;
use super::cell_minutes::Change;
use super::drivers::{Drivers, Outcome};
use super::fix::Counted;
use super::grid::Grid;
use crate::dataflow::{Context, Output, frontier_of};
use crate::model::{Epoch, WindowRows};

/// `counted` comes by driver already, each epoch's in merged order.
pub(super) fn trace_drivers<'scope>(
    counted: StreamVec<'scope, u64, Counted>,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
) -> StreamVec<'scope, u64, Change> {
    counted.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
        Pipeline,
        "trace_drivers",
        move |_capability, _info| {
            let mut waiting = BTreeMap::new();
            let mut tracing = Tracing::new(grid, refresh, context);
            move |(input, frontier), output| {
                input.for_each(|capability, counted| {
                    if let Some(capability) = capability.retain_least(output.output_index()) {
                        waiting
                            .entry(*capability.time())
                            .or_insert_with(|| (capability, Vec::new()))
                            .1
                            .push(std::mem::take(counted));
                    }
                });
                let complete = frontier_of(frontier);
                while let Some(entry) = waiting.first_entry()
                    && complete.is_none_or(|frontier| *entry.key() < frontier)
                {
                    let (epoch, (capability, counted)) = entry.remove_entry();
                    tracing.epoch(epoch, &counted);
                    let traffic = tracing.drivers.take_traffic();
                    output
                        .session(&capability)
                        .give_iterator(traffic.map(|(key, traffic)| (key, epoch, traffic)));
                }
                tracing.advance(complete.unwrap_or(tracing.through + 1));
            }
        },
    )
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

//! The heart: an epoch's inputs, in their merged order, through the detector.
//!
//! Exchanged by driver, so that a driver's updates and order steps meet on one worker
//! whatever partition they came by; fences come to every worker. An epoch is judged when no
//! input can add to it, so what is told depends on the merged order alone.

use std::collections::BTreeMap;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Capability, InputCapability};

use super::windows::Counted;
use super::{Context, Output, frontier_of};
use crate::detect::{Detector, OrderStep, Outputs};
use crate::epoch::key_group;
use crate::model::{DriverId, Epoch, Event, FenceChange, Flag, Place, Update};

fn group_of(driver: DriverId) -> u64 {
    key_group(&driver.0.to_le_bytes())
}

/// What an epoch has received so far.
#[derive(Default)]
struct Waiting {
    /// For events, and for what windows count.
    capabilities: Option<[Capability<u64>; 2]>,
    updates: Vec<Vec<Update>>,
    changes: Vec<Change>,
}

/// A capability for each of the two outputs.
fn retain(capability: &InputCapability<u64>) -> Option<[Capability<u64>; 2]> {
    Some([capability.retain_least(0)?, capability.retain_least(1)?])
}

/// What isn't an update.
enum Change {
    Fence(FenceChange),
    Order(OrderStep),
}

impl Change {
    fn place(&self) -> Place {
        match self {
            Self::Fence(change) => change.place,
            Self::Order(step) => step.place,
        }
    }
}

pub(super) fn detect_epochs<'scope>(
    updates: StreamVec<'scope, u64, Update>,
    steps: StreamVec<'scope, u64, OrderStep>,
    fences: StreamVec<'scope, u64, FenceChange>,
    context: Rc<Context>,
) -> (
    StreamVec<'scope, u64, Event>,
    StreamVec<'scope, u64, Counted>,
) {
    let mut builder = OperatorBuilder::new("detect".to_owned(), updates.scope());
    let by_driver = Exchange::new(|update: &Update| group_of(update.driver));
    let steps_by_driver = Exchange::new(|step: &OrderStep| group_of(step.driver));
    let mut updates = builder.new_input(updates, by_driver);
    let mut steps = builder.new_input(steps, steps_by_driver);
    let mut fences = builder.new_input(fences.broadcast(), Pipeline);
    let (output, events) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(output);
    let (counted_out, counted) = builder.new_output();
    let mut counted_out =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<Counted>>>::from(counted_out);

    builder.build(move |_capabilities| {
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        let mut judge = Judge::new(context);
        move |frontiers| {
            updates.for_each(|capability, data| {
                if let Some(capabilities) = retain(&capability) {
                    let entry = waiting.entry(*capabilities[0].time()).or_default();
                    entry.updates.push(std::mem::take(data));
                    entry.capabilities.get_or_insert(capabilities);
                }
            });
            steps.for_each(|capability, data| {
                if let Some(capabilities) = retain(&capability) {
                    let entry = waiting.entry(*capabilities[0].time()).or_default();
                    entry.changes.extend(data.drain(..).map(Change::Order));
                    entry.capabilities.get_or_insert(capabilities);
                }
            });
            fences.for_each(|capability, data| {
                if let Some(capabilities) = retain(&capability) {
                    let entry = waiting.entry(*capabilities[0].time()).or_default();
                    entry.changes.extend(data.drain(..).map(Change::Fence));
                    entry.capabilities.get_or_insert(capabilities);
                }
            });

            let complete = frontiers.iter().filter_map(frontier_of).min();
            let mut output = output.activate();
            while let Some(entry) = waiting.first_entry()
                && complete.is_none_or(|frontier| *entry.key() < frontier)
            {
                let (epoch, mut received) = entry.remove_entry();
                let [events_cap, counted_cap] = received
                    .capabilities
                    .take()
                    .expect("an epoch waits because something came");
                let events = judge.epoch(Epoch(epoch), received);
                if !events.is_empty() {
                    output.session(&events_cap).give_container(events);
                    events.clear();
                }
                if !judge.counted.is_empty() {
                    let mut counted = std::mem::take(&mut judge.counted);
                    counted_out
                        .activate()
                        .session(&counted_cap)
                        .give_container(&mut counted);
                }
            }
        }
    });
    (events, counted)
}

/// Drives the detector through one epoch after the other.
struct Judge {
    context: Rc<Context>,
    detector: Detector,
    outputs: Outputs,
    /// What windows count of the epoch, in the order in which it was judged.
    counted: Vec<Counted>,
    order: Vec<(Place, u32, u32)>,
}

impl Judge {
    fn new(context: Rc<Context>) -> Self {
        let detector = Detector::new(context.rules.clone());
        Self {
            context,
            detector,
            outputs: Outputs::default(),
            counted: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Judges all that an epoch received, in merged order. Returns what was told.
    fn epoch(&mut self, epoch: Epoch, received: Waiting) -> &mut Vec<Event> {
        let now_ms = epoch.now_ms(self.context.interval_ms);
        let Self {
            detector,
            outputs,
            order,
            ..
        } = self;
        let mut changes = received.changes;
        // Stable, since one record may bring a driver several steps, in their order.
        changes.sort_by_key(Change::place);
        let mut changes = changes.into_iter().peekable();
        let apply = |change, outputs: &mut _, detector: &mut Detector| match change {
            Change::Fence(change) => detector.on_fence(change, now_ms, outputs),
            Change::Order(step) => detector.on_order(step, now_ms, outputs),
        };

        // Places are sorted instead of updates: the runs of each partition are in order.
        order.clear();
        for (container, updates) in received.updates.iter().enumerate() {
            let places = updates.iter().enumerate();
            order.extend(places.map(|(at, update)| (update.place, container as u32, at as u32)));
        }
        order.sort();

        let mut updates: Vec<Vec<Option<Update>>> = (received.updates.into_iter())
            .map(|updates| updates.into_iter().map(Some).collect())
            .collect();
        for &(place, container, at) in order.iter() {
            while let Some(change) = changes.next_if(|change| change.place() < place) {
                apply(change, outputs, detector);
            }
            if let Some(update) = updates[container as usize][at as usize].take() {
                detector.on_update(update, now_ms, outputs);
            }
        }
        for change in changes {
            apply(change, outputs, detector);
        }
        detector.end_epoch(now_ms, outputs);
        self.keep_history(epoch);
        &mut self.outputs.events
    }

    /// Every valid update is history, whatever its flag.
    fn keep_history(&mut self, epoch: Epoch) {
        let mut counts = [0; Flag::ALL.len()];
        for location in &self.outputs.judged {
            counts[location.flag as usize] += 1;
        }
        for (flag, count) in Flag::ALL.into_iter().zip(counts) {
            self.context.metrics.updates.add(flag, count);
        }
        if self.context.windows.is_some() {
            let judged = self.outputs.judged.iter();
            let counted = judged.filter(|location| matches!(location.flag, Flag::Ok | Flag::Late));
            self.counted
                .extend(counted.map(|location| Counted::of(&location.update)));
        }
        let rows = std::mem::take(&mut self.outputs.judged);
        if self.context.keep_history && !rows.is_empty() {
            self.context.give(Output::Locations { epoch, rows });
        }
    }
}

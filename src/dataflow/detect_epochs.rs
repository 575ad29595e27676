//! The heart: an epoch's inputs, in their merged order, through the detector.
//!
//! Exchanged by driver, so that a driver's updates and order steps meet on one worker
//! whatever partition they came by; fences come to every worker. An epoch is judged when no
//! input can add to it, so what is told depends on the merged order alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Capability, InputCapability};

use super::keep_fences::FenceState;
use super::marks::{Marks, end_of};
use super::outboxes::{Number, Parcel};
use super::windows::Counted;
use super::{Context, Output, frontier_of, group_of};
use crate::detect::{Detector, DriverState, OrderStep, Outputs, SessionsState};
use crate::model::{Epoch, Event, FenceChange, Flag, Input, Place, Source, Update};
use crate::snapshot::{Kind, Mark, Part, Parts};

/// What an epoch has received so far.
#[derive(Default)]
struct Waiting {
    /// For events, and for what windows count.
    capabilities: Option<[Capability<u64>; 2]>,
    updates: Vec<Vec<Update>>,
    /// Of those updates that bear one.
    numbers: Vec<Vec<Number>>,
    changes: Vec<Change>,
}

/// A capability for each of the two outputs that updates lead to.
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

/// What a snapshot knew.
pub(super) struct Known {
    pub(super) fences: Vec<FenceState>,
    /// Of this worker's key groups.
    pub(super) drivers: Vec<DriverState<'static>>,
    pub(super) sessions: Vec<SessionsState<'static>>,
}

/// What detection gives.
pub(super) struct Detected<'scope> {
    pub(super) events: StreamVec<'scope, u64, Event>,
    /// What windows count.
    pub(super) counted: StreamVec<'scope, u64, Counted>,
    pub(super) parts: StreamVec<'scope, u64, Part>,
}

pub(super) fn detect_epochs<'scope>(
    updates: StreamVec<'scope, u64, Parcel<Update>>,
    numbers: StreamVec<'scope, u64, Parcel<Number>>,
    steps: StreamVec<'scope, u64, OrderStep>,
    fences: StreamVec<'scope, u64, FenceChange>,
    marks: StreamVec<'scope, u64, Mark>,
    known: Known,
    context: Rc<Context>,
) -> Detected<'scope> {
    let mut builder = OperatorBuilder::new("detect".to_owned(), updates.scope());
    let (index, peers) = (
        updates.scope().index() as u64,
        updates.scope().peers() as u64,
    );
    let by_driver = Exchange::new(|parcel: &Parcel<Update>| parcel.worker);
    let numbers_by_driver = Exchange::new(|parcel: &Parcel<Number>| parcel.worker);
    let steps_by_driver = Exchange::new(|step: &OrderStep| group_of(step.driver));
    let mut updates = builder.new_input(updates, by_driver);
    let mut numbers = builder.new_input(numbers, numbers_by_driver);
    let mut steps = builder.new_input(steps, steps_by_driver);
    let mut fences = builder.new_input(fences.broadcast(), Pipeline);
    let mut marks = builder.new_input(marks, Pipeline);
    let (output, events) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Event>>>::from(output);
    let (counted_out, counted) = builder.new_output();
    let mut counted_out =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<Counted>>>::from(counted_out);

    let (parts_out, parts) = builder.new_output();
    let mut parts_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<Part>>>::from(parts_out);

    builder.build(move |capabilities| {
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        // The next epoch that must be judged even if nothing comes.
        let mut alarm: Option<[Capability<u64>; 2]> = None;
        let until = context.until;
        let mut waiting_marks = Marks::default();
        let mut judge = Judge::new(context);
        judge.restore(known);
        // What was known may have deadlines though nothing may come.
        if let (Some(due), [events, counted, _]) = (judge.next_epoch_after(None), &capabilities[..])
        {
            alarm = Some([events.delayed(&due.0), counted.delayed(&due.0)]);
        }
        drop(capabilities);
        move |frontiers| {
            updates.for_each(|capability, data| {
                if let Some(capabilities) = retain(&capability) {
                    let entry = waiting.entry(*capabilities[0].time()).or_default();
                    entry
                        .updates
                        .extend(data.drain(..).map(|parcel| parcel.values));
                    entry.capabilities.get_or_insert(capabilities);
                }
            });
            numbers.for_each(|capability, data| {
                if let Some(capabilities) = retain(&capability) {
                    let entry = waiting.entry(*capabilities[0].time()).or_default();
                    entry
                        .numbers
                        .extend(data.drain(..).map(|parcel| parcel.values));
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
            marks.for_each(|capability, data| waiting_marks.take(&capability, 2, data));

            let complete = frontiers.iter().filter_map(frontier_of).min();
            let mut output = output.activate();
            loop {
                let mark = waiting_marks.next(complete);
                let end = end_of(&mark, complete);
                while let Some((capabilities, received)) =
                    take_next(&mut waiting, &mut alarm, end, until)
                {
                    let epoch = Epoch(*capabilities[0].time());
                    let events = judge.epoch(epoch, received);
                    if !events.is_empty() {
                        output.session(&capabilities[0]).give_container(events);
                        events.clear();
                    }
                    if !judge.counted.is_empty() {
                        let mut counted = std::mem::take(&mut judge.counted);
                        counted_out
                            .activate()
                            .session(&capabilities[1])
                            .give_container(&mut counted);
                    }
                    alarm = judge
                        .next_epoch_after(Some(epoch))
                        .map(|next| capabilities.map(|capability| capability.delayed(&next.0)));
                }
                let Some((capability, mark)) = mark else {
                    break;
                };
                let mut parts = judge.export(mark, |group| group % peers == index);
                parts_out
                    .activate()
                    .session(&capability)
                    .give_container(&mut parts);
            }
            if complete.is_none() {
                // Time stands still: what is left is never due.
                alarm = None;
            }
        }
    });
    Detected {
        events,
        counted,
        parts,
    }
}

/// The oldest epoch that is complete and in which something came or is due, with the right to
/// tell of it. When nothing can come any more, time stands still after `until`.
fn take_next(
    waiting: &mut BTreeMap<u64, Waiting>,
    alarm: &mut Option<[Capability<u64>; 2]>,
    complete: Option<u64>,
    until: Option<Epoch>,
) -> Option<([Capability<u64>; 2], Waiting)> {
    let is_complete = |epoch: u64| complete.is_none_or(|frontier| epoch < frontier);
    let due = alarm.as_ref().map(|alarm| *alarm[0].time());
    let came = waiting.first_key_value().map(|(epoch, _)| *epoch);
    match (came, due) {
        (Some(came), due) if due.is_none_or(|due| came <= due) && is_complete(came) => {
            let mut received = waiting.remove(&came)?;
            let capabilities = received.capabilities.take();
            Some((
                capabilities.expect("an epoch waits because something came"),
                received,
            ))
        }
        (_, Some(due)) if complete.map_or(until >= Some(Epoch(due)), |frontier| due < frontier) => {
            Some((alarm.take()?, Waiting::default()))
        }
        _ => None,
    }
}

/// Drives the detector through one epoch after the other.
struct Judge {
    context: Rc<Context>,
    detector: Detector,
    outputs: Outputs,
    /// What windows count of the epoch, in the order in which it was judged.
    counted: Vec<Counted>,
}

impl Judge {
    fn new(context: Rc<Context>) -> Self {
        let detector = Detector::new(context.rules.clone());
        Self {
            context,
            detector,
            outputs: Outputs::default(),
            counted: Vec::new(),
        }
    }

    /// Goes on from what a snapshot knew; nothing is told of it.
    fn restore(&mut self, known: Known) {
        let source = Source {
            input: Input::Geofences,
            partition: 0,
            offset: 0,
        };
        for FenceState { id, fence } in known.fences {
            let place = Place { at_ms: 0, source };
            let change = FenceChange { place, id, fence };
            self.detector.on_fence(change, 0, &mut self.outputs);
        }
        for driver in known.drivers {
            self.detector.import(driver);
        }
        for sessions in known.sessions {
            self.detector.import_sessions(sessions);
        }
        debug_assert!(self.outputs.events.is_empty());
    }

    fn export(&mut self, mark: Mark, owned: impl Fn(u64) -> bool) -> Vec<Part> {
        let began = Instant::now();
        let mut drivers = Parts::new(Kind::Drivers, mark);
        let mut sessions = Parts::new(Kind::Sessions, mark);
        self.detector.export(
            |driver| mark.is_whole(group_of(driver)),
            |state, of_driver| {
                let group = group_of(state.driver());
                drivers.add(group, state);
                if let Some(of_driver) = of_driver {
                    sessions.add(group, of_driver);
                }
            },
        );
        let mut parts = drivers.finish(&owned);
        parts.extend(sessions.finish(owned));
        let pause_s = began.elapsed().as_secs_f64();
        self.context.metrics.snapshot_pause_seconds.observe(pause_s);
        parts
    }

    /// Judges all that an epoch received, in merged order. Returns what was told.
    fn epoch(&mut self, epoch: Epoch, received: Waiting) -> &mut Vec<Event> {
        let now_ms = epoch.now_ms(self.context.interval_ms);
        let Self {
            detector, outputs, ..
        } = self;
        let mut changes = received.changes;
        // Stable, since one record may bring a driver several steps, in their order.
        changes.sort_by_key(Change::place);
        let mut changes = changes.into_iter().peekable();
        let apply = |change, outputs: &mut _, detector: &mut Detector| match change {
            Change::Fence(change) => detector.on_fence(change, now_ms, outputs),
            Change::Order(step) => detector.on_order(step, now_ms, outputs),
        };

        // A number comes with its update, by the same way into the same epoch.
        let numbers = in_order(received.numbers, |number| number.place);
        let mut numbers = numbers.into_iter().peekable();
        let mut updates = in_order(received.updates, |update| update.place).into_iter();
        loop {
            detector.look_ahead(updates.as_slice());
            let Some(update) = updates.next() else {
                break;
            };
            while let Some(change) = changes.next_if(|change| change.place() < update.place) {
                apply(change, outputs, detector);
            }
            match numbers.next_if(|number| number.place == update.place) {
                None => detector.on_update(update, now_ms, outputs),
                Some(Number { sequence, .. }) => {
                    detector.on_numbered_update(update, sequence, now_ms, outputs);
                }
            }
        }
        debug_assert!(numbers.next().is_none(), "each number has its update");
        for change in changes {
            apply(change, outputs, detector);
        }
        detector.end_epoch(now_ms, outputs);
        self.keep_history(epoch);
        &mut self.outputs.events
    }

    /// The epoch in which something is due though nothing may come; later than one that has
    /// been judged.
    fn next_epoch_after(&self, judged: Option<Epoch>) -> Option<Epoch> {
        let due_ms = self.detector.next_deadline()?;
        let due = Epoch::containing(due_ms, self.context.interval_ms);
        Some(due.max(Epoch(judged.map_or(0, |judged| judged.0 + 1))))
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
        let resent = std::mem::take(&mut self.outputs.resent);
        self.context.metrics.updates_resent.inc_by(resent);
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

/// One run in merged order. What each partition brings is in order already, so this merges
/// runs rather than sorts.
fn in_order<T>(containers: Vec<Vec<T>>, place: impl Fn(&T) -> Place) -> Vec<T> {
    let mut run: Vec<T> = match <[Vec<T>; 1]>::try_from(containers) {
        Ok([only]) => only,
        Err(containers) => {
            let mut run = Vec::with_capacity(containers.iter().map(Vec::len).sum());
            for mut container in containers {
                run.append(&mut container);
            }
            run
        }
    };
    if !run.is_sorted_by_key(&place) {
        run.sort_by_key(&place);
    }
    run
}

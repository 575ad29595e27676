//! The stage: all fences and orders before the first update, and none later.

use std::collections::HashMap;
use std::time::Duration;

use riderflow::model::Input;
use riderflow::simulate::{
    Batch, Counts, Message, Plan, Road, RunError, Simulation, Straight, What,
};

use crate::common::ANSWER;

/// City time in which the city tells the orders that it begins with, ms.
const OPENING_MS: i64 = 1_000;

/// Sends the city's fences, and each order as it stands after the opening, at the time of the
/// city's beginning; returns how many of each.
pub(crate) fn set_stage(road: &Straight<'_>, plan: Plan) -> (usize, usize) {
    let start_ms = plan.start_ms;
    let mut simulation = Simulation::new(plan);
    let send = |batch: &Batch, message: &Message| {
        let mut message = message.clone();
        message.timestamp_ms = start_ms;
        while !road.try_send(batch, &message).expect("it is sent") {
            road.serve(Duration::from_millis(1));
        }
    };
    let mut batch = Batch::new();
    simulation.fences(&mut batch);
    batch.messages().iter().for_each(|it| send(&batch, it));
    let fences = batch.messages().len();

    let mut batches = Vec::new();
    while simulation.now_ms() < OPENING_MS {
        let mut batch = Batch::new();
        simulation.next_step(&mut batch);
        batches.push(batch);
    }
    let all = || {
        batches
            .iter()
            .flat_map(|it| it.messages().iter().map(move |m| (it, m)))
    };
    let orders = || all().filter(|(_, message)| matches!(message.what, What::Order(_)));
    let last: HashMap<&[u8], usize> = orders()
        .enumerate()
        .map(|(at, (batch, message))| (batch.key(message), at))
        .collect();
    for (at, (batch, message)) in orders().enumerate() {
        if last[batch.key(message)] == at {
            send(batch, message);
        }
    }
    road.flush(ANSWER).expect("the stage is set");
    (fences, last.len())
}

/// The way of updates; all else goes nowhere.
pub(crate) struct UpdatesAlone<'a>(pub(crate) Straight<'a>);

impl Road for UpdatesAlone<'_> {
    fn try_send(&self, batch: &Batch, message: &Message) -> Result<bool, RunError> {
        match message.what.input() {
            Input::Updates => self.0.try_send(batch, message),
            Input::Orders | Input::Geofences => Ok(true),
        }
    }

    fn serve(&self, time: Duration) {
        self.0.serve(time);
    }

    fn check(&self) -> Result<(), RunError> {
        self.0.check()
    }

    fn in_flight(&self) -> u64 {
        self.0.in_flight()
    }

    fn flush(&self, timeout: Duration) -> Result<(), RunError> {
        self.0.flush(timeout)
    }

    fn acked(&self) -> Counts {
        self.0.acked()
    }
}

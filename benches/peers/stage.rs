//! The stage: all fences and orders before the first update, and none later.

use std::collections::HashMap;

use riderflow::simulate::{Batch, Message, Plan, Road as _, Simulation, Straight, What};

use crate::common::{ANSWER, send};

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
        send(road, batch, &message);
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
    road.flush(ANSWER).expect("Kafka takes all");
    (fences, last.len())
}

/// Sends updates alone, at least so many; the last step is sent whole.
pub(crate) fn send_updates(road: &Straight<'_>, plan: Plan, updates: u64) {
    let mut simulation = Simulation::new(plan);
    let mut batch = Batch::new();
    let mut sent = 0;
    while sent < updates {
        simulation.next_step(&mut batch);
        let all = batch.messages().iter();
        for message in all.filter(|it| matches!(it.what, What::Update(_))) {
            send(road, &batch, message);
            sent += 1;
        }
    }
    road.flush(ANSWER).expect("Kafka takes all");
}

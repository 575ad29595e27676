//! One worker's value, for all workers of all processes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use timely::dataflow::operators::vec::{Broadcast, Input};
use timely::dataflow::operators::{Inspect, Probe};
use timely::worker::Worker;

/// A message's size, at most: a value goes in pieces.
const PIECE_BYTES: usize = 1 << 20;
/// The longest that a parked worker sleeps, so that it hears a stop.
const PARK: Duration = Duration::from_millis(20);

/// Gives every worker the value of worker 0; the values of the others don't count. All workers
/// must call it, and build the same dataflows before. `None` if `stop` became true meanwhile,
/// or worker 0 has no value.
///
/// By a dataflow of its own, which is gone afterwards.
pub fn agree(
    worker: &mut Worker,
    value: Option<Vec<u8>>,
    stop: impl Fn() -> bool,
) -> Option<Vec<u8>> {
    let index = worker.next_dataflow_index();
    let received = Rc::new(RefCell::new((false, Vec::new())));
    let kept = Rc::clone(&received);
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, pieces) = scope.new_input::<Vec<u8>>();
        // From one worker to each other, and a channel keeps its order.
        let (probe, _) = pieces
            .broadcast()
            .inspect(move |piece| {
                let (is_given, bytes) = &mut *kept.borrow_mut();
                *is_given = true;
                bytes.extend_from_slice(piece);
            })
            .probe();
        (input, probe)
    });
    if worker.index() == 0
        && let Some(value) = value
    {
        // Also of nothing there is a piece.
        input.send(Vec::new());
        for piece in value.chunks(PIECE_BYTES) {
            input.send(piece.to_vec());
        }
    }
    input.close();
    while !probe.done() {
        if stop() {
            worker.drop_dataflow(index);
            return None;
        }
        worker.step_or_park(Some(PARK));
    }
    let (is_given, bytes) = received.take();
    is_given.then_some(bytes)
}

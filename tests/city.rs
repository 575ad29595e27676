//! The simulated city through the real decoders and the real detection.

use std::collections::{BTreeMap, HashMap};

use riderflow::detect::{Detector, OrderBook, Outputs, Rules};
use riderflow::geo::Area;
use riderflow::model::{EventKind, Flag, Geometry, Place, Position, Source};
use riderflow::simulate::{Batch, Message, Oddity, Plan, Simulation, What};
use riderflow::wire::{Limits, decode_fence, decode_order, decode_update};

const START_MS: i64 = 1_790_000_000_000;

fn place(message: &Message, offset: i64) -> Place {
    Place {
        at_ms: message.timestamp_ms,
        source: Source {
            input: message.what.input(),
            partition: 0,
            offset,
        },
    }
}

/// Runs the demo's city for so long; `each` gets every message with a place.
fn demo_minutes(minutes: i64, mut each: impl FnMut(&Batch, &Message, Place)) {
    let mut simulation = Simulation::new(Plan::new(1_000, 300, 100, 1, START_MS));
    let mut batch = Batch::new();
    let mut offset = 0;
    simulation.fences(&mut batch);
    loop {
        for message in batch.messages() {
            each(&batch, message, place(message, offset));
            offset += 1;
        }
        if simulation.now_ms() >= minutes * 60_000 {
            return;
        }
        simulation.next_step(&mut batch);
    }
}

#[test]
fn every_message_decodes_without_a_fault_and_its_events_are_many() {
    let mut detector = Detector::new(Rules::default());
    let mut book = OrderBook::new();
    let (mut steps, mut out) = (Vec::new(), Outputs::default());
    let mut flags: BTreeMap<(Oddity, Flag), u32> = BTreeMap::new();
    let mut epoch_ms = START_MS;
    demo_minutes(3, |batch, message, place| {
        let (key, value) = (batch.key(message), batch.value(message));
        while epoch_ms <= place.at_ms {
            detector.end_epoch(epoch_ms, &mut out);
            epoch_ms += 100;
        }
        let now_ms = epoch_ms;
        match message.what {
            What::Update(oddity) => {
                let update = decode_update(value, place, now_ms, &Limits::default()).unwrap();
                detector.on_update(update, now_ms, &mut out);
                let flag = out.judged.last().expect("judged at once").flag;
                *flags.entry((oddity, flag)).or_default() += 1;
            }
            What::Order(_) | What::OrderRemoved => {
                let change = decode_order(Some(key), value, place, now_ms).unwrap();
                book.apply(change, &mut steps);
                for step in steps.drain(..) {
                    detector.on_order(step, now_ms, &mut out);
                }
            }
            What::Fence | What::FenceRemoved => {
                let change = decode_fence(Some(key), value, place).unwrap();
                detector.on_fence(change, now_ms, &mut out);
            }
        }
    });
    let mut kinds: BTreeMap<EventKind, u32> = BTreeMap::new();
    for event in &out.events {
        *kinds.entry(event.kind).or_default() += 1;
    }
    println!("{kinds:?}\n{flags:?}");
    for (kind, least) in [
        (EventKind::DriverSilent, 15),
        (EventKind::DriverResumed, 15),
        (EventKind::OrderAssigned, 400),
        (EventKind::OrderPickedUp, 250),
        (EventKind::OrderDelivered, 120),
        (EventKind::OrderCancelled, 10),
        (EventKind::GeofenceEntered, 2000),
        (EventKind::GeofenceExited, 1500),
        (EventKind::GeofenceCrossed, 40),
        (EventKind::GeofenceDwelled, 800),
        (EventKind::AgentNear, 500),
        (EventKind::AgentArrived, 300),
        (EventKind::AgentDeparted, 120),
    ] {
        let count = kinds.get(&kind).copied().unwrap_or_default();
        assert!(count >= least, "{count} {}: {kinds:?}", kind.name());
    }
    // What is odd is seen to be; hardly anything else is.
    let count = |oddity, flag| flags.get(&(oddity, flag)).copied().unwrap_or_default();
    let of = |oddity: Oddity| -> u32 {
        (flags.iter().filter(|((known, _), _)| *known == oddity))
            .map(|(_, count)| count)
            .sum()
    };
    for (oddity, flag) in [
        (Oddity::Late, Flag::Late),
        (Oddity::Duplicate, Flag::Duplicate),
        (Oddity::Inaccurate, Flag::Inaccurate),
        (Oddity::Teleport, Flag::Teleport),
    ] {
        let (seen, sent) = (count(oddity, flag), of(oddity));
        assert!(seen > 20 && seen + 5 > sent, "{oddity:?}: {flags:?}");
    }
    assert!(
        count(Oddity::None, Flag::Ok) + 20 > of(Oddity::None),
        "{flags:?}"
    );
}

/// Whether any of many points between two fixes is inside.
fn passes(gate: &Area, from: Position, to: Position) -> bool {
    (1..40).any(|part| {
        let part = f64::from(part) / 40.0;
        gate.contains(Position {
            longitude: from.longitude + (to.longitude - from.longitude) * part,
            latitude: from.latitude + (to.latitude - from.latitude) * part,
        })
    })
}

/// A gate is too thin for most drivers to leave a fix inside it.
#[test]
fn drivers_pass_through_gates_between_two_fixes() {
    let mut gates = Vec::new();
    let mut last: HashMap<u64, Position> = HashMap::new();
    let (mut through, mut inside) = (0, 0);
    demo_minutes(2, |batch, message, place| {
        let (key, value) = (batch.key(message), batch.value(message));
        match message.what {
            What::Fence => {
                let fence = decode_fence(Some(key), value, place)
                    .unwrap()
                    .fence
                    .unwrap();
                if fence.kind.as_deref() == Some("gate") {
                    assert!(matches!(fence.geometry, Geometry::Polygon(_)));
                    gates.push(Area::new(&fence.geometry).unwrap());
                }
            }
            What::Update(Oddity::None) => {
                let update = decode_update(value, place, place.at_ms, &Limits::default()).unwrap();
                let to = update.position;
                if let Some(from) = last.insert(update.driver.0, to) {
                    for gate in &gates {
                        if gate.contains(to) {
                            inside += 1;
                        } else if !gate.contains(from) && passes(gate, from, to) {
                            through += 1;
                        }
                    }
                }
            }
            _ => {}
        }
    });
    assert_eq!(gates.len(), 20);
    assert!(
        through > 20,
        "{through} passed through, {inside} fixes inside"
    );
}

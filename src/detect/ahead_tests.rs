//! Announcing updates, rightly or not, against not announcing them.

use proptest::prelude::*;

use super::{Detector, OrderBook, Outputs, Rules};
use crate::model::{
    DriverId, Input, Order, OrderChange, OrderId, OrderStatus, Place, Position, Sequence, Source,
    Stop, Update,
};

fn place(input: Input, offset: i64) -> Place {
    let partition = 0;
    Place {
        at_ms: 1000 + offset,
        source: Source {
            input,
            partition,
            offset,
        },
    }
}

fn update(driver: u64, offset: i64) -> Update {
    let place = place(Input::Updates, offset);
    Update {
        place,
        driver: DriverId(driver),
        position: Position {
            longitude: 77.0 + offset as f64 * 1e-5,
            latitude: 12.0,
        },
        event_time_ms: place.at_ms,
        received_at_ms: place.at_ms,
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        state: None,
    }
}

/// What is announced before an update.
#[derive(Clone, Copy, Debug)]
enum Announced {
    Nothing,
    /// All that follow.
    Rest,
    /// All but the next.
    Wrong,
}

proptest! {
    #[test]
    fn announcing_changes_nothing(
        steps in proptest::collection::vec(
            (
                0..12u64,
                prop_oneof![
                    1 => Just(Announced::Nothing),
                    4 => Just(Announced::Rest),
                    1 => Just(Announced::Wrong),
                ],
                // An order for a driver, perhaps the first that is heard of it.
                proptest::option::weighted(0.2, 0..12u64),
                proptest::option::weighted(0.3, 1..20u64),
            ),
            1..120,
        ),
    ) {
        let updates: Vec<Update> =
            (0..).zip(&steps).map(|(n, &(driver, ..))| update(driver, n)).collect();
        let run = |announces: bool| {
            let mut detector = Detector::new(Rules::default());
            let (mut book, mut out) = (OrderBook::new(), Outputs::default());
            for (n, &(_, announced, order, number)) in steps.iter().enumerate() {
                match announced {
                    Announced::Rest if announces => detector.look_ahead(&updates[n..]),
                    Announced::Wrong if announces => detector.look_ahead(&updates[n + 1..]),
                    _ => {}
                }
                if let Some(driver) = order {
                    let stop = Stop { position: updates[n].position, place: None };
                    let id = OrderId(format!("{driver}").into());
                    let order = Order {
                        id: id.clone(), driver: Some(DriverId(driver)),
                        status: OrderStatus::Assigned, pickup: stop.clone(), dropoff: stop,
                        updated_at_ms: n as i64,
                    };
                    let place = place(Input::Orders, n as i64);
                    let mut steps = Vec::new();
                    book.apply(OrderChange { place, id, order: Some(order) }, &mut steps);
                    steps.into_iter().for_each(|step| detector.on_order(step, 5000, &mut out));
                }
                let update = updates[n].clone();
                match number {
                    None => detector.on_update(update, 5000, &mut out),
                    Some(number) => {
                        let sequence = Sequence { session: 1, number };
                        detector.on_numbered_update(update, sequence, 5000, &mut out);
                    }
                }
            }
            let mut drivers = Vec::new();
            detector.export(|_| true, |state, _| drivers.push(format!("{state:?}")));
            (out.events, out.judged, out.resent, drivers)
        };
        prop_assert_eq!(run(false), run(true));
    }
}

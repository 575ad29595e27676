//! A city for the detector alone: 33 × 33 km, the same every time.
//!
//! 10 fences are districts (polygons of 60 vertices, 4 to 12 km across), up to 1,000 are quarters
//! (30 vertices, 0.3 to 1.5 km), the rest doorways (circles of 10 to 40 m). Each round moves each
//! driver by 10 m, more or less straight on; the drivers report in an order of their own each
//! round, as from a topic, so each finds its state cold.

#[path = "../../tests/common/dice.rs"]
mod dice;

use riderflow::detect::{Detector, OrderBook, OrderStep, Outputs};
use riderflow::model::{
    DriverId, Fence, FenceChange, FenceId, Geometry, Input, Order, OrderChange, OrderId,
    OrderStatus, Place, Position, Source, Stop, Update,
};

pub(crate) use dice::Dice;

impl Dice {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    fn spot(&mut self) -> Position {
        Position {
            longitude: self.between(77.45, 77.75),
            latitude: self.between(12.85, 13.15),
        }
    }

    /// So many drivers, anywhere.
    pub(crate) fn drivers(&mut self, count: usize) -> Vec<Going> {
        (0..count)
            .map(|_| Going {
                spot: self.spot(),
                heading: self.between(0.0, std::f64::consts::TAU),
            })
            .collect()
    }
}

/// Where a driver is, and where it heads, radians.
#[derive(Clone)]
pub(crate) struct Going {
    pub(crate) spot: Position,
    heading: f64,
}

fn place(input: Input, at_ms: i64) -> Place {
    let partition = 0;
    let offset = at_ms;
    Place {
        at_ms,
        source: Source {
            input,
            partition,
            offset,
        },
    }
}

/// A ragged ring around a spot, `across` metres wide.
fn ring(dice: &mut Dice, across: f64, vertices: usize) -> Geometry {
    let middle = dice.spot();
    let mut ring: Vec<Position> = (0..vertices)
        .map(|i| {
            let angle = i as f64 / vertices as f64 * std::f64::consts::TAU;
            let r = across / 2.0 / 111_195.0 * dice.between(0.7, 1.0);
            Position {
                longitude: middle.longitude + r * angle.cos(),
                latitude: middle.latitude + r * angle.sin(),
            }
        })
        .collect();
    ring.push(ring[0]);
    Geometry::Polygon(vec![ring])
}

fn geometry(dice: &mut Dice, number: usize, count: usize) -> Geometry {
    let quarters = 10 + (count / 10).min(1000);
    if number < 10 {
        let across = dice.between(4000.0, 12_000.0);
        ring(dice, across, 60)
    } else if number < quarters {
        let across = dice.between(300.0, 1500.0);
        ring(dice, across, 30)
    } else {
        Geometry::Circle {
            center: dice.spot(),
            radius_m: dice.between(10.0, 40.0),
        }
    }
}

/// The city's fences, each with a dwell of so many seconds.
pub(crate) fn fences(
    dice: &mut Dice,
    count: usize,
    dwell_s: Option<f64>,
    at_ms: i64,
) -> Vec<FenceChange> {
    (0..count)
        .map(|number| {
            let id = FenceId(format!("fence-{number}").into());
            let fence = Some(Fence {
                id: id.clone(),
                name: None,
                kind: None,
                geometry: geometry(dice, number, count),
                dwell_s,
                exit_margin_m: 20.0,
            });
            let place = place(Input::Geofences, at_ms);
            FenceChange { place, id, fence }
        })
        .collect()
}

/// What drivers must know of so many orders: every fifth one has one, until there are no more.
pub(crate) fn orders(dice: &mut Dice, count: usize, at_ms: i64) -> Vec<OrderStep> {
    let mut book = OrderBook::new();
    let mut steps = Vec::new();
    for number in 0..count {
        let id = OrderId(format!("order-{number}").into());
        let stop = |position| Stop {
            position,
            place: None,
        };
        let order = Some(Order {
            id: id.clone(),
            driver: Some(DriverId((number * 5) as u64)),
            status: OrderStatus::Assigned,
            pickup: stop(dice.spot()),
            dropoff: stop(dice.spot()),
            updated_at_ms: at_ms,
        });
        let place = place(Input::Orders, at_ms);
        book.apply(OrderChange { place, id, order }, &mut steps);
    }
    steps
}

/// Each driver moves and sends an update.
pub(crate) fn round(dice: &mut Dice, drivers: &mut [Going], at_ms: i64) -> Vec<Update> {
    let mut updates: Vec<Update> = (0..)
        .zip(drivers)
        .map(|(driver, going)| {
            going.heading += dice.between(-0.5, 0.5);
            going.spot.longitude += 9e-5 * going.heading.cos();
            going.spot.latitude += 9e-5 * going.heading.sin();
            Update {
                place: place(Input::Updates, at_ms),
                driver: DriverId(driver),
                position: going.spot,
                event_time_ms: at_ms,
                received_at_ms: at_ms,
                accuracy_m: Some(8.0),
                speed_mps: Some(6.0),
                heading_deg: None,
                state: None,
            }
        })
        .collect();
    for last in (1..updates.len()).rev() {
        updates.swap(last, dice.between(0.0, (last + 1) as f64) as usize);
    }
    updates
}

/// Judges a round's updates as a worker does an epoch's: what comes next is looked up ahead.
pub(crate) fn judge(detector: &mut Detector, updates: Vec<Update>, now_ms: i64, out: &mut Outputs) {
    let mut updates = updates.into_iter();
    loop {
        detector.look_ahead(updates.as_slice());
        let Some(update) = updates.next() else { break };
        detector.on_update(update, now_ms, out);
    }
    detector.end_epoch(now_ms, out);
}

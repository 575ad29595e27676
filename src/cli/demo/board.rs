//! Which orders are open in the demo's city, so that there is always one to show.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::model::OrderStatus;
use crate::simulate::{Batch, Counts, GatewaySummary, Message, Road, RunError, What};

/// The open orders, as the city has told them.
#[derive(Default)]
pub(super) struct Board(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashMap<String, Open>,
    told: u64,
}

struct Open {
    driver: Option<u64>,
    place: Option<String>,
    status: OrderStatus,
    /// Grows with each change.
    told: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    driver_id: Option<u64>,
    pickup: Stop,
}

#[derive(Deserialize)]
struct Stop {
    place: Option<String>,
}

impl Board {
    /// Takes note of what the city sends, if it is about an order.
    fn note(&self, batch: &Batch, message: &Message) {
        let Ok(id) = std::str::from_utf8(batch.key(message)) else {
            return;
        };
        match (message.what, batch.value(message)) {
            (What::Order(status), Some(value)) => self.note_order(id, status, value),
            (What::OrderRemoved, _) => self.note_end(id),
            _ => {}
        }
    }

    fn note_order(&self, id: &str, status: OrderStatus, value: &[u8]) {
        if matches!(status, OrderStatus::Delivered | OrderStatus::Cancelled) {
            return self.note_end(id);
        }
        let Ok(order) = serde_json::from_slice::<Order>(value) else {
            return;
        };
        let mut state = self.state();
        state.told += 1;
        let open = Open {
            driver: order.driver_id,
            place: order.pickup.place,
            status,
            told: state.told,
        };
        state.open.insert(id.to_owned(), open);
    }

    fn note_end(&self, id: &str) {
        self.state().open.remove(id);
    }

    /// Whether this order is open.
    pub(super) fn is_open(&self, id: &str) -> bool {
        self.state().open.contains_key(id)
    }

    /// The order that will be under way for longest: the one given to a driver last, to one
    /// with a phone (`0..phones`) if there is one.
    pub(super) fn under_way(&self, phones: u64) -> Option<String> {
        let state = self.state();
        let under_way = state.open.iter().filter(|(_, order)| {
            matches!(order.status, OrderStatus::Assigned | OrderStatus::PickedUp)
        });
        under_way
            .max_by_key(|(_, order)| {
                let by_phone = order.driver.is_some_and(|driver| driver < phones);
                (by_phone, order.status == OrderStatus::Assigned, order.told)
            })
            .map(|(id, _)| id.clone())
    }

    /// The place where most drivers are to pick something up.
    pub(super) fn busiest_place(&self) -> Option<String> {
        let state = self.state();
        let mut coming: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for order in state.open.values() {
            if let Some(place) = order.place.as_deref() {
                let count = coming.entry(place).or_default();
                count.0 += usize::from(order.status == OrderStatus::Assigned);
                count.1 += 1;
            }
        }
        let busiest = coming.into_iter().max_by_key(|(_, count)| *count);
        busiest.map(|(place, _)| place.to_owned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A road with somebody who watches what goes by.
pub(super) struct Watched<'a> {
    pub(super) road: Box<dyn Road + 'a>,
    pub(super) board: &'a Board,
}

impl Road for Watched<'_> {
    fn try_send(&self, batch: &Batch, message: &Message) -> Result<bool, RunError> {
        let taken = self.road.try_send(batch, message)?;
        if taken && !matches!(message.what, What::Update(_)) {
            self.board.note(batch, message);
        }
        Ok(taken)
    }

    fn serve(&self, time: Duration) {
        self.road.serve(time);
    }

    fn check(&self) -> Result<(), RunError> {
        self.road.check()
    }

    fn in_flight(&self) -> u64 {
        self.road.in_flight()
    }

    fn flush(&self, timeout: Duration) -> Result<(), RunError> {
        self.road.flush(timeout)
    }

    fn acked(&self) -> Counts {
        self.road.acked()
    }

    fn gateway(&self) -> Option<GatewaySummary> {
        self.road.gateway()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Plan, Simulation};

    fn order(driver: Option<u64>, place: &str) -> Vec<u8> {
        let order = serde_json::json!({
            "orderId": "x", "driverId": driver, "status": "assigned",
            "pickup": {"longitude": 1.0, "latitude": 2.0, "place": place},
            "dropoff": {"longitude": 1.0, "latitude": 2.0},
        });
        serde_json::to_vec(&order).unwrap()
    }

    #[test]
    fn the_order_shown_is_the_one_given_last_to_a_driver_with_a_phone() {
        let board = Board::default();
        assert_eq!(board.under_way(10), None);
        board.note_order("o-1", OrderStatus::Placed, &order(None, "r-1"));
        assert_eq!(board.under_way(10), None);
        board.note_order("o-2", OrderStatus::PickedUp, &order(Some(3), "r-1"));
        assert_eq!(board.under_way(10).as_deref(), Some("o-2"));
        board.note_order("o-3", OrderStatus::Assigned, &order(Some(4), "r-2"));
        board.note_order("o-4", OrderStatus::Assigned, &order(Some(5), "r-2"));
        board.note_order("o-5", OrderStatus::Assigned, &order(Some(12), "r-3"));
        assert_eq!(board.under_way(10).as_deref(), Some("o-4"));
        assert_eq!(board.under_way(0).as_deref(), Some("o-5"));
        assert_eq!(board.busiest_place().as_deref(), Some("r-2"));

        board.note_order("o-4", OrderStatus::Delivered, &order(Some(5), "r-2"));
        assert!(!board.is_open("o-4") && board.is_open("o-3"));
        assert_eq!(board.under_way(10).as_deref(), Some("o-3"));
        board.note_end("o-3");
        assert_eq!(board.under_way(10).as_deref(), Some("o-2"));
    }

    /// What the city sends is understood.
    #[test]
    fn a_city_has_an_order_and_a_place_to_show_from_its_first_seconds() {
        let mut simulation = Simulation::new(Plan::new(1_000, 300, 0, 1, 1_790_000_000_000));
        let (board, mut batch) = (Board::default(), Batch::new());
        while simulation.now_ms() < 60_000 {
            simulation.next_step(&mut batch);
            for message in batch.messages() {
                board.note(&batch, message);
            }
            if simulation.now_ms() >= 1_000 {
                let order = board.under_way(1_000).expect("one is under way");
                assert!(board.is_open(&order));
                assert!(board.busiest_place().is_some());
                assert!((280..=300).contains(&board.state().open.len()));
            }
        }
    }
}

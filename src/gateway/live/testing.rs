//! What the tests of the view and its streams are made of.

use serde_json::Value;

use super::sse::Step;
use super::told::Told;
use super::view::{Record, Touched, View};
use crate::detect::Rules;
use crate::gateway::api::hold;
use crate::model::{
    DriverId, EventKind, Input, Leg, Order, OrderChange, OrderId, OrderStatus, Place, Position,
    Source, Stop, TimeMs, Update,
};

pub(super) const T0: TimeMs = 1_790_000_000_000;

pub(super) fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

fn place(input: Input, at_ms: TimeMs) -> Place {
    Place {
        at_ms,
        source: Source {
            input,
            partition: 0,
            offset: 0,
        },
    }
}

pub(super) fn update(driver: u64, position: Position, at_ms: TimeMs) -> Update {
    Update {
        place: place(Input::Updates, at_ms),
        driver: DriverId(driver),
        position,
        event_time_ms: at_ms,
        received_at_ms: at_ms,
        accuracy_m: None,
        speed_mps: Some(10.0),
        heading_deg: Some(90.0),
        state: None,
    }
}

pub(super) fn fix(driver: u64, position: Position, at_ms: TimeMs) -> Record {
    Record::Update(update(driver, position, at_ms))
}

/// From a restaurant `r` at 77, 12 to a customer `c` 0.01 degrees north of it.
pub(super) fn version(
    id: &str,
    status: OrderStatus,
    driver: Option<u64>,
    at_ms: TimeMs,
) -> OrderChange {
    let stop = |latitude, place: &str| Stop {
        position: at(77.0, latitude),
        place: Some(place.into()),
    };
    OrderChange {
        place: place(Input::Orders, at_ms),
        id: OrderId(id.into()),
        order: Some(Order {
            id: OrderId(id.into()),
            driver: driver.map(DriverId),
            status,
            pickup: stop(12.0, "r"),
            dropoff: stop(12.01, "c"),
            updated_at_ms: at_ms,
        }),
    }
}

pub(super) fn order(id: &str, status: OrderStatus, driver: Option<u64>, at_ms: TimeMs) -> Record {
    Record::Order(version(id, status, driver, at_ms))
}

pub(super) fn removal(id: &str, at_ms: TimeMs) -> Record {
    Record::Order(OrderChange {
        place: place(Input::Orders, at_ms),
        id: OrderId(id.into()),
        order: None,
    })
}

pub(super) fn told(
    number: u32,
    kind: EventKind,
    order: &str,
    leg: Option<Leg>,
    driver: u64,
    at_ms: TimeMs,
) -> Told {
    Told {
        id: format!("rider-updates/0/{number}/{}/{order}/{driver}", kind.name()),
        kind,
        driver: DriverId(driver),
        order: Some(OrderId(order.into())),
        fence: None,
        leg,
        position: Some(at(77.0, 12.0)),
        distance_m: None,
        eta_s: None,
        at_ms,
        detected_at_ms: at_ms,
        partition: 0,
    }
}

pub(super) fn event(told: Told) -> Record {
    let received_ms = told.detected_at_ms;
    Record::Event { told, received_ms }
}

pub(super) fn view() -> View {
    View::new(Rules::default())
}

/// Applies records at the time `now_ms`, and says what they touched.
pub(super) fn take(
    view: &mut View,
    now_ms: TimeMs,
    records: impl IntoIterator<Item = Record>,
) -> Touched {
    let mut touched = Touched::default();
    for record in records {
        view.apply(record, now_ms, &mut touched);
    }
    touched
}

/// The frames of what a stream says: name, id, data; each is as the gateway's documents have it.
pub(super) fn frames(step: &Step) -> Vec<(String, Option<String>, Value)> {
    let (Step::Say(text) | Step::End(text)) = step else {
        return Vec::new();
    };
    let frames = text.split_terminator("\n\n");
    frames
        .map(|frame| {
            let line = |name: &str| {
                let mut lines = frame.lines();
                lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
            };
            let data = line("data: ").expect("data");
            let data = serde_json::from_str(&data).expect("JSON");
            let name = line("event: ").expect("a name");
            hold(channel_of(&name, &data), &name, &data);
            (name, line("id: "), data)
        })
        .collect()
}

/// Which stream says this.
fn channel_of(name: &str, data: &Value) -> &'static str {
    let has = |field: &str| data.get(field).is_some();
    match name {
        "snapshot" if has("order") => "order",
        "snapshot" if has("place") => "place",
        "position" if has("id") => "place",
        "event" if data["event"].get("driverId").is_none() => "order",
        "position" | "ended" => "order",
        "order" | "removed" => "place",
        _ => "fleet",
    }
}

/// The names of the frames of what a stream says.
pub(super) fn names(step: &Step) -> Vec<String> {
    frames(step).into_iter().map(|(name, _, _)| name).collect()
}

//! What the streams say, for the gateway's description of itself.
//!
//! Owns an example of each message, made of the very types that are sent, and the schemas of
//! what those types leave to text. Nothing of this runs when a stream does.

use std::borrow::Cow;

use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, ArrayItems, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};

use super::fleet::{self, Dot};
use super::orders::State;
use super::shown::{Agent, End, Eta, Way};
use super::sse::Ended;
use super::told::Told;
use super::{fences, order, place};
use crate::gateway::api::{Message, choice};
use crate::model::{
    DriverId, EventKind, Fence, FenceId, Geometry, Leg, OrderId, OrderStatus, Position, TimeMs,
};
use crate::wire::encode_fence;

const NOW_MS: TimeMs = 1_790_000_000_500;
const AT_MS: TimeMs = 1_790_000_000_123;

/// A fence as GeoJSON, with its id: what it may be is published as `schemas/inputs/geofence.json`.
pub(super) enum Feature {}

impl PartialSchema for Feature {
    fn schema() -> RefOr<Schema> {
        // The published one takes its place.
        ObjectBuilder::new().into()
    }
}

impl ToSchema for Feature {
    fn name() -> Cow<'static, str> {
        "Feature".into()
    }
}

impl PartialSchema for Dot {
    fn schema() -> RefOr<Schema> {
        let number = |about: &str| {
            ObjectBuilder::new()
                .schema_type(Type::Number)
                .description(Some(about))
        };
        let count = |about: &str| {
            (number(about).schema_type(Type::Integer))
                .minimum(Some(0))
                .build()
        };
        let unknown = |about: &str| {
            let or_null = SchemaType::from_iter([Type::Number, Type::Null]);
            number(about).schema_type(or_null).build()
        };
        let items = [
            count("The driver's id."),
            number("Degrees east, WGS 84.").build(),
            number("Degrees north, WGS 84.").build(),
            unknown("Degrees clockwise from north; null if unknown."),
            unknown("Metres per second; null if unknown."),
            number("When the fix was taken, ms since 1970.")
                .schema_type(Type::Integer)
                .build(),
            count("How long ago Kafka had it, ms."),
            count("Open orders."),
        ];
        let length = items.len();
        ArrayBuilder::new()
            .description(Some(
                "A driver in a box: id, longitude, latitude, heading, speed, at, age_ms, open orders.",
            ))
            .prefix_items(items)
            .items(ArrayItems::False)
            .min_items(Some(length))
            .max_items(Some(length))
            .into()
    }
}

impl ToSchema for Dot {
    fn name() -> Cow<'static, str> {
        "Driver".into()
    }
}

/// Which end of an order.
pub(super) fn leg() -> Schema {
    choice(
        "Which end of the order.",
        [Leg::Pickup, Leg::Dropoff].map(Leg::as_str),
    )
    .into()
}

/// Which end of an order a driver goes to, or null.
pub(super) fn target() -> Schema {
    let legs = [Leg::Pickup, Leg::Dropoff].map(|leg| Some(leg.as_str()));
    ObjectBuilder::new()
        .description(Some("Where the driver goes; null if nowhere."))
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(legs.into_iter().chain([None])))
        .into()
}

const STATUSES: [OrderStatus; 5] = [
    OrderStatus::Placed,
    OrderStatus::Assigned,
    OrderStatus::PickedUp,
    OrderStatus::Delivered,
    OrderStatus::Cancelled,
];

/// How an order may stand.
pub(super) fn status() -> Schema {
    choice("How the order stands.", STATUSES.map(OrderStatus::as_str)).into()
}

/// How an open order may stand.
pub(super) fn open_status() -> Schema {
    let open = STATUSES.into_iter().filter(|status| !status.is_ended());
    choice("How the order stands.", open.map(OrderStatus::as_str)).into()
}

/// How a stream may end.
pub(super) fn end() -> Schema {
    let ended = STATUSES.into_iter().filter(|status| status.is_ended());
    choice(
        "How the order ended, or that the token has expired.",
        ended.map(OrderStatus::as_str).chain(["removed", "expired"]),
    )
    .into()
}

/// What may happen.
pub(super) fn event_type() -> Schema {
    choice("What happened.", EventKind::ALL.map(EventKind::name)).into()
}

/// The part of the OpenAPI document that is the streams'.
pub(in crate::gateway) fn paths() -> OpenApi {
    super::Described::openapi()
}

fn agent() -> Agent {
    Agent {
        longitude: 77.5946,
        latitude: 12.9716,
        heading: Some(271.5),
        speed: Some(6.25),
        at: AT_MS,
        age_ms: 377,
    }
}

fn way() -> Way {
    Way {
        distance_m: Some(433.3),
        eta_s: Some(Eta {
            min: 69.0,
            max: 125.0,
        }),
    }
}

fn stop(longitude: f64, place: &str) -> End<'_> {
    End {
        longitude,
        latitude: 12.9716,
        place: Some(place),
    }
}

fn told() -> Told {
    Told {
        id: "rider-updates/1/42/agent.near/o-1.pickup/453".into(),
        kind: EventKind::AgentNear,
        driver: DriverId(453),
        order: Some(OrderId("o-1".into())),
        fence: None,
        leg: Some(Leg::Pickup),
        position: Some(Position {
            longitude: 77.5946,
            latitude: 12.9716,
        }),
        distance_m: Some(433.3),
        eta_s: Some(69.3),
        at_ms: AT_MS,
        detected_at_ms: AT_MS,
        partition: 1,
    }
}

fn ended(status: OrderStatus) -> Ended<'static> {
    Ended {
        now: NOW_MS,
        status: status.as_str(),
    }
}

fn expired() -> Message {
    let expired = Ended {
        now: NOW_MS,
        status: "expired",
    };
    Message::of("ended", &[expired])
}

/// What the stream of an order says.
pub(in crate::gateway) fn order() -> Vec<Message> {
    let told = told();
    let shown = |status: OrderStatus| order::Shown {
        id: "o-1",
        status: status.as_str(),
        pickup: stop(77.5986, "restaurant-9"),
        dropoff: stop(77.6101, "customer-77"),
        updated_at: AT_MS,
    };
    let under_way = order::Snapshot {
        now: NOW_MS,
        order: shown(OrderStatus::Assigned),
        agent: Some(agent()),
        target: Some(Leg::Pickup),
        way: way(),
        events: vec![told.brief()],
    };
    let placed = order::Snapshot {
        now: NOW_MS,
        order: shown(OrderStatus::Placed),
        agent: None,
        target: None,
        way: Way::default(),
        events: Vec::new(),
    };
    let moved = order::Moved {
        now: NOW_MS,
        agent: agent(),
        target: Some(Leg::Pickup),
        way: way(),
    };
    let happened = order::Happened {
        now: NOW_MS,
        event: told.brief(),
    };
    vec![
        Message::of("snapshot", &[under_way, placed]),
        Message::of("position", &[moved]),
        Message::of("event", &[happened]),
        Message::of("ended", &[ended(OrderStatus::Delivered)]),
    ]
}

/// What the stream of a place says.
pub(in crate::gateway) fn place() -> Vec<Message> {
    let row = |state, agent: Option<Agent>| place::Row {
        id: "o-1",
        status: OrderStatus::Assigned.as_str(),
        leg: Leg::Pickup,
        state,
        since: AT_MS,
        way: agent.as_ref().map_or_else(Way::default, |_| way()),
        agent,
    };
    let snapshot = place::Snapshot {
        now: NOW_MS,
        place: "restaurant-9",
        longitude: Some(77.5986),
        latitude: Some(12.9716),
        orders: vec![row(State::Coming, Some(agent()))],
    };
    let empty = place::Snapshot {
        now: NOW_MS,
        place: "restaurant-9",
        longitude: None,
        latitude: None,
        orders: Vec::new(),
    };
    let changed = [row(State::Near, Some(agent())), row(State::PickedUp, None)]
        .map(|order| place::Changed { now: NOW_MS, order });
    let moved = place::Moved {
        now: NOW_MS,
        id: "o-1",
        agent: agent(),
        way: way(),
    };
    let removed = place::Removed {
        now: NOW_MS,
        id: "o-1",
    };
    vec![
        Message::of("snapshot", &[snapshot, empty]),
        Message::of("order", &changed),
        Message::of("position", &[moved]),
        Message::of("removed", &[removed]),
        expired(),
    ]
}

/// What the stream of the fleet says.
pub(in crate::gateway) fn fleet() -> Vec<Message> {
    let told = told();
    let feature = feature();
    let dot = |id, heading| Dot {
        id,
        position: Position {
            longitude: 77.5946,
            latitude: 12.9716,
        },
        heading,
        speed: Some(6.25),
        at: AT_MS,
        age_ms: 377,
        open_orders: 1,
        changed: 0,
    };
    let dots = [dot(453, Some(271.5)), dot(454, None)];
    let snapshot = fleet::Snapshot {
        now: NOW_MS,
        total: 2,
        shown: 2,
        drivers: &dots,
        fences: vec![&*feature],
        events: vec![told.full()],
    };
    let moved = fleet::Moved {
        now: NOW_MS,
        total: 1,
        shown: 1,
        drivers: vec![&dots[0]],
        gone: vec![454],
    };
    let happened = fleet::Happened {
        now: NOW_MS,
        event: told.full(),
    };
    let fenced = [Some(&*feature), None].map(|feature| fleet::Fenced {
        now: NOW_MS,
        id: "f-7",
        feature,
    });
    vec![
        Message::of("snapshot", &[snapshot]),
        Message::of("positions", &[moved]),
        Message::of("event", &[happened]),
        Message::of("fence", &fenced),
        expired(),
    ]
}

fn feature() -> std::sync::Arc<RawValue> {
    let fence = Fence {
        id: FenceId("f-7".into()),
        name: Some("Restaurant 9".into()),
        kind: Some("restaurant".into()),
        geometry: Geometry::Circle {
            center: Position {
                longitude: 77.5986,
                latitude: 12.9716,
            },
            radius_m: 80.0,
        },
        dwell_s: Some(60.0),
        exit_margin_m: 0.0,
    };
    fences::feature("f-7", &encode_fence(&fence)).expect("an encoded fence is a JSON object")
}

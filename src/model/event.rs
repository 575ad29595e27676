//! What the job tells the world.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{DriverId, FenceId, Leg, OrderId, OrderStatus, Place, Position, Source, TimeMs};

/// An event's type, in the order in which events of one cause are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A silent driver is heard again.
    DriverResumed,
    /// An order got its driver.
    OrderAssigned,
    /// An order was picked up.
    OrderPickedUp,
    /// An order was delivered.
    OrderDelivered,
    /// An order was called off.
    OrderCancelled,
    /// A driver left a fence.
    GeofenceExited,
    /// A driver passed through a fence between two fixes.
    GeofenceCrossed,
    /// A driver came into a fence.
    GeofenceEntered,
    /// A driver stayed in a fence for its `dwell`.
    GeofenceDwelled,
    /// A driver came near a leg's target.
    AgentNear,
    /// A driver stayed at a leg's target.
    AgentArrived,
    /// A driver left a leg's target after arriving.
    AgentDeparted,
    /// A driver with an open order is no longer heard.
    DriverSilent,
}

impl EventKind {
    /// All kinds, in telling order.
    pub const ALL: [Self; 13] = [
        Self::DriverResumed,
        Self::OrderAssigned,
        Self::OrderPickedUp,
        Self::OrderDelivered,
        Self::OrderCancelled,
        Self::GeofenceExited,
        Self::GeofenceCrossed,
        Self::GeofenceEntered,
        Self::GeofenceDwelled,
        Self::AgentNear,
        Self::AgentArrived,
        Self::AgentDeparted,
        Self::DriverSilent,
    ];

    /// The contract's name, such as `geofence.entered`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DriverResumed => "driver.resumed",
            Self::OrderAssigned => "order.assigned",
            Self::OrderPickedUp => "order.picked_up",
            Self::OrderDelivered => "order.delivered",
            Self::OrderCancelled => "order.cancelled",
            Self::GeofenceExited => "geofence.exited",
            Self::GeofenceCrossed => "geofence.crossed",
            Self::GeofenceEntered => "geofence.entered",
            Self::GeofenceDwelled => "geofence.dwelled",
            Self::AgentNear => "agent.near",
            Self::AgentArrived => "agent.arrived",
            Self::AgentDeparted => "agent.departed",
            Self::DriverSilent => "driver.silent",
        }
    }
}

/// What an event is about, besides its driver; orders by bytes of the id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// `driver.*`: the driver alone.
    Driver,
    /// `geofence.*`.
    Fence(FenceId),
    /// `order.*`.
    Order(OrderId),
    /// `agent.*`.
    Leg(OrderId, Leg),
}

/// What set an event off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An update.
    Position,
    /// An order's change.
    Order,
    /// A fence's change.
    Fence,
    /// A deadline.
    Timer,
}

impl Cause {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Order => "order",
            Self::Fence => "fence",
            Self::Timer => "timer",
        }
    }
}

/// One event, before it is put into bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its type.
    pub kind: EventKind,
    /// The driver it is told to.
    pub driver: DriverId,
    /// What it is about.
    pub subject: Subject,
    /// What set it off.
    pub cause: Cause,
    /// Where it stands among all events: the record that set it off, or, for a timer, the
    /// deadline on the clock with the source of what started the timer. A timer that is due
    /// by event time stands at the fix that showed it, before what the fix itself sets off.
    pub place: Place,
    /// The record that it is named after: the cause, or what started the timer.
    pub source: Source,
    /// Event time of the cause; for a timer its deadline. Ms since 1970.
    pub event_time_ms: TimeMs,
    /// The `now` of its epoch, ms since 1970.
    pub detected_at_ms: TimeMs,
    /// The fix that it was judged by.
    pub position: Option<Position>,
    /// The place id of the leg's target or of the drop-off.
    pub at_place: Option<CompactString>,
    /// The order's status.
    pub status: Option<OrderStatus>,
    /// Metres to the leg's target; for `order.delivered` to the drop-off.
    pub distance_m: Option<f64>,
    /// Seconds to the target in a straight line.
    pub eta_s: Option<f64>,
    /// Seconds of the visit so far.
    pub dwell_s: Option<f64>,
    /// A first known fix that was inside.
    pub initial: bool,
}

impl Event {
    /// The total order in which events are told, a function of their content alone.
    pub fn telling_order(&self) -> impl Ord + '_ {
        let is_timer = self.cause == Cause::Timer;
        let by_clock = is_timer && self.place.source == self.source;
        let deadline = (is_timer && !by_clock).then_some((self.event_time_ms, self.source));
        (
            self.place.at_ms,
            !by_clock,
            self.place.source,
            // Timers that the fix shows to be due come first, by deadline.
            deadline.is_none(),
            deadline,
            self.driver,
            self.kind,
            &self.subject,
        )
    }
}

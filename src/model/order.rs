//! Orders and their legs.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{DriverId, Place, Position, TimeMs};

/// An order's id, which is its message key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderId(pub CompactString);

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Nobody carries it yet.
    Placed,
    /// A driver is on the way to the pickup.
    Assigned,
    /// A driver is on the way to the drop-off.
    PickedUp,
    /// Ended: handed over.
    Delivered,
    /// Ended: called off.
    Cancelled,
}

impl OrderStatus {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Assigned => "assigned",
            Self::PickedUp => "picked_up",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the order has ended: after it only a removal is heard.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Delivered | Self::Cancelled)
    }
}

/// The target of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// To the pickup, while assigned.
    Pickup,
    /// To the drop-off, while picked up.
    Dropoff,
}

impl Leg {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pickup => "pickup",
            Self::Dropoff => "dropoff",
        }
    }
}

/// One end of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// Where it is.
    pub position: Position,
    /// The restaurant's or customer's id.
    pub place: Option<CompactString>,
}

/// One version of an order, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Its driver as given: present for `assigned` and `picked_up`, always absent for
    /// `placed`, optional once it has ended.
    pub driver: Option<DriverId>,
    /// Where it stands.
    pub status: OrderStatus,
    /// From where.
    pub pickup: Stop,
    /// To where.
    pub dropoff: Stop,
    /// Event time of this version, ms since 1970.
    pub updated_at_ms: TimeMs,
}

/// A record of `orders`: a new version, or a removal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderChange {
    /// Its place in the merged order.
    pub place: Place,
    /// Which order.
    pub id: OrderId,
    /// The version, or `None` to remove the order.
    pub order: Option<Order>,
}

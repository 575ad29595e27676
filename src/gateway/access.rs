//! Who may: what a token grants.

use compact_str::CompactString;

use crate::model::{DriverId, OrderId, TimeMs};

/// Whom or what a token is for: its `sub` claim, and all that it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `driver/453`: to send this driver's positions.
    Driver(DriverId),
    /// `order/o-1`: to follow this order while it is open.
    Order(OrderId),
    /// `place/restaurant-9`: to see the orders of this place.
    Place(CompactString),
    /// `fleet`: to see all drivers on the operations map.
    Fleet,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it opens.
    pub subject: Subject,
    /// When it stops to, ms since 1970.
    pub expires_at_ms: TimeMs,
}

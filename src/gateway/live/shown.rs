//! The shapes in which streams show drivers and stops.
//!
//! Owns AGENT, the distance and the ETA as a range. Pure.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::drivers::Driver;
use crate::geo::distance_m;
use crate::model::{Position, Stop, TimeMs};

/// Streets make a way longer than the straight line by at most about this.
const DETOUR: f64 = 1.8;

/// Where a driver is: its newest fix that counts.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Agent {
    /// Degrees east, WGS 84.
    #[serde(serialize_with = "degrees")]
    pub(super) longitude: f64,
    /// Degrees north, WGS 84.
    #[serde(serialize_with = "degrees")]
    pub(super) latitude: f64,
    /// Degrees clockwise from north; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) heading: Option<f32>,
    /// Metres per second; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) speed: Option<f32>,
    /// When the fix was taken, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) at: TimeMs,
    /// How long ago Kafka had it, ms.
    #[schema(value_type = i64, minimum = 0)]
    pub(super) age_ms: TimeMs,
}

impl Agent {
    pub(super) fn of(driver: &Driver, now_ms: TimeMs) -> Self {
        Self {
            longitude: driver.position.longitude,
            latitude: driver.position.latitude,
            heading: driver.heading(),
            speed: driver.speed(),
            at: driver.event_time_ms,
            age_ms: age_ms(driver, now_ms),
        }
    }
}

/// How long ago Kafka had a driver's fix; never negative, whatever the clocks say.
pub(super) fn age_ms(driver: &Driver, now_ms: TimeMs) -> TimeMs {
    (now_ms - driver.received_ms).max(0)
}

/// How far a driver has to go, and how long that takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct Way {
    /// The straight line, metres; absent if nobody is on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub(super) distance_m: Option<f64>,
    /// Seconds; absent if the driver's speed is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) eta_s: Option<Eta>,
}

/// Seconds: straight on, and by streets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Eta {
    /// Along the straight line.
    #[schema(minimum = 0)]
    pub(super) min: f64,
    /// By streets that are no detour of more than 80 %.
    #[schema(minimum = 0)]
    pub(super) max: f64,
}

impl Way {
    pub(super) fn to(driver: &Driver, target: Position) -> Self {
        let distance = distance_m(driver.position, target);
        let eta = driver.pace().map(|pace| Eta {
            min: (distance / pace).round(),
            max: (distance / pace * DETOUR).round(),
        });
        Self {
            distance_m: Some((distance * 10.0).round() / 10.0),
            eta_s: eta.filter(|eta| eta.max.is_finite()),
        }
    }
}

/// An end of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Stop)]
pub(super) struct End<'a> {
    /// Degrees east, WGS 84.
    #[serde(serialize_with = "degrees")]
    pub(super) longitude: f64,
    /// Degrees north, WGS 84.
    #[serde(serialize_with = "degrees")]
    pub(super) latitude: f64,
    /// Its name; absent if the order gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) place: Option<&'a str>,
}

impl<'a> End<'a> {
    pub(super) fn of(stop: &'a Stop) -> Self {
        Self {
            longitude: stop.position.longitude,
            latitude: stop.position.latitude,
            place: stop.place.as_deref(),
        }
    }
}

/// Degrees in units of 10^-7, about a centimetre.
pub(super) fn rounded(degrees: f64) -> f64 {
    (degrees * 1e7).round() / 1e7
}

fn degrees<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(rounded(*value))
}

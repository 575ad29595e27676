//! The shapes in which streams show drivers and stops.
//!
//! Owns AGENT, the distance and the ETA as a range. Pure.

use serde::{Serialize, Serializer};

use super::drivers::Driver;
use crate::geo::distance_m;
use crate::model::{Position, Stop, TimeMs};

/// Streets make a way longer than the straight line by at most about this.
const DETOUR: f64 = 1.8;

/// AGENT.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Agent {
    #[serde(serialize_with = "degrees")]
    longitude: f64,
    #[serde(serialize_with = "degrees")]
    latitude: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    heading: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f32>,
    at: TimeMs,
    age_ms: TimeMs,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Way {
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_m: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<Eta>,
}

/// Seconds: straight on, and by streets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Eta {
    min: f64,
    max: f64,
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
#[derive(Serialize)]
pub(super) struct End<'a> {
    #[serde(serialize_with = "degrees")]
    longitude: f64,
    #[serde(serialize_with = "degrees")]
    latitude: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
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

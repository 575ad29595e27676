//! Orders: JSON to [`OrderChange`] and, for the simulator, back.
//!
//! Owns the reading of `orders`. Promises that an order's id is its message key, and that
//! one in `assigned` or `picked_up` names its driver. Never compares a version with the one
//! before: that is for `detect`.

use compact_str::CompactString;

use crate::model::{
    DriverId, Fault, Order, OrderChange, OrderId, OrderStatus, Place, Reason, Stop, TimeMs,
};

use super::encode;
use super::json::{self, LAST_TIME_MS, Object, Value};

/// The known fields, in the order in which they are checked.
const FIELDS: [&str; 6] = [
    "orderId",
    "driverId",
    "status",
    "pickup",
    "dropoff",
    "updatedAt",
];

/// The known fields of `pickup` and `dropoff`.
const STOP_FIELDS: [&str; 3] = ["longitude", "latitude", "place"];

/// Decodes a record of `orders`; a null value removes the order that the key names.
/// `received_at_ms` is the record's own Kafka timestamp, which is also the event time of a
/// version without `updatedAt`.
///
/// # Errors
/// The first fault in the contract's order.
pub fn decode_order(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    place: Place,
    received_at_ms: TimeMs,
) -> Result<OrderChange, Fault> {
    let order = match value {
        None => None,
        Some([]) => return Err(json::empty("no bytes; null removes an order")),
        Some(value) => Some(decode_version(key, value, received_at_ms)?),
    };
    let id = match &order {
        Some(order) => order.id.clone(),
        None => OrderId(json::key(key)?.into()),
    };
    Ok(OrderChange { place, id, order })
}

fn decode_version(
    key: Option<&[u8]>,
    value: &[u8],
    received_at_ms: TimeMs,
) -> Result<Order, Fault> {
    let object = Object::read(json::document(value)?, "", &FIELDS)?;
    let [id, driver, status, pickup, dropoff, updated_at] =
        std::array::from_fn(|index| object.field(index));
    let pickup = pickup.nested("pickup.", &STOP_FIELDS)?;
    let dropoff = dropoff.nested("dropoff.", &STOP_FIELDS)?;

    let id = id.required()?;
    let id_text = id.text()?;
    // Whether the driver counts depends on the status, whose own faults come after it.
    let known_status = status.required().and_then(decode_status);
    let driver = match known_status {
        Ok(OrderStatus::Placed) => None,
        Ok(OrderStatus::Assigned | OrderStatus::PickedUp) => Some(driver.required()?),
        Ok(OrderStatus::Delivered | OrderStatus::Cancelled) | Err(_) => driver.optional(),
    };
    let driver = match driver {
        Some(driver) => Some(DriverId(driver.driver()?)),
        None => None,
    };
    let status = known_status?;
    let pickup = decode_stop(pickup.required()?)?;
    let dropoff = decode_stop(dropoff.required()?)?;
    let updated_at_ms = match updated_at.optional() {
        Some(updated_at) => {
            let time_ms = updated_at.time_ms()?;
            if time_ms > LAST_TIME_MS {
                return Err(updated_at.fault(Reason::OutOfRange, "after the year 9999"));
            }
            time_ms
        }
        None => received_at_ms.clamp(0, LAST_TIME_MS),
    };
    let key = json::key(key)?;
    if key != id_text {
        return Err(id.fault(
            Reason::KeyMismatch,
            format_args!("the key is {}", json::shorten(key)),
        ));
    }
    Ok(Order {
        id: OrderId(id_text.into()),
        driver,
        status,
        pickup,
        dropoff,
        updated_at_ms,
    })
}

fn decode_status(value: Value<'_>) -> Result<OrderStatus, Fault> {
    match &*value.text()? {
        "placed" => Ok(OrderStatus::Placed),
        "assigned" => Ok(OrderStatus::Assigned),
        "picked_up" => Ok(OrderStatus::PickedUp),
        "delivered" => Ok(OrderStatus::Delivered),
        "cancelled" => Ok(OrderStatus::Cancelled),
        _ => Err(value.fault(Reason::OutOfRange, "not a status")),
    }
}

fn decode_stop(object: &Object<'_, 3>) -> Result<Stop, Fault> {
    Ok(Stop {
        position: json::position(object.field(0), object.field(1))?,
        place: match object.field(2).optional() {
            Some(place) => Some(CompactString::from(place.text()?)),
            None => None,
        },
    })
}

/// An order's JSON, fields in the contract's order; coordinates have at most 7 decimals.
pub fn encode_order(order: &Order) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"orderId\":");
    encode::text(&mut out, &order.id.0);
    if let Some(driver) = order.driver {
        encode::write(&mut out, format_args!(",\"driverId\":{driver}"));
    }
    encode::write(
        &mut out,
        format_args!(",\"status\":\"{}\"", order.status.as_str()),
    );
    for (name, stop) in [("pickup", &order.pickup), ("dropoff", &order.dropoff)] {
        encode::write(&mut out, format_args!(",\"{name}\":"));
        encode::position(&mut out, "{", stop.position);
        if let Some(place) = &stop.place {
            out.extend_from_slice(b",\"place\":");
            encode::text(&mut out, place);
        }
        out.push(b'}');
    }
    encode::write(
        &mut out,
        format_args!(",\"updatedAt\":{}}}", order.updated_at_ms),
    );
    out
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;

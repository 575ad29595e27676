//! The city's messages as JSON, written by hand into a reused buffer.

use crate::model::{Fence, Geometry, Order, Position, Stop, TimeMs};

use super::Fix;

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Writes an integer.
pub(super) fn integer(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while n >= 100 {
        let pair = (n % 100) as usize * 2;
        n /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if n >= 10 {
        let pair = n as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + n as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a number with exactly `DECIMALS` decimals.
fn fixed<const DECIMALS: usize>(x: f64, out: &mut Vec<u8>) {
    const { assert!(DECIMALS > 0 && DECIMALS < 10) };
    let scale = 10_u64.pow(DECIMALS as u32);
    let scaled = (x.abs() * scale as f64 + 0.5) as u64;
    if x < 0.0 && scaled > 0 {
        out.push(b'-');
    }
    integer(scaled / scale, out);
    let mut part = scaled % scale;
    let mut digits = [b'0'; 10];
    for digit in digits[..=DECIMALS].iter_mut().rev().take(DECIMALS) {
        *digit = b'0' + (part % 10) as u8;
        part /= 10;
    }
    digits[0] = b'.';
    out.extend_from_slice(&digits[..=DECIMALS]);
}

/// Writes a rider update.
pub(super) fn update(driver: u64, fix: &Fix, timestamp_ms: TimeMs, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"driverId\":");
    integer(driver, out);
    out.extend_from_slice(b",\"longitude\":");
    fixed::<6>(fix.position.longitude, out);
    out.extend_from_slice(b",\"latitude\":");
    fixed::<6>(fix.position.latitude, out);
    out.extend_from_slice(b",\"state\":\"");
    out.extend_from_slice(fix.state.as_bytes());
    out.extend_from_slice(b"\",\"timestamp\":");
    integer(timestamp_ms as u64, out);
    if let Some(accuracy_m) = fix.accuracy_m {
        out.extend_from_slice(b",\"accuracy\":");
        fixed::<1>(f64::from(accuracy_m), out);
    }
    if let Some((speed_mps, heading_deg)) = fix.motion {
        out.extend_from_slice(b",\"speed\":");
        fixed::<1>(f64::from(speed_mps), out);
        out.extend_from_slice(b",\"heading\":");
        fixed::<1>(f64::from(heading_deg), out);
    }
    out.push(b'}');
}

/// Writes an order.
pub(super) fn order(order: &Order, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"orderId\":\"");
    out.extend_from_slice(order.id.0.as_bytes());
    out.push(b'"');
    if let Some(driver) = order.driver {
        out.extend_from_slice(b",\"driverId\":");
        integer(driver.0, out);
    }
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(order.status.as_str().as_bytes());
    out.extend_from_slice(b"\",\"pickup\":");
    stop(&order.pickup, out);
    out.extend_from_slice(b",\"dropoff\":");
    stop(&order.dropoff, out);
    out.extend_from_slice(b",\"updatedAt\":");
    integer(order.updated_at_ms as u64, out);
    out.push(b'}');
}

fn stop(stop: &Stop, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"longitude\":");
    fixed::<6>(stop.position.longitude, out);
    out.extend_from_slice(b",\"latitude\":");
    fixed::<6>(stop.position.latitude, out);
    if let Some(place) = &stop.place {
        out.extend_from_slice(b",\"place\":\"");
        out.extend_from_slice(place.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
}

/// Writes a fence as a GeoJSON Feature.
pub(super) fn fence(fence: &Fence, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"Feature\",\"geometry\":{\"type\":\"");
    match &fence.geometry {
        Geometry::Polygon(rings) => {
            out.extend_from_slice(b"Polygon\",\"coordinates\":");
            list(rings, out, |ring, out| list(ring, out, coordinates));
        }
        Geometry::MultiPolygon(polygons) => {
            out.extend_from_slice(b"MultiPolygon\",\"coordinates\":");
            list(polygons, out, |rings, out| {
                list(rings, out, |ring, out| list(ring, out, coordinates));
            });
        }
        Geometry::Circle { center, .. } => {
            out.extend_from_slice(b"Point\",\"coordinates\":");
            coordinates(center, out);
        }
    }
    out.extend_from_slice(b"},\"properties\":{\"exitMargin\":");
    fixed::<1>(fence.exit_margin_m, out);
    if let Geometry::Circle { radius_m, .. } = fence.geometry {
        out.extend_from_slice(b",\"radius\":");
        fixed::<1>(radius_m, out);
    }
    if let Some(dwell_s) = fence.dwell_s {
        out.extend_from_slice(b",\"dwell\":");
        fixed::<1>(dwell_s, out);
    }
    for (name, text) in [("name", &fence.name), ("kind", &fence.kind)] {
        if let Some(text) = text {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"}}");
}

fn coordinates(position: &Position, out: &mut Vec<u8>) {
    out.push(b'[');
    fixed::<6>(position.longitude, out);
    out.push(b',');
    fixed::<6>(position.latitude, out);
    out.push(b']');
}

fn list<T>(items: &[T], out: &mut Vec<u8>, each: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        each(item, out);
    }
    out.push(b']');
}

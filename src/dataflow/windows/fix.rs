//! A counted update as windows see it, and the compact form in which fixes rest.

use serde::{Deserialize, Serialize};

use crate::geo::distance_m;
use crate::model::{DriverId, Position, TimeMs, Update};

/// Two updates further apart than this give neither distance nor speed, ms.
pub(super) const LEG_MS: TimeMs = 60_000;

/// An update that windows count, with whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::dataflow) struct Counted {
    pub(super) driver: DriverId,
    pub(super) fix: Fix,
}

impl Counted {
    /// What windows need of an update flagged `ok` or `late`.
    pub(in crate::dataflow) fn of(update: &Update) -> Self {
        Self {
            driver: update.driver,
            fix: Fix {
                at_ms: update.event_time_ms,
                offset: update.place.source.offset,
                partition: update.place.source.partition,
                speed_mps: update.speed_mps,
                position: update.position,
                after_dropped: false,
            },
        }
    }
}

/// Where a driver was and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Fix {
    /// Event time.
    pub(super) at_ms: TimeMs,
    pub(super) offset: i64,
    pub(super) partition: i32,
    /// The update's own speed.
    pub(super) speed_mps: Option<f32>,
    pub(super) position: Position,
    /// Whether fixes between the one before and this one were dropped.
    pub(super) after_dropped: bool,
}

impl Fix {
    /// A driver's fixes are ordered by event time; of one time, by where Kafka has them.
    pub(super) fn order(&self) -> (TimeMs, i32, i64) {
        (self.at_ms, self.partition, self.offset)
    }
}

/// What one fix adds, given the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Metres from the fix before.
    pub(super) distance_m: f64,
    /// The fix's own speed, else that from the fix before; m/s.
    pub(super) speed_mps: Option<f64>,
}

impl Step {
    pub(super) fn new(before: Option<&Fix>, fix: &Fix) -> Self {
        let own = fix.speed_mps.map(f64::from);
        let Some(before) = before else {
            return Self {
                distance_m: 0.0,
                speed_mps: own,
            };
        };
        let took_ms = fix.at_ms - before.at_ms;
        if took_ms > LEG_MS {
            return Self {
                distance_m: 0.0,
                speed_mps: own,
            };
        }
        let distance_m = distance_m(before.position, fix.position);
        let implied = (took_ms > 0).then(|| distance_m * 1000.0 / took_ms as f64);
        Self {
            distance_m,
            speed_mps: own.or(implied),
        }
    }
}

/// The greater of two speeds of which either may be unknown.
pub(super) fn faster(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

/// Degrees of a position's fixed-point form: exact for what was written with 7 decimals.
const DEGREES: f64 = 1e7;
/// Metres per second of a speed's fixed-point form.
const SPEEDS: f32 = 100.0;

const POSITION_RAW: u8 = 1;
const SPEED_RAW: u8 = 2;
const SPEED_FIXED: u8 = 4;
const OTHER_PARTITION: u8 = 8;
const AFTER_DROPPED: u8 = 16;

/// What a fix is told relative to: the one before it, else the start of its pane.
struct Base {
    at_ms: i64,
    offset: i64,
    partition: i32,
    longitude: i64,
    latitude: i64,
}

impl Base {
    fn new(before: Option<&Fix>, start_ms: TimeMs) -> Self {
        match before {
            None => Self {
                at_ms: start_ms,
                offset: 0,
                partition: 0,
                longitude: 0,
                latitude: 0,
            },
            Some(before) => Self {
                at_ms: before.at_ms,
                offset: before.offset,
                partition: before.partition,
                longitude: rounded(before.position.longitude),
                latitude: rounded(before.position.latitude),
            },
        }
    }
}

/// Appends a fix to the packed ones of its pane, of which `before` is the last: some 14 bytes
/// of differences as variable-length integers. Nothing is lost: a number that its fixed-point
/// form does not give back is kept whole.
pub(super) fn append(out: &mut Vec<u8>, fix: &Fix, before: Option<&Fix>, start_ms: TimeMs) {
    let base = Base::new(before, start_ms);
    let position = fixed(fix.position.longitude).zip(fixed(fix.position.latitude));
    let speed = fix.speed_mps.map(fixed_speed);
    let mut head = match speed {
        None => 0,
        Some(Some(_)) => SPEED_FIXED,
        Some(None) => SPEED_RAW,
    };
    for (holds, bit) in [
        (position.is_none(), POSITION_RAW),
        (fix.partition != base.partition, OTHER_PARTITION),
        (fix.after_dropped, AFTER_DROPPED),
    ] {
        head |= if holds { bit } else { 0 };
    }
    out.push(head);
    put(out, fix.at_ms - base.at_ms);
    put(out, fix.offset - base.offset);
    if fix.partition != base.partition {
        put(out, i64::from(fix.partition));
    }
    match position {
        Some((longitude, latitude)) => {
            put(out, longitude - base.longitude);
            put(out, latitude - base.latitude);
        }
        None => {
            out.extend(fix.position.longitude.to_le_bytes());
            out.extend(fix.position.latitude.to_le_bytes());
        }
    }
    match (speed, fix.speed_mps) {
        (Some(Some(hundredths)), _) => put(out, hundredths),
        (_, Some(speed)) => out.extend(speed.to_le_bytes()),
        (_, None) => {}
    }
}

/// All fixes of a pane, packed.
pub(super) fn pack(fixes: &[Fix], start_ms: TimeMs) -> Vec<u8> {
    let mut out = Vec::with_capacity(fixes.len() * 14);
    let mut before = None;
    for fix in fixes {
        append(&mut out, fix, before, start_ms);
        before = Some(fix);
    }
    out
}

/// What was packed, one after the other.
pub(super) fn unpack(mut bytes: &[u8], start_ms: TimeMs) -> impl Iterator<Item = Fix> {
    let mut before = None;
    std::iter::from_fn(move || {
        let fix = next(&mut bytes, &Base::new(before.as_ref(), start_ms))?;
        before = Some(fix);
        Some(fix)
    })
}

fn next(bytes: &mut &[u8], base: &Base) -> Option<Fix> {
    let [head] = take(bytes)?;
    let at_ms = base.at_ms + get(bytes)?;
    let offset = base.offset + get(bytes)?;
    let partition = if head & OTHER_PARTITION != 0 {
        get(bytes)? as i32
    } else {
        base.partition
    };
    let position = if head & POSITION_RAW != 0 {
        Position {
            longitude: f64::from_le_bytes(take(bytes)?),
            latitude: f64::from_le_bytes(take(bytes)?),
        }
    } else {
        Position {
            longitude: (base.longitude + get(bytes)?) as f64 / DEGREES,
            latitude: (base.latitude + get(bytes)?) as f64 / DEGREES,
        }
    };
    let speed_mps = if head & SPEED_FIXED != 0 {
        Some(get(bytes)? as f32 / SPEEDS)
    } else if head & SPEED_RAW != 0 {
        Some(f32::from_le_bytes(take(bytes)?))
    } else {
        None
    };
    Some(Fix {
        at_ms,
        offset,
        partition,
        speed_mps,
        position,
        after_dropped: head & AFTER_DROPPED != 0,
    })
}

/// An angle in fixed point.
fn rounded(degrees: f64) -> i64 {
    (degrees * DEGREES).round() as i64
}

/// The fixed-point form of an angle, if it gives back every bit.
fn fixed(degrees: f64) -> Option<i64> {
    let scaled = rounded(degrees);
    let back = scaled as f64 / DEGREES;
    (back.to_bits() == degrees.to_bits()).then_some(scaled)
}

fn fixed_speed(speed: f32) -> Option<i64> {
    let scaled = (speed * SPEEDS).round();
    let back = scaled as i64 as f32 / SPEEDS;
    (scaled < 1e6 && back.to_bits() == speed.to_bits()).then_some(scaled as i64)
}

/// A signed integer, small ones in few bytes.
fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn get(bytes: &mut &[u8]) -> Option<i64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let [byte] = take(bytes)?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fix() -> impl Strategy<Value = Fix> {
        let degrees = |range: f64| {
            prop_oneof![
                -range..=range,
                (-range..=range).prop_map(|x| (x * 1e6).round() / 1e6),
                Just(-0.0),
            ]
        };
        let speed = prop_oneof![
            Just(None),
            (0.0f32..80.0).prop_map(Some),
            (0u16..8_000).prop_map(|x| Some(f32::from(x) / 100.0)),
            Just(Some(f32::MAX)),
        ];
        let place = (0i64..4_000_000_000_000, 0i64..1 << 50, 0i32..1_000);
        (place, speed, degrees(180.0), degrees(90.0)).prop_map(
            |((at_ms, offset, partition), speed_mps, longitude, latitude)| Fix {
                at_ms,
                offset,
                partition,
                speed_mps,
                position: Position {
                    longitude,
                    latitude,
                },
                after_dropped: offset % 3 == 0,
            },
        )
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(fixes in prop::collection::vec(fix(), 0..20)) {
            let bytes = pack(&fixes, 1_790_000_000_000);
            let back: Vec<_> = unpack(&bytes, 1_790_000_000_000).collect();
            let bits = |fixes: &[Fix]| format!("{fixes:?}");
            prop_assert_eq!(bits(&back), bits(&fixes));
        }
    }

    #[test]
    fn a_usual_fix_takes_few_bytes() {
        let fixes: Vec<_> = (0..60)
            .map(|second| Fix {
                at_ms: 1_790_000_000_000 + second * 1000 + 37 * (second % 3),
                offset: 123_456_789 + second * 50_000,
                partition: 1,
                speed_mps: Some(6.25 + second as f32 / 4.0),
                position: Position {
                    longitude: (775_946_000 + 700 * second) as f64 / 1e7,
                    latitude: (129_716_000 - 650 * second) as f64 / 1e7,
                },
                after_dropped: false,
            })
            .collect();
        let bytes = pack(&fixes, 1_790_000_000_000).len();
        assert!(bytes <= 60 * 14, "{bytes} bytes for 60 fixes");
    }

    #[test]
    fn a_leg_of_60_s_counts_and_a_longer_one_does_not() {
        let fix = |at_ms, longitude| Fix {
            at_ms,
            offset: at_ms,
            partition: 0,
            speed_mps: None,
            position: Position {
                longitude,
                latitude: 0.0,
            },
            after_dropped: false,
        };
        let start = fix(0, 0.0);
        let near = Step::new(Some(&start), &fix(60_000, 0.01));
        assert!((near.distance_m - 1_111.95).abs() < 0.01, "{near:?}");
        let speed = near.speed_mps.expect("known");
        assert!((speed - 1_111.95 / 60.0).abs() < 0.001, "{near:?}");
        assert_eq!(Step::new(Some(&start), &fix(60_001, 0.01)), Step::default());
        let at_once = Step::new(Some(&start), &fix(0, 0.01));
        assert_eq!(at_once.speed_mps, None, "no time, no speed");
        assert!(at_once.distance_m > 1_000.0);
    }
}

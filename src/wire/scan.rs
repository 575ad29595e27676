//! The fast way into a rider update: one pass over the bytes of the plain shape.
//!
//! Owns speed and nothing else. It reads a flat ASCII object of plain numbers, plain text
//! and no nulls in known fields, and allocates nothing (a `state` of up to 24 bytes is held
//! inline). Whatever it is not sure of, good or bad, it declines with `None`, and
//! [`super::update::decode_checked`] decides. Promises that what it accepts, that function
//! accepts with the same bits. Never reports a fault.

use compact_str::CompactString;

use crate::model::TimeMs;

use super::envelope::{Envelope, LAST_SEQ, NamedDriver};
use super::json::{FIRST_TIME_MS, LAST_TIME_MS};
use super::update::{Limits, Report, default_time_ms};

/// Powers of ten that doubles hold exactly.
const POWERS_OF_TEN: [f64; 20] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19,
];

/// More digits than this may not fit a `u64`.
const DIGITS: usize = 19;

/// Doubles hold every integer up to this exactly.
const EXACT: u64 = 1 << 53;

/// Reads a plain update; `None` for anything else, which need not be wrong.
#[inline]
pub(super) fn scan_update(value: &[u8], received_at_ms: TimeMs, limits: &Limits) -> Option<Report> {
    let mut driver = None;
    let mut longitude = None;
    let mut latitude = None;
    let mut event_time_ms = None;
    let mut accuracy = None;
    let mut speed = None;
    let mut heading = None;
    let mut state = None;

    object(value, |scanner, key| {
        match key {
            b"driverId" | b"driver_id" => once(&mut driver, scanner.integer()?)?,
            b"longitude" => once(&mut longitude, scanner.decimal()?)?,
            b"latitude" => once(&mut latitude, scanner.decimal()?)?,
            b"state" => once(&mut state, scanner.text()?)?,
            b"timestamp" => once(&mut event_time_ms, scanner.integer()?)?,
            b"accuracy" => once(&mut accuracy, scanner.decimal()?)?,
            b"speed" => once(&mut speed, scanner.decimal()?)?,
            b"heading" => once(&mut heading, scanner.decimal()?)?,
            _ => scanner.scalar()?,
        }
        Some(())
    })?;

    let longitude = longitude.filter(|degrees| degrees.abs() <= 180.0)?;
    let latitude = latitude.filter(|degrees| degrees.abs() <= 90.0)?;
    let event_time_ms = match event_time_ms {
        Some(time_ms) => {
            let latest_ms = received_at_ms
                .saturating_add(limits.future_limit_ms)
                .min(LAST_TIME_MS);
            TimeMs::try_from(time_ms)
                .ok()
                .filter(|time_ms| (FIRST_TIME_MS..=latest_ms).contains(time_ms))?
        }
        None => default_time_ms(received_at_ms),
    };
    Some(Report {
        driver: driver.filter(|driver| *driver <= i64::MAX as u64)?,
        longitude,
        latitude,
        event_time_ms,
        accuracy_m: measure(accuracy),
        speed_mps: measure(speed),
        heading_deg: measure(heading),
        // ASCII, as `Scanner::text` checked.
        state: match state {
            Some(state) => Some(CompactString::from(std::str::from_utf8(state).ok()?)),
            None => None,
        },
    })
}

/// Reads the envelope of a plain update; `None` for anything else, which need not be wrong.
#[inline]
pub(super) fn scan_envelope(value: &[u8]) -> Option<Envelope> {
    let mut seq = None;
    let mut driver = None;
    let mut other_driver = None;
    object(value, |scanner, key| {
        match key {
            b"seq" => once(&mut seq, scanner.integer()?)?,
            b"driverId" => once(&mut driver, scanner.integer()?)?,
            b"driver_id" => once(&mut other_driver, scanner.integer()?)?,
            _ => scanner.scalar()?,
        }
        Some(())
    })?;
    if seq.is_some_and(|seq| !(1..=LAST_SEQ).contains(&seq)) {
        return None;
    }
    let driver = match driver.or(other_driver) {
        Some(_) => NamedDriver::Given,
        None => NamedDriver::Absent,
    };
    Some(Envelope { seq, driver })
}

/// Goes through the one object that `value` is: `field` reads the value behind each key.
#[inline(always)]
fn object<'a>(
    value: &'a [u8],
    mut field: impl FnMut(&mut Scanner<'a>, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut scanner = Scanner { value, at: 0 };
    scanner.space();
    scanner.take(b'{')?;
    loop {
        scanner.space();
        let key = scanner.text()?;
        scanner.space();
        scanner.take(b':')?;
        scanner.space();
        field(&mut scanner, key)?;
        scanner.space();
        match scanner.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    scanner.space();
    (scanner.at == value.len()).then_some(())
}

/// Fills a field, unless it is given twice.
#[inline]
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

/// A measurement; negative ones are unknown. What [`Scanner::decimal`] accepts is far from
/// the largest `f32`.
#[inline]
fn measure(value: Option<f64>) -> Option<f32> {
    value
        .filter(|value| *value >= 0.0)
        .map(|value| value as f32)
}

/// A place in the bytes. Every method leaves it behind what it read, or declines.
struct Scanner<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Skips what JSON calls whitespace.
    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Printable ASCII between quotes, without escapes.
    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.next()? {
                b'"' => return Some(&self.value[start..self.at - 1]),
                b'\\' | ..0x20 | 0x80.. => return None,
                _ => {}
            }
        }
    }

    /// Reads digits on behind those of `value`, and how many they are. Meaningless once
    /// both together are more than [`DIGITS`].
    #[inline]
    fn digits(&mut self, mut value: u64) -> Option<(u64, usize)> {
        let start = self.at;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            // Wraps only after more digits than are accepted.
            value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            self.at += 1;
        }
        let count = self.at - start;
        (1..=DIGITS).contains(&count).then_some((value, count))
    }

    /// Digits as JSON writes them: none in front of others that is 0.
    #[inline]
    fn whole(&mut self) -> Option<(u64, usize)> {
        let leading = self.peek()?;
        let (value, count) = self.digits(0)?;
        (leading != b'0' || count == 1).then_some((value, count))
    }

    /// Declines if a number goes on where this scanner sees its end.
    #[inline]
    fn end_of_number(&self) -> Option<()> {
        match self.peek()? {
            b',' | b'}' | b' ' | b'\n' | b'\t' | b'\r' => Some(()),
            _ => None,
        }
    }

    /// A number of digits alone.
    #[inline]
    fn integer(&mut self) -> Option<u64> {
        let (value, _) = self.whole()?;
        self.end_of_number()?;
        Some(value)
    }

    /// A number without exponent whose digits, with the point left out, a double holds
    /// exactly: then so is the power of ten, and dividing rounds once, to the nearest.
    #[inline]
    fn decimal(&mut self) -> Option<f64> {
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let (mut mantissa, mut count) = self.whole()?;
        let mut decimals = 0;
        if self.peek()? == b'.' {
            self.at += 1;
            (mantissa, decimals) = self.digits(mantissa)?;
            count += decimals;
        }
        self.end_of_number()?;
        if count > DIGITS || mantissa > EXACT {
            return None;
        }
        let magnitude = mantissa as f64 / POWERS_OF_TEN[decimals];
        Some(if negative { -magnitude } else { magnitude })
    }

    /// An unknown field's value, if it is plain.
    #[inline]
    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.text().map(drop),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.decimal().map(drop),
        }
    }

    #[inline]
    fn word(&mut self, word: &[u8]) -> Option<()> {
        let found = self.value[self.at..].starts_with(word);
        self.at += word.len();
        found.then_some(())
    }
}

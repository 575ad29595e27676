//! JSON, written by hand into a byte vector.
//!
//! Owns how numbers and text look on the wire: the same value always gives the same bytes.

use std::fmt::Arguments;
use std::io::Write as _;

use crate::model::Position;

/// Coordinates are sent in units of 10^-7 degrees, about a centimetre.
const DEGREE: f64 = 1e7;

/// Appends formatted text.
pub(super) fn write(out: &mut Vec<u8>, text: Arguments<'_>) {
    // Writing to a vector can't fail.
    let _ = out.write_fmt(text);
}

/// Appends `text` between quotes, escaped.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Text has an encoding, and writing to a vector can't fail.
        let _ = serde_json::to_writer(&mut *out, text);
    }
}

/// Appends a finite number in the fewest digits that read back the same.
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    // Writing to a vector can't fail.
    let _ = serde_json::to_writer(&mut *out, &value);
}

/// Appends degrees with 1 to 7 decimals.
pub(super) fn degrees(out: &mut Vec<u8>, degrees: f64) {
    let scaled = (degrees * DEGREE).round() as i64;
    if scaled < 0 {
        out.push(b'-');
    }
    // Digits from the right: 7 decimals, the point, up to 3 more.
    let mut rest = scaled.unsigned_abs();
    let mut digits = [b'0'; 24];
    let mut start = digits.len();
    for place in 0.. {
        if place == 7 {
            start -= 1;
            digits[start] = b'.';
        }
        if place > 7 && rest == 0 {
            break;
        }
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let digits = &digits[start..];
    let zeros = digits
        .iter()
        .rev()
        .take(6)
        .take_while(|digit| **digit == b'0');
    out.extend_from_slice(&digits[..digits.len() - zeros.count()]);
}

/// Appends `longitude` and `latitude` as two fields; `before` is what parts them from the
/// field before.
pub(super) fn position(out: &mut Vec<u8>, before: &str, position: Position) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(b"\"longitude\":");
    degrees(out, position.longitude);
    out.extend_from_slice(b",\"latitude\":");
    degrees(out, position.latitude);
}

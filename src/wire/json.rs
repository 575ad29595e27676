//! Known fields of a JSON object, checked one at a time.
//!
//! Owns the rules that all inputs share: what counts as JSON, as absent, as given twice, as
//! a number in range; and the wording of a fault. Promises never to recurse into a value,
//! however deep it nests (serde_json skips raw values with a heap-allocated stack), and to
//! read numbers to the nearest double. Never judges an unknown field's value.

use std::borrow::Cow;
use std::fmt::Display;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::{Fault, Position, Reason, TimeMs};

use super::envelope::LAST_SEQ;

/// The end of the year 9999, the last time that RFC 3339 can write.
pub(super) const LAST_TIME_MS: TimeMs = 253_402_300_799_999;

/// Timestamps below this are seconds sent as milliseconds (2001-09-09 as milliseconds).
pub(super) const FIRST_TIME_MS: TimeMs = 1_000_000_000_000;

/// How many bytes of an offending value a fault's detail quotes.
const QUOTED_BYTES: usize = 200;

/// The start of `text`, at most [`QUOTED_BYTES`] long, with `…` if anything was left off.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= QUOTED_BYTES {
        return Cow::Borrowed(text);
    }
    let mark = "…";
    Cow::Owned(format!("{}{mark}", head(text, QUOTED_BYTES - mark.len())))
}

/// The longest start of `text` of at most `bytes` bytes.
fn head(text: &str, bytes: usize) -> &str {
    &text[..boundary(text, bytes)]
}

/// The last boundary between characters of `text` that is not after byte `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A fault in `field`, which holds `value`.
pub(super) fn fault(reason: Reason, field: &str, value: &str, why: impl Display) -> Fault {
    Fault {
        reason,
        detail: format!("{field} = {}: {why}", shorten(value)),
    }
}

/// The message key as the id that it is on `orders` and `geofences`.
///
/// # Errors
/// [`Reason::KeyMismatch`] if there is none, or it is not UTF-8.
pub(super) fn key(key: Option<&[u8]>) -> Result<&str, Fault> {
    let key = key.ok_or_else(|| Fault {
        reason: Reason::KeyMismatch,
        detail: "key: missing".to_owned(),
    })?;
    std::str::from_utf8(key).map_err(|_| {
        let start = String::from_utf8_lossy(&key[..key.len().min(QUOTED_BYTES)]);
        fault(Reason::KeyMismatch, "key", &start, "not UTF-8")
    })
}

/// A fault in the value as a whole.
pub(super) fn empty(why: &str) -> Fault {
    Fault {
        reason: Reason::Empty,
        detail: format!("value: {why}"),
    }
}

/// Reads `value` as UTF-8 that starts with an object, if it is JSON at all: see
/// [`Object::read`].
///
/// # Errors
/// [`Reason::MalformedJson`], and [`Reason::WrongType`] for JSON that is no object.
pub(super) fn document(value: &[u8]) -> Result<&str, Fault> {
    let text = std::str::from_utf8(value).map_err(|error| {
        let at = error.valid_up_to();
        let start = at.saturating_sub(QUOTED_BYTES / 4);
        let end = value.len().min(at + QUOTED_BYTES / 4);
        let near = String::from_utf8_lossy(&value[start..end]);
        fault(
            Reason::MalformedJson,
            "value",
            &near,
            format_args!("not UTF-8 at byte {at}"),
        )
    })?;
    if text.starts_with('\u{feff}') {
        return Err(fault(
            Reason::MalformedJson,
            "value",
            text,
            "starts with a byte-order mark",
        ));
    }
    if text.trim_ascii_start().starts_with('{') {
        return Ok(text);
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| malformed(text, &error))?;
    Err(fault(
        Reason::WrongType,
        "value",
        raw.get(),
        "not an object",
    ))
}

/// The fault of text that serde_json refuses, quoting what stands around the error.
fn malformed(text: &str, error: &serde_json::Error) -> Fault {
    let line_start: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let at = (line_start + error.column()).min(text.len());
    let start = boundary(text, at.saturating_sub(QUOTED_BYTES / 2));
    let near = head(&text[start..], QUOTED_BYTES);
    fault(Reason::MalformedJson, "value", near, error)
}

/// The known fields of one JSON object.
pub(super) struct Object<'a, const N: usize> {
    prefix: &'static str,
    names: &'static [&'static str; N],
    values: [Option<&'a str>; N],
}

impl<'a, const N: usize> Object<'a, N> {
    /// Finds the fields called `names` in `text`, which must hold one object and no more.
    /// `prefix` is how faults name the object, such as `pickup.`; empty at the top.
    ///
    /// # Errors
    /// [`Reason::MalformedJson`] if it does not, or if one of them is given twice or is text
    /// with half a surrogate pair, which no UTF-8 can hold.
    pub(super) fn read(
        text: &'a str,
        prefix: &'static str,
        names: &'static [&'static str; N],
    ) -> Result<Self, Fault> {
        let mut object = Self::absent(prefix, names);
        let mut refused = None;
        let seed = Fields {
            object: &mut object,
            refused: &mut refused,
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        match seed
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
        {
            Ok(()) => Ok(object),
            Err(error) => Err(refused.unwrap_or_else(|| malformed(text, &error))),
        }
    }

    /// An object without any of `names`.
    pub(super) fn absent(prefix: &'static str, names: &'static [&'static str; N]) -> Self {
        Self {
            prefix,
            names,
            values: [None; N],
        }
    }

    /// What stands in the field at `index` of `names`, null too.
    pub(super) fn given(&self, index: usize) -> Option<&'a str> {
        self.values[index]
    }

    /// The field at `index` of `names`.
    pub(super) fn field(&self, index: usize) -> Field<'a> {
        Field {
            prefix: self.prefix,
            name: self.names[index],
            raw: self.values[index].filter(|raw| *raw != "null"),
        }
    }
}

/// Fills an [`Object`].
struct Fields<'o, 'a, const N: usize> {
    object: &'o mut Object<'a, N>,
    refused: &'o mut Option<Fault>,
}

impl<'a, const N: usize> DeserializeSeed<'a> for Fields<'_, 'a, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, const N: usize> Visitor<'a> for Fields<'_, 'a, N> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        // Keys are taken raw: an unknown one may hold half a surrogate pair.
        while let Some(key) = map.next_key::<&RawValue>()? {
            let key = decoded(key.get());
            let raw = map.next_value::<&RawValue>()?.get();
            let known = key.and_then(|key| self.object.names.iter().position(|name| *name == key));
            let Some(index) = known else { continue };
            let why = if self.object.values[index].is_some() {
                "given twice"
            } else if raw.starts_with('"') && decoded(raw).is_none() {
                "half a surrogate pair"
            } else {
                self.object.values[index] = Some(raw);
                continue;
            };
            let field = format!("{}{}", self.object.prefix, self.object.names[index]);
            *self.refused = Some(fault(Reason::MalformedJson, &field, raw, why));
            return Err(A::Error::custom(why));
        }
        Ok(())
    }
}

/// The text of a JSON string given with its quotes; `None` if it can't be UTF-8.
fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(
            raw.strip_prefix('"')?.strip_suffix('"').unwrap_or_default(),
        ))
    }
}

/// A known field, present or not.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    prefix: &'static str,
    name: &'static str,
    raw: Option<&'a str>,
}

impl<'a> Field<'a> {
    /// Its value, if it is given and not null.
    pub(super) fn optional(self) -> Option<Value<'a>> {
        Some(Value {
            prefix: self.prefix,
            name: self.name,
            raw: self.raw?,
        })
    }

    /// Its value.
    ///
    /// # Errors
    /// [`Reason::MissingField`].
    pub(super) fn required(self) -> Result<Value<'a>, Fault> {
        self.optional().ok_or_else(|| Fault {
            reason: Reason::MissingField,
            detail: format!("{}{}: missing", self.prefix, self.name),
        })
    }

    /// Its known fields, if it is an object.
    ///
    /// # Errors
    /// Those of [`Object::read`].
    pub(super) fn nested<const N: usize>(
        self,
        prefix: &'static str,
        names: &'static [&'static str; N],
    ) -> Result<Nested<'a, N>, Fault> {
        let object = match self.raw {
            Some(raw) if raw.starts_with('{') => Some(Object::read(raw, prefix, names)?),
            _ => None,
        };
        Ok(Nested {
            field: self,
            object,
        })
    }
}

/// A known field that ought to be an object: its own fields are found, but nothing is
/// asked of it yet.
pub(super) struct Nested<'a, const N: usize> {
    field: Field<'a>,
    object: Option<Object<'a, N>>,
}

impl<'a, const N: usize> Nested<'a, N> {
    /// The object, if the field is given and not null; an error if it is something else.
    pub(super) fn optional(&self) -> Result<Option<&Object<'a, N>>, Fault> {
        match (self.field.optional(), &self.object) {
            (Some(value), None) => Err(value.wrong_type("not an object")),
            (_, object) => Ok(object.as_ref()),
        }
    }

    /// The object.
    pub(super) fn required(&self) -> Result<&Object<'a, N>, Fault> {
        let value = self.field.required()?;
        self.object
            .as_ref()
            .ok_or_else(|| value.wrong_type("not an object"))
    }
}

/// A known field's value: any JSON but null.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    prefix: &'static str,
    name: &'static str,
    raw: &'a str,
}

impl<'a> Value<'a> {
    /// Its JSON text.
    pub(super) fn raw(self) -> &'a str {
        self.raw
    }

    /// A fault in this field.
    pub(super) fn fault(self, reason: Reason, why: impl Display) -> Fault {
        fault(
            reason,
            &format!("{}{}", self.prefix, self.name),
            self.raw,
            why,
        )
    }

    fn wrong_type(self, why: impl Display) -> Fault {
        self.fault(Reason::WrongType, why)
    }

    fn out_of_range(self, why: impl Display) -> Fault {
        self.fault(Reason::OutOfRange, why)
    }

    fn is_number(self) -> bool {
        is_number(self.raw)
    }

    /// Its text.
    pub(super) fn text(self) -> Result<Cow<'a, str>, Fault> {
        if !self.raw.starts_with('"') {
            return Err(self.wrong_type("not text"));
        }
        decoded(self.raw).ok_or_else(|| self.fault(Reason::MalformedJson, "half a surrogate pair"))
    }

    /// A finite number of at most `limit` either way.
    pub(super) fn number(self, limit: f64) -> Result<f64, Fault> {
        if !self.is_number() {
            return Err(self.wrong_type("not a number"));
        }
        number(self.raw)
            .filter(|number| number.abs() <= limit)
            .ok_or_else(|| self.out_of_range("too large"))
    }

    /// Degrees of at most `limit` either way.
    pub(super) fn degrees(self, limit: f64) -> Result<f64, Fault> {
        if !self.is_number() {
            return Err(self.wrong_type("not a number"));
        }
        number(self.raw)
            .filter(|degrees| degrees.abs() <= limit)
            .ok_or_else(|| self.out_of_range(format_args!("not within -{limit}..={limit}")))
    }

    /// A measurement of which a negative value says that it is unknown.
    pub(super) fn measure(self) -> Result<Option<f32>, Fault> {
        let number = self.number(f64::from(f32::MAX))?;
        Ok((number >= 0.0).then_some(number as f32))
    }

    /// A driver's id: an integer of 0..=2^63−1, or such digits as text.
    pub(super) fn driver(self) -> Result<u64, Fault> {
        let whole = if self.raw.starts_with('"') {
            let text = self.text()?;
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(self.wrong_type("text that is not digits"));
            }
            digits(&text)
        } else if self.is_number() {
            whole(self.raw).ok_or_else(|| self.wrong_type("not an integer"))?
        } else {
            return Err(self.wrong_type("neither an integer nor digits"));
        };
        u64::try_from(whole)
            .ok()
            .filter(|id| *id <= i64::MAX as u64)
            .ok_or_else(|| self.out_of_range("not within 0..=2^63-1"))
    }

    /// A sequence number: an integer of 1..=2^53−1.
    pub(super) fn seq(self) -> Result<u64, Fault> {
        if !self.is_number() {
            return Err(self.wrong_type("not an integer"));
        }
        let whole = whole(self.raw).ok_or_else(|| self.wrong_type("not an integer"))?;
        u64::try_from(whole)
            .ok()
            .filter(|seq| (1..=LAST_SEQ).contains(seq))
            .ok_or_else(|| self.out_of_range("not within 1..=2^53-1"))
    }

    /// A time: an integer of ms since 1970, or RFC 3339 text with a zone, cut to the ms.
    pub(super) fn time_ms(self) -> Result<TimeMs, Fault> {
        let whole = if self.raw.starts_with('"') {
            let text = self.text()?;
            rfc3339_ms(&text).ok_or_else(|| self.wrong_type("not RFC 3339 with a zone"))?
        } else if self.is_number() {
            whole(self.raw).ok_or_else(|| self.wrong_type("not an integer"))?
        } else {
            return Err(self.wrong_type("neither an integer nor text"));
        };
        let time_ms = TimeMs::try_from(whole).map_err(|_| self.out_of_range("not a time in ms"))?;
        if time_ms < FIRST_TIME_MS {
            return Err(self.out_of_range("before 2001-09-09: seconds, not ms?"));
        }
        Ok(time_ms)
    }
}

/// Two fields of one object as a position.
pub(super) fn position(longitude: Field<'_>, latitude: Field<'_>) -> Result<Position, Fault> {
    Ok(Position {
        longitude: longitude.required()?.degrees(180.0)?,
        latitude: latitude.required()?.degrees(90.0)?,
    })
}

/// Whether valid JSON is a number.
pub(super) fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// The double nearest to a JSON number; `None` beyond all doubles.
pub(super) fn number(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A JSON number as an integer; numbers beyond `i128` are the nearest of it. `None` if it
/// is written with a fraction, or its exponent makes one.
fn whole(raw: &str) -> Option<i128> {
    let (sign, magnitude) = match raw.strip_prefix('-') {
        Some(magnitude) => (-1, magnitude),
        None => (1, raw),
    };
    let Some((mantissa, exponent)) = magnitude.split_once(['e', 'E']) else {
        return (!magnitude.contains('.')).then(|| sign * digits(magnitude));
    };
    if mantissa.contains('.') {
        return None;
    }
    let significant = mantissa.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let zeros = (mantissa.len() - significant.len()) as i128;
    let zeros = zeros.saturating_add(match exponent.strip_prefix('-') {
        Some(exponent) => -digits(exponent),
        None => digits(exponent.trim_start_matches('+')),
    });
    if zeros < 0 {
        return None;
    }
    let power = u32::try_from(zeros)
        .ok()
        .and_then(|zeros| 10_i128.checked_pow(zeros))
        .unwrap_or(i128::MAX);
    Some(sign * digits(significant).saturating_mul(power))
}

/// What ASCII digits say, or `i128::MAX` if that is more.
fn digits(text: &str) -> i128 {
    text.bytes().fold(0_i128, |value, byte| {
        value
            .saturating_mul(10)
            .saturating_add(i128::from(byte - b'0'))
    })
}

/// RFC 3339 text as ms since 1970, cut; `None` for anything else.
fn rfc3339_ms(text: &str) -> Option<i128> {
    // The `time` crate takes any byte between date and time.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let time =
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    Some(time.unix_timestamp_nanos().div_euclid(1_000_000))
}

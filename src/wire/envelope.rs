//! What stands in an update beside its own fields when a phone sends it: the sequence number,
//! and whether it names its driver.
//!
//! Owns reading `seq` and putting a driver where none is named. Everything else of the update
//! is left to [`super::decode_update`], so that a phone's update and a record of Kafka are
//! judged by the same code. Promises the rules of all inputs: null counts as absent, a field
//! given twice is refused. Never decides whether a sequence number is the right one.

use std::borrow::Cow;
use std::io::Write as _;

use crate::model::{DriverId, Fault, Reason};

use super::json::{self, Object};
use super::scan;

/// The fields that are looked at.
const FIELDS: [&str; 3] = ["seq", "driverId", "driver_id"];

/// The greatest sequence number: the last integer that every JSON reader holds exactly.
pub const LAST_SEQ: u64 = (1 << 53) - 1;

/// Whether an update names its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedDriver {
    /// It does, rightly or not.
    Given,
    /// As null, in place of which a driver can be put: where that stands in the text.
    Null(usize),
    /// It does not.
    Absent,
}

/// What stands beside an update's own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `seq`, 1..=[`LAST_SEQ`], if given.
    pub seq: Option<u64>,
    /// Whether `driverId` or `driver_id` is given.
    pub driver: NamedDriver,
}

/// Reads the envelope of one update.
///
/// # Errors
/// The text is no JSON object, gives one of the fields twice, or `seq` is no sequence number.
pub fn read_envelope(text: &str) -> Result<Envelope, Fault> {
    match scan::scan_envelope(text.as_bytes()) {
        Some(envelope) => Ok(envelope),
        None => read_checked(text),
    }
}

/// The reference, for whatever [`scan::scan_envelope`] declines.
fn read_checked(text: &str) -> Result<Envelope, Fault> {
    let text = json::document(text.as_bytes())?;
    let object = Object::read(text, "", &FIELDS)?;
    let seq = match object.field(0).optional() {
        Some(seq) => Some(seq.seq()?),
        None => None,
    };
    let given = (1..FIELDS.len()).any(|index| object.field(index).optional().is_some());
    let null = (1..FIELDS.len()).find_map(|index| object.given(index));
    let driver = match null {
        _ if given => NamedDriver::Given,
        // A part of `text`, so it starts no earlier.
        Some(null) => NamedDriver::Null(null.as_ptr() as usize - text.as_ptr() as usize),
        None => NamedDriver::Absent,
    };
    Ok(Envelope { seq, driver })
}

/// The update with `driver` in it if it named none; `scratch` is what that is written to.
pub fn with_driver<'a>(
    text: &'a str,
    named: NamedDriver,
    driver: DriverId,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    let (head, tail) = match named {
        NamedDriver::Given => return text.as_bytes(),
        NamedDriver::Null(at) => (&text[..at], &text[at + "null".len()..]),
        NamedDriver::Absent => {
            let open = text.find('{').map_or(0, |at| at + 1);
            text.split_at(open)
        }
    };
    scratch.clear();
    scratch.extend_from_slice(head.as_bytes());
    let is_empty = tail.trim_start().starts_with('}');
    // Writing to memory can't fail.
    let _ = match named {
        NamedDriver::Absent if is_empty => write!(scratch, "\"driverId\":{driver}"),
        NamedDriver::Absent => write!(scratch, "\"driverId\":{driver},"),
        _ => write!(scratch, "{driver}"),
    };
    scratch.extend_from_slice(tail.as_bytes());
    scratch
}

/// The field that a fault is in, as its detail names it; `value` for the update as a whole.
pub fn faulty_field(fault: &Fault) -> Cow<'static, str> {
    let name = fault.detail.split([' ', ':']).next().unwrap_or_default();
    if fault.reason == Reason::Empty || name.is_empty() {
        return Cow::Borrowed("value");
    }
    Cow::Owned(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, decode_update};
    use super::*;
    use crate::model::{Input, Place, Source};

    const PLACE: Place = Place {
        at_ms: 0,
        source: Source {
            input: Input::Updates,
            partition: 0,
            offset: 0,
        },
    };
    const NOW_MS: i64 = 1_790_000_000_000;

    fn decoded(text: &str) -> Result<(Option<u64>, u64), Fault> {
        let envelope = read_envelope(text)?;
        let mut scratch = Vec::new();
        let value = with_driver(text, envelope.driver, DriverId(7), &mut scratch);
        let update = decode_update(Some(value), PLACE, NOW_MS, &Limits::default())?;
        Ok((envelope.seq, update.driver.0))
    }

    #[test]
    fn the_token_s_driver_stands_in_where_none_is_named() {
        for (text, seq, driver) in [
            (
                r#"{"driverId":453,"longitude":77.5,"latitude":12.9,"seq":17}"#,
                Some(17),
                453,
            ),
            (
                r#"{"seq":17,"driver_id":"453","longitude":77.5,"latitude":12.9}"#,
                Some(17),
                453,
            ),
            (r#"{"longitude":77.5,"latitude":12.9}"#, None, 7),
            (
                r#" { "longitude" : 77.5 , "latitude":12.9, "seq": null } "#,
                None,
                7,
            ),
            (
                r#"{"driverId":null,"longitude":77.5,"latitude":12.9,"seq":1}"#,
                Some(1),
                7,
            ),
            (
                r#"{"longitude":77.5,"latitude":12.9,"driver_id": null}"#,
                None,
                7,
            ),
            (
                r#"{"driverId":null,"driver_id":null,"longitude":77.5,"latitude":12.9}"#,
                None,
                7,
            ),
            (
                r#"{"driverId":null,"driver_id":8,"longitude":77.5,"latitude":12.9}"#,
                None,
                8,
            ),
            (
                r#"{"a":{"seq":5,"b":["{"]},"longitude":77.5,"latitude":12.9,"s\u0065q":3}"#,
                Some(3),
                7,
            ),
            (
                r#"{"longitude":77.5,"latitude":12.9,"seq":9007199254740991}"#,
                Some(LAST_SEQ),
                7,
            ),
        ] {
            assert_eq!(decoded(text), Ok((seq, driver)), "{text}");
        }
    }

    #[test]
    fn a_fault_names_its_field() {
        for (text, reason, field) in [
            (
                r#"{"seq":0,"longitude":77.5,"latitude":12.9}"#,
                Reason::OutOfRange,
                "seq",
            ),
            (r#"{"seq":-1}"#, Reason::OutOfRange, "seq"),
            (r#"{"seq":9007199254740992}"#, Reason::OutOfRange, "seq"),
            (r#"{"seq":1e999}"#, Reason::OutOfRange, "seq"),
            (r#"{"seq":1.5}"#, Reason::WrongType, "seq"),
            (r#"{"seq":"1"}"#, Reason::WrongType, "seq"),
            (r#"{"seq":1,"seq":1}"#, Reason::MalformedJson, "seq"),
            (
                r#"{"driverId":null,"driverId":1}"#,
                Reason::MalformedJson,
                "driverId",
            ),
            (
                r#"{"driverId":1,"driver_id":1}"#,
                Reason::MalformedJson,
                "driver_id",
            ),
            ("{}", Reason::MissingField, "longitude"),
            (
                r#"{"longitude":77.5,"latitude":91}"#,
                Reason::OutOfRange,
                "latitude",
            ),
            (
                r#"{"longitude":77.5,"latitude":1,"timestamp":1690000000}"#,
                Reason::OutOfRange,
                "timestamp",
            ),
            (
                r#"{"longitude":77.5,"latitude":1,"timestamp":1890000000000}"#,
                Reason::FutureTimestamp,
                "timestamp",
            ),
            (r#"{"longitude":"#, Reason::MalformedJson, "value"),
            ("[]", Reason::WrongType, "value"),
            ("7", Reason::WrongType, "value"),
            ("", Reason::MalformedJson, "value"),
        ] {
            let fault = decoded(text).expect_err(text);
            assert_eq!(
                (fault.reason, &*faulty_field(&fault)),
                (reason, field),
                "{text}: {fault}"
            );
        }
    }

    proptest::proptest! {
        /// The fast way and the reference never disagree.
        #[test]
        fn what_the_scan_accepts_the_reference_accepts_alike(
            fields in proptest::collection::vec(
                (
                    proptest::sample::select(vec!["seq", "driverId", "driver_id", "latitude", "x"]),
                    proptest::sample::select(vec![
                        "1", "0", "-1", "9007199254740991", "9007199254740992", "1.0", "1e2",
                        "null", "\"5\"", "true", "{}", "01", "18446744073709551617",
                    ]),
                ),
                0..5,
            ),
        ) {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let text = format!("{{{}}}", fields.join(","));
            if let Some(envelope) = scan::scan_envelope(text.as_bytes()) {
                proptest::prop_assert_eq!(read_checked(&text), Ok(envelope));
            }
        }
    }
}

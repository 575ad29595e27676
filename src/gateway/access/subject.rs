//! Whom or what a token is for: the text of its `sub` claim.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

use crate::model::{DriverId, OrderId};

/// The longest subject, bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;

/// Whom or what a token is for: its `sub` claim, and all that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// A text that is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no subject: write `driver/453`, `order/o-1`, `place/restaurant-9` or `fleet`, at \
     most {SUBJECT_BYTES_MAX} bytes"
)]
pub struct SubjectError(String);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(driver) => write!(f, "driver/{driver}"),
            Self::Order(OrderId(order)) => write!(f, "order/{order}"),
            Self::Place(place) => write!(f, "place/{place}"),
            Self::Fleet => f.write_str("fleet"),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let no = || {
            SubjectError(
                text.chars()
                    .take(64)
                    .collect::<String>()
                    .escape_debug()
                    .to_string(),
            )
        };
        if text.len() > SUBJECT_BYTES_MAX || text.contains(char::is_control) {
            return Err(no());
        }
        if text == "fleet" {
            return Ok(Self::Fleet);
        }
        match text.split_once('/') {
            Some(("driver", id)) => driver(id).map(Self::Driver).ok_or_else(no),
            Some(("order", id)) if !id.is_empty() => Ok(Self::Order(OrderId(id.into()))),
            Some(("place", id)) if !id.is_empty() => Ok(Self::Place(id.into())),
            _ => Err(no()),
        }
    }
}

/// Digits alone and no leading zero, so that a driver has one spelling.
fn driver(id: &str) -> Option<DriverId> {
    let plain = id.bytes().all(|byte| byte.is_ascii_digit()) && (id == "0" || !id.starts_with('0'));
    let number: u64 = id.parse().ok()?;
    (plain && number <= i64::MAX as u64).then_some(DriverId(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_what_it_writes() {
        for text in [
            "driver/0",
            "driver/453",
            "driver/9223372036854775807",
            "order/o-1",
            "order/a/b c",
            "place/restaurant-9",
            "place/ü",
            "fleet",
        ] {
            let subject: Subject = text.parse().expect(text);
            assert_eq!(subject.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        let long = format!("order/{}", "x".repeat(SUBJECT_BYTES_MAX));
        for text in [
            "",
            "driver",
            "driver/",
            "driver/-1",
            "driver/+1",
            "driver/007",
            "driver/ 1",
            "driver/9223372036854775808",
            "driver/x",
            "order/",
            "order/a\nb",
            "place/",
            "place",
            "fleet/",
            "Fleet",
            "rider/1",
            &long,
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}

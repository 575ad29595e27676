//! The header by which the job knows a resent update: which update of which session it is.
//!
//! `rf-seq: <session>/<number>`, such as `k3J9/17`. A session is one run of a phone's app, and
//! its updates bear rising numbers, whoever put them into Kafka.

use twox_hash::XxHash3_64;

use crate::model::Sequence;

/// The header's name.
pub const SEQUENCE_HEADER: &str = "rf-seq";

/// The longest name of a session, bytes.
pub const MAX_SESSION_BYTES: usize = 64;

/// Digits of 2^63−1.
const MAX_DIGITS: usize = 19;

/// Whether a text can name a session: 1..=64 of `A-Z a-z 0-9 _ -`.
pub fn is_session(text: &[u8]) -> bool {
    (1..=MAX_SESSION_BYTES).contains(&text.len())
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The header's value for an update of a session.
pub fn encode_sequence(session: &str, number: u64) -> String {
    format!("{session}/{number}")
}

/// The session's name and the number in it, 1..=2^63−1; `None` if the value is malformed.
pub fn split_sequence(header: &[u8]) -> Option<(&str, u64)> {
    let slash = header.iter().position(|&byte| byte == b'/')?;
    let (session, digits) = (&header[..slash], &header[slash + 1..]);
    let is_number =
        (1..=MAX_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !is_number || !is_session(session) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let is_in_range = (1..=i64::MAX as u64).contains(&number);
    is_in_range.then_some((std::str::from_utf8(session).ok()?, number))
}

/// What the job keeps of the header; `None` if it is malformed, and the update an ordinary one.
pub fn decode_sequence(header: &[u8]) -> Option<Sequence> {
    let (session, number) = split_sequence(header)?;
    Some(Sequence {
        session: XxHash3_64::oneshot(session.as_bytes()),
        number,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_session_and_a_number_within_bounds_are_read() {
        let longest = "s".repeat(MAX_SESSION_BYTES);
        let (whole, long) = (format!("{longest}/1"), format!("{longest}s/1"));
        for (header, expected) in [
            ("k3J9/17", Some(("k3J9", 17))),
            ("_-/1", Some(("_-", 1))),
            ("a/9223372036854775807", Some(("a", i64::MAX as u64))),
            ("a/007", Some(("a", 7))),
            (&whole, Some((&longest, 1))),
            (&long, None),
            ("a/9223372036854775808", None),
            ("a/99999999999999999999999999", None),
            ("a/00000000000000000001", None),
            ("a/0", None),
            ("a/", None),
            ("a/+1", None),
            ("a/-1", None),
            ("a/1.0", None),
            ("a/1 ", None),
            (" a/1", None),
            ("/1", None),
            ("a", None),
            ("", None),
            ("a/b/1", None),
            ("ä/1", None),
            ("a.b/1", None),
        ] {
            assert_eq!(split_sequence(header.as_bytes()), expected, "{header}");
            let decoded = decode_sequence(header.as_bytes());
            assert_eq!(
                decoded.map(|sequence| sequence.number),
                expected.map(|(_, number)| number)
            );
        }
        assert_eq!(split_sequence(b"\xff/1"), None);
        // The hash is in snapshots.
        let session = 0x78af_5f94_892f_3950;
        let expected = Sequence { session, number: 2 };
        assert_eq!(decode_sequence(b"abc/2"), Some(expected));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            session in "[A-Za-z0-9_-]{1,64}",
            number in 1..=i64::MAX as u64,
        ) {
            let header = encode_sequence(&session, number);
            let split = split_sequence(header.as_bytes());
            prop_assert_eq!(split, Some((session.as_str(), number)));
        }

        #[test]
        fn no_bytes_are_more_than_malformed(header in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some((session, number)) = split_sequence(&header) {
                prop_assert!(is_session(session.as_bytes()) && number >= 1);
            }
        }
    }
}

//! Dead letters: the headers that say why an input was refused.
//!
//! Owns the five `rf-*` headers. Never touches the input's key or bytes, which travel as
//! they came.

use crate::model::DeadLetter;

/// The headers of a dead letter, in the contract's order.
pub fn dead_letter_headers(letter: &DeadLetter) -> [(&'static str, String); 5] {
    let source = letter.place.source;
    [
        ("rf-reason", letter.fault.reason.as_str().to_owned()),
        ("rf-detail", letter.fault.detail.clone()),
        ("rf-topic", source.input.topic().to_owned()),
        ("rf-partition", source.partition.to_string()),
        ("rf-offset", source.offset.to_string()),
    ]
}

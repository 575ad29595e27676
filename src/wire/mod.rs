//! Bytes to model and back: JSON inputs, CloudEvents, dead letters.
//!
//! Owns every byte that the outside world sees on Kafka: which inputs are good, which fault
//! of a bad one counts, and how events look. Pure: no I/O, no clock, no state. Promises
//! never to panic on any bytes, and that decoding is a function of the record alone. Never
//! judges an input by what came before it; that is for [`crate::detect`].
//!
//! ```text
//! update.rs, envelope.rs ─> scan.rs (plain shape) ┐ declines
//! order.rs ───┐                                   ▼
//! fence.rs ───┴──────────────────────────────> json.rs (fields, faults)
//! sequence.rs                                       the header of a resent update
//! event.rs, dead_letter.rs, encode_* ────────> encode.rs (numbers, text)
//! ```

mod dead_letter;
mod encode;
mod envelope;
mod event;
mod fence;
mod json;
mod order;
mod scan;
mod sequence;
mod update;

pub use dead_letter::dead_letter_headers;
pub use envelope::{Envelope, LAST_SEQ, NamedDriver, faulty_field, read_envelope, with_driver};
#[cfg(feature = "job")]
pub(crate) use event::rfc3339;
pub use event::{CE_SPECVERSION, CONTENT_TYPE, EncodedEvent, ce_source, ce_type, encode_event};
pub use fence::{decode_fence, encode_fence};
pub use order::{decode_order, encode_order};
pub use sequence::{
    MAX_SESSION_BYTES, SEQUENCE_HEADER, decode_sequence, encode_sequence, is_session,
    split_sequence,
};
pub use update::{Limits, UpdateMessage, decode_update, encode_update};

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;

//! One header of a record, by librdkafka's own function: the client's turns the name of every
//! header into text first and panics where one isn't UTF-8, so that a single strange record
//! would end a job or a gateway at every start.
#![allow(unsafe_code)]

use std::ffi::CStr;

use rdkafka::bindings::{rd_kafka_header_get_last, rd_kafka_message_headers};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};

/// [`crate::wire::SEQUENCE_HEADER`], as librdkafka takes it.
const SEQUENCE: &CStr = c"rf-seq";

/// The value of a message's last header `rf-seq`, malformed or not.
pub(super) fn sequence_of<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    last_header(message, SEQUENCE)
}

/// The value of the last header with a name; `None` also if it is null.
pub(super) fn last_header<'a>(message: &'a BorrowedMessage<'_>, name: &CStr) -> Option<&'a [u8]> {
    // SAFETY: the message is alive, and is nobody else's: it is neither `Clone` nor handed out.
    unsafe { last_header_at(message.ptr(), name) }
}

/// As [`sequence_of`], of a message that the client's types know nothing of.
///
/// # Safety
/// As of [`last_header_at`].
pub(super) unsafe fn sequence_at<'a>(message: *mut RDKafkaMessage) -> Option<&'a [u8]> {
    // SAFETY: the caller's word.
    unsafe { last_header_at(message, SEQUENCE) }
}

/// Of a message without headers this asks one function, which looks at one length.
///
/// # Safety
/// The message must be alive for `'a`, and used by this thread alone.
unsafe fn last_header_at<'a>(message: *mut RDKafkaMessage, name: &CStr) -> Option<&'a [u8]> {
    let is_there = |code| code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut headers = std::ptr::null_mut();
    // SAFETY: the message is alive. What the call parses belongs to it and lives as long.
    if !is_there(unsafe { rd_kafka_message_headers(message, &raw mut headers) }) {
        return None;
    }
    let (mut value, mut length) = (std::ptr::null(), 0);
    let name = name.as_ptr();
    // SAFETY: `headers` was just given, and `name` ends with a zero.
    let code = unsafe { rd_kafka_header_get_last(headers, name, &raw mut value, &raw mut length) };
    if !is_there(code) || value.is_null() {
        return None;
    }
    // SAFETY: it points to so many bytes, which are the message's and are not changed.
    Some(unsafe { std::slice::from_raw_parts(value.cast(), length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_one_that_is_published() {
        assert_eq!(SEQUENCE.to_str(), Ok(crate::wire::SEQUENCE_HEADER));
    }
}

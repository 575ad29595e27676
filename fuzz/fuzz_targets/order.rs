//! Any bytes as an order: decoded or refused, never a panic; what is decoded survives a round
//! trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use riderflow::model::{Input, Place, Source};
use riderflow::wire::{decode_order, encode_order};

const RECEIVED_AT_MS: i64 = 1_790_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let source = Source { input: Input::Orders, partition: 0, offset: 0 };
    let place = Place { at_ms: RECEIVED_AT_MS, source };
    // The key is what the fuzzer would have to guess.
    let key = serde_key(bytes).unwrap_or_else(|| b"o-1".to_vec());
    if let Ok(change) = decode_order(Some(&key), Some(bytes), place, RECEIVED_AT_MS) {
        let order = change.order.expect("bytes are no removal");
        let again = decode_order(Some(&key), Some(&encode_order(&order)), place, RECEIVED_AT_MS)
            .expect("what is encoded can be decoded");
        assert_eq!(again.order, Some(order));
    }
});

/// The text after `"orderId":"`, up to the next quote.
fn serde_key(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("\"orderId\":\"")?;
    Some(rest.split_once('"')?.0.as_bytes().to_vec())
}

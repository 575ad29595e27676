//! Any bytes as an order: decoded or refused, never a panic; what is decoded keeps the
//! contract's promises about ids, drivers and ranges.

#![no_main]

use libfuzzer_sys::fuzz_target;
use riderflow::model::{Input, OrderStatus, Place, Source};
use riderflow::wire::decode_order;

const RECEIVED_AT_MS: i64 = 1_790_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let source = Source { input: Input::Orders, partition: 0, offset: 0 };
    let place = Place { at_ms: RECEIVED_AT_MS, source };
    // The key is what the fuzzer would have to guess.
    let key = serde_key(bytes).unwrap_or_else(|| b"o-1".to_vec());
    if let Ok(change) = decode_order(Some(&key), Some(bytes), place, RECEIVED_AT_MS) {
        let order = change.order.expect("bytes are no removal");
        assert_eq!(order.id.0.as_bytes(), key);
        let carried = matches!(order.status, OrderStatus::Assigned | OrderStatus::PickedUp);
        assert!(order.driver.is_some() || !carried, "{order:?}");
        for stop in [&order.pickup, &order.dropoff] {
            assert!(stop.position.longitude.abs() <= 180.0 && stop.position.latitude.abs() <= 90.0);
        }
    }
});

/// The text after `"orderId":"`, up to the next quote.
fn serde_key(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("\"orderId\":\"")?;
    Some(rest.split_once('"')?.0.as_bytes().to_vec())
}

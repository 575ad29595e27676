//! Any bytes as a rider update: decoded or refused, never a panic; what is decoded is in range,
//! and what is encoded from it decodes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use riderflow::model::{Input, Place, Source};
use riderflow::wire::{Limits, UpdateMessage, decode_update, encode_update};

const RECEIVED_AT_MS: i64 = 1_790_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let source = Source { input: Input::Updates, partition: 0, offset: 0 };
    let place = Place { at_ms: RECEIVED_AT_MS, source };
    let limits = Limits::default();
    let decode = |bytes| decode_update(Some(bytes), place, RECEIVED_AT_MS, &limits);
    match decode(bytes) {
        Ok(update) => {
            assert!(update.position.longitude.abs() <= 180.0);
            assert!(update.position.latitude.abs() <= 90.0);
            assert!(update.driver.0 <= i64::MAX as u64);
            assert!(update.event_time_ms <= RECEIVED_AT_MS + limits.future_limit_ms);
            let mut again = Vec::new();
            let message = UpdateMessage {
                driver: update.driver,
                position: update.position,
                state: update.state.as_deref(),
                timestamp_ms: Some(update.event_time_ms),
                accuracy_m: update.accuracy_m,
                speed_mps: update.speed_mps,
                heading_deg: update.heading_deg,
            };
            encode_update(&message, &mut again);
            if again.len() <= limits.max_bytes {
                let same = decode(&again).expect("what is encoded can be decoded");
                assert_eq!(same.driver, update.driver);
                assert_eq!(same.event_time_ms, update.event_time_ms);
            }
        }
        Err(fault) => assert!(fault.detail.len() <= 400, "{}", fault.detail.len()),
    }
});

//! What the fuzzer found worth keeping, once more: bytes that reach different parts of the
//! decoders. One input a line, in hexadecimal; `fuzz/` has the targets that they come from.

use riderflow::geo::Area;
use riderflow::model::{Input, OrderStatus, Place, Position, Source};
use riderflow::wire::{Limits, decode_fence, decode_order, decode_update};

const RECEIVED_AT_MS: i64 = 1_790_000_000_000;

fn place(input: Input) -> Place {
    let source = Source {
        input,
        partition: 0,
        offset: 0,
    };
    Place {
        at_ms: RECEIVED_AT_MS,
        source,
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/corpus/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("two hexadecimal digits")
    };
    let inputs: Vec<Vec<u8>> = text
        .lines()
        .map(|line| line.as_bytes().chunks(2).map(byte).collect())
        .collect();
    assert!(inputs.len() > 100, "{path} has {} inputs", inputs.len());
    inputs
}

/// Both outcomes must occur, or the corpus no longer tests what it was kept for.
fn assert_both(name: &str, accepted: usize, all: usize) {
    assert!(accepted > 10, "{name}: only {accepted} of {all} accepted");
    assert!(accepted < all - 10, "{name}: {accepted} of {all} accepted");
}

#[test]
fn updates() {
    let inputs = corpus("update");
    let limits = Limits::default();
    let mut accepted = 0;
    for bytes in &inputs {
        let decoded = decode_update(Some(bytes), place(Input::Updates), RECEIVED_AT_MS, &limits);
        if let Ok(update) = decoded {
            accepted += 1;
            assert!(update.position.longitude.abs() <= 180.0);
            assert!(update.position.latitude.abs() <= 90.0);
            assert!(update.driver.0 <= i64::MAX as u64);
            assert!(update.event_time_ms <= RECEIVED_AT_MS + limits.future_limit_ms);
        }
    }
    assert_both("update", accepted, inputs.len());
}

#[test]
fn orders() {
    let inputs = corpus("order");
    let mut accepted = 0;
    for bytes in &inputs {
        let decoded = decode_order(
            Some(b"o-1"),
            Some(bytes),
            place(Input::Orders),
            RECEIVED_AT_MS,
        );
        if let Ok(change) = decoded {
            accepted += 1;
            let order = change.order.expect("bytes are no removal");
            assert_eq!(order.id.0, "o-1");
            let carried = matches!(order.status, OrderStatus::Assigned | OrderStatus::PickedUp);
            assert!(order.driver.is_some() || !carried, "{order:?}");
        }
    }
    assert_both("order", accepted, inputs.len());
}

#[test]
fn fences() {
    let inputs = corpus("fence");
    let mut accepted = 0;
    for bytes in &inputs {
        let decoded = decode_fence(Some(b"f-1"), Some(bytes), place(Input::Geofences));
        if let Ok(change) = decoded {
            accepted += 1;
            let fence = change.fence.expect("bytes are no removal");
            let area = Area::new(&fence.geometry).expect("what is decoded has been validated");
            for (longitude, latitude) in [(0.0, 0.0), (179.999, 0.0), (-180.0, 45.0), (10.0, 90.0)]
            {
                let at = Position {
                    longitude,
                    latitude,
                };
                assert!(!area.contains(at) || area.distance_m(at) == 0.0, "{at:?}");
            }
        }
    }
    assert_both("fence", accepted, inputs.len());
}

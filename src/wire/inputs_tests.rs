//! The three decoders against the tables of bad and good messages.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::model::{Fault, Input, Place, Reason, Source};

#[path = "../../tests/fixtures/bad_inputs.rs"]
mod bad_inputs;

use bad_inputs::{RECEIVED_AT_MS, bad_inputs, good_inputs};

fn place(input: Input) -> Place {
    Place {
        at_ms: RECEIVED_AT_MS,
        source: Source {
            input,
            partition: 1,
            offset: 7,
        },
    }
}

/// Decodes a record of `topic` and drops what it holds.
fn verdict(topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Fault> {
    match topic {
        "rider-updates" => decode_update(
            value,
            place(Input::Updates),
            RECEIVED_AT_MS,
            &Limits::default(),
        )
        .map(drop),
        "orders" => decode_order(key, value, place(Input::Orders), RECEIVED_AT_MS).map(drop),
        "geofences" => decode_fence(key, value, place(Input::Geofences)).map(drop),
        other => panic!("no such input: {other}"),
    }
}

#[test]
fn bad_inputs_get_their_reason_and_name_their_field() {
    let inputs = bad_inputs();
    let mut reasons = HashSet::new();
    let mut wrong = Vec::new();
    for input in &inputs {
        let value = input.value.as_deref();
        let shown = String::from_utf8_lossy(value.unwrap_or(b"(null)"));
        let shown: String = shown.chars().take(300).collect();
        let fault = match verdict(input.topic, input.key.as_deref(), value) {
            Ok(()) => {
                wrong.push(format!("{} accepted {shown}", input.topic));
                continue;
            }
            Err(fault) => fault,
        };
        if fault.reason.as_str() != input.reason || !fault.detail.contains(input.about) {
            let (reason, about) = (input.reason, input.about);
            wrong.push(format!("{shown}: not {reason}, about {about}, but {fault}"));
        }
        assert!(fault.detail.len() < 400, "{fault}");
        reasons.insert((input.topic, input.reason));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let distinct: HashSet<_> = inputs
        .iter()
        .map(|input| (input.topic, &input.key, &input.value))
        .collect();
    assert_eq!(distinct.len(), inputs.len());
    assert!(inputs.len() >= 60, "{}", inputs.len());
    for reason in Reason::ALL {
        assert!(
            reasons.iter().any(|(_, seen)| *seen == reason.as_str()),
            "no message is refused as {}",
            reason.as_str()
        );
    }
}

#[test]
fn good_inputs_are_accepted() {
    for input in good_inputs() {
        let verdict = verdict(input.topic, input.key.as_deref(), input.value.as_deref());
        assert_eq!(verdict, Ok(()), "{}: {}", input.topic, input.about);
    }
}

#[test]
fn orders_and_fences_need_a_key() {
    let order = br#"{"orderId":"o-1","status":"placed","pickup":{"longitude":1,"latitude":2},"dropoff":{"longitude":1,"latitude":2}}"#;
    let fence = br#"{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]},"properties":{"radius":5}}"#;
    for (topic, value) in [("orders", &order[..]), ("geofences", &fence[..])] {
        assert_eq!(verdict(topic, Some(b"o-1"), Some(value)), Ok(()));
        for value in [Some(value), None] {
            let fault = verdict(topic, None, value).expect_err("no key");
            assert_eq!(fault.reason, Reason::KeyMismatch);
            assert_eq!(fault.detail, "key: missing");
        }
    }
}

#[test]
fn details_quote_at_most_200_bytes_cut_between_characters() {
    for padding in 0..4 {
        let state = format!("{}{}", "x".repeat(padding), "ಕ".repeat(1_000));
        let value = format!(r#"{{"driverId":1,"longitude":1,"latitude":1,"speed":"{state}"}}"#);
        let fault = verdict("rider-updates", None, Some(value.as_bytes())).expect_err("text");
        let quoted = fault
            .detail
            .strip_prefix("speed = ")
            .and_then(|rest| rest.strip_suffix(": not a number"))
            .expect(&fault.detail);
        assert!((196..=200).contains(&quoted.len()), "{}", quoted.len());
        assert!(quoted.ends_with('…'));
    }
}

/// What bytes a fuzzer starts from: every message of the tables that is not huge.
fn seeds() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let bad = bad_inputs().into_iter().map(|i| (i.topic, i.key, i.value));
    let good = good_inputs().into_iter().map(|i| (i.topic, i.key, i.value));
    bad.chain(good)
        .map(|(topic, key, value)| (topic, key.unwrap_or_default(), value.unwrap_or_default()))
        .filter(|(_, _, value)| value.len() < 1_000)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_decoder_panic(
        seed in proptest::sample::select(seeds()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 0..6),
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..5)),
    ) {
        let (topic, seed_key, mut value) = seed;
        for (index, edit, byte) in edits {
            let at = index.index(value.len() + 1);
            match edit {
                0 => value.insert(at, byte),
                1 => value.truncate(at),
                _ if at == value.len() => {}
                2 => value[at] = byte,
                _ => { value.remove(at); }
            }
        }
        let key = key.unwrap_or(seed_key);
        for topic in [topic, "orders", "geofences", "rider-updates"] {
            if let Err(fault) = verdict(topic, Some(&key), Some(&value)) {
                prop_assert!(!fault.detail.is_empty());
                prop_assert!(fault.detail.len() < 500, "{}", fault.detail);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(value in prop::collection::vec(any::<u8>(), 0..64)) {
        for topic in ["orders", "geofences", "rider-updates"] {
            let _ = verdict(topic, Some(b"1"), Some(&value));
        }
    }
}

//! The scanner against the reference, and updates that are sent and read again.

use proptest::prelude::*;

use super::*;
use crate::model::{Input, Source};
use crate::wire::scan::scan_update;

const RECEIVED_AT_MS: TimeMs = 1_790_000_000_000;

const LIMITS: Limits = Limits {
    max_bytes: 16_384,
    future_limit_ms: 60_000,
};

const PLACE: Place = Place {
    at_ms: RECEIVED_AT_MS,
    source: Source {
        input: Input::Updates,
        partition: 0,
        offset: 0,
    },
};

fn decode(value: &[u8]) -> Result<Update, Fault> {
    decode_update(Some(value), PLACE, RECEIVED_AT_MS, &LIMITS)
}

/// A report to the bit: −0 is not 0.
fn bits(report: &Report) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        report.driver,
        report.longitude.to_bits(),
        report.latitude.to_bits(),
        report.event_time_ms,
        [report.accuracy_m, report.speed_mps, report.heading_deg].map(|m| m.map(f32::to_bits)),
        report.state.clone(),
    )
}

/// Checks that the reference accepts what the scanner accepts, alike; says whether it did.
fn agree(value: &[u8], received_at_ms: TimeMs) -> bool {
    let Some(scanned) = scan_update(value, received_at_ms, &LIMITS) else {
        return false;
    };
    let checked = decode_checked(value, received_at_ms, &LIMITS);
    let shown = String::from_utf8_lossy(value);
    assert_eq!(
        checked.as_ref().map(bits),
        Ok(bits(&scanned)),
        "{shown} received at {received_at_ms}"
    );
    true
}

#[test]
fn the_plain_shape_takes_the_fast_way() {
    for plain in [
        r#"{"driverId":453,"longitude":77.5946,"latitude":12.9716,"state":"south","timestamp":1790000000123,"accuracy":8.0,"speed":6.2,"heading":271.5}"#,
        r#"{"driverId":453,"longitude":77.5946123,"latitude":12.9716123,"state":"south","timestamp":1790000000123}"#,
        r#"{"driver_id":0,"longitude":-0.0,"latitude":-90}"#,
        r#"{"driverId": 9223372036854775807, "longitude": 180, "latitude": 90.000, "speed": -1}"#,
        " {\n  \"latitude\" : 1 ,\r\n\t\"longitude\" : 2,\"driverId\":3\n} \n",
        r#"{"v":1,"id":"a b","ok":true,"no":false,"x":null,"driverId":3,"longitude":1,"latitude":2}"#,
        r#"{"driverId":3,"longitude":9.007199254740992,"latitude":0.000000000000000001}"#,
    ] {
        assert!(agree(plain.as_bytes(), RECEIVED_AT_MS), "{plain}");
    }
}

#[test]
fn the_fast_way_declines_what_is_not_plain() {
    for unusual in [
        "",
        "{}",
        r#"{"driverId":3,"longitude":1,"latitude":2"#,
        r#"{"driverId":3,"longitude":1,"latitude":2}}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,}"#,
        r#"{"driverId":03,"longitude":1,"latitude":2}"#,
        r#"{"driverId":3,"longitude":01.5,"latitude":2}"#,
        r#"{"driverId":3,"longitude":1.,"latitude":2}"#,
        r#"{"driverId":3,"longitude":-,"latitude":2}"#,
        r#"{"driverId":3,"longitude":1e1,"latitude":2}"#,
        r#"{"driverId":3.0,"longitude":1,"latitude":2}"#,
        r#"{"driverId":"3","longitude":1,"latitude":2}"#,
        r#"{"driverId":9223372036854775808,"longitude":1,"latitude":2}"#,
        r#"{"driverId":99999999999999999999,"longitude":1,"latitude":2}"#,
        r#"{"driverId":3,"driver_id":3,"longitude":1,"latitude":2}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"latitude":2}"#,
        r#"{"driverId":3,"longitude":180.0000001,"latitude":2}"#,
        r#"{"driverId":3,"longitude":9.0071992547409930,"latitude":2}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"timestamp":1790000000}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"timestamp":1790000060001}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"state":null}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"state":"\u0041"}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"state":"ಕ"}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"n":tru}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"n":nullnull}"#,
        r#"{"driverId":3,"longitude":1,"latitude":2,"n":[]}"#,
    ] {
        assert!(!agree(unusual.as_bytes(), RECEIVED_AT_MS), "{unusual}");
    }
}

#[test]
fn values_are_read_as_written() {
    let update = decode(
        br#"{"driverId":"00453","longitude":77.5946,"latitude":-12.9716,"state":"s\u00e9",
        "timestamp":"2026-09-21T19:43:20.1239+05:30","accuracy":-1,"speed":6.2,"heading":0}"#,
    )
    .expect("a good update");
    assert_eq!(
        update,
        Update {
            place: PLACE,
            driver: DriverId(453),
            position: Position {
                longitude: 77.5946,
                latitude: -12.9716
            },
            event_time_ms: 1_790_000_000_123,
            received_at_ms: RECEIVED_AT_MS,
            accuracy_m: None,
            speed_mps: Some(6.2),
            heading_deg: Some(0.0),
            state: Some("sé".into()),
        }
    );
}

#[test]
fn times_are_cut_and_bounded() {
    let time = |text: &str| {
        let value = format!(r#"{{"driverId":1,"longitude":1,"latitude":1,"timestamp":{text}}}"#);
        decode(value.as_bytes())
            .map(|update| update.event_time_ms)
            .map_err(|fault| fault.reason)
    };
    assert_eq!(time("null"), Ok(RECEIVED_AT_MS));
    assert_eq!(time("1790000060000"), Ok(1_790_000_060_000));
    assert_eq!(time("1790000060001"), Err(Reason::FutureTimestamp));
    assert_eq!(time("1000000000000"), Ok(1_000_000_000_000));
    assert_eq!(time("999999999999"), Err(Reason::OutOfRange));
    assert_eq!(time("1790000000e3"), Ok(RECEIVED_AT_MS));
    assert_eq!(time("17900000000000e-1"), Ok(RECEIVED_AT_MS));
    assert_eq!(time("17900000000001e-1"), Err(Reason::WrongType));
    assert_eq!(
        time(r#""2026-09-21T14:14:20.000999Z""#),
        Ok(1_790_000_060_000)
    );
    assert_eq!(
        time(r#""2026-09-21T14:14:20.001Z""#),
        Err(Reason::FutureTimestamp)
    );
    assert_eq!(
        time(r#""2001-09-09T01:46:39.9999Z""#),
        Err(Reason::OutOfRange)
    );
    assert_eq!(
        time(r#""2016-12-31T23:59:60Z""#),
        Ok(1_483_228_799_999),
        "a leap second is the last ms before it"
    );
}

#[test]
fn wild_kafka_timestamps_overflow_nothing() {
    let plain = br#"{"driverId":1,"longitude":1,"latitude":1}"#;
    let timed = br#"{"driverId":1,"longitude":1,"latitude":1,"timestamp":9223372036854775807}"#;
    for received_at_ms in [i64::MIN, -1, 0, LAST_TIME_MS + 1, i64::MAX] {
        let update = decode_update(Some(plain), PLACE, received_at_ms, &LIMITS).expect("good");
        assert!((0..=LAST_TIME_MS).contains(&update.event_time_ms));
        assert_eq!(update.received_at_ms, received_at_ms);
        let fault = decode_update(Some(timed), PLACE, received_at_ms, &LIMITS).expect_err("late");
        let expected = if received_at_ms == i64::MAX {
            Reason::OutOfRange
        } else {
            Reason::FutureTimestamp
        };
        assert_eq!(fault.reason, expected);
    }
}

#[test]
fn a_typical_update_is_sent_in_103_bytes() {
    let mut out = Vec::new();
    let message = UpdateMessage {
        driver: DriverId(453),
        position: Position {
            longitude: 77.594_612_34,
            latitude: 12.971_598_71,
        },
        state: Some("south"),
        timestamp_ms: Some(1_790_000_000_123),
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
    };
    encode_update(&message, &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        r#"{"driverId":453,"longitude":77.5946123,"latitude":12.9715987,"state":"south","timestamp":1790000000123}"#
    );
    assert_eq!(out.len(), 103);

    let message = UpdateMessage {
        position: Position {
            longitude: -0.000_000_06,
            latitude: -90.0,
        },
        accuracy_m: Some(8.0),
        speed_mps: Some(6.2),
        heading_deg: Some(f32::NAN),
        ..message
    };
    out.clear();
    encode_update(&message, &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        r#"{"driverId":453,"longitude":-0.0000001,"latitude":-90.0,"state":"south","timestamp":1790000000123,"accuracy":8.0,"speed":6.2}"#
    );
}

/// JSON values, good and bad, of every kind that a field may be given.
fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<u64>().prop_map(|n| n.to_string()),
        4 => (0..=1_000_000_u64).prop_map(|n| n.to_string()),
        2 => (999_999_999_000..1_000_000_001_000_u64).prop_map(|n| n.to_string()),
        4 => (1_789_999_999_000..1_790_000_070_000_u64).prop_map(|n| n.to_string()),
        8 => (-1_900_000_000..1_900_000_000_i64, 0..9_usize)
            .prop_map(|(n, decimals)| format!("{:.decimals$}", n as f64 / 1e7)),
        4 => "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,20}",
        2 => "-?[0-9]{1,25}(\\.[0-9]{0,25})?",
        2 => "-?[0-9]{1,4}(\\.[0-9]{1,4})?[eE][+-]?[0-9]{1,4}",
        2 => (-200.0..200.0_f64).prop_map(|n| n.to_string()),
        4 => "\"[a-z]{0,30}\"",
        1 => "\"[ -~ಕ\\n]{0,12}\"",
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
        1 => Just("[{\"driverId\":1}]".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        16 => proptest::sample::select(&FIELDS[..]).prop_map(str::to_owned),
        1 => Just("driver\\u0049d".to_owned()),
        1 => "[a-z_]{0,10}",
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 2 => Just(" "), 1 => Just("\n"), 1 => Just("\t\r ")]
}

/// Objects of the known fields, mostly sound, in any order.
fn object() -> impl Strategy<Value = String> {
    let plain = (
        0..5_000_u64,
        -1_850_000_000..1_850_000_000_i64,
        -950..950_i64,
    )
        .prop_map(|(driver, longitude, latitude)| {
            vec![
                ("driverId".to_owned(), driver.to_string()),
                (
                    "longitude".to_owned(),
                    format!("{}", longitude as f64 / 1e7),
                ),
                (
                    "latitude".to_owned(),
                    format!("{:.1}", latitude as f64 / 10.0),
                ),
            ]
        });
    let others = prop::collection::vec((name(), literal()), 0..5);
    (plain, others, 0..4_usize, space(), space())
        .prop_map(|(mut fields, others, keep, before, after)| {
            fields.truncate(if keep == 0 { 2 } else { 3 });
            fields.extend(others);
            (fields, before, after)
        })
        .prop_flat_map(|(fields, before, after)| {
            (Just(fields).prop_shuffle(), Just(before), Just(after))
        })
        .prop_map(|(fields, before, after)| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{before}\"{name}\"{after}:{before}{value}{after}"))
                .collect();
            format!("{after}{{{}}}{before}", fields.join(","))
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_096,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_two_ways_agree_on_objects(object in object()) {
        agree(object.as_bytes(), RECEIVED_AT_MS);
    }

    #[test]
    fn the_two_ways_agree_on_damaged_objects(
        object in object(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..3_u8, proptest::sample::select(
                b"\"{}:,.-+eE0123456789 \n\\untl[]\x00\x7f\x80\xff".to_vec()
            )),
            1..4,
        ),
    ) {
        let mut value = object.into_bytes();
        for (index, edit, byte) in edits {
            let at = index.index(value.len());
            match edit {
                0 => value.insert(at, byte),
                1 => value[at] = byte,
                _ => { value.remove(at); }
            }
        }
        agree(&value, RECEIVED_AT_MS);
    }

    #[test]
    fn the_two_ways_agree_on_any_kafka_timestamp(
        received_at_ms in prop_oneof![any::<i64>(), 0..300_000_000_000_000_i64],
        timestamp in prop_oneof![any::<i64>(), 0..300_000_000_000_000_i64],
        ahead_ms in prop::option::of(59_990..60_010_i64),
    ) {
        let timestamp = ahead_ms.map_or(timestamp, |ms| received_at_ms.saturating_add(ms));
        let value = format!(
            r#"{{"driverId":1,"longitude":1,"latitude":1,"timestamp":{timestamp}}}"#
        );
        agree(value.as_bytes(), received_at_ms);
    }

    #[test]
    fn the_two_ways_agree_on_decimals(mantissa in any::<u64>(), shift in 0..60, decimals in 0..20_usize) {
        let digits = format!("{:021}", mantissa >> shift);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let whole = match whole.trim_start_matches('0') { "" => "0", whole => whole };
        let point = if decimals == 0 { "" } else { "." };
        let value = format!(
            r#"{{"driverId":1,"longitude":-{whole}{point}{fraction},"latitude":1,"speed":{whole}{point}{fraction}}}"#
        );
        agree(value.as_bytes(), RECEIVED_AT_MS);
    }

    #[test]
    fn what_is_sent_is_read_again_the_fast_way(
        driver in 0..=i64::MAX as u64,
        longitude in -180.0..=180.0_f64,
        latitude in -90.0..=90.0_f64,
        state in prop::option::of("[a-z \"\\\\]{0,8}"),
        timestamp_ms in prop::option::of(1_000_000_000_000..1_790_000_060_000_i64),
        speed_mps in prop::option::of(0.0_f32..100.0),
    ) {
        let message = UpdateMessage {
            driver: DriverId(driver),
            position: Position { longitude, latitude },
            state: state.as_deref(),
            timestamp_ms,
            accuracy_m: None,
            speed_mps,
            heading_deg: None,
        };
        let mut out = Vec::new();
        encode_update(&message, &mut out);
        let plain = state.as_deref().is_none_or(|state| !state.contains(['"', '\\']));
        // Small speeds are written with an exponent.
        if plain && speed_mps.is_none_or(|speed| speed > 1.0) {
            prop_assert!(agree(&out, RECEIVED_AT_MS), "{}", String::from_utf8_lossy(&out));
        }
        let update = decode(&out).expect("a good update");
        prop_assert_eq!(update.driver, message.driver);
        prop_assert!((update.position.longitude - longitude).abs() < 0.51e-7);
        prop_assert!((update.position.latitude - latitude).abs() < 0.51e-7);
        prop_assert_eq!(update.state.as_deref(), message.state);
        prop_assert_eq!(update.event_time_ms, timestamp_ms.unwrap_or(RECEIVED_AT_MS));
        prop_assert_eq!(update.speed_mps, speed_mps);
    }
}

//! Orders, read and written.

use proptest::prelude::*;

use super::*;
use crate::model::{Input, Position, Source};

const RECEIVED_AT_MS: TimeMs = 1_790_000_000_123;

const PLACE: Place = Place {
    at_ms: RECEIVED_AT_MS,
    source: Source {
        input: Input::Orders,
        partition: 1,
        offset: 42,
    },
};

const EXAMPLE: &str = r#"{"orderId":"o-1","driverId":453,"status":"assigned","pickup":{"longitude":77.61,"latitude":12.93,"place":"restaurant-9"},"dropoff":{"longitude":77.64,"latitude":12.91,"place":"customer-77"},"updatedAt":1790000000000}"#;

fn decode(key: &str, value: &str) -> Result<Order, Fault> {
    let change = decode_order(
        Some(key.as_bytes()),
        Some(value.as_bytes()),
        PLACE,
        RECEIVED_AT_MS,
    )?;
    assert_eq!(change.place, PLACE);
    let order = change.order.expect("a version, not a removal");
    assert_eq!(change.id, order.id);
    Ok(order)
}

fn stop(longitude: f64, latitude: f64, place: Option<&str>) -> Stop {
    Stop {
        position: Position {
            longitude,
            latitude,
        },
        place: place.map(CompactString::from),
    }
}

#[test]
fn the_contracts_example_is_read_and_written_alike() {
    let order = decode("o-1", EXAMPLE).expect("a good order");
    assert_eq!(
        order,
        Order {
            id: OrderId("o-1".into()),
            driver: Some(DriverId(453)),
            status: OrderStatus::Assigned,
            pickup: stop(77.61, 12.93, Some("restaurant-9")),
            dropoff: stop(77.64, 12.91, Some("customer-77")),
            updated_at_ms: 1_790_000_000_000,
        }
    );
    assert_eq!(String::from_utf8_lossy(&encode_order(&order)), EXAMPLE);
}

#[test]
fn null_removes_the_order_that_the_key_names() {
    let change = decode_order(Some(b"o-1"), None, PLACE, RECEIVED_AT_MS).expect("a removal");
    assert_eq!(
        change,
        OrderChange {
            place: PLACE,
            id: OrderId("o-1".into()),
            order: None,
        }
    );
}

#[test]
fn the_kafka_timestamp_stands_in_for_updated_at() {
    let value = EXAMPLE.replace("1790000000000", "null");
    let order = decode("o-1", &value).expect("a good order");
    assert_eq!(order.updated_at_ms, RECEIVED_AT_MS);
}

#[test]
fn a_placed_order_has_no_driver_whatever_it_says() {
    for driver in ["453", "\"tony\"", "-1", "1e999", "[[]]", "null"] {
        let value = EXAMPLE.replace("assigned", "placed").replace("453", driver);
        let order = decode("o-1", &value).expect("a good order");
        assert_eq!(order.driver, None, "{driver}");
    }
}

#[test]
fn an_ended_order_may_name_its_driver() {
    for status in ["delivered", "cancelled"] {
        let value = EXAMPLE.replace("assigned", status);
        let order = decode("o-1", &value).expect("a good order");
        assert_eq!(order.driver, Some(DriverId(453)));
        assert!(order.status.is_ended());
        let order = decode("o-1", &value.replace("453", "null")).expect("a good order");
        assert_eq!(order.driver, None);
    }
}

#[test]
fn faults_count_in_the_order_of_the_fields() {
    // Every field is at fault; mending the first brings out the next.
    let broken = [
        (r#""orderId":1"#, r#""orderId":"o-1""#, "orderId"),
        (r#""driverId":4.5"#, r#""driverId":453"#, "driverId"),
        (r#""status":"lost""#, r#""status":"assigned""#, "status"),
        (
            r#""pickup":{"longitude":181,"latitude":91,"place":1}"#,
            r#""pickup":{"longitude":1,"latitude":91,"place":1}"#,
            "pickup.longitude",
        ),
        (r#"91,"place":1}"#, r#"1,"place":1}"#, "pickup.latitude"),
        (r#""place":1}"#, r#""place":"x"}"#, "pickup.place"),
        (
            r#""dropoff":7"#,
            r#""dropoff":{"longitude":1,"latitude":1}"#,
            "dropoff",
        ),
        (
            r#""updatedAt":1"#,
            r#""updatedAt":1790000000000"#,
            "updatedAt",
        ),
    ];
    let mut value = r#"{"updatedAt":1,"dropoff":7,"pickup":{"longitude":181,"latitude":91,"place":1},"status":"lost","driverId":4.5,"orderId":1}"#.to_owned();
    for (wrong, right, field) in broken {
        let fault = decode("o-2", &value).expect_err(field);
        assert!(fault.detail.starts_with(&format!("{field} = ")), "{fault}");
        value = value.replace(wrong, right);
    }
    let fault = decode("o-2", &value).expect_err("another key");
    assert_eq!(fault.reason, Reason::KeyMismatch);
    assert_eq!(fault.detail, r#"orderId = "o-1": the key is o-2"#);
    decode("o-1", &value).expect("a good order");
}

fn seven_decimals(limit: i64) -> impl Strategy<Value = f64> {
    (-limit * 10_000_000..=limit * 10_000_000).prop_map(|units| units as f64 / 1e7)
}

fn stops() -> impl Strategy<Value = Stop> {
    (
        seven_decimals(180),
        seven_decimals(90),
        prop::option::of(".{0,8}"),
    )
        .prop_map(|(longitude, latitude, place)| stop(longitude, latitude, place.as_deref()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(
        id in ".{0,12}",
        driver in 0..=i64::MAX as u64,
        status in proptest::sample::select(vec![
            OrderStatus::Placed,
            OrderStatus::Assigned,
            OrderStatus::PickedUp,
            OrderStatus::Delivered,
            OrderStatus::Cancelled,
        ]),
        pickup in stops(),
        dropoff in stops(),
        updated_at_ms in 1_000_000_000_000..=LAST_TIME_MS,
    ) {
        let order = Order {
            id: OrderId(id.as_str().into()),
            driver: (status != OrderStatus::Placed).then_some(DriverId(driver)),
            status,
            pickup,
            dropoff,
            updated_at_ms,
        };
        let written = String::from_utf8(encode_order(&order)).expect("UTF-8");
        prop_assert_eq!(decode(&id, &written), Ok(order));
    }
}

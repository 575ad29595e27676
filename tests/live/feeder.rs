//! Records as the world and the job write them.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use riderflow::model::{
    Cause, DriverId, Event, EventKind, Input, Leg, Order, OrderId, OrderStatus, Place, Position,
    Source, Stop, Subject,
};
use riderflow::wire::{ce_source, encode_event, encode_order};

use crate::common::{Lab, Sender, now_ms};

pub(crate) fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

/// From restaurant `r` at 77.6, 12.9 to customer `c` a kilometre north.
pub(crate) fn order(id: &str, status: OrderStatus, driver: Option<u64>) -> Order {
    let stop = |latitude, place: &str| Stop {
        position: at(77.6, latitude),
        place: Some(place.into()),
    };
    Order {
        id: OrderId(id.into()),
        driver: driver.map(DriverId),
        status,
        pickup: stop(12.9, "r"),
        dropoff: stop(12.909, "c"),
        updated_at_ms: now_ms(),
    }
}

/// Writes records as of now; each is in Kafka when a function returns.
pub(crate) struct Feeder {
    pub(crate) sender: Sender,
    teller: BaseProducer,
}

impl Feeder {
    pub(crate) fn new(lab: &Lab) -> Self {
        let teller: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", lab.brokers())
            .set("transactional.id", "teller")
            .create()
            .expect("a producer");
        Self {
            sender: lab.sender(),
            teller,
        }
    }

    pub(crate) fn order(&mut self, order: &Order) {
        let key = order.id.0.as_bytes();
        let partition = i32::from(key.last().is_some_and(|byte| byte % 2 == 1));
        let value = encode_order(order);
        self.sender
            .send("orders", partition, now_ms(), Some(key), Some(&value));
        self.sender.settle();
    }

    pub(crate) fn remove_order(&mut self, id: &str) {
        let partition = i32::from(id.as_bytes().last().is_some_and(|byte| byte % 2 == 1));
        self.sender
            .send("orders", partition, now_ms(), Some(id.as_bytes()), None);
        self.sender.settle();
    }

    /// Without waiting for Kafka.
    pub(crate) fn send_fix(&mut self, driver: u64, position: Position) -> i64 {
        let at_ms = now_ms();
        let Position {
            longitude,
            latitude,
        } = position;
        let value = format!(
            r#"{{"driverId":{driver},"longitude":{longitude},"latitude":{latitude},"timestamp":{at_ms},"speed":8.5,"heading":45.0}}"#
        );
        let key = driver.to_string();
        let partition = (driver % 2) as i32;
        let key = Some(key.as_bytes());
        self.sender.send(
            "rider-updates",
            partition,
            at_ms,
            key,
            Some(value.as_bytes()),
        );
        at_ms
    }

    /// As a gateway writes it that has numbered it.
    pub(crate) fn numbered_fix(&self, driver: u64, position: Position, seq: &str) {
        let Position {
            longitude,
            latitude,
        } = position;
        let value =
            format!(r#"{{"driverId":{driver},"longitude":{longitude},"latitude":{latitude}}}"#);
        let key = driver.to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: "rf-seq",
            value: Some(seq),
        });
        self.teller.begin_transaction().expect("a transaction");
        let record = BaseRecord::to("rider-updates")
            .partition((driver % 2) as i32)
            .key(&key)
            .payload(&value)
            .headers(headers);
        self.teller.send(record).expect("room for an update");
        let time = Duration::from_secs(20);
        self.teller.commit_transaction(time).expect("committed");
    }

    pub(crate) fn fix(&mut self, driver: u64, position: Position) -> i64 {
        let at_ms = self.send_fix(driver, position);
        self.sender.settle();
        at_ms
    }

    /// Tells events as the job does: in one transaction.
    pub(crate) fn tell(&self, events: &[Event]) {
        const TIME: Duration = Duration::from_secs(20);
        let source = ce_source("live");
        self.teller.begin_transaction().expect("a transaction");
        for event in events {
            let encoded = encode_event(event);
            let mut headers = OwnedHeaders::new();
            for (key, value) in encoded.headers(&source) {
                let value = Some(value);
                headers = headers.insert(Header { key, value });
            }
            let partition = (event.driver.0 % 2) as i32;
            let record = BaseRecord::to("rider-notifications")
                .partition(partition)
                .key(&encoded.key)
                .payload(&encoded.data)
                .headers(headers);
            self.teller.send(record).expect("room for an event");
        }
        self.teller.commit_transaction(TIME).expect("committed");
    }

    pub(crate) fn may_tell(&self) {
        let time = Duration::from_secs(20);
        self.teller.init_transactions(time).expect("transactions");
    }
}

/// An event as the job would tell it, named after offset `number`.
pub(crate) fn event(
    number: i64,
    kind: EventKind,
    order: &str,
    leg: Option<Leg>,
    driver: u64,
) -> Event {
    let source = Source {
        input: Input::Updates,
        partition: 0,
        offset: number,
    };
    let at_ms = now_ms();
    let order = OrderId(order.into());
    Event {
        kind,
        driver: DriverId(driver),
        subject: match leg {
            Some(leg) => Subject::Leg(order, leg),
            None => Subject::Order(order),
        },
        cause: Cause::Position,
        place: Place { at_ms, source },
        source,
        event_time_ms: at_ms,
        detected_at_ms: at_ms,
        position: Some(at(77.6, 12.9)),
        at_place: None,
        status: None,
        distance_m: Some(420.0),
        eta_s: None,
        dwell_s: None,
        initial: false,
    }
}

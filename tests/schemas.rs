//! The published schemas against the program: what they say of inputs, events and topics is
//! what it does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use riderflow::model::{
    Cause, DeadLetter, DriverId, Event, EventKind, Fault, FenceId, Input, Leg, OrderId,
    OrderStatus, Place, Position, Reason, Source, Subject,
};
use riderflow::wire;
use serde_json::{Value, json};

#[path = "fixtures/bad_inputs.rs"]
mod bad_inputs;

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema(path: &str) -> Value {
    serde_json::from_str(&read(&schemas().join(path))).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A validator of the schema at `path`, itself held to the draft and to its own examples.
fn validator(path: &str) -> Validator {
    let schema = schema(path);
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|e| panic!("{path}: {e}"));
    let validator = jsonschema::draft202012::new(&schema).unwrap_or_else(|e| panic!("{path}: {e}"));
    let examples = schema["examples"].as_array().expect("examples");
    assert!(!examples.is_empty(), "{path}");
    for example in examples {
        hold(&validator, example, path);
    }
    validator
}

fn hold(validator: &Validator, instance: &Value, about: &str) {
    let errors: Vec<_> = validator
        .iter_errors(instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{about}: {instance}: {errors:?}");
}

fn input_validators() -> [(&'static str, Validator); 3] {
    [
        ("rider-updates", validator("inputs/rider-update.json")),
        ("orders", validator("inputs/order.json")),
        ("geofences", validator("inputs/geofence.json")),
    ]
}

/// The JSON of a message, where the validator's parser can hold it: it has no room for
/// `1e999`, half a surrogate pair or nesting without end.
fn instance(value: Option<&[u8]>) -> Option<Value> {
    serde_json::from_slice(value?).ok()
}

#[test]
fn good_inputs_are_valid() {
    let validators = input_validators();
    let mut held = 0;
    for input in bad_inputs::good_inputs() {
        let Some(instance) = instance(input.value.as_deref()) else {
            continue;
        };
        let (_, validator) = validators
            .iter()
            .find(|(topic, _)| *topic == input.topic)
            .expect("a known topic");
        hold(validator, &instance, input.about);
        held += 1;
    }
    assert!(held >= 50, "{held}");
}

#[test]
fn inputs_refused_for_their_structure_are_invalid() {
    // What JSON Schema can't see: how a number is written, how large digits are, whether a
    // date exists or is in this century.
    const UNSEEN: [&str; 6] = [
        r#""driverId":453.0"#,
        r#""driverId":"9223372036854775808""#,
        r#""timestamp":1790000000123.0"#,
        r#""timestamp":1.79e12"#,
        r#""timestamp":"1999-12-31T23:59:59Z""#,
        r#""timestamp":"2026-02-30T00:00:00Z""#,
    ];
    let validators = input_validators();
    let mut seen = 0;
    let mut unseen = BTreeSet::new();
    for input in bad_inputs::bad_inputs() {
        if !["missing_field", "wrong_type", "out_of_range"].contains(&input.reason) {
            continue;
        }
        let Some(instance) = instance(input.value.as_deref()) else {
            continue;
        };
        let (topic, validator) = validators
            .iter()
            .find(|(topic, _)| *topic == input.topic)
            .expect("a known topic");
        let text = String::from_utf8_lossy(input.value.as_deref().expect("JSON")).into_owned();
        match UNSEEN.iter().find(|part| text.contains(**part)) {
            Some(part) => {
                hold(validator, &instance, part);
                unseen.insert(*part);
            }
            None => {
                assert!(!validator.is_valid(&instance), "{topic}: {text}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 80, "{seen}");
    assert_eq!(unseen.len(), UNSEEN.len());
}

/// An event of this kind with everything that it can have.
fn full(kind: EventKind) -> Event {
    let (family, name) = kind.name().split_once('.').expect("a family");
    let order = OrderId("o-1".into());
    let subject = match family {
        "driver" => Subject::Driver,
        "geofence" => Subject::Fence(FenceId("f-7".into())),
        "order" => Subject::Order(order),
        _ => Subject::Leg(order, Leg::Dropoff),
    };
    let is = |kinds: &[EventKind]| kinds.contains(&kind);
    let agent = family == "agent";
    let to_a_place = agent || is(&[EventKind::OrderDelivered]);
    let source = Source {
        input: Input::Orders,
        partition: 1,
        offset: 42,
    };
    Event {
        kind,
        driver: DriverId(i64::MAX as u64),
        subject,
        cause: Cause::Timer,
        place: Place { at_ms: 0, source },
        source,
        event_time_ms: 1_790_000_000_123,
        detected_at_ms: 1_790_000_000_400,
        // Of orders only a delivery is judged by a fix.
        position: (family != "order" || to_a_place).then_some(Position {
            longitude: 180.0,
            latitude: -90.0,
        }),
        at_place: to_a_place.then(|| "customer-77".into()),
        status: match name {
            "assigned" => Some(OrderStatus::Assigned),
            "picked_up" => Some(OrderStatus::PickedUp),
            "delivered" => Some(OrderStatus::Delivered),
            "cancelled" => Some(OrderStatus::Cancelled),
            _ => agent.then_some(OrderStatus::PickedUp),
        },
        distance_m: to_a_place.then_some(17.26),
        eta_s: is(&[EventKind::AgentNear]).then_some(61.36),
        dwell_s: is(&[
            EventKind::GeofenceDwelled,
            EventKind::GeofenceExited,
            EventKind::AgentArrived,
            EventKind::AgentDeparted,
        ])
        .then_some(60.0),
        initial: is(&[EventKind::GeofenceEntered]),
    }
}

fn data(event: &Event) -> Value {
    serde_json::from_slice(&wire::encode_event(event).data).expect("JSON")
}

#[test]
fn events_are_valid_and_have_no_field_that_their_schema_lacks() {
    for kind in EventKind::ALL {
        let path = format!("events/{}.json", wire::ce_type(kind));
        let validator = validator(&path);
        let schema = schema(&path);
        assert_eq!(schema["title"], wire::ce_type(kind));
        let properties = schema["properties"].as_object().expect("properties");
        let required: Vec<_> = schema["required"]
            .as_array()
            .expect("required")
            .iter()
            .map(|name| name.as_str().expect("a name"))
            .collect();

        let full = data(&full(kind));
        hold(&validator, &full, &path);
        let fields = full.as_object().expect("an object");
        assert_eq!(
            fields.keys().collect::<BTreeSet<_>>(),
            properties.keys().collect::<BTreeSet<_>>(),
            "{path}"
        );
        for name in fields.keys() {
            let mut lacking = full.clone();
            lacking
                .as_object_mut()
                .expect("an object")
                .remove(name)
                .expect("it has it");
            let paired = name.starts_with("eta_");
            assert_eq!(
                !validator.is_valid(&lacking),
                required.contains(&name.as_str()) || paired,
                "{path} without {name}"
            );
        }
    }
    let files = std::fs::read_dir(schemas().join("events")).expect("schemas/events");
    assert_eq!(files.count(), EventKind::ALL.len());
}

#[test]
fn an_event_is_not_valid_as_another() {
    for kind in [EventKind::OrderAssigned, EventKind::DriverSilent] {
        let other = validator("events/riderflow.order.delivered.v1.json");
        assert!(!other.is_valid(&data(&full(kind))));
    }
}

fn asyncapi() -> Value {
    serde_saphyr::from_str(&read(&schemas().join("asyncapi.yaml"))).expect("YAML")
}

/// Calls `visit` with every `$ref` under `value`.
fn refs(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(reference) if name == "$ref" => visit(reference),
                    _ => refs(value, visit),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| refs(value, visit)),
        _ => {}
    }
}

#[test]
fn every_reference_of_the_asyncapi_document_leads_somewhere() {
    let document = asyncapi();
    assert_eq!(document["asyncapi"], "3.0.0");
    let mut files = BTreeSet::new();
    refs(&document, &mut |reference| {
        match reference.strip_prefix('#') {
            Some(pointer) => {
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            None => {
                schema(reference);
                files.insert(reference.to_owned());
            }
        };
    });
    assert_eq!(files.len(), 3 + EventKind::ALL.len(), "{files:?}");
}

#[test]
fn the_asyncapi_document_has_the_topics_and_types() {
    let document = asyncapi();
    let topics: BTreeSet<_> = document["channels"]
        .as_object()
        .expect("channels")
        .values()
        .map(|channel| channel["address"].as_str().expect("an address"))
        .collect();
    assert_eq!(
        topics,
        BTreeSet::from([
            "geofences",
            "orders",
            "rider-notifications",
            "rider-updates",
            "rider-updates-dead-letter",
        ])
    );
    for input in Input::ALL {
        assert!(topics.contains(input.topic()));
    }
    let events = document["channels"]["riderNotifications"]["messages"]
        .as_object()
        .expect("messages");
    let types: BTreeSet<_> = events
        .values()
        .map(|message| {
            let pointer = message["$ref"].as_str().expect("a reference");
            let message = document
                .pointer(pointer.trim_start_matches('#'))
                .expect("a message");
            let name = message["name"].as_str().expect("a name");
            assert_eq!(
                message["headers"]["allOf"][1]["properties"]["ce_type"]["const"],
                name
            );
            assert_eq!(message["payload"]["$ref"], format!("events/{name}.json"));
            name
        })
        .collect();
    assert_eq!(types, EventKind::ALL.map(wire::ce_type).into());
}

#[test]
fn headers_are_as_the_asyncapi_document_has_them() {
    let document = asyncapi();
    let schemas = &document["components"]["schemas"];
    let validator = |name: &str| jsonschema::draft202012::new(&schemas[name]).expect(name);
    let text = |value: &[u8]| Value::from(String::from_utf8_lossy(value));

    let events = validator("eventHeaders");
    let source = wire::ce_source("rider-alerts");
    for kind in EventKind::ALL {
        let event = wire::encode_event(&full(kind));
        let headers: serde_json::Map<_, _> = event
            .headers(&source)
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect();
        assert_eq!(headers.len(), 7);
        hold(&events, &headers.into(), kind.name());
    }

    let updates = validator("riderUpdateHeaders");
    for (session, number) in [("k3J9", 1), ("_-", 17), (&"s".repeat(64), i64::MAX as u64)] {
        let header = wire::encode_sequence(session, number);
        let read = wire::split_sequence(header.as_bytes());
        assert_eq!(read, Some((session, number)));
        hold(&updates, &json!({wire::SEQUENCE_HEADER: header}), session);
    }
    hold(&updates, &json!({}), "no rf-seq");
    for malformed in ["", "a", "/1", "a/0", "a/-1", "a/x", "a b/1", "a/b/1"] {
        assert_eq!(wire::split_sequence(malformed.as_bytes()), None);
        let header = json!({wire::SEQUENCE_HEADER: malformed});
        assert!(!updates.is_valid(&header), "{malformed}");
    }

    let letters = validator("deadLetterHeaders");
    for reason in Reason::ALL {
        let letter = DeadLetter {
            place: full(EventKind::DriverSilent).place,
            key: None,
            value: None,
            fault: Fault {
                reason,
                detail: "value: no bytes".to_owned(),
            },
        };
        let headers: serde_json::Map<_, _> = wire::dead_letter_headers(&letter)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        assert_eq!(headers.len(), 5);
        hold(&letters, &headers.into(), reason.as_str());
    }
}

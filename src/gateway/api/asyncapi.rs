//! What is said over the WebSocket and in the streams, as AsyncAPI 3.0.
//!
//! Owns channels and operations; messages and their schemas come from the types. Schemas are
//! told in draft 07 of JSON Schema, which AsyncAPI is about.

use serde_json::{Map, Value, json};

use super::{Message, VERSION, capitalized, reference, schemas_of};
use crate::gateway::{intake, live};

const ABOUT: &str = "Positions of drivers in by WebSocket, live positions out by Server-Sent \
    Events. The gateway receives what phones send, and sends the rest. Clients ignore fields, \
    messages and events that they do not know. The routes are described in `/openapi.json`; the \
    topics of Kafka behind the gateway in `schemas/asyncapi.yaml`.";

const DRIVERS: &str = "One connection of a phone; the token's `sub` is `driver/` and the id. \
    Messages are text, at most 4 KiB either way. Everything up to the number of an `ack` is \
    settled: in Kafka, or refused. An `error` settles its update too: it is not sent again. \
    `retry` asks for its update and all after it again, after some time; until that comes, later \
    ones are passed over. A phone keeps what is not settled, and sends it again over its next \
    connection, with the same session and the same numbers, to any gateway.";

/// A stream's channel: its key, address, parameter, what it is, and its query.
struct Stream {
    key: &'static str,
    address: &'static str,
    parameter: Option<(&'static str, &'static str)>,
    about: &'static str,
    query: Value,
    messages: Vec<Message>,
}

fn streams() -> [Stream; 3] {
    [
        Stream {
            key: "order",
            address: "/v1/orders/{id}/live",
            parameter: Some(("id", "The order's id.")),
            about: "One order. The `id` of an event is that of the last thing told of the order; \
                sent as `Last-Event-ID`, the snapshot leaves out what came up to it.",
            query: Value::Null,
            messages: live::described::order(),
        },
        Stream {
            key: "place",
            address: "/v1/places/{place}/live",
            parameter: Some(("place", "The place's name.")),
            about: "The orders of a place. Where a driver is, is told only while it is on its way \
                there for the order, or there.",
            query: Value::Null,
            messages: live::described::place(),
        },
        Stream {
            key: "fleet",
            address: "/v1/fleet/live",
            parameter: None,
            about: "The drivers in a box, at most 5,000 of them, about every second.",
            query: json!({
                "type": "object",
                "properties": {
                    "bbox": {"type": "string", "description": "west,south,east,north in degrees."},
                },
                "required": ["bbox"],
            }),
            messages: live::described::fleet(),
        },
    ]
}

/// The whole document.
pub(super) fn document() -> Value {
    let answers = intake::described::answers();
    let streams = streams();
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();

    let [one, several] = intake::described::updates();
    for (key, schema, about, example) in [
        ("update", "Update", "Where the phone is", one),
        ("updates", "Updates", "Where the phone was and is", several),
    ] {
        let message = json!({
            "name": key,
            "title": about,
            "payload": {"$ref": reference(schema)},
            "examples": [{"name": key, "payload": example}],
        });
        messages.insert(key.into(), message);
    }
    let said: Vec<String> = (answers.iter())
        .map(|it| insert(&mut messages, "", it))
        .collect();
    let codes: Vec<String> = (intake::described::close_codes().iter())
        .map(|(code, reason)| format!("{code} {reason}"))
        .collect();
    let heard = ["update".to_owned(), "updates".to_owned()];
    let all = heard.iter().chain(&said);
    channels.insert(
        "drivers".into(),
        json!({
            "address": "/v1/drivers/connect",
            "title": "A driver's phone",
            "description": format!("{DRIVERS} Close codes: {}.", codes.join("; ")),
            "servers": [{"$ref": "#/servers/phones"}],
            "messages": references(all),
            "bindings": {"ws": {
                "method": "GET",
                "query": {
                    "type": "object",
                    "properties": {"session": {
                        "type": "string",
                        "pattern": "^[A-Za-z0-9_-]{1,64}$",
                        "description": "Names one run of the phone's app.",
                    }},
                },
                "headers": {
                    "type": "object",
                    "properties": {"Sec-WebSocket-Protocol": {"type": "string"}},
                },
                "bindingVersion": "0.1.0",
            }},
        }),
    );
    operations.insert(
        "receiveUpdates".into(),
        operation("receive", "drivers", "A phone sends updates", &heard),
    );
    operations.insert(
        "sendAnswers".into(),
        operation("send", "drivers", "The gateway answers", &said),
    );
    for stream in &streams {
        let told: Vec<String> = (stream.messages.iter())
            .map(|it| insert(&mut messages, stream.key, it))
            .collect();
        let mut channel = json!({
            "address": stream.address,
            "description": stream.about,
            "servers": [{"$ref": "#/servers/readers"}],
            "messages": references(&told),
        });
        if let Some((name, about)) = stream.parameter {
            channel["parameters"] = json!({name: {"description": about}});
        }
        channels.insert(stream.key.into(), channel);
        let mut sends = operation("send", stream.key, "The gateway tells", &told);
        sends["bindings"] = json!({"http": {"method": "GET", "bindingVersion": "0.3.0"}});
        if !stream.query.is_null() {
            sends["bindings"]["http"]["query"] = stream.query.clone();
        }
        operations.insert(format!("tell{}", capitalized(stream.key)), sends);
    }
    let told = streams.iter().flat_map(|stream| &stream.messages);
    let schemas = schemas_of(answers.iter().chain(told)).into_iter();
    let schemas: Map<String, Value> = schemas
        .map(|(name, mut schema)| {
            to_draft_07(&mut schema);
            (name, schema)
        })
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "riderflow gateway",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "phones": {
                "host": "localhost:8080",
                "protocol": "ws",
                "description": "The pipeline file's gateway.listen; wss with a certificate. \
                    Subprotocol riderflow.v1.",
                "security": security(&["token", "subprotocol"]),
            },
            "readers": {
                "host": "localhost:8080",
                "protocol": "http",
                "description": "The same address; https with a certificate. Messages are \
                    Server-Sent Events: a message's name is the event's, its payload the data.",
                "security": security(&["token"]),
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "subprotocol": {
                    "type": "httpApiKey",
                    "in": "header",
                    "name": "Sec-WebSocket-Protocol",
                    "description": "`riderflow.v1, bearer.<JWT>`.",
                },
            },
        },
    })
}

fn security(names: &[&str]) -> Value {
    let references = names
        .iter()
        .map(|name| json!({"$ref": format!("#/components/securitySchemes/{name}")}));
    references.collect()
}

/// Adds a message, and returns its key.
fn insert(messages: &mut Map<String, Value>, of: &str, message: &Message) -> String {
    let key = match of {
        "" => message.name.clone(),
        _ => format!("{of}{}", capitalized(&message.name)),
    };
    let examples = message
        .examples
        .iter()
        .enumerate()
        .map(|(at, payload)| json!({"name": format!("{key}{}", at + 1), "payload": payload}));
    let described = json!({
        "name": message.name,
        "summary": message.about(),
        "payload": {"$ref": reference(&message.schema)},
        "examples": examples.collect::<Vec<_>>(),
    });
    messages.insert(key.clone(), described);
    key
}

fn references<'a>(keys: impl IntoIterator<Item = &'a String>) -> Map<String, Value> {
    let reference = |key| json!({"$ref": format!("#/components/messages/{key}")});
    keys.into_iter()
        .map(|key| (key.clone(), reference(key)))
        .collect()
}

fn operation(action: &str, channel: &str, summary: &str, messages: &[String]) -> Value {
    let messages = messages
        .iter()
        .map(|key| json!({"$ref": format!("#/channels/{channel}/messages/{key}")}));
    json!({
        "action": action,
        "channel": {"$ref": format!("#/channels/{channel}")},
        "summary": summary,
        "messages": messages.collect::<Vec<_>>(),
    })
}

/// Draft 07 tells a list of known length by `items`, and what comes after by `additionalItems`.
fn to_draft_07(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(first) = fields.remove("prefixItems") {
                let rest = fields.insert("items".into(), first);
                if let Some(rest) = rest {
                    fields.insert("additionalItems".into(), rest);
                }
            }
            fields.values_mut().for_each(to_draft_07);
        }
        Value::Array(values) => values.iter_mut().for_each(to_draft_07),
        _ => {}
    }
}

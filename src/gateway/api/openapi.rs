//! The HTTP routes, as OpenAPI 3.1.
//!
//! Owns what holds for all routes, and the files; the routes of streams and of phones are told
//! beside their handlers.

use serde_json::{Value, json};
use utoipa::openapi::{Info, OpenApi, Paths};

use super::{Message, VERSION, published, reference, schemas_of, value_of};
use crate::gateway::access::IN_QUERY;
use crate::gateway::problem::{ErrorCode, Problem};
use crate::gateway::{intake, live};

const ABOUT: &str = "Positions of drivers in by WebSocket, live positions out by Server-Sent \
    Events, and the pages that show them. Only GET is answered (and HEAD, and OPTIONS for pages \
    of other hosts that are allowed): anything else is 405. A request has no body. Over a cap of \
    connections the answer is 503 without a body, whatever was asked. Clients ignore fields and \
    events that they do not know. What is said over the WebSocket and in the streams is described \
    in `/asyncapi.json`.";

const HTML: &str = "text/html";

/// The files: operation, path, its parameter, the kind of file, and what it is.
const FILES: [(&str, &str, Option<&str>, &str, &str); 7] = [
    (
        "trackPage",
        "/track/{order}",
        Some("The order's id; the token is in the fragment, `#token=…`."),
        HTML,
        "The page for whoever waits for an order",
    ),
    (
        "placePage",
        "/place/{place}",
        Some("The place's name; the token is in the fragment, `#token=…`."),
        HTML,
        "The page for a restaurant",
    ),
    (
        "mapPage",
        "/map",
        None,
        HTML,
        "The page for operations; the token is in the fragment",
    ),
    (
        "asset",
        "/assets/{name}",
        Some("The file's name, such as `base-map.geojson`."),
        "*/*",
        "What the pages load",
    ),
    (
        "favicon",
        "/favicon.ico",
        None,
        "image/svg+xml",
        "The pages' icon",
    ),
    (
        "openapi",
        "/openapi.json",
        None,
        super::JSON,
        "This document",
    ),
    (
        "asyncapi",
        "/asyncapi.json",
        None,
        super::JSON,
        "What is said over the WebSocket and in the streams, as AsyncAPI 3.0",
    ),
];

/// The whole document.
pub(super) fn document() -> Value {
    let mut parts = OpenApi::new(Info::new("riderflow gateway", VERSION), Paths::new());
    parts.merge(intake::described::paths());
    parts.merge(live::described::paths());
    let mut document = value_of(&parts);
    document["info"]["description"] = ABOUT.into();
    document["info"]["license"] =
        json!({"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"});
    document["servers"] = json!([{"url": "/"}]);
    document["tags"] = json!([
        {"name": "intake", "description": "Positions in."},
        {"name": "live", "description": "Live positions out."},
        {"name": "files", "description": "Pages, and what describes the gateway."},
    ]);
    for (operation, path, parameter, kind, about) in FILES {
        document["paths"][path] = json!({"get": file(operation, path, parameter, kind, about)});
    }
    let streams = [
        ("/v1/orders/{id}/live", live::described::order()),
        ("/v1/places/{place}/live", live::described::place()),
        ("/v1/fleet/live", live::described::fleet()),
    ];
    for (path, messages) in &streams {
        let told = &mut document["paths"][*path]["get"]["responses"]["200"];
        told["content"]["text/event-stream"] = stream(messages);
        told["headers"] = json!({"cache-control": header("`no-store`")});
    }
    let operations = document["paths"].as_object_mut().expect("paths");
    for path in operations.values_mut() {
        add_common(&mut path["get"]["responses"]);
    }
    let schemas = schemas_of(streams.iter().flat_map(|(_, messages)| messages));
    let components = &mut document["components"];
    for (name, schema) in schemas {
        // What phones say is no part of HTTP.
        if !published::OF_PHONES.contains(&name.as_str()) {
            components["schemas"][name] = schema;
        }
    }
    components["securitySchemes"] = json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Its `sub` is what it opens: `driver/453`, `order/o-1`, \
                `place/restaurant-9` or `fleet`.",
        },
        "subprotocol": {
            "type": "apiKey",
            "in": "header",
            "name": "Sec-WebSocket-Protocol",
            "description": "`riderflow.v1, bearer.<JWT>`: for browsers, which can't set \
                `Authorization` on a WebSocket. The answer names `riderflow.v1` only.",
        },
    });
    document
}

fn header(about: &str) -> Value {
    json!({"description": about, "schema": {"type": "string"}})
}

fn example(error: ErrorCode) -> Value {
    json!({
        "schema": {"$ref": reference("Problem")},
        "example": Problem::of(error),
    })
}

/// The content of a stream: text, and the schemas of what its events' data are.
fn stream(messages: &[Message]) -> Value {
    let first = &messages[0];
    let data = first.examples.first().map(Value::to_string);
    let text = format!(
        "retry: 1000\n\nevent: {}\ndata: {}\n\n",
        first.name,
        data.unwrap_or_default()
    );
    let events: serde_json::Map<String, Value> = messages
        .iter()
        .map(|it| (it.name.clone(), json!({"$ref": reference(&it.schema)})))
        .collect();
    json!({
        "schema": {
            "type": "string",
            "description": "Each event's `data` is one line of JSON, of the schema that `x-events` \
                gives for its name.",
        },
        "x-events": events,
        "example": text,
    })
}

fn file(operation: &str, path: &str, parameter: Option<&str>, kind: &str, about: &str) -> Value {
    let schema = match kind {
        super::JSON => json!({"type": "object"}),
        HTML => json!({"type": "string"}),
        _ => json!({}),
    };
    let kept = json!({
        "cache-control": header("`no-cache`: ask each time; a year for what bears its version."),
        "etag": header("Of these bytes."),
    });
    let mut described = json!({
        "operationId": operation,
        "tags": ["files"],
        "summary": about,
        "security": [],
        "parameters": [{
            "name": "If-None-Match",
            "in": "header",
            "description": "Tags of what is there already.",
            "required": false,
            "schema": {"type": "string"},
        }],
        "responses": {
            "200": {"description": "The file.", "headers": kept, "content": {kind: {"schema": schema}}},
            "304": {"description": "It is what `If-None-Match` names.", "headers": kept},
        },
    });
    if let (Some(parameter), Some((_, name))) = (parameter, path.split_once('{')) {
        let parameters = described["parameters"].as_array_mut();
        parameters.expect("a list").insert(
            0,
            json!({
                "name": name.trim_end_matches('}'),
                "in": "path",
                "description": parameter,
                "required": true,
                "schema": {"type": "string"},
            }),
        );
    }
    if path.starts_with("/assets/") {
        described["responses"]["404"] = json!({"description": "There is no such file."});
    }
    described
}

/// What every route may answer.
fn add_common(responses: &mut Value) {
    let responses = responses.as_object_mut().expect("responses");
    let in_query = json!({
        "summary": "A token in the URL",
        "value": Problem::of(ErrorCode::TokenInQuery).because(IN_QUERY),
    });
    match responses.get_mut("400") {
        Some(response) => {
            let content = &mut response["content"][super::JSON];
            let own = content["example"].take();
            content.as_object_mut().expect("content").remove("example");
            let name = own["error"].as_str().unwrap_or_default().to_owned();
            content["examples"] = json!({name: {"value": own}, "token_in_query": in_query});
            let about = response["description"].as_str().unwrap_or_default();
            let about = format!("{about} Or there is a token in the URL.");
            response["description"] = about.into();
        }
        None => {
            let content = json!({
                "schema": {"$ref": reference("Problem")},
                "examples": {"token_in_query": in_query},
            });
            responses.insert(
                "400".into(),
                json!({
                    "description": "There is a token in the URL, where it never belongs.",
                    "content": {super::JSON: content},
                }),
            );
        }
    }
    responses.entry("403").or_insert_with(|| {
        json!({
            "description": "A page of a host that is not allowed asks.",
            "content": {super::JSON: example(ErrorCode::Origin)},
        })
    });
    responses.entry("413").or_insert_with(|| {
        json!({
            "description": "The request has a body.",
            "content": {super::JSON: example(ErrorCode::Body)},
        })
    });
    responses.entry("429").or_insert_with(|| {
        json!({
            "description": "More requests than one connection may make; it is closed.",
        })
    });
}

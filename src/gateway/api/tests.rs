//! Both documents against the files in `schemas/`, the router, and messages that are sent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::{asyncapi, openapi, text_of};
use crate::gateway::intake;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_files_in_schemas_are_what_is_served() {
    for (name, document) in [
        ("gateway-openapi.json", openapi::document()),
        ("gateway-asyncapi.json", asyncapi::document()),
    ] {
        let path = root().join("schemas").join(name);
        let made = text_of(&document);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &made).expect("the file is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "schemas/{name} is not what the code makes; if that is meant, write it anew with \
             `UPDATE_GOLDEN=1 cargo test --lib gateway::api`"
        );
    }
}

fn request(path: &str, tag: Option<&str>) -> (StatusCode, String, Vec<u8>) {
    let mut request = Request::get(path);
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let request = request.body(Body::empty()).expect("a valid request");
    let service = TowerToHyperService::new(super::routes());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let answer = service.call(request).await.expect("infallible");
        let tag = answer.headers()[header::ETAG].to_str().expect("a tag");
        let tag = tag.to_owned();
        if answer.status() == StatusCode::OK {
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        }
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await;
        (status, tag, body.expect("a whole body").to_vec())
    })
}

#[test]
fn both_are_served_and_revalidated() {
    for (path, document) in [
        ("/openapi.json", openapi::document()),
        ("/asyncapi.json", asyncapi::document()),
    ] {
        let (status, tag, body) = request(path, None);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, text_of(&document).into_bytes());
        let (status, _, body) = request(path, Some(&tag));
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
}

/// Every route that the gateway's sources name, in tests too.
fn routes_in(folder: &Path, routes: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("a source folder").path();
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or("");
        if path.is_dir() {
            routes_in(&path, routes);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let calls = text.split(concat!(".rou", "te(")).skip(1);
            routes.extend(calls.map(|call| {
                let call = call.trim_start();
                let rest = call.strip_prefix('"').expect("a route is a literal");
                rest.split('"').next().unwrap_or_default().to_owned()
            }));
        }
    }
}

#[test]
fn every_route_is_described() {
    let mut routes = BTreeSet::new();
    routes_in(&root().join("src/gateway"), &mut routes);
    assert!(routes.len() >= 11, "{routes:?}");
    let document = openapi::document();
    let paths = document["paths"].as_object().expect("paths");
    let described: BTreeSet<String> = paths.keys().cloned().collect();
    assert_eq!(described, routes);
    let mut ids = BTreeSet::new();
    for (path, item) in paths {
        let operation = &item["get"];
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} twice");
        assert!(operation["summary"].is_string(), "{path}");
        assert!(operation["security"].is_array(), "{path}");
        // The path's parameters, and no others, are told as such.
        let parameters = operation["parameters"].as_array().expect("parameters");
        let told: Vec<String> = parameters
            .iter()
            .filter(|it| it["in"] == "path")
            .map(|it| format!("{{{}}}", it["name"].as_str().expect("a name")))
            .collect();
        let wanted: Vec<&str> = path.split('/').filter(|it| it.starts_with('{')).collect();
        assert_eq!(told, wanted, "{path}");
        for (status, response) in operation["responses"].as_object().expect("responses") {
            assert!(response["description"].is_string(), "{path} {status}");
        }
    }
    let channels = asyncapi::document();
    let channels = channels["channels"].as_object().expect("channels").clone();
    for channel in channels.values() {
        let address = channel["address"].as_str().expect("an address");
        assert!(routes.contains(address), "{address}");
    }
    let live = routes.iter().filter(|it| it.starts_with("/v1/"));
    assert_eq!(live.count(), channels.len());
}

/// Calls `visit` with every object under `value`.
fn objects(value: &Value, visit: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            visit(fields);
            fields.values().for_each(|it| objects(it, visit));
        }
        Value::Array(values) => values.iter().for_each(|it| objects(it, visit)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
    for document in [openapi::document(), asyncapi::document()] {
        let mut seen = BTreeSet::new();
        objects(&document, &mut |fields| {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("within the document");
                assert!(document.pointer(pointer).is_some(), "{reference}");
                seen.insert(reference.clone());
            }
        });
        let schemas = document["components"]["schemas"].as_object();
        for (name, schema) in schemas.expect("schemas") {
            let reference = format!("#/components/schemas/{name}");
            assert!(seen.contains(&reference), "{name} is used nowhere");
            assert!(schema["description"].is_string(), "{name} is not described");
            if document["openapi"].is_string() {
                jsonschema::draft202012::meta::validate(schema).expect(name);
            } else {
                jsonschema::draft7::meta::validate(schema).expect(name);
            }
        }
    }
}

/// The schema of this name, with all that it refers to. Closed: what it doesn't name is a fault.
fn closed(document: &Value, name: &str) -> Value {
    let mut schemas = document["components"]["schemas"].clone();
    let open = schemas.clone();
    for schema in schemas.as_object_mut().expect("schemas").values_mut() {
        // Parts that are all in one object are laid together first.
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let mut whole = json!({"type": "object", "properties": {}, "required": []});
            for part in parts {
                let part = match part["$ref"].as_str() {
                    Some(reference) => &open[reference.rsplit('/').next().unwrap_or_default()],
                    None => part,
                };
                let properties = part["properties"].as_object().expect("an object").clone();
                let all = whole["properties"].as_object_mut().expect("an object");
                all.extend(properties);
                if let Some(required) = part["required"].as_array() {
                    let all = whole["required"].as_array_mut().expect("a list");
                    all.extend(required.iter().cloned());
                }
            }
            *schema = whole;
        }
        if schema["properties"].is_object() {
            schema["additionalProperties"] = false.into();
        }
    }
    json!({
        "$ref": format!("#/components/schemas/{name}"),
        "components": {"schemas": schemas},
    })
}

fn faults(validator: &jsonschema::Validator, instance: &Value) -> Vec<String> {
    let errors = validator.iter_errors(instance);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// Holds what a stream or connection says against its schema in both documents.
pub(in crate::gateway) fn hold(channel: &str, name: &str, data: &Value) {
    static BOTH: LazyLock<[Value; 2]> =
        LazyLock::new(|| [asyncapi::document(), openapi::document()]);
    let [asyncapi, openapi] = &*BOTH;
    let messages = asyncapi["channels"][channel]["messages"].as_object();
    let messages = messages.expect("a channel").values();
    let message = messages
        .filter_map(|it| asyncapi.pointer(it["$ref"].as_str()?.strip_prefix('#')?))
        .find(|it| it["name"] == name)
        .unwrap_or_else(|| panic!("{channel} has no {name}"));
    let schema = message["payload"]["$ref"].as_str().expect("a reference");
    let schema = schema.rsplit('/').next().expect("a name");
    let validator = jsonschema::draft7::new(&closed(asyncapi, schema)).expect(schema);
    let found = faults(&validator, data);
    assert!(found.is_empty(), "{channel} {name}: {data}: {found:?}");
    if channel != "drivers" {
        let validator = jsonschema::draft202012::new(&closed(openapi, schema)).expect(schema);
        let found = faults(&validator, data);
        assert!(found.is_empty(), "{channel} {name}: {data}: {found:?}");
    }
}

#[test]
fn every_example_is_valid_and_shows_every_field() {
    let document = asyncapi::document();
    let mut held = 0;
    for (channel, described) in document["channels"].as_object().expect("channels") {
        for message in described["messages"]
            .as_object()
            .expect("messages")
            .values()
        {
            let pointer = message["$ref"].as_str().expect("a reference");
            let message = document.pointer(&pointer[1..]).expect("a message");
            let name = message["name"].as_str().expect("a name");
            let examples = message["examples"].as_array().expect("examples");
            assert!(!examples.is_empty(), "{channel} {name}");
            let mut shown = BTreeSet::new();
            for example in examples {
                hold(channel, name, &example["payload"]);
                let fields = example["payload"].as_object();
                shown.extend(fields.into_iter().flat_map(|it| it.keys().cloned()));
                held += 1;
            }
            let schema = message["payload"]["$ref"].as_str().expect("a reference");
            let schema = closed(&document, schema.rsplit('/').next().expect("a name"));
            let schema = &schema["components"]["schemas"][schema["$ref"]
                .as_str()
                .and_then(|it| it.rsplit('/').next())
                .expect("a name")];
            if let (Some(properties), false) = (schema["properties"].as_object(), name == "update")
            {
                let all: BTreeSet<String> = properties.keys().cloned().collect();
                assert_eq!(shown, all, "{channel} {name}");
            }
        }
    }
    assert!(held >= 24, "{held}");
    // The bodies of answers.
    let document = openapi::document();
    let validator = jsonschema::draft202012::new(&closed(&document, "Problem")).expect("Problem");
    let mut held = 0;
    objects(&document["paths"], &mut |fields| {
        let is_problem = fields
            .get("schema")
            .is_some_and(|it| it["$ref"].as_str() == Some("#/components/schemas/Problem"));
        if is_problem {
            let one = fields.get("example");
            let several = fields.get("examples").and_then(Value::as_object);
            let several = several.into_iter().flat_map(|it| it.values());
            for example in one.into_iter().chain(several.map(|it| &it["value"])) {
                let found = faults(&validator, example);
                assert!(found.is_empty(), "{example}: {found:?}");
                held += 1;
            }
        }
    });
    assert!(held >= 40, "{held}");
}

#[test]
fn what_a_message_is_not_is_refused() {
    let document = asyncapi::document();
    for (schema, instance) in [
        (
            "Welcome",
            json!({"type": "ack", "session": "s", "acked": 0}),
        ),
        ("Ack", json!({"type": "ack"})),
        ("Ack", json!({"type": "ack", "seq": -1})),
        (
            "Retry",
            json!({"type": "retry", "seq": 1, "after_ms": 5, "reason": "tired"}),
        ),
        ("Driver", json!([453, 77.5, 12.9, null, null, 0, 0])),
        ("Driver", json!([453, 77.5, 12.9, null, null, 0, 0, 1, 1])),
        ("Driver", json!([453, null, 12.9, null, null, 0, 0, 1])),
        ("FleetFence", json!({"now": 1, "id": "f"})),
        ("OrderPosition", json!({"now": 1, "target": null})),
        ("StreamEnded", json!({"now": 1, "status": "placed"})),
        ("Update", json!({"longitude": 181.0, "latitude": 0.0})),
        ("Update", json!({"longitude": 1.0})),
        (
            "Update",
            json!({"longitude": 1.0, "latitude": 0.0, "seq": 0}),
        ),
        (
            "Update",
            json!({"longitude": 1.0, "latitude": 0.0, "seq": crate::wire::LAST_SEQ + 1}),
        ),
        ("Updates", json!([7])),
    ] {
        let validator = jsonschema::draft7::new(&closed(&document, schema)).expect(schema);
        assert!(!validator.is_valid(&instance), "{schema}: {instance}");
    }
}

#[test]
fn what_phones_say_in_examples_is_taken() {
    let [one, several] = intake::described::updates();
    let several = several.as_array().expect("several").clone();
    for update in std::iter::once(one).chain(several) {
        assert!(intake::described::is_taken(&update), "{update}");
    }
}

//! What `schemas/inputs/` says already, as the gateway's documents have it.
//!
//! Those files are held against the decoders; what phones say and what fences look like is what
//! they say, but for what is different on this side of Kafka.

use serde_json::{Value, json};

use crate::wire;

/// A published schema, to be a component of this name.
fn component(name: &str, text: &str) -> Value {
    let mut schema: Value = serde_json::from_str(text).expect("a published schema is JSON");
    let fields = schema.as_object_mut().expect("a schema is an object");
    fields.remove("$schema");
    fields.remove("examples");
    let here = format!("#/components/schemas/{name}/$defs/");
    rebase(&mut schema, &here);
    schema
}

fn rebase(value: &mut Value, here: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().and_then(|it| it.strip_prefix("#/$defs/")) {
                    Some(rest) if name == "$ref" => *value = format!("{here}{rest}").into(),
                    _ => rebase(value, here),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rebase(value, here)),
        _ => {}
    }
}

/// One update of a phone: the token says of which driver.
fn update() -> Value {
    let text = include_str!("../../../schemas/inputs/rider-update.json");
    let mut schema = component("Update", text);
    let fields = schema.as_object_mut().expect("a schema is an object");
    fields.remove("oneOf");
    schema["title"] = "Update".into();
    schema["description"] = "Where the phone is. Unknown fields are ignored, null counts as \
        absent, a known field given twice is refused. Integers are written without a fraction."
        .into();
    let properties = &mut schema["properties"];
    properties["driverId"]["description"] =
        "The token's driver, if given. Or driver_id, not both.".into();
    properties["timestamp"]["description"] = "When the fix was taken: ms since 1970, or RFC 3339 \
        with a zone, cut to the ms. Absent: when the gateway received it, so that one sent again \
        may get another; send it. At most 60 s ahead of the gateway's clock, unless the pipeline \
        says otherwise."
        .into();
    properties["seq"] = json!({
        "description": "Its number in the session, rising; gaps are fine. Absent: one more than \
            the greatest so far, and it can't be sent again: give it.",
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": wire::LAST_SEQ,
    });
    schema
}

/// A fence as it is shown.
fn feature() -> Value {
    let text = include_str!("../../../schemas/inputs/geofence.json");
    let mut schema = component("Feature", text);
    schema["title"] = "Feature".into();
    schema["description"] = "A fence as GeoJSON (RFC 7946: longitude first). Edges are straight \
        in longitude and latitude; one of more than 180 degrees is read the short way."
        .into();
    schema["properties"]["id"] = json!({"description": "The fence's id.", "type": "string"});
    let required = schema["required"].as_array_mut();
    required.expect("a list").push("id".into());
    schema
}

/// Both, and a message of several updates.
pub(super) fn schemas() -> [(String, Value); 3] {
    let updates = json!({
        "description": "Several updates, judged one after the other.",
        "type": "array",
        "items": {"$ref": super::reference("Update")},
    });
    [
        ("Update".to_owned(), update()),
        ("Updates".to_owned(), updates),
        ("Feature".to_owned(), feature()),
    ]
}

/// Those that only phones send.
pub(super) const OF_PHONES: [&str; 2] = ["Update", "Updates"];

//! What the gateway says, against `schemas/gateway-asyncapi.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// By channel and name.
static MESSAGES: LazyLock<BTreeMap<(String, String), Validator>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/gateway-asyncapi.json");
    let text = std::fs::read_to_string(path).expect("the document is kept in schemas/");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let at = |reference: &Value| {
        let pointer = reference["$ref"].as_str().expect("a reference");
        document.pointer(&pointer[1..]).expect("it leads somewhere")
    };
    let channels = document["channels"].as_object().expect("channels");
    let mut messages = BTreeMap::new();
    for (channel, described) in channels {
        for message in described["messages"]
            .as_object()
            .expect("messages")
            .values()
        {
            let message = at(message);
            let name = message["name"].as_str().expect("a name");
            let schema = json!({
                "allOf": [message["payload"]],
                "components": document["components"],
            });
            let validator = jsonschema::draft7::new(&schema).expect(name);
            messages.insert((channel.clone(), name.to_owned()), validator);
        }
    }
    messages
});

/// Holds a message of this name against its schema.
pub(crate) fn hold(channel: &str, name: &str, data: &Value) {
    let validator = MESSAGES.get(&(channel.to_owned(), name.to_owned()));
    let validator = validator.unwrap_or_else(|| panic!("{channel} has no {name}: {data}"));
    let errors: Vec<String> = validator
        .iter_errors(data)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{channel} {name}: {data}: {errors:?}");
}

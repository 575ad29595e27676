//! The gateway's description of itself: an OpenAPI and an AsyncAPI document.
//!
//! Owns `/openapi.json` and `/asyncapi.json`, which are also kept in `schemas/`. Both are made
//! of the types that are sent, by their own serialisation, and a test holds them against real
//! messages. Made once, at the start; never asks who reads them.
//!
//! | file | owns |
//! |---|---|
//! | `openapi` | the HTTP routes |
//! | `asyncapi` | what is said over the WebSocket and the streams |
//! | `published` | what `schemas/inputs/` says already |

mod asyncapi;
mod openapi;
mod published;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::hold;

use std::collections::BTreeMap;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::file::{File, REVALIDATED};

/// Of what is described; it changes with the protocol, not with the program.
const VERSION: &str = "1.0.0";

const JSON: &str = "application/json";

/// A text that is one of these, and what it is.
pub(super) fn choice(about: &str, values: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new()
        .description(Some(about))
        .schema_type(Type::String)
        .enum_values(Some(values))
        .build()
}

/// One kind of message.
pub(super) struct Message {
    /// What tells it from others: the event's name, or the value of `type`.
    name: String,
    /// Its schema's name among `schemas`.
    schema: String,
    schemas: BTreeMap<String, Value>,
    examples: Vec<Value>,
}

impl Message {
    /// A message of this type, with examples of it.
    pub(super) fn of<T: ToSchema + Serialize>(name: &str, examples: &[T]) -> Self {
        let mut schemas = Vec::new();
        T::schemas(&mut schemas);
        let own = T::name().into_owned();
        schemas.push((own.clone(), T::schema()));
        let schemas = schemas
            .iter()
            .map(|(name, schema)| (name.clone(), value_of(schema)));
        Self {
            name: name.to_owned(),
            schema: own,
            schemas: schemas.collect(),
            examples: examples.iter().map(value_of).collect(),
        }
    }

    /// The variants of an enum that is tagged by `type`, with examples of each.
    pub(super) fn of_variants<T: ToSchema + Serialize>(examples: &[T]) -> Vec<Self> {
        let whole = Self::of("", examples);
        let variants = whole.schemas[&whole.schema]["oneOf"].as_array();
        let variants = variants.expect("a tagged enum is one of its variants");
        let described = variants.iter().map(|schema| {
            let tag = &schema["properties"]["type"]["enum"][0];
            let name = tag.as_str().expect("a variant is tagged by `type`");
            let schema_name = capitalized(name);
            let mut schemas = whole.schemas.clone();
            schemas.remove(&whole.schema);
            schemas.insert(schema_name.clone(), schema.clone());
            let examples = whole.examples.iter().filter(|it| it["type"] == *tag);
            Self {
                name: name.to_owned(),
                schema: schema_name,
                schemas,
                examples: examples.cloned().collect(),
            }
        });
        described.collect()
    }

    /// What it is, for people: the first line of its type's documentation.
    fn about(&self) -> &str {
        let about = self.schemas[&self.schema]["description"].as_str();
        about.unwrap_or_default()
    }
}

fn value_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("schemas and messages have text keys and finite numbers")
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at_checked(1).unwrap_or((text, ""));
    first.to_ascii_uppercase() + rest
}

fn reference(schema: &str) -> Value {
    Value::from(format!("#/components/schemas/{schema}"))
}

/// All schemas of these messages, by name.
fn schemas_of<'a>(messages: impl IntoIterator<Item = &'a Message>) -> BTreeMap<String, Value> {
    let all = messages.into_iter().flat_map(|it| it.schemas.clone());
    let mut schemas: BTreeMap<String, Value> = all.collect();
    schemas.extend(published::schemas());
    schemas
}

/// A document as it is served and kept.
fn text_of(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("JSON is JSON");
    text.push('\n');
    text
}

/// `GET /openapi.json` and `/asyncapi.json`.
pub(super) fn routes() -> Router {
    let serve = |name, document: &Value| {
        let file = File::new(name, JSON, REVALIDATED, Bytes::from(text_of(document)));
        get(move |headers: HeaderMap| std::future::ready(file.answer(&headers)))
    };
    Router::new()
        .route("/openapi.json", serve("openapi.json", &openapi::document()))
        .route(
            "/asyncapi.json",
            serve("asyncapi.json", &asyncapi::document()),
        )
}

//! What is answered instead of what was asked for.
//!
//! Owns the one shape of such answers. Never says more than whoever asks may know.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why there is nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// No good token.
    Unauthorized,
    /// A token in the URL.
    TokenInQuery,
    /// A good token, for something else.
    Forbidden,
    /// A page of a host that is not allowed asks.
    Origin,
    /// The request has a body.
    Body,
    /// Unknown, ended, or another's.
    NotFound,
    /// A parameter can't be read.
    BadParameter,
    /// The session's name can't be one.
    InvalidSession,
    /// The gateway is still reading what Kafka has.
    Starting,
    /// There are enough streams of the fleet.
    Crowded,
    /// The gateway is ending.
    Draining,
}

/// What is answered instead of what was asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem<'a> {
    /// Why, for programs.
    pub(crate) error: ErrorCode,
    /// The parameter that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) parameter: Option<&'static str>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) detail: Option<&'a str>,
}

impl<'a> Problem<'a> {
    /// A problem of which there is nothing else to say.
    pub(crate) fn of(error: ErrorCode) -> Self {
        Self {
            error,
            parameter: None,
            detail: None,
        }
    }

    /// The same, with more about it.
    pub(crate) fn because(self, detail: &'a str) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    /// As an answer.
    pub(crate) fn answer(&self, status: StatusCode) -> Response {
        let body = serde_json::to_string(self).expect("a problem is made of text");
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

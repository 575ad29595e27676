//! What is answered instead of a stream.
//!
//! Owns the one answer to what is unknown, has ended, or is another's: the same bytes, so that
//! nobody learns what there is.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::gateway::access::Refusal;

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum Denied {
    /// No good token.
    Token(Refusal),
    /// Unknown, ended, or another's.
    NotFound,
    /// The view is still being read.
    Starting,
    /// The box can't be read; says why.
    Bbox(String),
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::Token(refusal) => refusal.into_response(),
            Self::NotFound => answer(StatusCode::NOT_FOUND, r#"{"error":"not_found"}"#.into()),
            Self::Starting => {
                let body = r#"{"error":"starting","detail":"the gateway is still reading what Kafka has; try again in a second"}"#;
                let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, body.into());
                let second = HeaderValue::from_static("1");
                response.headers_mut().insert(RETRY_AFTER, second);
                response
            }
            Self::Bbox(detail) => {
                let body = serde_json::json!({
                    "error": "bad_parameter", "parameter": "bbox", "detail": detail,
                });
                answer(StatusCode::BAD_REQUEST, body.to_string())
            }
        }
    }
}

fn answer(status: StatusCode, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}

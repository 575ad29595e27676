//! What is answered instead of a stream.
//!
//! Owns the one answer to what is unknown, has ended, or is another's: the same bytes, so that
//! nobody learns what there is.

use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::gateway::access::Refusal;
use crate::gateway::problem::{ErrorCode, Problem};

/// What is said until the view is whole.
pub(super) const STARTING: &str =
    "the gateway is still reading what Kafka has; try again in a second";

/// What is said when so many watch the whole fleet that one more would slow all.
pub(super) const CROWDED: &str =
    "this gateway has as many fleet streams as it takes; try another, or again later";

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum Denied {
    /// No good token.
    Token(Refusal),
    /// Unknown, ended, or another's.
    NotFound,
    /// The view is still being read.
    Starting,
    /// There are enough streams of the fleet.
    Crowded,
    /// The box can't be read; says why.
    Bbox(String),
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::Token(refusal) => refusal.into_response(),
            Self::NotFound => {
                let problem = Problem::of(ErrorCode::NotFound);
                unstored(problem.answer(StatusCode::NOT_FOUND))
            }
            Self::Starting => later(ErrorCode::Starting, STARTING, "1"),
            Self::Crowded => later(ErrorCode::Crowded, CROWDED, "30"),
            Self::Bbox(detail) => {
                let problem = Problem {
                    error: ErrorCode::BadParameter,
                    parameter: Some("bbox"),
                    detail: Some(&detail),
                };
                unstored(problem.answer(StatusCode::BAD_REQUEST))
            }
        }
    }
}

/// Come again in so many seconds.
fn later(error: ErrorCode, detail: &str, seconds: &'static str) -> Response {
    let problem = Problem::of(error).because(detail);
    let mut response = unstored(problem.answer(StatusCode::SERVICE_UNAVAILABLE));
    let seconds = HeaderValue::from_static(seconds);
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

fn unstored(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

//! The parts of the gateway, put together.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;

use super::shared::Shared;
use super::{GatewayError, intake};

/// Everything that the gateway answers. Each part brings its own routes.
///
/// # Errors
/// A part can't be opened.
pub(super) fn compose(shared: &Arc<Shared>) -> Result<Router, GatewayError> {
    let intake = intake::open(shared)?;
    Ok(Router::new()
        .merge(intake::routes(intake))
        .fallback(|| async {
            let body = r#"{"error":"not_found"}"#;
            (
                StatusCode::NOT_FOUND,
                [(CONTENT_TYPE, "application/json")],
                body,
            )
        }))
}

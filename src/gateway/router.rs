//! The parts of the gateway, put together.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;

use super::shared::Shared;

/// Everything that the gateway answers. Each part brings its own routes.
pub(super) fn compose(_shared: &Arc<Shared>) -> Router {
    Router::new().fallback(|| async {
        let body = r#"{"error":"not_found"}"#;
        (
            StatusCode::NOT_FOUND,
            [(CONTENT_TYPE, "application/json")],
            body,
        )
    })
}

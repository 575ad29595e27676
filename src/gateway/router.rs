//! The parts of the gateway, put together.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;

use super::live::Live;
use super::shared::Shared;
use super::{GatewayError, intake, live, pages};

/// Everything that the gateway answers, each part with its own routes, and the live view, which
/// has to catch up first. The view tells the intake which updates are in Kafka.
///
/// # Errors
/// A part can't be opened.
pub(super) fn compose(shared: &Arc<Shared>) -> Result<(Router, Arc<Live>), GatewayError> {
    let intake = intake::open(shared)?;
    let stored = Arc::clone(&intake);
    let live = Live::start(
        &shared.pipeline,
        Arc::clone(&shared.access),
        shared.draining.watch(),
        Box::new(move |driver, session, partition, seq| {
            stored.note_stored(driver, session, partition, seq);
        }),
    )?;
    let live = Arc::new(live);
    let router = intake::routes(intake)
        .merge(live::routes(Arc::clone(&live)))
        .merge(pages::routes(shared.base_map.clone()))
        .fallback(|| async {
            let body = r#"{"error":"not_found"}"#;
            (
                StatusCode::NOT_FOUND,
                [(CONTENT_TYPE, "application/json")],
                body,
            )
        });
    Ok((router, live))
}

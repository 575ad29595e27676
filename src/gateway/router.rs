//! The parts of the gateway, put together.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;

use super::live::Live;
use super::problem::{ErrorCode, Problem};
use super::shared::Shared;
use super::{GatewayError, api, intake, live, pages};

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
        .merge(api::routes())
        .merge(pages::routes(shared.base_map.clone()))
        .fallback(|| async { Problem::of(ErrorCode::NotFound).answer(StatusCode::NOT_FOUND) });
    Ok((router, live))
}

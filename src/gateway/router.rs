//! The parts of the gateway, put together.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;

use super::GatewayError;
use super::intake::{self, Intake, Pace};
use super::live::{self, Live};
use super::pages;
use super::shared::{Shared, limits_of};
use crate::kafka::routing::RouteTable;
use crate::kafka::{Outlet, OutletSettings, Partitions, partitions_of};
use crate::model::Input;

/// The parts that have something running.
pub(super) struct Parts {
    pub(super) intake: Arc<Intake>,
    pub(super) live: Arc<Live>,
}

impl Parts {
    /// Connects them to Kafka. The live view tells the intake which updates are in Kafka.
    ///
    /// # Errors
    /// Kafka does not answer, or a route leads nowhere.
    pub(super) fn open(shared: &Shared) -> Result<Self, GatewayError> {
        let (pipeline, settings) = (&shared.pipeline, &shared.pipeline.gateway);
        let brokers = &pipeline.kafka.brokers;
        let Partitions(count) = partitions_of(brokers, &[Input::Updates.topic()])?[0];
        let outlet = OutletSettings {
            queue_records: u32::try_from(settings.buffer_updates).unwrap_or(u32::MAX),
            ..OutletSettings::default()
        };
        let intake = Intake::new(intake::Parts {
            access: Arc::clone(&shared.access),
            routes: RouteTable::new(&pipeline.routes, count)?,
            limits: limits_of(pipeline),
            outlet: Outlet::connect(brokers, outlet)?,
            updates_per_s: settings.updates_per_s,
            sessions: settings.connections.saturating_mul(2),
            pace: Pace::default(),
            drain: shared.draining.watch(),
            metrics: shared.metrics.clone(),
        });
        let stored = Arc::clone(&intake);
        let live = Live::start(
            pipeline,
            Arc::clone(&shared.access),
            shared.draining.watch(),
            Box::new(move |driver, session, partition, seq| {
                stored.note_stored(driver, session, partition, seq);
            }),
        )?;
        Ok(Self {
            intake,
            live: Arc::new(live),
        })
    }

    /// Everything that the gateway answers. Each part brings its own routes.
    pub(super) fn compose(&self, shared: &Shared) -> Router {
        intake::routes(Arc::clone(&self.intake))
            .merge(live::routes(Arc::clone(&self.live)))
            .merge(pages::routes(shared.base_map.clone()))
            .fallback(|| async {
                let body = r#"{"error":"not_found"}"#;
                (
                    StatusCode::NOT_FOUND,
                    [(CONTENT_TYPE, "application/json")],
                    body,
                )
            })
    }
}

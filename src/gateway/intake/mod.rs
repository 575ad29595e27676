//! Positions in: phones' WebSockets, and the way from them into Kafka.
//!
//! ```text
//! phone ──▶ socket ──▶ protocol (the job's own judgement) ──▶ session ──▶ outlet ──▶ Kafka
//!   ◀──── ack, error, retry ────┴──────────────────────────────┘ ◀──── receipt ─────┘
//! ```
//!
//! Owns `GET /v1/drivers/connect`. Promises that an update is acknowledged only once Kafka has
//! it, that none is dropped without an answer, that a resent one is not produced again as long
//! as its session is known, and that each connection costs bounded memory. The driver is the
//! token's, never the payload's. The buffer is the outlet's queue; when it is full, phones are
//! told to try later. Never decides what an update means.

pub(super) mod described;
mod end;
mod limiter;
mod protocol;
mod session;
mod sessions;
mod socket;
mod updates;

pub use end::End;
pub use protocol::RetryReason;
pub use sessions::Receipt;
pub use socket::Pace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::OpenApi;

use self::sessions::Sessions;
use super::access::{Access, SUBPROTOCOL, Subject};
use super::metrics::GatewayMetrics;
use super::problem::{ErrorCode, Problem};
use super::shared::{Shared, limits_of};
use crate::kafka::routing::{RouteError, RouteTable};
use crate::kafka::{KafkaError, Outlet, OutletSettings, Partitions, partitions_of};
use crate::model::{DriverId, Input};
use crate::telemetry::Held;
use crate::wire::{self, Limits};

/// What the intake is made of.
pub struct Parts {
    /// Who may.
    pub access: Arc<Access>,
    /// Which partition an update goes to.
    pub routes: RouteTable,
    /// What an update may be at most; the job's.
    pub limits: Limits,
    /// The way into Kafka; its queue is the buffer that is full at some time.
    pub outlet: Outlet<Receipt>,
    /// Updates a second that one connection may send, at least 1.
    pub updates_per_s: u32,
    /// Sessions that are known at most, with and without a connection.
    pub sessions: usize,
    /// Times and patience.
    pub pace: Pace,
    /// True from when on connections are to end.
    pub drain: watch::Receiver<bool>,
    /// Where to count.
    pub metrics: GatewayMetrics,
}

/// Sessions that are known at most: about twice the connections, since each is known for a while
/// after its connection has ended.
const SESSIONS_PER_CONNECTION: usize = 2;
/// Between two looks at whether the outlet has failed.
const LOOK: Duration = Duration::from_millis(200);

/// The intake that a gateway's pipeline describes. Called within its runtime.
///
/// # Errors
/// Kafka doesn't answer, or has no `rider-updates`, or the routes lead past its partitions.
pub(crate) fn open(shared: &Shared) -> Result<Arc<Intake>, OpenError> {
    let pipeline = &shared.pipeline;
    let brokers = &pipeline.kafka.brokers;
    let Partitions(partitions) = partitions_of(brokers, &[Input::Updates.topic()])?[0];
    let settings = OutletSettings {
        queue_records: u32::try_from(pipeline.gateway.buffer_updates).unwrap_or(u32::MAX),
        ..OutletSettings::default()
    };
    let intake = Intake::new(Parts {
        access: Arc::clone(&shared.access),
        routes: RouteTable::new(&pipeline.routes, partitions)?,
        limits: limits_of(pipeline),
        outlet: Outlet::connect(brokers, settings)?,
        updates_per_s: pipeline.gateway.updates_per_s,
        sessions: SESSIONS_PER_CONNECTION * pipeline.gateway.connections,
        pace: Pace::default(),
        drain: shared.draining.watch(),
        metrics: shared.metrics.clone(),
    });
    let alarm = shared.alarm.clone();
    let watched = Arc::downgrade(&intake);
    tokio::spawn(async move {
        while let Some(intake) = watched.upgrade() {
            if let Some(why) = intake.outlet().fatal() {
                return alarm.raise(why);
            }
            drop(intake);
            tokio::time::sleep(LOOK).await;
        }
    });
    Ok(intake)
}

/// Why there is no intake.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The routes.
    #[error(transparent)]
    Routes(#[from] RouteError),
}

/// The intake of one gateway.
pub struct Intake {
    parts: Parts,
    sessions: Sessions,
}

impl Intake {
    /// An intake without connections.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            sessions: Sessions::new(parts.sessions, parts.metrics.clone(), Instant::now()),
            parts,
        })
    }

    /// The live feed has seen an update in Kafka: of which driver, session, and number (its
    /// `rf-seq` header), in which partition. So resends of updates that another gateway has
    /// stored rarely reach Kafka again.
    pub fn note_stored(&self, driver: DriverId, session: &str, partition: i32, seq: u64) {
        if wire::is_session(session.as_bytes()) {
            let now = Instant::now();
            self.sessions
                .note_stored(driver, session, partition, seq, now);
        }
    }

    /// The way into Kafka: whether it has failed for good, and what it holds.
    pub fn outlet(&self) -> &Outlet<Receipt> {
        &self.parts.outlet
    }

    /// How many sessions are known.
    pub fn known_sessions(&self) -> usize {
        self.sessions.len()
    }
}

/// `GET /v1/drivers/connect`.
pub fn routes(intake: Arc<Intake>) -> axum::Router {
    axum::Router::new()
        .route("/v1/drivers/connect", get(connect))
        .with_state(intake)
}

#[derive(Deserialize)]
struct Asked {
    session: Option<String>,
}

/// A driver's phone connects.
///
/// The token's `sub` is `driver/` and the id. What is said then is in `/asyncapi.json`, the
/// channel `drivers`.
#[utoipa::path(
    get, path = "/v1/drivers/connect", operation_id = "connectDriver", tag = "intake",
    params(
        ("session" = Option<String>, Query, description = "Names one run of the phone's app, and is kept over its connections. Absent: the gateway makes one, and `welcome` tells it.",
            min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$", example = "k3J9"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`riderflow.v1`; where the token can't go into `Authorization`, also `bearer.` and the token.",
            example = "riderflow.v1"),
    ),
    responses(
        (status = 101, description = "A WebSocket, with the subprotocol `riderflow.v1` if it was offered.",
            headers(("sec-websocket-protocol" = String, description = "`riderflow.v1`"))),
        (status = 400, description = "The session's name can't be one, the query can't be read, or this is no WebSocket handshake; the latter two are told as text.",
            content(
                (Problem<'static> = "application/json",
                    example = json!(Problem::of(ErrorCode::InvalidSession))),
                (String = "text/plain"),
            )),
        (status = 401, description = "No good token.",
            headers(("www-authenticate" = String, description = "`Bearer realm=\"riderflow\"`")),
            body = Problem<'static>, example = json!(Problem::of(ErrorCode::Unauthorized))),
        (status = 403, description = "The token is no driver's, or a page of a host that is not allowed asks.",
            body = Problem<'static>, example = json!(Problem::of(ErrorCode::Forbidden))),
        (status = 503, description = "The gateway is ending: another one takes the phone.",
            body = Problem<'static>, example = json!(Problem::of(ErrorCode::Draining))),
    ),
    security(("token" = []), ("subprotocol" = []))
)]
async fn connect(
    State(intake): State<Arc<Intake>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let grant = match intake.parts.access.grant(&headers) {
        Ok(grant) => grant,
        Err(refusal) => return refusal.into_response(),
    };
    let Subject::Driver(driver) = grant.subject else {
        return Problem::of(ErrorCode::Forbidden).answer(StatusCode::FORBIDDEN);
    };
    if *intake.parts.drain.borrow() || intake.parts.outlet.fatal().is_some() {
        return Problem::of(ErrorCode::Draining).answer(StatusCode::SERVICE_UNAVAILABLE);
    }
    let name = match asked.session {
        Some(name) if wire::is_session(name.as_bytes()) => name,
        Some(_) => {
            return Problem::of(ErrorCode::InvalidSession).answer(StatusCode::BAD_REQUEST);
        }
        None => format!("{:016x}", rand::random::<u64>()),
    };
    socket::configured(upgrade)
        .protocols([SUBPROTOCOL])
        .on_upgrade(move |socket| async move {
            // Only now: a handshake that comes to nothing takes no session over.
            match intake.sessions.open(driver, &name, Instant::now()) {
                Some(seat) => {
                    drop(name);
                    let _open = Held::of(intake.parts.metrics.sockets.clone());
                    socket::serve(socket, intake, seat, grant.expires_at_ms).await;
                }
                None => end::turn_away(socket).await,
            }
        })
}

/// What the connection is.
#[derive(OpenApi)]
#[openapi(paths(connect))]
struct Described;

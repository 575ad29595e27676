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

mod limiter;
mod protocol;
mod session;
mod sessions;
mod socket;
mod updates;

pub use protocol::RetryReason;
pub use sessions::Receipt;
pub use socket::{End, Pace};

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::watch;

use self::sessions::Sessions;
use super::access::{Access, SUBPROTOCOL, Subject};
use super::metrics::GatewayMetrics;
use crate::kafka::Outlet;
use crate::kafka::routing::RouteTable;
use crate::model::DriverId;
use crate::telemetry::Held;
use crate::wire::Limits;

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
        if protocol::is_session_name(session) {
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

/// A refusal with an error's name as the body.
fn refuse(status: StatusCode, error: &'static str) -> Response {
    const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
    (status, JSON, format!(r#"{{"error":"{error}"}}"#)).into_response()
}

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
        return refuse(StatusCode::FORBIDDEN, "forbidden");
    };
    if *intake.parts.drain.borrow() || intake.parts.outlet.fatal().is_some() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "draining");
    }
    let name = match asked.session {
        Some(name) if protocol::is_session_name(&name) => name,
        Some(_) => return refuse(StatusCode::BAD_REQUEST, "invalid_session"),
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
                None => socket::turn_away(socket).await,
            }
        })
}

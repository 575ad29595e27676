//! The gateway: positions in by WebSocket, live positions out, and the pages that show them.
//!
//! ```text
//! phones ──WebSocket──▶ intake ──▶ rider-updates                     (Kafka)
//! pages  ◀────SSE────── live   ◀── rider-updates, orders, geofences, rider-notifications
//! ```
//!
//! Owns the two ends that people touch. Promises that a phone is told of an update only once
//! Kafka has it, and that nobody is shown what their token does not name. Never decides what an
//! event is; it shows what the job told. Any number of gateways run side by side: what they
//! share is in Kafka.
//!
//! | part | owns |
//! |---|---|
//! | [`access`] | who may: tokens and what they grant |
//! | [`metrics`] | what a gateway counts |
//! | `shared` | what the parts are given: tokens, metrics, the wish to leave |
//! | `server` | the listening socket: TLS, caps, draining |
//! | `intake` | phones' WebSockets, acknowledgements, the way into Kafka |
//! | [`live`] | where everyone is now, and the streams that tell it |
//! | `pages` | the files that browsers load |
//! | `api` | the OpenAPI and AsyncAPI documents of all that |
//! | `file`, `problem` | an answer that is a file, and one that says why there is nothing |
//! | `router` | the parts, put together |
//! | `watched` | files that are read again when they change |

pub mod access;
mod api;
mod file;
pub mod intake;
pub mod live;
pub mod metrics;
mod pages;
mod problem;
mod router;
mod server;
mod shared;
mod watched;

pub use access::{Access, AccessError, Grant, MintError, Refusal, Subject};
pub use metrics::GatewayMetrics;
pub use server::TlsError;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::access::{AccessRules, Algorithm};
use self::live::LiveError;
use self::server::{Drain, Listening, Serving};
use self::shared::{Alarm, Shared};
use crate::config::{self, Pipeline};
use crate::kafka::admin::{self, TopicError};
use crate::telemetry::{Condition, Health, ServeError, Server, serve};

/// Where metrics and health are served unless `--http` says otherwise.
pub const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9474);

/// How long sockets and streams have to leave.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How long what is left of the threads has to end after that.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Between two beats of the heart.
const BEAT: Duration = Duration::from_secs(1);

/// What is said about a gateway beside its pipeline.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it listens; `None`: where the pipeline says.
    pub listen: Option<SocketAddr>,
    /// Where metrics and health are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The base map's GeoJSON; `None`: the one that is built in.
    pub base_map: Option<Bytes>,
}

/// Why a gateway can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Tokens can't be checked.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// TLS can't be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Kafka doesn't answer, or its topics are not as they should be.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// Updates would have no way into Kafka.
    #[error(transparent)]
    Intake(#[from] intake::OpenError),
    /// Nothing can be shown.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// Metrics over HTTP.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Another process listens there, or the address is not ours.
    #[error(
        "could not listen at {address}: {error}; choose another address with `--listen \
         HOST:PORT` or gateway.listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system gives no thread.
    #[error("could not start the gateway's threads: {0}")]
    Threads(std::io::Error),
    /// A part of a running gateway failed.
    #[error("{0}")]
    Failed(String),
}

/// What checks the tokens of this pipeline's gateways.
///
/// # Errors
/// No key, a short one, or a JWKS file that can't be used.
pub fn access_of(settings: &config::Gateway) -> Result<Access, AccessError> {
    Access::open(AccessRules {
        algorithm: Algorithm::named(&settings.algorithm)
            .expect("a valid pipeline names a known algorithm"),
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        key: settings.key.clone(),
        jwks: (!settings.jwks.is_empty()).then(|| PathBuf::from(&settings.jwks)),
    })
}

/// A running gateway, on threads of its own. Dropping it stops it.
pub struct Gateway {
    address: SocketAddr,
    speaks_tls: bool,
    shared: Arc<Shared>,
    drain: Drain,
    accepting: Condition,
    serving: Serving,
    http: Option<Server>,
    /// `None` once it was stopped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Gateway {
    /// Starts a gateway of this pipeline.
    ///
    /// # Errors
    /// No key for tokens, files that can't be used, a taken address, or a Kafka that does not
    /// answer or lacks the pipeline's topics.
    pub fn start(pipeline: &Pipeline, options: Options) -> Result<Self, GatewayError> {
        let settings = &pipeline.gateway;
        let access = access_of(settings)?;
        let tls = (!settings.certificate.is_empty())
            .then(|| {
                let certificate = PathBuf::from(&settings.certificate);
                server::watch_tls(certificate, PathBuf::from(&settings.private_key))
            })
            .transpose()?;
        let speaks_tls = tls.is_some();
        let metrics = GatewayMetrics::new();
        let health = Health::of("the gateway has not moved");
        let accepting = health.condition("accepting connections");
        let http = options
            .http
            .map(|address| serve(address, metrics.clone(), health.clone()))
            .transpose()?;
        admin::verify_topics(&pipeline.kafka.brokers, pipeline)?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("gateway")
            .enable_all()
            .build()
            .map_err(GatewayError::Threads)?;
        let _entered = runtime.enter();
        let address = options.listen.unwrap_or_else(|| {
            let listen = settings.listen.parse();
            listen.expect("a valid pipeline names an address and a port")
        });
        let listening =
            Listening::at(address, tls).map_err(|error| GatewayError::Listen { address, error })?;
        let address = listening.address();
        let drain = Drain::new();
        let shared = Arc::new(Shared {
            pipeline: pipeline.clone(),
            access: Arc::new(access),
            metrics: metrics.clone(),
            health: health.clone(),
            draining: drain.draining(),
            alarm: Alarm::default(),
            base_map: options.base_map,
        });
        let live_ready = health.condition("live view caught up");
        let (router, live) = router::compose(&shared)?;
        let serving = listening.serve(settings, router, drain.draining(), metrics);
        let heartbeat = health.heartbeat();
        let alarm = shared.alarm.clone();
        runtime.spawn(async move {
            loop {
                heartbeat.beat();
                if live.has_failed() {
                    alarm.raise(
                        "nothing follows Kafka any more, as told above; start the gateway again",
                    );
                }
                live_ready.set(live.is_ready());
                tokio::time::sleep(BEAT).await;
            }
        });
        accepting.set(true);
        drop(_entered);
        Ok(Self {
            address,
            speaks_tls,
            shared,
            drain,
            accepting,
            serving,
            http,
            runtime: Some(runtime),
        })
    }

    /// Where it listens; with port 0 asked for, the port that the system gave.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as browsers take it, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        let scheme = if self.speaks_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where metrics and health are served, if anywhere.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Server::address)
    }

    /// What checks its tokens, and mints them where it has the key to.
    pub fn access(&self) -> &Access {
        &self.shared.access
    }

    /// What it counts.
    pub fn metrics(&self) -> &GatewayMetrics {
        &self.shared.metrics
    }

    /// Whether every part has what it needs: what `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.shared.health.is_ready()
    }

    /// Whether a part has failed, so that it should be stopped.
    pub fn is_ending(&self) -> bool {
        self.shared.alarm.is_raised() || self.serving.has_stopped_accepting()
    }

    /// Accepts nobody any more, lets sockets and streams leave for at most 20 s, and ends.
    ///
    /// # Errors
    /// The first failure of one of its parts.
    pub fn stop(mut self) -> Result<(), GatewayError> {
        self.end(DRAIN_LIMIT);
        match self.shared.alarm.message() {
            None => Ok(()),
            Some(message) => Err(GatewayError::Failed(message)),
        }
    }

    fn end(&mut self, limit: Duration) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        if self.serving.has_stopped_accepting() {
            self.shared
                .alarm
                .raise("the gateway accepts no connections any more");
        }
        self.accepting.set(false);
        self.drain.begin();
        let left = runtime.block_on(self.serving.emptied(limit));
        if left > 0 {
            tracing::warn!(
                "{left} connections did not leave within {} s",
                limit.as_secs()
            );
        }
        runtime.shutdown_timeout(END_LIMIT);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end(DRAIN_LIMIT);
    }
}

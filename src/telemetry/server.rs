//! `/metrics`, `/livez` and `/readyz` on a thread of their own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

use super::Health;

/// Where metrics and health are served unless `--http` says otherwise.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// Metrics that can be served.
pub trait Exposition: Send + Sync + 'static {
    /// All of them as text, in the OpenMetrics format that Prometheus reads.
    fn encode(&self) -> String;
}

/// How long a stop waits for requests that are under way.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The HTTP server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process listens there.
    #[error(
        "could not serve metrics and health at {0}: the address is taken; choose another with `--http HOST:PORT`"
    )]
    Taken(SocketAddr),
    /// Anything else that the system refused.
    #[error(
        "could not serve metrics and health at {0}: {1}; choose another address with `--http HOST:PORT`"
    )]
    Refused(SocketAddr, std::io::Error),
}

/// The running HTTP server; dropping it stops the thread.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens; with port 0 asked for, the port that the system gave.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended by itself, which is what is wanted.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed by the hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Starts serving at `address`; port 0 lets the system choose.
///
/// # Errors
/// The address is taken or not ours.
pub fn serve(
    address: SocketAddr,
    metrics: impl Exposition,
    health: Health,
) -> Result<Server, ServeError> {
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ServeError::Taken(address),
        _ => ServeError::Refused(address, error),
    };
    // Bound here, so that the caller hears of a taken port.
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(refused)?;
    let (stop, stopped) = oneshot::channel();
    let metrics: Arc<dyn Exposition> = Arc::new(metrics);
    let thread = std::thread::Builder::new()
        .name("riderflow-http".into())
        .spawn(move || runtime.block_on(answer(listener, router(metrics, health), stopped)))
        .map_err(refused)?;
    Ok(Server {
        address: bound,
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// Answers until told to stop, then finishes what is under way, up to [`STOP_LIMIT`].
async fn answer(listener: TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "could not serve metrics and health");
            return;
        }
    };
    let (begin_stop, stopping) = oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        // An error means that the sender is gone: stop as well.
        let _ = stopping.await;
    });
    let limit = async {
        let _ = stopped.await;
        let _ = begin_stop.send(());
        tokio::time::sleep(STOP_LIMIT).await;
    };
    tokio::select! {
        outcome = serving.into_future() => {
            if let Err(error) = outcome {
                tracing::error!(%error, "stopped serving metrics and health");
            }
        }
        () = limit => {}
    }
}

type Served = (Arc<dyn Exposition>, Health);

fn router(metrics: Arc<dyn Exposition>, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "try /metrics, /livez or /readyz\n") })
        .with_state((metrics, health))
}

async fn show_metrics(State((metrics, _)): State<Served>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode()).into_response()
}

async fn livez(State((_, health)): State<Served>) -> (StatusCode, String) {
    match health.stalled() {
        None => (StatusCode::OK, "live\n".into()),
        Some(silent) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{} for {:.0} s\n",
                health.standstill(),
                silent.as_secs_f64()
            ),
        ),
    }
}

async fn readyz(State((_, health)): State<Served>) -> (StatusCode, String) {
    if health.is_ready() {
        return (StatusCode::OK, "ready\n".into());
    }
    let mut text: String = health
        .waiting_for()
        .iter()
        .map(|name| format!("waiting for: {name}\n"))
        .collect();
    if text.is_empty() {
        text.push_str("waiting for: start\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;
    use crate::model::EventKind;
    use crate::telemetry::Metrics;

    fn here() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn get(server: &Server, path: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn metrics_are_served_as_they_are_now() {
        let metrics = Metrics::new();
        let server = serve(here(), metrics.clone(), Health::new()).unwrap();
        metrics.events.add(EventKind::AgentNear, 4);
        let answer = get(&server, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{answer}"
        );
        assert!(
            answer.contains("riderflow_events_total{type=\"agent.near\"} 4\n"),
            "{answer}"
        );
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        assert!(get(&server, "/other").starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn readyz_lists_what_it_waits_for() {
        let health = Health::new();
        let server = serve(here(), Metrics::new(), health.clone()).unwrap();
        let answer = get(&server, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nwaiting for: start\n"), "{answer}");
        let kafka = health.condition("kafka assigned");
        let start = health.condition("caught start");
        let answer = get(&server, "/readyz");
        assert!(
            answer.ends_with("\r\n\r\nwaiting for: kafka assigned\nwaiting for: caught start\n"),
            "{answer}"
        );
        kafka.set(true);
        start.set(true);
        let answer = get(&server, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[test]
    fn livez_tells_of_an_epoch_that_stands_still() {
        let health = Health::with_stall_limit(Duration::from_millis(20));
        let server = serve(here(), Metrics::new(), health.clone()).unwrap();
        assert!(get(&server, "/livez").starts_with("HTTP/1.1 200 "));
        health.condition("kafka assigned").set(true);
        std::thread::sleep(Duration::from_millis(40));
        let answer = get(&server, "/livez");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("the epoch has not advanced for"),
            "{answer}"
        );
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_the_option() {
        let first = serve(here(), Metrics::new(), Health::new()).unwrap();
        let error = serve(first.address(), Metrics::new(), Health::new()).unwrap_err();
        assert!(matches!(error, ServeError::Taken(_)));
        assert!(error.to_string().contains("--http"), "{error}");
    }

    #[test]
    fn dropping_it_frees_the_port_even_with_a_request_half_sent() {
        let server = serve(here(), Metrics::new(), Health::new()).unwrap();
        let address = server.address();
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(b"GET /metr").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        drop(server);
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(TcpStream::connect(address).is_err());
    }
}

//! One connection, from TLS to its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::caps::{Handshake, Place};
use super::drain::Draining;
use super::tls::Tls;
use crate::gateway::metrics::{GatewayMetrics, TurnedAway};

/// What of a request is held at most, bytes: a token, a path, and a browser's chatter.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Requests that one connection may make a second in the long run, and at once: more than any
/// page needs. Each costs the check of a token.
const REQUESTS_PER_S: f64 = 50.0;
const REQUESTS_AT_ONCE: f64 = 200.0;

/// What all connections share.
pub(super) struct Door {
    pub(super) router: Router,
    pub(super) tls: Option<Tls>,
    pub(super) handshake_limit: Duration,
    /// For how long a peer may take nothing that was sent.
    pub(super) unread_limit: Duration,
    pub(super) draining: Draining,
    pub(super) metrics: GatewayMetrics,
}

/// Serves one connection until it ends, or was handed over as a WebSocket: its place goes with it.
pub(super) async fn serve(
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    (place, handshake): (Place, Handshake),
) {
    let deadline = Instant::now() + door.handshake_limit;
    if let Err(error) = settle(&stream, door.unread_limit) {
        tracing::debug!(%peer, "could not set up a connection: {error}");
        return;
    }
    let stream = Placed {
        stream,
        _place: place,
    };
    let Some(tls) = &door.tls else {
        return speak(&door, stream, peer, handshake, deadline).await;
    };
    let accepting = TlsAcceptor::from(tls.current()).accept(stream);
    match timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => Box::pin(speak(&door, stream, peer, handshake, deadline)).await,
        Ok(Err(error)) => {
            door.metrics.turned_away.add(TurnedAway::Tls, 1);
            tracing::debug!(%peer, "could not agree on TLS: {error}");
        }
        Err(_) => door.metrics.turned_away.add(TurnedAway::Slow, 1),
    }
}

fn settle(stream: &TcpStream, unread_limit: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let limit_ms = unread_limit.as_millis() as u32;
    rustix::net::sockopt::set_tcp_user_timeout(stream, limit_ms)?;
    Ok(())
}

/// Speaks HTTP/1.1. The first request must be there at `deadline`, any further one within the
/// same time.
async fn speak<S>(door: &Door, stream: S, peer: SocketAddr, handshake: Handshake, deadline: Instant)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (arrived, first_request) = oneshot::channel::<Infallible>();
    // Both go at the first request.
    let unarrived = Arc::new(Mutex::new(Some((handshake, arrived))));
    let waiting = Arc::clone(&unarrived);
    let router = TowerToHyperService::new(door.router.clone());
    let allowance = Mutex::new(Allowance::full(Instant::now()));
    let metrics = door.metrics.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let mut allowance = allowance.lock().unwrap_or_else(PoisonError::into_inner);
        let may = allowance.take(Instant::now());
        drop(allowance);
        let mut unarrived = unarrived.lock().unwrap_or_else(PoisonError::into_inner);
        drop(unarrived.take());
        drop(unarrived);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = may.then(|| router.call(request));
        if answer.is_none() {
            metrics.turned_away.add(TurnedAway::Requests, 1);
        }
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(too_many()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(door.handshake_limit)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let serving = async {
        tokio::select! {
            served = connection.as_mut() => served,
            () = door.draining.begun() => {
                let waits = waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                if waits {
                    return Ok(());
                }
                // An idle connection ends now, one with an answer under way after it.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let overdue = async {
        tokio::select! {
            // The sender is dropped, never used.
            _ = first_request => std::future::pending().await,
            () = sleep_until(deadline) => {}
        }
    };
    tokio::select! {
        // First, since hyper's own limit begins a moment later and could end at the same one.
        biased;
        () = overdue => door.metrics.turned_away.add(TurnedAway::Slow, 1),
        served = serving => {
            if let Err(error) = served {
                tracing::debug!(%peer, "a connection ended: {error}");
            }
        }
    }
}

/// Says that there were too many requests, and ends the connection: whoever comes again counts as
/// a new one of its address.
fn too_many() -> Response {
    let headers = [(RETRY_AFTER, "1"), (CONNECTION, "close")];
    (StatusCode::TOO_MANY_REQUESTS, headers).into_response()
}

/// How many requests a connection may make now.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn full(now: Instant) -> Self {
        Self {
            left: REQUESTS_AT_ONCE,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * REQUESTS_PER_S).min(REQUESTS_AT_ONCE);
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

/// A stream with its place among all, which it keeps when it becomes a WebSocket.
struct Placed {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let mut taken = |ms| {
            let now = start + Duration::from_millis(ms);
            (0..1_000).take_while(|_| allowance.take(now)).count()
        };
        assert_eq!(taken(0), 200);
        assert_eq!(taken(990), 49);
        assert_eq!(taken(3_600_000), 200);
    }
}

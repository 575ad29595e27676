//! The door: the listening socket, who comes in, and how everybody leaves.
//!
//! ```text
//! accept ─▶ caps ─▶ TLS ─▶ HTTP/1.1 ─▶ requests::guard ─▶ router
//!             └── 503, or closed        └── 400, 403, 413
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `caps` | how many connections, in all and of one address |
//! | `connection` | one connection, from TLS to its end |
//! | `descriptors` | the limit of open files |
//! | `drain` | the wish that everybody leaves |
//! | `requests` | what holds for every request and answer |
//! | `tls` | certificate and key |
//!
//! Promises that nobody who is slow, many or silent takes another's place: every wait has an
//! end, every count a cap, and accepting never waits for a peer. Never reads what a request asks
//! for: that is the router's.

mod caps;
mod connection;
mod descriptors;
mod drain;
mod requests;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use drain::{Drain, Draining};
pub use tls::TlsError;
pub(super) use tls::watch as watch_tls;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::caps::Caps;
use self::connection::Door;
use self::requests::Rules;
use super::metrics::GatewayMetrics;
use crate::config;

/// Connections that the system holds while none is accepted.
const BACKLOG: u32 = 4_096;
/// For how long a peer may take nothing that was sent: then the system ends the connection,
/// whatever it was for. So nobody who never reads is kept, nor a phone that has gone. It is longer
/// than a socket goes on without hearing a pong.
const UNREAD_LIMIT: Duration = Duration::from_secs(45);
/// What the system holds of what a peer has not taken yet, bytes: a slow reader's positions should
/// wait here in the newest state, not there in an old one.
const SEND_BYTES: u32 = 64 * 1024;
/// What it holds of what is not read yet: some of the largest messages.
const RECEIVE_BYTES: u32 = 32 * 1024;
/// After a failed accept, such as for want of a file descriptor, until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at whether all have left.
const NAP: Duration = Duration::from_millis(20);
/// What a connection over a cap is answered, without reading what it asks.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
    content-length: 0\r\nconnection: close\r\n\r\n";

/// A socket that listens and doesn't accept yet.
pub(super) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<tls::Tls>,
    unread_limit: Duration,
}

impl Listening {
    /// Listens at `address`. Other gateways may listen on other ports of the same machine, and a
    /// restarted one on the same port at once.
    ///
    /// # Errors
    /// The address is taken, or not ours. Must be called within a tokio runtime.
    pub(super) fn at(address: SocketAddr, tls: Option<tls::Tls>) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        // Connections inherit them.
        socket.set_send_buffer_size(SEND_BYTES)?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            tls,
            unread_limit: UNREAD_LIMIT,
        })
    }

    /// Where it listens; with port 0 asked for, the port that the system gave.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until it is time to leave.
    pub(super) fn serve(
        self,
        settings: &config::Gateway,
        router: Router,
        draining: Draining,
        metrics: GatewayMetrics,
    ) -> Serving {
        descriptors::make_room_for(settings.connections);
        let rules = Rules {
            origins: settings.allowed_origins().map(str::to_owned).collect(),
            metrics: metrics.clone(),
        };
        let router = router.layer(from_fn_with_state(Arc::new(rules), requests::guard));
        let caps = Arc::new(Caps::new(settings, metrics.clone()));
        let door = Arc::new(Door {
            router,
            tls: self.tls,
            handshake_limit: Duration::from_secs_f64(settings.handshake_s),
            unread_limit: self.unread_limit,
            draining: draining.clone(),
            metrics,
        });
        let accepting = accept(self.listener, door, Arc::clone(&caps), draining);
        Serving {
            caps,
            accepting: tokio::spawn(accepting),
        }
    }
}

/// Connections that are served.
pub(super) struct Serving {
    caps: Arc<Caps>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Whether nobody is accepted any more.
    pub(super) fn has_stopped_accepting(&self) -> bool {
        self.accepting.is_finished()
    }

    /// Waits until all connections have ended, at most `limit`; how many are left.
    pub(super) async fn emptied(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let open = self.caps.open();
            let done = open == 0 && self.has_stopped_accepting();
            if done || Instant::now() >= deadline {
                return open;
            }
            tokio::time::sleep(NAP).await;
        }
    }
}

async fn accept(listener: TcpListener, door: Arc<Door>, caps: Arc<Caps>, draining: Draining) {
    let mut begun = pin!(draining.begun());
    let mut warned_at: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = begun.as_mut() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match caps.admit(peer.ip(), Instant::now()) {
                Ok(admitted) => {
                    let serving = connection::serve(Arc::clone(&door), stream, peer, admitted);
                    tokio::spawn(serving);
                }
                Err(reason) => {
                    door.metrics.turned_away.add(reason, 1);
                    turn_away(&stream, door.tls.is_some());
                }
            },
            // It had left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if warned_at.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                    warned_at = Some(Instant::now());
                    tracing::warn!("could not accept a connection: {error}; trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says that there is no room, if that can be said at once. A TLS peer could not read it.
fn turn_away(stream: &TcpStream, speaks_tls: bool) {
    if !speaks_tls {
        // What is unread when a socket closes takes the answer with it.
        let mut unread = [0; 1_024];
        let _ = stream.try_read(&mut unread);
        let _ = stream.try_write(FULL);
    }
}

//! The door over real sockets, with a router that stands for the parts.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::get;
use futures_util::StreamExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::runtime::Runtime;

use super::*;
use crate::gateway::access::Refusal;
use crate::gateway::metrics::TurnedAway;
use crate::telemetry::Counters;

/// So that a test need not wait for the real one.
const UNREAD_LIMIT: Duration = Duration::from_secs(3);
/// Nothing here takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/gateway/testdata")
        .join(name)
}

/// A door, and the threads behind it.
struct Open {
    runtime: Runtime,
    address: SocketAddr,
    drain: Drain,
    serving: Serving,
    metrics: GatewayMetrics,
}

/// A page, a stream that goes on until the door drains, a socket that echoes and leaves with
/// 1001, and a page that is larger than any buffer.
fn parts(draining: &Draining) -> Router {
    let (to_stream, to_socket) = (draining.clone(), draining.clone());
    Router::new()
        .route("/page", get(|| async { "hello" }))
        .route("/secret", get(|| async { Refusal::Missing }))
        .route(
            "/stream",
            get(move || {
                let draining = to_stream.clone();
                async move {
                    let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from("data: 1\n\n"))]);
                    let rest = futures_util::stream::once(async move {
                        draining.begun().await;
                        Ok(Bytes::from(": leaving\n\n"))
                    });
                    Body::from_stream(first.chain(rest))
                }
            }),
        )
        .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
        .route(
            "/socket",
            get(move |upgrade: WebSocketUpgrade| {
                let draining = to_socket.clone();
                async move {
                    upgrade.on_upgrade(async move |mut socket| {
                        loop {
                            tokio::select! {
                                message = socket.recv() => match message {
                                    Some(Ok(message)) => drop(socket.send(message).await),
                                    _ => return,
                                },
                                () = draining.begun() => {
                                    let away = axum::extract::ws::CloseFrame { code: 1001, reason: "".into() };
                                    let _ = socket.send(Message::Close(Some(away))).await;
                                    return;
                                }
                            }
                        }
                    })
                }
            }),
        )
}

fn open_with(settings: config::Gateway, tls: bool) -> Open {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let entered = runtime.enter();
    let tls =
        tls.then(|| tls::watch(testdata("tls-certificate.pem"), testdata("tls-key.pem")).unwrap());
    let mut listening = Listening::at(SocketAddr::from(([127, 0, 0, 1], 0)), tls).unwrap();
    listening.unread_limit = UNREAD_LIMIT;
    let address = listening.address();
    let drain = Drain::new();
    let metrics = GatewayMetrics::new();
    let router = parts(&drain.draining());
    let serving = listening.serve(&settings, router, drain.draining(), metrics.clone());
    drop(entered);
    Open {
        runtime,
        address,
        drain,
        serving,
        metrics,
    }
}

fn open(settings: config::Gateway) -> Open {
    open_with(settings, false)
}

impl Open {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn turned_away(&self) -> &Counters<TurnedAway> {
        &self.metrics.turned_away
    }

    /// Sends the head of a request and reads until the other side closes.
    fn ask(&self, head: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        rest(&mut stream)
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n",
            self.address
        ))
    }

    /// Waits until `holds`.
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn leave(self, limit: Duration) -> (usize, Duration) {
        let begun = Instant::now();
        self.drain.begin();
        let left = self.runtime.block_on(self.serving.emptied(limit));
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        (left, begun.elapsed())
    }
}

/// All until the other side closes, or resets.
fn rest(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("the other side did not close: {error}"),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// What comes until `mark` has come.
fn read_until(stream: &mut TcpStream, mark: &str) -> String {
    let mut all = String::new();
    let mut piece = [0; 512];
    while !all.contains(mark) {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "closed before {mark:?}: {all}");
        all.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    all
}

#[test]
fn answers_carry_what_browsers_must_know() {
    let door = open(config::Gateway::default());
    for (path, status) in [
        ("/page", "200 OK"),
        ("/nothing", "404 Not Found"),
        ("/secret", "401 Unauthorized"),
    ] {
        let answer = door.get(path, "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        for header in [
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
            "content-security-policy: default-src 'none'; script-src 'self';",
        ] {
            assert!(answer.contains(header), "{path}: {answer}");
        }
        assert!(!answer.contains("access-control"), "{answer}");
    }
    assert_eq!(
        door.turned_away().get(TurnedAway::Token(Refusal::Missing)),
        1
    );
    door.until("all to have left", || door.metrics.connections.get() == 0);
}

#[test]
fn pages_of_other_hosts_are_refused_unless_they_are_named() {
    let door = open(config::Gateway {
        origins: "https://shop.example".into(),
        ..config::Gateway::default()
    });
    let own = format!("origin: http://{}\r\n", door.address);
    assert!(door.get("/page", &own).starts_with("HTTP/1.1 200 "));
    assert!(
        door.get("/page", "").starts_with("HTTP/1.1 200 "),
        "a phone has no origin"
    );
    for origin in ["https://evil.example", "null", "http://shop.example"] {
        let answer = door.get("/page", &format!("origin: {origin}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(!answer.contains("hello"), "{answer}");
    }
    assert_eq!(door.turned_away().get(TurnedAway::Origin), 3);
    let upgrade = "origin: https://evil.example\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = door.ask(&format!(
        "GET /socket HTTP/1.1\r\nhost: {}\r\nconnection: upgrade, close\r\n{upgrade}\r\n",
        door.address
    ));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let named = "origin: https://shop.example\r\n";
    let answer = door.get("/page", named);
    assert!(
        answer.contains("access-control-allow-origin: https://shop.example\r\n"),
        "{answer}"
    );
    assert!(answer.contains("vary: origin\r\n"), "{answer}");
    let preflight = format!(
        "OPTIONS /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{named}\
         access-control-request-method: GET\r\n\r\n"
    );
    let answer = door.ask(&preflight);
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(
        answer.contains("access-control-allow-headers: authorization"),
        "{answer}"
    );
}

#[test]
fn a_token_in_the_url_is_refused_and_told_where_it_belongs() {
    let door = open(config::Gateway::default());
    for path in [
        "/page?token=a.b.c",
        "/stream?x=1&access_token=a.b.c",
        "/page?%74oken=a",
    ] {
        let answer = door.get(path, "");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("Authorization: Bearer"), "{answer}");
        assert!(!answer.contains("a.b.c"), "{answer}");
    }
    assert_eq!(
        door.turned_away().get(TurnedAway::Token(Refusal::InQuery)),
        3
    );
}

#[test]
fn requests_have_no_body_and_a_short_head() {
    let door = open(config::Gateway::default());
    for body in [
        "content-length: 4\r\n\r\nbody",
        "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let answer = door.ask(&format!("POST /page HTTP/1.1\r\nhost: x\r\n{body}"));
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    assert_eq!(door.turned_away().get(TurnedAway::Body), 2);
    let long = format!(
        "GET /page HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(20 << 10)
    );
    let answer = door.ask(&long);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    let answer = door.ask("nonsense\r\n\r\n");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
}

#[test]
fn who_is_slow_to_ask_is_cut_off() {
    let door = open(config::Gateway {
        handshake_s: 1.0,
        ..config::Gateway::default()
    });
    let limit = Duration::from_secs(1);
    let begun = Instant::now();
    let mut silent = door.connect();
    let mut dripping = door.connect();
    let drip = std::thread::spawn(move || {
        // A byte now and then doesn't buy time.
        for byte in b"GET /page HTTP/1.1\r\nhost: x\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" {
            if dripping.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        rest(&mut dripping);
        begun.elapsed()
    });
    rest(&mut silent);
    let silent_for = begun.elapsed();
    assert!(
        silent_for >= limit && silent_for < limit * 5,
        "{silent_for:?}"
    );
    drip.join().unwrap();
    door.until("both to be counted", || {
        door.turned_away().get(TurnedAway::Slow) == 2
    });
    // One that has asked may stay as long to ask again.
    let mut stream = door.connect();
    let request = "GET /page HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        read_until(&mut stream, "hello");
        std::thread::sleep(limit / 3);
    }
    let asked = Instant::now();
    rest(&mut stream);
    assert!(asked.elapsed() < limit * 5, "an idle connection is closed");
    // A stream is no handshake.
    let mut stream = door.connect();
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    read_until(&mut stream, "data: 1");
    std::thread::sleep(limit * 2);
    assert_eq!(door.metrics.connections.get(), 1);
    assert_eq!(door.turned_away().get(TurnedAway::Slow), 2);
}

#[test]
fn a_connection_that_never_stops_asking_is_closed() {
    let door = open(config::Gateway::default());
    let mut stream = door.connect();
    let mut asking = stream.try_clone().unwrap();
    let asker = std::thread::spawn(move || {
        let request = b"GET /secret HTTP/1.1\r\nhost: x\r\n\r\n";
        while asking.write_all(request).is_ok() {}
    });
    // What is unread when it closes takes some of the last answers with it.
    let mut piece = [0; 4_096];
    while stream.read(&mut piece).is_ok_and(|n| n > 0) {}
    asker.join().unwrap();
    door.until("it to be gone", || door.metrics.connections.get() == 0);
    assert_eq!(door.turned_away().get(TurnedAway::Requests), 1);
    assert!(door.turned_away().get(TurnedAway::Token(Refusal::Missing)) >= 200);
    assert!(door.get("/page", "").contains("hello"), "the next one");
}

#[test]
fn handshakes_have_a_cap_of_their_own() {
    let door = open(config::Gateway {
        handshakes: 2,
        handshake_s: 5.0,
        // One address may have them all.
        address_connections: config::Gateway::default().connections,
        ..config::Gateway::default()
    });
    let silent = [door.connect(), door.connect()];
    door.until("both to be counted", || door.metrics.handshakes.get() == 2);
    let answer = door.get("/page", "");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "),
        "{answer}"
    );
    assert_eq!(door.turned_away().get(TurnedAway::Handshakes), 1);
    drop(silent);
    door.until("both to be gone", || door.metrics.handshakes.get() == 0);
    // Streams hold no handshake: more of them than the cap.
    let mut streams: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = door.connect();
            stream
                .write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
                .unwrap();
            read_until(&mut stream, "data: 1");
            stream
        })
        .collect();
    assert_eq!(
        (
            door.metrics.handshakes.get(),
            door.metrics.connections.get()
        ),
        (0, 4)
    );
    streams.clear();
    door.until("streams that their readers left", || {
        door.metrics.connections.get() == 0
    });
}

#[test]
fn one_address_takes_no_more_than_its_share() {
    let door = open(config::Gateway {
        address_connections: 3,
        ..config::Gateway::default()
    });
    let held: Vec<_> = (0..3).map(|_| door.connect()).collect();
    door.until("all to be counted", || door.metrics.connections.get() == 3);
    let answer = door.get("/page", "x-forwarded-for: 203.0.113.9\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(door.turned_away().get(TurnedAway::AddressConnections), 1);
    drop(held);
    door.until("all to be gone", || door.metrics.connections.get() == 0);
    assert!(door.get("/page", "").starts_with("HTTP/1.1 200 "));
}

/// A WebSocket, opened by hand.
fn socket(door: &Open) -> TcpStream {
    let mut stream = door.connect();
    let request = format!(
        "GET /socket HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        door.address
    );
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream
}

#[test]
fn a_socket_keeps_its_place() {
    let door = open(config::Gateway {
        connections: 2,
        handshake_s: 1.0,
        ..config::Gateway::default()
    });
    let sockets = [socket(&door), socket(&door)];
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(
        (
            door.metrics.connections.get(),
            door.metrics.handshakes.get()
        ),
        (2, 0)
    );
    assert!(door.get("/page", "").starts_with("HTTP/1.1 503 "));
    assert_eq!(door.turned_away().get(TurnedAway::Connections), 1);
    drop(sockets);
    door.until("the sockets to be gone", || {
        door.metrics.connections.get() == 0
    });
    assert!(door.get("/page", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn everybody_leaves_when_it_is_time() {
    let door = open(config::Gateway::default());
    let mut socket = socket(&door);
    let mut stream = door.connect();
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    read_until(&mut stream, "data: 1");
    let mut idle = door.connect();
    idle.write_all(b"GET /page HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    read_until(&mut idle, "hello");
    let mut silent = door.connect();
    door.until("it to be counted", || door.metrics.handshakes.get() == 1);
    let address = door.address;
    let (left, took) = door.leave(PATIENCE);
    assert_eq!(left, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(rest(&mut stream).contains(": leaving"));
    assert_eq!(rest(&mut idle), "");
    assert_eq!(rest(&mut silent), "");
    let mut close = [0; 4];
    socket.read_exact(&mut close).unwrap();
    assert_eq!(close, [0x88, 2, 0x03, 0xe9], "a close frame with 1001");
    assert!(TcpStream::connect(address).is_err(), "nobody is accepted");
}

#[test]
fn who_does_not_leave_is_waited_for_only_so_long() {
    let door = open(config::Gateway::default());
    let mut stuck = door.connect();
    // Asks for more than any buffer holds and reads nothing.
    stuck
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 1];
    stuck.read_exact(&mut first).unwrap();
    let (left, took) = door.leave(Duration::from_millis(500));
    assert_eq!(left, 1);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn who_never_reads_is_cut_off() {
    let door = open(config::Gateway::default());
    let mut stuck = door.connect();
    stuck
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let begun = Instant::now();
    door.until("it to be let in", || door.metrics.connections.get() == 1);
    // One that reads, and one that has nothing to read, stay.
    let mut stream = door.connect();
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    read_until(&mut stream, "data: 1");
    door.until("it to be gone", || door.metrics.connections.get() == 1);
    assert!(begun.elapsed() >= UNREAD_LIMIT, "{:?}", begun.elapsed());
    std::thread::sleep(UNREAD_LIMIT);
    assert_eq!(door.metrics.connections.get(), 1);
}

/// A TLS client that trusts the certificate of the tests.
fn tls_client(stream: TcpStream) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let pem = std::fs::read(testdata("tls-certificate.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(connection, stream)
}

#[test]
fn tls_is_spoken_where_there_is_a_certificate() {
    let settings = config::Gateway {
        handshake_s: 2.0,
        ..config::Gateway::default()
    };
    let door = open_with(settings, true);
    let mut client = tls_client(door.connect());
    client
        .write_all(b"GET /page HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let answer = rest(&mut client);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"),
        "{answer}"
    );
    // Plain text is no TLS, half a handshake is none either, and neither holds up the next.
    let mut plain = door.connect();
    plain
        .write_all(b"GET /page HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert!(!rest(&mut plain).contains("HTTP/1.1"));
    door.until("it to be counted", || {
        door.turned_away().get(TurnedAway::Tls) == 1
    });
    let mut half = door.connect();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
        .unwrap();
    let mut client = tls_client(door.connect());
    client
        .write_all(b"GET /page HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    assert!(rest(&mut client).ends_with("hello"));
    rest(&mut half);
    door.until("the half to be counted", || {
        door.turned_away().get(TurnedAway::Slow) == 1
    });
    half.shutdown(Shutdown::Both).ok();
    door.until("all to have left", || door.metrics.connections.get() == 0);
}

#[test]
fn a_port_is_free_again_at_once() {
    let door = open(config::Gateway::default());
    let address = door.address;
    // This side closes first, so the port stays in TIME_WAIT.
    assert!(door.get("/page", "").starts_with("HTTP/1.1 200 "));
    door.leave(PATIENCE);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let again = Listening::at(address, None).unwrap();
    assert_eq!(again.address(), address);
    let taken = Listening::at(address, None).err().unwrap();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

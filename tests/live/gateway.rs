//! A gateway with nothing but live streams.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use riderflow::config::{Pipeline, Secret};
use riderflow::gateway::access::{Access, AccessRules, Algorithm, Subject};
use riderflow::gateway::live::{self, Live};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::client::{Body, Stream, channel_of, connect};
use crate::common::wait_until;

/// What clients run on, apart from the gateways.
pub(crate) static CLIENTS: LazyLock<Runtime> = LazyLock::new(|| runtime(1));

fn runtime(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("tokio")
}

/// What the gateway heard of numbered updates.
pub(crate) type Heard = Arc<Mutex<Vec<(u64, String, u64)>>>;

/// The live part of a gateway behind a bare server.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) access: Arc<Access>,
    pub(crate) live: Arc<Live>,
    pub(crate) heard: Heard,
    ending: watch::Sender<bool>,
    server: Option<Runtime>,
}

impl Gateway {
    /// Starts, and waits until it has caught up.
    pub(crate) fn start(brokers: &str) -> Self {
        let gateway = Self::begin(brokers);
        wait_until(Duration::from_secs(30), "the gateway catches up", || {
            gateway.live.is_ready()
        });
        gateway
    }

    /// Starts without waiting.
    pub(crate) fn begin(brokers: &str) -> Self {
        let rules = AccessRules {
            algorithm: Algorithm::Hs256,
            issuer: "test".into(),
            audience: "gateway".into(),
            key: Some(Secret::new("0123456789abcdef0123456789abcdef")),
            jwks: None,
        };
        let access = Arc::new(Access::open(rules).expect("a key"));
        let (ending, ended) = watch::channel(false);
        let mut pipeline = Pipeline::defaults("live");
        pipeline.kafka.brokers = brokers.to_owned();
        let heard = Heard::default();
        let hears = Arc::clone(&heard);
        let live = Live::start(
            &pipeline,
            Arc::clone(&access),
            ended,
            Box::new(move |driver, session, _partition, seq| {
                let mut heard = hears.lock().expect("no panic");
                heard.push((driver.0, session.to_owned(), seq));
            }),
        );
        let live = Arc::new(live.expect("a thread"));
        let server = runtime(2);
        let router = live::routes(Arc::clone(&live));
        let listener = server.block_on(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            // So that what a reader leaves unread stands in the process, and not in the kernel.
            socket.set_send_buffer_size(16 * 1024).expect("a size");
            let any = "127.0.0.1:0".parse().expect("an address");
            socket.bind(any).expect("a free port");
            socket.listen(1024).expect("a listener")
        });
        let address = listener.local_addr().expect("an address");
        server.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            access,
            live,
            heard,
            ending,
            server: Some(server),
        }
    }

    pub(crate) fn token(&self, subject: &str) -> String {
        self.token_for(subject, Duration::from_secs(600))
    }

    pub(crate) fn token_for(&self, subject: &str, time: Duration) -> String {
        let subject: Subject = subject.parse().expect("a subject");
        self.access.mint(&subject, time).expect("a token")
    }

    /// Opens a stream that must be granted.
    pub(crate) fn open(&self, path: &str, subject: &str) -> Stream {
        self.ask(path, Some(&self.token(subject)), None)
            .unwrap_or_else(|refusal| panic!("{path}: {refusal}"))
    }

    /// Opens a stream, or says what was answered instead, whole but for the date.
    pub(crate) fn ask(
        &self,
        path: &str,
        token: Option<&str>,
        last_id: Option<&str>,
    ) -> Result<Stream, String> {
        let address = self.address;
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n");
        if let Some(token) = token {
            request += &format!("authorization: Bearer {token}\r\n");
        }
        if let Some(id) = last_id {
            request += &format!("last-event-id: {id}\r\n");
        }
        request += "\r\n";
        let channel = channel_of(path);
        CLIENTS.block_on(async move {
            let mut socket = connect(address).await;
            socket.write_all(request.as_bytes()).await.expect("sent");
            let mut body = Body::default();
            let head = body.read_head(&mut socket).await;
            if !head.starts_with("HTTP/1.1 200") {
                let rest = body.read_sized(&mut socket, &head).await;
                let lines = head.lines().filter(|line| !line.starts_with("date:"));
                let head: Vec<&str> = lines.collect();
                return Err(format!("{}\n\n{rest}", head.join("\n")));
            }
            Ok(Stream::follow(socket, body, channel))
        })
    }

    /// Ends all streams, as draining does.
    pub(crate) fn drain(&self) {
        self.ending.send_replace(true);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

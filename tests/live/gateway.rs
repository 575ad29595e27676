//! A gateway with nothing but live streams, a client that reads them, and records to feed it.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use riderflow::config::{Pipeline, Secret};
use riderflow::gateway::access::{Access, AccessRules, Algorithm, Subject};
use riderflow::gateway::live::{self, Live};
use riderflow::model::{
    DriverId, Event, EventKind, Leg, Order, OrderId, OrderStatus, Position, Stop,
};
use riderflow::wire::{ce_source, encode_event, encode_order};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::common::{Lab, Sender, now_ms, wait_until};

/// What clients run on, apart from the gateways.
static CLIENTS: LazyLock<Runtime> = LazyLock::new(|| runtime(1));

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
            Ok(Stream::follow(socket, body))
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

async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size");
    socket.connect(address).await.expect("connected")
}

/// Bytes of an answer as they come.
#[derive(Default)]
struct Body {
    raw: Vec<u8>,
    text: Vec<u8>,
    is_whole: bool,
}

impl Body {
    async fn more(&mut self, socket: &mut TcpStream) -> bool {
        let mut piece = [0; 16 * 1024];
        match socket.read(&mut piece).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.raw.extend_from_slice(&piece[..count]);
                true
            }
        }
    }

    async fn read_head(&mut self, socket: &mut TcpStream) -> String {
        loop {
            if let Some(at) = find(&self.raw, b"\r\n\r\n") {
                let head = self.raw.drain(..at + 4).collect();
                return String::from_utf8(head).expect("UTF-8");
            }
            assert!(self.more(socket).await, "the server answers");
        }
    }

    async fn read_sized(&mut self, socket: &mut TcpStream, head: &str) -> String {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
        while self.raw.len() < length {
            assert!(self.more(socket).await, "the body comes");
        }
        String::from_utf8(std::mem::take(&mut self.raw)).expect("UTF-8")
    }

    /// The next frame of a chunked body; `None` at its end.
    async fn frame(&mut self, socket: &mut TcpStream) -> Option<String> {
        loop {
            while let Some(at) = find(&self.raw, b"\r\n") {
                let size = std::str::from_utf8(&self.raw[..at]).expect("a size");
                let size = usize::from_str_radix(size, 16).expect("a size");
                if self.raw.len() < at + 2 + size + 2 {
                    break;
                }
                self.is_whole = size == 0;
                self.text
                    .extend_from_slice(&self.raw[at + 2..at + 2 + size]);
                self.raw.drain(..at + 2 + size + 2);
            }
            if let Some(at) = find(&self.text, b"\n\n") {
                let frame = self.text.drain(..at + 2).collect();
                return Some(String::from_utf8(frame).expect("UTF-8"));
            }
            if self.is_whole || !self.more(socket).await {
                return None;
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
    /// When it was read, ms since 1970.
    pub(crate) read_ms: i64,
}

/// A stream that is being read. Dropped, its connection closes.
pub(crate) struct Stream {
    frames: Receiver<Frame>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    fn follow(mut socket: TcpStream, mut body: Body) -> Self {
        let (say, frames) = channel();
        let task = tokio::spawn(async move {
            while let Some(text) = body.frame(&mut socket).await {
                let line = |name: &str| {
                    let mut lines = text.lines();
                    lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
                };
                // Comments and `retry` are no events.
                let Some(name) = line("event: ") else {
                    continue;
                };
                let data = line("data: ").expect("data");
                let frame = Frame {
                    name,
                    id: line("id: "),
                    data: serde_json::from_str(&data).expect("JSON"),
                    read_ms: now_ms(),
                };
                if say.send(frame).is_err() {
                    return;
                }
            }
        });
        Self { frames, task }
    }

    /// The next event, which must come within a time.
    pub(crate) fn next(&self, within: Duration) -> Frame {
        match self.frames.recv_timeout(within) {
            Ok(frame) => frame,
            Err(RecvTimeoutError::Timeout) => panic!("nothing came within {within:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the stream has ended"),
        }
    }

    /// The next event of this name, others aside.
    pub(crate) fn next_of(&self, name: &str, within: Duration) -> Frame {
        self.find(within, name, |frame| frame.name == name)
    }

    /// The next event that is sought, others aside.
    pub(crate) fn find(
        &self,
        within: Duration,
        what: &str,
        mut sought: impl FnMut(&Frame) -> bool,
    ) -> Frame {
        let deadline = Instant::now() + within;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(frame) if sought(&frame) => return frame,
                Ok(frame) => seen.push(format!("{} {}", frame.name, frame.data)),
                Err(error) => {
                    let seen = seen.iter().rev().take(5).collect::<Vec<_>>();
                    panic!("{what}: {error} within {within:?}; last came {seen:#?}")
                }
            }
        }
    }

    /// All that has come and comes within a time.
    pub(crate) fn all_within(&self, time: Duration) -> Vec<Frame> {
        let deadline = Instant::now() + time;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(frame) => all.push(frame),
                Err(_) => return all,
            }
        }
    }

    /// Whether the server closes within a time.
    pub(crate) fn closes(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}

/// A connection that asks for a stream and does not read it, until it is asked to.
pub(crate) struct Unread(TcpStream);

impl Unread {
    pub(crate) fn open(gateway: &Gateway, path: &str, subject: &str) -> Self {
        let token = gateway.token(subject);
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\r\n");
        let address = gateway.address;
        Self(CLIENTS.block_on(async move {
            let mut socket = connect(address).await;
            socket.write_all(request.as_bytes()).await.expect("sent");
            socket
        }))
    }

    pub(crate) fn read(self) -> Stream {
        let Self(mut socket) = self;
        CLIENTS.block_on(async move {
            let mut body = Body::default();
            let head = body.read_head(&mut socket).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            Stream::follow(socket, body)
        })
    }
}

pub(crate) fn at(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

/// From restaurant `r` at 77.6, 12.9 to customer `c` a kilometre north.
pub(crate) fn order(id: &str, status: OrderStatus, driver: Option<u64>) -> Order {
    let stop = |latitude, place: &str| Stop {
        position: at(77.6, latitude),
        place: Some(place.into()),
    };
    Order {
        id: OrderId(id.into()),
        driver: driver.map(DriverId),
        status,
        pickup: stop(12.9, "r"),
        dropoff: stop(12.909, "c"),
        updated_at_ms: now_ms(),
    }
}

/// Writes records as of now; each is in Kafka when a function returns.
pub(crate) struct Feeder {
    pub(crate) sender: Sender,
    teller: BaseProducer,
}

impl Feeder {
    pub(crate) fn new(lab: &Lab) -> Self {
        let teller: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", lab.brokers())
            .set("transactional.id", "teller")
            .create()
            .expect("a producer");
        Self {
            sender: lab.sender(),
            teller,
        }
    }

    pub(crate) fn order(&mut self, order: &Order) {
        let key = order.id.0.as_bytes();
        let partition = i32::from(key.last().is_some_and(|byte| byte % 2 == 1));
        let value = encode_order(order);
        self.sender
            .send("orders", partition, now_ms(), Some(key), Some(&value));
        self.sender.settle();
    }

    pub(crate) fn remove_order(&mut self, id: &str) {
        let partition = i32::from(id.as_bytes().last().is_some_and(|byte| byte % 2 == 1));
        self.sender
            .send("orders", partition, now_ms(), Some(id.as_bytes()), None);
        self.sender.settle();
    }

    /// Without waiting for Kafka.
    pub(crate) fn send_fix(&mut self, driver: u64, position: Position) -> i64 {
        let at_ms = now_ms();
        let Position {
            longitude,
            latitude,
        } = position;
        let value = format!(
            r#"{{"driverId":{driver},"longitude":{longitude},"latitude":{latitude},"timestamp":{at_ms},"speed":8.5,"heading":45.0}}"#
        );
        let key = driver.to_string();
        let partition = (driver % 2) as i32;
        let key = Some(key.as_bytes());
        self.sender.send(
            "rider-updates",
            partition,
            at_ms,
            key,
            Some(value.as_bytes()),
        );
        at_ms
    }

    /// As a gateway writes it that has numbered it.
    pub(crate) fn numbered_fix(&self, driver: u64, position: Position, seq: &str) {
        let Position {
            longitude,
            latitude,
        } = position;
        let value =
            format!(r#"{{"driverId":{driver},"longitude":{longitude},"latitude":{latitude}}}"#);
        let key = driver.to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: "rf-seq",
            value: Some(seq),
        });
        self.teller.begin_transaction().expect("a transaction");
        let record = BaseRecord::to("rider-updates")
            .partition((driver % 2) as i32)
            .key(&key)
            .payload(&value)
            .headers(headers);
        self.teller.send(record).expect("room for an update");
        let time = Duration::from_secs(20);
        self.teller.commit_transaction(time).expect("committed");
    }

    pub(crate) fn fix(&mut self, driver: u64, position: Position) -> i64 {
        let at_ms = self.send_fix(driver, position);
        self.sender.settle();
        at_ms
    }

    /// Tells events as the job does: in one transaction.
    pub(crate) fn tell(&self, events: &[Event]) {
        const TIME: Duration = Duration::from_secs(20);
        let source = ce_source("live");
        self.teller.begin_transaction().expect("a transaction");
        for event in events {
            let encoded = encode_event(event);
            let mut headers = OwnedHeaders::new();
            for (key, value) in encoded.headers(&source) {
                let value = Some(value);
                headers = headers.insert(Header { key, value });
            }
            let partition = (event.driver.0 % 2) as i32;
            let record = BaseRecord::to("rider-notifications")
                .partition(partition)
                .key(&encoded.key)
                .payload(&encoded.data)
                .headers(headers);
            self.teller.send(record).expect("room for an event");
        }
        self.teller.commit_transaction(TIME).expect("committed");
    }

    pub(crate) fn may_tell(&self) {
        let time = Duration::from_secs(20);
        self.teller.init_transactions(time).expect("transactions");
    }
}

/// An event as the job would tell it, named after offset `number`.
pub(crate) fn event(
    number: i64,
    kind: EventKind,
    order: &str,
    leg: Option<Leg>,
    driver: u64,
) -> Event {
    use riderflow::model::{Cause, Input, Place, Source, Subject};
    let source = Source {
        input: Input::Updates,
        partition: 0,
        offset: number,
    };
    let at_ms = now_ms();
    let order = OrderId(order.into());
    Event {
        kind,
        driver: DriverId(driver),
        subject: match leg {
            Some(leg) => Subject::Leg(order, leg),
            None => Subject::Order(order),
        },
        cause: Cause::Position,
        place: Place { at_ms, source },
        source,
        event_time_ms: at_ms,
        detected_at_ms: at_ms,
        position: Some(at(77.6, 12.9)),
        at_place: None,
        status: None,
        distance_m: Some(420.0),
        eta_s: None,
        dwell_s: None,
        initial: false,
    }
}

//! What does a phone cost? The gateway's CPU per million updates taken in over WebSockets, its
//! memory per idle connection, and how long an update takes from phone to page.
//!
//! `cargo bench --bench gateway [-- --updates 1000000 --phones 1000 --idle 19000 --rate 5000
//! --seconds 30]`
//!
//! One `riderflow gateway` process on a Kafka of its own, which shares the machine with it and
//! with the phones; all over loopback without TLS, every token checked. Taking in: each phone
//! keeps up to 64 updates unacknowledged, one update a message, then 20 a message; JSON of about
//! 110 bytes; the time counts until all are acknowledged, so until Kafka has them. Idle: phones
//! that are connected, have sent one update and answer pings. Phone to page: a phone for each
//! update a second, and 200 followed orders; from the moment that the phone sends until a page's
//! connection has the position. CPU and memory are the gateway's own, by the kernel's account.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use riderflow::config::Secret;
use riderflow::gateway::access::{Access, AccessRules, Algorithm, KEY_VARIABLE, Subject};
use riderflow::kafka::producer::{Producer, Record, Settings as ProducerSettings};
use riderflow::model::{DriverId, OrderId};
use riderflow::services::{Options, Services};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(120);
/// Updates that a phone has unacknowledged at most.
const WINDOW: u64 = 64;
/// Orders that somebody follows.
const FOLLOWED: u64 = 200;
/// Phones that connect at the same time.
const CONNECTING: usize = 256;

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    updates: u64,
    #[arg(long, default_value_t = 1_000)]
    phones: u64,
    #[arg(long, default_value_t = 19_000)]
    idle: u64,
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-bench");
    let _ = std::fs::remove_dir_all(&folder);
    let services =
        Services::start(&Options::new(folder.join("data"), RIDERFLOW)).expect("services start");
    let pipeline = folder.join("gateway.toml");
    let text = format!(
        "name = \"bench\"\nkafka.brokers = {:?}\nclickhouse.url = {:?}\n[gateway]\n\
         updates_per_s = 10000\nconnections = 19700\naddress_connections = 19700\n\
         address_per_s = 100000\nhandshakes = 2000\n",
        services.kafka(),
        services.clickhouse_url(),
    );
    std::fs::write(&pipeline, text).expect("the pipeline file is written");
    let status = Command::new(RIDERFLOW).arg("init").arg(&pipeline).status();
    assert!(status.expect("riderflow runs").success(), "init");

    // Several threads: the phones must not be what is slow.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio");
    runtime.block_on(async {
        if arguments.updates > 0 {
            println!(
                "{:<42} {:>16} {:>12}",
                "taking in", "CPU s / million", "updates/s"
            );
            for per_message in [1, 20] {
                let gateway = Gateway::start(&pipeline).await;
                take_in(&gateway, &arguments, per_message).await;
            }
        }
        if arguments.idle > 0 {
            let gateway = Gateway::start(&pipeline).await;
            hold_idle(&gateway, arguments.idle).await;
        }
        if arguments.seconds > 0 {
            let gateway = Gateway::start(&pipeline).await;
            phone_to_page(&gateway, &arguments, services.kafka()).await;
        }
    });
}

/// A gateway process, and the key to its tokens.
struct Gateway {
    process: Child,
    host: String,
    access: Access,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    async fn start(pipeline: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let process = Command::new(RIDERFLOW)
            .arg("gateway")
            .arg(pipeline)
            .args(["--listen", &host, "--http", "127.0.0.1:0"])
            .env(KEY_VARIABLE, KEY)
            .env("RIDERFLOW_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .expect("riderflow runs");
        let access = Access::open(AccessRules {
            algorithm: Algorithm::Hs256,
            issuer: "riderflow".into(),
            audience: "riderflow".into(),
            key: Some(Secret::new(KEY)),
            jwks: None,
        })
        .expect("the key is long enough");
        let gateway = Self {
            process,
            host,
            access,
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&gateway.host).await.is_err() {
            assert!(Instant::now() < deadline, "the gateway listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gateway
    }

    fn token(&self, subject: Subject) -> String {
        let day = Duration::from_secs(86_400);
        self.access.mint(&subject, day).expect("there is a key")
    }

    /// CPU seconds so far, user and system.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("it runs");
        let after_name = stat.rsplit(')').next().expect("there is a name");
        let ticks = |index: usize| -> f64 {
            let field = after_name.split_whitespace().nth(index);
            field.and_then(|ticks| ticks.parse().ok()).expect("ticks")
        };
        // utime and stime, in ticks of a hundredth of a second.
        (ticks(11) + ticks(12)) / 100.0
    }

    fn resident_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|rest| rest.split_whitespace().next());
        size.and_then(|size| size.parse().ok()).expect("a size")
    }

    async fn phone(&self, driver: u64) -> Phone {
        // A session of its own for each gateway: what another one took is no resend.
        let session = format!("{}-{driver}", self.process.id());
        let url = format!("ws://{}/v1/drivers/connect?session={session}", self.host);
        let mut request = url.into_client_request().expect("a good address");
        let token = self.token(Subject::Driver(DriverId(driver)));
        let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("plain text");
        request.headers_mut().insert(AUTHORIZATION, value);
        let stream = TcpStream::connect(&self.host).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let config = WebSocketConfig::default()
            .read_buffer_size(2_048)
            .write_buffer_size(0)
            .max_write_buffer_size(64 * 1_024);
        let connected = client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = connected.expect("the gateway takes the phone");
        let mut phone = Phone {
            socket,
            driver,
            next_seq: 1,
            acked: 0,
        };
        let welcome = phone.hear().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        phone
    }

    /// So many phones, connected a few at a time.
    async fn phones(&self, count: u64) -> Vec<Phone> {
        futures_util::stream::iter(1..=count)
            .map(|driver| self.phone(driver))
            .buffer_unordered(CONNECTING)
            .collect()
            .await
    }
}

struct Phone {
    socket: WebSocketStream<TcpStream>,
    driver: u64,
    next_seq: u64,
    acked: u64,
}

impl Phone {
    /// The next JSON text from the gateway; pings are answered on the way.
    async fn hear(&mut self) -> serde_json::Value {
        loop {
            let heard = self.socket.next().await.expect("it is connected");
            match heard.expect("no fault") {
                Message::Text(text) => {
                    return serde_json::from_str(&text).expect("JSON");
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    /// Takes an acknowledgement in.
    async fn hear_ack(&mut self) {
        let heard = self.hear().await;
        assert_eq!(heard["type"], "ack", "{heard}");
        self.acked = heard["seq"].as_u64().expect("a number");
    }

    /// An update, as a phone writes it: about 110 bytes.
    fn update(&mut self, now_ms: u64) -> String {
        let seq = self.next_seq;
        self.next_seq += 1;
        let state = ["south", "north"][(self.driver % 2) as usize];
        let longitude = 77.5946 + (self.driver % 1_000) as f64 * 1e-4 + seq as f64 * 1e-7;
        let latitude = 12.9716 + (self.driver / 1_000) as f64 * 1e-4;
        format!(
            "{{\"seq\":{seq},\"longitude\":{longitude:.6},\"latitude\":{latitude:.6},\"state\":\"{state}\",\
             \"timestamp\":{now_ms},\"accuracy\":8.0,\"speed\":6.2,\"heading\":271.5}}"
        )
    }

    async fn send(&mut self, text: String) {
        let message = Message::Text(Utf8Bytes::from(text));
        self.socket.send(message).await.expect("it is connected");
    }

    /// Sends `count` updates, `per_message` at a time, and waits until all are acknowledged.
    async fn send_all(&mut self, count: u64, per_message: u64) {
        let begin_ms = clock_ms();
        let last = self.next_seq + count - 1;
        while self.next_seq <= last {
            while self.next_seq + per_message - 1 > self.acked + WINDOW {
                self.hear_ack().await;
            }
            let here = per_message.min(last + 1 - self.next_seq);
            // Event times rise within a driver, one a millisecond.
            let updates: Vec<String> = (0..here)
                .map(|_| self.update(begin_ms + self.next_seq))
                .collect();
            let text = match &updates[..] {
                [one] => one.clone(),
                many => format!("[{}]", many.join(",")),
            };
            self.send(text).await;
        }
        while self.acked < last {
            self.hear_ack().await;
        }
    }
}

fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is past 1970").as_millis() as u64
}

async fn take_in(gateway: &Gateway, arguments: &Arguments, per_message: u64) {
    let phones = gateway.phones(arguments.phones).await;
    let each = arguments.updates / arguments.phones;
    let (cpu_s, began) = (gateway.cpu_s(), Instant::now());
    let sending = phones.into_iter().map(|mut phone| {
        tokio::spawn(async move {
            phone.send_all(each, per_message).await;
        })
    });
    for sent in sending.collect::<Vec<_>>() {
        sent.await.expect("no phone fails");
    }
    let taken = (each * arguments.phones) as f64;
    println!(
        "{:<42} {:>16.2} {:>12.0}",
        format!("{} phones, {per_message} a message", arguments.phones),
        (gateway.cpu_s() - cpu_s) / taken * 1e6,
        taken / began.elapsed().as_secs_f64(),
    );
}

async fn hold_idle(gateway: &Gateway, count: u64) {
    // What the first connections bring into being is not what one more costs.
    let warm = gateway.phones(100).await;
    drop(warm);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before_kib = gateway.resident_kib();
    let mut phones = gateway.phones(count).await;
    let mut told = futures_util::stream::iter(phones.iter_mut())
        .map(async |phone| phone.send_all(1, 1).await)
        .buffer_unordered(CONNECTING);
    while told.next().await.is_some() {}
    drop(told);
    let (alive, cpu_s) = (Arc::new(AtomicU64::new(count)), gateway.cpu_s());
    let holding: Vec<_> = phones
        .into_iter()
        .map(|mut phone| {
            let alive = Arc::clone(&alive);
            tokio::spawn(async move {
                // Reading answers the pings.
                while let Some(Ok(_)) = phone.socket.next().await {}
                alive.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .collect();
    let held = Duration::from_secs(50);
    tokio::time::sleep(held).await;
    assert_eq!(alive.load(Ordering::Relaxed), count, "all are connected");
    println!(
        "{count} idle connections for {} s: {:.1} KiB each ({:.0} MiB before, {:.0} MiB with them), \
         {:.2} CPU s a minute",
        held.as_secs(),
        (gateway.resident_kib() - before_kib) / count as f64,
        before_kib / 1_024.0,
        gateway.resident_kib() / 1_024.0,
        (gateway.cpu_s() - cpu_s) / held.as_secs_f64() * 60.0,
    );
    holding.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn phone_to_page(gateway: &Gateway, arguments: &Arguments, brokers: &str) {
    let followed = FOLLOWED.min(arguments.rate);
    let producer = Producer::connect(&ProducerSettings::new(brokers)).expect("Kafka answers");
    for driver in 1..=followed {
        let (id, value) = order(driver);
        let record = Record {
            topic: "orders",
            partition: None,
            timestamp_ms: None,
            key: Some(id.as_bytes()),
            value: Some(value.as_bytes()),
            tag: 0,
        };
        producer.send(record).expect("an order is sent");
    }
    producer.flush(PATIENCE).expect("Kafka takes them");

    let phones = gateway.phones(arguments.rate).await;
    let (told, mut latencies) = tokio::sync::mpsc::unbounded_channel::<u64>();
    let mut pages = Vec::new();
    for driver in 1..=followed {
        let id = OrderId(order(driver).0.as_str().into());
        let token = gateway.token(Subject::Order(id.clone()));
        let page = Page::open(&gateway.host, &id.0, &token).await;
        pages.push(tokio::spawn(page.watch(told.clone())));
    }
    drop(told);
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let cpu_s = gateway.cpu_s();
    let count = arguments.rate;
    let sending: Vec<_> = phones
        .into_iter()
        .map(|mut phone| {
            tokio::spawn(async move {
                // Spread over the second, as phones are.
                let offset = Duration::from_micros(phone.driver * 1_000_000 / count);
                tokio::time::sleep(offset).await;
                let mut tick = tokio::time::interval(Duration::from_secs(1));
                while Instant::now() < end {
                    tick.tick().await;
                    let update = phone.update(clock_ms());
                    phone.send(update).await;
                    while phone.acked + 1 < phone.next_seq {
                        phone.hear_ack().await;
                    }
                }
            })
        })
        .collect();
    for sent in sending {
        sent.await.expect("no phone fails");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu_s = gateway.cpu_s() - cpu_s;
    pages.iter().for_each(tokio::task::JoinHandle::abort);
    let mut all = Vec::new();
    while let Some(latency) = latencies.recv().await {
        all.push(latency);
    }
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    println!(
        "phone to page at {} updates/s, {followed} pages, {} positions shown: p50 {} ms, p99 {} ms, \
         at most {} ms; {:.2} CPU s per million updates",
        arguments.rate,
        all.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        cpu_s / (arguments.rate * arguments.seconds) as f64 * 1e6,
    );
}

/// An order of this driver on its way to the customer.
fn order(driver: u64) -> (String, String) {
    let id = format!("bench-{driver}");
    let value = serde_json::json!({
        "orderId": id, "driverId": driver, "status": "picked_up",
        "pickup": {"longitude": 77.59, "latitude": 12.97, "place": "restaurant-1"},
        "dropoff": {"longitude": 77.70, "latitude": 13.05},
    });
    (id, value.to_string())
}

/// A customer's page.
struct Page(BufReader<TcpStream>);

impl Page {
    async fn open(host: &str, order: &str, token: &str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut stream = TcpStream::connect(host).await.expect("it listens");
            let request = format!(
                "GET /v1/orders/{order}/live HTTP/1.1\r\nHost: {host}\r\n\
                 Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
            );
            let written = stream.write_all(request.as_bytes()).await;
            written.expect("it is connected");
            let mut reader = BufReader::with_capacity(4_096, stream);
            let mut status = String::new();
            let read = reader.read_line(&mut status).await;
            read.expect("it answers");
            if status.contains(" 200 ") {
                return Self(reader);
            }
            // It may not have read the order yet.
            assert!(Instant::now() < deadline, "{status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells how old each position is on its arrival, ms.
    async fn watch(mut self, told: tokio::sync::mpsc::UnboundedSender<u64>) {
        let mut line = String::new();
        let mut is_position = false;
        loop {
            line.clear();
            if self.0.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                if let Some(event) = line.strip_prefix("event:") {
                    is_position = event.trim() == "position";
                } else if let (true, Some(data)) = (is_position, line.strip_prefix("data:")) {
                    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
                    let sent_ms = data["agent"]["at"].as_u64().expect("a time");
                    if told.send(clock_ms().saturating_sub(sent_ms)).is_err() {
                        return;
                    }
                }
            } else {
                return;
            }
        }
    }
}

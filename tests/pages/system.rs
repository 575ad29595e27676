//! What the browser looks at, and what the scenarios may ask of it.
//!
//! | `do` | with | does |
//! |---|---|---|
//! | `token` | `subject` | mints a token: `{"token"}` |
//! | `update` | `update` | sends it as its driver's phone does, over the WebSocket, and waits for the acknowledgement |
//! | `order` | `id`, `order` or null | writes it to `orders` |
//! | `fence` | `id`, `feature` or null | writes it to `geofences` |
//! | `fleet` | `drivers`, `interval_ms` | so many drivers send updates from now on, straight into `rider-updates` |
//! | `fleet_stop` | | they stop |
//! | `cut` | | ends every connection of the browser |

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use riderflow::config::{self, Secret};
use riderflow::gateway::{Gateway, Options, Subject};
use riderflow::kafka::routing::murmur2;
use riderflow::model::DriverId;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::common::{Lab, Running, Sender, lab, now_ms, wait_until};
use crate::proxy::Proxy;

const HOUR: Duration = Duration::from_secs(3600);
const READY: Duration = Duration::from_secs(60);
const ACKNOWLEDGED: Duration = Duration::from_secs(20);
const CENTER: [f64; 2] = [77.5946, 12.9716];
const METRES_PER_DEGREE: f64 = 111_194.93;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) struct System {
    // Dropped from top to bottom: what reads goes before what is read.
    fleet: Option<Fleet>,
    phones: BTreeMap<u64, (Socket, u64)>,
    proxy: Proxy,
    gateway: Gateway,
    _job: Running,
    sender: Sender,
    runtime: Runtime,
    lab: Lab,
}

impl System {
    pub(crate) fn start() -> Self {
        let lab = lab("pages");
        let file = lab.pipeline("pages", "");
        lab.init(&file);
        let job = lab.run(&file, 1);
        let mut pipeline = config::load(&file).expect("a valid pipeline");
        pipeline.kafka.brokers = lab.brokers();
        pipeline.gateway.key = Some(Secret::new("a key that is for these tests only, 0123"));
        let options = Options {
            listen: Some(([127, 0, 0, 1], 0).into()),
            ..Options::default()
        };
        let gateway = Gateway::start(&pipeline, options).expect("the gateway starts");
        let proxy = Proxy::to(gateway.address());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("tokio");
        let sender = lab.sender();
        let system = Self {
            fleet: None,
            phones: BTreeMap::new(),
            proxy,
            gateway,
            _job: job,
            sender,
            runtime,
            lab,
        };
        let token = system.mint(&Subject::Fleet).expect("it has the key");
        wait_until(READY, "the gateway streams", || system.streams(&token));
        system
    }

    /// Whether the fleet's stream is answered: not before the gateway has caught up.
    fn streams(&self, token: &str) -> bool {
        let request = format!(
            "GET /v1/fleet/live?bbox=0,0,1,1 HTTP/1.1\r\nhost: test\r\nauthorization: Bearer \
             {token}\r\n\r\n"
        );
        let mut head = [0; 12];
        let Ok(mut stream) = std::net::TcpStream::connect(self.gateway.address()) else {
            return false;
        };
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_exact(&mut head).is_ok()
            && head.ends_with(b" 200")
    }

    /// Where the browser finds it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    pub(crate) fn answer(&mut self, message: &Value) -> Result<Value, String> {
        match message["do"].as_str().unwrap_or_default() {
            "token" => {
                let subject = message["subject"].as_str().ok_or("no subject")?;
                let subject: Subject = subject.parse().map_err(|e| format!("{subject}: {e}"))?;
                Ok(json!({ "token": self.mint(&subject)? }))
            }
            "update" => self.update(&message["update"]),
            "order" => self.write("orders", &message["id"], &message["order"]),
            "fence" => self.write("geofences", &message["id"], &message["feature"]),
            "fleet" => {
                let drivers = message["drivers"].as_u64().ok_or("no drivers")?;
                let interval = message["interval_ms"].as_u64().ok_or("no interval")?;
                let interval = Duration::from_millis(interval);
                self.fleet = Some(Fleet::start(self.lab.sender(), drivers, interval));
                Ok(json!({}))
            }
            "fleet_stop" => {
                self.fleet = None;
                Ok(json!({}))
            }
            "cut" => {
                self.proxy.cut();
                Ok(json!({}))
            }
            other => Err(format!("nobody can {other}")),
        }
    }

    fn mint(&self, subject: &Subject) -> Result<String, String> {
        let token = self.gateway.access().mint(subject, HOUR);
        token.map_err(|error| error.to_string())
    }

    fn write(&mut self, topic: &str, id: &Value, value: &Value) -> Result<Value, String> {
        let key = id.as_str().ok_or("no id")?;
        let value = (!value.is_null()).then(|| value.to_string());
        let partition = match topic {
            "orders" => (murmur2(key.as_bytes()) & 0x7fff_ffff) % 2,
            _ => 0,
        };
        let value = value.as_deref().map(str::as_bytes);
        let key = Some(key.as_bytes());
        self.sender.send(topic, partition, now_ms(), key, value);
        self.sender.settle();
        Ok(json!({}))
    }

    /// As a phone does it: over a WebSocket that stays open, until Kafka has it.
    fn update(&mut self, update: &Value) -> Result<Value, String> {
        let driver = update["driverId"].as_u64().ok_or("no driver")?;
        if !self.phones.contains_key(&driver) {
            let token = self.mint(&Subject::Driver(DriverId(driver)))?;
            let url = format!("ws://{}/v1/drivers/connect", self.gateway.address());
            let mut request = url.into_client_request().map_err(|e| e.to_string())?;
            let bearer = format!("Bearer {token}").parse().map_err(|_| "a token")?;
            request.headers_mut().insert("authorization", bearer);
            let connected = self.runtime.block_on(connect_async(request));
            let (socket, _) = connected.map_err(|e| format!("driver {driver}: {e}"))?;
            self.phones.insert(driver, (socket, 0));
        }
        let (socket, seq) = self.phones.get_mut(&driver).expect("it was put there");
        *seq += 1;
        let mut numbered = update.clone();
        numbered["seq"] = json!(*seq);
        let acknowledged = async {
            let text = Message::text(numbered.to_string());
            socket.send(text).await.map_err(|e| e.to_string())?;
            loop {
                let heard = socket.next().await.ok_or("the socket is closed")?;
                let Message::Text(text) = heard.map_err(|e| e.to_string())? else {
                    continue;
                };
                let said: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
                match said["type"].as_str() {
                    Some("ack") if said["seq"].as_u64() >= Some(*seq) => return Ok(json!({})),
                    Some("error" | "retry") => return Err(format!("driver {driver}: {said}")),
                    _ => {}
                }
            }
        };
        let limited = async { tokio::time::timeout(ACKNOWLEDGED, acknowledged).await };
        let answer = self.runtime.block_on(limited);
        answer.map_err(|_| format!("driver {driver}: no acknowledgement in {ACKNOWLEDGED:?}"))?
    }
}

/// Drivers who drive up and down streets of their own, in two partitions.
struct Fleet {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    fn start(mut sender: Sender, drivers: u64, interval: Duration) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut tick = 0_u64;
            while !ending.load(Ordering::Relaxed) {
                let now = now_ms();
                for driver in 0..drivers {
                    let update = Self::update(driver, tick, now);
                    let id = (100_000 + driver).to_string();
                    let partition = i32::from(driver % 2 == 1);
                    let (key, value) = (Some(id.as_bytes()), update.to_string());
                    let value = Some(value.as_bytes());
                    sender.send("rider-updates", partition, now, key, value);
                }
                sender.flush();
                tick += 1;
                let spent = Duration::from_millis((now_ms() - now).unsigned_abs());
                std::thread::sleep(interval.saturating_sub(spent));
            }
        });
        Self {
            ends,
            thread: Some(thread),
        }
    }

    /// On a grid of 50 columns: 8 m a tick along a street of 160 m, there and back; one of five
    /// stands still.
    fn update(driver: u64, tick: u64, now: i64) -> Value {
        let stands = driver.is_multiple_of(5);
        let phase = (driver * 7 + if stands { 0 } else { tick }) % 40;
        let back = phase >= 20;
        let along = 8.0 * if back { 40 - phase } else { phase } as f64;
        let column = (driver % 50) as f64 - 25.0;
        let row = (driver / 50) as f64 - 20.0;
        let flat = driver.is_multiple_of(2);
        let (dx, dy) = if flat { (along, 0.0) } else { (0.0, along) };
        let heading = match (flat, back) {
            (true, false) => 90,
            (true, true) => 270,
            (false, false) => 0,
            (false, true) => 180,
        };
        let per_degree = METRES_PER_DEGREE * CENTER[1].to_radians().cos();
        json!({
            "driverId": 100_000 + driver,
            "longitude": CENTER[0] + (column * 110.0 + dx) / per_degree,
            "latitude": CENTER[1] + (row * 110.0 + dy) / METRES_PER_DEGREE,
            "timestamp": now,
            "accuracy": 5,
            "speed": if stands { 0 } else { 8 },
            "heading": heading,
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! A driver's phone, for tests: one WebSocket, and a whole app that resends.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use riderflow::simulate::Backlog;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

#[path = "described.rs"]
mod described;

/// What a phone hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Said(Value),
    /// The close code.
    Closed(u16),
    /// The connection is gone without a word.
    Gone,
}

impl Heard {
    pub fn said(self) -> Value {
        match self {
            Self::Said(value) => value,
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// One connection.
pub struct Phone {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Phone {
    /// Connects with a token in the header; on a refusal its status.
    pub async fn connect(at: SocketAddr, token: &str, session: &str) -> Result<Self, u16> {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        Self::connect_with(at, &format!("?session={session}"), &headers).await
    }

    pub async fn connect_with(
        at: SocketAddr,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let url = format!("ws://{at}/v1/drivers/connect{query}");
        let mut request = url.into_client_request().expect("a URL");
        for (name, value) in headers {
            let value = value.parse().expect("a header's value");
            request.headers_mut().insert(*name, value);
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(_) => Err(0),
        }
    }

    /// Connects, and hears the welcome: everything up to the number is settled.
    pub async fn welcomed(at: SocketAddr, token: &str, session: &str) -> (Self, u64) {
        let mut phone = Self::connect(at, token, session).await.expect("let in");
        let welcome = phone.hear().await.said();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        assert_eq!(welcome["session"], session, "{welcome}");
        let acked = welcome["acked"].as_u64().expect("a number");
        (phone, acked)
    }

    pub async fn say(&mut self, text: impl Into<String>) {
        self.try_say(text).await.expect("it is sent");
    }

    pub async fn try_say(&mut self, text: impl Into<String>) -> Result<(), Error> {
        self.socket.send(Message::text(text.into())).await
    }

    pub async fn say_binary(&mut self, bytes: &[u8]) {
        let message = Message::binary(bytes.to_vec());
        self.socket.send(message).await.expect("it is sent");
    }

    /// A text frame with any bytes.
    pub async fn say_raw(&mut self, bytes: &[u8]) {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(Data::Text), true);
        let sent = self.socket.send(Message::Frame(frame)).await;
        sent.expect("it is sent");
    }

    /// The next thing that is heard, but pings.
    pub async fn hear(&mut self) -> Heard {
        let heard = self.hear_within(Duration::from_secs(20)).await;
        heard.expect("something is heard within 20 s")
    }

    pub async fn hear_within(&mut self, time: Duration) -> Option<Heard> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let said: Value = serde_json::from_str(&text).expect("JSON");
                        let name = said["type"].as_str().expect("a type");
                        described::hold("drivers", name, &said);
                        return Heard::Said(said);
                    }
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Heard::Closed(frame.code.into());
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return Heard::Gone,
                }
            }
        };
        tokio::time::timeout(time, next).await.ok()
    }

    /// Waits for the acknowledgement of `seq`, and returns what else was said until then.
    pub async fn hear_ack(&mut self, seq: u64) -> Vec<Value> {
        let mut others = Vec::new();
        loop {
            let said = self.hear().await.said();
            if said["type"] == "ack" && said["seq"].as_u64() >= Some(seq) {
                return others;
            }
            others.push(said);
        }
    }

    /// Says goodbye.
    pub async fn close(&mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let closed = self.socket.close(Some(frame)).await;
        closed.expect("it is sent");
    }

    /// Ends without a word, as a phone in a tunnel does.
    pub fn vanish(self) {
        drop(self.socket);
    }
}

/// An app that drives a backlog through a gateway: it reconnects, goes back and resends until
/// everything is settled.
pub struct App {
    pub token: String,
    pub session: String,
    pub backlog: Backlog<String>,
    /// Up to where the gateway has acknowledged.
    pub acked: u64,
    pub errors: Vec<Value>,
    pub reconnects: u32,
}

impl App {
    pub fn new(token: String, session: impl Into<String>) -> Self {
        Self {
            token,
            session: session.into(),
            backlog: Backlog::new(100_000, 64),
            acked: 0,
            errors: Vec::new(),
            reconnects: 0,
        }
    }

    /// Sends `updates`, each `every`, and returns once all are settled. `at` says where the
    /// gateway is now.
    pub async fn run(
        &mut self,
        updates: Vec<String>,
        every: Duration,
        patience: Duration,
        at: impl Fn() -> SocketAddr,
    ) {
        let deadline = Instant::now() + patience;
        let began = Instant::now();
        let mut updates = updates.into_iter();
        let mut pushed = 0u32;
        let mut left = true;
        while left || !self.backlog.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{}: {} updates are not settled after {patience:?}",
                self.session,
                self.backlog.len()
            );
            let Ok(mut phone) = Phone::connect(at(), &self.token, &self.session).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            self.reconnects += 1;
            let mut hold_until = Instant::now();
            let mut is_welcome = false;
            while left || !self.backlog.is_empty() {
                while left && began.elapsed() >= every * pushed {
                    match updates.next() {
                        Some(update) => {
                            self.backlog.push(update).expect("there is room");
                            pushed += 1;
                        }
                        None => left = false,
                    }
                }
                let mut is_gone = false;
                while is_welcome && Instant::now() >= hold_until {
                    let Some((seq, update)) = self.backlog.next_to_send() else {
                        break;
                    };
                    let text = format!("{{\"seq\":{seq},{}", &update[1..]);
                    if phone.try_say(text).await.is_err() {
                        is_gone = true;
                        break;
                    }
                }
                let wait = every.clamp(Duration::from_millis(2), Duration::from_millis(50));
                match phone.hear_within(wait).await {
                    None => {}
                    Some(Heard::Said(said)) => {
                        let seq = || said["seq"].as_u64().expect("a number");
                        match said["type"].as_str() {
                            Some("welcome") => {
                                is_welcome = true;
                                let acked = said["acked"].as_u64().expect("a number");
                                self.acked = self.acked.max(acked);
                                self.backlog.on_welcome(acked);
                            }
                            Some("ack") => {
                                self.acked = self.acked.max(seq());
                                self.backlog.on_ack(seq());
                            }
                            Some("retry") => {
                                self.backlog.on_retry(seq());
                                let after = said["after_ms"].as_u64().expect("a number");
                                hold_until = Instant::now() + Duration::from_millis(after);
                            }
                            Some("error") => {
                                self.backlog.on_error(seq());
                                self.errors.push(said);
                            }
                            _ => panic!("{said}"),
                        }
                    }
                    Some(Heard::Closed(_) | Heard::Gone) => is_gone = true,
                }
                if is_gone || Instant::now() > deadline {
                    break;
                }
            }
        }
    }
}

//! Phones against a gateway that follows a script: what a good one would do only now and then.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept_hdr};

use super::{Phones, PhonesError, Settings};
use crate::simulate::{Oddity, What};

const PLAIN: What = What::Update(Oddity::None);

/// One end of a connection, as the script has it.
struct Line {
    socket: WebSocket<TcpStream>,
    /// How many connections came before.
    number: usize,
    /// What the phone asked for: path, authorization.
    asked: (String, String),
}

impl Line {
    fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    fn welcome(&mut self, acked: u64) {
        self.say(&format!(
            r#"{{"type":"welcome","session":"s","acked":{acked}}}"#
        ));
    }

    /// The numbers of the next message's updates; `None` once the phone has hung up.
    fn seqs(&mut self) -> Option<Vec<u64>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let seq = |value: &serde_json::Value| value["seq"].as_u64().unwrap();
                    return Some(match &value {
                        serde_json::Value::Array(all) => all.iter().map(seq).collect(),
                        one => vec![seq(one)],
                    });
                }
                Ok(Message::Close(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(_) => return None,
            }
        }
    }

    /// Reads until this number has come.
    fn seqs_up_to(&mut self, last: u64) -> Vec<u64> {
        let mut all = Vec::new();
        while all.last() != Some(&last) {
            all.extend(self.seqs().expect("the phone is there"));
        }
        all
    }

    fn hear_the_end(&mut self) {
        while self.seqs().is_some() {}
    }
}

/// A gateway whose every connection is a thread that follows `script`. What one of them finds
/// wrong fails the test at [`Scripted::end`].
struct Scripted {
    url: String,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(script: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self::start_with(script, None)
    }

    /// With a status, nobody is let in.
    #[expect(
        clippy::result_large_err,
        reason = "the handshake's callback returns this"
    )]
    fn start_with(script: impl Fn(Line) + Send + Sync + 'static, forbids: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (script, told) = (Arc::new(script), Arc::clone(&failures));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (script, told) = (Arc::clone(&script), Arc::clone(&told));
                std::thread::spawn(move || {
                    let connection = std::panic::AssertUnwindSafe(|| {
                        let mut asked = Default::default();
                        let socket = accept_hdr(
                            stream.unwrap(),
                            |request: &Request, mut response: Response| {
                                let header =
                                    |name| request.headers()[name].to_str().unwrap().to_owned();
                                asked = (request.uri().to_string(), header("authorization"));
                                let protocol = request.headers()["sec-websocket-protocol"].clone();
                                assert_eq!(protocol, "riderflow.v1");
                                response
                                    .headers_mut()
                                    .insert("sec-websocket-protocol", protocol);
                                match forbids {
                                    None => Ok(response),
                                    Some(status) => {
                                        let mut refusal = ErrorResponse::new(None);
                                        *refusal.status_mut() = status.try_into().unwrap();
                                        Err(refusal)
                                    }
                                }
                            },
                        );
                        if let Ok(socket) = socket {
                            script(Line {
                                socket,
                                number,
                                asked,
                            });
                        }
                    });
                    if let Err(panic) = std::panic::catch_unwind(connection) {
                        let text = panic.downcast_ref::<String>().cloned();
                        told.lock().unwrap().push(text.unwrap_or_default());
                    }
                });
            }
        });
        Self { url, failures }
    }

    fn phones(&self, count: u32) -> Phones {
        phones_of(&self.url, count)
    }

    fn end(self, phones: Phones) {
        drop(phones);
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
    }
}

fn phones_of(url: &str, count: u32) -> Phones {
    Phones::start(Settings {
        gateway: url.parse().unwrap(),
        phones: count,
        connects_per_s: 500,
        tokens: Box::new(|driver| format!("token-{driver}")),
    })
    .unwrap()
}

fn give(phones: &Phones, driver: u64, count: u64) {
    for n in 0..count {
        assert!(phones.give(driver, PLAIN, &format!("{{\"n\":{n}}}")));
    }
}

#[test]
fn every_driver_has_a_connection_with_its_own_token() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let gateway = Scripted::start(move |mut line| {
        seen.lock().unwrap().push(line.asked.clone());
        line.welcome(0);
        while let Some(seqs) = line.seqs() {
            line.say(&format!(
                r#"{{"type":"ack","seq":{}}}"#,
                seqs[seqs.len() - 1]
            ));
        }
    });
    let phones = gateway.phones(20);
    phones.wait_until_connected(&|| false).unwrap();
    assert_eq!((phones.count(), phones.connected()), (20, 20));
    for driver in 0..20 {
        give(&phones, driver, 30);
    }
    assert!(!phones.give(20, PLAIN, "{}"), "that driver has no phone");
    phones.flush(Duration::from_secs(10)).unwrap();
    let summary = phones.summary();
    assert_eq!((summary.acked, phones.acked(PLAIN)), (600, 600));
    assert_eq!((summary.connections, summary.faults), (20, 0));
    assert!(summary.ack_p99_ms.is_some());
    gateway.end(phones);

    let asked = asked.lock().unwrap();
    let mut tokens: Vec<&str> = asked.iter().map(|(_, token)| token.as_str()).collect();
    tokens.sort_unstable();
    let mut expected: Vec<String> = (0..20).map(|n| format!("Bearer token-{n}")).collect();
    expected.sort_unstable();
    assert_eq!(tokens, expected);
    for (path, _) in asked.iter() {
        let session = path.strip_prefix("/v1/drivers/connect?session=").unwrap();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!((1..=64).contains(&session.len()) && session.bytes().all(plain));
    }
}

#[test]
fn a_broken_connection_is_opened_again_and_the_rest_resent() {
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sessions);
    let gateway = Scripted::start(move |mut line| {
        seen.lock().unwrap().push(line.asked.0.clone());
        match line.number {
            // Takes all, acknowledges some, and is gone without a word.
            0 => {
                line.welcome(0);
                assert_eq!(line.seqs_up_to(10), (1..=10).collect::<Vec<_>>());
                line.say(r#"{"type":"ack","seq":4}"#);
            }
            // Gone before it says anything.
            1 => {}
            // Has more than it had acknowledged; asks for another try elsewhere.
            2 => {
                line.welcome(6);
                assert_eq!(line.seqs_up_to(10), [7, 8, 9, 10]);
                let frame = CloseFrame {
                    code: 1001.into(),
                    reason: "draining".into(),
                };
                line.socket.close(Some(frame)).unwrap();
                line.hear_the_end();
            }
            // Another gateway, which knows nothing of the session.
            _ => {
                line.welcome(0);
                assert_eq!(line.seqs_up_to(10), [7, 8, 9, 10]);
                line.say(r#"{"type":"ack","seq":10}"#);
                line.hear_the_end();
            }
        }
    });
    let phones = gateway.phones(1);
    give(&phones, 0, 10);
    phones.flush(Duration::from_secs(20)).unwrap();
    let summary = phones.summary();
    assert_eq!((summary.acked, summary.dropped), (10, 0));
    assert_eq!((summary.connections, summary.faults), (3, 3));
    let last = summary.last_fault.unwrap();
    assert!(last.contains("1001: draining"), "{last}");
    gateway.end(phones);
    let sessions = sessions.lock().unwrap();
    assert_eq!(sessions.len(), 4);
    assert!(sessions.iter().all(|session| *session == sessions[0]));
}

#[test]
fn a_retry_is_waited_for_and_then_resent_from_there() {
    let gateway = Scripted::start(|mut line| {
        line.welcome(0);
        line.seqs_up_to(5);
        line.say(r#"{"type":"ack","seq":2}"#);
        line.say(r#"{"type":"retry","seq":3,"after_ms":300,"reason":"kafka_busy"}"#);
        let asked = Instant::now();
        assert_eq!(line.seqs_up_to(6), [3, 4, 5, 6]);
        assert!(asked.elapsed() >= Duration::from_millis(290));
        line.say(r#"{"type":"ack","seq":6}"#);
        line.hear_the_end();
    });
    let phones = gateway.phones(1);
    phones.wait_until_connected(&|| false).unwrap();
    give(&phones, 0, 5);
    while phones.summary().retries == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    // What is new meanwhile waits too.
    give(&phones, 0, 1);
    phones.flush(Duration::from_secs(10)).unwrap();
    assert_eq!(phones.summary().acked, 6);
    gateway.end(phones);
}

#[test]
fn a_refused_update_is_counted_and_not_sent_again() {
    let gateway = Scripted::start(|mut line| {
        line.welcome(0);
        assert_eq!(line.seqs_up_to(3), [1, 2, 3]);
        line.say(
            r#"{"type":"error","seq":2,"reason":"out_of_range","field":"latitude","detail":"91"}"#,
        );
        line.say(r#"{"type":"ack","seq":3}"#);
        line.hear_the_end();
    });
    let phones = gateway.phones(1);
    give(&phones, 0, 3);
    phones.flush(Duration::from_secs(10)).unwrap();
    let summary = phones.summary();
    assert_eq!((summary.acked, summary.refused), (2, 1));
    assert_eq!(
        summary.last_refusal.as_deref(),
        Some("out_of_range of latitude")
    );
    gateway.end(phones);
}

#[test]
fn nobody_there_and_nobody_let_in_are_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("ws://{}", listener.local_addr().unwrap());
    drop(listener);
    let begin = Instant::now();
    let error = phones_of(&nowhere, 3).wait_until_connected(&|| false);
    assert!(
        matches!(error, Err(PhonesError::Unreachable { .. })),
        "{error:?}"
    );

    let forbidding = Scripted::start_with(|_| panic!("nobody is let in"), Some(401));
    let phones = forbidding.phones(3);
    let error = phones.wait_until_connected(&|| false);
    assert!(
        matches!(error, Err(PhonesError::Forbidden { status: 401, .. })),
        "{error:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
    // Updates of before are not forgotten, but nobody has acknowledged them.
    give(&phones, 0, 2);
    let error = phones.flush(Duration::from_millis(50));
    assert!(
        matches!(error, Err(PhonesError::Unacknowledged { waiting: 2, .. })),
        "{error:?}"
    );
    forbidding.end(phones);
}

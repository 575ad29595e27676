//! A client that reads streams, or leaves them unread.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::now_ms;
use crate::described::hold;
use crate::gateway::{CLIENTS, Gateway};

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size");
    socket.connect(address).await.expect("connected")
}

/// Bytes of an answer as they come.
#[derive(Default)]
pub(crate) struct Body {
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

    pub(crate) async fn read_head(&mut self, socket: &mut TcpStream) -> String {
        loop {
            if let Some(at) = find(&self.raw, b"\r\n\r\n") {
                let head = self.raw.drain(..at + 4).collect();
                return String::from_utf8(head).expect("UTF-8");
            }
            assert!(self.more(socket).await, "the server answers");
        }
    }

    pub(crate) async fn read_sized(&mut self, socket: &mut TcpStream, head: &str) -> String {
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

/// What the gateway's description calls the stream at a path.
pub(crate) fn channel_of(path: &str) -> &'static str {
    match path.split('/').nth(2) {
        Some("orders") => "order",
        Some("places") => "place",
        _ => "fleet",
    }
}

/// A stream that is being read. Dropped, its connection closes.
pub(crate) struct Stream {
    channel: &'static str,
    frames: Receiver<Frame>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    pub(crate) fn follow(mut socket: TcpStream, mut body: Body, channel: &'static str) -> Self {
        let (say, frames) = std::sync::mpsc::channel();
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
        Self {
            channel,
            frames,
            task,
        }
    }

    /// The next event, which must come within a time.
    pub(crate) fn next(&self, within: Duration) -> Frame {
        match self.frames.recv_timeout(within) {
            Ok(frame) => self.held(frame),
            Err(RecvTimeoutError::Timeout) => panic!("nothing came within {within:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the stream has ended"),
        }
    }

    /// A frame, which is as the gateway's description has it.
    fn held(&self, frame: Frame) -> Frame {
        hold(self.channel, &frame.name, &frame.data);
        frame
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
                Ok(frame) if sought(&frame) => return self.held(frame),
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
                Ok(frame) => all.push(self.held(frame)),
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
pub(crate) struct Unread(TcpStream, &'static str);

impl Unread {
    pub(crate) fn open(gateway: &Gateway, path: &str, subject: &str) -> Self {
        let token = gateway.token(subject);
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\r\n");
        let address = gateway.address;
        let socket = CLIENTS.block_on(async move {
            let mut socket = connect(address).await;
            socket.write_all(request.as_bytes()).await.expect("sent");
            socket
        });
        Self(socket, channel_of(path))
    }

    pub(crate) fn read(self) -> Stream {
        let Self(mut socket, channel) = self;
        CLIENTS.block_on(async move {
            let mut body = Body::default();
            let head = body.read_head(&mut socket).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            Stream::follow(socket, body, channel)
        })
    }
}

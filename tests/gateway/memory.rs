//! What an idle connection costs.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::lab;
use crate::stand::{Stand, Wanted};

const CONNECTIONS: u64 = 2_000;

/// The bar: 12 KiB in the process, all included.
const BYTES_PER_CONNECTION: u64 = 12 << 10;

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

/// A phone of which this process holds no more than a socket.
fn connect(stand: &Stand, driver: u64) -> TcpStream {
    let mut socket = TcpStream::connect(stand.at).expect("it listens");
    let request = format!(
        "GET /v1/drivers/connect?session=idle HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        stand.token(driver)
    );
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut heard = Vec::new();
    let mut byte = [0; 512];
    while !heard.windows(7).any(|window| window == b"welcome") {
        let read = socket.read(&mut byte).expect("it answers");
        assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&byte[..read]);
    }
    // One update, so that its session has been at work: a text frame with the mask 0.
    let update = crate::stand::numbered(1);
    let mut frame = vec![0x81, 0x80 | 126, 0, update.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(update.as_bytes());
    if update.len() < 126 {
        frame.splice(1..4, [0x80 | update.len() as u8]);
    }
    socket.write_all(&frame).expect("it reads");
    socket
}

#[test]
fn an_idle_connection_is_cheap() {
    let lab = lab("idle connections");
    let stand = Stand::begin(&lab, Wanted::default());
    // The allocator and the runtime have grown to what they need.
    let warm: Vec<TcpStream> = (0..100).map(|driver| connect(&stand, driver)).collect();
    let wait = |stored: u64| {
        stand.run(crate::outages::until(|| {
            stand.metrics.produced.get() == stored
        }));
    };
    wait(100);
    let before = resident();
    let idle: Vec<TcpStream> = (100..100 + CONNECTIONS)
        .map(|driver| connect(&stand, driver))
        .collect();
    wait(100 + CONNECTIONS);
    let each = resident().saturating_sub(before) / CONNECTIONS;
    println!("an idle connection: {each} bytes resident");
    assert_eq!(stand.metrics.sockets.get(), 100 + CONNECTIONS as i64);
    assert!(each <= BYTES_PER_CONNECTION, "{each} bytes a connection");
    drop((warm, idle));
}

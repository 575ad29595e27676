//! What an idle connection costs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use riderflow::gateway::access::{Access, Subject};
use riderflow::model::DriverId;

use crate::common::{GATEWAY_KEY, Running, free_address, lab, wait_until};
use crate::stand::{access_with, numbered};

const CONNECTIONS: u64 = 2_000;
/// After so many the allocator and the runtime have grown to what they need.
const WARM: u64 = 100;

/// The bar: 12 KiB in the process, all included.
const BYTES_PER_CONNECTION: u64 = 12 << 10;

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

/// A phone that has sent an update, so that its session has been at work.
fn connect(at: SocketAddr, access: &Access, driver: u64) -> TcpStream {
    let mut socket = TcpStream::connect(at).expect("it listens");
    let subject = Subject::Driver(DriverId(driver));
    let token = access
        .mint(&subject, Duration::from_secs(600))
        .expect("there is a key");
    let request = format!(
        "GET /v1/drivers/connect?session=idle HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {token}\r\n\r\n",
    );
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut heard = Vec::new();
    let mut some = [0; 512];
    while !heard.windows(7).any(|window| window == b"welcome") {
        let read = socket.read(&mut some).expect("it answers");
        assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&some[..read]);
    }
    // A text frame with the mask 0.
    let update = numbered(1);
    assert!(update.len() < 126, "it fits into a short frame");
    let mut frame = vec![0x81, 0x80 | update.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(update.as_bytes());
    socket.write_all(&frame).expect("it reads");
    socket
}

fn wait_for(gateway: &Running, updates: u64) {
    wait_until(Duration::from_secs(20), "Kafka has the updates", || {
        gateway.metric("riderflow_gateway_produced_total") == updates as f64
    });
}

#[test]
fn an_idle_connection_is_cheap() {
    let lab = lab("idle connections");
    let toml = "clickhouse.enabled = false\ngateway.address_per_s = 100000";
    let pipeline = lab.pipeline("idle", toml);
    lab.init(&pipeline);
    let at = free_address();
    let gateway = lab.gateway(&pipeline, at);
    let access = access_with(GATEWAY_KEY);
    let warm: Vec<TcpStream> = (0..WARM)
        .map(|driver| connect(at, &access, driver))
        .collect();
    wait_for(&gateway, WARM);
    let before = resident(gateway.id());
    let idle: Vec<TcpStream> = (WARM..WARM + CONNECTIONS)
        .map(|driver| connect(at, &access, driver))
        .collect();
    wait_for(&gateway, WARM + CONNECTIONS);
    let each = resident(gateway.id()).saturating_sub(before) / CONNECTIONS;
    println!("an idle connection: {each} bytes resident");
    let open = gateway.metric("riderflow_gateway_sockets");
    assert_eq!(open, (WARM + CONNECTIONS) as f64);
    assert!(each <= BYTES_PER_CONNECTION, "{each} bytes a connection");
    drop((warm, idle));
}

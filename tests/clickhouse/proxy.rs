//! A proxy that damages inserts on their way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What a [`Proxy`] does to an insert.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    /// The server gets and answers it; the answer is dropped.
    LoseAnswer,
    /// The server gets half of it.
    CutRequest,
    /// The client is cut off first; the server gets it after this time.
    DeliverLate(Duration),
    /// The client is cut off in the middle; the server gets the rest after this time.
    FinishLate(Duration),
    /// The server gets it; neither side hears anything more.
    Hang,
}

/// Forwards connections, and damages inserts into `driver_locations` while some are left.
pub(crate) struct Proxy {
    pub(crate) url: String,
    pub(crate) left: Arc<AtomicUsize>,
    pub(crate) late: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn start(target: &str, damage: Damage) -> Self {
        let target = target
            .strip_prefix("http://")
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (left, late) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let proxy = Self {
            url,
            left: left.clone(),
            late: late.clone(),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let (left, late) = (left.clone(), late.clone());
                thread::spawn(move || forward(&client, &server, damage, &left, &late));
            }
        });
        proxy
    }
}

fn forward(
    client: &TcpStream,
    server: &TcpStream,
    damage: Damage,
    left: &AtomicUsize,
    late: &AtomicUsize,
) {
    let mute = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = answers(server, client, &mute);
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
        });
        let _ = requests(client, server, damage, left, late, &mute);
        if mute.load(Ordering::SeqCst) < 2 {
            let _ = server.shutdown(Shutdown::Write);
        }
    });
}

/// Server to client; `mute` 1 ends at the first answer, 2 swallows it.
fn answers(
    mut server: &TcpStream,
    mut client: &TcpStream,
    mute: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = [0; 65_536];
    loop {
        let count = server.read(&mut buffer)?;
        match mute.load(Ordering::SeqCst) {
            0 if count > 0 => client.write_all(&buffer[..count])?,
            2 if count > 0 => {}
            _ => return Ok(()),
        }
    }
}

fn requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    damage: Damage,
    left: &AtomicUsize,
    late: &AtomicUsize,
    mute: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = [0; 65_536];
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let is_insert = String::from_utf8_lossy(&buffer[..count.min(400)])
            .contains("query=INSERT+INTO+driver_locations");
        let take = |n: usize| n.checked_sub(1);
        if !is_insert
            || left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_err()
        {
            server.write_all(&buffer[..count])?;
            continue;
        }
        match damage {
            Damage::LoseAnswer => {
                mute.store(1, Ordering::SeqCst);
                server.write_all(&buffer[..count])?;
            }
            Damage::Hang => {
                mute.store(2, Ordering::SeqCst);
                server.write_all(&buffer[..count])?;
            }
            Damage::CutRequest => {
                // The head is about 1,100 bytes; the body is cut somewhere.
                server.write_all(&buffer[..count.min(4000)])?;
                server.shutdown(Shutdown::Both)?;
                return client.shutdown(Shutdown::Both);
            }
            Damage::DeliverLate(after) | Damage::FinishLate(after) => {
                let mut request = buffer[..count].to_vec();
                while !request.ends_with(b"\r\n0\r\n\r\n") {
                    let count = client.read(&mut buffer)?;
                    request.extend_from_slice(&buffer[..count]);
                }
                mute.store(2, Ordering::SeqCst);
                let at_once = match damage {
                    Damage::FinishLate(_) => request.len() / 2,
                    _ => 0,
                };
                let (first, rest) = request.split_at(at_once);
                server.write_all(first)?;
                client.shutdown(Shutdown::Both)?;
                thread::sleep(after);
                server.write_all(rest)?;
                late.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(500));
                return server.shutdown(Shutdown::Both);
            }
        }
    }
}

//! A proxy that damages inserts on their way.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
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
    /// The server gets this of it; both sides are cut off.
    CutRequest(Cut),
    /// The server gets this of it, then the end of the connection, and its answer comes through.
    EndRequest(Cut),
    /// The client is cut off first; the server gets it after this time.
    DeliverLate(Duration),
    /// The client is cut off in the middle; the server gets the rest after this time.
    FinishLate(Duration),
    /// The server gets it; neither side hears anything more.
    Hang,
}

/// Where an insert is cut: so many blocks and as many bytes of the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) blocks: usize,
    pub(crate) bytes: u64,
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
            Damage::CutRequest(cut) | Damage::EndRequest(cut) => {
                let mut request = BufReader::new(buffer[..count].chain(client));
                if let Err(error) = pass(&mut request, server, cut) {
                    // It was shorter, which is not the damage that was asked for.
                    left.fetch_add(1, Ordering::SeqCst);
                    return Err(error);
                }
                if matches!(damage, Damage::CutRequest(_)) {
                    server.shutdown(Shutdown::Both)?;
                    return client.shutdown(Shutdown::Both);
                }
                to_its_end(&mut request)?;
                server.shutdown(Shutdown::Write)?;
                // The client is cut off when the answer has come through.
                std::io::copy(&mut request, &mut std::io::sink())?;
                return Ok(());
            }
            Damage::DeliverLate(after) | Damage::FinishLate(after) => {
                let request = to_its_end(&mut buffer[..count].chain(client))?;
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

/// Forwards a request, of which each block is a chunk of HTTP, as far as `cut`; an error if it
/// does not reach as far.
fn pass(request: &mut impl BufRead, mut server: &TcpStream, cut: Cut) -> std::io::Result<()> {
    while pass_line(request, server)? != "\r\n" {}
    for block in 0..=cut.blocks {
        let is_last = block == cut.blocks;
        if is_last && cut.bytes == 0 {
            break;
        }
        let length = pass_line(request, server)?;
        let length = u64::from_str_radix(length.trim_end(), 16).unwrap_or(0);
        let count = if is_last { cut.bytes } else { length + 2 };
        if length == 0 || count > length + 2 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if std::io::copy(&mut request.take(count), &mut server)? < count {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn pass_line(request: &mut impl BufRead, mut server: &TcpStream) -> std::io::Result<String> {
    let mut line = String::new();
    if request.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    server.write_all(line.as_bytes())?;
    Ok(line)
}

/// What is left of a request.
fn to_its_end(request: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let (mut rest, mut buffer) = (Vec::new(), [0; 65_536]);
    while !rest.ends_with(b"\r\n0\r\n\r\n") {
        match request.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => rest.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(rest)
}

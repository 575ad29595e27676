//! `riderflow demo`, as a person sees it: links that work when clicked, and counts that agree.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use riderflow::simulate::Plan;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(120);

/// A demo in a folder of its own; stopped, and its services with it, when dropped.
struct Demo {
    child: Child,
    told: Receiver<String>,
    all: String,
}

impl Demo {
    fn start(words: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
        let mut child = Command::new(env!("CARGO_BIN_EXE_riderflow"))
            .arg("demo")
            .args(words)
            .arg("--data")
            .arg(folder)
            .env_remove("RIDERFLOW_KAFKA")
            .env_remove("RIDERFLOW_CLICKHOUSE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, told) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            child,
            told,
            all: String::new(),
        }
    }

    /// Waits for a line that contains this.
    fn wait_for(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.told.recv_timeout(left) else {
                panic!("no `{part}` in\n{}", self.all);
            };
            self.all += &line;
            self.all.push('\n');
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it printed and how it ended, with all that it told.
    fn end(mut self) -> (ExitStatus, String, String) {
        let mut printed = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut printed).unwrap();
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.told.recv_timeout(PATIENCE) {
            self.all += &line;
            self.all.push('\n');
        }
        (status, printed, std::mem::take(&mut self.all))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // Its services end with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The address, path and token of a link within a line.
fn link(line: &str) -> (String, String, String) {
    let url = line.split_once("http://").expect("a link").1;
    let (place, token) = url.split_once("#token=").expect("a token");
    let (address, path) = place.split_once('/').expect("a path");
    (address.to_owned(), format!("/{path}"), token.to_owned())
}

/// The head and the beginning of what a GET is answered with.
fn get(address: &str, path: &str, token: Option<&str>, until: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let bearer = token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\n{bearer}Connection: close\r\n\r\n"
    )
    .unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if text.contains(until) {
            return text;
        }
        match stream.read(&mut chunk) {
            Ok(0) => panic!("GET {path} ended without `{until}`:\n{text}"),
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) => panic!("GET {path}: {error} after\n{text}"),
        }
    }
}

#[test]
fn every_link_opens_its_page_and_all_counts_agree() {
    let words = ["--drivers", "150", "--orders", "60", "--fences", "20"];
    // Fewer phones than drivers: the others' updates go straight to Kafka.
    let more = ["--phones", "120", "--listen", "127.0.0.1:0"];
    let mut demo = Demo::start(&[&words[..], &more].concat());
    demo.wait_for("phones: 120 connected");
    for (name, path, stream, snapshot) in [
        (
            "all drivers",
            "/map",
            "/v1/fleet/live?bbox=77.5,12.9,77.7,13.1",
            "\"drivers\":[",
        ),
        ("a restaurant", "/place/", "/v1/places/", "\"orders\":["),
        ("an order", "/track/", "/v1/orders/", "\"agent\":{"),
    ] {
        let line = demo.wait_for(name);
        let (address, page, token) = link(&line);
        assert!(page.starts_with(path), "{line}");
        let shown = get(&address, &page, None, "</html>");
        assert!(shown.starts_with("HTTP/1.1 200 "), "{shown}");
        let of = page.rsplit('/').next().unwrap();
        let stream = match path {
            "/map" => stream.to_owned(),
            _ => format!("{stream}{of}/live"),
        };
        let live = get(&address, &stream, Some(&token), snapshot);
        assert!(live.starts_with("HTTP/1.1 200 "), "{live}");
        assert!(live.contains("event: snapshot"), "{live}");
        // The streets beneath are this city's, not those of the map that is built in.
        let map = get(&address, "/assets/base-map.geojson", None, "]}\n");
        let streets = riderflow::simulate::base_map(&Plan::new(150, 60, 20, 1, 0));
        let streets = String::from_utf8(streets).unwrap();
        assert!(map.contains(streets.lines().nth(40).unwrap()), "{map}");
    }
    std::thread::sleep(Duration::from_secs(5));
    demo.signal(Signal::INT);
    let (status, printed, told) = demo.end();
    assert!(status.success(), "{told}\n{printed}");
    for part in [
        "updates: agree",
        "events: agree",
        "updates through the gateway: agree",
        "updates of 120 phones over 120 connections, acknowledged within ",
    ] {
        assert!(printed.contains(part), "no `{part}` in\n{printed}\n{told}");
    }
}

//! The city's phones through real gateways, over a real Kafka.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use common::{Lab, free_address, lab, wait_until};
use serde_json::Value;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway process; killed when dropped.
struct Gateway(Child);

impl Gateway {
    fn start(lab: &Lab, pipeline: &Path, listen: SocketAddr) -> Self {
        let child = lab
            .command()
            .arg("gateway")
            .arg(pipeline)
            .args(["--listen", &listen.to_string()])
            .args(["--http", "127.0.0.1:0"])
            .env("RIDERFLOW_GATEWAY_KEY", KEY)
            .spawn()
            .expect("a gateway");
        let gateway = Self(child);
        wait_until(PATIENCE, "the gateway listens", || {
            TcpStream::connect(listen).is_ok()
        });
        gateway
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("a child");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The city as a process; killed when dropped.
struct City(Option<Child>);

impl City {
    fn start(lab: &Lab, pipeline: &Path, words: &str, key: &str) -> Self {
        let child = lab
            .command()
            .arg("simulate")
            .arg("--pipeline")
            .arg(pipeline)
            .args(words.split_whitespace())
            .env("RIDERFLOW_GATEWAY_KEY", key)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a city");
        Self(Some(child))
    }

    fn end(mut self) -> Output {
        let child = self.0.take().expect("it ends once");
        child.wait_with_output().expect("a child")
    }
}

impl Drop for City {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The gateway is killed in mid-stream and another takes its place: every update that a phone
/// had is in Kafka, under its number, and the summary says exactly how many.
#[test]
fn phones_lose_nothing_when_the_gateway_is_killed() {
    let lab = lab("phones_lose_nothing_when_the_gateway_is_killed");
    let pipeline = lab.pipeline("phones", "gateway.address_per_s = 5000");
    lab.init(&pipeline);
    let listen = free_address();
    let first = Gateway::start(&lab, &pipeline, listen);
    let words = format!(
        "--gateway ws://{listen} --phones 150 --drivers 200 --fences 5 --rate 600 --duration 8 --json"
    );
    let city = City::start(&lab, &pipeline, &words, KEY);
    std::thread::sleep(Duration::from_secs(4));
    first.kill();
    std::thread::sleep(Duration::from_millis(500));
    let _second = Gateway::start(&lab, &pipeline, listen);
    let output = city.end();
    assert!(output.status.success(), "{}", told(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    let (acked, gateway) = (
        &summary["acked"]["rider-updates"]["total"],
        &summary["gateway"],
    );

    let mut numbers: BTreeMap<Vec<u8>, BTreeSet<u64>> = BTreeMap::new();
    let (mut numbered, mut straight) = (0, 0);
    let mut sessions = BTreeSet::new();
    for record in lab.read_all("rider-updates") {
        let driver = record.json()["driverId"].as_u64().expect("a driver");
        match record.headers.get("rf-seq") {
            Some(seq) => {
                let (session, seq) = seq.split_once('/').expect("session/number");
                sessions.insert(session.to_owned());
                let key = record.key.expect("a key");
                let seqs = numbers.entry(key).or_default();
                seqs.insert(seq.parse().expect("a number"));
                assert!(driver < 150);
                numbered += 1;
            }
            None => {
                assert!(driver >= 150);
                straight += 1;
            }
        }
    }
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(numbers.len(), 150);
    for (driver, seqs) in &numbers {
        let last = *seqs.last().expect("one at least");
        let driver = String::from_utf8_lossy(driver);
        assert_eq!(seqs.len() as u64, last, "{driver} has a gap: {seqs:?}");
    }
    let distinct: usize = numbers.values().map(BTreeSet::len).sum();
    assert!(numbered >= distinct && straight > 0);
    assert_eq!(gateway["acked"], distinct, "{summary}");
    assert_eq!(*acked, distinct + straight, "{summary}");
    for (of, none) in [("dropped", 0), ("refused", 0)] {
        assert_eq!(gateway[of], none, "{summary}");
    }
    // All lost the first gateway, and all found the second.
    assert_eq!(gateway["connections"], 300, "{summary}");
    assert!(gateway["faults"].as_u64() >= Some(150), "{summary}");
}

#[test]
fn a_gateway_that_is_away_or_of_another_key_is_told_at_once() {
    let lab = lab("a_gateway_that_is_away_or_of_another_key_is_told_at_once");
    let pipeline = lab.pipeline("phones", "");
    lab.init(&pipeline);
    let listen = free_address();
    let words = format!("--gateway ws://{listen} --drivers 20 --duration 5");
    let output = City::start(&lab, &pipeline, &words, KEY).end();
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    let why = format!("could not reach the gateway at ws://{listen}");
    assert!(told(&output).contains(&why), "{}", told(&output));

    let _gateway = Gateway::start(&lab, &pipeline, listen);
    let output = City::start(&lab, &pipeline, &words, &KEY.replace('0', "9")).end();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(
        told(&output).contains("RIDERFLOW_GATEWAY_KEY"),
        "{}",
        told(&output)
    );
    let output = City::start(&lab, &pipeline, &words, "").end();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("no key"), "{}", told(&output));
}

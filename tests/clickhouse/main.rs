//! The batch writer and the migrations against a real ClickHouse.

mod blocks;
#[path = "../common/city_rows.rs"]
#[allow(unreachable_pub, reason = "a bench uses it too")]
mod city_rows;
mod faults;
mod memory;
mod migrations;
mod proxy;
mod size;
mod writer;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use riderflow::clickhouse::{DATABASE, Notice, Observer, Options, Rows, Server, migrate};
use riderflow::model::{DriverId, Flag, Input, Location, Place, Position, Source, Update};
use riderflow::services::{self, Services};

pub(crate) const SOME_DAY_MS: i64 = 1_790_000_000_000;

/// A ClickHouse of the test's own, with the tables made.
pub(crate) struct Database {
    pub(crate) services: Services,
    _dir: tempfile::TempDir,
}

impl Database {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let launcher = env!("CARGO_BIN_EXE_riderflow");
        let mut options = services::Options::for_tests(dir.path(), launcher);
        options.kafka = false;
        let services = Services::start(&options).unwrap();
        let database = Self {
            services,
            _dir: dir,
        };
        migrate::apply(&database.server(), DATABASE).unwrap();
        database
    }

    pub(crate) fn server(&self) -> Server {
        server_at(self.services.clickhouse_url())
    }

    pub(crate) fn query(&self, sql: &str) -> String {
        query(self.services.clickhouse_url(), sql)
    }

    /// Rows and distinct identities of `driver_locations`.
    pub(crate) fn locations(&self) -> (u64, u64) {
        let answer = self.query(
            "SELECT count(), uniqExact(kafka_partition, kafka_offset) FROM riderflow.driver_locations",
        );
        let mut numbers = answer
            .split_whitespace()
            .map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Asserts that each of these inserts into `table` was one part, in however many blocks it
    /// came. A part that was merged is known for some minutes.
    pub(crate) fn assert_one_part_each(&self, table: &str, mut inserts: Vec<usize>) {
        let parts = self.query(&format!(
            "SELECT rows FROM system.parts WHERE database = 'riderflow' \
             AND table = '{table}' AND level = 0 ORDER BY rows"
        ));
        let parts: Vec<usize> = parts.lines().map(|rows| rows.parse().unwrap()).collect();
        inserts.sort_unstable();
        assert_eq!(parts, inserts);
    }
}

pub(crate) fn server_at(url: &str) -> Server {
    Server {
        url: url.into(),
        user: None,
        password: None,
    }
}

/// One query by plain HTTP/1.0.
fn query(url: &str, sql: &str) -> String {
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{sql}",
        sql.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{sql}: {body}");
    body.trim().to_owned()
}

pub(crate) fn options(server: Server) -> Options {
    Options {
        server,
        database: DATABASE.into(),
        pipeline: "test".into(),
        generation: 1,
        batch_rows: 1000,
        batch_ms: 100,
        max_buffered_rows: 1_000_000,
        max_buffered_bytes: 384 << 20,
        timeout: Duration::from_secs(5),
    }
}

/// The updates of `offsets` in partition 0, a second apart for each driver.
pub(crate) fn locations(offsets: std::ops::Range<i64>) -> Rows {
    Rows::Locations(offsets.map(location).collect())
}

pub(crate) fn location(offset: i64) -> Location {
    let at_ms = SOME_DAY_MS + offset / 100 * 1000;
    let source = Source {
        input: Input::Updates,
        partition: 0,
        offset,
    };
    Location {
        update: Update {
            place: Place { at_ms, source },
            driver: DriverId(offset as u64 % 100),
            position: Position {
                longitude: 77.5946,
                latitude: 12.9716,
            },
            event_time_ms: at_ms,
            received_at_ms: at_ms + 5,
            accuracy_m: Some(8.0),
            speed_mps: None,
            heading_deg: Some(271.5),
            state: Some("south".into()),
        },
        flag: Flag::Ok,
    }
}

pub(crate) fn notices() -> (Observer, Arc<Mutex<Vec<Notice>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = seen.clone();
    (
        Arc::new(move |notice: &Notice| to.lock().unwrap().push(notice.clone())),
        seen,
    )
}

/// How many rows each batch had that was stored, in the order in which they were.
pub(crate) fn stored(seen: &Mutex<Vec<Notice>>) -> Vec<usize> {
    seen.lock()
        .unwrap()
        .iter()
        .filter_map(|notice| match notice {
            Notice::Stored { rows, .. } => Some(*rows),
            _ => None,
        })
        .collect()
}

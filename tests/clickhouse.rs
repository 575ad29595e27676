//! The batch writer and the migrations against a real ClickHouse.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use riderflow::clickhouse::{
    DATABASE, Notice, Observer, Options, Rows, Server, StoredEvent, Writer, WriterError, migrate,
};
use riderflow::model::{
    DeadLetter, DriverId, Epoch, EventKind, Fault, Flag, Input, Location, Place, Position, Reason,
    Source, Update,
};
use riderflow::services::{self, Services};

const SOME_DAY_MS: i64 = 1_790_000_000_000;

/// A ClickHouse of the test's own, with the tables made.
struct Database {
    services: Services,
    _dir: tempfile::TempDir,
}

impl Database {
    fn start() -> Self {
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

    fn server(&self) -> Server {
        server_at(self.services.clickhouse_url())
    }

    fn query(&self, sql: &str) -> String {
        query(self.services.clickhouse_url(), sql)
    }

    /// Rows and distinct identities of `driver_locations`.
    fn locations(&self) -> (u64, u64) {
        let answer = self.query(
            "SELECT count(), uniqExact(kafka_partition, kafka_offset) FROM riderflow.driver_locations",
        );
        let mut numbers = answer
            .split_whitespace()
            .map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

fn server_at(url: &str) -> Server {
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

fn options(server: Server) -> Options {
    Options {
        server,
        database: DATABASE.into(),
        pipeline: "test".into(),
        generation: 1,
        batch_rows: 1000,
        batch_ms: 100,
        max_buffered_rows: 2_000_000,
        max_buffered_bytes: 512 << 20,
        timeout: Duration::from_secs(5),
    }
}

/// The updates of `offsets` in partition 0, a second apart for each driver.
fn locations(offsets: std::ops::Range<i64>) -> Rows {
    Rows::Locations(offsets.map(location).collect())
}

fn location(offset: i64) -> Location {
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

fn notices() -> (Observer, Arc<Mutex<Vec<Notice>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = seen.clone();
    (
        Arc::new(move |notice: &Notice| to.lock().unwrap().push(notice.clone())),
        seen,
    )
}

#[test]
fn all_three_tables_hold_what_was_sent() {
    let database = Database::start();
    let writer = Writer::start(options(database.server()), None).unwrap();
    let mut teleport = location(7);
    teleport.flag = Flag::Teleport;
    teleport.update.state = None;
    writer
        .send(Rows::Locations(vec![location(6), teleport]))
        .unwrap();
    let event = StoredEvent {
        id: "rider-updates/0/6/geofence.entered/f-7/6".into(),
        kind: EventKind::GeofenceEntered,
        driver: DriverId(6),
        order_id: "".into(),
        fence_id: "f-7".into(),
        event_time_ms: SOME_DAY_MS,
        detected_at_ms: SOME_DAY_MS + 100,
        data: r#"{"driverId":6,"fenceId":"f-7"}"#.into(),
    };
    writer.send(Rows::Events(vec![event])).unwrap();
    let source = Source {
        input: Input::Updates,
        partition: 1,
        offset: 3,
    };
    let letter = DeadLetter {
        place: Place {
            at_ms: SOME_DAY_MS,
            source,
        },
        key: None,
        value: Some(vec![0xff, 0x00, b'{']),
        fault: Fault {
            reason: Reason::MalformedJson,
            detail: "it's no JSON".into(),
        },
    };
    writer.send(Rows::Rejected(vec![letter])).unwrap();
    writer.mark(Epoch(9)).unwrap();
    let summary = writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(summary.stats.locations_stored, 2);
    assert_eq!(summary.stats.stored_epoch, Some(Epoch(9)));

    // The cell is ClickHouse's own, with latitude first.
    assert_eq!(
        database.query(
            "SELECT driver_id, toUnixTimestamp64Milli(timestamp), latitude, longitude, state, accuracy, \
             speed, heading, h3 = geoToH3(latitude, longitude, 9), h3GetResolution(h3), flag, \
             kafka_partition, kafka_offset, toUnixTimestamp64Milli(received_at) \
             FROM riderflow.driver_locations ORDER BY kafka_offset"
        ),
        "6\t1790000000000\t12.9716\t77.5946\tsouth\t8\t\\N\t271.5\t1\t9\tok\t0\t6\t1790000000005\n\
         7\t1790000000000\t12.9716\t77.5946\t\t8\t\\N\t271.5\t1\t9\tteleport\t0\t7\t1790000000005"
    );
    assert_eq!(
        database.query(
            "SELECT id, type, driver_id, order_id, fence_id, toUnixTimestamp64Milli(event_time), \
             toUnixTimestamp64Milli(detected_at), data FROM riderflow.events"
        ),
        "rider-updates/0/6/geofence.entered/f-7/6\tgeofence.entered\t6\t\tf-7\t1790000000000\t\
         1790000000100\t{\"driverId\":6,\"fenceId\":\"f-7\"}"
    );
    assert_eq!(
        database.query(
            "SELECT reason, detail, topic, kafka_partition, kafka_offset, hex(value) \
             FROM riderflow.rejected_updates"
        ),
        "malformed_json\tit\\'s no JSON\trider-updates\t1\t3\tFF007B"
    );
}

#[test]
fn the_cell_is_clickhouses_all_over_the_world() {
    let database = Database::start();
    let writer = Writer::start(options(database.server()), None).unwrap();
    let mut rows = Vec::new();
    for latitude in (-90_i32..=90).step_by(6) {
        for longitude in (-180_i32..=180).step_by(9) {
            let mut row = location(rows.len() as i64);
            let (latitude, longitude) = (f64::from(latitude), f64::from(longitude));
            row.update.position = Position {
                latitude: latitude * 0.999,
                longitude: longitude * 0.999,
            };
            rows.push(row);
        }
    }
    let count = rows.len();
    writer.send(Rows::Locations(rows)).unwrap();
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(
        database.query(
            "SELECT countIf(h3 = geoToH3(latitude, longitude, 9)) FROM riderflow.driver_locations"
        ),
        count.to_string()
    );
}

#[test]
fn a_batch_is_one_part_in_each_month() {
    let database = Database::start();
    let (observer, seen) = notices();
    let mut options = options(database.server());
    options.batch_rows = 100_000;
    let writer = Writer::start(options, Some(observer)).unwrap();
    let mut rows: Vec<_> = (0..30_000).map(location).collect();
    for (index, row) in rows.iter_mut().enumerate() {
        row.update.event_time_ms += (index as i64 % 3) * 31 * 86_400_000;
    }
    writer.send(Rows::Locations(rows)).unwrap();
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (30_000, 30_000));
    let stored: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .filter_map(|notice| match notice {
            Notice::Stored { rows, .. } => Some(*rows),
            _ => None,
        })
        .collect();
    assert_eq!(stored, [10_000, 10_000, 10_000]);
    assert_eq!(
        database.query(
            "SELECT count(), uniqExact(partition_id) FROM system.parts \
             WHERE database = 'riderflow' AND table = 'driver_locations' AND active"
        ),
        "3\t3"
    );
}

#[test]
fn batches_of_a_thousand_keep_up() {
    let database = Database::start();
    let (observer, seen) = notices();
    let writer = Writer::start(options(database.server()), Some(observer)).unwrap();
    let began = Instant::now();
    // 20,000 rows a second for three seconds, an epoch each 100 ms.
    for epoch in 0..30_i64 {
        let due = began + Duration::from_millis(100) * epoch as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        writer
            .send(locations(epoch * 2000..(epoch + 1) * 2000))
            .unwrap();
        writer.mark(Epoch(epoch as u64)).unwrap();
    }
    let backlog = writer.stats().buffered_rows;
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (60_000, 60_000));
    assert!(
        backlog <= 20_000,
        "a second's rows at most are on their way, not {backlog}"
    );
    let sizes: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .filter_map(|notice| match notice {
            Notice::Stored { rows, .. } => Some(*rows),
            _ => None,
        })
        .collect();
    assert!(
        sizes.iter().filter(|rows| **rows == 1000).count() >= sizes.len() / 2,
        "{sizes:?}"
    );
}

#[test]
fn an_outage_delays_rows_and_repeats_none() {
    let mut database = Database::start();
    let writer = Arc::new(Writer::start(options(database.server()), None).unwrap());
    let sender = {
        let writer = writer.clone();
        thread::spawn(move || {
            for chunk in 0..120_i64 {
                writer
                    .send(locations(chunk * 500..(chunk + 1) * 500))
                    .unwrap();
                thread::sleep(Duration::from_millis(25));
            }
        })
    };
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(700));
        database.services.kill_clickhouse().unwrap();
        thread::sleep(Duration::from_millis(800));
        database.services.start_clickhouse().unwrap();
    }
    sender.join().unwrap();
    let writer = Arc::into_inner(writer).unwrap();
    let summary = writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert!(summary.stats.retries > 0);
    assert_eq!(summary.stats.locations_stored, 60_000);
    assert_eq!(database.locations(), (60_000, 60_000));
}

#[test]
fn a_lost_answer_repeats_no_row() {
    let database = Database::start();
    let proxy = Proxy::start(database.services.clickhouse_url(), Damage::LoseAnswer);
    through(&database, &proxy, 4);
}

#[test]
fn a_request_that_is_cut_loses_no_row() {
    let database = Database::start();
    let proxy = Proxy::start(database.services.clickhouse_url(), Damage::CutRequest);
    through(&database, &proxy, 4);
}

#[test]
fn a_request_that_arrives_after_its_repetition_repeats_no_row() {
    let database = Database::start();
    let proxy = Proxy::start(
        database.services.clickhouse_url(),
        Damage::DeliverLate(Duration::from_millis(1500)),
    );
    through(&database, &proxy, 3);
    // Until the late requests have come through as well.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(proxy.late.load(Ordering::SeqCst), 3);
    assert_eq!(database.locations(), (20_000, 20_000));
}

#[test]
fn a_server_that_hangs_is_noticed() {
    let database = Database::start();
    let proxy = Proxy::start(database.services.clickhouse_url(), Damage::Hang);
    through(&database, &proxy, 2);
}

/// Sends rows through a proxy that does damage to the first `times` inserts.
fn through(database: &Database, proxy: &Proxy, times: usize) {
    proxy.left.store(times, Ordering::SeqCst);
    let mut options = options(server_at(&proxy.url));
    options.timeout = Duration::from_secs(1);
    let writer = Writer::start(options, None).unwrap();
    for chunk in 0..20 {
        writer
            .send(locations(chunk * 1000..(chunk + 1) * 1000))
            .unwrap();
        // So that they are batches of their own.
        thread::sleep(Duration::from_millis(15));
    }
    let summary = writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert_eq!(proxy.left.load(Ordering::SeqCst), 0, "all damage was done");
    assert!(
        summary.stats.reconciled as usize >= times,
        "{:?}",
        summary.stats
    );
    assert_eq!(summary.stats.locations_stored, 20_000);
    assert_eq!(database.locations(), (20_000, 20_000));
}

#[test]
fn the_bound_blocks_and_nothing_is_lost() {
    let mut database = Database::start();
    database.services.stop_clickhouse().unwrap();
    let mut options = options(database.server());
    options.max_buffered_rows = 5000;
    let writer = Arc::new(Writer::start(options, None).unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = {
        let (writer, sent) = (writer.clone(), sent.clone());
        thread::spawn(move || {
            for chunk in 0..20_i64 {
                writer
                    .send(locations(chunk * 1000..(chunk + 1) * 1000))
                    .unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    thread::sleep(Duration::from_millis(700));
    assert_eq!(sent.load(Ordering::SeqCst), 5, "the sixth waits");
    assert_eq!(writer.stats().buffered_rows, 5000);
    assert!(writer.try_send(locations(90_000..90_001)).unwrap().is_err());

    database.services.start_clickhouse().unwrap();
    sender.join().unwrap();
    let writer = Arc::into_inner(writer).unwrap();
    let summary = writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(summary.stats.blocked, summary.stats.blocked.max(1));
    assert_eq!(database.locations(), (20_000, 20_000));
}

#[test]
fn a_stop_without_a_server_says_what_is_left() {
    let mut database = Database::start();
    database.services.stop_clickhouse().unwrap();
    let writer = Writer::start(options(database.server()), None).unwrap();
    writer.send(locations(0..10)).unwrap();
    writer.mark(Epoch(1)).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(writer.stored_epoch(), None);
    let error = writer
        .flush_and_stop(Duration::from_millis(300))
        .unwrap_err();
    assert!(
        matches!(
            &error,
            WriterError::Unfinished {
                rows: 10,
                last_error: Some(_),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_later_run_stores_only_what_is_missing_and_fences_the_earlier_one() {
    let database = Database::start();
    let first = Writer::start(options(database.server()), None).unwrap();
    first.send(locations(0..3000)).unwrap();
    while first.stats().locations_stored < 3000 {
        thread::sleep(Duration::from_millis(20));
    }
    let mut later = options(database.server());
    later.generation = 2;
    let second = Writer::start(later, None).unwrap();
    // A replay: some of it is there.
    second.send_doubtful(locations(1000..5000)).unwrap();
    second.send(locations(5000..6000)).unwrap();
    second.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (6000, 6000));

    // The first wakes up with rows that the second has stored as well.
    let _ = first.send(locations(3000..4000));
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match first.send(locations(4000..4001)) {
            Err(error) => break error,
            Ok(()) => assert!(Instant::now() < deadline, "it was not fenced"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert!(error.to_string().contains("later run"), "{error}");
    assert_eq!(database.locations(), (6000, 6000));
}

#[test]
fn replayed_events_and_dead_letters_are_stored_once() {
    let database = Database::start();
    let event = |number: usize| StoredEvent {
        id: format!("rider-updates/0/{number}/agent.near/o'{number}\\.pickup/453"),
        kind: EventKind::AgentNear,
        driver: DriverId(number as u64 % 50),
        order_id: format!("o'{number}\\").into(),
        fence_id: "".into(),
        event_time_ms: SOME_DAY_MS + number as i64,
        detected_at_ms: SOME_DAY_MS,
        data: "{}".into(),
    };
    let letter = |offset: i64| DeadLetter {
        place: Place {
            at_ms: SOME_DAY_MS,
            source: Source {
                input: Input::Orders,
                partition: (offset % 2) as i32,
                offset,
            },
        },
        key: None,
        value: None,
        fault: Fault {
            reason: Reason::Empty,
            detail: String::new(),
        },
    };
    for generation in 1..=2 {
        let mut options = options(database.server());
        options.generation = generation;
        let writer = Writer::start(options, None).unwrap();
        let upto = 12_000 * generation as usize;
        writer
            .send_doubtful(Rows::Events((0..upto).map(event).collect()))
            .unwrap();
        writer
            .send_doubtful(Rows::Rejected((0..upto as i64).map(letter).collect()))
            .unwrap();
        writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    }
    assert_eq!(
        database.query("SELECT count(), uniqExact(id) FROM riderflow.events"),
        "24000\t24000"
    );
    assert_eq!(
        database.query("SELECT count(), uniqExact(topic, kafka_partition, kafka_offset) FROM riderflow.rejected_updates"),
        "24000\t24000"
    );
}

#[test]
fn refused_rows_are_kept_until_the_table_is_mended() {
    let database = Database::start();
    database.query("RENAME TABLE riderflow.driver_locations TO riderflow.away");
    let (observer, seen) = notices();
    let writer = Writer::start(options(database.server()), Some(observer)).unwrap();
    writer.send(locations(0..100)).unwrap();
    while writer.stats().retries == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    let told = seen.lock().unwrap().first().cloned();
    assert!(
        matches!(&told, Some(Notice::Failed { code: Some(60), rows: 100, advice: Some(advice), .. })
            if advice.contains("riderflow init")),
        "{told:?}"
    );
    database.query("RENAME TABLE riderflow.away TO riderflow.driver_locations");
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (100, 100));
}

#[test]
fn the_watermark_waits_for_every_table_and_every_earlier_row() {
    let database = Database::start();
    database.query("RENAME TABLE riderflow.driver_locations TO riderflow.away");
    let writer = Writer::start(options(database.server()), None).unwrap();
    writer.mark(Epoch(1)).unwrap();
    let wait_for = |epoch| {
        let deadline = Instant::now() + Duration::from_secs(15);
        while writer.stored_epoch() != Some(epoch) {
            assert!(Instant::now() < deadline, "{:?}", writer.stats());
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(Epoch(1));
    writer.send(locations(0..10)).unwrap();
    writer.mark(Epoch(2)).unwrap();
    let letter = DeadLetter {
        place: Place {
            at_ms: SOME_DAY_MS,
            source: Source {
                input: Input::Orders,
                partition: 0,
                offset: 1,
            },
        },
        key: None,
        value: None,
        fault: Fault {
            reason: Reason::Empty,
            detail: String::new(),
        },
    };
    writer.send(Rows::Rejected(vec![letter])).unwrap();
    writer.mark(Epoch(3)).unwrap();
    while writer.stats().rejected_stored == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(writer.stored_epoch(), Some(Epoch(1)));
    database.query("RENAME TABLE riderflow.away TO riderflow.driver_locations");
    wait_for(Epoch(3));
}

#[test]
fn a_table_that_differs_is_an_error_that_names_the_column() {
    let database = Database::start();
    let server = database.server();
    migrate::verify(&server, DATABASE).unwrap();
    // Retention and further settings are the operator's.
    database.query(
        "ALTER TABLE riderflow.driver_locations MODIFY TTL toDateTime(timestamp) + INTERVAL 90 DAY",
    );
    migrate::verify(&server, DATABASE).unwrap();

    database.query("ALTER TABLE riderflow.driver_locations MODIFY COLUMN speed Nullable(Float64)");
    database.query("ALTER TABLE riderflow.driver_locations DROP COLUMN heading");
    database.query("ALTER TABLE riderflow.driver_locations ADD COLUMN colour String");
    database.query("ALTER TABLE riderflow.driver_locations COMMENT COLUMN state 'which'");
    database.query("ALTER TABLE riderflow.driver_locations MODIFY SETTING non_replicated_deduplication_window = 1");
    database.query("ALTER TABLE riderflow.events DROP INDEX id_bloom");
    database.query("ALTER TABLE riderflow.cell_minutes MODIFY COLUMN epoch UInt64 AFTER cell");
    database.query("DROP TABLE riderflow.driver_sessions");
    let error = migrate::verify(&server, DATABASE).unwrap_err().to_string();
    for expected in [
        "riderflow.driver_locations.speed: type: expected Nullable(Float32), found Nullable(Float64)",
        "ALTER TABLE riderflow.driver_locations MODIFY COLUMN speed Nullable(Float32)",
        "riderflow.driver_locations.heading: column: expected heading Nullable(Float32)",
        "riderflow.driver_locations.colour: column: expected nothing, found colour String",
        "riderflow.driver_locations.state: comment: expected Routing state",
        "setting non_replicated_deduplication_window: expected 10000, found 1",
        "riderflow.events: index id_bloom",
        "riderflow.cell_minutes.minute: position",
        "riderflow.driver_sessions: table",
    ] {
        assert!(error.contains(expected), "{expected} is not in:\n{error}");
    }
    // What it advises mends it.
    for line in error.lines().filter(|line| line.contains("; ALTER TABLE ")) {
        let statement = line.find("; ALTER TABLE ").unwrap() + 2;
        database.query(&line[statement..]);
    }
    database.query("DELETE FROM riderflow.schema_migrations WHERE name LIKE '%\\_driver_sessions'");
    migrate::apply(&server, DATABASE).unwrap();
    assert_eq!(
        database.query("SELECT count() FROM system.databases WHERE name LIKE 'riderflow_%'"),
        "0"
    );

    database.query("ALTER TABLE riderflow.schema_migrations UPDATE checksum = '0' WHERE version = 2 SETTINGS mutations_sync = 1");
    let error = migrate::apply(&server, DATABASE).unwrap_err().to_string();
    assert!(
        error.contains("migration 2") && error.contains("must not change"),
        "{error}"
    );
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let error = migrate::verify(&server_at("http://127.0.0.1:9"), DATABASE).unwrap_err();
    assert!(
        matches!(error, migrate::MigrateError::Unreachable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("http://127.0.0.1:9"), "{error}");
}

/// What a [`Proxy`] does to an insert.
#[derive(Clone, Copy)]
enum Damage {
    /// The server gets and answers it; the answer is dropped.
    LoseAnswer,
    /// The server gets half of it.
    CutRequest,
    /// The client is cut off first; the server gets it after this time.
    DeliverLate(Duration),
    /// The server gets it; neither side hears anything more.
    Hang,
}

/// Forwards connections, and damages inserts into `driver_locations` while some are left.
struct Proxy {
    url: String,
    left: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(target: &str, damage: Damage) -> Self {
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
            Damage::DeliverLate(after) => {
                let mut request = buffer[..count].to_vec();
                while !request.ends_with(b"\r\n0\r\n\r\n") {
                    let count = client.read(&mut buffer)?;
                    request.extend_from_slice(&buffer[..count]);
                }
                mute.store(2, Ordering::SeqCst);
                client.shutdown(Shutdown::Both)?;
                thread::sleep(after);
                server.write_all(&request)?;
                late.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(500));
                return server.shutdown(Shutdown::Both);
            }
        }
    }
}

//! What rows take while the server is away.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use riderflow::clickhouse::{Origin, Rows, Writer};

use crate::{Database, location, options};

/// Set in the process that is measured: it runs this test alone.
const MEASURED: &str = "RIDERFLOW_TEST_MEASURED";
/// How long the server is away once the memory is full.
const AWAY: Duration = Duration::from_secs(3);
const MIB: f64 = (1 << 20) as f64;
/// What inserts that run and the allocator may add.
const SLACK_MIB: f64 = 32.0;

#[test]
fn memory_is_flat_through_outages() {
    if std::env::var_os(MEASURED).is_some() {
        return measure();
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own)
        .args(["memory::memory_is_flat", "--nocapture"])
        .env(MEASURED, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("a row takes"), "it was not measured: {told}");
    eprintln!("{told}");
}

fn measure() {
    let mut database = Database::start();
    let mut options = options(database.server());
    options.batch_rows = 100_000;
    let bound = options.max_buffered_rows;
    let writer = Writer::start(options, None).unwrap();
    let base = resident_bytes();
    let grown = || resident_bytes() - base;

    let mut sent = 0;
    let send = |from: i64| {
        // With room that nobody needs, as a sender's buffer may have it.
        let mut rows = Vec::with_capacity(4000);
        rows.extend((from..from + 2000).map(location));
        let outcome = writer.try_send(Rows::Locations(rows), Origin::New);
        outcome.unwrap().is_ok()
    };
    let mut first = None;
    for outage in 1..=2 {
        database.services.stop_clickhouse().unwrap();
        let before = sent;
        while send(sent) {
            sent += 2000;
        }
        assert_eq!((sent - before) as usize, bound);
        // Batches have been cut, and have failed.
        thread::sleep(Duration::from_millis(500));
        let full = grown();
        let limit = *first.get_or_insert(full) + SLACK_MIB * MIB;
        eprintln!(
            "outage {outage}: a row takes {:.0} bytes",
            full / bound as f64
        );
        assert!(full / bound as f64 <= 192.0, "that is what a row counts");

        let (began, mut most) = (Instant::now(), full);
        while began.elapsed() < AWAY {
            assert!(!send(sent));
            most = most.max(grown());
            thread::sleep(Duration::from_millis(50));
        }
        database.services.start_clickhouse().unwrap();
        let mut storing = 0.0_f64;
        while writer.waiting_since().is_some() {
            storing = storing.max(grown());
            thread::sleep(Duration::from_millis(20));
            assert!(
                began.elapsed() < AWAY + Duration::from_secs(120),
                "{:?}",
                writer.stats()
            );
        }
        eprintln!(
            "MiB: {:.0} when full, at most {:.0} in {AWAY:?} more and {:.0} while they are \
             stored, {:.0} afterwards",
            full / MIB,
            most / MIB,
            storing / MIB,
            grown() / MIB
        );
        assert!(most <= limit && storing <= limit);
    }
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (sent as u64, sent as u64));
}

/// Of this process alone: the server is another.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<f64>().unwrap() * 1024.0
}

//! What rows take while the server is away.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use riderflow::clickhouse::{Origin, Writer};

use crate::{Database, locations, options};

/// Set in the process that is measured: it runs this test alone.
const MEASURED: &str = "RIDERFLOW_TEST_MEASURED";
/// How long the server is away once the memory is full.
const AWAY: Duration = Duration::from_secs(5);
const MIB: f64 = (1 << 20) as f64;

#[test]
fn memory_is_flat_while_the_server_is_away_and_free_afterwards() {
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
    database.services.stop_clickhouse().unwrap();
    let mut options = options(database.server());
    options.batch_rows = 100_000;
    let bound = options.max_buffered_rows;
    let writer = Writer::start(options, None).unwrap();
    let base = resident_bytes();

    let mut sent = 0;
    let send = |from: i64| {
        // With room that nobody needs, as a sender's buffer may have it.
        let mut rows = Vec::with_capacity(4000);
        rows.extend((from..from + 2000).map(crate::location));
        writer
            .try_send(riderflow::clickhouse::Rows::Locations(rows), Origin::New)
            .unwrap()
            .is_ok()
    };
    while send(sent) {
        sent += 2000;
    }
    assert_eq!(sent as usize, bound);
    thread::sleep(Duration::from_secs(1));
    let full = resident_bytes() - base;
    let per_row = full / sent as f64;
    eprintln!(
        "a row takes {per_row:.0} bytes, all of them {:.0} MiB",
        full / MIB
    );
    assert!(per_row <= 192.0, "that is what a row counts");

    let (began, mut most) = (Instant::now(), full);
    while began.elapsed() < AWAY {
        assert!(!send(sent));
        most = most.max(resident_bytes() - base);
        thread::sleep(Duration::from_millis(50));
    }
    eprintln!("at most {:.0} MiB in {AWAY:?} more", most / MIB);
    assert!(most <= full + 16.0 * MIB);

    database.services.start_clickhouse().unwrap();
    let mut most = 0.0_f64;
    while writer.waiting_since().is_some() {
        most = most.max(resident_bytes() - base);
        thread::sleep(Duration::from_millis(20));
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{:?}",
            writer.stats()
        );
    }
    thread::sleep(Duration::from_millis(300));
    let after = resident_bytes() - base;
    eprintln!(
        "at most {:.0} MiB while they are stored, {:.0} MiB afterwards",
        most / MIB,
        after / MIB
    );
    assert!(most <= full + 64.0 * MIB);
    assert!(after <= full / 4.0);
    // It works as before.
    writer
        .send(locations(sent..sent + 10), Origin::New)
        .unwrap();
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    let rows = sent as u64 + 10;
    assert_eq!(database.locations(), (rows, rows));
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

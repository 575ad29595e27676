//! Outages, lost answers, frozen runs: every row once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use riderflow::clickhouse::{Notice, Rows, SpillOptions, Writer, WriterError};
use riderflow::model::{DeadLetter, Epoch, Fault, Input, Place, Reason, Source};

use crate::proxy::{Damage, Proxy};
use crate::{Database, locations, notices, options, server_at};

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
fn an_outage_longer_than_memory_goes_to_disk_and_comes_back() {
    let mut database = Database::start();
    database.services.stop_clickhouse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(database.server());
    options.max_buffered_rows = 10_000;
    options.spill = Some(SpillOptions {
        dir: dir.path().join("rows"),
        max_bytes: 1 << 30,
    });
    let writer = Writer::start(options, None).unwrap();
    for chunk in 0..200 {
        writer
            .send(locations(chunk * 1000..(chunk + 1) * 1000))
            .unwrap();
        writer.mark(Epoch(chunk as u64)).unwrap();
    }
    let stats = writer.stats();
    assert!(
        stats.spilled_rows >= 190_000 && stats.buffered_rows <= 10_000,
        "{stats:?}"
    );
    assert_eq!(stats.stored_epoch, None);
    // A process that dies leaves nothing behind.
    assert_eq!(
        std::fs::read_dir(dir.path().join("rows")).unwrap().count(),
        0
    );

    database.services.start_clickhouse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while writer.stored_epoch() != Some(Epoch(199)) {
        assert!(Instant::now() < deadline, "{:?}", writer.stats());
        thread::sleep(Duration::from_millis(20));
    }
    let summary = writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(summary.stats.spilled_rows, 0);
    assert_eq!(database.locations(), (200_000, 200_000));
}

/// Inserts that wait for their table once held all of the memory: nothing could move to disk.
#[test]
fn a_table_that_is_stuck_stops_neither_senders_nor_other_tables() {
    let database = Database::start();
    database.query("RENAME TABLE riderflow.driver_locations TO riderflow.away");
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(database.server());
    options.max_buffered_rows = 10_000;
    options.spill = Some(SpillOptions {
        dir: dir.path().into(),
        max_bytes: 1 << 30,
    });
    let writer = Writer::start(options, None).unwrap();
    // More than fits, at once, and time for it to be cut.
    writer.send(locations(0..20_000)).unwrap();
    thread::sleep(Duration::from_millis(300));
    for chunk in 20..60 {
        writer
            .send(locations(chunk * 1000..(chunk + 1) * 1000))
            .unwrap();
    }
    let letters = (0..1000).map(|offset| DeadLetter {
        place: Place {
            at_ms: 0,
            source: Source {
                input: Input::Orders,
                partition: 0,
                offset,
            },
        },
        key: None,
        value: None,
        fault: Fault {
            reason: Reason::Empty,
            detail: String::new(),
        },
    });
    writer.send(Rows::Rejected(letters.collect())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while writer.stats().rejected_stored < 1000 {
        assert!(Instant::now() < deadline, "{:?}", writer.stats());
        thread::sleep(Duration::from_millis(20));
    }
    database.query("RENAME TABLE riderflow.away TO riderflow.driver_locations");
    writer.flush_and_stop(Duration::from_secs(60)).unwrap();
    assert_eq!(database.locations(), (60_000, 60_000));
}

#[test]
fn too_many_parts_make_batches_larger() {
    let database = Database::start();
    database.query("SYSTEM STOP MERGES riderflow.driver_locations");
    let setting = "ALTER TABLE riderflow.driver_locations MODIFY SETTING parts_to_throw_insert = ";
    database.query(&format!("{setting}3"));
    let (observer, seen) = notices();
    let writer = Writer::start(options(database.server()), Some(observer)).unwrap();
    let told = |seen: &Vec<Notice>| {
        seen.iter().any(|notice| {
            matches!(
                notice,
                Notice::Failed {
                    code: Some(252),
                    ..
                }
            )
        })
    };
    let mut sent = 0;
    while !told(&seen.lock().unwrap()) {
        writer.send(locations(sent..sent + 1000)).unwrap();
        sent += 1000;
        thread::sleep(Duration::from_millis(50));
    }
    // From here on they gather, although a thousand are a batch.
    for _ in 0..20 {
        writer.send(locations(sent..sent + 1000)).unwrap();
        sent += 1000;
        thread::sleep(Duration::from_millis(20));
    }
    database.query(&format!("{setting}3000"));
    database.query("SYSTEM START MERGES riderflow.driver_locations");
    writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert_eq!(database.locations(), (sent as u64, sent as u64));
    let seen = seen.lock().unwrap();
    let largest = seen.iter().map(|notice| match notice {
        Notice::Stored { rows, .. } => *rows,
        _ => 0,
    });
    assert!(largest.max() >= Some(10_000));
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

//! Outages, lost answers, frozen runs: every row once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use riderflow::clickhouse::{Notice, Origin, Rows, Summary, Writer, WriterError};
use riderflow::model::{DeadLetter, Epoch, Fault, Input, Place, Reason, Source};

use crate::proxy::{Cut, Damage, Proxy};
use crate::{Database, locations, notices, options, server_at, stored};

/// A batch of a thousand rows is one block.
const IN_THE_FIRST_BLOCK: Cut = Cut {
    blocks: 0,
    bytes: 3000,
};

#[test]
fn an_outage_delays_rows_and_repeats_none() {
    let mut database = Database::start();
    let writer = Arc::new(Writer::start(options(database.server()), None).unwrap());
    let sender = {
        let writer = writer.clone();
        thread::spawn(move || {
            for chunk in 0..120_i64 {
                writer
                    .send(locations(chunk * 500..(chunk + 1) * 500), Origin::New)
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
    through(&database, &proxy, 4, 1000);
}

#[test]
fn a_request_that_is_cut_loses_no_row() {
    let database = Database::start();
    let proxy = Proxy::start(
        database.services.clickhouse_url(),
        Damage::CutRequest(IN_THE_FIRST_BLOCK),
    );
    through(&database, &proxy, 4, 1000);
}

#[test]
fn a_request_that_arrives_after_its_repetition_repeats_no_row() {
    let database = Database::start();
    let proxy = Proxy::start(
        database.services.clickhouse_url(),
        Damage::DeliverLate(Duration::from_millis(1500)),
    );
    through(&database, &proxy, 3, 1000);
    // Until the late requests have come through as well.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(proxy.late.load(Ordering::SeqCst), 3);
    assert_eq!(database.locations(), (20_000, 20_000));
}

/// As of a server that has lost its memory of tokens, or been given ten thousand since.
#[test]
fn late_requests_repeat_no_row_without_the_servers_memory_of_tokens() {
    let late_by = Duration::from_millis(1500);
    // What has not begun is refused, what runs is killed.
    for damage in [Damage::DeliverLate(late_by), Damage::FinishLate(late_by)] {
        let database = Database::start();
        forget_tokens(&database);
        let proxy = Proxy::start(database.services.clickhouse_url(), damage);
        through(&database, &proxy, 3, 1000);
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(database.locations(), (20_000, 20_000), "{damage:?}");
    }
}

#[test]
fn a_server_that_dies_after_an_answer_was_lost_repeats_no_row() {
    let mut database = Database::start();
    forget_tokens(&database);
    let proxy = Proxy::start(database.services.clickhouse_url(), Damage::Hang);
    proxy.left.store(2, Ordering::SeqCst);
    let mut options = options(server_at(&proxy.url));
    options.timeout = Duration::from_secs(2);
    let writer = Writer::start(options, None).unwrap();
    writer.send(locations(0..3000), Origin::New).unwrap();
    while proxy.left.load(Ordering::SeqCst) > 0 || database.locations().0 == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    database.services.kill_clickhouse().unwrap();
    thread::sleep(Duration::from_millis(200));
    database.services.start_clickhouse().unwrap();
    let summary = writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert!(summary.stats.reconciled > 0, "{:?}", summary.stats);
    assert_eq!(database.locations(), (3000, 3000));
}

/// From now on a token is no protection.
pub(crate) fn forget_tokens(database: &Database) {
    database.query(
        "ALTER TABLE riderflow.driver_locations \
         MODIFY SETTING non_replicated_deduplication_window = 0",
    );
}

/// The worst time for a kill: the server has the rows, and this process never heard of it.
#[test]
fn an_answer_lost_and_then_a_restart_repeats_and_loses_no_row() {
    for damage in [
        Damage::LoseAnswer,
        Damage::Hang,
        Damage::CutRequest(IN_THE_FIRST_BLOCK),
        Damage::FinishLate(Duration::from_millis(1500)),
        Damage::DeliverLate(Duration::from_millis(1500)),
    ] {
        let database = Database::start();
        forget_tokens(&database);
        let proxy = Proxy::start(database.services.clickhouse_url(), damage);
        proxy.left.store(3, Ordering::SeqCst);
        let first = Writer::start(options(server_at(&proxy.url)), None).unwrap();
        // The batches beyond the third have a chance to be stored and acknowledged.
        first.send(locations(0..5000), Origin::New).unwrap();
        first.mark(Epoch(5)).unwrap();
        while proxy.left.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(first.stored_epoch(), None, "{damage:?}");
        // It ends where it stands, with whatever is under way.
        drop(first);

        let mut options = options(database.server());
        options.generation = 2;
        let second = Writer::start(options, None).unwrap();
        second.send(locations(0..5000), Origin::Doubtful).unwrap();
        second.send(locations(5000..8000), Origin::New).unwrap();
        second.mark(Epoch(8)).unwrap();
        second.flush_and_stop(Duration::from_secs(20)).unwrap();
        assert_eq!(database.locations(), (8000, 8000), "{damage:?}");
        if matches!(damage, Damage::DeliverLate(_)) {
            thread::sleep(Duration::from_millis(2500));
            assert_eq!(proxy.late.load(Ordering::SeqCst), 3);
            assert_eq!(database.locations(), (8000, 8000), "late ones have come");
        }
    }
}

/// The elder writes what it has committed while the younger looks for it.
#[test]
fn two_runs_at_once_store_each_row_once() {
    let database = Database::start();
    let elder = Arc::new(Writer::start(options(database.server()), None).unwrap());
    let sender = {
        let elder = elder.clone();
        thread::spawn(move || {
            let mut chunk = 0;
            // Until it is fenced.
            while elder
                .send(locations(chunk * 200..(chunk + 1) * 200), Origin::New)
                .is_ok()
            {
                chunk += 1;
                assert!(chunk < 2000, "it was not fenced");
                thread::sleep(Duration::from_millis(5));
            }
            chunk * 200
        })
    };
    wait_until(&elder, "the elder stores", |elder| {
        elder.stats().locations_stored > 3000
    });
    let mut options = options(database.server());
    options.generation = 2;
    let younger = Writer::start(options, None).unwrap();
    younger
        .send(locations(0..20_000), Origin::Doubtful)
        .unwrap();
    let sent = sender.join().unwrap();
    younger
        .send(locations(20_000..20_000.max(sent)), Origin::Doubtful)
        .unwrap();
    younger.flush_and_stop(Duration::from_secs(20)).unwrap();
    let all = sent.max(20_000) as u64;
    assert_eq!(database.locations(), (all, all));
}

/// The server's own refusal for want of room.
#[test]
fn a_full_disk_keeps_rows_until_there_is_room() {
    let database = Database::start();
    let setting = "ALTER TABLE riderflow.driver_locations MODIFY SETTING min_free_disk_bytes_to_perform_insert = ";
    database.query(&format!("{setting}1000000000000000000"));
    let (observer, seen) = notices();
    let writer = Writer::start(options(database.server()), Some(observer)).unwrap();
    writer.send(locations(0..5000), Origin::New).unwrap();
    wait_until(&writer, "it is refused", |writer| {
        writer.stats().retries > 5
    });
    let told = seen.lock().unwrap().first().cloned();
    assert!(
        matches!(&told, Some(Notice::Failed { code: Some(243), advice: Some(advice), .. })
            if advice.contains("make room")),
        "{told:?}"
    );
    assert_eq!(database.locations(), (0, 0));
    database.query(&format!("{setting}0"));
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (5000, 5000));
}

#[test]
fn a_server_that_hangs_is_noticed() {
    let database = Database::start();
    let proxy = Proxy::start(database.services.clickhouse_url(), Damage::Hang);
    through(&database, &proxy, 2, 1000);
}

/// [`send_through`] damage after which the table has to be asked. Returns how many rows each
/// batch had.
pub(crate) fn through(
    database: &Database,
    proxy: &Proxy,
    times: usize,
    batch_rows: usize,
) -> Vec<usize> {
    let (summary, seen) = send_through(database, proxy, times, batch_rows);
    assert!(
        summary.stats.reconciled as usize >= times,
        "{:?}",
        summary.stats
    );
    stored(&seen)
}

/// Sends rows through a proxy that does damage to the first `times` inserts.
pub(crate) fn send_through(
    database: &Database,
    proxy: &Proxy,
    times: usize,
    batch_rows: usize,
) -> (Summary, Arc<Mutex<Vec<Notice>>>) {
    proxy.left.store(times, Ordering::SeqCst);
    let mut options = options(server_at(&proxy.url));
    options.timeout = Duration::from_secs(1);
    options.batch_rows = batch_rows;
    let (observer, seen) = notices();
    let writer = Writer::start(options, Some(observer)).unwrap();
    let batches = (20_000 / batch_rows).max(5);
    for batch in 0..batches {
        let first = (batch * batch_rows) as i64;
        writer
            .send(locations(first..first + batch_rows as i64), Origin::New)
            .unwrap();
        // So that they are batches of their own.
        thread::sleep(Duration::from_millis(15));
    }
    let summary = writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert_eq!(proxy.left.load(Ordering::SeqCst), 0, "all damage was done");
    let all = (batches * batch_rows) as u64;
    assert_eq!(summary.stats.locations_stored, all);
    assert_eq!(database.locations(), (all, all));
    database.assert_one_part_each("driver_locations", stored(&seen));
    (summary, seen)
}

/// What is read again leaves half of the memory to what happens now.
#[test]
fn rows_read_again_leave_half_of_the_memory_to_new_ones() {
    let mut database = Database::start();
    database.services.stop_clickhouse().unwrap();
    let mut options = options(database.server());
    options.max_buffered_rows = 10_000;
    let writer = Arc::new(Writer::start(options, None).unwrap());
    assert!(writer.has_stored(writer.sent()));
    assert_eq!(writer.waiting_since(), None);
    let before = Instant::now();
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = {
        let (writer, sent) = (writer.clone(), sent.clone());
        thread::spawn(move || {
            for chunk in 0..20_i64 {
                let rows = locations(chunk * 1000..(chunk + 1) * 1000);
                writer.send(rows, Origin::Doubtful).unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    thread::sleep(Duration::from_millis(700));
    // The sixth began at a half.
    assert_eq!(sent.load(Ordering::SeqCst), 6);
    let mut new = 20_000;
    while writer
        .try_send(locations(new..new + 1000), Origin::New)
        .unwrap()
        .is_ok()
    {
        new += 1000;
    }
    assert_eq!(new, 24_000);
    assert_eq!(writer.stats().buffered_rows, 10_000);
    let all_sent = writer.sent();
    assert!(!writer.has_stored(all_sent));
    let since = writer.waiting_since().unwrap();
    assert!(since >= before && since.elapsed() >= Duration::from_millis(600));

    database.services.start_clickhouse().unwrap();
    sender.join().unwrap();
    wait_until(&writer, "all is stored", |writer| {
        writer.waiting_since().is_none()
    });
    assert!(writer.has_stored(all_sent));
    let writer = Arc::into_inner(writer).unwrap();
    let summary = writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert!(summary.stats.blocked > 0);
    assert_eq!(database.locations(), (24_000, 24_000));
}

#[test]
fn a_parcel_larger_than_the_bound_passes_alone() {
    let database = Database::start();
    let mut options = options(database.server());
    options.max_buffered_rows = 1000;
    let writer = Writer::start(options, None).unwrap();
    for start in [0, 3000] {
        writer
            .send(locations(start..start + 3000), Origin::New)
            .unwrap();
    }
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (6000, 6000));
}

#[test]
fn a_table_that_is_stuck_stops_no_other() {
    let database = Database::start();
    database.query("RENAME TABLE riderflow.driver_locations TO riderflow.away");
    let writer = Writer::start(options(database.server()), None).unwrap();
    writer.send(locations(0..60_000), Origin::New).unwrap();
    // Time for it to be cut.
    thread::sleep(Duration::from_millis(300));
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
    writer
        .send(Rows::Rejected(letters.collect()), Origin::New)
        .unwrap();
    wait_until(&writer, "dead letters are stored", |writer| {
        writer.stats().rejected_stored == 1000
    });
    database.query("RENAME TABLE riderflow.away TO riderflow.driver_locations");
    writer.flush_and_stop(Duration::from_secs(60)).unwrap();
    assert_eq!(database.locations(), (60_000, 60_000));
}

fn wait_until(writer: &Writer, what: &str, is_so: impl Fn(&Writer) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so(writer) {
        assert!(
            Instant::now() < deadline,
            "not within 20 s: {what}; {:?}",
            writer.stats()
        );
        thread::sleep(Duration::from_millis(20));
    }
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
        writer
            .send(locations(sent..sent + 1000), Origin::New)
            .unwrap();
        sent += 1000;
        thread::sleep(Duration::from_millis(50));
    }
    // From here on they gather, although a thousand are a batch.
    for _ in 0..20 {
        writer
            .send(locations(sent..sent + 1000), Origin::New)
            .unwrap();
        sent += 1000;
        thread::sleep(Duration::from_millis(20));
    }
    database.query(&format!("{setting}3000"));
    database.query("SYSTEM START MERGES riderflow.driver_locations");
    writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert_eq!(database.locations(), (sent as u64, sent as u64));
    assert!(stored(&seen).into_iter().max() >= Some(10_000));
}

#[test]
fn a_stop_without_a_server_says_what_is_left() {
    let mut database = Database::start();
    database.services.stop_clickhouse().unwrap();
    let writer = Writer::start(options(database.server()), None).unwrap();
    writer.send(locations(0..10), Origin::New).unwrap();
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
    first.send(locations(0..3000), Origin::New).unwrap();
    while first.stats().locations_stored < 3000 {
        thread::sleep(Duration::from_millis(20));
    }
    let mut later = options(database.server());
    later.generation = 2;
    let second = Writer::start(later, None).unwrap();
    // A replay: some of it is there.
    second
        .send(locations(1000..5000), Origin::Doubtful)
        .unwrap();
    second.send(locations(5000..6000), Origin::New).unwrap();
    second.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (6000, 6000));

    // The first wakes up with rows that the second has stored as well.
    let _ = first.send(locations(3000..4000), Origin::New);
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match first.send(locations(4000..4001), Origin::New) {
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
    writer.send(locations(0..100), Origin::New).unwrap();
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

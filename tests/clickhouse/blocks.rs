//! Batches that come in several blocks are stored as a whole or not at all.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use riderflow::clickhouse::{Notice, Options, Origin, Rows, Writer};
use riderflow::model::{DeadLetter, Fault, Input, Place, Reason, Source};

use crate::faults::{forget_tokens, send_through, through};
use crate::proxy::{Cut, Damage, Proxy};
use crate::{Database, SOME_DAY_MS, notices, options, stored};

/// Rows of a batch that comes in four blocks.
const SEVERAL_BLOCKS: usize = 30_000;
const IN_THE_THIRD: Cut = Cut {
    blocks: 2,
    bytes: 5000,
};
const AFTER_THE_THIRD: Cut = Cut {
    blocks: 3,
    bytes: 0,
};

#[test]
fn damage_in_the_midst_of_a_batch_loses_and_repeats_no_row() {
    for damage in [
        Damage::LoseAnswer,
        Damage::CutRequest(IN_THE_THIRD),
        Damage::EndRequest(AFTER_THE_THIRD),
        Damage::FinishLate(Duration::from_millis(1500)),
    ] {
        let database = Database::start();
        forget_tokens(&database);
        let proxy = Proxy::start(database.services.clickhouse_url(), damage);
        let stored = through(&database, &proxy, 3, SEVERAL_BLOCKS);
        if matches!(damage, Damage::FinishLate(_)) {
            thread::sleep(Duration::from_millis(2500));
            assert_eq!(proxy.late.load(Ordering::SeqCst), 3);
            let all = stored.iter().sum::<usize>() as u64;
            assert_eq!(database.locations(), (all, all), "late ones have come");
            database.assert_one_part_each("driver_locations", stored);
        }
    }
}

/// The server says that it could not read a block, so it has stored none of those before it,
/// and the table need not be asked.
#[test]
fn blocks_before_one_that_can_not_be_read_are_not_stored() {
    let database = Database::start();
    forget_tokens(&database);
    let proxy = Proxy::start(
        database.services.clickhouse_url(),
        Damage::EndRequest(IN_THE_THIRD),
    );
    let (summary, seen) = send_through(&database, &proxy, 3, SEVERAL_BLOCKS);
    assert_eq!(summary.stats.reconciled, 0);
    let seen = seen.lock().unwrap();
    let failed = seen.iter().filter_map(|notice| match notice {
        Notice::Failed { code, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(failed.collect::<Vec<_>>(), [Some(33); 3], "{seen:?}");
}

/// Of which a block has few.
#[test]
fn large_dead_letters_are_one_part() {
    const LETTERS: i64 = 5000;
    const BYTES: usize = 8 << 10;
    let database = Database::start();
    let (observer, seen) = notices();
    let options = Options {
        batch_rows: 100_000,
        ..options(database.server())
    };
    let writer = Writer::start(options, Some(observer)).unwrap();
    let letters = (0..LETTERS).map(|offset| DeadLetter {
        place: Place {
            at_ms: SOME_DAY_MS,
            source: Source {
                input: Input::Orders,
                partition: 0,
                offset,
            },
        },
        key: None,
        value: Some(vec![offset as u8; BYTES]),
        fault: Fault {
            reason: Reason::Empty,
            detail: String::new(),
        },
    });
    writer
        .send(Rows::Rejected(letters.collect()), Origin::New)
        .unwrap();
    writer.flush_and_stop(Duration::from_secs(30)).unwrap();
    assert_eq!(stored(&seen), [LETTERS as usize]);
    database.assert_one_part_each("rejected_updates", stored(&seen));
    assert_eq!(
        database.query(&format!(
            "SELECT count(), uniqExact(kafka_offset), \
             countIf(value = repeat(char(kafka_offset % 256), {BYTES})) \
             FROM riderflow.rejected_updates"
        )),
        format!("{LETTERS}\t{LETTERS}\t{LETTERS}")
    );
}

//! How many bytes the simulated city's rows take on disk, and in how many inserts they come.

use std::time::Duration;

use riderflow::clickhouse::{Options, Origin, Rows, Writer};
use riderflow::simulate::Plan;

use crate::city_rows::CityRows;
use crate::{Database, SOME_DAY_MS, notices, options, stored};

/// Bytes of a row on disk, all in all, once its part is merged.
const MOST_BYTES: f64 = 12.0;
/// Rows of an insert at full speed, on average.
const FEWEST_ROWS: usize = 50_000;
/// Drivers, an update a second each, for [`SECONDS`].
const DRIVERS: u32 = 1_000;
const SECONDS: i64 = 300;

#[test]
fn a_row_takes_a_dozen_bytes_and_comes_with_many_others() {
    let database = Database::start();
    let mut city = CityRows::new(Plan::new(DRIVERS, DRIVERS / 3, 0, 42, SOME_DAY_MS));
    let mut parcels = Vec::new();
    while city.now_ms() < SECONDS * 1_000 {
        let mut rows = Vec::new();
        for _ in 0..50 {
            city.step(&mut rows);
        }
        parcels.push(rows);
    }
    let sent: usize = parcels.iter().map(Vec::len).sum();

    // As they come from a backlog.
    let (observer, seen) = notices();
    let options = Options {
        batch_rows: 100_000,
        batch_ms: 1_000,
        ..options(database.server())
    };
    let writer = Writer::start(options, Some(observer)).unwrap();
    for rows in parcels {
        writer.send(Rows::Locations(rows), Origin::New).unwrap();
    }
    writer.flush_and_stop(Duration::from_secs(60)).unwrap();
    let stored = stored(&seen);
    assert_eq!(stored.iter().sum::<usize>(), sent);
    assert!(stored.len() <= sent / FEWEST_ROWS, "{stored:?}");
    database.assert_one_part_each("driver_locations", stored.clone());

    database.query("OPTIMIZE TABLE riderflow.driver_locations FINAL");
    eprintln!(
        "{}",
        database.query(
            "SELECT column, round(sum(column_data_compressed_bytes) / sum(rows), 3) \
             FROM system.parts_columns \
             WHERE database = 'riderflow' AND table = 'driver_locations' AND active \
             GROUP BY column ORDER BY min(column_position)"
        )
    );
    let bytes: f64 = database
        .query(
            "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts \
             WHERE database = 'riderflow' AND table = 'driver_locations' AND active",
        )
        .parse()
        .unwrap();
    eprintln!("{bytes:.2} bytes a row of {sent}, stored in batches of {stored:?}");
    assert!(bytes <= MOST_BYTES, "{bytes} bytes a row");
}

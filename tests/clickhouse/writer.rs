//! What is stored, and in which batches.

use std::thread;
use std::time::{Duration, Instant};

use riderflow::clickhouse::{Origin, Rows, StoredEvent, Writer};
use riderflow::model::{
    CellWindow, DeadLetter, DriverId, DriverWindow, Epoch, EventKind, Fault, Flag, Input, Place,
    Position, Reason, SessionWindow, Source,
};

use crate::{Database, SOME_DAY_MS, location, locations, notices, options, stored};

#[test]
fn all_three_tables_hold_what_was_sent() {
    let database = Database::start();
    let writer = Writer::start(options(database.server()), None).unwrap();
    let mut teleport = location(7);
    teleport.flag = Flag::Teleport;
    teleport.update.state = None;
    writer
        .send(Rows::Locations(vec![location(6), teleport]), Origin::New)
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
    writer.send(Rows::Events(vec![event]), Origin::New).unwrap();
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
    writer
        .send(Rows::Rejected(vec![letter]), Origin::New)
        .unwrap();
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
fn the_tables_of_windows_hold_what_was_sent() {
    let database = Database::start();
    let writer = Writer::start(options(database.server()), None).unwrap();
    let start_ms = 1_790_000_040_000;
    let cell = CellWindow {
        cell: 0x88_6189_2d8d_ffff,
        start_ms,
        drivers: 3,
        updates: 70,
        mean_speed_mps: Some(7.25),
        version: Epoch(17_900_000_600),
    };
    let driver = DriverWindow {
        driver: DriverId(453),
        start_ms,
        updates: 60,
        distance_m: 433.25,
        max_speed_mps: None,
        version: Epoch(17_900_000_601),
    };
    let session = |start_ms, updates| SessionWindow {
        driver: DriverId(453),
        start_ms,
        end_ms: start_ms + 50_333,
        distance_m: 433.5,
        updates,
        version: Epoch(17_900_000_602),
    };
    let sessions = vec![session(start_ms + 123, 60), session(start_ms + 999, 0)];
    for rows in [
        Rows::Cells(vec![cell]),
        Rows::Drivers(vec![driver]),
        Rows::Sessions(sessions),
    ] {
        writer.send(rows, Origin::New).unwrap();
    }
    let summary = writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(summary.stats.windows_stored, 4);
    assert_eq!(
        database.query(
            "SELECT cell, toUnixTimestamp(minute), drivers, updates, mean_speed, epoch \
             FROM riderflow.cell_minutes"
        ),
        format!(
            "{}\t1790000040\t3\t70\t7.25\t17900000600",
            0x88_6189_2d8d_ffff_u64
        )
    );
    assert_eq!(
        database.query(
            "SELECT driver_id, toUnixTimestamp(minute), updates, distance_m, max_speed, epoch \
             FROM riderflow.driver_minutes"
        ),
        "453\t1790000040\t60\t433.25\t\\N\t17900000601"
    );
    assert_eq!(
        database.query(
            "SELECT driver_id, toUnixTimestamp64Milli(start), toUnixTimestamp64Milli(end), \
             distance_m, updates, epoch, is_deleted FROM riderflow.driver_sessions ORDER BY start"
        ),
        "453\t1790000040123\t1790000090456\t433.5\t60\t17900000602\t0\n\
         453\t1790000040999\t1790000091332\t433.5\t0\t17900000602\t1"
    );
}

/// The questions after a restart read the projections, not the tables.
#[test]
fn what_is_asked_by_identity_is_no_scan() {
    let database = Database::start();
    database.query(
        "INSERT INTO riderflow.driver_locations (driver_id, timestamp, kafka_partition, kafka_offset) \
         SELECT cityHash64(number) % 10000, fromUnixTimestamp64Milli(toInt64(1790000000000 + number)), \
         number % 2, number FROM numbers(1000000)",
    );
    database.query(
        "INSERT INTO riderflow.events (id, driver_id, event_time) SELECT \
         concat('rider-updates/0/', toString(number), '/geofence.entered/f/453'), \
         cityHash64(number) % 10000, fromUnixTimestamp64Milli(toInt64(1790000000000 + number)) \
         FROM numbers(200000)",
    );
    for (question, projection) in [
        (
            "SELECT kafka_offset FROM riderflow.driver_locations \
             WHERE kafka_partition = 1 AND kafka_offset BETWEEN 5000 AND 9000",
            "by_source",
        ),
        (
            "SELECT id FROM riderflow.events \
             WHERE id IN ('rider-updates/0/77/geofence.entered/f/453', 'x')",
            "by_id",
        ),
    ] {
        let plan = database.query(&format!("EXPLAIN indexes = 1 {question}"));
        assert!(plan.contains(projection), "{plan}");
    }
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
    writer.send(Rows::Locations(rows), Origin::New).unwrap();
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
    writer.send(Rows::Locations(rows), Origin::New).unwrap();
    writer.flush_and_stop(Duration::from_secs(20)).unwrap();
    assert_eq!(database.locations(), (30_000, 30_000));
    assert_eq!(stored(&seen), [10_000, 10_000, 10_000]);
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
            .send(locations(epoch * 2000..(epoch + 1) * 2000), Origin::New)
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
    let sizes = stored(&seen);
    assert!(
        sizes.iter().filter(|rows| **rows == 1000).count() >= sizes.len() / 2,
        "{sizes:?}"
    );
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
            .send(
                Rows::Events((0..upto).map(event).collect()),
                Origin::Doubtful,
            )
            .unwrap();
        writer
            .send(
                Rows::Rejected((0..upto as i64).map(letter).collect()),
                Origin::Doubtful,
            )
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
    // A mark never goes back.
    writer.mark(Epoch(0)).unwrap();
    assert_eq!(writer.stored_epoch(), Some(Epoch(1)));
    writer.send(locations(0..10), Origin::New).unwrap();
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
    writer
        .send(Rows::Rejected(vec![letter]), Origin::New)
        .unwrap();
    writer.mark(Epoch(3)).unwrap();
    while writer.stats().rejected_stored == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(writer.stored_epoch(), Some(Epoch(1)));
    database.query("RENAME TABLE riderflow.away TO riderflow.driver_locations");
    wait_for(Epoch(3));
}

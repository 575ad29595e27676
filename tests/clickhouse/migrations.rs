//! Tables compared with what the migrations make.

use riderflow::clickhouse::{DATABASE, migrate};

use crate::{Database, server_at};

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

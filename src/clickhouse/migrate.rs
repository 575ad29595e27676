//! The numbered migrations under `schemas/clickhouse`, and the comparison of tables with them.
//!
//! Owns the database's shape. [`apply`] runs what is not recorded in `schema_migrations` yet
//! and then compares; [`verify`] only compares. The expected shape has one source: the same
//! migrations are run in a scratch database, the server describes both, and the scratch
//! database is dropped. Never alters a table that exists: a difference is an error that names
//! the column, what was expected, what was found and the statement that would mend it.
//!
//! Retention is the operator's: a TTL or further settings on a table are no difference.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use clickhouse::error::{Error, Result};
use clickhouse::{Client, Row};
use serde::Deserialize;

use super::fault::Fault;
use super::{Server, within};

mod difference;

pub use difference::Difference;
use difference::{Shape, compare};

/// One file under `schemas/clickhouse`.
#[derive(Clone, Copy, Debug)]
struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../schemas/clickhouse/", $name, ".sql")),
        }
    };
}

/// In the order in which they are applied. A file that has been released never changes: a
/// later one alters what it made.
const MIGRATIONS: [Migration; 10] = [
    migration!(1, "001_driver_locations"),
    migration!(2, "002_events"),
    migration!(3, "003_cell_minutes"),
    migration!(4, "004_driver_minutes"),
    migration!(5, "005_driver_sessions"),
    migration!(6, "006_rejected_updates"),
    migration!(7, "007_writers"),
    migration!(8, "008_by_identity"),
    migration!(9, "009_seals"),
    migration!(10, "010_dense_positions"),
];

const CREATE_JOURNAL: &str = "CREATE TABLE IF NOT EXISTS schema_migrations
(
    version    UInt32                       COMMENT 'Number of the file under schemas/clickhouse',
    name       String                       COMMENT 'Name of the file, without .sql',
    checksum   String                       COMMENT 'FNV-1a of its bytes, 64 bits in hexadecimal',
    applied_at DateTime64(3) DEFAULT now64(3) COMMENT 'When it was applied'
)
ENGINE = ReplacingMergeTree
ORDER BY version
COMMENT 'Migrations that have been applied'";

/// How long the server may take over one statement.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to answer at all.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// A scratch database of this age was left by a process that died.
const LEFT_OVER_S: u64 = 3600;

impl Migration {
    /// FNV-1a: it finds an edited file, and that is all it is for.
    fn checksum(&self) -> String {
        let hash = self
            .sql
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("{hash:016x}")
    }

    /// The statements: HTTP takes one at a time.
    fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql
            .split(";\n")
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }
}

/// Tables that can't be made or are not as expected.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nothing answers at the address.
    #[error(
        "could not reach ClickHouse at {url}: {reason}; start it (`riderflow up` starts one on this machine) or set clickhouse.url or RIDERFLOW_CLICKHOUSE to its HTTP address"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What the attempt came to.
        reason: String,
    },
    /// The server answered with an error.
    #[error("could not {attempt} in ClickHouse at {url}: {reason}; {advice}")]
    Refused {
        /// What was attempted.
        attempt: String,
        /// The address.
        url: String,
        /// The server's words.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// The journal disagrees with this binary's migrations.
    #[error("{0}")]
    Journal(String),
    /// Tables differ from the expected ones.
    #[error("{}", lines(.0))]
    Different(Vec<Difference>),
}

fn lines(differences: &[Difference]) -> String {
    let mut text = String::from("the tables in ClickHouse are not as expected:");
    for difference in differences {
        text.push_str(&format!("\n  {difference}"));
    }
    text
}

/// Something that [`apply`] saw to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it is, such as `table riderflow.events`.
    pub object: String,
    /// Whether it was made now, or was there.
    pub created: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, created } = self;
        write!(
            f,
            "{object}: {}",
            if *created { "created" } else { "was there" }
        )
    }
}

/// Makes the database and its tables, and compares them with the expected ones. Safe to repeat.
///
/// # Errors
/// See [`MigrateError`].
pub fn apply(server: &Server, database: &str) -> Result<Vec<Outcome>, MigrateError> {
    blocking(server, async |schema| schema.apply().await, database)
}

/// Compares the tables with the expected ones; needs the right to make a scratch database.
///
/// # Errors
/// See [`MigrateError`].
pub fn verify(server: &Server, database: &str) -> Result<(), MigrateError> {
    blocking(server, async |schema| schema.verify().await, database)
}

fn blocking<T>(
    server: &Server,
    work: impl AsyncFnOnce(&Schema<'_>) -> Result<T, MigrateError>,
    database: &str,
) -> Result<T, MigrateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| MigrateError::Journal(format!("could not start a runtime: {error}")))?;
    runtime.block_on(async {
        let schema = Schema {
            server,
            database,
            client: server.client(),
        };
        let answer = schema.client.query("SELECT 1").execute();
        schema.judge("ask anything", within(FIRST_ANSWER, answer).await)?;
        work(&schema).await
    })
}

/// A database on a server.
struct Schema<'a> {
    server: &'a Server,
    database: &'a str,
    client: Client,
}

#[derive(Row, Deserialize)]
struct Applied {
    version: u32,
    name: String,
    checksum: String,
}

impl Schema<'_> {
    fn judge<T>(&self, attempt: &str, result: Result<T>) -> Result<T, MigrateError> {
        result.map_err(|error| {
            let fault = Fault::of(&error);
            let url = self.server.url.clone();
            match error {
                Error::Network(_) | Error::TimedOut => MigrateError::Unreachable {
                    url,
                    reason: fault.text,
                },
                _ => MigrateError::Refused {
                    attempt: attempt.into(),
                    url,
                    advice: fault.advice(),
                    reason: fault.text,
                },
            }
        })
    }

    async fn run(&self, attempt: &str, database: &str, sql: &str) -> Result<(), MigrateError> {
        let mut client = self.client.clone();
        if !database.is_empty() {
            client = client.with_database(database);
        }
        // Verbatim: a `?` in a comment is no placeholder.
        let statement = client.query_raw(sql).execute();
        self.judge(attempt, within(LIMIT, statement).await)
    }

    async fn apply(&self) -> Result<Vec<Outcome>, MigrateError> {
        let database = self.database;
        let before = self.tables().await?;
        let found = self
            .client
            .query("SELECT count() FROM system.databases WHERE name = ?")
            .bind(database)
            .fetch_one::<u64>();
        let found = self.judge("list databases", within(LIMIT, found).await)?;
        self.run(
            "create the database",
            "",
            &format!("CREATE DATABASE IF NOT EXISTS `{database}`"),
        )
        .await?;
        self.run("create schema_migrations", database, CREATE_JOURNAL)
            .await?;

        let applied = self.journal().await?;
        for migration in &MIGRATIONS {
            if !applied.contains_key(&migration.version) {
                self.migrate(migration, database).await?;
                self.record(migration).await?;
            }
        }
        self.verify().await?;

        let mut outcomes = vec![Outcome {
            object: format!("database {database}"),
            created: found == 0,
        }];
        outcomes.extend(self.tables().await?.into_iter().map(|table| Outcome {
            object: format!("table {database}.{table}"),
            created: !before.contains(&table),
        }));
        Ok(outcomes)
    }

    async fn migrate(&self, migration: &Migration, database: &str) -> Result<(), MigrateError> {
        let attempt = format!("apply {}.sql", migration.name);
        for statement in migration.statements() {
            self.run(&attempt, database, statement).await?;
        }
        Ok(())
    }

    async fn record(&self, migration: &Migration) -> Result<(), MigrateError> {
        let insert = self
            .client
            .clone()
            .with_database(self.database)
            .query("INSERT INTO schema_migrations (version, name, checksum) SELECT ?, ?, ?")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            .with_setting("async_insert", "0")
            .execute();
        self.judge("record a migration", within(LIMIT, insert).await)
    }

    /// What has been applied, by version.
    async fn journal(&self) -> Result<BTreeMap<u32, Applied>, MigrateError> {
        let rows = self
            .client
            .clone()
            .with_database(self.database)
            .query("SELECT version, name, checksum FROM schema_migrations FINAL")
            .fetch_all::<Applied>();
        let rows = self.judge("read schema_migrations", within(LIMIT, rows).await)?;
        let database = self.database;
        for row in &rows {
            let Some(known) = MIGRATIONS.iter().find(|known| known.version == row.version) else {
                return Err(MigrateError::Journal(format!(
                    "migration {} ({}) was applied to {database} by a newer riderflow than this one; use that one",
                    row.version, row.name
                )));
            };
            if row.checksum != known.checksum() {
                return Err(MigrateError::Journal(format!(
                    "migration {} was applied to {database} as {} with checksum {}, and is now {} with checksum {}: \
                     an applied file must not change; restore it, and put the change into a new one",
                    row.version,
                    row.name,
                    row.checksum,
                    known.name,
                    known.checksum()
                )));
            }
        }
        Ok(rows.into_iter().map(|row| (row.version, row)).collect())
    }

    async fn tables(&self) -> Result<Vec<String>, MigrateError> {
        let names = self
            .client
            .query("SELECT name FROM system.tables WHERE database = ? ORDER BY name")
            .bind(self.database)
            .fetch_all::<String>();
        self.judge("list tables", within(LIMIT, names).await)
    }

    async fn verify(&self) -> Result<(), MigrateError> {
        self.drop_left_overs().await?;
        let now_s = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let scratch = format!("riderflow_expected_{now_s}_{:08x}", rand::random::<u32>());
        self.run(
            "create a scratch database, to compare tables with",
            "",
            &format!("CREATE DATABASE `{scratch}`"),
        )
        .await?;
        let differences = self.compare_with(&scratch).await;
        let dropped = self
            .run(
                "drop the scratch database",
                "",
                &format!("DROP DATABASE `{scratch}`"),
            )
            .await;
        let differences = differences?;
        dropped?;
        if differences.is_empty() {
            Ok(())
        } else {
            Err(MigrateError::Different(differences))
        }
    }

    async fn compare_with(&self, scratch: &str) -> Result<Vec<Difference>, MigrateError> {
        self.run("create schema_migrations", scratch, CREATE_JOURNAL)
            .await?;
        for migration in &MIGRATIONS {
            self.migrate(migration, scratch).await?;
        }
        let expected = Shape::read(&self.client, scratch);
        let expected = self.judge("describe tables", within(LIMIT, expected).await)?;
        let found = Shape::read(&self.client, self.database);
        let found = self.judge("describe tables", within(LIMIT, found).await)?;
        Ok(compare(self.database, &expected, &found))
    }

    async fn drop_left_overs(&self) -> Result<(), MigrateError> {
        let names = self
            .client
            .query(
                "SELECT name FROM system.databases WHERE match(name, '^riderflow_expected_[0-9]+_') \
                 AND toUInt64OrZero(splitByChar('_', name)[3]) + ? < toUnixTimestamp(now())",
            )
            .bind(LEFT_OVER_S)
            .fetch_all::<String>();
        for name in self.judge("list databases", within(LIMIT, names).await)? {
            self.run(
                "drop an old scratch database",
                "",
                &format!("DROP DATABASE IF EXISTS `{name}`"),
            )
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_and_name_their_files() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            assert!(
                migration
                    .name
                    .starts_with(&format!("{:03}_", migration.version))
            );
            assert!(migration.statements().count() >= 1, "{}", migration.name);
        }
    }

    #[test]
    fn every_file_in_the_folder_is_a_migration() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/clickhouse");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder is part of the repository")
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        let known: Vec<_> = MIGRATIONS
            .iter()
            .map(|known| format!("{}.sql", known.name))
            .collect();
        assert_eq!(names, known);
    }

    #[test]
    fn every_column_has_a_comment() {
        for migration in &MIGRATIONS {
            let count = |text| migration.sql.matches(text).count();
            // Every column has a codec; those that are altered or made are held to it alike.
            let (columns, tables) = (count("CODEC("), count("CREATE TABLE"));
            assert!(columns > 0 || tables == 0, "{}", migration.name);
            assert_eq!(count("COMMENT '"), columns + tables, "{}", migration.name);
        }
    }
}

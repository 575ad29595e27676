//! How two databases' tables differ, as their server describes them.

use std::collections::BTreeMap;
use std::fmt;

use clickhouse::error::Result;
use clickhouse::{Client, Row};
use serde::Deserialize;

/// One thing about a table that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Database and table.
    pub table: String,
    /// The column; `None`: the table itself.
    pub column: Option<String>,
    /// What about it, such as `type`.
    pub property: String,
    /// As it should be; empty: it should not be there.
    pub expected: String,
    /// As it is; empty: it is not there.
    pub found: String,
    /// What would mend it.
    pub fix: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_nothing = |text: &str| -> String {
            if text.is_empty() {
                "nothing".into()
            } else {
                text.to_owned()
            }
        };
        write!(f, "{}", self.table)?;
        if let Some(column) = &self.column {
            write!(f, ".{column}")?;
        }
        write!(
            f,
            ": {}: expected {}, found {}; {}",
            self.property,
            or_nothing(&self.expected),
            or_nothing(&self.found),
            self.fix
        )
    }
}

/// What a server says about the tables of a database.
#[derive(Debug, Default)]
pub(super) struct Shape {
    tables: BTreeMap<String, TableShape>,
}

#[derive(Debug, Default)]
struct TableShape {
    /// Engine with its parameters.
    engine: String,
    partition_key: String,
    sorting_key: String,
    settings: BTreeMap<String, String>,
    columns: Vec<ColumnShape>,
    indices: BTreeMap<String, String>,
}

#[derive(Debug, Row, Deserialize)]
struct ColumnShape {
    table: String,
    name: String,
    r#type: String,
    comment: String,
    codec: String,
    default: String,
}

#[derive(Debug, Row, Deserialize)]
struct TableRow {
    name: String,
    engine_full: String,
    partition_key: String,
    sorting_key: String,
}

#[derive(Debug, Row, Deserialize)]
struct IndexRow {
    table: String,
    name: String,
    definition: String,
}

impl Shape {
    pub(super) async fn read(client: &Client, database: &str) -> Result<Self> {
        let mut shape = Self::default();
        let tables = client
            .query(
                "SELECT name, engine_full, partition_key, sorting_key \
                 FROM system.tables WHERE database = ?",
            )
            .bind(database)
            .fetch_all::<TableRow>()
            .await?;
        for row in tables {
            let (engine, settings) = split_engine(&row.engine_full);
            let table = TableShape {
                engine,
                settings,
                partition_key: row.partition_key,
                sorting_key: row.sorting_key,
                ..TableShape::default()
            };
            shape.tables.insert(row.name, table);
        }
        let columns = client
            .query(
                "SELECT table, name, type, comment, compression_codec AS codec, \
                 trim(concat(toString(default_kind), ' ', default_expression)) AS default \
                 FROM system.columns WHERE database = ? ORDER BY table, position",
            )
            .bind(database)
            .fetch_all::<ColumnShape>()
            .await?;
        for column in columns {
            if let Some(table) = shape.tables.get_mut(&column.table) {
                table.columns.push(column);
            }
        }
        let indices = client
            .query(
                "SELECT table, name, concat(expr, ' TYPE ', type_full, ' GRANULARITY ', \
                 toString(granularity)) AS definition \
                 FROM system.data_skipping_indices WHERE database = ?",
            )
            .bind(database)
            .fetch_all::<IndexRow>()
            .await?;
        for index in indices {
            if let Some(table) = shape.tables.get_mut(&index.table) {
                table.indices.insert(index.name, index.definition);
            }
        }
        Ok(shape)
    }
}

/// `ReplacingMergeTree(epoch) PARTITION BY … SETTINGS a = 1, b = 2` into engine and settings.
fn split_engine(engine_full: &str) -> (String, BTreeMap<String, String>) {
    let end = [
        " PARTITION BY ",
        " PRIMARY KEY ",
        " ORDER BY ",
        " SETTINGS ",
    ]
    .iter()
    .filter_map(|clause| engine_full.find(clause))
    .min()
    .unwrap_or(engine_full.len());
    let settings = engine_full
        .split_once(" SETTINGS ")
        .map_or("", |(_, settings)| settings)
        .split(", ")
        .filter_map(|setting| setting.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (engine_full[..end].to_owned(), settings)
}

/// All that `found` lacks or has otherwise. Tables, settings and indices that only `found` has
/// are the operator's own.
pub(super) fn compare(database: &str, expected: &Shape, found: &Shape) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (name, expected) in &expected.tables {
        let table = format!("{database}.{name}");
        match found.tables.get(name) {
            Some(found) => compare_table(&table, expected, found, &mut differences),
            None => differences.push(Difference {
                fix: format!(
                    "run `riderflow init`; if it was dropped by hand, first \
                     DELETE FROM {database}.schema_migrations WHERE name LIKE '%\\_{name}'"
                ),
                table,
                column: None,
                property: "table".into(),
                expected: expected.engine.clone(),
                found: String::new(),
            }),
        }
    }
    differences
}

fn compare_table(
    table: &str,
    expected: &TableShape,
    found: &TableShape,
    differences: &mut Vec<Difference>,
) {
    let mut differ =
        |column: Option<&str>, property: &str, expected: &str, found: &str, fix: String| {
            if expected != found {
                differences.push(Difference {
                    table: table.to_owned(),
                    column: column.map(str::to_owned),
                    property: property.to_owned(),
                    expected: expected.to_owned(),
                    found: found.to_owned(),
                    fix,
                });
            }
        };
    let rebuild = || {
        format!(
            "it can't be altered: RENAME TABLE {table} TO {table}_old, run `riderflow init` without \
             its row in schema_migrations, then INSERT INTO {table} SELECT * FROM {table}_old"
        )
    };
    differ(None, "engine", &expected.engine, &found.engine, rebuild());
    differ(
        None,
        "partition key",
        &expected.partition_key,
        &found.partition_key,
        rebuild(),
    );
    differ(
        None,
        "sorting key",
        &expected.sorting_key,
        &found.sorting_key,
        rebuild(),
    );
    for (name, value) in &expected.settings {
        let is = found.settings.get(name).map_or("", String::as_str);
        let fix = format!("ALTER TABLE {table} MODIFY SETTING {name} = {value}");
        differ(None, &format!("setting {name}"), value, is, fix);
    }
    for (name, definition) in &expected.indices {
        let is = found.indices.get(name).map_or("", String::as_str);
        let drop = if is.is_empty() {
            String::new()
        } else {
            format!("DROP INDEX {name}, ")
        };
        let fix = format!("ALTER TABLE {table} {drop}ADD INDEX {name} {definition}");
        differ(None, &format!("index {name}"), definition, is, fix);
    }

    let mut previous: Option<&str> = None;
    for column in &expected.columns {
        let name = column.name.as_str();
        let place = previous.map_or("FIRST".to_owned(), |previous| format!("AFTER {previous}"));
        match found.columns.iter().find(|other| other.name == name) {
            None => {
                let fix = format!(
                    "ALTER TABLE {table} ADD COLUMN {} {place}",
                    column.definition()
                );
                differ(Some(name), "column", &column.definition(), "", fix);
            }
            Some(other) => {
                let alter = |what: &str| format!("ALTER TABLE {table} MODIFY COLUMN {name} {what}");
                let by_type = alter(&column.r#type);
                differ(Some(name), "type", &column.r#type, &other.r#type, by_type);
                let by_default = if column.default.is_empty() {
                    alter("REMOVE DEFAULT")
                } else {
                    alter(&column.default)
                };
                differ(
                    Some(name),
                    "default",
                    &column.default,
                    &other.default,
                    by_default,
                );
                let by_codec = alter(&column.codec);
                differ(Some(name), "codec", &column.codec, &other.codec, by_codec);
                let comment = format!(
                    "ALTER TABLE {table} COMMENT COLUMN {name} '{}'",
                    column.comment.replace('\'', "''")
                );
                differ(
                    Some(name),
                    "comment",
                    &column.comment,
                    &other.comment,
                    comment,
                );
            }
        }
        previous = Some(name);
    }
    for column in &found.columns {
        if !expected
            .columns
            .iter()
            .any(|other| other.name == column.name)
        {
            let fix = format!("ALTER TABLE {table} DROP COLUMN {}", column.name);
            differ(Some(&column.name), "column", "", &column.definition(), fix);
        }
    }
    // Positions of the columns that both have: one that is missing moves no other.
    let order = |of: &TableShape, other: &TableShape| -> Vec<String> {
        let shared = |column: &&ColumnShape| other.columns.iter().any(|o| o.name == column.name);
        of.columns
            .iter()
            .filter(shared)
            .map(|column| column.name.clone())
            .collect()
    };
    let (wanted, is) = (order(expected, found), order(found, expected));
    if let Some(at) = (0..wanted.len()).find(|at| wanted[*at] != is[*at]) {
        // Each after the one before it, from the first that is out of place.
        let moves: Vec<_> = (at..wanted.len())
            .map(|at| {
                let place = match at.checked_sub(1) {
                    Some(before) => format!("AFTER {}", wanted[before]),
                    None => "FIRST".into(),
                };
                let name = &wanted[at];
                let column = expected.columns.iter().find(|column| &column.name == name);
                let r#type = column.map_or("", |column| &column.r#type);
                format!("MODIFY COLUMN {name} {} {place}", r#type)
            })
            .collect();
        let fix = format!("ALTER TABLE {table} {}", moves.join(", "));
        let name = &wanted[at];
        differ(
            Some(name),
            "position",
            &wanted.join(", "),
            &is.join(", "),
            fix,
        );
    }
}

impl ColumnShape {
    fn definition(&self) -> String {
        let Self {
            name,
            r#type,
            comment,
            codec,
            default,
            ..
        } = self;
        let comment = format!("COMMENT '{}'", comment.replace('\'', "''"));
        // In the order that ALTER TABLE takes them.
        let parts = [name, r#type, default, &comment, codec];
        let parts: Vec<_> = parts
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_and_settings_are_told_apart() {
        let (engine, settings) = split_engine(
            "ReplacingMergeTree(epoch) PARTITION BY toYYYYMM(minute, 'UTC') ORDER BY (cell, minute) \
             SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192",
        );
        assert_eq!(engine, "ReplacingMergeTree(epoch)");
        assert_eq!(settings["non_replicated_deduplication_window"], "10000");
        assert_eq!(settings["index_granularity"], "8192");
        assert_eq!(split_engine("Log").0, "Log");
    }
}

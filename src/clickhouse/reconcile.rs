//! Asking a table which rows of a batch it has.
//!
//! The table is the truth about what an insert with a lost answer did, so an answer must be
//! whole and of this moment, whatever the server's defaults are. Questions are by identity and
//! nothing else: a projection, or the table itself, is sorted by it, so they take milliseconds
//! on a table of any size (`schemas/clickhouse/008_by_identity.sql`). Parts that were written
//! before there was a projection are scanned.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use clickhouse::Client;
use clickhouse::error::Result;
use clickhouse::query::Query;
use compact_str::CompactString;

use super::rows::{EventRow, Record, RejectedRow};
use crate::model::Location;

/// Ids in one question: some hundred kilobytes of SQL.
const IDS_AT_ONCE: usize = 10_000;

/// `question` with settings that rule out an answer that is cut short or was true before.
fn whole(question: Query) -> Query {
    question
        .with_setting("use_query_cache", "0")
        .with_setting("read_overflow_mode", "throw")
        .with_setting("result_overflow_mode", "throw")
        .with_setting("timeout_overflow_mode", "throw")
        .with_setting("select_sequential_consistency", "1")
        .with_setting("optimize_use_projections", "1")
        // The answer is sent when it is known to be whole.
        .with_setting("wait_end_of_query", "1")
}

/// A row that its table can be asked for.
pub(super) trait Ask: Record {
    /// Which identities of `rows` the table has. The answer may name others as well.
    fn present(
        client: &Client,
        rows: &[&Self],
    ) -> impl Future<Output = Result<HashSet<Self::Key>>> + Send
    where
        Self: Sized;
}

/// Leaves in `rows` those that are not present, and returns the others.
pub(super) fn keep_missing<R: Record>(rows: &mut Vec<R>, present: &HashSet<R::Key>) -> Vec<R> {
    let (there, missing) = std::mem::take(rows)
        .into_iter()
        .partition(|row| present.contains(&row.key()));
    *rows = missing;
    there
}

/// The least and the greatest of some numbers; an empty range of none.
fn span(numbers: impl Iterator<Item = i64>) -> RangeInclusive<i64> {
    let (least, greatest) = numbers.fold((i64::MAX, i64::MIN), |(least, greatest), number| {
        (least.min(number), greatest.max(number))
    });
    least..=greatest
}

impl Ask for Location {
    /// A batch's offsets lie close together: one range for each Kafka partition.
    async fn present(client: &Client, rows: &[&Self]) -> Result<HashSet<Self::Key>> {
        let mut partitions: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for &row in rows {
            let (partition, offset) = row.key();
            partitions.entry(partition).or_default().push(offset);
        }
        let mut present = HashSet::new();
        for (partition, offsets) in partitions {
            let offsets = span(offsets.into_iter());
            let question = client
                .query(
                    "SELECT kafka_offset FROM driver_locations \
                     WHERE kafka_partition = ? AND kafka_offset BETWEEN ? AND ?",
                )
                .bind(partition)
                .bind(offsets.start())
                .bind(offsets.end());
            let found = whole(question).fetch_all::<i64>().await?;
            present.extend(found.into_iter().map(|offset| (partition, offset)));
        }
        Ok(present)
    }
}

impl Ask for EventRow {
    /// By id, some at a time.
    async fn present(client: &Client, rows: &[&Self]) -> Result<HashSet<Self::Key>> {
        let mut present = HashSet::new();
        for rows in rows.chunks(IDS_AT_ONCE) {
            let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
            let question = client
                .query("SELECT id FROM events WHERE id IN ?")
                .bind(ids)
                // A long list of ids is well over the default of 256 KiB.
                .with_setting("max_query_size", "67108864")
                .with_setting("max_ast_elements", "1000000")
                .with_setting("max_expanded_ast_elements", "1000000");
            let found = whole(question).fetch_all::<String>().await?;
            present.extend(found);
        }
        Ok(present)
    }
}

impl Ask for RejectedRow {
    /// The identity is the sorting key.
    async fn present(client: &Client, rows: &[&Self]) -> Result<HashSet<Self::Key>> {
        let mut sources: BTreeMap<(&CompactString, i32), Vec<&Self>> = BTreeMap::new();
        for &row in rows {
            sources
                .entry((&row.topic, row.kafka_partition))
                .or_default()
                .push(row);
        }
        let mut present = HashSet::new();
        for ((topic, partition), rows) in sources {
            let offsets = span(rows.iter().map(|row| row.kafka_offset));
            let question = client
                .query(
                    "SELECT kafka_offset FROM rejected_updates \
                     WHERE topic = ? AND kafka_partition = ? AND kafka_offset BETWEEN ? AND ?",
                )
                .bind(topic.as_str())
                .bind(partition)
                .bind(offsets.start())
                .bind(offsets.end());
            let found = whole(question).fetch_all::<i64>().await?;
            present.extend(
                found
                    .into_iter()
                    .map(|offset| (topic.clone(), partition, offset)),
            );
        }
        Ok(present)
    }
}

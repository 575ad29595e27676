//! One batch until it is stored.
//!
//! An insert is one table and one ClickHouse partition, sent as a row of blocks that the server
//! puts together before it stores them, so it is all or nothing (`tests/clickhouse/blocks.rs`).
//! Its token and query id name pipeline, generation, table and batch. A failure after which it
//! is certain that nothing was stored is simply tried again. After any other the batch is
//! *settled* first: it is made sure that nothing of it can be stored any more, the table is
//! asked which rows it has, and only the rest is sent.
//!
//! What makes sure is the table `writers`. Every insert carries two conditions: that no later
//! generation has registered there, and that its writer has set no later *seal*. The server
//! judges them when the insert has begun, so when it can be seen and killed. Hence, once a row
//! is in `writers` and what runs has been killed, waited for and seen to be gone, inserts from
//! before that row are refused wherever they still are: in a socket, in a proxy, in a process
//! that was frozen. A starting run does that to its predecessors before anything else, and a
//! batch is settled under a new seal.
//!
//! The token is a second line, for servers of which one does not see at once what another has
//! stored. It is used again only for the very same rows: should a lost insert come through
//! nevertheless, ClickHouse drops one of the two. Since a server that died may remember a token
//! without its rows, the success of a used token is not believed: the table is asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clickhouse::Client;
use clickhouse::error::{Error, Result};
use tokio::sync::{OnceCell, mpsc};
use tracing::{error, warn};

use super::batches::{Cut, End};
use super::fault::{Backoff, FENCED, Fault, Remedy, SEALED};
use super::native::{BlockWriter, next_block};
use super::reconcile::{Ask, keep_missing};
use super::shared::{Amount, Shared};
use super::within;
use super::writer::{Notice, Observer, Options};
use crate::fail;
use crate::geo::CellFinder;

/// What all inserts of a writer have in common.
pub(super) struct Context {
    pub(super) client: Client,
    options: Options,
    shared: Arc<Shared>,
    observer: Option<Observer>,
    ends: mpsc::UnboundedSender<End>,
    /// `riderflow/<pipeline>/`
    pipeline_prefix: String,
    /// `riderflow/<pipeline>/<generation>/<nonce>/`; the nonce, because a token that is used
    /// with other rows drops them.
    prefix: String,
    nonce: u64,
    /// What inserts that begin now name; no seal that was set is greater.
    seal: AtomicU64,
    next_batch: AtomicU64,
    registered: OnceCell<()>,
    /// Finds the cells of updates. All inserts are on one thread, so it is never waited for.
    cells: Mutex<CellFinder>,
}

impl Context {
    pub(super) fn new(
        options: Options,
        shared: Arc<Shared>,
        observer: Option<Observer>,
        ends: mpsc::UnboundedSender<End>,
    ) -> Self {
        let pipeline_prefix = format!("riderflow/{}/", options.pipeline);
        let nonce = rand::random::<u64>();
        Self {
            client: options.server.client().with_database(&options.database),
            prefix: format!("{pipeline_prefix}{}/{nonce:016x}/", options.generation),
            pipeline_prefix,
            nonce,
            seal: AtomicU64::new(0),
            options,
            shared,
            observer,
            ends,
            next_batch: AtomicU64::new(0),
            registered: OnceCell::new(),
            cells: Mutex::new(CellFinder::new(h3o::Resolution::Nine)),
        }
    }

    fn cells(&self) -> MutexGuard<'_, CellFinder> {
        // What it remembers is right at any time.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, notice: Notice) {
        if let Some(observer) = &self.observer {
            observer(&notice);
        }
    }

    /// Once, before anything is written: from now on no earlier generation can start an
    /// insert, and none of theirs still runs.
    async fn register(&self) -> Result<()> {
        self.registered
            .get_or_try_init(|| async {
                self.tell_writers(0).await?;
                let which = format!(
                    "startsWith(query_id, {prefix}) AND toUInt64OrZero(extract(substring(query_id, \
                     {length}), '^[0-9]+')) < {generation}",
                    prefix = quoted(&self.pipeline_prefix),
                    length = self.pipeline_prefix.len() + 1,
                    generation = self.options.generation,
                );
                self.kill(&which).await
            })
            .await
            .copied()
    }

    /// Refuses every insert of this writer that has not begun by now, of whichever batch:
    /// those of others are tried again.
    async fn set_seal(&self) -> Result<()> {
        let seal = self.seal.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell_writers(seal).await
    }

    async fn tell_writers(&self, seal: u64) -> Result<()> {
        let insert = self
            .client
            .query("INSERT INTO writers (pipeline, generation, writer, seal) SELECT ?, ?, ?, ?")
            .bind(&self.options.pipeline)
            .bind(self.options.generation)
            .bind(self.nonce)
            .bind(seal)
            .with_setting("async_insert", "0")
            .execute();
        within(self.options.timeout, insert).await
    }

    /// Ends the queries that `which` is true for. An error if one of them goes on.
    async fn kill(&self, which: &str) -> Result<()> {
        let limit = self.options.timeout;
        let kill = format!("KILL QUERY WHERE {which} SYNC");
        within(limit, self.client.query(&kill).execute()).await?;
        let count = format!("SELECT count() FROM system.processes WHERE {which}");
        match within(limit, self.client.query(&count).fetch_one::<u64>()).await? {
            0 => Ok(()),
            count => Err(Error::Custom(format!(
                "{count} earlier inserts still run on the server and can't be killed"
            ))),
        }
    }

    /// The conditions of every insert: they throw [`FENCED`] once a later generation is there,
    /// [`SEALED`] once this writer has set a later seal.
    fn condition(&self) -> String {
        let Options {
            pipeline,
            generation,
            ..
        } = &self.options;
        let (pipeline, nonce) = (quoted(pipeline), self.nonce);
        let seal = self.seal.load(Ordering::Relaxed);
        format!(
            "throwIf((SELECT max(generation) FROM writers WHERE pipeline = {pipeline}) \
             > {generation}, '{FENCED}') = 0 \
             AND throwIf((SELECT max(seal) FROM writers WHERE pipeline = {pipeline} \
             AND generation = {generation} AND writer = {nonce}) > {seal}, '{SEALED}') = 0"
        )
    }
}

impl Context {
    /// What a run that was fenced off is told.
    fn fenced(&self) -> String {
        let Options {
            pipeline,
            generation,
            database,
            ..
        } = &self.options;
        format!(
            "a later run of {pipeline} than this one, generation {generation}, has registered in \
             {database}.writers. If none runs, Kafka's data was deleted and its offsets begin \
             again: empty the tables of {database} as well, or give the pipeline another name \
             and database"
        )
    }
}

/// A text as an SQL literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Stores the parts of one cut, one after the other, and reports its end.
pub(super) async fn store<R: Ask>(
    context: Arc<Context>,
    cut: Cut,
    parts: Vec<Vec<Vec<R>>>,
    doubtful: bool,
) {
    for rows in parts {
        let batch = Batch {
            number: context.next_batch.fetch_add(1, Ordering::Relaxed),
            context: &context,
            cut,
        };
        if !batch.store(rows, doubtful).await {
            return;
        }
    }
    // The receiver is gone only when the writer has given up its deadline.
    let _ = context.ends.send(End {
        cut,
        too_many_parts: false,
        stored: true,
    });
}

/// One batch's name and place.
struct Batch<'a> {
    context: &'a Context,
    number: u64,
    cut: Cut,
}

/// What is known about the batch's token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Fresh,
    /// An insert with it may have come through.
    Used,
    /// An insert with it succeeded, perhaps only because it was used: rows that are missing
    /// now were not stored by it.
    Disproved,
}

impl Batch<'_> {
    /// Tries until the table has all of `rows`; false if a later run has taken over.
    async fn store<R: Ask>(&self, mut rows: Vec<Vec<R>>, doubtful: bool) -> bool {
        let (began, sent) = (Instant::now(), count(&rows));
        let mut backoff = Backoff::new();
        let mut doubt = doubtful;
        let (mut token_number, mut token) = (0u32, Token::Fresh);
        let mut tries = 0u32;
        while count(&rows) > 0 {
            let asked = doubt;
            let outcome = if doubt {
                self.settle(&mut rows, token).await.map(|present| {
                    doubt = false;
                    // Other rows need another token, and so do those that a success left out.
                    if present > 0 || token == Token::Disproved {
                        (token_number, token) = (token_number + 1, Token::Fresh);
                    }
                })
            } else {
                tries += 1;
                fail::point("insert-begun");
                match self.insert(&rows, token_number, tries).await {
                    Ok(()) if token == Token::Fresh => {
                        fail::point("insert-done");
                        self.release(rows.iter().flatten());
                        rows.clear();
                        Ok(())
                    }
                    Ok(()) => {
                        (doubt, token) = (true, Token::Disproved);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            };
            if let Err(error) = outcome {
                let fault = Fault::of(&error);
                if !fault.clean {
                    doubt = true;
                    if !asked && token == Token::Fresh {
                        token = Token::Used;
                    }
                }
                if fault.remedy == Remedy::Stop {
                    self.context.shared.end(&self.context.fenced());
                    return false;
                }
                self.wait::<R>(&fault, count(&rows), &mut backoff).await;
            }
        }
        self.context
            .shared
            .counts
            .batches
            .fetch_add(1, Ordering::Relaxed);
        self.context.tell(Notice::Stored {
            table: R::TABLE,
            rows: sent,
            took: began.elapsed(),
        });
        true
    }

    /// Tells of a failure and waits for the next try.
    async fn wait<R: Ask>(&self, fault: &Fault, rows: usize, backoff: &mut Backoff) {
        let retry_in = backoff.next(fault.remedy);
        let table = R::TABLE.name();
        let advice = fault.advice();
        if fault.remedy == Remedy::Report {
            error!(table, rows, code = fault.code, retry_in = ?retry_in,
                "ClickHouse refuses a batch, which is kept; {advice}: {}", fault.text);
        } else if backoff.tries() == 1 || backoff.tries().is_multiple_of(10) {
            warn!(table, rows, code = fault.code, retry_in = ?retry_in,
                "could not store a batch, trying again: {}", fault.text);
        }
        if fault.remedy == Remedy::Widen {
            self.widen();
        }
        self.context.tell(Notice::Failed {
            table: R::TABLE,
            rows,
            code: fault.code,
            error: fault.text.clone(),
            retry_in,
            advice: (fault.remedy != Remedy::Retry).then_some(advice),
        });
        // Whoever sees the count has been told.
        self.context.shared.failed(&fault.text);
        tokio::time::sleep(retry_in).await;
    }

    fn widen(&self) {
        let _ = self.context.ends.send(End {
            cut: self.cut,
            too_many_parts: true,
            stored: false,
        });
    }

    /// Makes sure that no earlier insert of the batch stores anything from now on, and leaves
    /// in `rows` those that the table does not have. Returns how many it has.
    async fn settle<R: Ask>(&self, rows: &mut [Vec<R>], token: Token) -> Result<usize> {
        let context = self.context;
        context.register().await?;
        if token != Token::Fresh {
            context.set_seal().await?;
            let which = format!("startsWith(query_id, {})", quoted(&self.id::<R>()));
            context.kill(&which).await?;
        }
        let limit = context.options.timeout;
        let all: Vec<&R> = rows.iter().flatten().collect();
        let present = within(limit * 2, R::present(&context.client, &all)).await?;
        let asked = all.len();
        let there: Vec<R> = rows
            .iter_mut()
            .flat_map(|rows| keep_missing(rows, &present))
            .collect();
        self.release(there.iter());
        context
            .shared
            .counts
            .reconciled
            .fetch_add(1, Ordering::Relaxed);
        let present = there.len();
        context.tell(Notice::Reconciled {
            table: R::TABLE,
            rows: asked,
            present,
        });
        Ok(present)
    }

    async fn insert<R: Ask>(&self, rows: &[Vec<R>], token: u32, tries: u32) -> Result<()> {
        let context = self.context;
        context.register().await?;
        let (table, structure) = (R::TABLE.name(), R::STRUCTURE);
        let sql = format!(
            "INSERT INTO {table} ({}) SELECT * FROM input('{structure}') WHERE {} FORMAT Native",
            columns(structure),
            context.condition(),
        );
        let id = self.id::<R>();
        let limit = context.options.timeout;
        // The server puts the blocks that come together into one, whatever its defaults are.
        let count = count(rows);
        let least = count.max(1_048_449).to_string();
        let mut insert = context
            .client
            .insert_formatted_with(sql)
            .with_setting("query_id", format!("{id}{token}/{tries}"))
            .with_setting("insert_deduplication_token", format!("{id}{token}"))
            .with_setting("insert_deduplicate", "1")
            .with_setting("async_insert", "0")
            .with_setting("max_insert_block_size", &least)
            .with_setting("min_insert_block_size_rows", &least)
            .with_setting("min_insert_block_size_bytes", "0")
            .with_setting("max_insert_threads", "1")
            .with_setting("use_query_cache", "0")
            .with_setting("wait_end_of_query", "1");
        let mut rows = rows.iter().flatten();
        let mut block = Vec::new();
        let mut writer = BlockWriter::new();
        loop {
            next_block(&mut rows, &mut block);
            if block.is_empty() {
                break;
            }
            let bytes = writer.block(&block, &mut context.cells());
            within(limit, insert.send(bytes.into())).await?;
        }
        fail::point("insert-sent");
        within(limit * 2, insert.end()).await
    }

    /// Where all query ids and tokens of the batch begin.
    fn id<R: Ask>(&self) -> String {
        format!(
            "{}{}/{}/",
            self.context.prefix,
            R::TABLE.name(),
            self.number
        )
    }

    fn release<'r, R: Ask>(&self, rows: impl Iterator<Item = &'r R>) {
        let mut amount = Amount::default();
        for row in rows {
            amount.rows += 1;
            amount.bytes += row.cost();
        }
        self.context.shared.release(R::TABLE, amount);
    }
}

fn count<R>(rows: &[Vec<R>]) -> usize {
    rows.iter().map(Vec::len).sum()
}

/// The names in a structure.
fn columns(structure: &str) -> String {
    let names: Vec<_> = structure
        .split(", ")
        .filter_map(|column| column.split(' ').next())
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::rows::{EventRow, Record};

    #[test]
    fn column_names_of_a_structure() {
        assert_eq!(
            columns(EventRow::STRUCTURE),
            "id, type, driver_id, order_id, fence_id, event_time, detected_at, data"
        );
    }

    #[test]
    fn literals_are_quoted() {
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
    }
}

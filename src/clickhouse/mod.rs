//! ClickHouse: the tables, the rows and the batch writer.
//!
//! Owns everything that speaks to ClickHouse; the `clickhouse` crate is used nowhere else.
//! Promises that a row given to [`Writer`] is in its table exactly once, however often the
//! server fails, hangs or loses an answer, and that it leaves memory only when the table has
//! it. Never drops a row, never changes a table that exists (it says how it differs), and
//! never runs on a dataflow worker: the writer has a thread of its own.
//!
//! | module | owns |
//! |---|---|
//! | [`migrate`] | the numbered migrations and the comparison of tables with them |
//! | `rows` | one row a table, and the conversion from the model |
//! | `window_rows` | the same for the tables of windows, whose rows are upserts |
//! | `native` | the blocks that rows are sent as |
//! | [`writer`] | the handle: what goes in, the watermark |
//! | `parcel` | what it is given: rows of a table, and where they come from |
//! | `shared` | what is on its way, and the bound on it |
//! | [`ask`] | answers as text |
//! | `batches` | the writer's thread: buffers per table, when a batch is cut |
//! | `insert` | one batch until it is stored: tries, back-off |
//! | `reconcile` | after an answer was lost: which rows of a batch are there |
//! | `fault` | what an error means: its code, whether it is certain that nothing was stored |

mod ask;
mod batches;
mod fault;
mod insert;
pub mod migrate;
mod native;
mod parcel;
mod reconcile;
mod rows;
mod shared;
mod window_rows;
pub mod writer;

pub use ask::ask;
pub use parcel::{Origin, Rows, StoredEvent, Table};
pub use writer::{Full, Notice, Observer, Options, Sent, Stats, Summary, Writer, WriterError};

use std::time::Duration;

/// The database that all tables are in.
pub const DATABASE: &str = "riderflow";

/// Where ClickHouse is and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// HTTP address, such as `http://localhost:8123`.
    pub url: String,
    /// User; the server's `default` user if absent.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
}

impl Server {
    /// The pipeline's server.
    pub fn of(pipeline: &crate::config::Pipeline) -> Self {
        let clickhouse = &pipeline.clickhouse;
        Self {
            url: clickhouse.url.clone(),
            user: clickhouse.user.clone(),
            password: clickhouse
                .password
                .as_ref()
                .map(|secret| secret.expose().to_owned()),
        }
    }

    /// A client without a database. Its connections are made when they are first used.
    fn client(&self) -> clickhouse::Client {
        let mut client = clickhouse::Client::default()
            .with_url(&self.url)
            .with_compression(clickhouse::Compression::Lz4)
            .with_product_info("riderflow", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.user {
            client = client.with_user(user);
        }
        if let Some(password) = &self.password {
            client = client.with_password(password);
        }
        client
    }
}

/// Without the password.
impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Runs `future`, or gives up after `limit` with the client's own timeout error.
async fn within<T>(
    limit: Duration,
    future: impl Future<Output = clickhouse::error::Result<T>>,
) -> clickhouse::error::Result<T> {
    tokio::time::timeout(limit, future)
        .await
        .unwrap_or(Err(clickhouse::error::Error::TimedOut))
}

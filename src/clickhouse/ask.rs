//! Asks ClickHouse and hands the answer on as text.

use super::{Server, migrate::MigrateError};

/// The answer to `sql` in one of ClickHouse's text formats, such as `PrettyCompact`.
///
/// # Errors
/// The server does not answer, or refuses the query.
pub fn ask(server: &Server, sql: &str, format: &str) -> Result<String, MigrateError> {
    let failed = |reason: String| MigrateError::Refused {
        attempt: "answer a query".into(),
        url: server.url.clone(),
        reason,
        advice: "look at the server's log",
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        let mut cursor = server
            .client()
            .query(sql)
            .fetch_bytes(format)
            .map_err(|e| failed(e.to_string()))?;
        let bytes = cursor
            .collect()
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

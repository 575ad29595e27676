//! What becomes of rows after the commit: they go to the ClickHouse writer as long as it has
//! room, and events never wait for it.
//!
//! ```text
//!             room                       no room, or too slow
//!  Flowing ───────────▶ writer     Flowing ───────────────────▶ Behind: rows are let go
//!     ▲                                                             │ room again
//!     └──────── new rows flow, and the gap is read again ◀──────────┘
//! ```
//!
//! The epochs whose rows were let go are the *gap*. A [`ReRead`] computes it once more from a
//! snapshot before it. Until that is done, [`RowFlow::stored`] stays before the gap; so a
//! restart does the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::JobError;
use super::reread::{Gap, ReRead, ReReader};
use crate::clickhouse::{Origin, Rows, Sent, Writer};
use crate::model::Epoch;
use crate::telemetry::Metrics;

/// ClickHouse counts as away when a row has waited this long for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long after a failed reading-again the next one begins.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long rows may take to reach ClickHouse when the job stops; the next start finds the rest.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Passes rows on, or lets them go.
pub(super) struct RowFlow {
    writer: Option<Arc<Writer>>,
    rereader: ReReader,
    metrics: Metrics,
    /// All epochs up to this one are stored, as far as is known.
    stored: Epoch,
    /// All rows of epochs up to this one have been passed on or let go, windows too, or are in
    /// the gap.
    whole: Epoch,
    /// Since which epoch rows are let go.
    behind_from: Option<Epoch>,
    /// Epochs whose rows must be read again, by a reading under way or one that is to begin.
    gap: Option<Gap>,
    reread: Option<ReRead>,
    next_try: Instant,
    /// What may hold rows that are to be read again: while they wait for their table, it can't
    /// be asked whether it has them.
    on_the_way: Option<Sent>,
}

impl RowFlow {
    /// Rows of epochs after `computed_from`, the snapshot that state comes from, flow; those of
    /// epochs after `stored` and up to it are a gap.
    pub(super) fn new(
        writer: Option<Writer>,
        rereader: ReReader,
        metrics: Metrics,
        stored: Epoch,
        computed_from: Epoch,
    ) -> Self {
        Self {
            writer: writer.map(Arc::new),
            rereader,
            metrics,
            stored,
            whole: stored.max(computed_from),
            behind_from: None,
            gap: Gap::between(stored, computed_from),
            reread: None,
            next_try: Instant::now(),
            on_the_way: None,
        }
    }

    /// Whether ClickHouse is behind by more than what waits in memory.
    pub(super) fn lags(&self) -> bool {
        self.writer.is_none() || self.behind_from.is_some() || self.gap.is_some()
    }

    /// Passes the rows of one epoch on. Never waits for ClickHouse.
    pub(super) fn pass(
        &mut self,
        epoch: Epoch,
        rows: impl IntoIterator<Item = Rows>,
        origin: Origin,
    ) -> Result<(), JobError> {
        let Some(writer) = self.writer.clone() else {
            return Ok(());
        };
        for rows in rows {
            if self.behind_from.is_some() {
                return Ok(());
            }
            if writer.try_send(rows, origin)?.is_err() {
                self.fall_behind(epoch, "memory holds no more rows for it");
            }
        }
        Ok(())
    }

    fn fall_behind(&mut self, from: Epoch, why: &str) {
        tracing::warn!(
            "ClickHouse does not keep up: {why}; events go on, and rows from epoch {} on are read \
             again from Kafka once it does",
            from.0
        );
        // Windows come after their epoch.
        self.behind_from = Some(from.min(Epoch(self.whole.0 + 1)));
        self.on_the_way = self.writer.as_ref().map(|writer| writer.sent());
        self.metrics.clickhouse_behind.set(1);
    }

    /// All rows of epochs up to `whole` have been passed on or let go, and of those up to `last`
    /// all but windows; later ones come next.
    pub(super) fn tick(&mut self, whole: Epoch, last: Epoch) -> Result<(), JobError> {
        self.whole = self.whole.max(whole);
        let Some(writer) = self.writer.clone() else {
            self.stored = self.stored.max(whole);
            return Ok(());
        };
        if self.behind_from.is_none()
            && writer
                .waiting_since()
                .is_some_and(|since| since.elapsed() > PATIENCE)
        {
            self.fall_behind(last, "rows wait too long");
        }
        if let Some(reread) = self.reread.take_if(|reread| reread.is_finished()) {
            match reread.end() {
                Ok(()) => self.gap = None,
                Err(error) => {
                    tracing::error!("rows could not be read again: {error}; trying again");
                    self.next_try = Instant::now() + AGAIN_AFTER;
                    self.on_the_way = Some(writer.sent());
                }
            }
        }
        self.on_the_way.take_if(|sent| writer.has_stored(*sent));
        let is_settled = self.on_the_way.is_none();
        let is_idle = self.gap.is_none() && self.reread.is_none();
        if is_idle && let Some(from) = self.behind_from.take_if(|_| is_settled) {
            // New rows flow again from here on.
            self.metrics.clickhouse_behind.set(0);
            writer.mark(Epoch(from.0 - 1))?;
            self.gap = Gap::between(Epoch(from.0 - 1), last);
        }
        if let Some(gap) = self.gap
            && self.reread.is_none()
            && is_settled
            && Instant::now() >= self.next_try
        {
            // After a failure, some of it may be stored, and the snapshot before it gone.
            let gap = Gap {
                after: gap.after.max(self.stored).min(gap.through),
                ..gap
            };
            self.reread = Some(self.rereader.begin(gap, Arc::clone(&writer))?);
        }
        if self.gap.is_none() && self.behind_from.is_none() {
            writer.mark(whole)?;
        }
        self.stored = self.stored.max(writer.stored_epoch().unwrap_or(Epoch(0)));
        self.metrics
            .clickhouse_stored_epoch
            .set(self.stored.0 as i64);
        let reread = self.gap.map_or(0, |gap| gap.through.0 - gap.after.0);
        self.metrics.clickhouse_reread_epochs.set(reread as i64);
        Ok(())
    }

    /// ClickHouse has all rows of epochs up to this one.
    pub(super) fn stored(&self) -> Epoch {
        self.stored
    }

    /// Writes out what can be written in time, or nothing more if `at_once`. Returns up to which
    /// epoch all is stored.
    pub(super) fn stop(mut self, at_once: bool) -> Result<Epoch, JobError> {
        if let Some(reread) = self.reread.take() {
            reread.stop();
        }
        let Some(writer) = self.writer.take().and_then(Arc::into_inner) else {
            return Ok(self.stored);
        };
        let limit = if at_once { Duration::ZERO } else { FLUSH_LIMIT };
        match writer.flush_and_stop(limit) {
            Ok(summary) => Ok(self
                .stored
                .max(summary.stats.stored_epoch.unwrap_or_default())),
            Err(error @ crate::clickhouse::WriterError::Unfinished { .. }) => {
                tracing::warn!("{error}; the next start reads them again from Kafka");
                Ok(self.stored)
            }
            Err(error) => Err(error.into()),
        }
    }
}

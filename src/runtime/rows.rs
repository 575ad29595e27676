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
//! A job that reads a backlog delays nobody by waiting for room, and would otherwise compute
//! most rows twice: it reads faster than ClickHouse stores. So it waits, as long as ClickHouse
//! is there.
//!
//! The epochs whose rows were let go are the *gap*. A [`ReRead`] computes it once more from a
//! snapshot before it. Until that is done, [`RowFlow::stored`] stays before the gap; so a
//! restart does the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::reread::{Gap, ReRead, ReReader};
use super::{JobError, wall_clock_ms};
use crate::clickhouse::{Full, Origin, Rows, Sent, Writer};
use crate::model::{Epoch, TimeMs};
use crate::telemetry::Metrics;

/// ClickHouse counts as away when a row has waited this long for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// An epoch that is older than this belongs to a backlog, ms.
const BACKLOG_MS: TimeMs = 5_000;
/// Between two looks at whether there is room.
const NAP: Duration = Duration::from_millis(2);
/// How long after a failed reading-again the next one begins.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long rows may take to reach ClickHouse when the job stops; the next start finds the rest.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Passes rows on, or lets them go.
pub(super) struct RowFlow {
    writer: Option<Arc<Writer>>,
    rereader: ReReader,
    metrics: Metrics,
    interval_ms: u64,
    /// The job's wish to stop: nobody waits then.
    stop: Arc<AtomicBool>,
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
        stop: Arc<AtomicBool>,
        stored: Epoch,
        computed_from: Epoch,
    ) -> Self {
        Self {
            writer: writer.map(Arc::new),
            interval_ms: rereader.pipeline.epoch.interval_ms,
            rereader,
            metrics,
            stop,
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

    /// Passes the rows of one epoch on. Waits for ClickHouse only while a backlog is read.
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
            if !self.send(&writer, epoch, rows, origin)? {
                self.fall_behind(epoch, "memory holds no more rows for it");
            }
        }
        Ok(())
    }

    /// Whether the writer has taken the rows.
    fn send(
        &self,
        writer: &Writer,
        epoch: Epoch,
        mut rows: Rows,
        origin: Origin,
    ) -> Result<bool, JobError> {
        while let Err(Full(back)) = writer.try_send(rows, origin)? {
            let age_ms = wall_clock_ms() - epoch.now_ms(self.interval_ms);
            if age_ms < BACKLOG_MS || is_away(writer) || self.stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            std::thread::sleep(NAP);
            rows = back;
        }
        Ok(true)
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
        if self.behind_from.is_none() && is_away(&writer) {
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

fn is_away(writer: &Writer) -> bool {
    let since = writer.waiting_since();
    since.is_some_and(|since| since.elapsed() > PATIENCE)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clickhouse::{Options, Server};
    use crate::config::Pipeline;
    use crate::model::CellWindow;
    use crate::snapshot::Store;

    /// A writer of ten rows to a server that isn't there.
    fn flow(stop: &Arc<AtomicBool>, folder: &tempfile::TempDir) -> RowFlow {
        let mut pipeline = Pipeline::defaults("rows");
        pipeline.clickhouse.url = "http://127.0.0.1:1".into();
        let options = Options {
            server: Server::of(&pipeline),
            max_buffered_rows: 10,
            ..Options::of(&pipeline, 1)
        };
        let writer = Writer::start(options, None).expect("it starts");
        let url = folder.path().to_string_lossy().into_owned();
        let rereader = ReReader {
            store: Arc::new(Store::open(&url, "rows").expect("a folder")),
            kept: Arc::new(Mutex::default()),
            pipeline,
        };
        let (stop, metrics) = (Arc::clone(stop), Metrics::new());
        RowFlow::new(Some(writer), rereader, metrics, stop, Epoch(0), Epoch(0))
    }

    fn rows() -> Rows {
        let cell = CellWindow {
            cell: 1,
            start_ms: 0,
            drivers: 1,
            updates: 1,
            mean_speed_mps: None,
            version: Epoch(1),
        };
        Rows::Cells(vec![cell; 8])
    }

    #[test]
    fn a_job_in_time_never_waits_and_one_with_a_backlog_does_until_it_stops() {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = Arc::new(AtomicBool::new(false));
        let now = Epoch::containing(wall_clock_ms(), 100);

        let mut in_time = flow(&stop, &folder);
        let began = Instant::now();
        in_time
            .pass(now, [rows(), rows()], Origin::New)
            .expect("it runs");
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(in_time.behind_from, Some(Epoch(1)), "the second is let go");

        let mut backlog = flow(&stop, &folder);
        let old = Epoch(now.0 - 600);
        let waiting = std::thread::spawn(move || {
            backlog
                .pass(old, [rows(), rows()], Origin::New)
                .expect("it runs");
            backlog.behind_from
        });
        std::thread::sleep(Duration::from_millis(500));
        assert!(!waiting.is_finished(), "it waits for room");
        stop.store(true, Ordering::Release);
        assert_eq!(waiting.join().expect("it ends"), Some(Epoch(1)));
    }
}

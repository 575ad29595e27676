//! What the demo is doing, in one line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Instant;

use crate::model::EventKind;
use crate::runtime::Job;
use crate::telemetry::HistogramSnapshot;

/// One line a second: rewritten in place on a terminal, else every fifth.
pub(super) struct Status {
    terminal: bool,
    shown: u64,
    updates: u64,
    at: Instant,
    latency: HistogramSnapshot,
    p99_s: Option<f64>,
}

impl Status {
    pub(super) fn new(job: &Job) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: 0,
            updates: 0,
            at: Instant::now(),
            latency: job.metrics().event_latency_seconds.snapshot(),
            p99_s: None,
        }
    }

    pub(super) fn show(&mut self, job: &Job, behind_s: Option<f64>) {
        let metrics = job.metrics();
        self.shown += 1;
        if !self.terminal && !self.shown.is_multiple_of(5) {
            return;
        }
        let updates = metrics.updates.total();
        let per_s = (updates - self.updates) as f64 / self.at.elapsed().as_secs_f64();
        (self.updates, self.at) = (updates, Instant::now());
        let latency = metrics.event_latency_seconds.snapshot();
        self.p99_s = latency.since(&self.latency).quantile(0.99).or(self.p99_s);
        self.latency = latency;

        let by_kind: BTreeMap<&str, u64> = EventKind::ALL
            .iter()
            .map(|&kind| (kind.name(), metrics.events.get(kind)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut line = format!("{per_s:.0} updates/s");
        for (name, count) in by_kind {
            let _ = write!(line, " | {name} {count}");
        }
        let _ = write!(
            line,
            " | lag {} | rows {}",
            metrics.lag.total(),
            metrics.clickhouse_rows.get("driver_locations"),
        );
        if let Some(p99_s) = self.p99_s {
            let _ = write!(line, " | p99 {:.0} ms", p99_s * 1000.0);
        }
        if let Some(behind_s) = behind_s {
            let _ = write!(
                line,
                " | the city can't keep its rate: {behind_s:.1} s behind"
            );
        }
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Prints lines that stay, above the status.
    pub(super) fn say(&self, lines: &str) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
        eprint!("{lines}");
    }

    pub(super) fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}

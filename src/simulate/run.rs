//! Drives a city along a road to Kafka, at the clock's pace or as fast as Kafka takes it.
//!
//! Owns the wall clock's part of a simulation. It promises that [`Summary::acked`] counts
//! exactly what was acknowledged, by Kafka or by the gateway, and that nothing is skipped to
//! catch up: a run that can't keep the asked rate falls behind and says so.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::kafka::KafkaError;
use crate::kafka::producer::ProducerError;
use crate::kafka::routing::RouteError;
use crate::model::{Input, TimeMs};

use super::Plan;
use super::message::{Batch, Counts, What};
use super::phones::{GatewaySummary, PhonesError};
use super::road::Road;
use super::simulation::Simulation;

/// How fast a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// City time is the clock's; records bear the time of their sending.
    RealTime,
    /// As fast as Kafka takes it; records bear city time as their timestamp, a history.
    Max,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// When it is stopped.
    Never,
    /// After so much city time.
    CityTime(Duration),
    /// After so many updates.
    Updates(u64),
}

/// How a run goes about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How fast.
    pub pace: Pace,
    /// When it ends.
    pub limit: Limit,
    /// Whether to remove the orders and surges that are left at the end.
    pub clear_up: bool,
    /// How long the last messages may take to be acknowledged. Default 60 s.
    pub flush_timeout: Duration,
}

impl Settings {
    /// In real time until stopped, clearing up.
    pub fn new() -> Self {
        Self {
            pace: Pace::RealTime,
            limit: Limit::Never,
            clear_up: true,
            flush_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

/// What stops a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No broker answers, or a topic is missing.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Kafka did not take what was sent.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A route leads nowhere.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The gateway does not answer, or did not take what was sent.
    #[error(transparent)]
    Phones(#[from] PhonesError),
}

/// How a run is doing, once a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Since the run began, s.
    pub elapsed_s: f64,
    /// Updates queued so far.
    pub updates: u64,
    /// Updates queued a second, since the last progress.
    pub rate_per_s: f64,
    /// Updates asked for a second; none at [`Pace::Max`].
    pub asked_per_s: Option<f64>,
    /// How far city time is behind the clock, s.
    pub behind_s: f64,
    /// Messages that are not acknowledged yet.
    pub in_flight: u64,
}

impl Progress {
    /// Whether the asked rate is not being kept.
    pub fn is_behind(&self) -> bool {
        self.behind_s > 0.5
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Messages that Kafka or the gateway has acknowledged, by topic and kind.
    pub acked: Counts,
    /// How long it took, s.
    pub elapsed_s: f64,
    /// How much city time passed, s.
    pub city_s: f64,
    /// Updates a second.
    pub rate_per_s: f64,
    /// Updates asked for a second; none at [`Pace::Max`].
    pub asked_per_s: Option<f64>,
    /// The furthest that city time was behind the clock, s.
    pub most_behind_s: f64,
    /// Whether the asked rate was kept: never more than 0.5 s behind.
    pub kept_rate: bool,
    /// Event time of the first moment, ms since 1970.
    pub start_ms: TimeMs,
    /// What went through the gateway; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySummary>,
}

/// Milliseconds since 1970, now.
fn clock_ms() -> TimeMs {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as TimeMs)
}

/// Sends a city along a road until its limit, or until `stop` says true.
///
/// In real time the plan's `start_ms` is set to now, and an order prefix that came with it is
/// kept. `progress` is called about once a second.
///
/// # Errors
/// Messages that were not taken, or not acknowledged in time.
pub fn run(
    road: &dyn Road,
    plan: Plan,
    settings: &Settings,
    stop: &dyn Fn() -> bool,
    mut progress: impl FnMut(&Progress),
) -> Result<Summary, RunError> {
    let mut run = Run {
        road,
        stop,
        updates_left: match settings.limit {
            Limit::Updates(count) => count,
            _ => u64::MAX,
        },
        updates: 0,
        stoppable: true,
    };
    let mut simulation = Simulation::new(plan);
    let end_ms = match settings.limit {
        Limit::CityTime(time) => time.as_millis() as i64,
        _ => i64::MAX,
    };
    let asked_per_s = (settings.pace == Pace::RealTime).then(|| simulation.plan().rate_per_s());
    let start = Instant::now();
    if settings.pace == Pace::RealTime {
        simulation.set_start_ms(clock_ms());
    }
    let start_ms = simulation.plan().start_ms;
    let mut batch = Batch::new();
    simulation.fences(&mut batch);
    run.send(&batch)?;
    let (mut told, mut told_updates) = (start, 0);
    let (mut behind, mut most_behind) = (Duration::ZERO, Duration::ZERO);
    while simulation.now_ms() < end_ms && run.updates_left > 0 && !run.is_stopped() {
        simulation.next_step(&mut batch);
        if settings.pace == Pace::RealTime {
            // What happened during a step is sent at its end: no event time is ahead of the
            // clock.
            let due = start + Duration::from_millis(simulation.now_ms() as u64);
            run.wait_until(due);
            behind = Instant::now().saturating_duration_since(due);
            most_behind = most_behind.max(behind);
        }
        run.send(&batch)?;
        let now = Instant::now();
        let since_told = now.duration_since(told);
        if since_told >= Duration::from_secs(1) {
            road.check()?;
            progress(&Progress {
                elapsed_s: now.duration_since(start).as_secs_f64(),
                updates: run.updates,
                rate_per_s: (run.updates - told_updates) as f64 / since_told.as_secs_f64(),
                asked_per_s,
                behind_s: behind.as_secs_f64(),
                in_flight: road.in_flight(),
            });
            (told, told_updates) = (now, run.updates);
        }
    }
    if settings.clear_up {
        simulation.closing(&mut batch);
        run.stoppable = false;
        run.send(&batch)?;
    }
    road.flush(settings.flush_timeout)?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let acked = road.acked();
    Ok(Summary {
        acked,
        elapsed_s,
        city_s: simulation.now_ms() as f64 / 1e3,
        rate_per_s: acked.input(Input::Updates) as f64 / elapsed_s,
        asked_per_s,
        most_behind_s: most_behind.as_secs_f64(),
        kept_rate: most_behind.as_secs_f64() <= 0.5,
        start_ms,
        gateway: road.gateway(),
    })
}

struct Run<'a> {
    road: &'a dyn Road,
    stop: &'a dyn Fn() -> bool,
    updates_left: u64,
    updates: u64,
    stoppable: bool,
}

impl Run<'_> {
    fn is_stopped(&self) -> bool {
        self.stoppable && (self.stop)()
    }

    fn send(&mut self, batch: &Batch) -> Result<(), RunError> {
        for message in batch.messages() {
            if let What::Update(_) = message.what {
                if self.updates_left == 0 {
                    return Ok(());
                }
                self.updates_left -= 1;
                self.updates += 1;
            }
            while !self.road.try_send(batch, message)? {
                if self.is_stopped() {
                    return Ok(());
                }
                self.road.serve(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Waits, serving acknowledgements.
    fn wait_until(&self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_stopped() {
                self.road.serve(Duration::ZERO);
                return;
            }
            self.road.serve(left.min(Duration::from_millis(50)));
        }
    }
}

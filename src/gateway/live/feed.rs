//! The thread that keeps the view: from Kafka into it, and on to the streams it concerns.
//!
//! Owns one follower. Promises to decode outside the view's lock, to take a batch under one
//! short hold of it, and then to wake only the streams whose subject was touched. Kafka away
//! or not there yet: it waits and tries again, and the streams' ages grow. What no retry mends
//! once the view was whole ends it, and the gateway. Skips records that
//! can't be decoded: the job has told of them. One batch at a time is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::told::Told;
use super::view::{Record, Touched};
use super::{SeqHook, Shared, wall_clock_ms};
use crate::kafka::{Followed, Follower, KafkaError, Seen};
use crate::model::{Input, Place, Source, TimeMs};
use crate::wire::{Limits, decode_fence, decode_order, decode_update};

/// Records taken under one hold of the view.
const BATCH: usize = 1_024;
/// A stop, and what is due by time, wait at most this long for records.
const POLL_WAIT: Duration = Duration::from_millis(250);
/// Between two tries to reach Kafka.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How far back updates are read at the start: who has sent nothing since is stale anyway.
const UPDATES_BACK_MS: TimeMs = 120_000;
/// How far back events are read at the start if no order is open.
const EVENTS_BACK_MS: TimeMs = 10 * 60_000;
/// How long before its last change an open order's first event may have been.
const ORDER_TAKES_MS: TimeMs = 60 * 60_000;
/// How far back events are read at most.
const EVENTS_BACK_MOST_MS: TimeMs = 6 * 60 * 60_000;

/// What the thread works with.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) brokers: String,
    pub(super) limits: Limits,
    pub(super) seen_seq: SeqHook,
    pub(super) stop: Arc<AtomicBool>,
}

impl Feed {
    /// Follows until it is stopped.
    pub(super) fn run(mut self) {
        let mut is_first = true;
        while !self.stopped() {
            if let Err(error) = self.follow() {
                if self.shared.ready.load(Ordering::Acquire) {
                    // Read again from the beginning, the orders would show open streams who drove
                    // before. No retry of the client mends this; a new gateway does.
                    tracing::error!(target: "gateway", "{error}; nothing is followed any more");
                    return;
                }
                // Said once: the client says itself when Kafka comes and goes.
                if std::mem::take(&mut is_first) {
                    tracing::warn!(target: "gateway", "{error}; trying again every second");
                }
                let again = Instant::now() + RETRY_WAIT;
                while !self.stopped() && Instant::now() < again {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Reads what stands, then what moves: which events matter is known from the orders.
    fn follow(&mut self) -> Result<(), KafkaError> {
        let mut follower = Follower::open(&self.brokers)?;
        self.read(&mut follower, |follower| follower.is_caught_up())?;
        if self.stopped() {
            return Ok(());
        }
        let now_ms = wall_clock_ms();
        let oldest_ms = self.shared.view().oldest_open_ms();
        follower.follow_since(&[
            (Followed::Updates, now_ms - UPDATES_BACK_MS),
            (Followed::Events, events_since_ms(oldest_ms, now_ms)),
        ])?;
        self.read(&mut follower, |follower| follower.is_caught_up())?;
        if self.stopped() {
            return Ok(());
        }
        let (drivers, orders) = self.shared.view().counts();
        tracing::info!(target: "gateway", drivers, orders, "live: caught up");
        self.shared.ready.store(true, Ordering::Release);
        self.read(&mut follower, |_| false)
    }

    /// Takes records until a condition holds, or it is stopped.
    fn read(
        &mut self,
        follower: &mut Follower,
        enough: impl Fn(&Follower) -> bool,
    ) -> Result<(), KafkaError> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut touched = Touched::default();
        let mut swept = Instant::now();
        let mut swept_drivers = Instant::now();
        while !self.stopped() && !enough(follower) {
            let (limits, seen_seq) = (&self.limits, &mut self.seen_seq);
            follower.poll(POLL_WAIT, BATCH, &mut |seen| {
                batch.extend(decode(&seen, limits, seen_seq));
            })?;
            let now = Instant::now();
            let sweep = now - swept >= Duration::from_secs(1);
            let sweep_drivers = now - swept_drivers >= Duration::from_secs(60);
            if batch.is_empty() && !sweep {
                continue;
            }
            let now_ms = wall_clock_ms();
            {
                let mut view = self.shared.view();
                for record in batch.drain(..) {
                    view.apply(record, now_ms, &mut touched);
                }
                if sweep {
                    view.sweep(now_ms, &mut touched);
                    swept = now;
                }
                if sweep_drivers {
                    view.sweep_drivers(now_ms);
                    swept_drivers = now;
                }
            }
            self.shared.hub.wake(&mut touched);
        }
        Ok(())
    }
}

/// From when on events are read: what the oldest open order may have been told, with bounds.
fn events_since_ms(oldest_open_ms: Option<TimeMs>, now_ms: TimeMs) -> TimeMs {
    let wanted_ms = oldest_open_ms.map_or(TimeMs::MAX, |oldest| oldest - ORDER_TAKES_MS);
    wanted_ms.clamp(now_ms - EVENTS_BACK_MOST_MS, now_ms - EVENTS_BACK_MS)
}

fn decode(seen: &Seen<'_>, limits: &Limits, seen_seq: &mut SeqHook) -> Option<Record> {
    let place = |input| Place {
        at_ms: seen.timestamp_ms,
        source: Source {
            input,
            partition: seen.partition,
            offset: seen.offset,
        },
    };
    let (key, value, at_ms) = (seen.key, seen.value, seen.timestamp_ms);
    match seen.topic {
        Followed::Geofences => {
            let change = decode_fence(key, value, place(Input::Geofences));
            change.ok().map(Record::Fence)
        }
        Followed::Orders => {
            let change = decode_order(key, value, place(Input::Orders), at_ms);
            change.ok().map(Record::Order)
        }
        Followed::Updates => {
            let update = decode_update(value, place(Input::Updates), at_ms, limits).ok()?;
            if let Some((session, seq)) = seen.seq() {
                seen_seq(update.driver, session, seen.partition, seq);
            }
            Some(Record::Update(update))
        }
        Followed::Events => {
            let (id, ce_type) = (seen.header(c"ce_id")?, seen.header(c"ce_type")?);
            let told = Told::read(id, ce_type, value?, seen.partition)?;
            Some(Record::Event {
                told,
                received_ms: at_ms,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_where_an_open_order_may_need_them() {
        const HOUR: TimeMs = 3_600_000;
        let now_ms = 100 * HOUR;
        for (oldest, expected) in [
            (None, now_ms - 10 * 60_000),
            (Some(now_ms), now_ms - HOUR),
            (Some(now_ms + 9 * HOUR), now_ms - 10 * 60_000),
            (Some(now_ms - 2 * HOUR), now_ms - 3 * HOUR),
            (Some(0), now_ms - 6 * HOUR),
        ] {
            assert_eq!(events_since_ms(oldest, now_ms), expected, "{oldest:?}");
        }
    }
}

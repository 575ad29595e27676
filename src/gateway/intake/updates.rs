//! What a phone's messages come to: each update taken, refused or put off.
//!
//! Owns the limits of one connection: its rate, how much longer it is told to wait each time,
//! and when its patience with a phone that heeds no `retry` ends. No update is passed over in
//! silence but those that come after one that is awaited, which are known to come again, and
//! what can't be read at all, from a phone that sends more of it than it may.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Intake;
use super::end::End;
use super::limiter::Limiter;
use super::protocol::{self, Answer, Refused, RetryReason, Updates};
use super::session::{IN_FLIGHT_MAX, Offer};
use super::sessions::{Receipt, Seat};
use crate::gateway::metrics::UpdateOutcome;
use crate::kafka::{Outgoing, SendError};
use crate::model::{Input, TimeMs};
use crate::wire::{self, UpdateMessage};

/// The first wait that a `retry` asks for, and the longest, ms.
const AFTER_MS: (u64, u64) = (500, 5_000);
/// So many times in a row a phone may send too early, or more than it may.
const STRIKES_MAX: u32 = 50;
/// So many updates in a row may come out of turn. A phone with a long backlog sends a lot before
/// it hears of a `retry`.
const OUT_OF_TURN_MAX: u32 = 4_096;

/// One connection's way in.
pub(super) struct Inbox {
    limiter: Limiter,
    /// Answers to be sent.
    pub(super) answers: Vec<String>,
    /// `retry` in a row.
    retries: u32,
    /// When the last one ends, and why it was.
    retry_at: Instant,
    retry_reason: RetryReason,
    strikes: u32,
    out_of_turn: u32,
}

/// Space to work in, shared by all connections of a thread: an idle one has none.
#[derive(Default)]
struct Scratch {
    /// The update with its driver.
    named: Vec<u8>,
    value: Vec<u8>,
    /// The record's key, then the header's value.
    key: Vec<u8>,
    header: Vec<u8>,
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

impl Inbox {
    pub(super) fn new(updates_per_s: u32, now: Instant) -> Self {
        Self {
            limiter: Limiter::new(updates_per_s, now),
            answers: Vec::new(),
            retries: 0,
            retry_at: now,
            retry_reason: RetryReason::KafkaBusy,
            strikes: 0,
            out_of_turn: 0,
        }
    }

    /// Counts a ping or pong.
    pub(super) fn take_control(&mut self, now: Instant) -> Result<(), End> {
        match self.limiter.take(now) {
            Ok(()) => Ok(()),
            Err(_) => self.strike(),
        }
    }

    /// Takes a text message.
    ///
    /// # Errors
    /// The connection is to end.
    pub(super) fn take_message(
        &mut self,
        intake: &Intake,
        seat: &Seat,
        text: &str,
        received_at_ms: TimeMs,
        now: Instant,
    ) -> Result<(), End> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut one = One {
                inbox: self,
                intake,
                seat,
                received_at_ms,
                now,
                scratch,
            };
            match protocol::updates_of(text) {
                Ok(Updates::One(text)) => one.take(text),
                Ok(Updates::Many(all)) if all.is_empty() => one.inbox.take_control(now),
                Ok(Updates::Many(all)) => all.iter().try_for_each(|each| one.take(each.get())),
                Err(refused) => one.refuse(&refused, None),
            }
        })
    }

    fn strike(&mut self) -> Result<(), End> {
        self.strikes += 1;
        match self.strikes {
            ..=STRIKES_MAX => Ok(()),
            _ => Err(End::Flood),
        }
    }

    /// Asks the phone to go back to `seq`, later each time, at least after `wait`. Which phones
    /// come when is spread by a quarter either way.
    fn retry(&mut self, seq: u64, wait: Duration, reason: RetryReason, now: Instant) {
        let (first_ms, last_ms) = AFTER_MS;
        let grown_ms = (first_ms << self.retries.min(8)).min(last_ms);
        self.retries += 1;
        let after_ms = grown_ms.max(wait.as_millis() as u64);
        let after_ms = rand::random_range(after_ms * 3 / 4..=after_ms * 5 / 4);
        let after_ms = after_ms.clamp(first_ms, last_ms.max(wait.as_millis() as u64));
        self.retry_at = now + Duration::from_millis(after_ms);
        self.retry_reason = reason;
        let answer = Answer::Retry {
            seq,
            after_ms,
            reason,
        };
        self.answers.push(answer.to_text());
    }
}

/// The updates of one message, one after the other.
struct One<'a> {
    inbox: &'a mut Inbox,
    intake: &'a Intake,
    seat: &'a Seat,
    received_at_ms: TimeMs,
    now: Instant,
    scratch: &'a mut Scratch,
}

impl One<'_> {
    fn take(&mut self, text: &str) -> Result<(), End> {
        let envelope = match wire::read_envelope(text) {
            Ok(envelope) => envelope,
            // Nothing says which update it was meant to be, so none is settled by it.
            Err(fault) => return self.refuse(&Refused::Fault(fault), None),
        };
        let seat = self.seat;
        let Some(mut state) = seat.lock() else {
            return Err(End::TakenOver);
        };
        let session = &mut state.session;
        let seq = envelope.seq.unwrap_or_else(|| session.next_seq());
        match session.offer(seq) {
            Offer::New => {}
            Offer::Resent => {
                self.count(UpdateOutcome::Resent);
                if let Err(wait) = self.inbox.limiter.take(self.now) {
                    session.put_back(seq);
                    drop(state);
                    return self.put_off(seq, wait, RetryReason::RateLimited);
                }
                return Ok(());
            }
            Offer::OutOfTurn { awaited } => {
                drop(state);
                return self.out_of_turn(awaited);
            }
        }
        if let Err(wait) = self.inbox.limiter.take(self.now) {
            session.put_back(seq);
            drop(state);
            return self.put_off(seq, wait, RetryReason::RateLimited);
        }
        let Intake { parts, .. } = self.intake;
        let driver = seat.cell.driver;
        let decoded = protocol::decode(
            text,
            &envelope,
            driver,
            self.received_at_ms,
            &parts.limits,
            &mut self.scratch.named,
        );
        let update = match decoded {
            Ok(update) => update,
            Err(refused) => {
                session.settle(seq);
                drop(state);
                self.inbox.strikes = 0;
                return self.answer(&refused, Some(seq));
            }
        };
        let Scratch {
            value, key, header, ..
        } = &mut *self.scratch;
        write(key, format_args!("{driver}"));
        let partition = parts.routes.partition_for(update.state.as_deref(), key);
        // Only a number that the phone gave means the same update to every gateway: one that is
        // given here begins anew elsewhere, and must not pass for what was stored there.
        let is_numbered = envelope.seq.is_some();
        if is_numbered && session.is_stored_elsewhere(partition, seq) {
            session.settle(seq);
            self.count(UpdateOutcome::Resent);
            return Ok(());
        }
        if session.in_flight() >= IN_FLIGHT_MAX {
            session.put_back(seq);
            drop(state);
            return self.put_off(seq, Duration::ZERO, RetryReason::KafkaBusy);
        }
        value.clear();
        let message = UpdateMessage {
            driver,
            position: update.position,
            state: update.state.as_deref(),
            timestamp_ms: Some(update.event_time_ms),
            accuracy_m: update.accuracy_m,
            speed_mps: update.speed_mps,
            heading_deg: update.heading_deg,
        };
        wire::encode_update(&message, value);
        write(header, format_args!("{}/{seq}", seat.cell.name));
        let record = Outgoing {
            topic: Input::Updates.topic(),
            partition,
            timestamp_ms: self.received_at_ms,
            key,
            value,
            header: is_numbered.then_some((wire::SEQUENCE_HEADER, header)),
        };
        let receipt = Receipt {
            cell: Arc::clone(&seat.cell),
            seq,
            taken: self.now,
        };
        // Under the session's lock: its records are sent in its order, and no receipt comes
        // before its update is in flight.
        match parts.outlet.try_send(record, receipt) {
            Ok(()) => {
                session.take(seq);
                self.count(UpdateOutcome::Accepted);
                parts.metrics.buffered_updates.inc();
                self.inbox.retries = 0;
                self.inbox.strikes = 0;
                self.inbox.out_of_turn = 0;
                Ok(())
            }
            Err(SendError::Full) => {
                session.put_back(seq);
                drop(state);
                self.put_off(seq, Duration::ZERO, RetryReason::KafkaBusy)
            }
            Err(SendError::Fatal(_)) => Err(End::Broken),
        }
    }

    /// An update that comes after the one that is awaited. Once that one is overdue, the phone
    /// is told again: it may not have understood.
    fn out_of_turn(&mut self, awaited: u64) -> Result<(), End> {
        self.count(UpdateOutcome::OutOfTurn);
        self.inbox.out_of_turn += 1;
        if self.inbox.out_of_turn > OUT_OF_TURN_MAX {
            return Err(End::Flood);
        }
        if self.now < self.inbox.retry_at {
            return Ok(());
        }
        let reason = self.inbox.retry_reason;
        self.inbox.retry(awaited, Duration::ZERO, reason, self.now);
        self.inbox.strike()
    }

    fn put_off(&mut self, seq: u64, wait: Duration, reason: RetryReason) -> Result<(), End> {
        self.count(UpdateOutcome::Retried);
        self.intake.parts.metrics.retries.add(reason, 1);
        let is_early = self.now < self.inbox.retry_at;
        self.inbox.retry(seq, wait, reason, self.now);
        if is_early {
            self.inbox.strike()
        } else {
            Ok(())
        }
    }

    fn count(&self, outcome: UpdateOutcome) {
        self.intake.parts.metrics.updates.add(outcome, 1);
    }

    /// Refuses what has no number, and so was not counted yet.
    fn refuse(&mut self, refused: &Refused, seq: Option<u64>) -> Result<(), End> {
        if self.inbox.limiter.take(self.now).is_err() {
            return self.inbox.strike();
        }
        self.answer(refused, seq)
    }

    fn answer(&mut self, refused: &Refused, seq: Option<u64>) -> Result<(), End> {
        self.count(UpdateOutcome::Refused);
        self.inbox.answers.push(refused.to_text(seq));
        Ok(())
    }
}

/// Writes text anew.
fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    out.clear();
    // Writing to memory can't fail.
    let _ = out.write_fmt(text);
}

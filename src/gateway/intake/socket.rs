//! One phone's connection.
//!
//! Owns its socket and its times: pings, patience, the token's expiry. Promises that it ends by
//! itself, whatever the phone does: when it is silent, when it does not read, when it floods.
//! Its memory is bounded: one message of at most 4 KiB is read at a time, nothing is read while
//! too much of the session is in flight, and nothing is queued for a phone that does not read.
//! Acknowledgements are coalesced: one for each time that it wakes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Sleep, sleep, timeout};

use super::Intake;
use super::end::{End, close};
use super::protocol::{Answer, MESSAGE_BYTES_MAX};
use super::session::PAUSE_AT;
use super::sessions::Seat;
use super::updates::Inbox;
use crate::model::TimeMs;
use crate::telemetry::Label;

/// What is read from the socket at once; a longer message gets the space it needs.
const READ_BYTES: usize = 2_048;
/// Answers are written to the socket once they are so many bytes, or there are no more.
const WRITE_BYTES: usize = 1_024;
/// An expiry that is further away is looked at again then.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// Times and patience of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two pings. Default 20 s.
    pub ping_every: Duration,
    /// A phone that says nothing for so long, not even a pong, is gone. Default 40 s.
    pub dead_after: Duration,
    /// A phone that does not read what it is told for so long is gone. Default 10 s.
    pub send_within: Duration,
    /// When the gateway is ending, Kafka has so long to store what was taken. Default 10 s.
    pub drain_within: Duration,
    /// When nothing gets settled for so long, what is sent on is answered with `retry` instead
    /// of being left unread. Default 1 s.
    pub stalled_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(20),
            dead_after: Duration::from_secs(40),
            send_within: Duration::from_secs(10),
            drain_within: Duration::from_secs(10),
            stalled_after: Duration::from_secs(1),
        }
    }
}

/// A connection's buffers and limits.
pub(super) fn configured(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_write_buffer_size(WRITE_BYTES + 2 * MESSAGE_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
}

/// Serves a phone until the connection ends.
pub(super) async fn serve(
    mut socket: WebSocket,
    intake: Arc<Intake>,
    seat: Seat,
    expires_at_ms: TimeMs,
) {
    let end = {
        let now = Instant::now();
        let mut connection = Connection {
            inbox: Inbox::new(intake.parts.updates_per_s, now),
            intake: &intake,
            seat,
            expires_at_ms,
            heard: now,
            ping_at: now + intake.parts.pace.ping_every,
            progress: now,
        };
        connection.run(&mut socket).await
    };
    intake.parts.metrics.sockets_ended.add(end, 1);
    tracing::debug!(end = end.text(), "a phone's connection ended");
    let within = intake.parts.pace.send_within.min(Duration::from_secs(2));
    drop(intake);
    close(socket, end, within).await;
}

struct Connection<'a> {
    inbox: Inbox,
    intake: &'a Intake,
    seat: Seat,
    expires_at_ms: TimeMs,
    /// When the phone was last heard.
    heard: Instant,
    ping_at: Instant,
    /// When something was last settled, or nothing was in flight.
    progress: Instant,
}

/// What a connection wakes for.
enum Woken {
    Settled,
    Clock,
    Drain,
    Heard(Option<Result<Message, axum::Error>>),
}

impl Connection<'_> {
    async fn run(&mut self, socket: &mut WebSocket) -> End {
        let welcome = Answer::Welcome {
            session: &self.seat.cell.name,
            acked: self.seat.acked,
        };
        self.inbox.answers.push(welcome.to_text());
        let mut drain = self.intake.parts.drain.clone();
        let mut clock = std::pin::pin!(sleep(Duration::ZERO));
        loop {
            if let Err(end) = self.tell(socket).await {
                return end;
            }
            let Some(may_read) = self.may_read() else {
                return End::TakenOver;
            };
            self.wind(clock.as_mut(), may_read);
            let woken = tokio::select! {
                biased;
                () = self.seat.wake.notified() => Woken::Settled,
                // Its sender is gone only with the gateway.
                _ = drain.wait_for(|drain| *drain) => Woken::Drain,
                () = clock.as_mut() => Woken::Clock,
                message = socket.next(), if may_read => Woken::Heard(message),
            };
            let went_on = match woken {
                Woken::Settled => {
                    self.progress = Instant::now();
                    Ok(())
                }
                Woken::Clock => self.on_clock(socket).await,
                Woken::Drain => return self.drain(socket).await,
                Woken::Heard(message) => self.on_message(message),
            };
            if let Err(end) = went_on {
                // What was to be answered before it is.
                let _ = self.tell(socket).await;
                return end;
            }
        }
    }

    /// Whether there is room for more in flight, or it is time to say that there is none; `None`
    /// once another connection has the session.
    fn may_read(&mut self) -> Option<bool> {
        let in_flight = self.seat.lock()?.session.in_flight();
        let now = Instant::now();
        if in_flight == 0 {
            self.progress = now;
        }
        let pace = &self.intake.parts.pace;
        let may_read = in_flight < PAUSE_AT || now >= self.progress + pace.stalled_after;
        if !may_read {
            // A phone that isn't read can't be heard.
            self.heard = now;
        }
        Some(may_read)
    }

    /// Sets the clock to the next thing that is due. It goes off too early rather than being
    /// set for each message.
    fn wind(&self, mut clock: Pin<&mut Sleep>, may_read: bool) {
        let pace = &self.intake.parts.pace;
        let now = Instant::now();
        let until_expiry = self.expires_at_ms.saturating_sub(wall_clock_ms()).max(0);
        let expiry = Duration::from_millis(until_expiry.unsigned_abs()).min(LOOK_AGAIN);
        let mut next = (now + expiry)
            .min(self.ping_at)
            .min(self.heard + pace.dead_after);
        if !may_read {
            next = next.min(self.progress + pace.stalled_after);
        }
        let next = tokio::time::Instant::from_std(next);
        if clock.is_elapsed() || clock.deadline() > next {
            clock.as_mut().reset(next);
        }
    }

    async fn on_clock(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let now = Instant::now();
        let pace = self.intake.parts.pace;
        if wall_clock_ms() >= self.expires_at_ms {
            return Err(End::Expired);
        }
        if self.intake.parts.outlet.fatal().is_some() {
            return Err(End::Broken);
        }
        if now >= self.heard + pace.dead_after {
            return Err(End::Silent);
        }
        if now >= self.ping_at {
            self.ping_at = now + pace.ping_every;
            let ping = socket.send(Message::Ping(bytes::Bytes::new()));
            within(pace.send_within, ping).await?;
        }
        Ok(())
    }

    fn on_message(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let now = Instant::now();
        self.heard = now;
        match message {
            None | Some(Ok(Message::Close(_))) => Err(End::Left),
            Some(Err(error)) => Err(End::of(error)),
            Some(Ok(Message::Binary(_))) => Err(End::Binary),
            Some(Ok(Message::Text(text))) => {
                let received_at_ms = wall_clock_ms();
                self.inbox
                    .take_message(self.intake, &self.seat, &text, received_at_ms, now)
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => self.inbox.take_control(now),
        }
    }

    /// Sends what there is to say.
    async fn tell(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let due = match self.seat.lock() {
            Some(mut state) => state.session.ack_due(),
            None => return Err(End::TakenOver),
        };
        if due.is_none() && self.inbox.answers.is_empty() {
            return Ok(());
        }
        let mut answers = std::mem::take(&mut self.inbox.answers);
        if let Some(seq) = due {
            self.intake.parts.metrics.acks.inc();
            answers.push(Answer::Ack { seq }.to_text());
        }
        let tell = async {
            for answer in answers {
                socket.feed(Message::Text(answer.into())).await?;
            }
            socket.flush().await
        };
        within(self.intake.parts.pace.send_within, tell).await
    }

    /// The gateway is ending: what was taken is acknowledged first, and no more is taken.
    async fn drain(&mut self, socket: &mut WebSocket) -> End {
        let deadline = Instant::now() + self.intake.parts.pace.drain_within;
        loop {
            if self.intake.parts.outlet.fatal().is_some() {
                return End::Broken;
            }
            // Asked before it is told: what is settled in between is told the next time.
            let in_flight = self.seat.lock().map(|state| state.session.in_flight());
            if let Err(end) = self.tell(socket).await {
                return end;
            }
            match in_flight {
                None => return End::TakenOver,
                Some(0) => return End::Draining,
                Some(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if timeout(left, self.seat.wake.notified()).await.is_err() {
                return End::Draining;
            }
        }
    }
}

/// Sends, as long as the phone takes it in.
async fn within(
    patience: Duration,
    send: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), End> {
    match timeout(patience, send).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_) => Err(End::Unread),
    }
}

/// Milliseconds since 1970.
fn wall_clock_ms() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as TimeMs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a call returns, without calling.
    fn size_of_returned<A, B, C, D, R>(_: impl Fn(A, B, C, D) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_connection_s_task_is_small() {
        let size = size_of_returned(serve);
        println!(
            "a connection's future: {size} bytes, the socket {}",
            size_of::<WebSocket>()
        );
        assert!(size < 4_096, "{size} bytes");
    }
}

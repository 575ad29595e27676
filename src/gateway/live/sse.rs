//! Server-Sent Events: how a stream is written, and when.
//!
//! Owns the frames, the heartbeat, and a stream's end. Promises that what a stream says is
//! made when its socket takes it and not before, so that a slow reader holds up nothing and
//! gets the latest; that a grant that runs out ends its streams; and that draining ends all.
//! Never queues.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::hub::Watcher;
use super::{Counted, Shared, wall_clock_ms};
use crate::model::TimeMs;

/// A comment goes out after this long without anything else.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a browser waits before it comes again.
const RETRY: &str = "retry: 1000\n\n";

/// What a stream does next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Says this.
    Say(String),
    /// Says this, and closes.
    End(String),
    /// Has nothing to say until its subject is touched, or this much time has gone by.
    Wait(Option<Duration>),
}

/// What one kind of stream tells, asked again after each thing that it said.
pub(super) trait Teller: Send + 'static {
    /// Decides from the view as it is now.
    fn step(&mut self, shared: &Shared, now_ms: TimeMs) -> Step;
}

/// Appends one event; its data is one line, as JSON is.
pub(super) fn event(out: &mut String, name: &str, id: Option<&str>, data: &impl Serialize) {
    out.push_str("event: ");
    out.push_str(name);
    // An id that would break the line is not told: resuming then begins anew.
    if let Some(id) = id.filter(|id| !id.contains(['\n', '\r', '\0'])) {
        out.push_str("\nid: ");
        out.push_str(id);
    }
    out.push_str("\ndata: ");
    // What streams show has text keys only, and finite numbers.
    out.push_str(&serde_json::to_string(data).unwrap_or_default());
    out.push_str("\n\n");
}

/// There is nothing more to come, also after another request.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamEnded)]
pub(super) struct Ended<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// How the order ended, or that the token has expired.
    #[schema(schema_with = super::described::end)]
    pub(super) status: &'a str,
}

/// The last event of a stream.
pub(super) fn ended(now_ms: TimeMs, status: &str) -> String {
    let mut out = String::new();
    event(
        &mut out,
        "ended",
        None,
        &Ended {
            now: now_ms,
            status,
        },
    );
    out
}

struct Stream<T> {
    teller: T,
    shared: Arc<Shared>,
    /// What wakes it; without one only time does.
    watcher: Option<Watcher>,
    ending: watch::Receiver<bool>,
    expires: Instant,
    said: Option<Instant>,
    over: bool,
    _counted: Counted,
}

impl<T: Teller> Stream<T> {
    fn say(&mut self, text: String) -> Option<Bytes> {
        let first = self.said.replace(Instant::now()).is_none();
        Some(Bytes::from(if first {
            format!("{RETRY}{text}")
        } else {
            text
        }))
    }

    /// The next piece of the body, when the socket has room for one.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.over && !*self.ending.borrow() {
            let now = Instant::now();
            if now >= self.expires {
                self.over = true;
                return self.say(ended(wall_clock_ms(), "expired"));
            }
            if let Some(watcher) = &mut self.watcher {
                watcher.look();
            }
            let wait = match self.teller.step(&self.shared, wall_clock_ms()) {
                Step::Say(text) => return self.say(text),
                Step::End(text) => {
                    self.over = true;
                    return self.say(text);
                }
                Step::Wait(wait) => wait,
            };
            let beat = self.said.unwrap_or(now) + HEARTBEAT;
            if now >= beat {
                return self.say(":\n\n".into());
            }
            let mut until = beat.min(self.expires);
            if let Some(wait) = wait {
                until = until.min(now + wait);
            }
            let touched = async {
                match &mut self.watcher {
                    Some(watcher) => watcher.touched().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = touched => {}
                () = tokio::time::sleep_until(until) => {}
                // Whoever would say so being gone is an end as well.
                _ = self.ending.wait_for(|ending| *ending) => return None,
            }
        }
        None
    }
}

/// What a stream says, piece by piece.
fn pieces<T: Teller>(
    stream: Stream<T>,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    futures_util::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next().await?;
        Some((Ok(piece), stream))
    })
}

/// How many bytes one stream takes, besides its connection.
#[cfg(test)]
pub(super) fn size_of_body<T: Teller>() -> usize {
    fn of<T, S>(_: fn(Stream<T>) -> S) -> usize {
        size_of::<S>()
    }
    of(pieces::<T>)
}

/// The answer that a stream is.
pub(super) fn stream<T: Teller>(
    shared: &Arc<Shared>,
    watcher: Option<Watcher>,
    expires_at_ms: TimeMs,
    teller: T,
) -> Response {
    let left_ms = (expires_at_ms - wall_clock_ms()).max(0);
    // A year is as good as for ever, and adds up without overflow.
    let left = Duration::from_millis(left_ms as u64).min(Duration::from_secs(31_536_000));
    let stream = Stream {
        teller,
        shared: Arc::clone(shared),
        watcher,
        ending: shared.ending.clone(),
        expires: Instant::now() + left,
        said: None,
        over: false,
        _counted: Counted::one_more(&shared.streams),
    };
    let mut response = Body::from_stream(pieces(stream)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies would collect a stream before they pass it on.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}

//! One phone: what it has to send, and what the gateway made of it.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::answer::Answer;
use super::tally::Tally;
use crate::model::DriverId;
use crate::simulate::What;
use crate::simulate::backlog::Backlog;

/// Updates that a phone keeps: ten minutes at one a second. One more, and the oldest goes.
pub(super) const KEPT: usize = 600;
/// Of these, so many may be sent and not settled.
const WINDOW: usize = 64;
/// Updates in one message, so that it stays well below the gateway's 4 KiB: one of the city's
/// is at most 190 bytes.
const PER_FRAME: usize = 16;

/// An update until the gateway settles it.
struct Kept {
    what: What,
    /// When the driver's app had it to send.
    since: Instant,
    json: Box<str>,
}

/// What the gateway's answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// To go on.
    GoOn,
    /// To send nothing for so many ms.
    HoldBack(u64),
}

/// One driver's phone. The city gives it updates; its connection sends them.
pub(super) struct Phone {
    /// Whose.
    pub(super) driver: DriverId,
    /// Wakes the connection when there is something to send.
    pub(super) news: Notify,
    state: Mutex<State>,
}

struct State {
    backlog: Backlog<Kept>,
    /// The number that the gateway waits for since its last `retry`, and hears nothing else.
    awaited: Option<u64>,
}

impl Phone {
    pub(super) fn new(driver: DriverId) -> Self {
        Self {
            driver,
            news: Notify::new(),
            state: Mutex::new(State {
                backlog: Backlog::new(KEPT, WINDOW),
                awaited: None,
            }),
        }
    }

    /// Keeps an update, a JSON object, to be sent; the oldest makes room if there is none.
    pub(super) fn give(&self, what: What, json: &str, tally: &Tally) {
        let kept = Kept {
            what,
            since: Instant::now(),
            json: json.into(),
        };
        let mut state = self.state();
        tally.on_given();
        if state.backlog.len() >= KEPT && state.backlog.drop_oldest().is_some() {
            tally.on_dropped();
        }
        let seq = state.backlog.push(kept);
        debug_assert!(seq.is_some(), "room was made");
        drop(state);
        self.news.notify_one();
    }

    /// The next message to send: an update, or an array if many wait. It counts as sent.
    ///
    /// # Errors
    /// The number that the gateway waits for is none that this phone still has: only a new
    /// connection helps.
    pub(super) fn next_frame(&self) -> Result<Option<String>, Gone> {
        let mut state = self.state();
        if let (Some(awaited), Some(first)) = (state.awaited, state.backlog.first_unsent()) {
            if first > awaited {
                return Err(Gone);
            }
            state.awaited = None;
        }
        let mut frame = String::new();
        let mut updates = 0;
        while updates < PER_FRAME
            && let Some((seq, kept)) = state.backlog.next_to_send()
        {
            frame.push(if updates == 0 { '[' } else { ',' });
            // Writing to a string can't fail.
            let _ = write!(frame, "{{\"seq\":{seq},{}", &kept.json[1..]);
            updates += 1;
        }
        match updates {
            0 => return Ok(None),
            1 => drop(frame.remove(0)),
            _ => frame.push(']'),
        }
        Ok(Some(frame))
    }

    /// Does what the gateway says.
    pub(super) fn hear(&self, answer: Answer, tally: &Tally) -> Then {
        let mut state = self.state();
        let now = Instant::now();
        match answer {
            Answer::Welcome { acked } => {
                let settled = state.backlog.take_settled(acked);
                settled.for_each(|kept| tally.on_acked(kept.what, now - kept.since));
                state.backlog.on_welcome(acked);
                state.awaited = None;
            }
            Answer::Ack { seq } => {
                let settled = state.backlog.take_settled(seq);
                settled.for_each(|kept| tally.on_acked(kept.what, now - kept.since));
            }
            Answer::Error { seq, reason, field } => {
                // Without a number it is about none of the city's, who writes good JSON.
                if seq.is_some_and(|seq| state.backlog.on_error(seq).is_some()) {
                    tally.on_refused(&reason, field.as_deref());
                }
            }
            Answer::Retry { seq, after_ms } => {
                state.backlog.on_retry(seq);
                state.awaited = Some(seq);
                tally.on_retry();
                return Then::HoldBack(after_ms);
            }
            Answer::Other => {}
        }
        Then::GoOn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything in it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The update that the gateway waits for was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Oddity;

    const PLAIN: What = What::Update(Oddity::None);

    fn given(count: usize) -> (Phone, Tally) {
        let (phone, tally) = (Phone::new(DriverId(7)), Tally::new());
        for n in 0..count {
            phone.give(PLAIN, &format!("{{\"n\":{n}}}"), &tally);
        }
        (phone, tally)
    }

    fn seqs(frame: &str) -> Vec<u64> {
        let value: serde_json::Value = serde_json::from_str(frame).unwrap();
        let seq = |value: &serde_json::Value| {
            assert!(value["n"].is_u64());
            value["seq"].as_u64().unwrap()
        };
        match &value {
            serde_json::Value::Array(all) => all.iter().map(seq).collect(),
            one => vec![seq(one)],
        }
    }

    fn all_sent(phone: &Phone) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(frame) = phone.next_frame().unwrap() {
            all.extend(seqs(&frame));
        }
        all
    }

    #[test]
    fn one_update_is_an_object_and_many_are_an_array() {
        let (phone, _) = given(1);
        let frame = phone.next_frame().unwrap();
        assert_eq!(frame.as_deref(), Some(r#"{"seq":1,"n":0}"#));
        assert_eq!(phone.next_frame(), Ok(None));

        let (phone, _) = given(2);
        let frame = phone.next_frame().unwrap();
        let both = r#"[{"seq":1,"n":0},{"seq":2,"n":1}]"#;
        assert_eq!(frame.as_deref(), Some(both));

        let (phone, _) = given(PER_FRAME + 3);
        let frame = phone.next_frame().unwrap().unwrap();
        assert_eq!(seqs(&frame), (1..=PER_FRAME as u64).collect::<Vec<_>>());
        assert_eq!(seqs(&phone.next_frame().unwrap().unwrap()), [17, 18, 19]);
    }

    #[test]
    fn what_is_acknowledged_counts_once() {
        let (phone, tally) = given(5);
        assert_eq!(all_sent(&phone), [1, 2, 3, 4, 5]);
        phone.hear(Answer::Ack { seq: 2 }, &tally);
        phone.hear(Answer::Ack { seq: 2 }, &tally);
        assert_eq!((tally.acked(PLAIN), tally.waiting()), (2, 3));
        // Reconnected: the gateway had taken one more.
        phone.hear(Answer::Welcome { acked: 3 }, &tally);
        assert_eq!((tally.acked(PLAIN), tally.waiting()), (3, 2));
        assert_eq!(all_sent(&phone), [4, 5]);
    }

    #[test]
    fn what_is_refused_is_settled_and_not_acknowledged() {
        let (phone, tally) = given(3);
        all_sent(&phone);
        let refusal = Answer::Error {
            seq: Some(2),
            reason: "out_of_range".into(),
            field: Some("latitude".into()),
        };
        phone.hear(refusal.clone(), &tally);
        phone.hear(refusal, &tally);
        phone.hear(Answer::Ack { seq: 3 }, &tally);
        assert_eq!((tally.acked(PLAIN), tally.waiting()), (2, 0));
        assert_eq!(tally.refused(), 1);
        assert_eq!(
            tally.last_refusal().as_deref(),
            Some("out_of_range of latitude")
        );
    }

    #[test]
    fn a_retry_is_obeyed() {
        let (phone, tally) = given(4);
        all_sent(&phone);
        let retry = Answer::Retry {
            seq: 3,
            after_ms: 500,
        };
        assert_eq!(phone.hear(retry, &tally), Then::HoldBack(500));
        assert_eq!(all_sent(&phone), [3, 4]);
        assert_eq!(tally.waiting(), 4);
    }

    #[test]
    fn the_oldest_goes_when_the_phone_is_full() {
        let (phone, tally) = given(KEPT + 10);
        assert_eq!((tally.dropped(), tally.waiting()), (10, KEPT as u64));
        let mut next = 11;
        while next <= KEPT as u64 + 10 {
            let sent = all_sent(&phone);
            assert!(sent.len() <= WINDOW);
            assert_eq!(sent.first(), Some(&next));
            next = sent.last().unwrap() + 1;
            phone.hear(Answer::Ack { seq: next - 1 }, &tally);
        }
        assert_eq!((tally.acked(PLAIN), tally.waiting()), (KEPT as u64, 0));
    }

    /// The gateway hears nothing until what it asked for comes: here it never will.
    #[test]
    fn an_awaited_update_that_is_gone_takes_a_new_connection() {
        let (phone, tally) = given(2);
        all_sent(&phone);
        let retry = Answer::Retry {
            seq: 1,
            after_ms: 5,
        };
        phone.hear(retry, &tally);
        for n in 0..KEPT {
            phone.give(PLAIN, &format!("{{\"n\":{n}}}"), &tally);
        }
        assert_eq!(phone.next_frame(), Err(Gone));
        assert_eq!(phone.next_frame(), Err(Gone));
        phone.hear(Answer::Welcome { acked: 0 }, &tally);
        assert_eq!(all_sent(&phone).first(), Some(&3));
    }
}

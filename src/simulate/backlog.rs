//! A phone's updates that the gateway has not settled yet, and which of them to send next.
//!
//! Owns the phone's half of the gateway's protocol, without socket or clock: numbers updates,
//! keeps each until it is acknowledged or refused, goes back to where a `retry` says, and after
//! a reconnect sends everything that is left once more. Promises that numbers rise by one and
//! are sent in their order. Bounded: a full backlog takes no update until one is settled. It
//! never waits: to hold back for as long as a `retry` says is for whoever asks
//! [`Backlog::next_to_send`].

use std::collections::VecDeque;

/// Updates from oldest to newest: first those that were sent on this connection, then those
/// that were not.
#[derive(Clone, Debug)]
pub struct Backlog<T> {
    waiting: VecDeque<(u64, T)>,
    /// How many of `waiting` were sent on this connection.
    sent: usize,
    /// The number of the newest update; 0 before the first.
    last: u64,
    capacity: usize,
    window: usize,
}

impl<T> Backlog<T> {
    /// An empty backlog of at most `capacity` updates, of which at most `window` are sent and
    /// not settled. Both are at least 1.
    pub fn new(capacity: usize, window: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            sent: 0,
            last: 0,
            capacity: capacity.max(1),
            window: window.max(1),
        }
    }

    /// Keeps an update and returns its number, from 1; `None` when full: it is not kept.
    pub fn push(&mut self, update: T) -> Option<u64> {
        if self.waiting.len() >= self.capacity {
            return None;
        }
        self.last += 1;
        self.waiting.push_back((self.last, update));
        Some(self.last)
    }

    /// The next update to send, which counts as sent from now on; `None` when all are, or when
    /// a full window is not settled.
    pub fn next_to_send(&mut self) -> Option<(u64, &T)> {
        if self.sent >= self.window {
            return None;
        }
        let (seq, update) = self.waiting.get(self.sent)?;
        self.sent += 1;
        Some((*seq, update))
    }

    /// `ack`: everything up to `seq` is settled. Returns how many updates that let go.
    pub fn on_ack(&mut self, seq: u64) -> usize {
        self.take_settled(seq).count()
    }

    /// As [`Backlog::on_ack`], and returns the updates that it lets go.
    pub fn take_settled(&mut self, seq: u64) -> impl Iterator<Item = T> + '_ {
        let settled = self.waiting.partition_point(|(each, _)| *each <= seq);
        self.sent = self.sent.saturating_sub(settled);
        self.waiting.drain(..settled).map(|(_, update)| update)
    }

    /// Gives the oldest update up, to make room: nobody will know whether it was taken.
    pub fn drop_oldest(&mut self) -> Option<T> {
        self.sent = self.sent.saturating_sub(1);
        self.waiting.pop_front().map(|(_, update)| update)
    }

    /// The number of the oldest update that is not sent on this connection.
    pub fn first_unsent(&self) -> Option<u64> {
        self.waiting.get(self.sent).map(|(seq, _)| *seq)
    }

    /// `error`: this update was refused, so that sending it again is of no use. Returns it, if
    /// it was not settled before.
    pub fn on_error(&mut self, seq: u64) -> Option<T> {
        let at = self.waiting.binary_search_by_key(&seq, |(each, _)| *each);
        let at = at.ok()?;
        if at < self.sent {
            self.sent -= 1;
        }
        self.waiting.remove(at).map(|(_, update)| update)
    }

    /// `retry`: `seq` and all after it were not taken; they are sent again.
    pub fn on_retry(&mut self, seq: u64) {
        let first = self.waiting.partition_point(|(each, _)| *each < seq);
        self.sent = self.sent.min(first);
    }

    /// `welcome` on a new connection: what is not settled is sent again.
    pub fn on_welcome(&mut self, acked: u64) {
        self.on_ack(acked);
        self.sent = 0;
    }

    /// How many updates are kept: sent and not settled, or not sent.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many updates were sent on this connection and are not settled.
    pub fn unsettled(&self) -> usize {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(backlog: &mut Backlog<char>) -> String {
        let mut all = String::new();
        while let Some((seq, update)) = backlog.next_to_send() {
            all.push_str(&format!("{seq}{update} "));
        }
        all
    }

    fn of(updates: &str, capacity: usize, window: usize) -> Backlog<char> {
        let mut backlog = Backlog::new(capacity, window);
        for update in updates.chars() {
            backlog.push(update);
        }
        backlog
    }

    #[test]
    fn sends_each_once_until_something_says_otherwise() {
        let mut backlog = of("abc", 10, 10);
        assert_eq!(sent(&mut backlog), "1a 2b 3c ");
        assert_eq!(sent(&mut backlog), "");
        assert_eq!(backlog.push('d'), Some(4));
        assert_eq!(sent(&mut backlog), "4d ");
        assert_eq!(backlog.on_ack(2), 2);
        assert_eq!(backlog.on_ack(1), 0);
        assert_eq!((backlog.len(), backlog.unsettled()), (2, 2));
        assert_eq!(backlog.on_ack(4), 2);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_retry_goes_back_to_its_number() {
        let mut backlog = of("abcd", 10, 10);
        assert_eq!(sent(&mut backlog), "1a 2b 3c 4d ");
        backlog.on_retry(3);
        assert_eq!(sent(&mut backlog), "3c 4d ");
        backlog.on_ack(4);
        backlog.on_retry(3);
        assert_eq!(sent(&mut backlog), "");
        // One for what was never sent changes nothing.
        backlog.push('e');
        backlog.on_retry(9);
        assert_eq!(sent(&mut backlog), "5e ");
    }

    #[test]
    fn a_new_connection_sends_what_is_not_settled() {
        let mut backlog = of("abcd", 10, 10);
        sent(&mut backlog);
        backlog.on_ack(1);
        backlog.on_welcome(2);
        assert_eq!(sent(&mut backlog), "3c 4d ");
        backlog.on_welcome(0);
        assert_eq!(sent(&mut backlog), "3c 4d ");
    }

    #[test]
    fn a_refused_update_is_let_go() {
        let mut backlog = of("abc", 10, 2);
        assert_eq!(sent(&mut backlog), "1a 2b ");
        assert_eq!(backlog.on_error(2), Some('b'));
        assert_eq!(backlog.on_error(2), None);
        assert_eq!(sent(&mut backlog), "3c ");
        backlog.on_welcome(0);
        assert_eq!(sent(&mut backlog), "1a 3c ");
        // A gap in the numbers is no obstacle to going back.
        backlog.on_retry(2);
        assert_eq!(sent(&mut backlog), "3c ");
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut backlog = of("abc", 3, 3);
        backlog.next_to_send();
        assert_eq!(backlog.first_unsent(), Some(2));
        assert_eq!(backlog.drop_oldest(), Some('a'));
        assert_eq!(backlog.push('d'), Some(4));
        assert_eq!((backlog.unsettled(), backlog.len()), (0, 3));
        assert_eq!(backlog.drop_oldest(), Some('b'));
        assert_eq!(sent(&mut backlog), "3c 4d ");
        assert_eq!(backlog.take_settled(4).collect::<String>(), "cd");
        assert_eq!(
            (backlog.drop_oldest(), backlog.first_unsent()),
            (None, None)
        );
    }

    #[test]
    fn the_window_and_the_capacity_are_bounds() {
        let mut backlog = of("abcd", 3, 2);
        assert_eq!(backlog.len(), 3);
        assert_eq!(sent(&mut backlog), "1a 2b ");
        backlog.on_ack(1);
        assert_eq!(sent(&mut backlog), "3c ");
        // What was not kept used up no number.
        assert_eq!(backlog.push('e'), Some(4));
    }
}

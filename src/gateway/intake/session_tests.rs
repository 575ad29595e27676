//! The session by cases, and against phones and partitions that do as they like.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Offers an update that Kafka takes.
fn send(session: &mut Session, seq: u64) -> Offer {
    let offer = session.offer(seq);
    if offer == Offer::New {
        session.take(seq);
    }
    offer
}

#[test]
fn acknowledgements_are_cumulative_and_wait_for_the_slower_partition() {
    let mut session = Session::default();
    assert_eq!(session.connected(), 0);
    for seq in 1..=4 {
        assert_eq!(send(&mut session, seq), Offer::New);
    }
    assert!(!session.stored(2));
    assert!(!session.stored(4));
    assert_eq!(session.ack_due(), None);
    assert!(session.stored(1));
    assert_eq!(session.ack_due(), Some(2));
    assert_eq!(session.ack_due(), None);
    assert!(session.stored(3));
    assert_eq!(session.ack_due(), Some(4));
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn a_refused_update_is_settled_in_its_turn() {
    let mut session = Session::default();
    send(&mut session, 1);
    assert_eq!(session.offer(2), Offer::New);
    session.settle(2);
    assert_eq!(session.ack_due(), None);
    session.stored(1);
    assert_eq!(session.ack_due(), Some(2));
    assert_eq!(session.offer(3), Offer::New);
    session.settle(3);
    assert_eq!(session.ack_due(), Some(3));
}

#[test]
fn a_resent_update_is_acknowledged_when_the_first_one_is() {
    let mut session = Session::default();
    send(&mut session, 1);
    send(&mut session, 2);
    assert_eq!(send(&mut session, 1), Offer::Resent);
    assert_eq!(session.ack_due(), None);
    session.stored(1);
    assert_eq!(session.ack_due(), Some(1));
    // Stored: at once, and up to where all is settled.
    session.stored(2);
    assert_eq!(session.ack_due(), Some(2));
    assert_eq!(send(&mut session, 1), Offer::Resent);
    assert_eq!(session.ack_due(), Some(2));
    assert_eq!(session.ack_due(), None);
}

#[test]
fn after_a_retry_only_going_back_counts() {
    let mut session = Session::default();
    send(&mut session, 1);
    assert_eq!(session.offer(2), Offer::New);
    session.put_back(2);
    assert_eq!(session.offer(3), Offer::OutOfTurn { awaited: 2 });
    assert_eq!(session.offer(4), Offer::OutOfTurn { awaited: 2 });
    assert_eq!(send(&mut session, 2), Offer::New);
    assert_eq!(send(&mut session, 3), Offer::New);
    // Further back than need be.
    assert_eq!(session.offer(4), Offer::New);
    session.put_back(4);
    assert_eq!(send(&mut session, 3), Offer::Resent);
    assert_eq!(send(&mut session, 4), Offer::New);
    // A new connection starts afresh.
    assert_eq!(session.offer(5), Offer::New);
    session.put_back(5);
    session.connected();
    assert_eq!(send(&mut session, 6), Offer::New);
}

#[test]
fn what_is_acknowledged_is_awaited_no_longer() {
    let mut session = Session::default();
    for seq in 1..=3 {
        send(&mut session, seq);
    }
    // The phone has come back and sends more than it may.
    session.connected();
    assert_eq!(session.offer(1), Offer::Resent);
    assert_eq!(session.offer(2), Offer::Resent);
    session.put_back(2);
    assert_eq!(session.offer(3), Offer::OutOfTurn { awaited: 2 });
    for seq in 1..=3 {
        session.stored(seq);
    }
    assert_eq!(session.ack_due(), Some(3));
    assert_eq!(send(&mut session, 4), Offer::New);
}

#[test]
fn numbers_may_have_gaps_and_begin_anywhere() {
    let mut session = Session::default();
    assert_eq!(send(&mut session, 17), Offer::New);
    assert_eq!(send(&mut session, 40), Offer::New);
    session.stored(17);
    assert_eq!(session.ack_due(), Some(17));
    session.stored(40);
    assert_eq!(session.ack_due(), Some(40));
    assert_eq!(session.next_seq(), 41);
}

#[test]
fn an_update_without_a_number_follows_the_last_one_seen() {
    let mut session = Session::default();
    session.connected();
    assert_eq!(session.next_seq(), 1);
    send(&mut session, 1);
    session.offer(2);
    session.put_back(2);
    // Sent before the phone heard of the retry: not the one that is awaited.
    let next = session.next_seq();
    assert_eq!(session.offer(next), Offer::OutOfTurn { awaited: 2 });
    session.connected();
    assert_eq!(session.next_seq(), 2);
}

#[test]
fn what_another_gateway_stored_says_nothing_of_other_partitions() {
    let mut session = Session::known(vec![(1, 20)]);
    assert_eq!(session.connected(), 0);
    assert!(!session.is_stored_elsewhere(0, 19));
    assert!(session.is_stored_elsewhere(1, 20));
    assert!(session.is_stored_elsewhere(1, 7));
    assert!(!session.is_stored_elsewhere(1, 21));
    session.note_stored(0, 19);
    session.note_stored(0, 4);
    assert!(session.is_stored_elsewhere(0, 19));
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The phone sends its next update, if it has one; Kafka has room, or not.
    Send { has_room: bool, is_good: bool },
    /// The first record in flight of a partition is stored.
    Store { partition: usize },
    /// The phone hears what the gateway has said.
    Hear,
    /// The connection breaks: what was said and not heard is lost, and the phone starts over.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (prop::bool::weighted(0.8), prop::bool::weighted(0.9))
            .prop_map(|(has_room, is_good)| Step::Send { has_room, is_good }),
        4 => (0usize..2).prop_map(|partition| Step::Store { partition }),
        2 => Just(Step::Hear),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..200)
}

/// A phone with `total` updates, the gateway's session, and Kafka's two partitions.
struct World {
    session: Session,
    /// The phone: what it sends next, and up to where it was acknowledged.
    next: u64,
    acked: u64,
    /// Said by the gateway and not heard by the phone: acknowledgements and retries.
    said: Vec<(char, u64)>,
    flight: [Vec<u64>; 2],
    /// What each partition holds, and what was refused.
    stored: [Vec<u64>; 2],
    refused: BTreeSet<u64>,
}

impl World {
    fn is_settled(&self, seq: u64) -> bool {
        self.refused.contains(&seq) || self.stored.iter().any(|all| all.contains(&seq))
    }

    fn say_acks(&mut self) {
        if let Some(seq) = self.session.ack_due() {
            for each in 1..=seq {
                assert!(self.is_settled(each), "{each} is acknowledged by {seq}");
            }
            self.said.push(('a', seq));
        }
    }

    fn step(&mut self, step: Step, total: u64) {
        match step {
            Step::Send { has_room, is_good } if self.next <= total => {
                let seq = self.next;
                self.next += 1;
                if self.session.offer(seq) == Offer::New {
                    // Whether an update is good, and where it goes, is its own.
                    if !is_good && seq.is_multiple_of(5) {
                        self.refused.insert(seq);
                        self.session.settle(seq);
                    } else if has_room {
                        self.flight[(seq.wrapping_mul(7) % 3 % 2) as usize].push(seq);
                        self.session.take(seq);
                    } else {
                        self.session.put_back(seq);
                        self.said.push(('r', seq));
                    }
                }
            }
            Step::Send { .. } => {}
            Step::Store { partition } => {
                if !self.flight[partition].is_empty() {
                    let seq = self.flight[partition].remove(0);
                    self.stored[partition].push(seq);
                    self.session.stored(seq);
                }
            }
            Step::Hear => {
                for (what, seq) in std::mem::take(&mut self.said) {
                    match what {
                        'a' => self.acked = self.acked.max(seq),
                        _ => self.next = self.next.min(seq),
                    }
                }
            }
            Step::Reconnect => {
                self.said.clear();
                self.acked = self.acked.max(self.session.connected());
                self.next = self.acked + 1;
            }
        }
        self.say_acks();
    }
}

proptest! {
    /// Whatever is lost, refused or stored late: nothing is acknowledged too early, each update
    /// is in Kafka once and each partition in order, and in the end everything is settled.
    #[test]
    fn nothing_is_lost_repeated_or_swapped(steps in steps(), total in 1u64..60) {
        let mut world = World {
            session: Session::default(),
            next: 1,
            acked: 0,
            said: Vec::new(),
            flight: [Vec::new(), Vec::new()],
            stored: [Vec::new(), Vec::new()],
            refused: BTreeSet::new(),
        };
        world.session.connected();
        for step in steps {
            world.step(step, total);
        }
        // Then all goes well.
        for _ in 0..3 {
            world.step(Step::Hear, total);
            world.step(Step::Reconnect, total);
            for _ in 0..=total {
                world.step(Step::Send { has_room: true, is_good: true }, total);
                world.step(Step::Store { partition: 0 }, total);
                world.step(Step::Store { partition: 1 }, total);
            }
        }
        world.step(Step::Hear, total);
        prop_assert_eq!(world.acked, total);
        prop_assert_eq!(world.session.in_flight(), 0);
        let mut times = BTreeMap::new();
        for partition in &world.stored {
            prop_assert!(partition.is_sorted(), "{:?}", partition);
            for seq in partition {
                *times.entry(*seq).or_insert(0) += 1;
            }
        }
        for seq in 1..=total {
            let expected = u32::from(!world.refused.contains(&seq));
            prop_assert_eq!(times.get(&seq).copied().unwrap_or(0), expected, "{}", seq);
        }
    }
}

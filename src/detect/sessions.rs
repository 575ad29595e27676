//! Which updates of a driver are resent.

use serde::{Deserialize, Serialize};

use crate::model::Sequence;

/// Sessions that are kept of a driver; the least recently used one goes.
///
/// A phone has one, and a partition or two; an app that was started anew has another.
pub(super) const KEPT: usize = 4;

/// How far a session has come in a partition, within which its records are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) partition: i32,
    /// As in [`Sequence::session`].
    pub(super) session: u64,
    /// The greatest number so far.
    pub(super) number: u64,
}

/// Takes a record of a session. Returns whether it is new: one with the number of an earlier
/// one, or less, is a resend. `sessions` are by use, the last used one at the end.
pub(super) fn take(sessions: &mut Vec<Session>, partition: i32, sequence: Sequence) -> bool {
    let Sequence { session, number } = sequence;
    let is_it = |known: &Session| known.session == session && known.partition == partition;
    match sessions.iter().rposition(is_it) {
        Some(at) => sessions[at..].rotate_left(1),
        None => {
            if sessions.len() == KEPT {
                sessions.remove(0);
            }
            // Numbers begin at 1.
            let number = 0;
            sessions.reserve_exact(1);
            sessions.push(Session {
                partition,
                session,
                number,
            });
        }
    }
    let last = sessions.last_mut().expect("it was put there");
    let is_new = number > last.number;
    last.number = last.number.max(number);
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sessions: &mut Vec<Session>, records: &[(i32, u64, u64)]) -> Vec<bool> {
        let records = records.iter();
        records
            .map(|&(partition, session, number)| {
                take(sessions, partition, Sequence { session, number })
            })
            .collect()
    }

    #[test]
    fn a_number_that_was_reached_is_resent() {
        let mut sessions = Vec::new();
        let records = [1, 2, 2, 1, 3, 7, 5, 8].map(|number| (0, 9, number));
        let expected = [true, true, false, false, true, true, false, true];
        assert_eq!(taken(&mut sessions, &records), expected);
        let most = i64::MAX as u64;
        assert_eq!(
            taken(&mut sessions, &[(0, 9, most), (0, 9, most)]),
            [true, false]
        );
    }

    #[test]
    fn partitions_and_sessions_have_numbers_of_their_own() {
        let records = [
            (0, 9, 5),
            (1, 9, 5),
            (0, 8, 5),
            (0, 9, 5),
            (1, 9, 5),
            (0, 8, 6),
        ];
        let expected = [true, true, true, false, false, true];
        assert_eq!(taken(&mut Vec::new(), &records), expected);
    }

    #[test]
    fn the_session_that_was_not_used_for_longest_goes() {
        let mut sessions = Vec::new();
        taken(&mut sessions, &[(0, 1, 5), (0, 2, 5), (0, 3, 5), (0, 4, 5)]);
        // A resend is a use.
        assert_eq!(taken(&mut sessions, &[(0, 1, 1), (0, 5, 5)]), [false, true]);
        assert_eq!(sessions.len(), KEPT);
        let kept = [(0, 1, 5), (0, 3, 5), (0, 4, 5), (0, 5, 5)];
        assert_eq!(taken(&mut sessions, &kept), [false; 4]);
        assert_eq!(taken(&mut sessions, &[(0, 2, 5), (0, 1, 5)]), [true, true]);
    }
}

//! A driver with an open order who is no longer heard.

use serde::{Deserialize, Serialize};

use super::timers::Begun;

/// Whether a driver is heard, and since when it ought to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Silence {
    /// The last valid update, whatever its flag.
    heard: Option<Begun>,
    /// The order that was the first to be open, since when there has always been one; boxed,
    /// for few drivers have one.
    open_since: Option<Box<Begun>>,
    /// Told, and not heard since.
    told: bool,
}

impl Silence {
    /// What silence is counted from, if it is still to be told.
    pub(super) fn counts_from(&self) -> Option<Begun> {
        let open_since = *self.open_since.as_deref().filter(|_| !self.told)?;
        let later = |heard: &Begun| heard.place > open_since.place;
        Some(self.heard.filter(later).unwrap_or(open_since))
    }

    /// The time has come.
    pub(super) fn tell(&mut self) {
        self.told = true;
    }

    /// A valid update came; whether the driver had been silent.
    pub(super) fn hear(&mut self, update: Begun) -> bool {
        self.heard = Some(update);
        std::mem::take(&mut self.told)
    }

    /// An order changed, and now some are open or none.
    pub(super) fn follow(&mut self, any_open: bool, order: Begun) {
        self.open_since = match self.open_since.take() {
            _ if !any_open => None,
            None => Some(Box::new(order)),
            since => since,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Input, Place, Source};

    #[derive(Debug)]
    enum Step {
        Hear,
        Open,
        Close,
        Tell,
    }

    /// Steps at 1, 2, 3 …; from which step silence is counted after it, and whether it ended one.
    #[test]
    fn silence_is_counted_from_the_later_of_update_and_first_open_order() {
        use Step::{Close, Hear, Open, Tell};
        let lives: [&[(Step, Option<i64>, bool)]; 5] = [
            &[(Hear, None, false), (Hear, None, false)],
            &[
                (Open, Some(1), false),
                (Hear, Some(2), false),
                (Open, Some(2), false),
                (Hear, Some(4), false),
                (Close, None, false),
                (Hear, None, false),
                (Open, Some(7), false),
            ],
            // The order is later; a second one changes nothing.
            &[
                (Hear, None, false),
                (Open, Some(2), false),
                (Open, Some(2), false),
            ],
            // Once, until heard.
            &[
                (Open, Some(1), false),
                (Tell, None, false),
                (Open, None, false),
                (Hear, Some(4), true),
                (Hear, Some(5), false),
                (Tell, None, false),
                (Hear, Some(7), true),
            ],
            // Still silent when the order has ended, and with the next.
            &[
                (Open, Some(1), false),
                (Tell, None, false),
                (Close, None, false),
                (Open, None, false),
                (Close, None, false),
                (Hear, None, true),
                (Open, Some(7), false),
            ],
        ];
        for life in lives {
            let mut silence = Silence::default();
            for (at_ms, (step, from, resumed)) in (1..).zip(life) {
                let input = match step {
                    Hear => Input::Updates,
                    _ => Input::Orders,
                };
                let source = Source {
                    input,
                    partition: 0,
                    offset: 0,
                };
                let begun = Begun {
                    place: Place { at_ms, source },
                    event_time_ms: -at_ms,
                };
                let mut ended = false;
                match step {
                    Hear => ended = silence.hear(begun),
                    Open => silence.follow(true, begun),
                    Close => silence.follow(false, begun),
                    Tell => silence.tell(),
                }
                let got = silence.counts_from().map(|begun| begun.place.at_ms);
                assert_eq!((got, ended), (*from, *resumed), "{step:?} at {at_ms}");
            }
        }
    }
}

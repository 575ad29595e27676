//! Arriving and departing, step by step.

use super::Rules;
use super::stay::Stay;
use super::timers::Begun;
use crate::model::{EventKind, Input, Place, Source};

fn begun(at_ms: i64) -> Begun {
    let source = Source {
        input: Input::Updates,
        partition: 0,
        offset: at_ms,
    };
    Begun {
        place: Place { at_ms, source },
        event_time_ms: at_ms,
    }
}

/// What happens to a leg: a fix so many metres off while it is open or over, the timer, or
/// the leg's end.
#[derive(Debug)]
enum Step {
    Fix(f64),
    Over(f64),
    Timer,
    Close,
}

/// Steps at 1, 2, 3 …; since when a stay is pending after each, and what is told.
#[test]
fn stays() {
    use EventKind::{AgentArrived, AgentDeparted};
    use Step::{Close, Fix, Over, Timer};
    type Life = &'static [(Step, Option<i64>, Option<EventKind>)];
    let lives: [(i64, Life); 6] = [
        // A break begins the stay anew; past 150 m it has departed, once.
        (
            10_000,
            &[
                (Fix(60.1), None, None),
                (Fix(60.0), Some(2), None),
                (Fix(0.0), Some(2), None),
                (Fix(60.1), None, None),
                (Fix(10.0), Some(5), None),
                (Timer, None, Some(AgentArrived)),
                (Fix(100.0), None, None),
                (Fix(150.0), None, None),
                (Fix(10.0), None, None),
                (Fix(150.1), None, Some(AgentDeparted)),
                (Fix(10.0), None, None),
                (Fix(900.0), None, None),
            ],
        ),
        // Over before the time has come, and back.
        (
            10_000,
            &[
                (Fix(5.0), Some(1), None),
                (Close, None, None),
                (Over(5.0), None, None),
                (Fix(5.0), Some(4), None),
            ],
        ),
        // Over after the arrival: departed all the same.
        (
            10_000,
            &[
                (Fix(5.0), Some(1), None),
                (Timer, None, Some(AgentArrived)),
                (Close, None, None),
                (Over(149.0), None, None),
                (Over(151.0), None, Some(AgentDeparted)),
            ],
        ),
        // Never there, never gone.
        (
            10_000,
            &[(Over(5.0), None, None), (Over(500.0), None, None)],
        ),
        (10_000, &[(Fix(61.0), None, None), (Fix(500.0), None, None)]),
        // At once.
        (
            0,
            &[
                (Fix(60.0), None, Some(AgentArrived)),
                (Fix(1.0), None, None),
                (Fix(151.0), None, Some(AgentDeparted)),
            ],
        ),
    ];
    let rules = Rules::default();
    for (arrive_ms, life) in lives {
        let mut stay = Stay::Away;
        for (at_ms, (step, pending, told)) in (1..).zip(life) {
            let mut tell = None;
            match *step {
                Fix(metres) => {
                    (stay, tell) = stay.judge(true, metres, begun(at_ms), &rules, arrive_ms);
                }
                Over(metres) => {
                    (stay, tell) = stay.judge(false, metres, begun(at_ms), &rules, arrive_ms);
                }
                Timer => {
                    let since = stay.pending().expect("a stay is pending");
                    stay = Stay::Arrived(since);
                    tell = Some(AgentArrived);
                }
                Close => stay.close(),
            }
            let got = stay.pending().map(|begun| begun.place.at_ms);
            assert_eq!(
                (got, tell),
                (*pending, *told),
                "{step:?} at {at_ms}: {life:?}"
            );
        }
    }
}

//! What an update is to a history: tables of fixes in turn.

use super::Rules;
use super::flags::{Spot, Verdict, judge};
use crate::geo::EARTH_RADIUS_M;
use crate::model::{DriverId, Flag, Input, Place, Position, Source, Update};

/// Event time in s, metres east, accuracy.
fn update(second: f64, metres: f64, accuracy_m: Option<f32>) -> Update {
    let event_time_ms = (second * 1000.0) as i64;
    let source = Source {
        input: Input::Updates,
        partition: 0,
        offset: 0,
    };
    Update {
        place: Place { at_ms: 0, source },
        driver: DriverId(1),
        position: Position {
            longitude: 179.9999 + (metres / EARTH_RADIUS_M).to_degrees(),
            latitude: 0.0,
        },
        event_time_ms,
        received_at_ms: 0,
        accuracy_m,
        speed_mps: None,
        heading_deg: None,
        state: None,
    }
}

#[test]
fn fixes_in_turn() {
    use Flag::{Duplicate, Inaccurate, Late, Ok, Teleport};
    type Fix = (f64, f64, Option<f32>, Flag, bool);
    let lives: &[&[Fix]] = &[
        // A first fix has no speed, but an accuracy.
        &[
            (5.0, 0.0, Some(100.1), Inaccurate, false),
            (4.0, 9e6, Some(100.0), Ok, false),
            (3.999, 9e6, None, Late, false),
            (4.0, 9e6, Some(500.0), Duplicate, false),
            (4.001, 9e6, Some(500.0), Inaccurate, false),
        ],
        // The limit itself is not over it.
        &[
            (0.0, 0.0, None, Ok, false),
            (1.0, 70.001, None, Teleport, false),
            (2.0, 139.99, None, Ok, false),
            (-5.0, 0.0, None, Late, false),
        ],
        // Confirmed by the next, which jumped; the one after has not.
        &[
            (0.0, 0.0, None, Ok, false),
            (1.0, 5000.0, None, Teleport, false),
            (2.0, 5050.0, None, Ok, true),
            (3.0, 5100.0, None, Ok, false),
            (4.0, 0.0, None, Teleport, false),
        ],
        // What is none of the first three counts as next: these don't.
        &[
            (0.0, 0.0, None, Ok, false),
            (2.0, 5000.0, None, Teleport, false),
            (0.0, 5000.0, None, Duplicate, false),
            (-1.0, 5000.0, None, Late, false),
            (2.5, 5000.0, Some(101.0), Inaccurate, false),
            (3.0, 5050.0, None, Ok, true),
        ],
        // Another teleport takes its place; a fix near the first is none of the second.
        &[
            (0.0, 0.0, None, Ok, false),
            (1.0, 5000.0, None, Teleport, false),
            (2.0, 9000.0, None, Teleport, false),
            (3.0, 5010.0, None, Teleport, false),
            (4.0, 5020.0, None, Ok, true),
        ],
        // Only an older one confirms.
        &[
            (0.0, 0.0, None, Ok, false),
            (3.0, 5000.0, None, Teleport, false),
            (3.0, 5000.0, None, Teleport, false),
            (2.0, 5000.0, None, Teleport, false),
            (2.5, 5010.0, None, Ok, true),
        ],
        // Back to the truth forgets the teleport.
        &[
            (0.0, 0.0, None, Ok, false),
            (1.0, 5000.0, None, Teleport, false),
            (2.0, 10.0, None, Ok, false),
            (3.0, 5010.0, None, Teleport, false),
        ],
        // In time everything can be reached.
        &[(0.0, 0.0, None, Ok, false), (1e6, 2e7, None, Ok, false)],
    ];
    let rules = Rules::default();
    for life in lives {
        let (mut last, mut teleport) = (None, None);
        for &(second, metres, accuracy_m, flag, jumped) in *life {
            let mut update = update(second, metres, accuracy_m);
            if update.position.longitude > 180.0 {
                update.position.longitude -= 360.0;
            }
            let verdict = judge(last, teleport, &update, &rules);
            assert_eq!(
                verdict,
                Verdict { flag, jumped },
                "{second} s, {metres} m: {life:?}"
            );
            match flag {
                Ok => (last, teleport) = (Some(Spot::of(&update)), None),
                Teleport => teleport = Some(Spot::of(&update)),
                _ => {}
            }
        }
    }
}

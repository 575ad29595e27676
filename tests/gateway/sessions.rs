//! What is taken, acknowledged, resent, refused and put off.

use std::time::{Duration, Instant};

use riderflow::gateway::access::Subject;
use riderflow::gateway::intake::{End, Pace, RetryReason};
use riderflow::gateway::metrics::UpdateOutcome;
use riderflow::model::DriverId;
use riderflow::model::OrderId;

use crate::common::lab;
use crate::phone::{Heard, Phone};
use crate::stand::{Stand, TOPIC, Wanted, access_with, by_partition, numbered, once_each, stored};

#[test]
fn an_update_is_in_kafka_as_documented_once_it_is_acknowledged() {
    let lab = lab("as documented");
    let stand = Stand::begin(&lab, Wanted::default());
    let before_ms = crate::common::now_ms();
    stand.run(async {
        let (mut phone, acked) = Phone::welcomed(stand.at, &stand.token(453), "k3J9").await;
        assert_eq!(acked, 0);
        phone
            .say(r#"{"seq":17,"longitude":77.5946,"latitude":12.9716,"state":"south","timestamp":1700000000123,"accuracy":8.0,"speed":6.2,"heading":271.5,"extra":[1]}"#)
            .await;
        assert_eq!(phone.hear_ack(17).await, [] as [serde_json::Value; 0]);
        phone.say(r#"{"driverId":"453","longitude":77.5,"latitude":12.9}"#).await;
        phone.hear_ack(18).await;
    });
    let records = lab.read_all(TOPIC);
    assert_eq!(records.len(), 2);
    let first = &records[0];
    assert_eq!(
        (first.partition, first.key.as_deref()),
        (0, Some(&b"453"[..]))
    );
    assert_eq!(first.header("rf-seq"), "k3J9/17");
    assert_eq!(
        String::from_utf8_lossy(first.value.as_deref().expect("a value")),
        r#"{"driverId":453,"longitude":77.5946,"latitude":12.9716,"state":"south","timestamp":1700000000123,"accuracy":8.0,"speed":6.2,"heading":271.5}"#
    );
    let second = &records[1];
    assert_eq!((second.partition, second.header("rf-seq")), (1, ""));
    let json = second.json();
    assert_eq!(json["driverId"], 453);
    let timestamp_ms = json["timestamp"].as_i64().expect("it was given one");
    assert!((before_ms..=crate::common::now_ms()).contains(&timestamp_ms));
}

/// Numbers that a gateway gives begin anew at another one, where they are other updates.
#[test]
fn what_has_no_number_of_its_own_is_never_taken_for_a_resend() {
    let lab = lab("no numbers");
    let stand = Stand::begin(&lab, Wanted::default());
    let other = Stand::again(&lab, Wanted::default());
    for (stand, first) in [(&stand, 1), (&other, 4)] {
        stand.run(async {
            let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(453), "k3J9").await;
            for number in first..first + 3 {
                phone.say(crate::stand::update(number, "south")).await;
            }
            phone.hear_ack(3).await;
        });
        // As the live feed would tell it if they bore the numbers that they were given.
        other.intake.note_stored(DriverId(453), "k3J9", 0, 3);
    }
    let records = lab.read_all(TOPIC);
    assert_eq!(records.len(), 6);
    // A number there is what the job would drop them by.
    assert!(
        records
            .iter()
            .all(|record| record.header("rf-seq").is_empty())
    );
}

#[test]
fn a_resend_is_one_record_on_the_same_connection_and_on_a_new_one() {
    let lab = lab("resends");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let token = stand.token(453);
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "again").await;
        for seq in [1, 2, 1, 2, 3] {
            phone.say(numbered(seq)).await;
        }
        phone.hear_ack(3).await;
        // Settled long ago: acknowledged at once.
        phone.say(numbered(2)).await;
        assert_eq!(phone.hear().await.said()["seq"], 3);
        phone.vanish();
        let (mut phone, acked) = Phone::welcomed(stand.at, &token, "again").await;
        assert_eq!(acked, 3);
        phone
            .say(format!("[{},{},{}]", numbered(2), numbered(3), numbered(4)))
            .await;
        phone.hear_ack(4).await;
        // The same numbers in another session are other updates.
        let (mut other, acked) = Phone::welcomed(stand.at, &token, "another").await;
        assert_eq!(acked, 0);
        other.say(numbered(1)).await;
        other.hear_ack(1).await;
    });
    assert_eq!(stored(&lab, "again"), once_each(1..=4));
    assert_eq!(stored(&lab, "another"), once_each([1]));
    assert_eq!(stand.count(UpdateOutcome::Resent), 5);
}

#[test]
fn a_bad_update_amid_good_ones_is_refused_alone() {
    let lab = lab("bad amid good");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(453), "mixed").await;
        let bad = r#"{"seq":2,"longitude":77.5,"latitude":91}"#;
        phone
            .say(format!("[{},{bad},{}]", numbered(1), numbered(3)))
            .await;
        let others = phone.hear_ack(3).await;
        let errors: Vec<_> = others
            .iter()
            .filter(|said| said["type"] == "error")
            .collect();
        assert_eq!(errors.len(), 1, "{others:?}");
        assert_eq!(errors[0]["seq"], 2);
        assert_eq!(errors[0]["reason"], "out_of_range");
        assert_eq!(errors[0]["field"], "latitude");
        // Another driver's update, as well as an element that is none.
        phone
            .say(r#"{"seq":4,"driverId":7,"longitude":77.5,"latitude":12.9}"#)
            .await;
        let error = phone.hear().await.said();
        assert_eq!(error["reason"], "driver_mismatch");
        assert_eq!(
            (&error["seq"], &error["field"]),
            (&4.into(), &"driverId".into())
        );
        phone.hear_ack(4).await;
        phone.say(format!("[7,{}]", numbered(5))).await;
        let error = phone.hear().await.said();
        assert_eq!(
            (&error["reason"], &error["field"]),
            (&"wrong_type".into(), &"value".into())
        );
        assert_eq!(error.get("seq"), None);
        phone.hear_ack(5).await;
        phone
            .say(r#"{"seq":0,"longitude":77.5,"latitude":12.9}"#)
            .await;
        let error = phone.hear().await.said();
        assert_eq!(
            (&error["reason"], &error["field"]),
            (&"out_of_range".into(), &"seq".into())
        );
    });
    assert_eq!(stored(&lab, "mixed"), once_each([1, 3, 5]));
}

#[test]
fn nobody_gets_in_without_a_driver_s_good_token() {
    let lab = lab("handshakes");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let driver = Subject::Driver(DriverId(453));
        let forged = access_with("another key of at least thirty-two bytes, guessed")
            .mint(&driver, Duration::from_secs(60))
            .expect("there is a key");
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJkcml2ZXIvNDUzIn0.";
        for token in [forged.as_str(), none, "nonsense"] {
            assert_eq!(
                Phone::connect(stand.at, token, "a").await.err(),
                Some(401),
                "{token}"
            );
        }
        assert_eq!(
            Phone::connect_with(stand.at, "", &[]).await.err(),
            Some(401)
        );
        let order = Subject::Order(OrderId("o-1".into()));
        let order = stand.token_for(&order, Duration::from_secs(60));
        assert_eq!(Phone::connect(stand.at, &order, "a").await.err(), Some(403));
        let good = stand.token(453);
        assert_eq!(
            Phone::connect(stand.at, &good, "a%20b").await.err(),
            Some(400)
        );
        // As a browser must do it.
        let offer = format!("riderflow.v1, bearer.{good}");
        let headers = [("sec-websocket-protocol", offer.as_str())];
        let mut phone = Phone::connect_with(stand.at, "", &headers)
            .await
            .expect("let in");
        let welcome = phone.hear().await.said();
        assert_eq!(
            welcome["session"].as_str().map(str::len),
            Some(16),
            "{welcome}"
        );
    });
    assert_eq!(lab.read_all(TOPIC).len(), 0);
}

#[test]
fn a_connection_ends_with_its_token() {
    let lab = lab("expiry");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let driver = Subject::Driver(DriverId(453));
        let token = stand.token_for(&driver, Duration::from_secs(1));
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "short").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        assert_eq!(phone.hear().await, Heard::Closed(1008));
        // A token's times are whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(
            Phone::connect(stand.at, &token, "short").await.err(),
            Some(401)
        );
    });
    assert_eq!(stand.ended(End::Expired), 1);
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let lab = lab("taken over");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let token = stand.token(453);
        let (mut first, _) = Phone::welcomed(stand.at, &token, "one").await;
        first.say(numbered(1)).await;
        first.hear_ack(1).await;
        let (mut second, acked) = Phone::welcomed(stand.at, &token, "one").await;
        assert_eq!(acked, 1);
        assert_eq!(first.hear().await, Heard::Closed(1008));
        second.say(numbered(2)).await;
        second.hear_ack(2).await;
    });
    assert_eq!(stored(&lab, "one"), once_each(1..=2));
}

#[test]
fn a_phone_over_its_rate_goes_back_and_loses_nothing() {
    let lab = lab("over the rate");
    let wanted = Wanted {
        updates_per_s: 20,
        ..Wanted::default()
    };
    let stand = Stand::begin(&lab, wanted);
    let began = Instant::now();
    stand.run(async {
        // Ten seconds' worth at once are free: 200.
        let mut app = crate::phone::App::new(stand.token(453), "fast");
        let updates = (1..=260).map(|number| crate::stand::update(number, "north"));
        app.run(
            updates.collect(),
            Duration::ZERO,
            Duration::from_secs(60),
            || stand.at,
        )
        .await;
        assert_eq!((app.acked, app.reconnects), (260, 1));
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2_900), "{took:?}");
    assert!(stand.metrics.retries.get(RetryReason::RateLimited) >= 1);
    assert_eq!(stored(&lab, "fast"), once_each(1..=260));
    assert!(by_partition(&lab.read_all(TOPIC), "fast")[&1].is_sorted());
}

#[test]
fn a_phone_that_heeds_no_retry_is_closed() {
    let lab = lab("flood");
    let wanted = Wanted {
        updates_per_s: 1,
        ..Wanted::default()
    };
    let stand = Stand::begin(&lab, wanted);
    stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(453), "flood").await;
        for seq in 1..=10 {
            phone.say(numbered(seq)).await;
        }
        phone.hear_ack(10).await;
        // The next one, over and over, whatever is answered.
        for _ in 0..60 {
            if phone.try_say(numbered(11)).await.is_err() {
                break;
            }
        }
        let closed = loop {
            match phone.hear().await {
                Heard::Said(_) => {}
                other => break other,
            }
        };
        assert_eq!(closed, Heard::Closed(1008));
        // So is one that sends nothing but nonsense.
        let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(454), "noise").await;
        for _ in 0..200 {
            if phone.try_say("{nonsense").await.is_err() {
                break;
            }
        }
        let mut errors = 0;
        let closed = loop {
            match phone.hear().await {
                Heard::Said(said) => errors += u32::from(said["reason"] == "malformed_json"),
                other => break other,
            }
        };
        assert_eq!((errors, closed), (10, Heard::Closed(1008)));
    });
    assert_eq!(stand.ended(End::Flood), 2);
    assert_eq!(stored(&lab, "flood"), once_each(1..=10));
}

#[test]
fn a_silent_phone_is_pinged_and_then_given_up() {
    let lab = lab("silent");
    let pace = Pace {
        ping_every: Duration::from_millis(200),
        dead_after: Duration::from_millis(1_500),
        ..Pace::default()
    };
    let stand = Stand::begin(
        &lab,
        Wanted {
            pace,
            ..Wanted::default()
        },
    );
    stand.run(async {
        let token = stand.token(453);
        // One that answers pings, as every WebSocket does while it is read, stays.
        let (mut awake, _) = Phone::welcomed(stand.at, &token, "awake").await;
        let (mut asleep, _) = Phone::welcomed(stand.at, &token, "asleep").await;
        assert_eq!(awake.hear_within(Duration::from_secs(3)).await, None);
        assert_eq!(stand.ended(End::Silent), 1);
        assert_eq!(asleep.hear().await, Heard::Closed(1008));
        awake.say(numbered(1)).await;
        awake.hear_ack(1).await;
    });
}

#[test]
fn draining_acknowledges_what_was_taken_and_says_goodbye() {
    let mut lab = lab("drain");
    let stand = Stand::begin(&lab, Wanted::default());
    let token = stand.token(453);
    let mut phone = stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "last").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        phone
    });
    let frozen = crate::stand::Frozen::kafka(&mut lab);
    stand.run(async {
        for seq in 2..=10 {
            phone.say(numbered(seq)).await;
        }
        crate::outages::until(|| stand.accepted() == 10).await;
        stand.drain();
        assert_eq!(phone.hear_within(Duration::from_millis(500)).await, None);
        // Sent after the drain began: not taken, and not acknowledged.
        phone.say(numbered(11)).await;
    });
    drop(frozen);
    stand.run(async {
        phone.hear_ack(10).await;
        assert_eq!(phone.hear().await, Heard::Closed(1001));
        assert_eq!(
            Phone::connect(stand.at, &token, "last").await.err(),
            Some(503)
        );
    });
    assert_eq!(stored(&lab, "last"), once_each(1..=10));
    assert_eq!(stand.ended(End::Draining), 1);
}

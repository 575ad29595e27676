//! Kafka away, slow, and started again.

use std::time::{Duration, Instant};

use riderflow::gateway::intake::Pace;

use riderflow::gateway::access::Subject;
use riderflow::model::DriverId;

use crate::common::{GATEWAY_KEY, Lab, free_address, lab, wait_until};
use crate::phone::{App, Heard, Phone};
use crate::stand::{
    Frozen, Stand, TOPIC, Wanted, access_with, by_partition, numbered, once_each, stored,
    stored_in, update,
};

/// Waits, at most 20 s.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited 20 s in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn nothing_is_acknowledged_before_kafka_has_it() {
    let mut lab = lab("broker stopped");
    let stand = Stand::begin(&lab, Wanted::default());
    let token = stand.token(453);
    let mut phone = stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "held").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        phone
    });
    let frozen = Frozen::kafka(&mut lab);
    stand.run(async {
        for seq in 2..=40 {
            phone.say(numbered(seq)).await;
        }
        until(|| stand.accepted() == 40).await;
        assert_eq!(phone.hear_within(Duration::from_secs(2)).await, None);
        // A resend is no reason to acknowledge either.
        phone.say(numbered(2)).await;
        assert_eq!(phone.hear_within(Duration::from_millis(300)).await, None);
    });
    drop(frozen);
    stand.run(async {
        assert_eq!(
            phone
                .hear_ack(40)
                .await
                .iter()
                .filter(|said| said["type"] != "ack")
                .count(),
            0
        );
    });
    assert_eq!(stored(&lab, "held"), once_each(1..=40));
}

#[test]
fn a_full_buffer_says_try_later_and_loses_nothing() {
    let mut lab = lab("buffer full");
    let wanted = Wanted {
        buffer_updates: 30,
        pace: Pace {
            stalled_after: Duration::from_millis(200),
            ..Pace::default()
        },
        ..Wanted::default()
    };
    let stand = Stand::begin(&lab, wanted);
    let token = stand.token(453);
    let mut phone = stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "full").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        phone
    });
    let frozen = Frozen::kafka(&mut lab);
    let back_to = stand.run(async {
        for seq in 2..=60 {
            phone.say(numbered(seq)).await;
        }
        let retry = phone.hear().await.said();
        assert_eq!(
            (&retry["type"], &retry["reason"]),
            (&"retry".into(), &"kafka_busy".into())
        );
        let seq = retry["seq"].as_u64().expect("a number");
        assert!((30..=33).contains(&seq), "{retry}");
        let mut after_ms = retry["after_ms"].as_u64().expect("a number");
        assert!((500..=625).contains(&after_ms), "{retry}");
        // It is told to wait longer each time.
        for least_ms in [750, 1_500] {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            phone.say(numbered(seq)).await;
            let retry = phone.hear().await.said();
            assert_eq!(retry["seq"], seq);
            after_ms = retry["after_ms"].as_u64().expect("a number");
            assert!((least_ms..=5_000).contains(&after_ms), "{retry}");
        }
        seq
    });
    drop(frozen);
    stand.run(async {
        phone.hear_ack(back_to - 1).await;
        // Out of turn: nothing but going back counts.
        phone.say(numbered(60)).await;
        for seq in back_to..=60 {
            phone.say(numbered(seq)).await;
            phone.hear_ack(seq).await;
        }
    });
    assert_eq!(stored(&lab, "full"), once_each(1..=60));
    assert!(
        by_partition(&lab.read_all(TOPIC), "full")
            .values()
            .all(|seqs| seqs.is_sorted())
    );
}

#[test]
fn a_session_that_fills_up_is_told_so_too() {
    let mut lab = lab("session full");
    let wanted = Wanted {
        pace: Pace {
            stalled_after: Duration::from_millis(200),
            ..Pace::default()
        },
        ..Wanted::default()
    };
    let stand = Stand::begin(&lab, wanted);
    let token = stand.token(453);
    let (mut phone, _) = stand.run(Phone::welcomed(stand.at, &token, "many"));
    let frozen = Frozen::kafka(&mut lab);
    stand.run(async {
        for seq in 1..=300 {
            phone.say(numbered(seq)).await;
        }
        let retry = phone.hear().await.said();
        assert_eq!(
            (&retry["seq"], &retry["reason"]),
            (&257.into(), &"kafka_busy".into())
        );
    });
    drop(frozen);
    stand.run(async {
        phone.hear_ack(256).await;
        for seq in 257..=300 {
            phone.say(numbered(seq)).await;
        }
        phone.hear_ack(300).await;
    });
    assert_eq!(stored(&lab, "many"), once_each(1..=300));
}

#[test]
fn broker_restarts_in_mid_stream_lose_and_repeat_nothing() {
    const PHONES: u64 = 20;
    const UPDATES: u64 = 600;
    let mut lab = lab("broker restarts");
    let stand = Stand::begin(&lab, Wanted::default());
    let apps: Vec<_> = (0..PHONES)
        .map(|driver| {
            let mut app = App::new(stand.token(driver), format!("s{driver}"));
            let at = stand.at;
            let updates = (1..=UPDATES)
                .map(|number| update(number, if number % 7 < 3 { "south" } else { "north" }))
                .collect();
            let patience = Duration::from_secs(120);
            let run = async move {
                app.run(updates, Duration::from_millis(20), patience, || at)
                    .await;
                app
            };
            stand.spawn(run)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    lab.services().stop_kafka().expect("Kafka stops");
    std::thread::sleep(Duration::from_secs(1));
    lab.services().start_kafka().expect("Kafka starts");
    std::thread::sleep(Duration::from_secs(2));
    lab.services().kill_kafka().expect("Kafka is killed");
    lab.services().start_kafka().expect("Kafka starts");
    let apps: Vec<App> = apps
        .into_iter()
        .map(|app| stand.run(app).expect("it ends"))
        .collect();
    assert_eq!(stand.intake.outlet().fatal(), None);
    let records = lab.read_all(TOPIC);
    for app in &apps {
        assert_eq!(app.acked, UPDATES, "{}", app.session);
        assert_eq!(
            stored_in(&records, &app.session),
            once_each(1..=UPDATES),
            "{}",
            app.session
        );
        for seqs in by_partition(&records, &app.session).values() {
            assert!(seqs.is_sorted(), "{}: {seqs:?}", app.session);
        }
    }
}

#[test]
fn what_another_gateway_has_stored_is_not_sent_to_kafka_again() {
    let lab = lab("two gateways");
    let first = Stand::begin(&lab, Wanted::default());
    let second = Stand::again(&lab, Wanted::default());
    let token = first.token(453);
    first.run(async {
        let (mut phone, _) = Phone::welcomed(first.at, &token, "roams").await;
        for seq in 1..=6 {
            phone.say(numbered(seq)).await;
        }
        phone.hear_ack(6).await;
    });
    // What a follower of the topic would tell the second one: it has seen partition 1 only.
    for record in lab.read_all(TOPIC) {
        let (name, seq) = record.header("rf-seq").split_once('/').expect("rf-seq");
        if record.partition == 1 {
            let driver = riderflow::model::DriverId(453);
            let seq = seq.parse().expect("a number");
            second
                .intake
                .note_stored(driver, name, record.partition, seq);
        }
    }
    second.run(async {
        let (mut phone, acked) = Phone::welcomed(second.at, &token, "roams").await;
        assert_eq!(acked, 0);
        for seq in 1..=7 {
            phone.say(numbered(seq)).await;
        }
        phone.hear_ack(7).await;
        assert_ne!(phone.hear_within(Duration::ZERO).await, Some(Heard::Gone));
    });
    // 3 and 6 went to partition 0, of which the second gateway knew nothing.
    let expected = [(1, 1), (2, 1), (3, 2), (4, 1), (5, 1), (6, 2), (7, 1)];
    assert_eq!(stored(&lab, "roams"), expected.into());
}

/// The topic takes no message of over 50 bytes for as long as this lives. It must not stay so: a
/// broker that starts again gives a topic the settings of a deleted one with its name.
struct TinyMessages<'a>(&'a Lab);

impl<'a> TinyMessages<'a> {
    fn of(lab: &'a Lab) -> Self {
        lab.alter_topic(TOPIC, "max.message.bytes", "50");
        Self(lab)
    }
}

impl Drop for TinyMessages<'_> {
    fn drop(&mut self) {
        tokio::task::block_in_place(|| {
            self.0.alter_topic(TOPIC, "max.message.bytes", "1048588");
        });
    }
}

/// A record that Kafka will never take is a gap: the gateway ends rather than go on without it,
/// and the phone, which was not told that it is stored, goes to another one.
#[test]
fn a_gateway_that_can_t_store_an_update_ends() {
    let lab = lab("fatal");
    let pipeline = lab.pipeline("fatal", "clickhouse.enabled = false");
    lab.init(&pipeline);
    let at = free_address();
    let mut gateway = lab.gateway(&pipeline, at);
    let subject = Subject::Driver(DriverId(453));
    let token = access_with(GATEWAY_KEY)
        .mint(&subject, Duration::from_secs(60))
        .expect("there is a key");
    let runtime = tokio::runtime::Runtime::new().expect("tokio");
    runtime.block_on(async {
        let (mut phone, _) = Phone::welcomed(at, &token, "gap").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        let _limit = tokio::task::block_in_place(|| TinyMessages::of(&lab));
        phone.say(numbered(2)).await;
        assert_eq!(phone.hear().await, Heard::Closed(1013));
    });
    wait_until(Duration::from_secs(25), "it ends by itself", || {
        !gateway.is_running()
    });
    assert_eq!(gateway.wait().code(), Some(1));
    assert_eq!(stored(&lab, "gap"), once_each([1]));
}

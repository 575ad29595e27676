//! Messages that are none, and phones that don't read.

use std::time::Duration;

use riderflow::gateway::intake::{End, Pace};

use crate::common::lab;
use crate::phone::{Heard, Phone};
use crate::stand::{Stand, Wanted, numbered, once_each, stored};

#[test]
fn what_is_no_message_closes_with_the_code_that_says_so() {
    let lab = lab("frames");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let token = stand.token(453);
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "binary").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        phone.say_binary(b"\x00\x01").await;
        assert_eq!(phone.hear().await, Heard::Closed(1003));

        let (mut phone, _) = Phone::welcomed(stand.at, &token, "utf8").await;
        phone.say_raw(b"{\"longitude\":\"\xff\xfe\"}").await;
        assert_eq!(phone.hear().await, Heard::Closed(1007));

        for bytes in [4_097, 70_000] {
            let (mut phone, _) = Phone::welcomed(stand.at, &token, "long").await;
            let _ = phone.try_say(" ".repeat(bytes)).await;
            assert_eq!(phone.hear().await, Heard::Closed(1009), "{bytes} bytes");
        }
        // Just not too long, and a message of many fragments is one message.
        let (mut phone, _) = Phone::welcomed(stand.at, &token, "full").await;
        let update = numbered(1);
        phone
            .say(format!("{}{update}", " ".repeat(4_096 - update.len())))
            .await;
        phone.hear_ack(1).await;
    });
    for (end, times) in [(End::Binary, 1), (End::NotUtf8, 1), (End::TooLarge, 2)] {
        assert_eq!(stand.ended(end), times, "{end:?}");
    }
}

#[test]
fn a_goodbye_is_answered() {
    let lab = lab("goodbye");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(453), "bye").await;
        phone.say(numbered(1)).await;
        phone.hear_ack(1).await;
        phone.close(1000).await;
        assert_eq!(phone.hear().await, Heard::Closed(1000));
        assert_eq!(phone.hear().await, Heard::Gone);
    });
    assert_eq!(stand.ended(End::Left), 1);
}

#[test]
fn malformed_json_is_an_error_and_the_connection_lives() {
    let lab = lab("malformed");
    let stand = Stand::begin(&lab, Wanted::default());
    stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(453), "json").await;
        for text in [
            "",
            "{",
            "[{\"longitude\":1}",
            "nonsense",
            "{\"seq\":1,\"seq\":1}",
        ] {
            phone.say(text).await;
            let error = phone.hear().await.said();
            assert_eq!(
                (&error["type"], &error["reason"]),
                (&"error".into(), &"malformed_json".into()),
                "{text}"
            );
            // It settles nothing, since nothing says which update it was.
            assert_eq!(error.get("seq"), None, "{text}");
        }
        let deep = format!(
            "{{\"x\":{}1{},{}",
            "[".repeat(1_500),
            "]".repeat(1_500),
            &numbered(1)[1..]
        );
        phone.say(deep).await;
        phone.hear_ack(1).await;
        phone.say("[]").await;
        phone.say(numbered(2)).await;
        phone.hear_ack(2).await;
    });
    assert_eq!(stored(&lab, "json"), once_each(1..=2));
}

#[test]
fn a_phone_that_never_reads_is_given_up_and_costs_little() {
    let lab = lab("never reads");
    let pace = Pace {
        send_within: Duration::from_secs(1),
        ..Pace::default()
    };
    let wanted = Wanted {
        pace,
        updates_per_s: 1_000_000,
        ..Wanted::default()
    };
    let stand = Stand::begin(&lab, wanted);
    stand.run(async {
        let (mut phone, _) = Phone::welcomed(stand.at, &stand.token(453), "deaf").await;
        // Each is answered by as long an error, which nobody reads.
        let bad = format!("[{}7]", "7,".repeat(2_000));
        let flood = async { while phone.try_say(bad.clone()).await.is_ok() {} };
        let given_up = crate::outages::until(|| stand.ended(End::Unread) == 1);
        tokio::select! {
            () = flood => {}
            () = given_up => {}
        }
    });
    stand.run(crate::outages::until(|| stand.ended(End::Unread) == 1));
    stand.run(crate::outages::until(|| stand.metrics.sockets.get() == 0));
}

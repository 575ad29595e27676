//! Following topics by itself: in order, at once, and on over what is gone.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use riderflow::kafka::{Followed, Follower};

use crate::common::{lab, now_ms, wait_until};

type Read = (Followed, i32, i64, Vec<u8>);

fn read_for(follower: &mut Follower, time: Duration, enough: usize) -> Vec<Read> {
    let deadline = Instant::now() + time;
    let mut all = Vec::new();
    while all.len() < enough && Instant::now() < deadline {
        let read = follower.poll(Duration::from_millis(100), 100, &mut |seen| {
            let value = seen.value.unwrap_or_default().to_vec();
            all.push((seen.topic, seen.partition, seen.offset, value));
        });
        read.expect("it follows");
    }
    all
}

#[test]
fn what_stands_is_read_from_the_beginning_and_what_moves_from_a_time_on() {
    let lab = lab("follower");
    lab.init(&lab.pipeline("live", ""));
    let mut sender = lab.sender();
    let long_ago_ms = now_ms() - 3_600_000;
    for number in 0..1_000 {
        let at_ms = long_ago_ms + number * 3_600;
        let value = number.to_string();
        let value = Some(value.as_bytes());
        for topic in ["orders", "rider-updates", "geofences"] {
            let partition = if topic == "geofences" {
                0
            } else {
                (number % 2) as i32
            };
            sender.send(topic, partition, at_ms, Some(b"k"), value);
        }
    }
    sender.flush();
    let mut follower = Follower::open(&lab.brokers()).expect("it opens");
    assert!(!follower.is_caught_up());
    let standing = read_for(&mut follower, Duration::from_secs(20), 2_000);
    assert_eq!(standing.len(), 2_000);
    wait_until(Duration::from_secs(5), "it has caught up", || {
        follower
            .poll(Duration::ZERO, 100, &mut |_| {})
            .expect("it follows");
        follower.is_caught_up()
    });
    let since_ms = long_ago_ms + 900 * 3_600;
    let topics = [(Followed::Updates, since_ms), (Followed::Events, since_ms)];
    follower.follow_since(&topics).expect("it follows on");
    assert!(!follower.is_caught_up());
    let moving = read_for(&mut follower, Duration::from_secs(10), 100);
    assert_eq!(moving.len(), 100);
    for partition in 0..2 {
        let mut last = -1;
        for (topic, _, offset, _) in moving.iter().filter(|it| it.1 == partition) {
            assert_eq!(*topic, Followed::Updates);
            assert!(*offset > last && *offset >= 450, "{offset} after {last}");
            last = *offset;
        }
    }
    wait_until(Duration::from_secs(5), "it has caught up", || {
        follower
            .poll(Duration::ZERO, 100, &mut |_| {})
            .expect("it follows");
        follower.is_caught_up()
    });

    // At once, though it waits for a minute.
    let (mut waits, rounds) = (Vec::new(), 20);
    for number in 0..rounds {
        let value = format!("new {number}");
        let thread = std::thread::spawn(move || {
            let mut seen_at = None;
            let count = follower.poll(Duration::from_secs(60), 100, &mut |_| {
                seen_at = Some(Instant::now());
            });
            assert_eq!(count.expect("it follows"), 1);
            (follower, seen_at.expect("seen"))
        });
        std::thread::sleep(Duration::from_millis(100));
        let sent = Instant::now();
        sender.send(
            "rider-updates",
            number % 2,
            now_ms(),
            Some(b"k"),
            Some(value.as_bytes()),
        );
        sender.settle();
        let seen_at;
        (follower, seen_at) = thread.join().expect("no panic");
        waits.push(seen_at - sent);
    }
    waits.sort_unstable();
    println!(
        "sent to seen: median {:?}, longest {:?}",
        waits[10], waits[19]
    );
    assert!(waits[10] < Duration::from_millis(250), "{waits:?}");
}

#[test]
fn where_records_are_gone_it_goes_on_with_what_is_there() {
    let lab = lab("gone");
    let pipeline = lab.pipeline("live", "");
    lab.init(&pipeline);
    let mut sender = lab.sender();
    for _ in 0..100 {
        sender.send("rider-updates", 0, now_ms(), Some(b"k"), Some(b"old"));
    }
    sender.flush();
    let mut follower = Follower::open(&lab.brokers()).expect("it opens");
    let topics = [(Followed::Updates, 0), (Followed::Events, 0)];
    follower.follow_since(&topics).expect("it follows");
    assert_eq!(
        read_for(&mut follower, Duration::from_secs(10), 100).len(),
        100
    );
    // The topic is made anew: its offsets begin again, below what comes next.
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", lab.brokers())
        .create()
        .expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("tokio");
    let options = AdminOptions::new();
    let gone = runtime.block_on(admin.delete_topics(&["rider-updates"], &options));
    gone.expect("it is deleted");
    std::thread::sleep(Duration::from_secs(1));
    lab.init(&pipeline);
    let mut sender = lab.sender();
    for _ in 0..3 {
        sender.send("rider-updates", 0, now_ms(), Some(b"k"), Some(b"new"));
    }
    sender.flush();
    let read = read_for(&mut follower, Duration::from_secs(60), 3);
    let new = |offset| (Followed::Updates, 0, offset, b"new".to_vec());
    assert_eq!(read, [new(0), new(1), new(2)]);
}

//! How soon a position is out, and what streams cost that have nothing to tell.

use std::time::{Duration, Instant};

use riderflow::model::OrderStatus::Assigned;

use crate::client::Unread;
use crate::common::{lab, now_ms, wait_until};
use crate::feeder::{Feeder, at, order};
use crate::gateway::Gateway;

/// Each with an order and a stream of its own.
const DRIVERS: u64 = 250;
const UPDATES_PER_S: u64 = 1_000;
const SECONDS: u64 = 10;

#[test]
fn a_position_is_out_within_a_second_at_a_thousand_updates_a_second() {
    let lab = lab("latency");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    for driver in 0..DRIVERS {
        feeder.order(&order(&format!("o-{driver}"), Assigned, Some(driver)));
    }
    let gateway = Gateway::start(&lab.brokers());
    let streams: Vec<_> = (0..DRIVERS)
        .map(|driver| {
            let path = format!("/v1/orders/o-{driver}/live");
            gateway.open(&path, &format!("order/o-{driver}"))
        })
        .collect();
    for stream in &streams {
        stream.next(Duration::from_secs(10));
    }
    let started = Instant::now();
    let total = UPDATES_PER_S * SECONDS;
    for number in 0..total {
        let due = Duration::from_micros(number * 1_000_000 / UPDATES_PER_S);
        if let Some(wait) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(wait);
        }
        let step = (number / DRIVERS) as f64;
        feeder.send_fix(number % DRIVERS, at(77.59 + step * 2e-5, 12.9));
    }
    feeder.sender.settle();
    let mut waits_ms = Vec::new();
    for stream in &streams {
        for frame in stream.all_within(Duration::from_millis(5)) {
            if frame.name == "position" {
                let at_ms = frame.data["agent"]["at"].as_i64().expect("a time");
                waits_ms.push(frame.read_ms - at_ms);
            }
        }
    }
    waits_ms.sort_unstable();
    let part = |part: f64| waits_ms[((waits_ms.len() - 1) as f64 * part) as usize];
    println!(
        "{} positions of {total} updates at {UPDATES_PER_S}/s over {DRIVERS} streams: record to \
         reader p50 {} ms, p99 {} ms, greatest {} ms",
        waits_ms.len(),
        part(0.5),
        part(0.99),
        part(1.0)
    );
    assert!(waits_ms.len() as u64 > total * 8 / 10, "few were held back");
    assert!(part(0.99) < 1_000);
}

#[test]
fn streams_with_nothing_to_tell_cost_next_to_nothing() {
    const STREAMS: u64 = 2_000;
    let lab = lab("idle");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    feeder.order(&order("o-1", Assigned, Some(1)));
    feeder.order(&order("o-2", Assigned, Some(2)));
    let gateway = Gateway::start(&lab.brokers());
    let before_kb = memory_kb();
    // Their sockets are all that they have in this process besides the server's part.
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| Unread::open(&gateway, "/v1/orders/o-1/live", "order/o-1"))
        .collect();
    wait_until(Duration::from_secs(10), "all are open", || {
        gateway.live.streams() as u64 == STREAMS
    });
    std::thread::sleep(Duration::from_secs(1));
    let each_kb = (memory_kb() - before_kb) as f64 / STREAMS as f64;
    let (started, before) = (Instant::now(), processor_time());
    // The driver of another order moves: nobody here is woken.
    while started.elapsed() < Duration::from_secs(5) {
        feeder.send_fix(2, at(77.59, 12.9));
        std::thread::sleep(Duration::from_millis(10));
    }
    let share = (processor_time() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    println!(
        "{STREAMS} idle streams: {:.1} % of a core in all, the feeder included; {each_kb:.1} \
         kB each",
        share * 100.0
    );
    assert!(share < 0.35, "{share}");
    let streams: Vec<_> = streams.into_iter().map(Unread::read).collect();
    for stream in &streams {
        assert_eq!(stream.next(Duration::from_secs(10)).name, "snapshot");
    }
    let asked_ms = now_ms();
    feeder.order(&order(
        "o-1",
        riderflow::model::OrderStatus::Delivered,
        None,
    ));
    let mut last_ms = 0;
    for stream in &streams {
        last_ms = last_ms.max(stream.next_of("ended", Duration::from_secs(10)).read_ms);
    }
    println!(
        "{STREAMS} streams of one order ended within {} ms",
        last_ms - asked_ms
    );
    assert!(last_ms - asked_ms < 5_000);
}

/// Of this process, user and system.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields = text.rsplit(')').next().expect("fields").split_whitespace();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|it| it.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of this process.
pub(crate) fn memory_kb() -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kb.expect("resident memory")
}

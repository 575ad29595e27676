//! A reader that never reads: it costs bounded memory, and gets the latest once it reads.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Unread;
use crate::common::lab;
use crate::feeder::{Feeder, at};
use crate::gateway::Gateway;
use crate::measured::memory_kb;

const DRIVERS: u64 = 2_000;
const STREAMS: usize = 50;

#[test]
fn streams_that_nobody_reads_stay_bounded_and_begin_anew_when_read() {
    let lab = lab("slow");
    lab.init(&lab.pipeline("live", ""));
    let mut feeder = Feeder::new(&lab);
    let mut step = 0_u64;
    let mut move_all = |feeder: &mut Feeder| {
        step += 1;
        for driver in 0..DRIVERS {
            let latitude = 12.0 + driver as f64 * 1e-4;
            feeder.send_fix(driver, at(77.0 + step as f64 * 1e-5, latitude));
        }
        feeder.sender.settle();
        77.0 + step as f64 * 1e-5
    };
    move_all(&mut feeder);
    let gateway = Gateway::start(&lab.brokers());
    let unread: Vec<_> = (0..STREAMS)
        .map(|_| Unread::open(&gateway, "/v1/fleet/live?bbox=77,12,78,13", "fleet"))
        .collect();
    // A snapshot is some 180 kB and so is each second: what is unread would grow by 9 MB/s.
    let begun = Instant::now();
    let mut memory = Vec::new();
    while begun.elapsed() < Duration::from_secs(40) {
        move_all(&mut feeder);
        memory.push(memory_kb());
        std::thread::sleep(Duration::from_millis(800));
    }
    let (middle, end) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    println!(
        "{STREAMS} unread streams of {DRIVERS} drivers: {} MB at first, {} MB after {} s, {} MB \
         after {} s",
        memory[0] / 1024,
        middle / 1024,
        begun.elapsed().as_secs() / 2,
        end / 1024,
        begun.elapsed().as_secs()
    );
    assert!(end - middle < 10 * 1024, "it grows: {memory:?}");
    assert!(
        end - memory[0] < STREAMS as i64 * 1024,
        "it is a lot: {memory:?}"
    );

    // Once a stream that is read shows the last of it, so does the view to all.
    let read = gateway.open("/v1/fleet/live?bbox=77,12,78,12.00001", "fleet");
    let longitude = move_all(&mut feeder);
    let last = Value::from((longitude * 1e7).round() / 1e7);
    read.find(Duration::from_secs(10), "the last move", |frame| {
        frame.data["drivers"][0][1] == last
    });
    let of_first = |frame: &crate::client::Frame| frame.data["drivers"][0][1].clone();
    for reader in unread.into_iter().take(5) {
        let stream = reader.read();
        let first = stream.next(Duration::from_secs(10));
        assert_eq!(first.name, "snapshot");
        let anew = stream.find(Duration::from_secs(10), "a second snapshot", |frame| {
            frame.name == "snapshot"
        });
        assert_eq!(of_first(&anew), last);
        assert_eq!(anew.data["total"], DRIVERS);
    }
}

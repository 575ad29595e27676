//! Gateways killed in mid-stream, under phones that resend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use riderflow::gateway::access::Subject;
use riderflow::model::DriverId;

use crate::common::{GATEWAY_KEY, Received, free_address, lab, wait_until};
use crate::phone::App;
use crate::stand::{TOPIC, access_with, by_partition, update};

const PHONES: u64 = 40;
const UPDATES: u64 = 500;
const LONG: Duration = Duration::from_secs(120);

/// Two gateways side by side, one or the other killed six times; a phone whose connection breaks
/// goes to the other one, which knows of its session only what it has seen in Kafka.
#[test]
fn a_gateway_s_death_loses_no_update_and_repeats_none() {
    let lab = lab("gateways killed");
    let toml = "gateway.updates_per_s = 1000\nclickhouse.batch_ms = 200";
    let pipeline = lab.pipeline("kills", toml);
    lab.init(&pipeline);
    let mut job = lab.run(&pipeline, 2);
    let addresses = [free_address(), free_address()];
    let mut gateways = addresses.map(|at| lab.gateway(&pipeline, at));

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio");
    let access = access_with(GATEWAY_KEY);
    let apps: Vec<_> = (0..PHONES)
        .map(|driver| {
            let subject = Subject::Driver(DriverId(driver));
            let token = access.mint(&subject, 10 * LONG).expect("there is a key");
            let mut app = App::new(token, format!("s{driver}"));
            let updates = (1..=UPDATES)
                .map(|number| update(number, if number % 7 < 3 { "south" } else { "north" }))
                .collect();
            let turn = Arc::new(AtomicUsize::new(driver as usize));
            runtime.spawn(async move {
                let at = || addresses[turn.fetch_add(1, Ordering::Relaxed) % 2];
                app.run(updates, Duration::from_millis(20), LONG, at).await;
                app
            })
        })
        .collect();
    for kill in 0..6 {
        std::thread::sleep(Duration::from_millis(700 + 130 * kill as u64));
        let victim = kill % 2;
        gateways[victim].kill();
        gateways[victim] = lab.gateway(&pipeline, addresses[victim]);
    }
    let apps: Vec<App> = apps
        .into_iter()
        .map(|app| runtime.block_on(app).expect("it ends"))
        .collect();

    let records = lab.read_all(TOPIC);
    let mut reconnects = 0;
    for app in &apps {
        assert_eq!(
            (app.acked, app.errors.len()),
            (UPDATES, 0),
            "{}",
            app.session
        );
        assert_eq!(
            taken_once(&records, &app.session),
            (1..=UPDATES).collect::<Vec<_>>()
        );
        reconnects += app.reconnects - 1;
    }
    assert!(reconnects >= PHONES as u32, "only {reconnects} reconnects");
    let repeats = records.len() as u64 - PHONES * UPDATES;
    println!("{reconnects} reconnects, {repeats} records twice in Kafka");

    let count = |sql: &str| lab.query(sql)[0].parse::<u64>().expect("a number");
    wait_until(LONG, "every update has a row", || {
        count("SELECT toString(uniqExact(driver_id, timestamp)) FROM riderflow.driver_locations")
            == PHONES * UPDATES
    });
    lab.wait_for_no_lag("kills", LONG);
    assert!(job.is_running());
    assert!(job.stop().success());
    let rows = count("SELECT toString(count()) FROM riderflow.driver_locations");
    assert_eq!(rows, PHONES * UPDATES, "each update has one row");
    for gateway in gateways {
        assert!(gateway.stop().success());
    }
}

/// What is left of a session's records by the rule of the job: within a partition a record counts
/// if its number is over all before it.
fn taken_once(records: &[Received], session: &str) -> Vec<u64> {
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for seqs in by_partition(records, session).values() {
        let mut greatest = 0;
        for &seq in seqs {
            if seq > greatest {
                greatest = seq;
                *times.entry(seq).or_insert(0) += 1;
            }
        }
    }
    times
        .into_iter()
        .flat_map(|(seq, times)| std::iter::repeat_n(seq, times as usize))
        .collect()
}

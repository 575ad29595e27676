//! Windows over a real Kafka and a real ClickHouse: after a run with late updates each table
//! of windows is, with FINAL, what SQL makes of `driver_locations`.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Lab, Sender, lab, now_ms, wait_until};
use serde_json::json;

const LONG: Duration = Duration::from_secs(60);

/// Every counted update with its driver's one before it, in event time.
fn steps(window_s: u32) -> String {
    format!(
        "fixes AS (
            SELECT driver_id, timestamp, kafka_partition, kafka_offset, latitude, longitude,
                toUnixTimestamp64Milli(timestamp) AS at,
                lagInFrame(at, 1, -1) OVER one AS at_before,
                lagInFrame(latitude) OVER one AS latitude_before,
                lagInFrame(longitude) OVER one AS longitude_before,
                at_before >= 0 AND at - at_before <= 60000 AS near,
                sin(radians(latitude - latitude_before) / 2) AS y,
                sin(radians(longitude - longitude_before) / 2) AS x,
                2 * 6371008.8 * asin(sqrt(y * y
                    + cos(radians(latitude)) * cos(radians(latitude_before)) * x * x)) AS metres,
                if(near, metres, 0) AS distance,
                coalesce(toFloat64(speed),
                    if(near AND at > at_before, distance * 1000 / (at - at_before), NULL)) AS mps,
                intDiv(at, {window_s} * 1000) * {window_s} AS window,
                at_before < 0 OR at - at_before >= 600000 AS begins
            FROM riderflow.driver_locations
            WHERE flag IN ('ok', 'late')
            WINDOW one AS (PARTITION BY driver_id ORDER BY timestamp, kafka_partition, kafka_offset
                ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
        )"
    )
}

/// Six significant digits of a number that may be null.
fn number(sql: &str) -> String {
    format!("ifNull(toString(round({sql}, 5)), 'unknown')")
}

/// The rows of a table of windows, and what they ought to be.
fn compare(lab: &Lab, window_s: u32) -> [(Vec<String>, Vec<String>); 3] {
    let steps = steps(window_s);
    let (metres, mean, max) = (
        number("sum(distance)"),
        number("avg(mps)"),
        number("max(mps)"),
    );
    let (told_metres, told_mean, told_max) = (
        number("distance_m"),
        number("mean_speed"),
        number("max_speed"),
    );
    let ask = |told: &str, computed: &str| (lab.query(told), lab.query(computed));
    [
        ask(
            &format!(
                "SELECT concat(toString(cell), ' ', toString(toUnixTimestamp(minute)), ' ', \
                 toString(drivers), ' ', toString(updates), ' ', {told_mean}) AS row \
                 FROM riderflow.cell_minutes FINAL ORDER BY row"
            ),
            &format!(
                "SELECT concat(toString(cell), ' ', toString(window), ' ', \
                 toString(uniqExact(driver_id)), ' ', toString(count()), ' ', {mean}) AS row FROM \
                 (WITH {steps} SELECT *, geoToH3(latitude, longitude, 8) AS cell FROM fixes) \
                 GROUP BY cell, window ORDER BY row"
            ),
        ),
        ask(
            &format!(
                "SELECT concat(toString(driver_id), ' ', toString(toUnixTimestamp(minute)), ' ', \
                 toString(updates), ' ', {told_metres}, ' ', {told_max}) AS row \
                 FROM riderflow.driver_minutes FINAL ORDER BY row"
            ),
            &format!(
                "SELECT concat(toString(driver_id), ' ', toString(window), ' ', toString(count()), \
                 ' ', {metres}, ' ', {max}) AS row FROM (WITH {steps} SELECT * FROM fixes) \
                 GROUP BY driver_id, window ORDER BY row"
            ),
        ),
        ask(
            &format!(
                "SELECT concat(toString(driver_id), ' ', toString(toUnixTimestamp64Milli(start)), \
                 ' ', toString(toUnixTimestamp64Milli(end)), ' ', {told_metres}, ' ', \
                 toString(updates)) AS row FROM riderflow.driver_sessions FINAL ORDER BY row"
            ),
            &format!(
                "SELECT concat(toString(driver_id), ' ', toString(min(at)), ' ', \
                 toString(max(at)), ' ', {metres}, ' ', toString(count())) AS row FROM \
                 (WITH {steps} SELECT *, sum(begins) OVER (PARTITION BY driver_id \
                 ORDER BY timestamp, kafka_partition, kafka_offset ROWS BETWEEN UNBOUNDED \
                 PRECEDING AND CURRENT ROW) AS session FROM fixes) \
                 GROUP BY driver_id, session ORDER BY row"
            ),
        ),
    ]
}

fn assert_windows_are_those_of_sql(lab: &Lab, window_s: u32) {
    for ((told, computed), table) in compare(lab, window_s).into_iter().zip([
        "cell_minutes",
        "driver_minutes",
        "driver_sessions",
    ]) {
        let wanted: BTreeSet<_> = computed.iter().collect();
        let found: BTreeSet<_> = told.iter().collect();
        let surplus: Vec<_> = found.difference(&wanted).take(5).collect();
        let missing: Vec<_> = wanted.difference(&found).take(5).collect();
        assert!(
            surplus.is_empty() && missing.is_empty(),
            "{table}: {} of {}, too many {surplus:?}, missing {missing:?}",
            told.len(),
            computed.len()
        );
        assert!(told.len() > 10, "{table}: {}", told.len());
    }
}

struct Fleet {
    sender: Sender,
    seed: u64,
}

impl Fleet {
    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % bound
    }

    /// Updates of 12 drivers over `minutes` up to now, merged as fast as Kafka has them: every
    /// tenth is late by some minutes, some keep silent for longer than a session's gap.
    fn send(&mut self, from_ms: i64, minutes: i64) -> usize {
        let mut held: Vec<(i64, i64, u64, f64, f64)> = Vec::new();
        let mut at: Vec<(f64, f64)> = vec![(77.59, 12.97); 12];
        for second in 0..minutes * 60 {
            for driver in 0..12u64 {
                let kafka_ms = from_ms + second * 1000;
                let is_away = (second / 700 + driver as i64) % 4 == 3;
                if is_away && second % 300 != 7 || self.below(3) > 0 {
                    continue;
                }
                let place = &mut at[driver as usize];
                place.0 += 2e-5 * (driver as f64 - 3.0);
                place.1 += 1e-5;
                let (longitude, latitude) = *place;
                let late_ms = match self.below(10) {
                    0 => self.below(780_000),
                    _ => 0,
                } as i64;
                let event_ms = kafka_ms + self.below(2) as i64 * self.below(1000) as i64;
                held.push((kafka_ms + late_ms, event_ms, driver, longitude, latitude));
            }
        }
        held.sort_by_key(|(kafka_ms, ..)| *kafka_ms);
        for (kafka_ms, event_ms, driver, longitude, latitude) in &held {
            let mut value = json!({
                "driverId": driver, "longitude": longitude, "latitude": latitude,
                "timestamp": event_ms,
            });
            if self.below(3) > 0 {
                value["speed"] = json!(self.below(2000) as f64 / 100.0);
            }
            let value = serde_json::to_vec(&value).expect("JSON");
            let partition = self.below(2) as i32;
            let key = driver.to_string();
            let key = Some(key.as_bytes());
            self.sender
                .send("rider-updates", partition, *kafka_ms, key, Some(&value));
        }
        self.sender.flush();
        held.len()
    }
}

fn rows_stored(lab: &Lab) -> usize {
    let count = "SELECT toString(count()) FROM riderflow.driver_locations";
    lab.query(count)[0].parse().expect("a number")
}

#[test]
fn windows_with_late_updates_are_those_of_sql_over_the_history() {
    let lab = lab("windows");
    let pipeline = lab.pipeline("windows", "");
    lab.init(&pipeline);
    let mut fleet = Fleet {
        sender: lab.sender(),
        seed: 1,
    };
    let sent = fleet.send(now_ms() - 100 * 60_000, 80);
    let job = lab.run(&pipeline, 2);
    lab.wait_for_no_lag("windows", LONG);
    assert_eq!(job.stop().code(), Some(0));
    assert_eq!(rows_stored(&lab), sent);
    let late = "SELECT toString(countIf(flag = 'late')) FROM riderflow.driver_locations";
    let late: usize = lab.query(late)[0].parse().expect("a number");
    assert!(late > sent / 20, "{late} late of {sent}");
    let gone = "SELECT toString(count()) FROM riderflow.driver_sessions WHERE is_deleted = 1";
    assert_ne!(lab.query(gone)[0], "0", "some sessions were joined");
    assert_windows_are_those_of_sql(&lab, 60);
}

#[test]
fn a_quiet_input_has_its_windows_told_within_some_seconds_and_a_restart_corrects_them() {
    let lab = lab("quiet windows");
    let pipeline = lab.pipeline("quiet", "windows.size_s = 30");
    lab.init(&pipeline);
    let mut fleet = Fleet {
        sender: lab.sender(),
        seed: 2,
    };
    let mut sent = fleet.send(now_ms() - 40 * 60_000, 20);
    let mut job = lab.run(&pipeline, 1);
    wait_until(LONG, "rows come in", || rows_stored(&lab) == sent);
    let is_told = || {
        let [cells, drivers, sessions] = compare(&lab, 30);
        cells.0 == cells.1 && drivers.0 == drivers.1 && sessions.0 == sessions.1
    };
    wait_until(Duration::from_secs(20), "windows are told", is_told);
    job.kill();

    // Kafka's time goes on; the newest minutes are known to a job that starts again.
    sent += fleet.send(now_ms() - 3 * 60_000, 2);
    let mut job = lab.run(&pipeline, 2);
    wait_until(LONG, "rows come in", || rows_stored(&lab) == sent);
    std::thread::sleep(Duration::from_secs(1));
    job.kill();
    let job = lab.run(&pipeline, 2);
    wait_until(Duration::from_secs(30), "windows are told", is_told);
    assert_eq!(job.stop().code(), Some(0));
    assert_windows_are_those_of_sql(&lab, 30);
}

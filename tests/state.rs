//! `riderflow state` and `riderflow reset` against a real Kafka and a real ClickHouse.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use common::{Lab, Received, Sender, lab, now_ms, wait_until};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);
const UPDATES: i64 = 200;

fn tool(lab: &Lab, command: &str, pipeline: &Path, more: &[&str]) -> Output {
    let mut tool = lab.command();
    tool.arg(command).arg(pipeline).args(more);
    tool.output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "data beside a failure");
    text
}

fn state(lab: &Lab, pipeline: &Path) -> Value {
    serde_json::from_str(&stdout(&tool(lab, "state", pipeline, &["--json"]))).expect("JSON")
}

fn pipeline(lab: &Lab, name: &str) -> (PathBuf, PathBuf) {
    let folder = lab.folder().join(name);
    let toml = format!(
        "snapshots.url = {folder:?}\nsnapshots.interval_s = 0.5\nclickhouse.batch_ms = 100"
    );
    (lab.pipeline(name, &toml), folder.join(name))
}

fn update(driver: u64, at_ms: i64) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "driverId": driver, "longitude": 77.6, "latitude": 12.97, "timestamp": at_ms,
    }))
    .expect("JSON")
}

/// Updates of ten drivers in a fence, over the last minute.
fn write(sender: &mut Sender) {
    let start = now_ms() - 60_000;
    let fence = json!({"type": "Feature", "properties": {"radius": 500},
        "geometry": {"type": "Point", "coordinates": [77.6, 12.97]}});
    let fence = serde_json::to_vec(&fence).expect("JSON");
    sender.send("geofences", 0, start, Some(b"f"), Some(&fence));
    for at in 0..UPDATES {
        let (driver, at_ms) = (at as u64 % 10, start + 1 + at * 100);
        let value = update(driver, at_ms);
        let key = driver.to_string();
        let partition = (driver % 2) as i32;
        sender.send(
            "rider-updates",
            partition,
            at_ms,
            Some(key.as_bytes()),
            Some(&value),
        );
    }
    sender.flush();
}

fn rows(lab: &Lab, what: &str, table: &str) -> String {
    lab.query(&format!("SELECT toString({what}) FROM riderflow.{table}"))
        .remove(0)
}

fn ids(events: &[Received]) -> Vec<&str> {
    let mut ids: Vec<&str> = events.iter().map(|event| event.header("ce_id")).collect();
    ids.sort_unstable();
    ids
}

fn all_stored(lab: &Lab, pipeline: &Path) -> bool {
    let state = state(lab, pipeline);
    let lags = state["inputs"].as_array().expect("inputs").iter();
    state["clickhouse"]["epochs_behind"] == 0
        && state["committed"].is_object()
        && lags.clone().all(|input| input["lag"] == 0)
}

fn snapshots(state: &Value, readable: &str) -> usize {
    let all = state["snapshots"].as_array().expect("snapshots").iter();
    all.filter(|snapshot| snapshot["readable"] == readable)
        .count()
}

#[test]
fn state_says_how_far_a_pipeline_is_from_before_its_first_start_to_lost_snapshots() {
    let lab = lab("state");
    let (file, folder) = pipeline(&lab, "st-state");
    let error = stderr(&tool(&lab, "state", &file, &[]), 1);
    assert!(error.contains("`riderflow init`"), "{error}");

    lab.init(&file);
    let new = state(&lab, &file);
    assert_eq!(new["phase"], "new");
    assert_eq!(
        (&new["generation"], &new["committed"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(
        (&new["restart"]["possible"], &new["jobs"]),
        (&json!(true), &json!([]))
    );

    write(&mut lab.sender());
    let job = lab.run(&file, 2);
    wait_until(LONG, "all is stored, and snapshots are named", || {
        all_stored(&lab, &file) && snapshots(&state(&lab, &file), "good") >= 2
    });
    lab.wait_for_no_lag("st-state", LONG);
    let running = state(&lab, &file);
    assert_eq!(running["phase"], "started");
    assert_eq!(
        running["jobs"].as_array().map(Vec::len),
        Some(1),
        "{running}"
    );
    assert_eq!(
        running["jobs"][0]["client"],
        format!("riderflow-{}", job.id())
    );
    assert_eq!(running["generation"], 1);
    assert_eq!(running["clickhouse"]["answers"], true);
    let inputs = running["inputs"].as_array().expect("inputs");
    let updates: Vec<_> = inputs
        .iter()
        .filter(|it| it["topic"] == "rider-updates")
        .collect();
    assert_eq!(updates.len(), 2);
    for input in updates {
        for offset in ["next", "end", "group_offset"] {
            assert_eq!(input[offset], UPDATES / 2, "{offset}");
        }
        assert_eq!(input["first"], 0);
    }
    let text = stdout(&tool(&lab, "state", &file, &[]));
    for words in [
        "a job runs (riderflow-",
        "start 1, riderflow",
        "readable",
        "a restart would\n",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }

    assert!(job.stop().success());
    let stopped = state(&lab, &file);
    assert_eq!(stopped["jobs"], json!([]), "it has left");
    assert_eq!(stopped["restart"]["possible"], true);
    assert_eq!(stopped["problems"], json!([]));
    // It goes on where its newest snapshot is: all was in it.
    assert_eq!(stopped["restart"]["records"], 0, "{}", stopped["restart"]);

    let mut away = lab.command();
    away.env("RIDERFLOW_CLICKHOUSE", "http://127.0.0.1:9");
    let away = away.arg("state").arg(&file).output().expect("it runs");
    assert!(stdout(&away).contains("ClickHouse (does not answer): all rows up to epoch"));

    let newest = stopped["snapshots"][0]["id"].as_str().expect("an id");
    let path = folder.join(newest).join("state");
    let mut bytes = std::fs::read(&path).expect("a state file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("it is damaged");
    let damaged = state(&lab, &file);
    assert_eq!(snapshots(&damaged, "damaged"), 1);
    let named = 1 + snapshots(&damaged, "good");
    assert_eq!(damaged["restart"]["possible"], true, "from the one before");
    let (before, after) = (
        &damaged["restart"]["snapshot_epoch"],
        &stopped["snapshots"][1]["epoch"],
    );
    assert_eq!(before, after);

    std::fs::remove_dir_all(&folder).expect("they are removed");
    let lost = state(&lab, &file);
    assert_eq!(
        (snapshots(&lost, "missing"), &lost["restart"]["possible"]),
        (named, &json!(false))
    );
    let problems = lost["problems"].to_string();
    assert!(
        problems.contains("snapshots can be read: bring them back"),
        "{problems}"
    );
    let text = stdout(&tool(&lab, "state", &file, &[]));
    assert!(text.contains("a restart would fail"), "{text}");
    let mut job = lab.run(&file, 1);
    assert_eq!(job.wait().code(), Some(1), "and it does");
}

#[test]
fn reset_is_refused_while_a_job_runs_and_then_all_is_told_again_but_stored_once() {
    let lab = lab("reset");
    let (file, folder) = pipeline(&lab, "st-reset");
    lab.init(&file);
    write(&mut lab.sender());
    let mut job = lab.run(&file, 2);
    wait_until(LONG, "all is stored", || all_stored(&lab, &file));
    wait_until(LONG, "the job is seen", || {
        state(&lab, &file)["jobs"] != json!([])
    });

    stderr(&tool(&lab, "reset", &file, &[]), 2);
    stderr(&tool(&lab, "reset", &file, &["--yes", "--dry-run"]), 2);
    let error = stderr(&tool(&lab, "reset", &file, &["--yes"]), 1);
    assert!(
        error.contains("a job of st-reset runs (riderflow-"),
        "{error}"
    );
    assert!(job.is_running(), "it was not touched");
    let late = update(11, now_ms());
    let mut sender = lab.sender();
    sender.send("rider-updates", 0, now_ms(), Some(b"11"), Some(&late));
    sender.flush();
    wait_until(LONG, "the job goes on", || {
        rows(&lab, "count()", "driver_locations") == (UPDATES + 1).to_string()
    });

    // A job that was killed is still seen for a while.
    job.kill();
    let error = stderr(&tool(&lab, "reset", &file, &["--yes"]), 1);
    assert!(
        error.contains("if it was killed, try again in 6 s"),
        "{error}"
    );
    wait_until(LONG, "the killed job is not seen any more", || {
        state(&lab, &file)["jobs"] == json!([])
    });

    let before = state(&lab, &file);
    let plan = stdout(&tool(&lab, "reset", &file, &["--dry-run"]));
    assert!(plan.contains("pipeline st-reset would be reset"), "{plan}");
    let again = state(&lab, &file);
    assert_eq!(before["generation"], again["generation"]);
    assert_eq!(before["snapshots"][0]["id"], again["snapshots"][0]["id"]);
    let told = lab.read_all("rider-notifications");
    assert_eq!(told.len(), 11, "each driver has entered the fence");

    let done = stdout(&tool(&lab, "reset", &file, &["--yes", "--json"]));
    let done: Value = serde_json::from_str(&done).expect("JSON");
    assert_eq!(done["done"]["generation"], 2);
    assert_eq!(done["done"]["had_offsets"], true);
    let reset = state(&lab, &file);
    assert_eq!(
        (&reset["phase"], &reset["committed"]),
        (&json!("reset"), &Value::Null)
    );
    assert_eq!(
        (&reset["snapshots"], &reset["restart"]["possible"]),
        (&json!([]), &json!(true))
    );
    let left = std::fs::read_dir(&folder).map_or(0, Iterator::count);
    assert_eq!((left, lab.lag("st-reset")), (0, None));

    let job = lab.run(&file, 1);
    wait_until(LONG, "all is stored", || all_stored(&lab, &file));
    assert_eq!(state(&lab, &file)["generation"], 3);
    assert!(job.stop().success());
    let all = lab.read_all("rider-notifications");
    assert_eq!(all.len(), 2 * told.len());
    let twice = ids(&all);
    let pairs: Vec<&str> = twice.chunks(2).map(|pair| pair[0]).collect();
    assert!(twice.chunks(2).all(|pair| pair[0] == pair[1]), "{twice:?}");
    assert_eq!(pairs, ids(&told));
    let stored = "(count(), uniqExact(kafka_partition, kafka_offset))";
    let count = UPDATES + 1;
    assert_eq!(
        rows(&lab, stored, "driver_locations"),
        format!("({count},{count})")
    );
    let stored = "(count(), uniqExact(id))";
    assert_eq!(rows(&lab, stored, "events"), "(11,11)");
}

//! `check` and `explain` as a user or a script meets them: what is printed where, and the exit
//! code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use riderflow::services::{Options, Services};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/rider-alerts.toml");

fn riderflow(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_riderflow"));
    for variable in ["", "_USER", "_PASSWORD"] {
        command.env_remove(format!("RIDERFLOW_CLICKHOUSE{variable}"));
    }
    command
        .env_remove("RIDERFLOW_KAFKA")
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn file_with(folder: &Path, content: &str) -> PathBuf {
    let path = folder.join("x.toml");
    std::fs::write(&path, content).expect("a temporary folder is writable");
    path
}

#[test]
fn the_shipped_pipeline_passes() {
    let output = riderflow(&["check", SHIPPED]);
    assert_eq!(output.status.code(), Some(0));
    let stdout = text(&output.stdout);
    let first = format!("{SHIPPED}: pipeline rider-alerts is valid\n");
    assert!(stdout.starts_with(&first), "{stdout}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_bad_file_is_exit_code_3_for_every_command_that_reads_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file_with(folder.path(), "name = \"x\"\n[orders]\nnear_metres = 500\n");
    let path = path.display().to_string();
    for command in ["check", "explain"] {
        let output = riderflow(&[command, &path]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
        let expected =
            format!("{path}:3:1: unknown key `near_metres` in [orders]; did you mean `near_m`?\n");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(&expected), "{command}: {stderr}");
    }
}

#[test]
fn json_tells_a_script_of_success_and_of_every_problem() {
    let output = riderflow(&["check", SHIPPED, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["ok"], true);
    assert_eq!(report["pipeline"]["name"], "rider-alerts");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file_with(folder.path(), "[kafka]\nbroker = \"a\"\n");
    let output = riderflow(&["check", &path.display().to_string(), "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(2));
}

#[test]
fn explain_prints_what_the_golden_files_hold() {
    for (format, golden) in [
        ("text", include_str!("golden/explain/rider-alerts.txt")),
        ("mermaid", include_str!("golden/explain/rider-alerts.mmd")),
        ("dot", include_str!("golden/explain/rider-alerts.dot")),
    ] {
        let output = riderflow(&["explain", SHIPPED, "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{format}");
        assert_eq!(text(&output.stdout), golden, "{format}");
    }
    let output = riderflow(&["explain", SHIPPED, "--format", "png"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn services_out_of_reach_are_exit_code_4_and_both_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Port 1 is reserved, and nothing answers there.
    let path = file_with(
        folder.path(),
        "name = \"x\"\nkafka.brokers = \"127.0.0.1:1\"\nclickhouse.url = \"http://127.0.0.1:1\"\n",
    );
    let output = riderflow(&["check", &path.display().to_string(), "--connect"]);
    assert_eq!(output.status.code(), Some(4));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("pipeline x is valid\n"), "{stdout}");
    let stderr = text(&output.stderr);
    for service in ["could not reach Kafka", "could not reach ClickHouse"] {
        assert!(stderr.contains(service), "{stderr}");
    }
}

#[test]
fn connect_compares_what_is_there_and_creates_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options::for_tests(
        folder.path().join("services"),
        env!("CARGO_BIN_EXE_riderflow"),
    );
    let services = Services::start(&options).expect("the services start");
    let ask = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_riderflow"))
            .args(arguments)
            .env("RIDERFLOW_KAFKA", services.kafka())
            .env("RIDERFLOW_CLICKHOUSE", services.clickhouse_url())
            .output()
            .expect("the binary was built for this test")
    };
    // Twice: the first look must not have created anything.
    for _ in 0..2 {
        let output = ask(&["check", SHIPPED, "--connect"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        for missing in ["rider-notifications", "driver_locations"] {
            assert!(stderr.contains(missing), "{stderr}");
        }
    }
    assert_eq!(ask(&["init", SHIPPED]).status.code(), Some(0));
    let output = ask(&["check", SHIPPED, "--connect"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("all topics are as they should be"),
        "{stdout}"
    );
    assert!(
        stdout.contains("all tables are as they should be"),
        "{stdout}"
    );

    let output = ask(&["check", SHIPPED, "--connect", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["services"]["clickhouse"]["ok"], true);
}

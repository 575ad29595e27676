//! `check` and `explain` as a user or a script meets them: what is printed where, and the exit
//! code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

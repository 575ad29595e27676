//! The pages in a real, headless Chromium: over a real Kafka, the job and a gateway.
//!
//! The scenarios are `*.mjs` beside this file, driven by playwright-core. Here is what they
//! need: a browser, Node's packages (under `target/`, never in the source tree), the system, and
//! the answers to what they ask for (see [`system`]). Screenshots are kept in
//! `target/pages-screenshots/`.
//!
//! `RIDERFLOW_CHROMIUM` names another browser; `RIDERFLOW_PAGES_ONLY` a part of the scenarios'
//! names.

#[path = "../common/mod.rs"]
mod common;
mod proxy;
mod system;
mod tools;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use system::System;

/// All scenarios together take two to three minutes; one that hangs has a limit of its own.
const SILENCE: Duration = Duration::from_secs(180);

#[test]
fn the_pages_show_what_happens() {
    let chromium = tools::chromium();
    let scripts = tools::scripts();
    let screenshots = tools::target().join("pages-screenshots");
    let mut system = System::start();

    let mut child = Command::new("node")
        .arg("run.mjs")
        .args(std::env::var("RIDERFLOW_PAGES_ONLY").ok())
        .current_dir(&scripts)
        .env("RIDERFLOW_PAGES_URL", system.url())
        .env("RIDERFLOW_CHROMIUM", &chromium)
        .env("RIDERFLOW_SCREENSHOTS", &screenshots)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(tools::Guarded)
        .expect("node starts");
    let mut answers = child.0.stdin.take().expect("a pipe");
    let output = child.0.stdout.take().expect("a pipe");
    let (heard, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if heard.send(line).is_err() {
                break;
            }
        }
    });

    let mut passed = 0;
    let mut failed = Vec::new();
    let mut done = false;
    loop {
        let line = match lines.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the browser said nothing for {SILENCE:?}"),
        };
        let message: Value = serde_json::from_str(&line).expect("a line of JSON");
        if let Some(number) = message["ask"].as_u64() {
            let mut answer = match system.answer(&message) {
                Ok(answer) => answer,
                Err(error) => json!({ "error": error }),
            };
            answer["answer"] = json!(number);
            writeln!(answers, "{answer}").expect("the scenarios listen");
        } else if let Some(test) = message["test"].as_str() {
            let note = message["note"].as_str().unwrap_or_default();
            let verdict = if message["ok"] == true {
                "ok"
            } else {
                "FAILED"
            };
            eprintln!("{verdict:6} {test} ({} ms) {note}", message["ms"]);
            match message["ok"] == true {
                true => passed += 1,
                false => failed.push(test.to_owned()),
            }
        } else if message["done"] == true {
            done = true;
        }
    }
    let status = child.0.wait().expect("a child");
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
    assert!(
        done && status.success(),
        "the scenarios ended early: {status}"
    );
    assert!(passed > 0, "no scenario ran");
    eprintln!(
        "{passed} scenarios; screenshots in {}",
        screenshots.display()
    );
}

//! What the README lists is what there is.

use std::process::Command;

use riderflow::config::{KEYS, Unit};
use riderflow::model::EventKind;

const README: &str = include_str!("../README.md");

#[test]
fn lists_every_key_with_its_default_and_unit() {
    for key in KEYS {
        let unit = key
            .unit
            .map_or(String::new(), |u| format!("{} ", Unit::words(u)));
        let row = format!("| `{}` | `{}` | {unit}|", key.path(), key.default);
        assert!(README.contains(&row), "no row `{row}` in README.md");
    }
    let rows = README.lines().filter(|line| {
        let dotted = line.strip_prefix("| `").and_then(|l| l.split('`').next());
        dotted.is_some_and(|key| {
            KEYS.iter()
                .any(|k| key.starts_with(&format!("{}.", k.stage)))
        })
    });
    assert_eq!(rows.count(), KEYS.len());
}

#[test]
fn lists_every_event() {
    for kind in EventKind::ALL {
        let name = format!("`{}`", kind.name());
        assert!(README.contains(&name), "no {name} in README.md");
    }
}

#[test]
fn lists_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_riderflow"))
        .arg("--help")
        .output()
        .expect("the binary was built for this test");
    let help = String::from_utf8(help.stdout).expect("help is UTF-8");
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 10, "{help}");
    let table = README.split("## Commands").nth(1).unwrap_or("");
    for command in commands {
        let listed = [format!("`{command}`"), format!("`{command} ")];
        let is_listed = listed.iter().any(|name| table.contains(name));
        assert!(is_listed, "no `{command}` in README.md");
    }
}

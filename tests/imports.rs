//! Who may import whom: the walls of ARCHITECTURE.md, held over all of `src/`.
//!
//! The scanner reads `use` trees and inline paths (`crate::…`, `super::…`, `timely::…`) out of
//! the source text, without comments and literals. It is tested on planted violations below.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a module, or one file of it, may use of ours besides itself. The longest match counts.
const OURS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &[]),
    ("fail", &[]),
    ("services", &["kafka"]),
    ("geo", &["model"]),
    ("telemetry", &["model"]),
    ("detect", &["geo", "model"]),
    ("wire", &["geo", "model"]),
    ("epoch", &["model", "wire"]),
    ("snapshot", &["epoch", "fail", "model"]),
    (
        "dataflow",
        &[
            "detect",
            "wire",
            "epoch",
            "snapshot",
            "model",
            "geo",
            "telemetry",
            "fail",
        ],
    ),
    ("dataflow/graph.rs", &["config", "model"]),
    (
        "kafka",
        &["wire", "epoch", "model", "config", "telemetry", "fail"],
    ),
    (
        "clickhouse",
        &[
            "wire",
            "epoch",
            "model",
            "config",
            "telemetry",
            "fail",
            "geo",
        ],
    ),
    (
        "gateway",
        &[
            "wire",
            "model",
            "kafka",
            "geo",
            "config",
            "telemetry",
            "detect",
        ],
    ),
    (
        "simulate",
        &["model", "wire", "kafka", "geo", "config", "telemetry"],
    ),
    (
        "runtime",
        &[
            "clickhouse",
            "config",
            "dataflow",
            "detect",
            "epoch",
            "fail",
            "gateway",
            "geo",
            "kafka",
            "model",
            "services",
            "simulate",
            "snapshot",
            "telemetry",
            "wire",
        ],
    ),
    (
        "cli",
        &[
            "clickhouse",
            "config",
            "dataflow",
            "detect",
            "epoch",
            "gateway",
            "geo",
            "kafka",
            "model",
            "runtime",
            "services",
            "simulate",
            "snapshot",
            "telemetry",
            "wire",
        ],
    ),
    ("main.rs", &["cli"]),
    ("lib.rs", &[]),
];

/// The only modules or files that may use a crate, or the word `unsafe`.
const THEIRS: &[(&str, &[&str])] = &[
    ("timely", &["dataflow", "runtime"]),
    ("differential_dataflow", &["dataflow", "runtime"]),
    ("rdkafka", &["kafka"]),
    ("clickhouse", &["clickhouse"]),
    ("axum", &["telemetry", "gateway"]),
    ("hyper", &["gateway"]),
    ("hyper_util", &["gateway"]),
    ("tokio_rustls", &["gateway"]),
    ("jsonwebtoken", &["gateway"]),
    ("utoipa", &["gateway"]),
    (
        "tokio_tungstenite",
        &["simulate/phones", "gateway/intake/end.rs"],
    ),
    ("object_store", &["snapshot"]),
    ("libloading", &["services/clickhouse_lib.rs"]),
    (
        "unsafe",
        &[
            "services/clickhouse_lib.rs",
            "kafka/header.rs",
            "kafka/partition_queue.rs",
        ],
    ),
];

#[test]
fn every_import_keeps_within_the_walls() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect_rust_files(&root, &mut files);
    assert!(files.len() > 30, "only {} files under src/", files.len());
    let mut violations = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file is readable UTF-8");
        let relative = file.strip_prefix(&root).expect("it was found under src/");
        violations.extend(violations_of(&relative.to_string_lossy(), &text));
    }
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn collect_rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("a source folder is readable");
    for entry in entries {
        let path = entry.expect("a source folder is readable").path();
        if path.is_dir() {
            collect_rust_files(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

/// Whether `file`, such as `kafka/admin.rs`, is `place` or lies in it.
fn lies_in(file: &str, place: &str) -> bool {
    file == place
        || file == format!("{place}.rs")
        || file
            .strip_prefix(place)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn violations_of(file: &str, text: &str) -> Vec<String> {
    let own = file.split(['/', '.']).next().unwrap_or(file);
    let rule = OURS
        .iter()
        .filter(|(place, _)| lies_in(file, place))
        .max_by_key(|(place, _)| place.len());
    let Some((_, allowed)) = rule else {
        return vec![format!(
            "src/{file}: `{own}` has no row in tests/imports.rs"
        )];
    };
    let mut violations = Vec::new();
    for Found { line, path } in paths_in(file, text) {
        let shown = path.join("::");
        let complaint = |rule: &str| format!("src/{file}:{line}: {rule} (`{shown}`)");
        let first = path[0].as_str();
        if first == "crate" || first == "riderflow" {
            match path.get(1).map(String::as_str) {
                None => {}
                Some("*") => violations.push(complaint("the whole crate is imported")),
                Some(target) if target == own || allowed.contains(&target) => {}
                Some(target) => {
                    violations.push(complaint(&format!("`{own}` may not use `{target}`")));
                }
            }
        } else if let Some((name, places)) = THEIRS.iter().find(|(name, _)| *name == first)
            && !places.iter().any(|place| lies_in(file, place))
        {
            let places = places.join("`, `");
            violations.push(complaint(&format!("`{name}` belongs in `{places}` only")));
        }
    }
    violations
}

/// A path that a file names, from `crate` or a crate's name, or the word `unsafe` alone.
#[derive(Debug, PartialEq)]
struct Found {
    line: usize,
    path: Vec<String>,
}

/// The module path of a file under `src/`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

fn paths_in(file: &str, text: &str) -> Vec<Found> {
    let tokens = tokens_of(text);
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut scan = Scan {
        tokens: &tokens,
        module: module_of(file),
        inner: Vec::new(),
        found: Vec::new(),
        bound: BTreeSet::new(),
    };
    let mut depth = 0usize;
    let mut at = 0;
    while at < tokens.len() {
        match word(at) {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if scan
                    .inner
                    .last()
                    .is_some_and(|(_, opened)| *opened == depth)
                {
                    scan.inner.pop();
                }
            }
            "mod" if word(at + 2) == "{" => {
                scan.inner.push((word(at + 1).to_owned(), depth));
                depth += 1;
                at += 3;
                continue;
            }
            "mod" if word(at + 2) == ";" => {
                scan.bound.insert(word(at + 1).to_owned());
            }
            // Not `impl Trait + use<'a>`.
            "use" if word(at + 1) != "<" => {
                at = scan.use_tree(at + 1, Vec::new());
                continue;
            }
            "unsafe" => scan.keep(at, vec!["unsafe".into()]),
            // In `unsafe_code` or `a.clickhouse` it is no path; `::` must follow.
            _ if is_word(word(at)) && word(at + 1) == "::" && word(at.wrapping_sub(1)) != "." => {
                let mut path = vec![word(at).to_owned()];
                let start = at;
                while word(at + 1) == "::" && is_word(word(at + 2)) {
                    path.push(word(at + 2).to_owned());
                    at += 2;
                }
                // A leading `::` names a crate for certain.
                let is_crate = start > 0 && word(start - 1) == "::";
                scan.inline(start, path, is_crate);
            }
            _ => {}
        }
        at += 1;
    }
    let Scan { found, bound, .. } = scan;
    // A first word that the file itself binds (`mod clickhouse;`, `use crate::clickhouse;`) is
    // not the crate of that name; where it came from was looked at.
    found
        .into_iter()
        .filter(|(_, is_crate, found)| *is_crate || !bound.contains(&found.path[0]))
        .map(|(_, _, found)| found)
        .collect()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

struct Scan<'a> {
    tokens: &'a [Token],
    module: Vec<String>,
    /// Modules opened within the file, with the depth at which they close.
    inner: Vec<(String, usize)>,
    /// By token; whether it is a crate's name for certain.
    found: Vec<(usize, bool, Found)>,
    bound: BTreeSet<String>,
}

impl Scan<'_> {
    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    /// Resolves `self` and `super`, and keeps the path.
    fn keep(&mut self, at: usize, path: Vec<String>) {
        self.keep_as(at, path, false);
    }

    fn keep_as(&mut self, at: usize, path: Vec<String>, is_crate: bool) {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut rest = path.as_slice();
        let resolved = if matches!(path[0].as_str(), "self" | "super") {
            let inner = self.inner.iter().map(|(name, _)| name.clone());
            let mut module: Vec<String> = self.module.iter().cloned().chain(inner).collect();
            while let Some((first, others)) = rest.split_first() {
                match first.as_str() {
                    "self" => {}
                    "super" => {
                        module.pop();
                    }
                    _ => break,
                }
                rest = others;
            }
            let start = std::iter::once("crate".to_owned());
            start.chain(module).chain(rest.iter().cloned()).collect()
        } else {
            path
        };
        let path = resolved;
        self.found.push((at, is_crate, Found { line, path }));
    }

    fn inline(&mut self, at: usize, path: Vec<String>, is_crate: bool) {
        let first = path[0].as_str();
        let is_ours = matches!(first, "crate" | "riderflow" | "super" | "self");
        if is_ours || THEIRS.iter().any(|(name, _)| *name == first) {
            self.keep_as(at, path, is_crate);
        }
    }

    /// Reads one tree of a `use`, from `at`, under `prefix`; returns where it ends.
    fn use_tree(&mut self, mut at: usize, prefix: Vec<String>) -> usize {
        let mut path = prefix;
        let mut is_crate = false;
        loop {
            match self.word(at) {
                "::" => {
                    is_crate |= path.is_empty();
                    at += 1;
                }
                "{" => {
                    at += 1;
                    while !matches!(self.word(at), "}" | "") {
                        at = self.use_tree(at, path.clone());
                        if self.word(at) == "," {
                            at += 1;
                        }
                    }
                    return at + 1;
                }
                "as" => {
                    self.bound.insert(self.word(at + 1).to_owned());
                    let kept = std::mem::take(&mut path);
                    self.keep_as(at, kept, is_crate);
                    return at + 2;
                }
                "," | "}" | ";" | "" => break,
                // `a::{self}` is `a`.
                "self" if !path.is_empty() => at += 1,
                segment => {
                    path.push(segment.to_owned());
                    at += 1;
                }
            }
        }
        if !path.is_empty() {
            // `use timely;` binds the crate's own name, which says nothing.
            if path.len() > 1
                && let Some(last) = path.last()
            {
                self.bound.insert(last.clone());
            }
            self.keep_as(at.saturating_sub(1), path, is_crate);
        }
        at
    }
}

#[derive(Debug)]
struct Token {
    line: usize,
    text: String,
}

/// Words, `::` and single signs; comments and literals are left out.
fn tokens_of(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        if c == '/' && peek(at + 1) == '/' {
            while at < chars.len() && peek(at) != '\n' {
                at += 1;
            }
        } else if c == '/' && peek(at + 1) == '*' {
            let mut nested = 0;
            while at < chars.len() {
                match (peek(at), peek(at + 1)) {
                    ('/', '*') => (nested, at) = (nested + 1, at + 2),
                    ('*', '/') => (nested, at) = (nested - 1, at + 2),
                    _ => at += 1,
                }
                if nested == 0 {
                    break;
                }
            }
        } else if c == '"' {
            at = end_of_string(&chars, at);
        } else if c == '\'' {
            // A lifetime has no closing quote after one character.
            at = if peek(at + 1) == '\\' {
                let close = (at + 3..chars.len()).find(|&i| chars[i] == '\'');
                close.map_or(chars.len(), |close| close + 1)
            } else if peek(at + 2) == '\'' {
                at + 3
            } else {
                at + 1
            };
        } else if c.is_alphanumeric() || c == '_' {
            while peek(at).is_alphanumeric() || peek(at) == '_' {
                at += 1;
            }
            let word: String = chars[start..at].iter().collect();
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            if matches!(word.as_str(), "r" | "br" | "cr") && peek(at + hashes) == '"' {
                let close: Vec<char> = std::iter::once('"')
                    .chain(std::iter::repeat_n('#', hashes))
                    .collect();
                at += hashes + 1;
                while at < chars.len() && !chars[at..].starts_with(&close) {
                    at += 1;
                }
                at += close.len();
            } else if word == "r" && hashes == 1 {
                // `r#type`: the word comes next.
                at += 1;
            } else {
                tokens.push(Token { line, text: word });
            }
        } else if c == ':' && peek(at + 1) == ':' {
            at += 2;
            tokens.push(Token {
                line,
                text: "::".into(),
            });
        } else {
            at += 1;
            if !c.is_whitespace() {
                tokens.push(Token {
                    line,
                    text: c.into(),
                });
            }
        }
        let end = at.min(chars.len());
        line += chars[start..end].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_string(chars: &[char], open: usize) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

mod the_scanner {
    use super::*;

    fn paths(file: &str, text: &str) -> Vec<String> {
        paths_in(file, text)
            .into_iter()
            .map(|found| format!("{} {}", found.line, found.path.join("::")))
            .collect()
    }

    #[test]
    fn reads_every_form_of_use() {
        let text = "use crate::{a, b::c, d::{self, e as f}};\npub(crate) use super::g::*;\nuse ::rdkafka::x;\nuse self::h;\n";
        assert_eq!(
            paths("kafka/admin.rs", text),
            [
                "1 crate::a",
                "1 crate::b::c",
                "1 crate::d",
                "1 crate::d::e",
                "2 crate::kafka::g::*",
                "3 rdkafka::x",
                "4 crate::kafka::admin::h",
            ]
        );
    }

    #[test]
    fn reads_inline_paths_and_the_word_unsafe() {
        let text = "fn f<'a>(x: &'a crate::wire::W) -> super::super::geo::G {\n    timely::execute(::clickhouse::new())\n}\nunsafe fn g() {}\n";
        assert_eq!(
            paths("kafka/mod.rs", text),
            [
                "1 crate::wire::W",
                "1 crate::geo::G",
                "2 timely::execute",
                "2 clickhouse::new",
                "4 unsafe",
            ]
        );
    }

    #[test]
    fn follows_super_out_of_inner_modules() {
        let text = "mod tests {\n    use super::*;\n    mod deep { use super::super::super::wire; }\n}\nuse super::model;\n";
        assert_eq!(
            paths("kafka/admin.rs", text),
            [
                "2 crate::kafka::admin::*",
                "3 crate::kafka::wire",
                "5 crate::kafka::model",
            ]
        );
    }

    #[test]
    fn leaves_out_comments_literals_and_names_of_the_files_own() {
        let text = r####"
//! See [`crate::cli`]. /* unsafe */
/* use crate::cli; /* nested */ unsafe */
mod clickhouse;
use crate::kafka;
fn f() {
    let s = "use crate::cli; \" unsafe";
    let r = r#"crate::cli " unsafe"#;
    let c = ['"', '\'', 'u'];
    kafka::send(clickhouse::Local, self.timely::<u8>());
}
"####;
        assert_eq!(paths("services/mod.rs", text), ["5 crate::kafka"]);
    }

    #[test]
    fn catches_what_breaks_a_rule() {
        for (file, text, expected) in [
            (
                "kafka/admin.rs",
                "use crate::{model::Source, clickhouse::Writer};",
                "src/kafka/admin.rs:1: `kafka` may not use `clickhouse` (`crate::clickhouse::Writer`)",
            ),
            (
                "clickhouse/writer.rs",
                "\nfn f(x: super::super::kafka::Offset) {}",
                "src/clickhouse/writer.rs:2: `clickhouse` may not use `kafka` (`crate::kafka::Offset`)",
            ),
            (
                "model/mod.rs",
                "use crate::geo;",
                "src/model/mod.rs:1: `model` may not use `geo` (`crate::geo`)",
            ),
            (
                "detect/order.rs",
                "use riderflow::wire::decode;",
                "src/detect/order.rs:1: `detect` may not use `wire` (`riderflow::wire::decode`)",
            ),
            (
                "detect/order.rs",
                "fn f() { timely::execute() }",
                "src/detect/order.rs:1: `timely` belongs in `dataflow`, `runtime` only (`timely::execute`)",
            ),
            (
                "kafka/mod.rs",
                "use clickhouse::Client;",
                "src/kafka/mod.rs:1: `clickhouse` belongs in `clickhouse` only (`clickhouse::Client`)",
            ),
            (
                "services/kafka.rs",
                "fn f() { unsafe { g() } }",
                "src/services/kafka.rs:1: `unsafe` belongs in `services/clickhouse_lib.rs`, `kafka/header.rs`, `kafka/partition_queue.rs` only (`unsafe`)",
            ),
            (
                "dataflow/windows.rs",
                "use crate::config::Pipeline;",
                "src/dataflow/windows.rs:1: `dataflow` may not use `config` (`crate::config::Pipeline`)",
            ),
            (
                "geo/mod.rs",
                "use crate::*;",
                "src/geo/mod.rs:1: the whole crate is imported (`crate::*`)",
            ),
            (
                "extra/mod.rs",
                "",
                "src/extra/mod.rs: `extra` has no row in tests/imports.rs",
            ),
        ] {
            assert_eq!(violations_of(file, text), [expected], "{file}: {text}");
        }
    }

    #[test]
    fn lets_pass_what_keeps_the_rules() {
        for (file, text) in [
            ("kafka/admin.rs", "use super::group; use rdkafka::admin::*;"),
            ("dataflow/graph.rs", "use crate::config::Pipeline;"),
            ("services/clickhouse_lib.rs", "unsafe { libloading::f() }"),
            ("cli/run.rs", "use crate::{runtime, kafka::admin};"),
            ("main.rs", "fn main() { riderflow::cli::main() }"),
        ] {
            assert_eq!(violations_of(file, text), Vec::<String>::new(), "{file}");
        }
    }
}

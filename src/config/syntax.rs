//! What can't be read at all: TOML's own errors, said in the terms of a pipeline file.

use toml::de::{DeTable, Error};

use super::error::{At, Problem};
use super::{schema, values};

/// The parser's errors: the first of each line, since the rest of a line that can't be read is
/// misread.
pub(super) fn problems(text: &str, document: &DeTable<'_>, errors: &[Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let (message, help) = if error.message() == "duplicate key" {
            (duplicate(text, document, span.clone()), Vec::new())
        } else {
            value(text, span.start).unwrap_or_else(|| {
                let message = format!("syntax error: {}", error.message());
                (message, Vec::new())
            })
        };
        let at = Some(At::new(text, span));
        let is_new = |at: &Option<At>| {
            let line = at.as_ref().map(|at| at.line);
            !problems
                .iter()
                .any(|p| p.at.as_ref().map(|at| at.line) == line)
        };
        if is_new(&at) {
            problems.push(Problem { at, message, help });
        }
    }
    problems
}

/// Whether a line opens a table.
pub(super) fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// The table that the end of `before` is in; `None` above the first.
fn stage_of(before: &str) -> Option<&str> {
    let header = before.lines().rev().find(|line| is_header(line))?;
    let name = header.trim().trim_start_matches('[');
    Some(name.split(']').next().unwrap_or(name).trim())
}

/// A key or table that is there twice: the parser kept the first.
fn duplicate(text: &str, document: &DeTable<'_>, span: std::ops::Range<usize>) -> String {
    let word = text.get(span.clone()).unwrap_or("");
    let before = text.get(..span.start).unwrap_or("");
    let line_of = |start: usize| At::new(text, start..start).line;
    if before.ends_with('[') {
        let header = format!("[{word}]");
        let first = text.find(&header).map_or(1, line_of);
        return format!("duplicate table {header}; the first is at line {first}");
    }
    let stage = stage_of(before);
    let table = match stage {
        None => Some(document),
        Some(stage) => document.get(stage).and_then(|t| t.get_ref().as_table()),
    };
    let first = table
        .and_then(|table| table.get_key_value(word.trim_matches(['"', '\''])))
        .map(|(key, _)| format!("; the first is at line {}", line_of(key.span().start)));
    let within = stage.map_or(String::new(), |stage| format!(" in [{stage}]"));
    format!(
        "duplicate key `{word}`{within}{}",
        first.unwrap_or_default()
    )
}

/// The error of a `key = value` whose value is text without quotes, such as `500 m`.
fn value(text: &str, at: usize) -> Option<(String, Vec<String>)> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let (name, given) = line.split_once('=')?;
    if at < line_start + name.len() || is_header(line) {
        return None;
    }
    let given = given.split('#').next().unwrap_or("").trim();
    if given.is_empty() {
        return Some((format!("`{}` has no value", name.trim()), Vec::new()));
    }
    if given.contains(['"', '\'', '=', '[', '{']) {
        return None;
    }
    let stage = stage_of(&text[..line_start]);
    if stage.is_none() && name.trim() == "name" {
        let message = format!("`name` takes text in quotes; write `name = \"{given}\"`");
        return Some((message, Vec::new()));
    }
    let key = schema::key(stage?, name.trim())?;
    let write = values::meant_by(key, given).map_or(String::new(), |w| format!("; write `{w}`"));
    let message = format!("`{}` takes {}{write}", key.path(), values::takes(key));
    Some((message, vec![format!("its default is {}", key.default)]))
}

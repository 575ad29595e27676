//! What is wrong with a pipeline file, the way a compiler would say it.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line and column of its first character, from 1; `None` if it is not in the file.
    pub at: Option<At>,
    /// What is wrong, in one line.
    pub message: String,
    /// What helps, one line each.
    pub help: Vec<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct At {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line's text.
    #[serde(skip)]
    source: String,
    /// How many characters are meant.
    #[serde(skip)]
    width: usize,
}

impl At {
    /// The place of a byte range of `text`; beyond its end counts as its end.
    pub(super) fn new(text: &str, span: Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let source = text[line_start..].lines().next().unwrap_or("");
        let column = text[line_start..start].chars().count() + 1;
        let meant = &text[start..floor_boundary(text, span.end).max(start)];
        let meant = meant.lines().next().unwrap_or("").chars().count();
        Self {
            line: before.matches('\n').count() + 1,
            column,
            source: source.to_owned(),
            width: meant.max(1),
        }
    }
}

fn floor_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// A pipeline file that can't be used: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: String,
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.at.cmp(&b.at));
        Self {
            file: file.to_owned(),
            problems,
        }
    }

    /// A problem with the file as a whole.
    pub(super) fn whole(file: &str, message: String) -> Self {
        let at = None;
        let help = Vec::new();
        Self::new(file, vec![Problem { at, message, help }])
    }

    /// The file's name as given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write_problem(f, &self.file, problem)?;
        }
        if self.problems.len() > 1 {
            write!(f, "\n\n{}: {} errors", self.file, self.problems.len())?;
        }
        Ok(())
    }
}

fn write_problem(f: &mut fmt::Formatter<'_>, file: &str, problem: &Problem) -> fmt::Result {
    let Problem { at, message, help } = problem;
    let gutter = match at {
        None => {
            write!(f, "{file}: {message}")?;
            1
        }
        Some(At {
            line,
            column,
            source,
            width,
        }) => {
            let gutter = line.to_string().len();
            write!(f, "{file}:{line}:{column}: {message}")?;
            write!(f, "\n{:gutter$} |", "")?;
            write!(f, "\n{line} | {source}")?;
            // A tab stays a tab, so that the caret stands under its character.
            let indent = source.chars().take(column - 1);
            let indent: String = indent.map(|c| if c == '\t' { c } else { ' ' }).collect();
            write!(f, "\n{:gutter$} | {indent}{}", "", "^".repeat(*width))?;
            gutter
        }
    };
    for line in help {
        write!(f, "\n{:gutter$} = {line}", "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters() {
        let text = "a = 1\nbé = \"é\" # x\r\nc";
        let at = At::new(text, text.find("\"é\"").unwrap()..text.find(" #").unwrap());
        assert_eq!((at.line, at.column, at.width), (2, 6, 3));
        assert_eq!(at.source, "bé = \"é\" # x");
        let end = At::new(text, text.len()..text.len());
        assert_eq!((end.line, end.column, end.width), (3, 2, 1));
        let beyond = At::new(text, 1_000..2_000);
        assert_eq!((beyond.line, beyond.column), (3, 2));
        assert_eq!(At::new("", 0..0).line, 1);
    }

    #[test]
    fn the_caret_stands_under_what_is_meant() {
        let text = "[orders]\n\tnear_metres = 5\n";
        let start = text.find("near").unwrap();
        let problem = Problem {
            at: Some(At::new(text, start..start + 11)),
            message: "unknown".into(),
            help: vec!["try this".into()],
        };
        let error = ConfigError::new("x.toml", vec![problem]);
        assert_eq!(
            error.to_string(),
            "x.toml:2:2: unknown\n  |\n2 | \tnear_metres = 5\n  | \t^^^^^^^^^^^\n  = try this"
        );
    }
}

//! Reads TOML files that people write, and reports every problem at once, each with its line and
//! the most similar valid word.
//!
//! `toml` stops at the first problem. So [`TomlFile::read`] notes it, removes the entry from the
//! parsed tree and reads the rest again. Invariant: [`TomlFile::finish`] returns a value only if no
//! problem was noted.

pub(crate) mod edit;
mod reword;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

pub(crate) use self::reword::nearest;
use self::reword::reword;

/// Most problems reported for one file. Later ones are mostly consequences of earlier ones.
const PROBLEMS_MAX: usize = 50;

/// Why the text of a file was not read.
#[derive(Debug)]
pub(crate) enum ReadTextError {
    /// The file system refused, or the text is not UTF-8.
    Unreadable(io::Error),
    /// The file is longer than its bound.
    TooLong,
}

/// Reads a UTF-8 file of at most `bytes_max` bytes. Stops reading one byte beyond the bound.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, ReadTextError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_string(&mut text))
        .map_err(ReadTextError::Unreadable)?;
    if text.len() as u64 > bytes_max {
        return Err(ReadTextError::TooLong);
    }
    Ok(text)
}

/// One problem in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its line, counted from 1.
    pub line: usize,
    /// The key and its problem.
    pub message: String,
    /// The most similar valid word.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)?;
        match &self.suggestion {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

/// All problems in a file, sorted by line. Displays as one line of text for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// Entries that are wrong.
    pub errors: Vec<Problem>,
    /// Entries of earlier versions, which have no effect on the result. Not displayed.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.errors.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A parsed file, and the problems found so far.
pub(crate) struct TomlFile<'t> {
    path: &'t Path,
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    is_not_toml: bool,
    problems: Vec<Problem>,
}

impl<'t> TomlFile<'t> {
    /// Parses the text, and notes syntax errors.
    pub(crate) fn parse(path: &'t Path, text: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut file = Self {
            path,
            text,
            root,
            is_not_toml: !errors.is_empty(),
            problems: Vec::new(),
        };
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            file.note(start, format!("invalid TOML: {}", error.message()), None);
        }
        file
    }

    /// Notes each use of a removed key in the tables of the array `array`.
    ///
    /// Removes the key from the parsed tree, so that [`Self::read`] reports the other problems too.
    pub(crate) fn refuse_removed(&mut self, array: &str, key: &str, why: &str) {
        let mut found = Vec::new();
        if let Some(DeValue::Array(tables)) =
            self.root.get_mut().get_mut(array).map(Spanned::get_mut)
        {
            for table in tables.iter_mut() {
                if let DeValue::Table(table) = table.get_mut()
                    && let Some((key, _)) = table.remove_entry(key)
                {
                    found.push(key.span().start);
                }
            }
        }
        for start in found {
            self.note(start, format!("{array}.{key}: {why}"), None);
        }
    }

    /// Reads the whole file as a `T`, and notes every unknown key, unknown value and wrong type.
    ///
    /// Returns `None` for invalid TOML, or if the valid entries alone do not make a `T`. `T` and
    /// all structs in it must `deny_unknown_fields`.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        if self.is_not_toml {
            return None;
        }
        let mut tree = self.root.clone();
        let mut wrong: Vec<Removed> = Vec::new();
        while self.problems.len() < PROBLEMS_MAX {
            let error = match T::deserialize(toml::de::Deserializer::from(tree.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let span = error.span().unwrap_or(tree.span());
            let root = tree.span();
            let removed = remove_entry(tree.get_mut(), &root, &span);
            let (message, word) = reword(error.message());
            // A key that was removed because of its value must not be reported as missing.
            let missing = word.as_ref().filter(|_| message.is_none());
            if !wrong.iter().any(|it| {
                missing.is_some_and(|key| it.table == span && it.path.ends_with(key.as_str()))
            }) {
                let at = removed
                    .as_ref()
                    .map_or(String::new(), |it| format!("{}: ", it.path));
                match message {
                    Some(message) => self.note(span.start, format!("{at}{message}"), word),
                    None => {
                        let key = word.unwrap_or_default();
                        self.note(span.start, format!("{at}the key `{key}` is missing"), None);
                    }
                }
            }
            wrong.push(removed?);
        }
        None
    }

    /// Whether any problem was noted.
    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Notes a problem at a byte position of the text.
    pub(crate) fn note(&mut self, start: usize, message: String, suggestion: Option<String>) {
        let line = self.line(start);
        self.problems.push(Problem {
            file: self.path.into(),
            line,
            message,
            suggestion,
        });
    }

    /// Notes a problem of the key at a path such as `sync.dials_max` or `peer.0.onion`. Reports the
    /// line of the key, or of the innermost table on the path if the file does not contain the key.
    pub(crate) fn note_key(&mut self, path: &str, message: &str) {
        let start = self.find(path);
        let names: Vec<_> = path
            .split('.')
            .filter(|part| part.parse::<usize>().is_err())
            .collect();
        self.note(start, format!("{}: {message}", names.join(".")), None);
    }

    /// A problem in a line that is not noted in the file, such as a warning.
    pub(crate) fn problem(&self, line: usize, message: String) -> Problem {
        Problem {
            file: self.path.into(),
            line,
            message,
            suggestion: None,
        }
    }

    /// Notes a problem in a line.
    pub(crate) fn note_line(&mut self, line: usize, message: String) {
        let problem = self.problem(line, message);
        self.problems.push(problem);
    }

    fn find(&self, path: &str) -> usize {
        let mut parts = path.split('.');
        let first = parts
            .next()
            .and_then(|part| self.root.get_ref().get_key_value(part));
        let Some((key, mut value)) = first else {
            return 0;
        };
        let mut start = key.span().start;
        for part in parts {
            let next = match value.get_ref() {
                DeValue::Table(table) => table
                    .get_key_value(part)
                    .map(|(key, value)| (key.span(), value)),
                DeValue::Array(array) => {
                    let index = part.parse::<usize>().ok();
                    index
                        .and_then(|index| array.get(index))
                        .map(|value| (value.span(), value))
                }
                _ => None,
            };
            let Some((span, next)) = next else { break };
            (start, value) = (span.start, next);
        }
        start
    }

    fn line(&self, start: usize) -> usize {
        line_at(self.text, start)
    }

    /// Returns the value if no problem was noted.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Problems> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems.dedup();
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems {
                errors: self.problems,
                warnings: Vec::new(),
            }),
        }
    }
}

/// An entry that was removed from the tree: its path, and the position of its table.
struct Removed {
    path: String,
    table: Range<usize>,
}

/// Removes the innermost entry at `span` from a table.
fn remove_entry(
    table: &mut DeTable<'_>,
    table_span: &Range<usize>,
    span: &Range<usize>,
) -> Option<Removed> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let value_span = value.span();
        let inner = match value.get_mut() {
            DeValue::Table(inner) => remove_entry(inner, &value_span, span),
            DeValue::Array(array) => remove_from_array(array, span),
            _ => None,
        };
        if let Some(Removed { path, table }) = inner {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{path}", key.get_ref());
            return Some(Removed { path, table });
        }
        if covers(&key.span(), span) || covers(&value_span, span) {
            found = Some(key.get_ref().to_string());
        }
    }
    let path = found?;
    table.remove(path.as_str());
    Some(Removed {
        path,
        table: table_span.clone(),
    })
}

/// Removes an entry from one of the tables in an array, or a whole table that lacks a key.
fn remove_from_array(array: &mut DeArray<'_>, span: &Range<usize>) -> Option<Removed> {
    let mut lacking = None;
    for (index, value) in array.iter_mut().enumerate() {
        let value_span = value.span();
        let DeValue::Table(table) = value.get_mut() else {
            continue;
        };
        let removed = remove_entry(table, &value_span, span);
        if removed.is_some() {
            return removed;
        }
        if covers(&value_span, span) {
            lacking = Some((index, value_span));
        }
    }
    let (index, table) = lacking?;
    let rest = std::mem::replace(array, DeArray::new())
        .into_iter()
        .enumerate();
    for (_, value) in rest.filter(|(other, _)| *other != index) {
        array.push(value);
    }
    Some(Removed {
        path: String::new(),
        table,
    })
}

/// The line, counted from 1, of a byte in a text.
fn line_at(text: &str, start: usize) -> usize {
    let before = text.as_bytes().get(..start).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

#[cfg(test)]
mod tests;

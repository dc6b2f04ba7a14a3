//! Paths in code, with the braces of imports expanded.

use crate::source::{Piece, is_word};

/// Every path in `code` with its line: `use a::{b, c::d}` gives `a::b` and `a::c::d`. The name of a
/// macro keeps its `!`. A bare name is a path too.
pub(crate) fn paths(code: &str) -> Vec<Piece> {
    let mut reader = PathReader {
        code,
        at: 0,
        line: 1,
        found: Vec::new(),
    };
    while reader.at < reader.code.len() {
        match reader.peek(0) {
            byte if is_name(byte) && !byte.is_ascii_digit() => reader.path(""),
            byte if is_name(byte) => _ = reader.name(),
            _ => reader.step(),
        }
    }
    reader.found
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

struct PathReader<'a> {
    code: &'a str,
    at: usize,
    line: usize,
    found: Vec<Piece>,
}

impl PathReader<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.code
            .as_bytes()
            .get(self.at + ahead)
            .copied()
            .unwrap_or(0)
    }

    fn step(&mut self) {
        self.line += usize::from(self.peek(0) == b'\n');
        self.at += 1;
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while is_name(self.peek(0)) {
            self.at += 1;
        }
        self.code[start..self.at].to_owned()
    }

    /// Skips white space and `::` before a name, a brace or a star.
    fn joint(&mut self) -> bool {
        let Some(behind) = self.code[self.at..].trim_start().strip_prefix("::") else {
            return false;
        };
        let behind = behind.trim_start();
        if !behind.starts_with(|c: char| is_word(c) || c == '{' || c == '*') {
            return false;
        }
        let end = self.code.len() - behind.len();
        while self.at < end {
            self.step();
        }
        true
    }

    fn path(&mut self, prefix: &str) {
        let line = self.line;
        let name = self.name();
        let full = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}::{name}")
        };
        if self.joint() {
            return match self.peek(0) {
                b'{' => self.group(&full),
                b'*' => self.found.push(Piece { line, text: full }),
                _ => self.path(&full),
            };
        }
        let mark = if self.peek(0) == b'!' && self.peek(1) != b'=' {
            "!"
        } else {
            ""
        };
        self.found.push(Piece {
            line,
            text: full + mark,
        });
    }

    fn group(&mut self, prefix: &str) {
        self.step();
        while self.at < self.code.len() {
            match self.peek(0) {
                b'}' => return self.step(),
                b'*' => {
                    self.found.push(Piece {
                        line: self.line,
                        text: prefix.to_owned(),
                    });
                    self.step();
                }
                byte if is_name(byte) => {
                    self.path(prefix);
                    // Skips `as x`.
                    while !matches!(self.peek(0), b',' | b'}' | 0) {
                        self.step();
                    }
                }
                _ => self.step(),
            }
        }
    }
}

#[test]
fn paths_expands_the_braces_of_imports() {
    let code = "use crate::{acl, graph::{Draft as D, place::*}, store::self};\n\
                let x = std :: thread::spawn(1u8); todo!(); a != b;";
    let found = paths(code);
    let wanted = [
        "crate::acl",
        "crate::graph::Draft",
        "crate::graph::place",
        "crate::store::self",
        "std::thread::spawn",
        "todo!",
    ];
    for path in wanted {
        assert!(
            found.iter().any(|piece| piece.text == path),
            "{path} is not among {found:?}"
        );
    }
    assert_eq!(
        found
            .iter()
            .find(|piece| piece.text == "todo!")
            .map(|piece| piece.line),
        Some(2)
    );
    assert!(
        !found.iter().any(|piece| piece.text.ends_with("D")),
        "{found:?}"
    );
}

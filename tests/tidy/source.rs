//! A Rust file as the rules read it: code without comments and literals, and both of these apart.
//!
//! A lexer, not a parser: it recognises comments, literals and test items. Invariant: `code` has as
//! many lines as the file.

use std::path::Path;

/// A comment or a string literal, and the line that it begins on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) line: usize,
    pub(crate) text: String,
}

pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// Comments and the insides of literals blanked.
    pub(crate) code: String,
    pub(crate) strings: Vec<Piece>,
    pub(crate) comments: Vec<Piece>,
    /// The whole file is compiled for tests only.
    pub(crate) is_test: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut lexer = Lexer::new(text);
        lexer.run();
        let is_test =
            path.starts_with("tests/") && !path.contains("/src/") || path.contains("/tests/");
        let is_test = is_test || path.starts_with("tests/harness/");
        let is_test = is_test || path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: String::from_utf8_lossy(&lexer.code).into_owned(),
            strings: lexer.strings,
            comments: lexer.comments,
            is_test,
        }
    }

    /// `code` without what is compiled for tests only.
    pub(crate) fn production(&self) -> String {
        if self.is_test {
            String::new()
        } else {
            split_tests(&self.code).0
        }
    }

    /// `code` without production code.
    pub(crate) fn tests(&self) -> String {
        if self.is_test {
            self.code.clone()
        } else {
            split_tests(&self.code).1
        }
    }

    /// Files of the modules that this file declares for tests only, at both possible places.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let path = Path::new(&self.path);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if !matches!(&*stem, "mod" | "lib" | "main") {
            folder.push(&*stem);
        }
        let folder = folder.to_string_lossy().into_owned();
        let tests = split_tests(&self.code).1;
        let words: Vec<_> = tests
            .split(|c: char| !is_word(c))
            .filter(|word| !word.is_empty())
            .collect();
        let names = words
            .windows(2)
            .filter(|pair| pair[0] == "mod")
            .map(|pair| pair[1]);
        names
            .flat_map(|name| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")])
            .collect()
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    code: Vec<u8>,
    strings: Vec<Piece>,
    comments: Vec<Piece>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        let (strings, comments) = (Vec::new(), Vec::new());
        Self {
            text: text.as_bytes(),
            at: 0,
            line: 1,
            code: Vec::new(),
            strings,
            comments,
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Reads one byte, which stays in `code` or is blanked.
    fn step(&mut self, keep: bool) {
        let byte = self.peek(0);
        self.line += usize::from(byte == b'\n');
        self.code
            .push(if keep || byte == b'\n' { byte } else { b' ' });
        self.at += 1;
    }

    /// Blanks up to `end`, and returns the blanked text.
    fn blank(&mut self, end: usize) -> Piece {
        let line = self.line;
        let text =
            String::from_utf8_lossy(&self.text[self.at..end.min(self.text.len())]).into_owned();
        while self.at < end.min(self.text.len()) {
            self.step(false);
        }
        Piece { line, text }
    }

    fn find(&self, needle: &[u8], from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        rest.windows(needle.len())
            .position(|window| window == needle)
            .map_or(self.text.len(), |place| from + place)
    }

    fn run(&mut self) {
        while self.at < self.text.len() {
            let before = self.code.last().copied().unwrap_or(b' ') as char;
            match (self.peek(0), self.peek(1)) {
                (b'/', b'/') => {
                    let end = self.find(b"\n", self.at);
                    let comment = self.blank(end);
                    self.comments.push(comment);
                }
                (b'/', b'*') => self.block_comment(),
                (b'"', _) => self.string(),
                (b'r', b'"' | b'#') if !is_word(before) || before == 'b' => self.raw_string(),
                (b'\'', _) => self.quote(),
                _ => self.step(true),
            }
        }
    }

    fn block_comment(&mut self) {
        let (mut end, mut depth) = (self.at, 0);
        loop {
            match self.text.get(end..end + 2) {
                Some(b"/*") => (end, depth) = (end + 2, depth + 1),
                Some(b"*/") => (end, depth) = (end + 2, depth - 1),
                Some(_) => end += 1,
                None => break,
            }
            if depth == 0 {
                break;
            }
        }
        let comment = self.blank(end);
        self.comments.push(comment);
    }

    fn string(&mut self) {
        self.step(true);
        let mut end = self.at;
        while end < self.text.len() && self.text[end] != b'"' {
            end += if self.text[end] == b'\\' { 2 } else { 1 };
        }
        let string = self.blank(end);
        self.strings.push(string);
        self.step(true);
    }

    fn raw_string(&mut self) {
        let hashes = self.text[self.at + 1..]
            .iter()
            .take_while(|byte| **byte == b'#')
            .count();
        if self.peek(1 + hashes) != b'"' {
            // A raw identifier.
            return self.step(true);
        }
        (0..hashes + 2).for_each(|_| self.step(true));
        let end = self.find(&[&b"\""[..], &vec![b'#'; hashes]].concat(), self.at);
        let string = self.blank(end);
        self.strings.push(string);
        (0..hashes + 1).for_each(|_| self.step(true));
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        self.step(true);
        let width = match self.peek(0) {
            b'\\' => self.find(b"'", self.at + 2) - self.at,
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        if self.peek(width) == b'\'' {
            self.blank(self.at + width);
            self.step(true);
        }
    }
}

/// Production code and test code, each with the other blanked.
fn split_tests(code: &str) -> (String, String) {
    let bytes = code.as_bytes();
    let (mut always, mut tests) = (bytes.to_vec(), vec![b' '; bytes.len()]);
    let mut from = 0;
    while let Some(start) = ["#[cfg(test)]", "#[cfg(all(test"]
        .iter()
        .filter_map(|attr| code[from..].find(attr))
        .min()
    {
        let start = from + start;
        let end = item_end(bytes, start);
        for place in start..end {
            if bytes[place] != b'\n' {
                (always[place], tests[place]) = (b' ', bytes[place]);
            }
        }
        from = end;
    }
    for place in (0..bytes.len()).filter(|place| bytes[*place] == b'\n') {
        tests[place] = b'\n';
    }
    (
        String::from_utf8_lossy(&always).into_owned(),
        String::from_utf8_lossy(&tests).into_owned(),
    )
}

/// The end of the item whose attributes begin at `start`.
fn item_end(code: &[u8], start: usize) -> usize {
    let (mut depth, mut braces) = (0, 0);
    for (place, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' => braces += 1,
            b'}' => braces -= 1,
            _ => {}
        }
        let is_end = matches!(byte, b';' | b'}') && braces == 0;
        if is_end && depth == 0 {
            return place + 1;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::paths;

    fn names(code: &str) -> Vec<String> {
        paths(code).into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn code_has_no_comments_and_no_literals() {
        let text = "let a = \"x \\\" {\"; // tokio\n\
                    /* a /* b */ } */ let b = r#\"\"{\"#; let c = ('{', '\\'', b'\"', 'é');\n\
                    fn f<'a>(x: &'a str) {}";
        let source = Source::new("src/x.rs", text);
        assert_eq!(source.code.lines().count(), text.lines().count());
        assert!(
            !source.code.contains("tokio") && source.code.contains("fn f<'a>(x: &'a str) {}"),
            "{}",
            source.code
        );
        assert_eq!(source.code.matches('{').count(), 1, "{}", source.code);
        assert_eq!(
            source.strings,
            [(1, "x \\\" {"), (2, "\"{")].map(|(line, text)| Piece {
                line,
                text: text.into()
            })
        );
        assert_eq!(source.comments.len(), 2);
    }

    #[test]
    fn test_items_are_separated_from_production_code() {
        let text = "use a::b;\n#[cfg(test)]\nmod tests {\n    fn c() { d() }\n}\n\
                    #[cfg(test)]\nmod extra;\nfn e() {}\n";
        let source = Source::new("src/x/mod.rs", text);
        assert_eq!(names(&source.production()), ["use", "a::b", "fn", "e"]);
        assert!(names(&source.tests()).contains(&"d".to_owned()));
        assert!(source.test_modules().contains(&"src/x/extra.rs".to_owned()));
        assert!(
            Source::new("src/y.rs", "#[cfg(test)] mod t;")
                .test_modules()
                .contains(&"src/y/t.rs".to_owned())
        );
        assert!(
            Source::new("bastion/tests/gate.rs", "").is_test
                && Source::new("tests/story.rs", "").is_test
        );
        assert!(!Source::new("tests/testnet/src/lib.rs", "").is_test);
    }
}

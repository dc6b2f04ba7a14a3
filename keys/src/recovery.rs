//! Recovery keys: a next key (docs/DECISIONS.md 5, pre-rotation) on paper, away from the node that it can save.
//!
//! The words are BIP39's (Bitcoin Improvement Proposal 39, English list): 24 of them stand for 32 bytes and 8 bits of
//! checksum. Only that is used of it: the 32 bytes are the key's seed itself. Never quotes a word in an error; never writes
//! over a file. Invariant: what [`RecoveryKey::to_text`] gives, [`RecoveryKey::from_text`] reads as the same key.

use std::fmt::{self, Write as _};
use std::path::Path;

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

use crate::ids::Oid;
use crate::private_file::{self, FileError};
use crate::signing::SecretKey;

const HEADING: &str = "Postern recovery key";
const WORDS: usize = 24;
const WORDS_PER_LINE: usize = 6;
/// Room for the file as it is written, four times over: for those who type it with much white space.
const FILE_BYTES_MAX: usize = 8 * 1024;

/// Why a file or text is not a recovery key.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not begin like one.
    #[error("not a recovery file: the line `{HEADING}` is missing")]
    NotARecoveryFile,
    /// A part is missing or cannot be read.
    #[error("the recovery file's line `{0}` is missing or cannot be read")]
    Missing(&'static str),
    /// Another number of words.
    #[error("a recovery key has 24 words; here are {0}")]
    WordCount(usize),
    /// A word is not in the list: misspelt. It is not quoted.
    #[error("word {0} of the recovery key is misspelt")]
    UnknownWord(usize),
    /// Every word is in the list, but they do not belong together.
    #[error("the recovery key's words do not fit each other: one is wrong, or the order is")]
    Checksum,
}

/// The next key of an identity or node, and whose it is.
pub struct RecoveryKey {
    holder: Oid,
    key_id: u32,
    secret: SecretKey,
}

impl RecoveryKey {
    pub(crate) fn new(holder: Oid, key_id: u32, secret: SecretKey) -> Self {
        Self {
            holder,
            key_id,
            secret,
        }
    }

    /// The identity, or the node by its server oid, whose next key this is.
    pub fn holder(&self) -> Oid {
        self.holder
    }

    /// The number that the key will have once it is the current one. For people: what decides is the key itself.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    pub(crate) fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// Writes it into a new file of mode 0600; an existing file is refused.
    pub fn write_new(&self, path: &Path) -> Result<(), RecoveryError> {
        Ok(private_file::create(path, self.to_text().as_bytes())?)
    }

    /// Reads back a file that [`write_new`](Self::write_new) wrote, now or before it was killed: then the words may lie there
    /// under a second name, which goes.
    pub fn read_back(path: &Path) -> Result<Self, RecoveryError> {
        let read = Self::from_file(path)?;
        private_file::remove_second_name(path)?;
        Ok(read)
    }

    /// Reads a file; refused when others may access it.
    pub fn from_file(path: &Path) -> Result<Self, RecoveryError> {
        let bytes = private_file::read(path, FILE_BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| RecoveryError::NotARecoveryFile)?;
        Self::from_text(text)
    }

    /// The text to print or to write down. Not for logs.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for all at once: a string that grows leaves copies of a secret behind.
        let mut text = Zeroizing::new(String::with_capacity(2048));
        let (holder, key_id) = (self.holder.to_hex(), self.key_id);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{HEADING}\n\n\
             Who holds this can give the identity or node below its next key, and so take it over.\n\
             Keep it away from the node, where nobody else reads it. When the current key is stolen,\n\
             use this one: `postern keys rotate --help` says how. It can be used once; then\n\
             make another. A copy by hand needs the first line and everything from `Holder` on.\n\n\
             Holder: {holder}\nNumber: {key_id}\nWords:\n"
        );
        let words = self
            .secret
            .with_seed(|seed| Mnemonic::from_entropy_in(Language::English, seed));
        // 32 bytes are a length that BIP39 has words for.
        for (place, word) in words.iter().flat_map(Mnemonic::words).enumerate() {
            let _ = match place % WORDS_PER_LINE {
                0 => write!(text, "{}. {word}", place / WORDS_PER_LINE + 1),
                _ => write!(text, " {word}"),
            };
            if (place + 1) % WORDS_PER_LINE == 0 {
                text.push('\n');
            }
        }
        text
    }

    /// Reads a text as [`to_text`](Self::to_text) gives it, or as a person typed it: in any case, with other white space and
    /// line breaks, without the explanation, and without the numbers of the lines.
    pub fn from_text(text: &str) -> Result<Self, RecoveryError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(RecoveryError::NotARecoveryFile);
        }
        let lower = lower_case(text);
        let (mut heading, mut tokens) = (HEADING.split(' '), lower.split_whitespace());
        if !heading.all(|word| {
            tokens
                .next()
                .is_some_and(|token| token.eq_ignore_ascii_case(word))
        }) {
            return Err(RecoveryError::NotARecoveryFile);
        }
        // Labels are looked for from the end, so that the explanation may say anything.
        let (before, words) =
            split_at_label(&lower, "words").ok_or(RecoveryError::Missing("Words"))?;
        let (before, number) =
            split_at_label(before, "number").ok_or(RecoveryError::Missing("Number"))?;
        let (_, holder) =
            split_at_label(before, "holder").ok_or(RecoveryError::Missing("Holder"))?;
        let holder: String = holder.split_whitespace().collect();
        Ok(Self {
            holder: holder
                .parse()
                .map_err(|_| RecoveryError::Missing("Holder"))?,
            key_id: number
                .trim()
                .parse()
                .map_err(|_| RecoveryError::Missing("Number"))?,
            secret: secret_of(words)?,
        })
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- recovery key {} of {} ---", self.key_id, self.holder)
    }
}

fn lower_case(text: &str) -> Zeroizing<String> {
    let mut lower = Zeroizing::new(String::with_capacity(text.len()));
    lower.push_str(text);
    lower.make_ascii_lowercase();
    lower
}

/// What stands before and after the last `label` that is a word of its own, with or without a colon.
fn split_at_label<'a>(text: &'a str, label: &str) -> Option<(&'a str, &'a str)> {
    let mut places = text.rmatch_indices(label);
    places.find_map(|(place, _)| {
        let (before, rest) = text.split_at_checked(place)?;
        let after = rest.strip_prefix(label)?;
        let is_begun = before.is_empty() || before.ends_with(char::is_whitespace);
        let is_ended = after.starts_with(|next: char| next == ':' || next.is_whitespace());
        let after = after.trim_start().strip_prefix(':').unwrap_or(after);
        (is_begun && is_ended).then_some((before, after))
    })
}

/// The key of 24 words; lines may be numbered.
fn secret_of(text: &str) -> Result<SecretKey, RecoveryError> {
    let mut words = Zeroizing::new(String::with_capacity(text.len() + 1));
    let mut count = 0;
    for token in text.split_whitespace() {
        // Whatever numbers the lines or stands between words.
        let word = token.trim_matches(|sign: char| !sign.is_alphabetic());
        if !word.is_empty() {
            words.push_str(word);
            words.push(' ');
            count += 1;
        }
    }
    if count != WORDS {
        return Err(RecoveryError::WordCount(count));
    }
    let mnemonic =
        Mnemonic::parse_in_normalized(Language::English, &words).map_err(|error| match error {
            bip39::Error::UnknownWord(place) => RecoveryError::UnknownWord(place + 1),
            bip39::Error::BadWordCount(count) => RecoveryError::WordCount(count),
            _ => RecoveryError::Checksum,
        })?;
    let entropy = Zeroizing::new(mnemonic.to_entropy_array().0);
    let seed = entropy.first_chunk::<32>().ok_or(RecoveryError::Checksum)?;
    Ok(SecretKey::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn key(seed: [u8; 32]) -> RecoveryKey {
        RecoveryKey::new(Oid::from_bytes([0xab; 16]), 3, SecretKey::from_seed(&seed))
    }

    fn same(one: &RecoveryKey, other: &RecoveryKey) -> bool {
        (one.holder, one.key_id, one.secret.public())
            == (other.holder, other.key_id, other.secret.public())
    }

    /// The words alone, in one line.
    fn words(text: &str) -> String {
        let (_, words) = text.split_once("Words:").unwrap();
        let words: Vec<_> = words
            .split_whitespace()
            .filter(|word| !word.ends_with('.'))
            .collect();
        words.join(" ")
    }

    #[test]
    fn words_are_those_of_bip39_s_test_vectors() {
        // trezor/python-mnemonic, vectors.json, named by BIP39 as its test vectors: 256 bits of entropy, English.
        let last_of_four = "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel \
                            tennis maple dilemma loan word shrug inflict delay length";
        let hex = "68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c";
        let entropy = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        for (seed, expected) in [
            ([0x00; 32], format!("{}art", "abandon ".repeat(23))),
            ([0xff; 32], format!("{}vote", "zoo ".repeat(23))),
            (entropy.try_into().unwrap(), last_of_four.to_owned()),
        ] {
            assert_eq!(words(&key(seed).to_text()), expected);
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery");
        key([1; 32]).write_new(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(same(&RecoveryKey::from_file(&path).unwrap(), &key([1; 32])));
        assert!(matches!(
            key([2; 32]).write_new(&path),
            Err(RecoveryError::File(FileError::AlreadyExists(_)))
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            RecoveryKey::from_file(&path),
            Err(RecoveryError::File(FileError::LoosePermissions { .. }))
        ));
        let text = key([1; 32]).to_text();
        assert!(
            text.lines().all(|line| line.len() < 100)
                && text.capacity() == 2048
                && text.len() < 2048
        );
        assert_eq!(
            text.lines()
                .filter(|line| line.split(' ').count() == 7 && line.contains(". "))
                .count(),
            4
        );
    }

    #[test]
    fn what_a_person_typed_is_read() {
        let text = key([1; 32]).to_text();
        let (oid, words) = (key([1; 32]).holder.to_hex(), words(&text));
        let (one, other) = oid.split_at(16);
        for typed in [
            text.to_uppercase(),
            text.replace('\n', "\r\n"),
            text.replace(' ', "   "),
            text.replace('\n', " "),
            format!("postern recovery key holder {oid} number 3 words {words}"),
            format!(
                "\n POSTERN Recovery key\nHolder : {one} {other}\nNumber : 3\nWords :\n1) {words}\n\n"
            ),
            text.replace(". ", "."),
            text.replace(
                "It can be used once",
                "words: number: holder: are lines below",
            ),
        ] {
            let read =
                RecoveryKey::from_text(&typed).unwrap_or_else(|error| panic!("{typed}: {error}"));
            assert!(same(&read, &key([1; 32])), "{typed}");
        }
    }

    #[test]
    fn each_slip_is_told_and_no_word_is_quoted() {
        let text = key([1; 32]).to_text();
        let words = words(&text);
        let all: Vec<_> = words.split(' ').collect();
        let with = |words: &str| {
            format!(
                "Postern recovery key\nHolder: {}\nNumber: 3\nWords: {words}",
                "ab".repeat(16)
            )
        };
        let error = |text: &str| RecoveryKey::from_text(text).unwrap_err();
        assert!(RecoveryKey::from_text(&with(&words)).is_ok());
        assert!(matches!(
            error("postern_0123"),
            RecoveryError::NotARecoveryFile
        ));
        assert!(matches!(error(""), RecoveryError::NotARecoveryFile));
        assert!(matches!(
            error(&"x".repeat(9000)),
            RecoveryError::NotARecoveryFile
        ));
        assert!(matches!(
            error(&with(&all[1..].join(" "))),
            RecoveryError::WordCount(23)
        ));
        assert!(matches!(error(&with("")), RecoveryError::WordCount(0)));
        for part in ["Holder", "Number", "Words"] {
            let without = with(&words).replace(part, "Thing");
            assert!(matches!(error(&without), RecoveryError::Missing(it) if it == part));
        }
        assert!(matches!(
            error(&with(&words).replace(": 3", ": -3")),
            RecoveryError::Missing("Number")
        ));
        assert!(matches!(
            error(&with(&words).replacen("abab", "abax", 1)),
            RecoveryError::Missing("Holder")
        ));
        for place in 0..WORDS {
            let mut misspelt = all.clone();
            misspelt[place] = "postren";
            let error = error(&with(&misspelt.join(" ")));
            assert!(matches!(error, RecoveryError::UnknownWord(it) if it == place + 1));
            assert!(!error.to_string().contains("postren"));
        }
        let mut other = all.clone();
        other[0] = if all[0] == "zoo" { "zone" } else { "zoo" };
        assert!(matches!(
            error(&with(&other.join(" "))),
            RecoveryError::Checksum
        ));
    }

    #[test]
    fn debug_shows_whose_it_is_and_nothing_of_the_key() {
        let debug = format!("{:?}", key([1; 32]));
        assert_eq!(
            debug,
            format!("--- recovery key 3 of {} ---", "ab".repeat(16))
        );
    }
}

//! Recovery keys: a next key (docs/DECISIONS.md 5, pre-rotation) in words, stored away from its
//! node.
//!
//! The words are those of BIP39 (Bitcoin Improvement Proposal 39, English list): 24 words encode 32
//! bytes and 8 bits of checksum. The 32 bytes are the key's seed; no other part of BIP39 is used.
//! Errors do not quote a word, and an existing file is not overwritten. Invariant:
//! [`RecoveryKey::from_text`] reads the text of [`RecoveryKey::to_text`] as the same key. Tested
//! below and by the fuzz target `recovery`.

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
/// Longest file, in bytes: four times the written file, for typed copies with much white space.
const FILE_BYTES_MAX: usize = 8 * 1024;

/// Why a file or text is not a recovery key.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text does not start with the heading.
    #[error("not a recovery file: the line `{HEADING}` is missing")]
    NotARecoveryFile,
    /// The labelled part is missing or cannot be read.
    #[error("the recovery file's line `{0}` is missing or cannot be read")]
    Missing(&'static str),
    /// The number of words is not 24.
    #[error("a recovery key has 24 words; this one has {0}")]
    WordCount(usize),
    /// The word with this number, from 1, is not in the list. The error does not quote it.
    #[error("word {0} of the recovery key is misspelt")]
    UnknownWord(usize),
    /// Every word is in the list, but the checksum does not match.
    #[error("the recovery key's checksum does not match: a word or the order is wrong")]
    Checksum,
}

/// The next key of an identity or node, with its holder's oid. `Debug` does not print the key.
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

    /// Returns the identity, or the node's server oid, whose next key this is.
    pub fn holder(&self) -> Oid {
        self.holder
    }

    /// Returns the number that the key will have as the current key.
    ///
    /// Information for the operator. The key itself is compared with the chain's commitment.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    pub(crate) fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// Writes the text into a new file of mode 0600.
    ///
    /// # Errors
    /// [`FileError::AlreadyExists`] for an existing file; every error of writing.
    pub fn write_new(&self, path: &Path) -> Result<(), RecoveryError> {
        Ok(private_file::create(path, self.to_text().as_bytes())?)
    }

    /// Reads back a file that [`write_new`](Self::write_new) wrote.
    ///
    /// If that write was killed, the words may also exist under a second name, which is removed.
    ///
    /// # Errors
    /// Those of [`from_file`](Self::from_file).
    pub fn read_back(path: &Path) -> Result<Self, RecoveryError> {
        let read = Self::from_file(path)?;
        private_file::remove_second_name(path)?;
        Ok(read)
    }

    /// Reads a file that only its owner may access.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn from_file(path: &Path) -> Result<Self, RecoveryError> {
        let bytes = private_file::read(path, FILE_BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| RecoveryError::NotARecoveryFile)?;
        Self::from_text(text)
    }

    /// Returns the text to print or to write down. Not for logs.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Full capacity from the start, because a string that grows leaves copies of the secret in
        // memory.
        let mut text = Zeroizing::new(String::with_capacity(2048));
        let (holder, key_id) = (self.holder.to_hex(), self.key_id);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{HEADING}\n\n\
             Anyone with this key can rotate the identity or node below, and so take it over.\n\
             Store it away from the node, where no other person can read it. If the current\n\
             key is stolen, rotate to this key: see `postern keys rotate --help`. A key can be\n\
             used once; then export another. A handwritten copy needs the first line and\n\
             all lines from `Holder` on.\n\n\
             Holder: {holder}\nNumber: {key_id}\nWords:\n"
        );
        let words = self
            .secret
            .with_seed(|seed| Mnemonic::from_entropy_in(Language::English, seed));
        // `words` is never an error, because BIP39 has words for 32 bytes.
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

    /// Reads a text of [`to_text`](Self::to_text), or a typed copy of it.
    ///
    /// A copy may differ in case, white space and line breaks, and may omit the explanation and the
    /// line numbers.
    ///
    /// # Errors
    /// [`RecoveryError`], but not [`RecoveryError::File`].
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
        // Labels are searched from the end, so that the explanation may contain any text.
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
        write!(
            f,
            "--- recovery key {} of {} ---",
            self.key_id,
            self.holder.short()
        )
    }
}

fn lower_case(text: &str) -> Zeroizing<String> {
    let mut lower = Zeroizing::new(String::with_capacity(text.len()));
    lower.push_str(text);
    lower.make_ascii_lowercase();
    lower
}

/// Returns the text before and after the last `label` that is a separate word, with or without a
/// colon.
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

/// Returns the key of 24 words. Lines may be numbered.
fn secret_of(text: &str) -> Result<SecretKey, RecoveryError> {
    let mut words = Zeroizing::new(String::with_capacity(text.len() + 1));
    let mut count = 0;
    for token in text.split_whitespace() {
        // Removes line numbers and punctuation.
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

    /// Returns only the words, on one line.
    fn words(text: &str) -> String {
        let (_, words) = text.split_once("Words:").unwrap();
        let words: Vec<_> = words
            .split_whitespace()
            .filter(|word| !word.ends_with('.'))
            .collect();
        words.join(" ")
    }

    #[test]
    fn words_match_the_test_vectors_of_bip39() {
        // trezor/python-mnemonic, vectors.json, which BIP39 names as its test vectors: 256 bits,
        // English.
        let last_of_four = "hamster diagram private dutch cause delay private meat slide toddler \
                            razor book happy fancy gospel tennis maple dilemma loan word shrug \
                            inflict delay length";
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
    fn file_round_trips_and_is_not_overwritten() {
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
    fn from_text_reads_typed_copies() {
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
                "\n POSTERN Recovery key\nHolder : {one} {other}\nNumber : 3\nWords :\n\
                 1) {words}\n\n"
            ),
            text.replace(". ", "."),
            text.replace("used once", "words: number: holder: are lines below"),
        ] {
            let read =
                RecoveryKey::from_text(&typed).unwrap_or_else(|error| panic!("{typed}: {error}"));
            assert!(same(&read, &key([1; 32])), "{typed}");
        }
    }

    #[test]
    fn from_text_reports_each_mistake_without_quoting_words() {
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
    fn debug_output_shows_the_holder_and_redacts_the_key() {
        let debug = format!("{:?}", key([1; 32]));
        assert_eq!(debug, "--- recovery key 3 of …abababab ---");
    }
}

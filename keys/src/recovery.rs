//! Recovery keys: a next key (DESIGN 5, pre-rotation) on paper, away from the node that it can save.
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
        Self { holder, key_id, secret }
    }

    /// The identity, or the node by its server oid, whose next key this is.
    pub fn holder(&self) -> Oid {
        self.holder
    }

    /// The number that the key will have once it is the current one.
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
             use this one: `postern key rotate --help` says how. It can be used once; then\n\
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
        if !heading.all(|word| tokens.next().is_some_and(|token| token.eq_ignore_ascii_case(word))) {
            return Err(RecoveryError::NotARecoveryFile);
        }
        // Labels are looked for from the end, so that the explanation may say anything.
        let (before, words) = split_at_label(&lower, "words").ok_or(RecoveryError::Missing("Words"))?;
        let (before, number) = split_at_label(before, "number").ok_or(RecoveryError::Missing("Number"))?;
        let (_, holder) = split_at_label(before, "holder").ok_or(RecoveryError::Missing("Holder"))?;
        let holder: String = holder.split_whitespace().collect();
        Ok(Self {
            holder: holder.parse().map_err(|_| RecoveryError::Missing("Holder"))?,
            key_id: number.trim().parse().map_err(|_| RecoveryError::Missing("Number"))?,
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
    let is_word = |token: &&str| {
        !token
            .trim_end_matches(['.', ')', ':'])
            .bytes()
            .all(|byte| byte.is_ascii_digit())
    };
    let mut words = Zeroizing::new(String::with_capacity(text.len()));
    let mut count = 0;
    for word in text.split_whitespace().filter(is_word) {
        words.push_str(word);
        words.push(' ');
        count += 1;
    }
    if count != WORDS {
        return Err(RecoveryError::WordCount(count));
    }
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|error| match error {
        bip39::Error::UnknownWord(place) => RecoveryError::UnknownWord(place + 1),
        bip39::Error::BadWordCount(count) => RecoveryError::WordCount(count),
        _ => RecoveryError::Checksum,
    })?;
    let entropy = Zeroizing::new(mnemonic.to_entropy_array().0);
    let seed = entropy.first_chunk::<32>().ok_or(RecoveryError::Checksum)?;
    Ok(SecretKey::from_seed(seed))
}

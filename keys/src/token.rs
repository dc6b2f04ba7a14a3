//! Bearer tokens of the local API: 32 random bytes, shown as `postern_` and 64 hexadecimal digits.
//!
//! The node keeps hashes only, so its database opens no door. A plain digest is enough: a token cannot be guessed, so
//! there is nothing to slow down. Never printed by accident. Invariant: equality is decided in constant time.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::ids::Digest;
use crate::private_file::{self, FileError};

const PREFIX: &str = "postern_";
const TEXT_BYTES: usize = PREFIX.len() + 64;

/// A token.
pub struct ApiToken(Zeroizing<[u8; 32]>);

/// A text that is not a token. It is not quoted: it may be one with a slip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API token: it must be `postern_` and 64 lower-case hexadecimal digits")]
pub struct NotAToken;

/// Why a token file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error(transparent)]
    NotAToken(#[from] NotAToken),
}

impl ApiToken {
    /// A new token.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// What is stored of it: SHA-256 of its 32 bytes.
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_ref())
    }

    /// Whether this is the token that was stored as `hash`. Takes the same time whatever the answer.
    pub fn matches(&self, hash: &Digest) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }

    /// The text that a client sends. Not for logs.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str(PREFIX);
        HEXLOWER.encode_append(self.0.as_ref(), &mut text);
        text
    }

    /// Writes the token and a newline into a new file of mode 0600; an existing file is refused.
    pub fn write_new(&self, path: &Path) -> Result<(), FileError> {
        let mut line = Zeroizing::new(Vec::with_capacity(TEXT_BYTES + 1));
        line.extend_from_slice(self.to_text().as_bytes());
        line.push(b'\n');
        private_file::create(path, &line)
    }

    /// Reads a token file; refused when others may access it.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let bytes = private_file::read(path, TEXT_BYTES + 1)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| NotAToken)?;
        Ok(text.strip_suffix('\n').unwrap_or(text).parse()?)
    }
}

impl FromStr for ApiToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let digits = text.strip_prefix(PREFIX).ok_or(NotAToken)?;
        if digits.len() != 64 {
            return Err(NotAToken);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        HEXLOWER
            .decode_mut(digits.as_bytes(), bytes.as_mut())
            .map_err(|_| NotAToken)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- API token ---")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn token(seed: u64) -> ApiToken {
        ApiToken::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn a_token_goes_through_its_file_and_matches_its_hash_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        token(1).write_new(&path).unwrap();
        let read = ApiToken::read(&path).unwrap();
        assert!(read.matches(&token(1).hash()));
        assert!(!read.matches(&token(2).hash()));
        assert!(matches!(
            token(2).write_new(&path),
            Err(FileError::AlreadyExists(_))
        ));
    }

    #[test]
    fn other_texts_are_not_tokens_and_are_not_quoted() {
        let text = token(1).to_text();
        let error = text.to_uppercase().parse::<ApiToken>().unwrap_err();
        assert!(!error.to_string().contains(&text[8..16]));
        for bad in [
            "",
            "postern_",
            &text[..71],
            &format!("{}0", *text),
            &text[8..],
            &text.replace('_', "-"),
        ] {
            assert!(bad.parse::<ApiToken>().is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", token(1)), "--- API token ---");
    }
}

//! Bearer tokens of the local API: 32 random bytes, in text `postern_` and 64 hexadecimal digits.
//!
//! The node stores only hashes, so its database gives no access to the API. A plain digest is
//! enough, because 32 random bytes cannot be guessed. Invariants: tokens are compared in constant
//! time, and `Debug` does not print them. Tested below.

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

/// A bearer token of the local API. `Debug` prints fixed text.
pub struct ApiToken(Zeroizing<[u8; 32]>);

/// The text is not a token. The error does not quote it, because it may be a mistyped token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API token: it must be `postern_` and 64 lower-case hexadecimal digits")]
pub struct NotAToken;

/// Why no token was read from a token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not contain a token.
    #[error(transparent)]
    NotAToken(#[from] NotAToken),
}

impl ApiToken {
    /// Generates a token.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// Returns the stored form: SHA-256 of the 32 bytes.
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_ref())
    }

    /// Returns whether `hash` is this token's stored form, in constant time.
    pub fn matches(&self, hash: &Digest) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }

    /// Returns the text that an API client sends. Not for logs.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str(PREFIX);
        HEXLOWER.encode_append(self.0.as_ref(), &mut text);
        text
    }

    /// Writes the token and a newline into a new file of mode 0600.
    ///
    /// # Errors
    /// [`FileError::AlreadyExists`] for an existing file; every error of writing.
    pub fn write_new(&self, path: &Path) -> Result<(), FileError> {
        let mut line = Zeroizing::new(Vec::with_capacity(TEXT_BYTES + 1));
        line.extend_from_slice(self.to_text().as_bytes());
        line.push(b'\n');
        private_file::create(path, &line)
    }

    /// Reads a token file that only its owner may access.
    ///
    /// # Errors
    /// [`TokenFileError`].
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
    fn token_file_round_trips_and_matches_only_its_hash() {
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
    fn parse_refuses_other_texts_without_quoting_them() {
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

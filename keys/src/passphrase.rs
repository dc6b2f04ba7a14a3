//! The passphrase that opens the vault.
//!
//! Sources: the text of a prompt, a private file, or a systemd credential. Environment variables
//! and arguments are not sources, because other processes can read them. Invariant: the bytes are
//! never printed, and they are zeroised when dropped. Tested below.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::private_file::{self, FileError};

/// Longest passphrase file, in bytes: fits any sentence, and 64 random bytes in any encoding.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// A passphrase. `Debug` prints fixed text.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Wraps the text of a prompt.
    pub fn from_string(text: String) -> Self {
        Self(Zeroizing::new(text.into_bytes()))
    }

    /// Reads a file of at most 1,024 bytes that only its owner may access.
    ///
    /// One newline at the end is removed.
    ///
    /// # Errors
    /// [`FileError`], for example [`FileError::LoosePermissions`].
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        private_file::read(path, PASSPHRASE_BYTES_MAX).map(Self::without_newline)
    }

    /// Reads a systemd credential (systemd.exec(5), `LoadCredential=`) under the rules of
    /// [`from_file`](Self::from_file), except that the group may have read permission.
    ///
    /// systemd grants the service's user access by an access control list. Such a list shows as
    /// mode 0440, in a folder of that user alone. So `path` must lie in
    /// `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// [`FileError`], as for [`from_file`](Self::from_file).
    pub fn from_credential(path: &Path) -> Result<Self, FileError> {
        private_file::read_credential(path, PASSPHRASE_BYTES_MAX).map(Self::without_newline)
    }

    fn without_newline(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Self(bytes)
    }

    /// Returns whether the passphrase has no byte. An empty passphrase cannot open or create a
    /// vault.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes, for key derivation only.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- passphrase ---")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn from_file_removes_one_newline_and_refuses_loose_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for (content, expected) in [
            ("word", "word"),
            ("word\n", "word"),
            ("word \n\n", "word \n"),
            ("\n", ""),
        ] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
            assert_eq!(
                Passphrase::from_file(&path).unwrap().0.as_slice(),
                expected.as_bytes()
            );
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        assert!(matches!(
            Passphrase::from_file(&path),
            Err(FileError::LoosePermissions { mode: 0o640, .. })
        ));
    }

    #[test]
    fn from_credential_allows_group_read_and_no_other_permission() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        fs::write(&path, "word\n").unwrap();
        for (mode, is_taken) in [(0o400, true), (0o440, true), (0o600, true), (0o640, true)]
            .into_iter()
            .chain(
                (0..6)
                    .filter(|bit| *bit != 5)
                    .map(|bit| (0o440 | (1 << bit), false)),
            )
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Passphrase::from_credential(&path) {
                Ok(word) => assert!(is_taken && word.0.as_slice() == b"word", "{mode:o}"),
                Err(error) => assert!(
                    !is_taken && matches!(error, FileError::LoosePermissions { .. }),
                    "{mode:o}: {error}"
                ),
            }
        }
    }

    #[test]
    fn debug_output_redacts_the_passphrase() {
        let word = Passphrase::from_string("word".into());
        assert_eq!(format!("{word:?}"), "--- passphrase ---");
    }
}

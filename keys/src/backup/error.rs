//! Errors of sealed streams.

use std::io;

use crate::file_header::HeaderFault;
use crate::kdf::KdfError;

/// Why a sealed stream was not opened, read or written.
///
/// A reader or writer returns it inside an [`io::Error`]; `downcast` recovers it.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Another kind of file.
    #[error("this file is not a backup")]
    NotABackup,
    /// Another kind of file.
    #[error("this file does not move an identity")]
    NotAMove,
    /// The key that was given is not 64 hexadecimal digits.
    #[error("the key of the file is not 64 hexadecimal digits")]
    NoKey,
    /// Written by another version of this program.
    #[error(
        "the file has version {0}, made by a later version of this program; \
         this version supports version 1"
    )]
    UnknownVersion(u16),
    /// The passphrase is not the one that the vault had when the backup was made.
    ///
    /// A deliberate change of the file's salt, cost or key check gives the same error.
    #[error("wrong passphrase: use the passphrase of the time when the file was made")]
    WrongPassphrase,
    /// Another vault made the backup, or its passphrase was changed since: the key in memory does
    /// not open it.
    #[error("the file was made by another vault or under another passphrase")]
    OtherVault,
    /// The file ends too early: an interrupted copy, or a full disk.
    ///
    /// An end inside a chunk is [`Tampered`](Self::Tampered), because the chunk's tag is lost.
    #[error("the file is truncated")]
    Truncated,
    /// The cipher rejects a chunk: changed, damaged or truncated.
    #[error("the file was changed or damaged")]
    Tampered,
    /// The stream failed before, or it exceeds 256 TiB.
    #[error("the sealed stream is unusable after an error, or longer than 256 TiB")]
    Unusable,
    /// The key manager is in memory only, so it has no vault key.
    #[error("these keys are in memory only and have no vault")]
    InMemory,
    /// No key was derived from the passphrase.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Io(#[from] io::Error),
}

impl From<HeaderFault> for SealError {
    fn from(fault: HeaderFault) -> Self {
        match fault {
            HeaderFault::OtherKind => Self::NotABackup,
            HeaderFault::UnknownVersion(version) => Self::UnknownVersion(version),
            HeaderFault::Truncated => Self::Truncated,
        }
    }
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Io(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

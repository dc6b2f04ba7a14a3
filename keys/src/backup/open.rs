//! Reading a backup: the header first, then one chunk after the other.
//!
//! Invariant: at most one chunk is in memory, and no byte of a chunk is returned before the whole
//! chunk is authenticated. A truncated stream gives an error instead of its end. After an error
//! every further read gives an error.

use std::fmt;
use std::io::{self, Read};

use zeroize::{Zeroize as _, Zeroizing};

use super::chunks::{BackupHeader, CHUNK_BYTES, Chunks, HEADER_BYTES, StreamKind, TAG_BYTES};
use super::error::SealError;
use crate::file_header::KeyParams;
use crate::locked::Locked;
use crate::passphrase::Passphrase;

/// Opens backups with a passphrase alone, without a vault.
#[derive(Debug)]
pub struct BackupOpener;

impl BackupOpener {
    /// Reads and checks the header.
    ///
    /// Takes the time and memory of the cost that the vault had when the backup was made. Makes few
    /// and large reads, so a file needs no buffer of its own.
    ///
    /// # Errors
    /// [`SealError::NotABackup`], [`SealError::UnknownVersion`], [`SealError::Truncated`] inside
    /// the header, [`SealError::WrongPassphrase`], [`SealError::Kdf`], [`SealError::Io`].
    pub fn open<R: Read>(
        mut backup: R,
        passphrase: &Passphrase,
    ) -> Result<OpeningReader<R>, SealError> {
        let (header, key) = derive_file_key(&mut backup, StreamKind::Backup, passphrase)?;
        Ok(OpeningReader::new(backup, &header, &key))
    }
}

/// Derives the key of a file from its header and the passphrase.
pub(crate) fn file_key_of(
    mut file: impl Read,
    kind: StreamKind,
    passphrase: &Passphrase,
) -> Result<Locked<32>, SealError> {
    derive_file_key(&mut file, kind, passphrase).map(|(_, key)| key)
}

fn derive_file_key(
    file: &mut impl Read,
    kind: StreamKind,
    passphrase: &Passphrase,
) -> Result<(BackupHeader, Locked<32>), SealError> {
    let header = read_header(file, kind)?;
    let key = header.params.derive_again(passphrase)?;
    if !header.params.is_of(&key) {
        return Err(SealError::WrongPassphrase);
    }
    let key = header.file_key(&key);
    Ok((header, key))
}

fn read_header(file: &mut impl Read, kind: StreamKind) -> Result<BackupHeader, SealError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    BackupHeader::parse(&bytes, kind)
}

/// The position of a reader in its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Before a chunk.
    Chunks,
    /// After the chunk that was sealed as the last.
    End,
    /// After a chunk that could not be opened.
    Failed,
}

/// Returns the bytes that were sealed, each only after its chunk was authenticated.
///
/// The end of the reader is the end of the whole backup: a truncated backup gives an error there.
/// The bytes before an error were sealed by the vault, in this order, but are incomplete. A caller
/// that needs all of them must read to the end before it uses any.
pub struct OpeningReader<R> {
    backup: R,
    chunks: Chunks,
    /// The opened chunk.
    chunk: Zeroizing<Vec<u8>>,
    /// Number of bytes of `chunk` that were returned.
    returned: usize,
    /// The first byte of the following chunk, read ahead to learn whether there is one.
    ahead: Option<u8>,
    position: Position,
}

impl<R: Read> OpeningReader<R> {
    fn new(backup: R, header: &BackupHeader, file_key: &[u8; 32]) -> Self {
        Self {
            backup,
            chunks: Chunks::new(header, file_key),
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES)),
            returned: 0,
            ahead: None,
            position: Position::Chunks,
        }
    }

    /// Opens with a vault's key that is in memory, if cost and salt are that vault's.
    pub(crate) fn with_key(
        mut backup: R,
        kind: StreamKind,
        params: &KeyParams,
        key: &[u8; 32],
    ) -> Result<Self, SealError> {
        let header = read_header(&mut backup, kind)?;
        if (header.params.cost, header.params.salt) != (params.cost, params.salt) {
            return Err(SealError::OtherVault);
        }
        if !header.params.is_of(key) {
            return Err(SealError::Tampered);
        }
        Ok(Self::new(backup, &header, &header.file_key(key)))
    }

    /// Opens with the key of this file.
    pub(crate) fn with_file_key(
        mut file: R,
        kind: StreamKind,
        file_key: &[u8; 32],
    ) -> Result<Self, SealError> {
        let header = read_header(&mut file, kind)?;
        Ok(Self::new(file, &header, file_key))
    }

    /// Bytes that are reserved in memory.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.chunk.capacity()
    }

    /// Reads and opens the next chunk.
    fn next_chunk(&mut self) -> Result<(), SealError> {
        self.chunk.zeroize();
        self.returned = 0;
        self.chunk.extend(self.ahead.take());
        let missing = CHUNK_BYTES + TAG_BYTES - self.chunk.len();
        self.backup
            .by_ref()
            .take(missing as u64)
            .read_to_end(&mut self.chunk)?;
        let mut ahead = Vec::with_capacity(1);
        if self.chunk.len() == CHUNK_BYTES + TAG_BYTES {
            self.backup.by_ref().take(1).read_to_end(&mut ahead)?;
        }
        self.ahead = ahead.first().copied();
        if self.chunk.len() < TAG_BYTES {
            return Err(SealError::Truncated);
        }
        if self.ahead.is_some() {
            return self.chunks.open(&mut self.chunk, false);
        }
        match self.chunks.open(&mut self.chunk, true) {
            Ok(()) => self.position = Position::End,
            // Sealed as a chunk that others follow, so the rest of the file is missing.
            Err(_) if self.chunks.open(&mut self.chunk, false).is_ok() => {
                return Err(SealError::Truncated);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<R: Read> Read for OpeningReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.returned == self.chunk.len() {
            match self.position {
                Position::End => return Ok(0),
                Position::Failed => return Err(SealError::Unusable.into()),
                Position::Chunks => {
                    if let Err(error) = self.next_chunk() {
                        self.position = Position::Failed;
                        self.chunk.zeroize();
                        self.returned = 0;
                        return Err(error.into());
                    }
                }
            }
        }
        let ready = self.chunk.get(self.returned..).unwrap_or_default();
        let count = ready.len().min(into.len());
        for (place, byte) in into.iter_mut().zip(ready) {
            *place = *byte;
        }
        self.returned += count;
        Ok(count)
    }
}

impl<R> fmt::Debug for OpeningReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- opening reader ---")
    }
}

//! Reading a backup: checks first, then one chunk after the other.
//!
//! Never gives a byte of a chunk before the whole chunk was authenticated; never tells the end of a stream that was cut
//! short; after an error every further read gives an error. Invariant: at most one chunk is in memory.

use std::fmt;
use std::io::{self, Read};

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{BackupError, CHUNK_BYTES, Chunks, HEADER_BYTES, Header, MAGIC, TAG_BYTES, VERSION};
use crate::passphrase::{KdfCost, Passphrase};
use crate::vault::{KEY_CHECK_BYTES, key_check};

/// Opens backups with a passphrase alone, where there is no vault.
#[derive(Debug)]
pub struct BackupOpener;

impl BackupOpener {
    /// Reads and checks the header; takes the time and memory of the cost that the vault had then. Small reads are made:
    /// a file needs no buffer of its own.
    ///
    /// # Errors
    /// [`BackupError::NotABackup`], [`BackupError::UnknownVersion`], [`BackupError::Truncated`] inside the header,
    /// [`BackupError::WrongPassphrase`], [`BackupError::Key`], [`BackupError::Io`].
    pub fn open<R: Read>(
        mut backup: R,
        passphrase: &Passphrase,
    ) -> Result<OpeningReader<R>, BackupError> {
        let header = read_header(&mut backup)?;
        let key = header.cost.derive(passphrase, &header.salt)?;
        if !is_key_of(&header, &key) {
            return Err(BackupError::WrongPassphrase);
        }
        Ok(OpeningReader::new(backup, &header, &key))
    }
}

fn is_key_of(header: &Header, key: &[u8; 32]) -> bool {
    key_check(key).ct_eq(&header.check).into()
}

fn read_header(backup: &mut impl Read) -> Result<Header, BackupError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    backup.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    if !MAGIC.starts_with(bytes.get(..MAGIC.len()).unwrap_or(&bytes)) {
        return Err(BackupError::NotABackup);
    }
    let mut rest = bytes.get(MAGIC.len()..).ok_or(BackupError::Truncated)?;
    let version = u16::from_be_bytes(take(&mut rest)?);
    if version != VERSION {
        return Err(BackupError::UnknownVersion(version));
    }
    Ok(Header {
        cost: KdfCost {
            memory_kib: u32::from_be_bytes(take(&mut rest)?),
            passes: u32::from_be_bytes(take(&mut rest)?),
            lanes: u32::from_be_bytes(take(&mut rest)?),
        },
        salt: take(&mut rest)?,
        check: take::<KEY_CHECK_BYTES>(&mut rest)?,
        file_nonce: take(&mut rest)?,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BackupError> {
    let (taken, after) = rest.split_first_chunk().ok_or(BackupError::Truncated)?;
    *rest = after;
    Ok(*taken)
}

/// Where a reader is in its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between its chunks.
    Within,
    /// Behind the chunk that was sealed as the last.
    End,
    /// Behind what could not be opened.
    Failed,
}

/// Gives the bytes that were sealed, each only once its chunk was authenticated. Its end is the end of the whole backup:
/// a backup that was cut short gives an error there. What was read before an error was sealed by the vault, in this order,
/// but is not all; a caller that needs all must read to the end before it uses any.
pub struct OpeningReader<R> {
    backup: R,
    chunks: Chunks,
    /// The chunk that is being given out.
    chunk: Zeroizing<Vec<u8>>,
    /// How much of it was given out.
    given: usize,
    /// The first byte of the chunk after it, read to know whether there is one.
    ahead: Option<u8>,
    at: At,
}

impl<R: Read> OpeningReader<R> {
    fn new(backup: R, header: &Header, key: &[u8; 32]) -> Self {
        Self {
            backup,
            chunks: Chunks::new(header, key),
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES)),
            given: 0,
            ahead: None,
            at: At::Within,
        }
    }

    /// Opens with a vault's key that is in memory, if cost and salt are that vault's.
    pub(crate) fn with_key(
        mut backup: R,
        cost: KdfCost,
        salt: &[u8; 16],
        key: &[u8; 32],
    ) -> Result<Self, BackupError> {
        let header = read_header(&mut backup)?;
        if (header.cost, header.salt) != (cost, *salt) {
            return Err(BackupError::OtherVault);
        }
        if !is_key_of(&header, key) {
            return Err(BackupError::Tampered);
        }
        Ok(Self::new(backup, &header, key))
    }

    /// Bytes that are held in memory.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.chunk.capacity()
    }

    /// Reads and opens the next chunk.
    fn next_chunk(&mut self) -> Result<(), BackupError> {
        self.chunk.zeroize();
        self.given = 0;
        self.chunk.extend(self.ahead.take());
        let room = CHUNK_BYTES + TAG_BYTES - self.chunk.len();
        self.backup
            .by_ref()
            .take(room as u64)
            .read_to_end(&mut self.chunk)?;
        let mut ahead = Vec::with_capacity(1);
        if self.chunk.len() == CHUNK_BYTES + TAG_BYTES {
            self.backup.by_ref().take(1).read_to_end(&mut ahead)?;
        }
        self.ahead = ahead.first().copied();
        if self.chunk.len() < TAG_BYTES {
            return Err(BackupError::Truncated);
        }
        if self.ahead.is_some() {
            return self.chunks.open(&mut self.chunk, false);
        }
        match self.chunks.open(&mut self.chunk, true) {
            Ok(()) => self.at = At::End,
            // Sealed as one that others follow: they were cut off.
            Err(_) if self.chunks.open(&mut self.chunk, false).is_ok() => {
                return Err(BackupError::Truncated);
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
        while self.given == self.chunk.len() {
            match self.at {
                At::End => return Ok(0),
                At::Failed => return Err(BackupError::CannotGoOn.into()),
                At::Within => {
                    if let Err(error) = self.next_chunk() {
                        self.at = At::Failed;
                        self.chunk.zeroize();
                        self.given = 0;
                        return Err(error.into());
                    }
                }
            }
        }
        let ready = self.chunk.get(self.given..).unwrap_or_default();
        let count = ready.len().min(into.len());
        for (place, byte) in into.iter_mut().zip(ready) {
            *place = *byte;
        }
        self.given += count;
        Ok(count)
    }
}

impl<R> fmt::Debug for OpeningReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- opening reader ---")
    }
}

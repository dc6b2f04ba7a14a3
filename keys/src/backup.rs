//! Sealed backups: a stream of any size that passes through one chunk of memory.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 15 | magic, `postern-backup` and a newline |
//! | 15 | 2 | version, 1 |
//! | 17 | 12 | Argon2id: memory in KiB, passes, lanes, as in the vault |
//! | 29 | 16 | salt, as in the vault |
//! | 45 | 16 | key check, as in the vault |
//! | 61 | 32 | file nonce, random |
//! | 93 | n | chunks of 65,536 bytes, each with a tag of 16; the last has 0 to 65,536 bytes (0 only where it is the first) |
//!
//! All numbers are big-endian. The chunks are STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015, "Online
//! Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance") over XChaCha20-Poly1305: its nonce is 19 bytes, a
//! counter of 4 and a byte that marks the last chunk, so none can be exchanged, left out or cut off. Associated data of each
//! is the header. The key is SHA-256 over context, the vault's key and the file nonce: each file has its own, so the 19
//! bytes may be the file nonce's first.
//!
//! Never hands out a byte that the cipher did not authenticate. Invariant: a reader tells the end only after the chunk that
//! was sealed as the last.

mod opening;

use std::fmt;
use std::io::{self, Write};

use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
use chacha20poly1305::XChaCha20Poly1305;
use rand::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use crate::ids::Digest;
use crate::passphrase::KdfCost;
use crate::signing::{Context, signing_input};
use crate::vault::{KEY_CHECK_BYTES, VaultError, key_check};

pub use opening::{BackupOpener, OpeningReader};

/// How every backup begins.
pub const MAGIC: &[u8; 15] = b"postern-backup\n";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 15 + 2 + 12 + 16 + KEY_CHECK_BYTES + 32;
/// Bytes of a chunk before it is sealed.
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;

/// Why a backup was not opened or read on. A reader gives it inside an [`io::Error`], whose `downcast` finds it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another kind of file.
    #[error("this file is not a backup")]
    NotABackup,
    /// Made by another version of this program.
    #[error(
        "the backup has version {0}, which a later version of this program made; this one knows version 1"
    )]
    UnknownVersion(u16),
    /// The passphrase is not the one that the vault had when the backup was made. A deliberate change of the file's salt,
    /// cost or key check looks the same.
    #[error("wrong passphrase: it must be the one of the time when the backup was made")]
    WrongPassphrase,
    /// Made by another vault, or before the passphrase was changed: the key in memory does not open it.
    #[error("the backup was made by another vault or under another passphrase")]
    OtherVault,
    /// It ends too early: an interrupted copy, a full disk. An end inside a chunk is [`Tampered`](Self::Tampered): the
    /// chunk's tag is lost, so nobody can tell.
    #[error("the backup is cut short")]
    Truncated,
    /// The cipher refuses: changed, damaged, or cut short.
    #[error("the backup was changed or damaged")]
    Tampered,
    /// After an error, or beyond 256 TiB.
    #[error("the backup cannot be read or written on")]
    CannotGoOn,
    /// The key cannot be derived: empty passphrase, cost out of bounds, too little memory, a manager in memory.
    #[error(transparent)]
    Key(#[from] VaultError),
    /// The file cannot be read.
    #[error("cannot read the backup")]
    Io(#[from] io::Error),
}

impl From<BackupError> for io::Error {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Io(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// The readable part.
#[derive(Clone)]
struct Header {
    cost: KdfCost,
    salt: [u8; 16],
    check: [u8; KEY_CHECK_BYTES],
    file_nonce: [u8; 32],
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.check);
        out.extend_from_slice(&self.file_nonce);
        out
    }
}

/// The cipher at one place of a file.
struct Chunks {
    stream: StreamBE32<XChaCha20Poly1305>,
    header: Vec<u8>,
    place: u32,
}

impl Chunks {
    /// `key` is the vault's.
    fn new(header: &Header, key: &[u8; 32]) -> Self {
        let input = Zeroizing::new(signing_input(
            Context::BackupKey,
            &[key, &header.file_nonce],
        ));
        let file_key = Zeroizing::new(*Digest::of(&input).as_bytes());
        let mut nonce = [0; 19];
        for (place, byte) in nonce.iter_mut().zip(header.file_nonce) {
            *place = byte;
        }
        Self {
            stream: StreamBE32::new((&*file_key).into(), (&nonce).into()),
            header: header.encode(),
            place: 0,
        }
    }

    /// Seals a chunk where it lies and appends its tag.
    fn seal(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> Result<(), BackupError> {
        self.stream
            .encrypt_in_place(self.place, is_last, &self.header, chunk)
            .map_err(|_| BackupError::CannotGoOn)?;
        self.advance(is_last).ok_or(BackupError::CannotGoOn)
    }

    /// Opens a chunk where it lies and cuts its tag off.
    fn open(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> Result<(), BackupError> {
        self.stream
            .decrypt_in_place(self.place, is_last, &self.header, chunk)
            .map_err(|_| BackupError::Tampered)?;
        self.advance(is_last).ok_or(BackupError::Tampered)
    }

    /// No place is used twice.
    fn advance(&mut self, is_last: bool) -> Option<()> {
        if !is_last {
            self.place = self.place.checked_add(1)?;
        }
        Some(())
    }
}

/// A backup that was not begun: made by [`KeyManager::backup_sealer`](crate::KeyManager::backup_sealer).
pub struct BackupSealer {
    header: Header,
    chunks: Chunks,
}

impl BackupSealer {
    pub(crate) fn new(
        cost: KdfCost,
        salt: [u8; 16],
        key: &[u8; 32],
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let mut file_nonce = [0; 32];
        rng.fill_bytes(&mut file_nonce);
        let header = Header {
            cost,
            salt,
            check: key_check(key),
            file_nonce,
        };
        let chunks = Chunks::new(&header, key);
        Self { header, chunks }
    }

    /// Writes the header. The backup is whole only after [`SealingWriter::finish`].
    pub fn start<W: Write>(self, mut out: W) -> io::Result<SealingWriter<W>> {
        out.write_all(&self.header.encode())?;
        Ok(SealingWriter {
            out,
            chunks: self.chunks,
            // With room for the tag: a vector that grows leaves copies behind.
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES)),
            has_failed: false,
        })
    }
}

impl fmt::Debug for BackupSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- backup sealer ---")
    }
}

/// Seals what is written to it. Holds back up to 64 KiB. Dropped without [`finish`](Self::finish), it leaves a backup that
/// is cut short and refused as such.
pub struct SealingWriter<W> {
    out: W,
    chunks: Chunks,
    chunk: Zeroizing<Vec<u8>>,
    has_failed: bool,
}

impl<W: Write> SealingWriter<W> {
    /// Seals the last chunk, flushes, and gives the inner writer back (a file is then still to be synced).
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        // After a failure nobody knows what of a chunk was written: what came after it could not be opened.
        if std::mem::replace(&mut self.has_failed, true) {
            return Err(BackupError::CannotGoOn.into());
        }
        self.chunks.seal(&mut self.chunk, is_last)?;
        self.out.write_all(&self.chunk)?;
        self.chunk.zeroize();
        self.has_failed = false;
        Ok(())
    }
}

impl<W: Write> Write for SealingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        // A full chunk waits until there is more: else it may be the last.
        if self.chunk.len() >= CHUNK_BYTES || self.has_failed {
            self.seal(false)?;
        }
        let room = CHUNK_BYTES - self.chunk.len();
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.chunk.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Flushes what was sealed. What waits for its chunk to fill goes out with [`SealingWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W> fmt::Debug for SealingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- sealing writer ---")
    }
}

#[cfg(test)]
mod tests;

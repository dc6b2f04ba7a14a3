//! Writing a backup: chunk by chunk, the last one marked by [`SealingWriter::finish`].
//!
//! Invariant: at most one chunk is in memory, and after an error nothing more is written.

use std::fmt;
use std::io::{self, Write};

use rand::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::chunks::{BackupHeader, CHUNK_BYTES, Chunks, StreamKind, TAG_BYTES};
use super::error::SealError;
use crate::file_header::KeyParams;

/// A backup that is not started yet.
///
/// Created by [`KeyManager::backup_sealer`](crate::KeyManager::backup_sealer).
pub struct BackupSealer {
    header: BackupHeader,
    chunks: Chunks,
}

impl BackupSealer {
    /// `params` and `key` are the vault's.
    pub(crate) fn new(
        kind: StreamKind,
        params: KeyParams,
        key: &[u8; 32],
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let mut file_nonce = [0; 32];
        rng.fill_bytes(&mut file_nonce);
        let header = BackupHeader {
            kind,
            params,
            file_nonce,
        };
        let chunks = Chunks::new(&header, &header.file_key(key));
        Self { header, chunks }
    }

    /// Writes the header. The backup is complete only after [`SealingWriter::finish`].
    ///
    /// # Errors
    /// Every error of `out`.
    pub fn start<W: Write>(self, mut out: W) -> io::Result<SealingWriter<W>> {
        out.write_all(&self.header.encode())?;
        Ok(SealingWriter {
            out,
            chunks: self.chunks,
            // Capacity includes the tag, because a vector that grows leaves copies in memory.
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

/// Seals the bytes that are written to it.
///
/// Buffers up to 64 KiB. If it is dropped without [`finish`](Self::finish), the backup is
/// truncated, and a reader refuses it as [`SealError::Truncated`] or [`SealError::Tampered`].
pub struct SealingWriter<W> {
    out: W,
    chunks: Chunks,
    chunk: Zeroizing<Vec<u8>>,
    has_failed: bool,
}

impl<W: Write> SealingWriter<W> {
    /// Seals the last chunk, flushes, and returns the inner writer. The caller must sync a file
    /// itself.
    ///
    /// # Errors
    /// Every error of the inner writer, and [`SealError::Unusable`].
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Bytes that are reserved in memory.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.chunk.capacity()
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        // After a failure the number of written bytes is unknown, so later chunks could not be
        // opened.
        if std::mem::replace(&mut self.has_failed, true) {
            return Err(SealError::Unusable.into());
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
        // A full chunk stays buffered until more bytes arrive, because it may be the last.
        if self.chunk.len() >= CHUNK_BYTES || self.has_failed {
            self.seal(false)?;
        }
        let free = CHUNK_BYTES - self.chunk.len();
        let (taken, _) = bytes.split_at(free.min(bytes.len()));
        self.chunk.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Flushes the sealed chunks. The buffered bytes are written by [`SealingWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W> fmt::Debug for SealingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- sealing writer ---")
    }
}

//! The header of a backup and the cipher of its chunks. `backup/mod.rs` has the byte layout.

use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
use chacha20poly1305::XChaCha20Poly1305;
use zeroize::Zeroizing;

use super::error::SealError;
use crate::file_header::KeyParams;
use crate::ids::Digest;
use crate::signing::{Context, signing_input};

/// The first bytes of every backup.
pub const MAGIC: &[u8; 15] = b"postern-backup\n";
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = MAGIC.len() + 2 + KeyParams::BYTES + 32;
/// Length of a full chunk before it is sealed, in bytes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
pub(super) const TAG_BYTES: usize = 16;

/// The unencrypted part of a backup.
#[derive(Clone, Copy)]
pub(super) struct BackupHeader {
    pub(super) params: KeyParams,
    pub(super) file_nonce: [u8; 32],
}

impl BackupHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.params.start_file(MAGIC, VERSION);
        out.extend_from_slice(&self.file_nonce);
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        let (params, mut rest) = KeyParams::parse(bytes, MAGIC, VERSION)?;
        let file_nonce = rest.take()?;
        Ok(Self { params, file_nonce })
    }
}

/// The cipher and the position of the next chunk in a file.
pub(super) struct Chunks {
    stream: StreamBE32<XChaCha20Poly1305>,
    header: Vec<u8>,
    position: u32,
}

impl Chunks {
    /// Derives the key of this file from `key`, the vault's key.
    pub(super) fn new(header: &BackupHeader, key: &[u8; 32]) -> Self {
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
            position: 0,
        }
    }

    /// Seals a chunk in place and appends its tag.
    pub(super) fn seal(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> Result<(), SealError> {
        self.stream
            .encrypt_in_place(self.position, is_last, &self.header, chunk)
            .map_err(|_| SealError::Unusable)?;
        self.advance(is_last).ok_or(SealError::Unusable)
    }

    /// Opens a chunk in place and removes its tag.
    pub(super) fn open(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> Result<(), SealError> {
        self.stream
            .decrypt_in_place(self.position, is_last, &self.header, chunk)
            .map_err(|_| SealError::Tampered)?;
        self.advance(is_last).ok_or(SealError::Tampered)
    }

    /// Moves to the next position, because a nonce must not be used twice.
    fn advance(&mut self, is_last: bool) -> Option<()> {
        if !is_last {
            self.position = self.position.checked_add(1)?;
        }
        Some(())
    }
}

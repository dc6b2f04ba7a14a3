//! The header of a backup and the cipher of its chunks. `backup/mod.rs` has the byte layout.

use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
use chacha20poly1305::XChaCha20Poly1305;
use zeroize::Zeroizing;

use super::error::SealError;
use crate::file_header::{HeaderFault, KeyParams};
use crate::ids::Digest;
use crate::locked::Locked;
use crate::signing::{Context, signing_input};

/// The first bytes of every backup.
pub const MAGIC: &[u8; 15] = b"postern-backup\n";
/// The first bytes of every file that moves an identity.
pub const MOVE_MAGIC: &[u8; 15] = b"postern-moving\n";
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = MAGIC.len() + 2 + KeyParams::BYTES + 32;
/// Length of a full chunk before it is sealed, in bytes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
pub(super) const TAG_BYTES: usize = 16;

/// The kind of a sealed stream. Streams of two kinds cannot be exchanged, because the header is
/// authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// A backup of a node.
    Backup,
    /// An identity that moves to another node.
    Move,
}

impl StreamKind {
    fn magic(self) -> &'static [u8; 15] {
        match self {
            Self::Backup => MAGIC,
            Self::Move => MOVE_MAGIC,
        }
    }
}

/// The unencrypted part of a sealed stream.
#[derive(Clone, Copy)]
pub(super) struct BackupHeader {
    pub(super) kind: StreamKind,
    pub(super) params: KeyParams,
    pub(super) file_nonce: [u8; 32],
}

impl BackupHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.params.start_file(self.kind.magic(), VERSION);
        out.extend_from_slice(&self.file_nonce);
        out
    }

    pub(super) fn parse(bytes: &[u8], kind: StreamKind) -> Result<Self, SealError> {
        let (params, mut rest) =
            KeyParams::parse(bytes, kind.magic(), VERSION).map_err(|fault| {
                match (fault, kind) {
                    (HeaderFault::OtherKind, StreamKind::Move) => SealError::NotAMove,
                    (fault, _) => fault.into(),
                }
            })?;
        let file_nonce = rest.take()?;
        Ok(Self {
            kind,
            params,
            file_nonce,
        })
    }

    /// The key of this file, made from the vault's key.
    pub(super) fn file_key(&self, key: &[u8; 32]) -> Locked<32> {
        let input = Zeroizing::new(signing_input(Context::BackupKey, &[key, &self.file_nonce]));
        Locked::copy_of(Digest::of(&input).as_bytes())
    }
}

/// The cipher and the position of the next chunk in a file.
pub(super) struct Chunks {
    stream: StreamBE32<XChaCha20Poly1305>,
    header: Vec<u8>,
    position: u32,
}

impl Chunks {
    /// Starts with the key of this file.
    pub(super) fn new(header: &BackupHeader, file_key: &[u8; 32]) -> Self {
        let mut nonce = [0; 19];
        for (place, byte) in nonce.iter_mut().zip(header.file_nonce) {
            *place = byte;
        }
        Self {
            stream: StreamBE32::new(file_key.into(), (&nonce).into()),
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

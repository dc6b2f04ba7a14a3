//! Errors of the vault: one variant for each fault. None contains secret bytes.

use crate::file_header::HeaderFault;
use crate::ids::{Oid, PeerId};
use crate::kdf::KdfError;
use crate::private_file::FileError;
use crate::protocol::KEY_EVENTS_MAX;

/// Why a vault was not opened, created or changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another kind of file.
    #[error("this file is not a vault")]
    NotAVault,
    /// Written by another version of this program.
    #[error(
        "the vault has version {0}, made by {origin}; this version supports version 2",
        origin = origin_of(*.0)
    )]
    UnknownVersion(u16),
    /// The file ends too early: an interrupted copy, or a full disk.
    #[error("the vault is truncated; restore it from a copy")]
    Truncated,
    /// The checksum does not match: the disk or a copy changed the file.
    #[error("the vault is damaged; restore it from a copy")]
    Damaged,
    /// The passphrase gives another key than the file was sealed with.
    ///
    /// A deliberate change of salt, cost or key check under a recomputed checksum gives the same
    /// error.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The passphrase is right, but the cipher rejects the file: it was changed on purpose, under a
    /// recomputed checksum.
    #[error("the vault was tampered with; restore it from a copy")]
    Tampered,
    /// No key was derived from the passphrase.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// The vault opened, but its keys do not match its chains: a fault of this program.
    #[error("the vault's keys do not match its key chains")]
    Inconsistent,
    /// Another process wrote the file after this one opened it. Saving would lose that process's
    /// keys.
    #[error("another process changed the vault; restart to load its keys")]
    ChangedMeanwhile,
    /// The vault has the maximum number of identities, or would exceed its maximum length.
    #[error("the vault is full")]
    Full,
    /// The key chain has [`KEY_EVENTS_MAX`] events. Peers would refuse a longer chain.
    #[error("the key chain has {KEY_EVENTS_MAX} rotations, the maximum that peers accept")]
    ChainFull,
    /// The next key is not in the vault, because it was exported as a recovery key.
    #[error("the next key is not in this vault; rotate with its recovery file")]
    NextKeyOffline,
    /// The recovery key is not the key that the chain commits to: older than the last rotation, or
    /// invented.
    #[error(
        "this recovery key is not the next key of the chain; it may be older than the last rotation"
    )]
    WrongRecoveryKey,
    /// The recovery key belongs to another identity or node.
    #[error("this recovery key is for {}", .0.to_hex())]
    OtherHolder(Oid),
    /// The chain is invalid, belongs to another holder, or forks from the chain in the vault.
    #[error("the key chain does not continue the one in this vault")]
    ForeignChain,
    /// The identity moves to another node, so that its keys neither sign nor change here.
    #[error("the identity {} moves to another node: `postern identity move`", .0.to_hex())]
    Moves(Oid),
    /// The file moves the identity to another node than this one.
    #[error("the file is for the node with the peer id {}", .0.to_hex())]
    OtherTarget(PeerId),
    /// The manager is in memory only, so it has no passphrase to seal with.
    #[error("these keys are in memory only and have no vault")]
    InMemory,
    /// See [`UnknownIdentity`].
    #[error(transparent)]
    UnknownIdentity(#[from] UnknownIdentity),
}

/// The vault has no key of this identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this vault has no key of identity {}", .0.short())]
pub struct UnknownIdentity(pub Oid);

impl From<HeaderFault> for VaultError {
    fn from(fault: HeaderFault) -> Self {
        match fault {
            HeaderFault::OtherKind => Self::NotAVault,
            HeaderFault::UnknownVersion(version) => Self::UnknownVersion(version),
            HeaderFault::Truncated => Self::Truncated,
        }
    }
}

/// Returns the origin of an unsupported version.
fn origin_of(version: u16) -> &'static str {
    match version {
        0 => "no program of this name",
        1 => "an unreleased earlier state of this program",
        _ => "a later version of this program",
    }
}

//! Why a vault does not open or change: each fault of its own has an error of its own, and none quotes a secret.

use crate::ids::Oid;
use crate::passphrase::KdfCost;
use crate::private_file::FileError;

/// Why a vault was not opened, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another kind of file.
    #[error("this file is not a vault")]
    NotAVault,
    /// Made by another version of this program.
    #[error("the vault has version {0}, which {maker} made; this program knows version 2", maker = maker_of(*.0))]
    UnknownVersion(u16),
    /// The file ends too early: an interrupted copy, a full disk.
    #[error("the vault is cut short; restore it from a copy")]
    Truncated,
    /// The checksum does not fit: the disk or a copy changed it.
    #[error("the vault is damaged; restore it from a copy")]
    Damaged,
    /// The passphrase gives another key than the file was sealed with. A deliberate change of the salt, the cost or the key
    /// check, with the checksum made to fit, looks the same.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The passphrase is right and the cipher refuses: somebody changed the file and made the checksum fit.
    #[error("the vault was tampered with; restore it from a copy")]
    Tampered,
    /// A passphrase without a character.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// Argon2id's parameters are not within their limits; the file may have been tampered with.
    #[error("the vault's cost is out of bounds: {} KiB, {} passes, {} lanes", .0.memory_kib, .0.passes, .0.lanes)]
    CostOutOfBounds(KdfCost),
    /// Too little memory to derive the key.
    #[error("opening the vault takes {0} KiB of memory, which this machine does not give")]
    OutOfMemory(u32),
    /// It opened, but its keys and chains do not fit each other: a fault of this program.
    #[error("the vault's keys do not fit its key chains")]
    Inconsistent,
    /// Another process wrote the file since it was opened here; saving would lose that process's keys.
    #[error("another process changed the vault; start again to see its keys")]
    ChangedMeanwhile,
    /// No room for another identity.
    #[error("the vault is full")]
    Full,
    /// The key chain has as many events as peers take: after another rotation they would not take it.
    #[error("the key chain has {0} rotations, and peers take no longer one")]
    ChainFull(usize),
    /// The next key is not in the vault: it was put away as a recovery key.
    #[error("the next key is not here; rotate with its recovery file")]
    NextKeyOffline,
    /// A recovery key that is not the one that the chain commits to: of before the last rotation, or made up.
    #[error(
        "this recovery key is not the next key of the chain; it may be older than the last rotation"
    )]
    WrongRecoveryKey,
    /// A recovery key of another identity or node.
    #[error("this recovery key is for {0}")]
    OtherHolder(Oid),
    /// A chain that does not hold, is another's, or has branched off from ours.
    #[error("the key chain does not go on from the one that is kept here")]
    ForeignChain,
    /// A manager in memory has no passphrase, so nothing can be sealed that it would open.
    #[error("these keys are in memory only and have no vault")]
    InMemory,
    /// See [`UnknownIdentity`].
    #[error(transparent)]
    UnknownIdentity(#[from] UnknownIdentity),
}

/// This node holds no key of that identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key of identity {0} is held here")]
pub struct UnknownIdentity(pub Oid);

/// Who made a file of a version that is not known here.
fn maker_of(version: u16) -> &'static str {
    match version {
        0 => "no program of this name",
        1 => "an unreleased earlier state of this program",
        _ => "a later version of this program",
    }
}

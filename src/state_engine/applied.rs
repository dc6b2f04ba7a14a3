//! Results and errors of applying a package.

use super::quota::QuotaFault;
use crate::store::StoreError;

/// The result of applying a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedPackage {
    /// The cursor after the package.
    pub last_seq: u64,
    /// Objects in the package.
    pub objects: usize,
    /// Objects written.
    pub written: usize,
    /// Objects among these that take the place of none, so that the sender's quota bounds them.
    pub added: usize,
    /// Objects that were stored already, in this or a later revision, or that a rotated key signed.
    pub already_stored: usize,
    /// Objects that wait for an event, or are pulled again after it.
    pub waiting: usize,
    /// Objects rejected.
    pub rejected: usize,
    /// Identities of other nodes that were frozen, because two homes were claimed for each.
    pub frozen: usize,
}

impl AppliedPackage {
    /// Adds the objects of another work. The cursor stays.
    pub fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.written += other.written;
        self.added += other.added;
        self.already_stored += other.already_stored;
        self.waiting += other.waiting;
        self.rejected += other.rejected;
        self.frozen += other.frozen;
    }
}

/// Why a window cannot follow the applied ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowFault {
    /// The window begins after `last_seq + 1`. The sender starts again at `last_seq`.
    #[error("the window leaves a gap after {last_seq}")]
    Gap {
        /// The cursor.
        last_seq: u64,
    },
}

/// Why a package was not applied to its end. The cursor did not move.
#[derive(Debug, thiserror::Error)]
pub enum ApplyPackageError {
    /// The window does not follow the applied ones.
    #[error(transparent)]
    Window(#[from] WindowFault),
    /// The peer was never admitted.
    #[error("the sender is not a known peer")]
    UnknownPeer,
    /// The peer, or its whole tier, would store more than its quota.
    #[error(transparent)]
    Quota(#[from] QuotaFault),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

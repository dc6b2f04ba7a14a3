//! Limits of the core.

use super::package::PackageLimits;
use super::quota::Quotas;
use crate::graph::GraphLimits;

/// Limits of the core; configuration and protocol set them, tests others.
#[derive(Debug, Clone, Copy)]
pub struct CoreLimits {
    /// Limits of objects and key chains.
    pub graph: GraphLimits,
    /// Limits of a package.
    pub package: PackageLimits,
    /// Limits of waiting and rejected objects.
    pub aside: AsideLimits,
    /// Quotas of peers.
    pub quotas: Quotas,
    /// Duration of a recovery.
    pub recovery: RecoveryLimits,
    /// Entries of an index of changes that one pull examines; it may exceed this by one batch.
    pub entries_max: usize,
    /// Most objects of one part of a package.
    pub part_objects_max: usize,
}

impl Default for CoreLimits {
    /// 65,536 entries take some 7 ms. Writing 256 small objects takes some 10 ms.
    fn default() -> Self {
        Self {
            graph: GraphLimits::default(),
            package: PackageLimits::default(),
            aside: AsideLimits::default(),
            quotas: Quotas::default(),
            recovery: RecoveryLimits::default(),
            entries_max: 65_536,
            part_objects_max: 256,
        }
    }
}

/// How long a restored node postpones changes of existing objects.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryLimits {
    /// Milliseconds after which a recovery ends, even if peers are missing.
    pub wait_ms: u64,
}

impl Default for RecoveryLimits {
    /// Three days, because a peer that is offline over a weekend is back by then.
    fn default() -> Self {
        Self {
            wait_ms: 3 * 24 * 3_600_000,
        }
    }
}

/// How many objects that could not be applied are kept.
#[derive(Debug, Clone, Copy)]
pub struct AsideLimits {
    /// Largest number of waiting objects of one peer.
    pub waiting_per_peer_max: u64,
    /// Largest number of waiting objects of one peer whose signature cannot be verified yet.
    pub unverified_per_peer_max: u64,
    /// Largest number of stored rejects of one peer; the oldest are removed first.
    pub rejects_per_peer_max: u64,
}

impl Default for AsideLimits {
    /// A thousand are enough for a diagnosis and too few to fill a disk. Unverified objects are
    /// few, because the identities of a peer are pulled before its other domains.
    fn default() -> Self {
        Self {
            waiting_per_peer_max: 1000,
            unverified_per_peer_max: 64,
            rejects_per_peer_max: 1000,
        }
    }
}

//! Limits of the core.

use super::package::PackageLimits;
use super::quota::Quotas;
use crate::graph::GraphLimits;

/// Limits of the core.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreLimits {
    /// Of the graph.
    pub graph: GraphLimits,
    /// Of a package.
    pub package: PackageLimits,
    /// Of what is kept aside.
    pub aside: AsideLimits,
    /// Of what peers may store and ask.
    pub quotas: Quotas,
    /// Of the wait after a restore.
    pub recovery: RecoveryLimits,
}

/// How long changes wait after a restore.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryLimits {
    /// Milliseconds after which nobody is waited for any more.
    pub wait_ms: u64,
}

impl Default for RecoveryLimits {
    /// Three days: whoever is away over a weekend is back.
    fn default() -> Self {
        Self {
            wait_ms: 3 * 24 * 3_600_000,
        }
    }
}

/// How much that could not be applied is kept.
#[derive(Debug, Clone, Copy)]
pub struct AsideLimits {
    /// Most objects of one peer that wait for another object.
    pub parked_per_peer_max: u64,
    /// Most refusals of one peer that are remembered; the oldest go first.
    pub rejects_per_peer_max: u64,
}

impl Default for AsideLimits {
    /// A thousand of each: enough to see what is wrong, too few to fill a disk.
    fn default() -> Self {
        Self {
            parked_per_peer_max: 1000,
            rejects_per_peer_max: 1000,
        }
    }
}

//! Logs a peer's full quota once, instead of at each of its packages.
//!
//! Input is each package that was refused for a quota, and each that was applied. Invariant: at
//! most [`PEERS_MAX`] peers are remembered.

use std::collections::BTreeSet;

use keys::PeerId;
use parking_lot::Mutex;

/// Most peers whose full quota is remembered as logged; at 40 bytes each, some 160 KiB.
const PEERS_MAX: usize = 4096;

/// Peers whose full quota was logged with no package applied since.
#[derive(Debug, Default)]
pub(super) struct QuotaLog(Mutex<BTreeSet<PeerId>>);

impl QuotaLog {
    /// Logs that a package of the peer was refused, if that was not logged yet; returns whether it
    /// was logged now.
    pub(super) fn refused(&self, peer: &PeerId, reason: &dyn std::fmt::Display) -> bool {
        let mut logged = self.0.lock();
        if logged.len() >= PEERS_MAX {
            logged.clear();
        }
        let is_first = logged.insert(*peer);
        if is_first {
            tracing::warn!(
                %reason,
                "a peer reached its quota; its packages are refused until the quota is raised or \
                 the peer is approved"
            );
        }
        is_first
    }

    /// Notes that a package of the peer was applied: the next refusal is logged again.
    pub(super) fn accepted(&self, peer: &PeerId) {
        self.0.lock().remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_a_full_quota_once_until_a_package_is_accepted() {
        let (log, peer) = (QuotaLog::default(), PeerId::from_bytes([1; 32]));
        let refused = || log.refused(&peer, &"full");
        assert_eq!([refused(), refused(), refused()], [true, false, false]);
        log.accepted(&peer);
        assert_eq!([refused(), refused()], [true, false]);
        for number in 0..=PEERS_MAX {
            let mut bytes = [2; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            log.refused(&PeerId::from_bytes(bytes), &"full");
        }
        assert!(log.0.lock().len() <= PEERS_MAX);
    }
}

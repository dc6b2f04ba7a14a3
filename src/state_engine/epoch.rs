//! Epochs: new ones, those that peers sign, and proof that another copy of this node exists
//! (docs/DECISIONS.md 2).
//!
//! An epoch that is signed with this node's key, but was not created by this database, makes the
//! node read-only. So two copies of a node never continue as one.

use keys::{Context, Epoch, PeerId, PublicKey};
use rand::CryptoRng;

use super::engine::StateEngine;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{EpochReason, PeerEpoch, StoreError, WriteMode, WriteModeRow};

/// Why an epoch that a peer sent is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochFault {
    /// The signature of the node that owns the epoch is not valid.
    #[error("the epoch is not signed by its node")]
    BadSignature,
    /// The peer was admitted with another epoch.
    #[error("the peer was admitted with another epoch")]
    Another,
}

/// The result of checking an epoch of this node that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnEpoch {
    /// This database created the epoch and counted at least as far. Also returned if the node is
    /// read-only already; the operator will then decide on this epoch too.
    Known,
    /// An earlier key signed it, so that key was stolen. The node is not affected.
    OldKey,
    /// Another copy of this node exists, or the database was rolled back. The node is read-only
    /// now.
    Foreign,
}

/// Whether `key` signed an epoch and its highest `change_seq`.
fn is_signed(heard: &PeerEpoch, key: &PublicKey) -> bool {
    let head = heard.head.to_be_bytes();
    key.verify(
        Context::Epoch,
        &[heard.epoch.as_bytes(), &head],
        &heard.signature,
    )
    .is_ok()
}

/// Why an epoch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The epoch is not valid.
    #[error(transparent)]
    Fault(#[from] EpochFault),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StateEngine {
    /// Stores an epoch that a peer signed, which must be the one with which it was admitted.
    pub fn put_peer_epoch(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        heard: &PeerEpoch,
    ) -> Result<(), EpochError> {
        let rows = self.store.rows();
        let known = rows.peer(peer)?.ok_or(EpochFault::Another)?;
        if known.epoch != heard.epoch {
            return Err(EpochFault::Another.into());
        }
        let server = rows
            .identity(&known.server_oid)?
            .ok_or(EpochFault::BadSignature)?;
        if server.key_id != heard.key_id || !is_signed(heard, &server.public_key) {
            return Err(EpochFault::BadSignature.into());
        }
        let known = rows
            .peer_epochs(peer)?
            .into_iter()
            .find(|known| known.epoch == heard.epoch);
        // A higher head is kept, so that the peer is shown its own rollback.
        if known.is_some_and(|known| known == *heard || known.head > heard.head) {
            return Ok(());
        }
        Ok(self
            .store
            .transaction(|tx| tx.put_peer_epoch(peer, heard, now))?)
    }

    /// Checks an epoch that a peer received from this node, or from another one with its keys.
    ///
    /// If this database did not create it, or counted less far in it, the node becomes read-only.
    /// Another copy of this node exists then, or the database was rolled back.
    pub fn check_own_epoch(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        heard: &PeerEpoch,
    ) -> Result<OwnEpoch, EpochError> {
        let rows = self.store.rows();
        let is_known = rows.is_own_epoch(&heard.epoch)?;
        let is_behind = heard.epoch == self.context.epoch && heard.head > rows.heads()?.0;
        if is_known && !is_behind {
            return Ok(OwnEpoch::Known);
        }
        let chain = self.context.keys.node_chain();
        let chain = chain.verify();
        let chain = chain.map_err(|_| EpochFault::BadSignature)?;
        let key = chain.key(heard.key_id).ok_or(EpochFault::BadSignature)?;
        if !is_signed(heard, &key) {
            return Err(EpochFault::BadSignature.into());
        }
        if heard.key_id != chain.key_id() {
            // Otherwise the thief of an earlier key could stop this node again and again.
            return Ok(OwnEpoch::OldKey);
        }
        if self.write_mode_at(now) == WriteMode::ReadOnly {
            // The operator decides on every foreign epoch that is stored by then.
            self.store
                .transaction(|tx| tx.adopt_epoch(&heard.epoch, EpochReason::Foreign, now))?;
            return Ok(OwnEpoch::Known);
        }
        let row = WriteModeRow {
            mode: WriteMode::ReadOnly,
            reason: peer.to_string(),
            since: now,
            until: None,
            foreign_epoch: Some(heard.epoch),
        };
        self.store.transaction(|tx| tx.put_write_mode(&row))?;
        self.reload_write_mode()?;
        Ok(OwnEpoch::Foreign)
    }
}

impl View<'_> {
    /// This node's epoch and its highest `change_seq`, signed.
    pub fn own_epoch(&self) -> Result<PeerEpoch, StoreError> {
        let (keys, epoch, head) = (&self.context.keys, self.context.epoch, self.head()?);
        let (key_id, signature) =
            keys.sign_as_node_numbered(Context::Epoch, &[epoch.as_bytes(), &head.to_be_bytes()]);
        Ok(PeerEpoch {
            epoch,
            key_id,
            signature,
            head,
        })
    }
}

/// Creates a random epoch.
pub(super) fn new_epoch(rng: &mut dyn CryptoRng) -> Epoch {
    let mut epoch = [0; 16];
    rng.fill_bytes(&mut epoch);
    Epoch::from_bytes(epoch)
}

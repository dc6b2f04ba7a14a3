//! Epochs: new ones, those that peers sign, and proof that another copy of this node exists
//! (docs/DECISIONS.md 2).
//!
//! An epoch that is signed with this node's key and was not created by it makes the node read-only, so
//! that two copies of a node never go on as one.

use keys::{Context, Epoch, PeerId, PublicKey};
use rand::CryptoRng;

use super::engine::StateEngine;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{EpochReason, PeerEpoch, StoreError, WriteMode, WriteModeRow};

/// What an epoch that a peer shows proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochFault {
    /// It is not signed by the node that it is said of.
    #[error("the epoch is not signed by its node")]
    BadSignature,
    /// The peer claimed another epoch when it was admitted.
    #[error("the peer was admitted with another epoch")]
    Another,
}

/// What came of an epoch of this node's that a peer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnEpoch {
    /// It was minted here and counted no further, or is one more that the operator has to decide on.
    Known,
    /// It is signed with a key that was rotated away: somebody has that key.
    OldKey,
    /// This node is a copy, or has fallen back. It is read-only from now on.
    Foreign,
}

/// Whether a node's key signed an epoch and how far it counted.
fn is_signed(heard: &PeerEpoch, key: &PublicKey) -> bool {
    let head = heard.head.to_be_bytes();
    key.verify(
        Context::Epoch,
        &[heard.epoch.as_bytes(), &head],
        &heard.signature,
    )
    .is_ok()
}

/// Why an epoch was not noted.
#[derive(Debug, thiserror::Error)]
pub enum HearError {
    /// The peer's.
    #[error(transparent)]
    Fault(#[from] EpochFault),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StateEngine {
    /// Notes an epoch that a peer signed as its own, the one with which it was admitted.
    pub fn put_peer_epoch(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        heard: &PeerEpoch,
    ) -> Result<(), HearError> {
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
        // What it once said stays, where it says less now: it is shown that.
        if known.is_some_and(|known| known == *heard || known.head > heard.head) {
            return Ok(());
        }
        Ok(self
            .store
            .transaction(|tx| tx.put_peer_epoch(peer, heard, now))?)
    }

    /// A peer shows an epoch that it heard from this node, or from one with its keys. Where it was not minted here, or counted
    /// further than this database does, this node is a copy or has fallen back, and writes nothing more.
    pub fn hear_own_epoch(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        heard: &PeerEpoch,
    ) -> Result<OwnEpoch, HearError> {
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
            // Who stole a key that was rotated away could stop this node again and again.
            return Ok(OwnEpoch::OldKey);
        }
        if self.write_mode_at(now) == WriteMode::ReadOnly {
            // The operator decides on all that was heard until then.
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
        self.follow_write_mode()?;
        Ok(OwnEpoch::Foreign)
    }
}

impl View<'_> {
    /// This node's epoch and how far it counted, signed.
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

/// A new epoch.
pub(super) fn new_epoch(rng: &mut dyn CryptoRng) -> Epoch {
    let mut epoch = [0; 16];
    rng.fill_bytes(&mut epoch);
    Epoch::from_bytes(epoch)
}

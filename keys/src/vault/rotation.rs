//! Key changes of the key manager: rotation, offline next keys, and catching up after an old
//! backup.
//!
//! Invariants: each change is on the disk whole, or did not happen. A next key is revealed only
//! after the rotation that needs it is on the disk. No event is signed that forks from a chain that
//! peers know. Tested in `vault/rotation_tests.rs`.

use rand::CryptoRng;

use super::error::{UnknownIdentity, VaultError};
use super::manager::{KeyManager, ManagerState};
use super::secrets::{Holder, Next, Residence};
use crate::chain::KeyChain;
use crate::ids::{Oid, PeerId, PublicKey};
use crate::recovery::RecoveryKey;

/// The public facts of one holder of keys: the node or an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderInfo {
    /// The oid of the identity, or the node's server oid.
    pub oid: Oid,
    /// Whether the holder is the node.
    pub is_node: bool,
    /// Number of the current key, which equals the number of rotations.
    pub key_id: u32,
    /// Whether the next key is in the vault. If not, it was exported as a recovery key, or lost.
    pub has_next_key: bool,
    /// The current public key.
    pub public: PublicKey,
    /// The node to which the identity moves. Nothing is signed here any more.
    pub moves_to: Option<PeerId>,
}

/// The outcome of [`KeyManager::catch_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaughtUp {
    /// The peers' chain is not longer than the one in the vault.
    Same,
    /// The vault's next key is now its current key, and the holder can sign.
    ///
    /// The key after it was lost with the newer vault. Another rotation needs a recovery key that
    /// was exported from that vault.
    Adopted,
    /// The peers' current key is not in the vault. Nothing changed, and peers refuse this vault's
    /// signatures.
    Lost,
}

impl KeyManager {
    /// Returns the node and then the identities of this vault, oldest first.
    pub fn holders(&self) -> Vec<HolderInfo> {
        let state = self.read();
        let info = |holder: &Holder| HolderInfo {
            oid: holder.oid,
            is_node: holder.oid == state.secrets.node.oid,
            key_id: holder.key_id(),
            has_next_key: holder.next.present().is_some(),
            public: holder.current.public(),
            moves_to: match holder.residence {
                Residence::Away(node, _) => Some(node),
                Residence::Here | Residence::Arrived(_) => None,
            },
        };
        state.secrets.holders().map(info).collect()
    }

    /// Returns the number of the current key of an identity, or of the node (by its server oid).
    ///
    /// # Errors
    /// [`UnknownIdentity`] for any other oid.
    pub fn key_id(&self, holder: Oid) -> Result<u32, UnknownIdentity> {
        self.read().holder(holder).map(Holder::key_id)
    }

    /// Rotates the key of an identity, or of the node (by its server oid).
    ///
    /// The next key becomes the current one. A new next key stays in the vault. The caller must
    /// then re-sign the holder's live objects and its home record.
    ///
    /// # Errors
    /// [`VaultError::ChainFull`] if the chain already has
    /// [`KEY_EVENTS_MAX`](crate::protocol::KEY_EVENTS_MAX) events;
    /// [`VaultError::NextKeyOffline`] if the next key was exported.
    pub fn rotate(&self, holder: Oid, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = state.changeable(holder)?;
        let next = old.next.present().ok_or(VaultError::NextKeyOffline)?;
        let new = old.rotated(next, rng)?;
        state.exchange(new, rng)
    }

    /// Rotates as [`rotate`](Self::rotate) does, to the next key from a recovery file.
    ///
    /// The new next key stays in the vault, and can be exported in turn.
    ///
    /// # Errors
    /// [`VaultError::OtherHolder`], [`VaultError::WrongRecoveryKey`], [`VaultError::ChainFull`].
    pub fn rotate_with(
        &self,
        holder: Oid,
        recovery: &RecoveryKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = state.changeable(holder)?;
        old.check_recovery(recovery)?;
        let new = old.rotated(recovery.secret(), rng)?;
        state.exchange(new, rng)
    }

    /// Returns a copy of the next key, to be exported as a recovery key.
    ///
    /// This order keeps at least one copy at any instant:
    ///
    /// 1. Write the key to a file ([`RecoveryKey::write_new`]).
    /// 2. Read that file back ([`RecoveryKey::from_file`]).
    /// 3. Call [`forget_next`](Self::forget_next) with the key that was read.
    ///
    /// # Errors
    /// [`VaultError::NextKeyOffline`] if it was exported before.
    pub fn recovery_key(&self, holder: Oid) -> Result<RecoveryKey, VaultError> {
        let state = self.read();
        let holder = state.changeable(holder)?;
        let next = holder.next.present().ok_or(VaultError::NextKeyOffline)?;
        Ok(RecoveryKey::new(
            holder.oid,
            holder.key_id() + 1,
            next.clone(),
        ))
    }

    /// Removes the next key from the vault. Does nothing if it was removed before.
    ///
    /// A thief of vault and passphrase then cannot rotate, but the owner can, with `recovery`, and
    /// so revokes the stolen key. Older copies of the vault file still contain the next key. See
    /// [`recovery_key`](Self::recovery_key) for the order of calls.
    ///
    /// # Errors
    /// [`VaultError::OtherHolder`]; [`VaultError::WrongRecoveryKey`] if `recovery` is not the key
    /// that would be removed.
    pub fn forget_next(
        &self,
        holder: Oid,
        recovery: &RecoveryKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = state.changeable(holder)?;
        old.check_recovery(recovery)?;
        if old.next.present().is_none() {
            return Ok(());
        }
        let new = Holder {
            next: Next::Offline,
            ..old.clone()
        };
        state.exchange(new, rng)
    }

    /// Adopts the key chain that peers know of a holder, after an older vault was restored.
    ///
    /// At most one rotation can be adopted, because its key was the next key in the backup, unless
    /// it was exported: see [`CaughtUp`]. Repeating that rotation instead would fork the chain, and
    /// peers would refuse the fork.
    ///
    /// # Errors
    /// [`VaultError::ForeignChain`] if `chain` is invalid, or neither continues the vault's chain
    /// nor is a prefix of it.
    pub fn catch_up(
        &self,
        holder: Oid,
        chain: &KeyChain,
        rng: &mut dyn CryptoRng,
    ) -> Result<CaughtUp, VaultError> {
        let mut state = self.write();
        let old = state.holder(holder)?;
        let verified = chain.verify().map_err(|_| VaultError::ForeignChain)?;
        if old.chain.continues(chain) {
            return Ok(CaughtUp::Same);
        }
        if !chain.continues(&old.chain) {
            return Err(VaultError::ForeignChain);
        }
        let current = match old.next.present() {
            Some(next) if next.public() == verified.current() => next.clone(),
            _ => return Ok(CaughtUp::Lost),
        };
        let new = Holder {
            oid: old.oid,
            chain: chain.clone(),
            current,
            next: Next::Offline,
            residence: old.residence,
        };
        state.exchange(new, rng)?;
        Ok(CaughtUp::Adopted)
    }
}

impl Holder {
    fn check_recovery(&self, recovery: &RecoveryKey) -> Result<(), VaultError> {
        if recovery.holder() != self.oid {
            Err(VaultError::OtherHolder(recovery.holder()))
        } else if !self.is_next(recovery.secret()) {
            Err(VaultError::WrongRecoveryKey)
        } else {
            Ok(())
        }
    }
}

impl ManagerState {
    /// Replaces the holder with the same oid and saves. On an error, nothing changes.
    pub(super) fn exchange(
        &mut self,
        holder: Holder,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let oid = holder.oid;
        let before = std::mem::replace(self.holder_mut(oid)?, holder);
        if let Err(error) = self.save(rng) {
            *self.holder_mut(oid)? = before;
            return Err(error);
        }
        Ok(())
    }
}

//! Changing keys: rotations, next keys that are kept elsewhere, and catching up after an older backup.
//!
//! Never reveals a next key before the rotation that needs it is on the disk, and never signs an event that branches off
//! from a chain that others know. Invariant: every change here is on the disk whole, or has not happened.

use rand::CryptoRng;

use super::secrets::{EVENTS_MAX, Holder, Next};
use super::{KeyManager, State, UnknownIdentity, VaultError};
use crate::chain::KeyChain;
use crate::ids::{Oid, PublicKey};
use crate::recovery::RecoveryKey;

/// What is public of one whose keys are held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderInfo {
    /// The identity, or the node by its server oid.
    pub oid: Oid,
    /// Whether it is the node.
    pub is_node: bool,
    /// Number of the current key: how often it was rotated.
    pub key_id: u32,
    /// Whether the next key is in the vault, and not put away as a recovery key.
    pub next_is_here: bool,
    /// The current key.
    pub public: PublicKey,
}

/// What came of [`KeyManager::catch_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaughtUp {
    /// Others know no later chain than the one held here.
    Same,
    /// The key that was next is the current one now. The key after it was lost with the newer vault: the holder can sign,
    /// but rotates again only with a recovery key of that vault's, if there is one.
    Adopted,
    /// Others follow a key that is not here. Nothing was changed; what is signed here is refused by them.
    Lost,
}

impl KeyManager {
    /// Everybody whose keys are held here: the node, then the identities, oldest first.
    pub fn holders(&self) -> Vec<HolderInfo> {
        let state = self.read();
        let info = |holder: &Holder| HolderInfo {
            oid: holder.oid,
            is_node: holder.oid == state.secrets.node.oid,
            key_id: holder.key_id(),
            next_is_here: holder.next.here().is_some(),
            public: holder.current.public(),
        };
        state.secrets.holders().map(info).collect()
    }

    /// Number of the current key of an identity held here, or of the node (by its server oid).
    pub fn key_id(&self, holder: Oid) -> Result<u32, UnknownIdentity> {
        self.read().holder(holder).map(Holder::key_id)
    }

    /// Makes the next key of an identity, or of the node (by its server oid), the current one and commits to another, which
    /// stays here.
    ///
    /// The owner's live objects and its home record must then be signed again.
    ///
    /// # Errors
    /// [`VaultError::ChainFull`] where the chain has `events_max` events already, the most that peers take;
    /// [`VaultError::NextKeyOffline`] where the next key was put away.
    pub fn rotate(
        &self,
        holder: Oid,
        events_max: usize,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = state.holder(holder)?;
        let next = old.next.here().ok_or(VaultError::NextKeyOffline)?;
        let new = old.rotated(next, events_max, rng)?;
        state.exchange(new, rng)
    }

    /// [`rotate`](Self::rotate) with the next key from a recovery file. The key after it is new and stays here; it can be
    /// put away in turn.
    ///
    /// # Errors
    /// [`VaultError::OtherHolder`], [`VaultError::WrongRecoveryKey`], [`VaultError::ChainFull`].
    pub fn rotate_with(
        &self,
        holder: Oid,
        recovery: &RecoveryKey,
        events_max: usize,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = state.holder(holder)?;
        old.check_recovery(recovery)?;
        let new = old.rotated(recovery.secret(), events_max, rng)?;
        state.exchange(new, rng)
    }

    /// A copy of the next key, to be put away. The order: write it to a file ([`RecoveryKey::write_new`]), read that file
    /// back ([`RecoveryKey::from_file`]), then [`forget_next`](Self::forget_next) with what was read; so at no instant is
    /// there no copy.
    ///
    /// # Errors
    /// [`VaultError::NextKeyOffline`] where it was put away before.
    pub fn recovery_key(&self, holder: Oid) -> Result<RecoveryKey, VaultError> {
        let state = self.read();
        let holder = state.holder(holder)?;
        let next = holder.next.here().ok_or(VaultError::NextKeyOffline)?;
        Ok(RecoveryKey::new(
            holder.oid,
            holder.key_id() + 1,
            next.clone(),
        ))
    }

    /// Takes the next key out of the vault, so that a thief of vault and passphrase cannot rotate and the owner, who holds
    /// `recovery`, can shut the thief out. See [`recovery_key`](Self::recovery_key) for the order. Older copies of the vault
    /// file still hold the key. Does nothing where it was put away before.
    ///
    /// # Errors
    /// [`VaultError::OtherHolder`], or [`VaultError::WrongRecoveryKey`] if `recovery` is not the key that would be forgotten.
    pub fn forget_next(
        &self,
        holder: Oid,
        recovery: &RecoveryKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = state.holder(holder)?;
        old.check_recovery(recovery)?;
        if old.next.here().is_none() {
            return Ok(());
        }
        let new = Holder {
            next: Next::Offline,
            ..old.clone()
        };
        state.exchange(new, rng)
    }

    /// Takes up the key chain that peers know of a holder, after an older vault came back from a backup.
    ///
    /// One rotation can be caught up with, because its key was the next one then and lay in the backup (unless it was put
    /// away): see [`CaughtUp`]. A rotation that were done anew instead would branch off, and peers would refuse it.
    ///
    /// # Errors
    /// [`VaultError::ForeignChain`] if `chain` has more than `events_max` events, does not hold, or neither continues the
    /// chain held here nor is its beginning.
    pub fn catch_up(
        &self,
        holder: Oid,
        chain: &KeyChain,
        events_max: usize,
        rng: &mut dyn CryptoRng,
    ) -> Result<CaughtUp, VaultError> {
        let mut state = self.write();
        let old = state.holder(holder)?;
        let verified = chain
            .verify(events_max.min(EVENTS_MAX))
            .map_err(|_| VaultError::ForeignChain)?;
        if old.chain.continues(chain) {
            return Ok(CaughtUp::Same);
        }
        if !chain.continues(&old.chain) {
            return Err(VaultError::ForeignChain);
        }
        let current = match old.next.here() {
            Some(next) if next.public() == verified.current() => next.clone(),
            _ => return Ok(CaughtUp::Lost),
        };
        let new = Holder {
            oid: old.oid,
            chain: chain.clone(),
            current,
            next: Next::Offline,
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

impl State {
    /// Puts a holder in the place of the one with its oid, and saves; or leaves everything as it was.
    fn exchange(&mut self, holder: Holder, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let oid = holder.oid;
        let before = std::mem::replace(self.holder_mut(oid)?, holder);
        if let Err(error) = self.save(rng) {
            *self.holder_mut(oid)? = before;
            return Err(error);
        }
        Ok(())
    }
}

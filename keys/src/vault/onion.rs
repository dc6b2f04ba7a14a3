//! The onion service's key in the vault: signing, import, export, and the ticket key derived from
//! it.

use std::path::Path;

use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::VaultError;
use super::manager::KeyManager;
use crate::ids::{OnionAddr, Signature};
use crate::onion_key::{OnionKey, OnionKeyError};
use crate::sealing::SealingKey;
use crate::signing::{Context, signing_input};

impl KeyManager {
    /// Returns the node's onion address.
    pub fn onion(&self) -> OnionAddr {
        self.read().secrets.onion.onion_addr()
    }

    /// Calls `use_it` with the onion key's 64 expanded bytes (RFC 8032, section 5.1.5).
    ///
    /// Arti needs them in memory.
    pub fn with_onion_secret<R>(&self, use_it: impl FnOnce(&[u8; 64]) -> R) -> R {
        self.read().secrets.onion.with_secret(use_it)
    }

    /// Returns the key that seals the tickets of this onion service.
    ///
    /// The ticket key is a digest of the onion key, so it survives a restart. After an import of
    /// another onion key, all earlier tickets are void.
    pub fn ticket_key(&self) -> SealingKey {
        self.with_onion_secret(|secret| {
            let input = Zeroizing::new(signing_input(Context::TicketKey, &[secret]));
            SealingKey::from_bytes(&Zeroizing::new(Sha256::digest(&*input).into()))
        })
    }

    /// Signs with the onion key.
    pub fn sign_as_onion(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.read().secrets.onion.sign(context, parts)
    }

    /// Replaces the key of this node's onion service, on the disk too.
    ///
    /// The former key is deleted, and with it the old address and every ticket. Export the former
    /// key first if peers may still use its address.
    ///
    /// # Errors
    /// [`VaultError::ChangedMeanwhile`], [`VaultError::File`]; the former key then stays.
    pub fn import_onion(&self, onion: OnionKey, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let mut state = self.write();
        let before = std::mem::replace(&mut state.secrets.onion, onion);
        let saved = state.save(rng);
        if saved.is_err() {
            state.secrets.onion = before;
        }
        saved
    }

    /// Writes the onion key, unencrypted, as a new folder that C tor accepts as
    /// `HiddenServiceDir`.
    ///
    /// # Errors
    /// Those of [`OnionKey::write_tor_folder`].
    pub fn export_onion(&self, path: &Path) -> Result<(), OnionKeyError> {
        let onion = self.read().secrets.onion.clone();
        onion.write_tor_folder(path)
    }
}

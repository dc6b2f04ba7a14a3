//! The onion service's key in the vault: signing, moving in and out.

use std::path::Path;

use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{KeyManager, VaultError};
use crate::ids::{OnionAddr, Signature};
use crate::onion_key::{OnionKey, OnionKeyError};
use crate::sealing::SealingKey;
use crate::signing::{Context, signing_input};

impl KeyManager {
    /// The node's onion address.
    pub fn onion(&self) -> OnionAddr {
        self.read().secrets.onion.onion_addr()
    }

    /// Hands the onion key's 64 expanded bytes (RFC 8032, section 5.1.5) to `use_it`: arti needs them in memory.
    pub fn with_onion_secret<R>(&self, use_it: impl FnOnce(&[u8; 64]) -> R) -> R {
        self.read().secrets.onion.with_secret(use_it)
    }

    /// The key that seals tickets of this onion service. It is a digest of the onion's key, so it lies in the vault with
    /// it, and a node with another onion address knows none of the old tickets.
    pub fn ticket_key(&self) -> SealingKey {
        self.with_onion_secret(|secret| {
            let input = Zeroizing::new(signing_input(Context::TicketKey, &[secret]));
            SealingKey::from_bytes(&Zeroizing::new(Sha256::digest(&*input).into()))
        })
    }

    /// Signs with the onion's key.
    pub fn sign_as_onion(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.read().secrets.onion.sign(context, parts)
    }

    /// Makes `onion` the key of this node's onion service. The key before it is gone, and with it the old address and every
    /// ticket: export it first if anybody may still use them. On the disk when it returns.
    pub fn import_onion(&self, onion: OnionKey, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let mut state = self.write();
        let before = std::mem::replace(&mut state.secrets.onion, onion);
        let saved = state.save(rng);
        if saved.is_err() {
            state.secrets.onion = before;
        }
        saved
    }

    /// Writes the onion's key, unsealed, as a new folder that C tor takes for its `HiddenServiceDir`.
    pub fn export_onion(&self, path: &Path) -> Result<(), OnionKeyError> {
        let onion = self.read().secrets.onion.clone();
        onion.write_tor_folder(path)
    }
}

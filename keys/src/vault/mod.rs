//! The vault: every secret of a node in one sealed file, and [`KeyManager`], which signs without giving a secret out.
//!
//! Sealed by Argon2id and XChaCha20-Poly1305 (`vault/format.rs` draws the bytes); mode 0600, refused when looser; replaced as
//! a whole. Never prints a secret, never keeps the passphrase. Invariant: a key that has signed anything, or whose oid
//! was handed out, is on the disk before (unless the manager is in memory only).

mod error;
mod format;
mod onion;
mod rotation;
mod secrets;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rand::CryptoRng;

use crate::backup::{BackupError, BackupSealer, OpeningReader};
use crate::chain::KeyChain;
use crate::home::HomeRecord;
use crate::ids::{Oid, PeerId, Signature};
use crate::locked::{Locked, MemoryLock};
use crate::passphrase::{KdfCost, Passphrase};
use crate::private_file;
use crate::signed_object::SignedObject;
use crate::signing::Context;
pub use error::{UnknownIdentity, VaultError};
use format::{FILE_BYTES_MAX, Header};
pub(crate) use format::{KEY_CHECK_BYTES, key_check};
pub use rotation::{CaughtUp, HolderInfo};
use secrets::{Holder, IDENTITIES_MAX, Secrets};

/// Holds the secrets of one node and signs with them. Shared between threads.
///
/// Changing it writes the file and blocks meanwhile; signing never touches the disk.
pub struct KeyManager(RwLock<State>);

struct State {
    secrets: Secrets,
    file: Option<Sealed>,
}

/// What saving again needs.
struct Sealed {
    path: PathBuf,
    key: Locked<32>,
    header: Header,
}

impl KeyManager {
    /// A new node in memory only, for tests and simulation.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::new(Secrets::generate(rng), None)
    }

    /// A new node in a new file: node key with its next key, onion key, no identity yet. An existing file is refused.
    pub fn create(
        path: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, VaultError> {
        let secrets = Secrets::generate(rng);
        let sealed = Sealed::new(path, passphrase, cost, rng)?;
        private_file::create(path, &sealed.header.seal(&sealed.key, secrets.encode())?)?;
        Ok(Self::new(secrets, Some(sealed)))
    }

    /// Opens a file. Takes the time and memory of its [`KdfCost`].
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, VaultError> {
        let bytes = private_file::read(path, FILE_BYTES_MAX)?;
        let parsed = format::parse(&bytes)?;
        let header = parsed.header;
        let key = header.cost.derive(passphrase, &header.salt)?;
        let secrets = Secrets::decode(&parsed.open(&key)?)?;
        let path = path.into();
        Ok(Self::new(secrets, Some(Sealed { path, key, header })))
    }

    fn new(secrets: Secrets, file: Option<Sealed>) -> Self {
        Self(RwLock::new(State { secrets, file }))
    }

    /// Seals the file under another passphrase or cost. Does nothing for a manager in memory.
    pub fn change_passphrase(
        &self,
        passphrase: &Passphrase,
        cost: KdfCost,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let Some(old) = &state.file else {
            return Ok(());
        };
        old.check_unchanged()?;
        let sealed = Sealed::new(&old.path, passphrase, cost, rng)?;
        private_file::replace(
            &old.path,
            &sealed.header.seal(&sealed.key, state.secrets.encode())?,
        )?;
        state.file = Some(sealed);
        Ok(())
    }

    /// What opening the file costs. `None` for a manager in memory.
    pub fn cost(&self) -> Option<KdfCost> {
        self.read().file.as_ref().map(|sealed| sealed.header.cost)
    }

    /// Whether all secrets held here lie in locked memory.
    pub fn memory(&self) -> MemoryLock {
        let state = self.read();
        let of_file = state.file.as_ref().and_then(|sealed| sealed.key.fault());
        match of_file.or_else(|| state.secrets.lock_fault()) {
            None => MemoryLock::Locked,
            Some(reason) => MemoryLock::NotLocked(reason.to_owned()),
        }
    }

    /// Seals a backup with the vault's key, so that it opens with the passphrase that the vault has now.
    ///
    /// # Errors
    /// [`VaultError::InMemory`].
    pub fn backup_sealer(&self, rng: &mut dyn CryptoRng) -> Result<BackupSealer, VaultError> {
        let state = self.read();
        let Sealed { key, header, .. } = state.file.as_ref().ok_or(VaultError::InMemory)?;
        Ok(BackupSealer::new(header.cost, header.salt, key, rng))
    }

    /// Opens a backup with the key in memory: to verify one that was just written.
    ///
    /// # Errors
    /// [`BackupError::OtherVault`] for a backup of another vault, or of before the passphrase was changed.
    pub fn open_backup<R: Read>(&self, backup: R) -> Result<OpeningReader<R>, BackupError> {
        let state = self.read();
        let Sealed { key, header, .. } = state.file.as_ref().ok_or(VaultError::InMemory)?;
        OpeningReader::with_key(backup, header.cost, &header.salt, key)
    }

    /// The node's name: its first key.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.read().secrets.node.chain.genesis.first.as_bytes())
    }

    /// The node's key chain.
    pub fn node_chain(&self) -> KeyChain {
        self.read().secrets.node.chain.clone()
    }

    /// The oid that the node's genesis gives: owner of what the node itself writes.
    pub fn server_oid(&self) -> Oid {
        self.read().secrets.node.oid
    }

    /// Signs with the node's current key.
    pub fn sign_as_node(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.read().secrets.node.current.sign(context, parts)
    }

    /// Signs with the node's current key, and says which number that key has.
    pub fn sign_as_node_numbered(&self, context: Context, parts: &[&[u8]]) -> (u32, Signature) {
        let state = self.read();
        let node = &state.secrets.node;
        (node.key_id(), node.current.sign(context, parts))
    }

    /// Signs a payload with the node's current key into a COSE_Sign1 envelope.
    pub fn sign1_as_node(&self, context: Context, payload: &[u8]) -> Vec<u8> {
        self.read().secrets.node.current.sign1(context, payload)
    }

    /// The identities held here, oldest first.
    pub fn identities(&self) -> Vec<Oid> {
        self.read()
            .secrets
            .identities
            .iter()
            .map(|holder| holder.oid)
            .collect()
    }

    /// The key chain of an identity held here.
    pub fn identity_chain(&self, identity: Oid) -> Option<KeyChain> {
        let state = self.read();
        state
            .identity(identity)
            .ok()
            .map(|holder| holder.chain.clone())
    }

    /// A new identity. It is on the disk when its oid is returned.
    pub fn add_identity(&self, rng: &mut dyn CryptoRng) -> Result<Oid, VaultError> {
        let mut state = self.write();
        if state.secrets.identities.len() >= IDENTITIES_MAX {
            return Err(VaultError::Full);
        }
        let holder = Holder::generate(rng);
        let oid = holder.oid;
        state.secrets.identities.push(holder);
        if let Err(error) = state.save(rng) {
            state.secrets.identities.pop();
            return Err(error);
        }
        Ok(oid)
    }

    /// Signs an object's bytes as its owner: an identity held here, or the node by its server oid.
    pub fn sign_object(&self, owner: Oid, bytes: Vec<u8>) -> Result<SignedObject, UnknownIdentity> {
        let state = self.read();
        let holder = state.holder(owner)?;
        Ok(SignedObject::sign(holder.key_id(), &holder.current, bytes))
    }

    /// States that an identity held here lives on this node. `counter` must be higher than in any earlier record.
    pub fn home_record(&self, identity: Oid, counter: u64) -> Result<HomeRecord, UnknownIdentity> {
        let state = self.read();
        let (holder, node) = (state.identity(identity)?, &state.secrets.node);
        let key = (holder.key_id(), &holder.current);
        let record = HomeRecord::sign(identity, key, node.chain.clone(), &node.current, counter);
        Ok(record)
    }

    /// A lock that another thread's panic poisoned still guards whole values: each change is one assignment.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write()
    }
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyManager({})", self.peer_id())
    }
}

impl State {
    fn identity(&self, oid: Oid) -> Result<&Holder, UnknownIdentity> {
        let mut identities = self.secrets.identities.iter();
        identities
            .find(|holder| holder.oid == oid)
            .ok_or(UnknownIdentity(oid))
    }

    fn holder(&self, oid: Oid) -> Result<&Holder, UnknownIdentity> {
        if self.secrets.node.oid == oid {
            return Ok(&self.secrets.node);
        }
        self.identity(oid)
    }

    fn holder_mut(&mut self, oid: Oid) -> Result<&mut Holder, UnknownIdentity> {
        let Secrets {
            node, identities, ..
        } = &mut self.secrets;
        let mut holders = std::iter::once(node).chain(identities);
        holders
            .find(|holder| holder.oid == oid)
            .ok_or(UnknownIdentity(oid))
    }

    /// Writes the file anew, under a new nonce.
    fn save(&mut self, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let Some(sealed) = &mut self.file else {
            return Ok(());
        };
        sealed.check_unchanged()?;
        let mut header = sealed.header;
        rng.fill_bytes(&mut header.nonce);
        private_file::replace(
            &sealed.path,
            &header.seal(&sealed.key, self.secrets.encode())?,
        )?;
        sealed.header = header;
        Ok(())
    }
}

impl Sealed {
    fn new(
        path: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, VaultError> {
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let key = cost.derive(passphrase, &salt)?;
        let header = Header {
            cost,
            salt,
            check: key_check(&key),
            nonce,
        };
        let path = path.into();
        Ok(Self { path, key, header })
    }

    /// The nonce is new in every write, so an equal header means that nobody wrote since.
    fn check_unchanged(&self) -> Result<(), VaultError> {
        let bytes = private_file::read(&self.path, FILE_BYTES_MAX)?;
        if format::parse(&bytes)?.header == self.header {
            Ok(())
        } else {
            Err(VaultError::ChangedMeanwhile)
        }
    }
}

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;

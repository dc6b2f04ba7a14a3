//! The key manager: holds a node's secrets, signs with them, and saves them.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rand::CryptoRng;

use super::error::{UnknownIdentity, VaultError};
use super::format::{self, FILE_BYTES_MAX, VaultHeader};
use super::secrets::{Holder, IDENTITIES_MAX, Secrets};
use crate::address::AddressRecord;
use crate::backup::{BackupSealer, OpeningReader, SealError, StreamKind};
use crate::chain::KeyChain;
use crate::file_header::KeyParams;
use crate::home::HomeRecord;
use crate::ids::{Oid, PeerId, Signature};
use crate::kdf::KdfCost;
use crate::locked::{Locked, MemoryLock};
use crate::passphrase::Passphrase;
use crate::private_file;
use crate::signed_object::SignedObject;
use crate::signing::Context;

/// Holds the secrets of one node and signs with them. Threads may share it.
///
/// A change writes the file, and every other call blocks meanwhile. Signing does not access the
/// disk. `Debug` prints the shortened peer id only.
pub struct KeyManager(RwLock<ManagerState>);

pub(super) struct ManagerState {
    pub(super) secrets: Secrets,
    file: Option<VaultFile>,
}

/// The open vault file, with the key that seals it.
struct VaultFile {
    path: PathBuf,
    key: Locked<32>,
    header: VaultHeader,
}

impl KeyManager {
    /// Creates a node in memory only, for tests and simulation.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::new(Secrets::generate(rng), None)
    }

    /// Creates a node in a new file: node key, next node key, onion key, and no identity.
    ///
    /// # Errors
    /// [`VaultError::File`] if the file exists or cannot be written; [`VaultError::Kdf`].
    pub fn create(
        path: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, VaultError> {
        let secrets = Secrets::generate(rng);
        let file = VaultFile::new(path, passphrase, cost, rng)?;
        private_file::create(path, &file.header.seal(&file.key, secrets.encode())?)?;
        Ok(Self::new(secrets, Some(file)))
    }

    /// Opens a vault file. Takes the time and memory of its [`KdfCost`].
    ///
    /// # Errors
    /// [`VaultError`]: the file is no readable vault, is damaged, or the passphrase is wrong.
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, VaultError> {
        let bytes = private_file::read(path, FILE_BYTES_MAX)?;
        let parsed = format::parse(&bytes)?;
        let header = parsed.header;
        let key = header.params.derive_again(passphrase)?;
        let secrets = Secrets::decode(&parsed.open(&key)?)?;
        let path = path.into();
        Ok(Self::new(secrets, Some(VaultFile { path, key, header })))
    }

    fn new(secrets: Secrets, file: Option<VaultFile>) -> Self {
        Self(RwLock::new(ManagerState { secrets, file }))
    }

    /// Seals the file under another passphrase or cost. Does nothing for a manager in memory.
    ///
    /// # Errors
    /// [`VaultError::ChangedMeanwhile`], [`VaultError::Kdf`], [`VaultError::File`].
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
        let file = VaultFile::new(&old.path, passphrase, cost, rng)?;
        private_file::replace(
            &old.path,
            &file.header.seal(&file.key, state.secrets.encode())?,
        )?;
        state.file = Some(file);
        Ok(())
    }

    /// Returns the cost of opening the file, or `None` for a manager in memory.
    pub fn cost(&self) -> Option<KdfCost> {
        self.read()
            .file
            .as_ref()
            .map(|file| file.header.params.cost)
    }

    /// Returns whether all secrets of this manager are in locked memory.
    pub fn memory(&self) -> MemoryLock {
        let state = self.read();
        let of_file = state.file.as_ref().and_then(|file| file.key.fault());
        match of_file.or_else(|| state.secrets.lock_fault()) {
            None => MemoryLock::Locked,
            Some(reason) => MemoryLock::NotLocked(reason.to_owned()),
        }
    }

    /// Returns a sealer with the vault's key. The backup opens with the vault's current passphrase.
    ///
    /// # Errors
    /// [`VaultError::InMemory`].
    pub fn backup_sealer(&self, rng: &mut dyn CryptoRng) -> Result<BackupSealer, VaultError> {
        self.sealer(StreamKind::Backup, rng)
    }

    pub(super) fn sealer(
        &self,
        kind: StreamKind,
        rng: &mut dyn CryptoRng,
    ) -> Result<BackupSealer, VaultError> {
        let state = self.read();
        let VaultFile { key, header, .. } = state.file.as_ref().ok_or(VaultError::InMemory)?;
        Ok(BackupSealer::new(kind, header.params, key, rng))
    }

    /// Opens a backup with the key in memory, to verify a backup that was just written.
    ///
    /// # Errors
    /// [`SealError::OtherVault`] if another vault made the backup, or if the passphrase was changed
    /// since; [`SealError::InMemory`]; every error of reading the header.
    pub fn open_backup<R: Read>(&self, backup: R) -> Result<OpeningReader<R>, SealError> {
        self.open_own(StreamKind::Backup, backup)
    }

    pub(super) fn open_own<R: Read>(
        &self,
        kind: StreamKind,
        file: R,
    ) -> Result<OpeningReader<R>, SealError> {
        let state = self.read();
        let VaultFile { key, header, .. } = state.file.as_ref().ok_or(SealError::InMemory)?;
        OpeningReader::with_key(file, kind, &header.params, key)
    }

    /// Returns the node's peer id: its first key.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.read().secrets.node.chain.genesis.first.as_bytes())
    }

    /// Returns the node's key chain.
    pub fn node_chain(&self) -> KeyChain {
        self.read().secrets.node.chain.clone()
    }

    /// Returns the oid of the node's genesis, the owner of objects that the node itself writes.
    pub fn server_oid(&self) -> Oid {
        self.read().secrets.node.oid
    }

    /// Signs with the node's current key.
    pub fn sign_as_node(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.read().secrets.node.current.sign(context, parts)
    }

    /// Signs with the node's current key. Returns that key's number and the signature.
    pub fn sign_as_node_numbered(&self, context: Context, parts: &[&[u8]]) -> (u32, Signature) {
        let state = self.read();
        let node = &state.secrets.node;
        (node.key_id(), node.current.sign(context, parts))
    }

    /// Signs a payload and further parts with the node's current key into a COSE_Sign1 envelope.
    pub fn sign1_as_node(&self, context: Context, parts: &[&[u8]], payload: &[u8]) -> Vec<u8> {
        let held = self.read();
        held.secrets.node.current.sign1(context, parts, payload)
    }

    /// Returns the identities that this vault signs for, oldest first.
    pub fn identities(&self) -> Vec<Oid> {
        let state = self.read();
        let holders = state.secrets.identities.iter();
        let here = holders.filter(|holder| !holder.is_away());
        here.map(|holder| holder.oid).collect()
    }

    /// Returns the key chain of an identity that this vault signs for, or `None` for any other oid.
    pub fn identity_chain(&self, identity: Oid) -> Option<KeyChain> {
        let state = self.read();
        state
            .identity(identity)
            .ok()
            .map(|holder| holder.chain.clone())
    }

    /// Creates an identity. The identity is on the disk when this returns its oid.
    ///
    /// # Errors
    /// [`VaultError::Full`], [`VaultError::ChangedMeanwhile`], [`VaultError::File`].
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

    /// Signs an object's bytes as its owner: an identity of this vault, or the node by its server
    /// oid.
    ///
    /// # Errors
    /// [`UnknownIdentity`] for any other owner.
    pub fn sign_object(&self, owner: Oid, bytes: Vec<u8>) -> Result<SignedObject, UnknownIdentity> {
        let state = self.read();
        let holder = state.holder(owner)?;
        Ok(SignedObject::sign(holder.key_id(), &holder.current, bytes))
    }

    /// Signs a home record: this node is the home of an identity of this vault.
    ///
    /// `counter` must be higher than in every earlier record of that identity.
    ///
    /// # Errors
    /// [`UnknownIdentity`], also for the server oid, because a node has no home.
    pub fn home_record(&self, identity: Oid, counter: u64) -> Result<HomeRecord, UnknownIdentity> {
        let state = self.read();
        let (holder, node) = (state.identity(identity)?, &state.secrets.node);
        let key = (holder.key_id(), &holder.current);
        let record = HomeRecord::sign(identity, key, node.chain.clone(), &node.current, counter);
        Ok(record)
    }

    /// Signs an address record: this node is reached at its onion service.
    pub fn address_record(&self, counter: u64) -> AddressRecord {
        let state = self.read();
        let Secrets { node, onion, .. } = &state.secrets;
        AddressRecord::sign(node.chain.clone(), &node.current, onion, counter)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, ManagerState> {
        self.0.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, ManagerState> {
        self.0.write()
    }
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyManager({})", self.peer_id())
    }
}

impl ManagerState {
    /// Returns the identity with this oid, unless it moves to another node.
    fn identity(&self, oid: Oid) -> Result<&Holder, UnknownIdentity> {
        self.any_identity(oid)
            .filter(|holder| !holder.is_away())
            .ok_or(UnknownIdentity(oid))
    }

    /// Returns the identity with this oid, also if it moves to another node.
    pub(super) fn any_identity(&self, oid: Oid) -> Option<&Holder> {
        let mut identities = self.secrets.identities.iter();
        identities.find(|holder| holder.oid == oid)
    }

    /// Returns the node or the identity with this oid, to change its keys.
    ///
    /// # Errors
    /// [`VaultError::Moves`] if the identity moves to another node;
    /// [`VaultError::UnknownIdentity`].
    pub(super) fn changeable(&self, oid: Oid) -> Result<&Holder, VaultError> {
        match self.any_identity(oid) {
            Some(holder) if holder.is_away() => Err(VaultError::Moves(oid)),
            _ => Ok(self.holder(oid)?),
        }
    }

    /// Returns the node or the identity with this oid, unless it moves to another node.
    pub(super) fn holder(&self, oid: Oid) -> Result<&Holder, UnknownIdentity> {
        if self.secrets.node.oid == oid {
            return Ok(&self.secrets.node);
        }
        self.identity(oid)
    }

    pub(super) fn holder_mut(&mut self, oid: Oid) -> Result<&mut Holder, UnknownIdentity> {
        let Secrets {
            node, identities, ..
        } = &mut self.secrets;
        let mut holders = std::iter::once(node).chain(identities);
        holders
            .find(|holder| holder.oid == oid)
            .ok_or(UnknownIdentity(oid))
    }

    /// Replaces the file, under a new nonce.
    pub(super) fn save(&mut self, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.check_unchanged()?;
        let mut header = file.header;
        rng.fill_bytes(&mut header.nonce);
        private_file::replace(&file.path, &header.seal(&file.key, self.secrets.encode())?)?;
        file.header = header;
        Ok(())
    }
}

impl VaultFile {
    fn new(
        path: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, VaultError> {
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let (params, key) = KeyParams::derive(passphrase, salt, cost)?;
        let header = VaultHeader { params, nonce };
        let path = path.into();
        Ok(Self { path, key, header })
    }

    /// Checks that no other process wrote the file: every write has a new nonce, so headers differ.
    fn check_unchanged(&self) -> Result<(), VaultError> {
        let bytes = private_file::read(&self.path, FILE_BYTES_MAX)?;
        if format::parse(&bytes)?.header == self.header {
            Ok(())
        } else {
            Err(VaultError::ChangedMeanwhile)
        }
    }
}

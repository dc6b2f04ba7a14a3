//! The vault: every secret of a node in one sealed file, and [`KeyManager`], which signs without giving a secret out.
//!
//! Sealed by Argon2id and XChaCha20-Poly1305 (`vault/format.rs` draws the bytes); mode 0600, refused when looser; replaced as
//! a whole. Never prints a secret, never keeps the passphrase. Invariant: a key that has signed anything, or whose oid
//! was handed out, is on the disk before (unless the manager is in memory only).

mod format;
mod secrets;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::chain::KeyChain;
use crate::home::HomeRecord;
use crate::ids::{Oid, OnionAddr, PeerId, Signature};
use crate::locked::Locked;
use crate::passphrase::{KdfCost, Passphrase};
use crate::private_file::{self, FileError};
use crate::sealing::SealingKey;
use crate::signed_object::SignedObject;
use crate::signing::{Context, signing_input};
use format::{FILE_BYTES_MAX, Header};
use secrets::{Holder, IDENTITIES_MAX, Secrets};

/// Why a vault was not opened, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another kind of file.
    #[error("this file is not a vault")]
    NotAVault,
    /// Made by another version of this program.
    #[error("the vault has version {0}, which this program does not know; it knows version 1")]
    UnknownVersion(u16),
    /// The file ends too early: an interrupted copy, a full disk.
    #[error("the vault is cut short; restore it from a copy")]
    Truncated,
    /// The checksum does not fit: the disk or a copy changed it.
    #[error("the vault is damaged; restore it from a copy")]
    Damaged,
    /// The cipher refuses. A wrong passphrase and a deliberate change look the same.
    #[error("wrong passphrase, or the vault was tampered with")]
    WrongPassphraseOrTampered,
    /// A passphrase without a character.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// Argon2id's parameters are not within their limits; the file may have been tampered with.
    #[error("the vault's cost is out of bounds: {} KiB, {} passes, {} lanes", .0.memory_kib, .0.passes, .0.lanes)]
    CostOutOfBounds(KdfCost),
    /// Too little memory to derive the key.
    #[error("opening the vault takes {0} KiB of memory, which this machine does not give")]
    OutOfMemory(u32),
    /// It opened, but its keys and chains do not fit each other: a fault of this program.
    #[error("the vault's keys do not fit its key chains")]
    Inconsistent,
    /// Another process wrote the file since it was opened here; saving would lose that process's keys.
    #[error("another process changed the vault; start again to see its keys")]
    ChangedMeanwhile,
    /// No room for another identity or rotation.
    #[error("the vault is full")]
    Full,
    /// See [`UnknownIdentity`].
    #[error(transparent)]
    UnknownIdentity(#[from] UnknownIdentity),
}

/// This node holds no key of that identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key of identity {0} is held here")]
pub struct UnknownIdentity(pub Oid);

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
        let Some(old) = &state.file else { return Ok(()) };
        old.check_unchanged()?;
        let sealed = Sealed::new(&old.path, passphrase, cost, rng)?;
        private_file::replace(&old.path, &sealed.header.seal(&sealed.key, state.secrets.encode())?)?;
        state.file = Some(sealed);
        Ok(())
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

    /// The node's onion address.
    pub fn onion(&self) -> OnionAddr {
        self.read().secrets.onion.onion_addr()
    }

    /// Hands the onion key's seed to `use_it`: arti needs it in memory.
    pub fn with_onion_seed<R>(&self, use_it: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.read().secrets.onion.with_seed(use_it)
    }

    /// The key that seals tickets of this onion service. It is a digest of the onion's key, so it lies in the vault with
    /// it, and a node with another onion address knows none of the old tickets.
    pub fn ticket_key(&self) -> SealingKey {
        self.read().secrets.onion.with_seed(|seed| {
            let input = Zeroizing::new(signing_input(Context::TicketKey, &[seed]));
            SealingKey::from_bytes(&Zeroizing::new(Sha256::digest(&*input).into()))
        })
    }

    /// Signs with the node's current key.
    pub fn sign_as_node(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.read().secrets.node.current.sign(context, parts)
    }

    /// Signs with the onion's key.
    pub fn sign_as_onion(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.read().secrets.onion.sign(context, parts)
    }

    /// Signs a payload with the node's current key into a COSE_Sign1 envelope.
    pub fn sign1_as_node(&self, context: Context, payload: &[u8]) -> Vec<u8> {
        self.read().secrets.node.current.sign1(context, payload)
    }

    /// The identities held here, oldest first.
    pub fn identities(&self) -> Vec<Oid> {
        self.read().secrets.identities.iter().map(|holder| holder.oid).collect()
    }

    /// The key chain of an identity held here.
    pub fn identity_chain(&self, identity: Oid) -> Option<KeyChain> {
        let state = self.read();
        state.identity(identity).ok().map(|holder| holder.chain.clone())
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

    /// Makes the next key of an identity, or of the node (by its server oid), the current one and commits to another.
    ///
    /// The owner's live objects must then be signed again.
    pub fn rotate(&self, holder: Oid, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let mut state = self.write();
        let rotated = state.holder(holder)?.rotated(rng)?;
        let before = std::mem::replace(state.holder_mut(holder)?, rotated);
        if let Err(error) = state.save(rng) {
            *state.holder_mut(holder)? = before;
            return Err(error);
        }
        Ok(())
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
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
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
        identities.find(|holder| holder.oid == oid).ok_or(UnknownIdentity(oid))
    }

    fn holder(&self, oid: Oid) -> Result<&Holder, UnknownIdentity> {
        if self.secrets.node.oid == oid {
            return Ok(&self.secrets.node);
        }
        self.identity(oid)
    }

    fn holder_mut(&mut self, oid: Oid) -> Result<&mut Holder, UnknownIdentity> {
        let Secrets { node, identities, .. } = &mut self.secrets;
        let mut holders = std::iter::once(node).chain(identities);
        holders.find(|holder| holder.oid == oid).ok_or(UnknownIdentity(oid))
    }

    /// Writes the file anew, under a new nonce.
    fn save(&mut self, rng: &mut dyn CryptoRng) -> Result<(), VaultError> {
        let Some(sealed) = &mut self.file else { return Ok(()) };
        sealed.check_unchanged()?;
        let mut header = sealed.header;
        rng.fill_bytes(&mut header.nonce);
        private_file::replace(&sealed.path, &header.seal(&sealed.key, self.secrets.encode())?)?;
        sealed.header = header;
        Ok(())
    }
}

impl Sealed {
    fn new(path: &Path, passphrase: &Passphrase, cost: KdfCost, rng: &mut dyn CryptoRng) -> Result<Self, VaultError> {
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        Ok(Self {
            path: path.into(),
            key: cost.derive(passphrase, &salt)?,
            header: Header { cost, salt, nonce },
        })
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
mod tests;

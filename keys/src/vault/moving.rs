//! Identities that move to another node: their keys leave the vault in a sealed file.
//!
//! The old vault reveals the next key once, and then signs nothing for the identity. The new vault
//! takes chain and keys from the file. Input and output: a [`Handover`] within a sealed stream.
//! Invariants: the event that reveals the next key is on the disk before a file is written, and is
//! made once. Two vaults sign under one key only if two nodes receive files of one identity. Tested
//! in `vault/moving_tests.rs`.

use std::fmt;
use std::io::{self, Read, Write};

use data_encoding::HEXLOWER_PERMISSIVE;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::VaultError;
use super::manager::KeyManager;
use super::secrets::{Holder, IDENTITIES_MAX, Next, Residence};
use crate::backup::{
    BackupSealer, OpeningReader, SealError, SealingWriter, StreamKind, file_key_of,
};
use crate::chain::KeyChain;
use crate::codec::{self, Limits};
use crate::ids::{Oid, PeerId};
use crate::locked::Locked;
use crate::passphrase::Passphrase;
use crate::signing::SecretKey;

const SEED_BYTES: usize = 32;
/// Longest public part of a handover, in bytes: a chain of 32 events has some 4,600.
const FACTS_BYTES_MAX: usize = 8192;

/// An identity of the vault that moves to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovingIdentity {
    /// The identity.
    pub identity: Oid,
    /// The node to which it moves.
    pub target: PeerId,
    /// Counter of the home record that the node signs, or a lower bound of it.
    pub counter: u64,
    /// Number of the key under which the node signs.
    pub key_id: u32,
}

/// The keys of an identity that moves to another node. `Debug` prints no key.
pub struct Handover {
    holder: Holder,
    facts: HandoverFacts,
}

/// The public part of a handover.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandoverFacts {
    chain: KeyChain,
    source: PeerId,
    target: PeerId,
    counter: u64,
}

impl Handover {
    /// Returns the identity.
    pub fn identity(&self) -> Oid {
        self.holder.oid
    }

    /// Returns its key chain, with the event that the move made.
    pub fn chain(&self) -> &KeyChain {
        &self.facts.chain
    }

    /// Returns the node from which it moves.
    pub fn source(&self) -> PeerId {
        self.facts.source
    }

    /// Returns the node to which it moves.
    pub fn target(&self) -> PeerId {
        self.facts.target
    }

    /// Returns the lowest counter of the new home record.
    pub fn counter(&self) -> u64 {
        self.facts.counter
    }

    /// Writes the keys into a sealed stream.
    ///
    /// # Errors
    /// Every error of the stream.
    pub fn write_to<W: Write>(&self, out: &mut SealingWriter<W>) -> io::Result<()> {
        let facts = codec::encode(&self.facts);
        let next = self.holder.next.present().ok_or_else(malformed)?;
        for key in [&self.holder.current, next] {
            key.with_seed(|seed| out.write_all(seed))?;
        }
        out.write_all(&(facts.len() as u32).to_be_bytes())?;
        out.write_all(&facts)
    }

    /// Reads the keys from the begin of a sealed stream.
    ///
    /// # Errors
    /// Every error of the stream; [`io::ErrorKind::InvalidData`] if the keys do not match the
    /// chain.
    pub fn read_from<R: Read>(file: &mut OpeningReader<R>) -> io::Result<Self> {
        let mut seed = || {
            let mut bytes = Zeroizing::new([0; SEED_BYTES]);
            file.read_exact(&mut *bytes)?;
            Ok::<_, io::Error>(SecretKey::from_seed(&bytes))
        };
        let (current, next) = (seed()?, seed()?);
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FACTS_BYTES_MAX {
            return Err(malformed());
        }
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        let limits = Limits {
            bytes_max: FACTS_BYTES_MAX,
            depth_max: 6,
            items_max: FACTS_BYTES_MAX,
        };
        let facts: HandoverFacts = codec::decode(&bytes, &limits).map_err(|_| malformed())?;
        let chain = facts.chain.clone();
        let holder = Holder::restore(chain, current, Next::Present(next));
        let holder = holder.map_err(|_| malformed())?;
        Ok(Self { holder, facts })
    }
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the file does not contain the keys of an identity",
    )
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handover({})", self.holder.oid.short())
    }
}

/// The key of one file that moves an identity. The passphrase of the old node's vault gives it.
/// Another process can open this file with it, and nothing else.
pub struct MoveFileKey(Locked<32>);

impl MoveFileKey {
    /// Derives the key from the passphrase that the old vault had when the file was written. Takes
    /// the time and memory of the vault's cost.
    ///
    /// # Errors
    /// [`SealError`]: the file is of another kind, or the passphrase is wrong.
    pub fn derive<R: Read>(file: R, passphrase: &Passphrase) -> Result<Self, SealError> {
        file_key_of(file, StreamKind::Move, passphrase).map(Self)
    }

    /// Returns the key as 64 hexadecimal digits, for the local API.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*self.0))
    }

    /// Reads [`MoveFileKey::to_hex`].
    ///
    /// # Errors
    /// [`SealError::NoKey`].
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map(Zeroizing::new);
        let bytes = bytes.map_err(|_| SealError::NoKey)?;
        let key = bytes.as_slice().try_into().map_err(|_| SealError::NoKey)?;
        Ok(Self(Locked::copy_of(key)))
    }

    /// Opens the file.
    ///
    /// # Errors
    /// [`SealError`]: the file is of another kind. A wrong key is reported by the first read.
    pub fn open<R: Read>(&self, file: R) -> Result<OpeningReader<R>, SealError> {
        OpeningReader::with_file_key(file, StreamKind::Move, &self.0)
    }
}

impl fmt::Debug for MoveFileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- key of a file ---")
    }
}

impl KeyManager {
    /// Begins the move of an identity to a node: reveals its next key, and signs nothing for it
    /// from then on. Repeated for the same node, changes nothing. For another node, raises the
    /// counter, so that the later home record counts. `counter` is above that of every known home
    /// record.
    ///
    /// # Errors
    /// [`VaultError::ChainFull`], [`VaultError::NextKeyOffline`], [`VaultError::UnknownIdentity`],
    /// [`VaultError::ChangedMeanwhile`], [`VaultError::File`].
    pub fn begin_move(
        &self,
        identity: Oid,
        (target, counter): (PeerId, u64),
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        let mut state = self.write();
        let old = match state.any_identity(identity) {
            Some(old) => old,
            None => state.changeable(identity)?,
        };
        if old.oid == state.secrets.node.oid {
            return Err(super::error::UnknownIdentity(identity).into());
        }
        let new = match old.residence {
            Residence::Away(known, _) if known == target => return Ok(()),
            Residence::Away(_, known) => {
                let counter = counter.max(known.saturating_add(1));
                Holder {
                    residence: Residence::Away(target, counter),
                    ..old.clone()
                }
            }
            Residence::Here | Residence::Arrived(_) => {
                let next = old.next.present().ok_or(VaultError::NextKeyOffline)?;
                Holder {
                    residence: Residence::Away(target, counter),
                    ..old.rotated(next, rng)?
                }
            }
        };
        state.exchange(new, rng)
    }

    /// Returns the identities that move to other nodes, oldest first.
    pub fn moving(&self) -> Vec<MovingIdentity> {
        let state = self.read();
        let moving = state.secrets.identities.iter().filter_map(moving);
        moving.collect()
    }

    /// Returns an identity that moves to another node. `None`: it does not.
    pub fn moving_identity(&self, identity: &Oid) -> Option<MovingIdentity> {
        self.read().any_identity(*identity).and_then(moving)
    }

    /// Returns the keys of an identity that moves to another node.
    ///
    /// # Errors
    /// [`VaultError::UnknownIdentity`] if it does not move.
    pub fn hand_over(&self, identity: Oid) -> Result<Handover, VaultError> {
        let state = self.read();
        let holder = state.any_identity(identity);
        let Some((holder, Residence::Away(target, counter))) =
            holder.map(|holder| (holder, holder.residence))
        else {
            return Err(super::error::UnknownIdentity(identity).into());
        };
        Ok(Handover {
            holder: holder.clone(),
            facts: HandoverFacts {
                chain: holder.chain.clone(),
                source: PeerId::from_bytes(*state.secrets.node.chain.genesis.first.as_bytes()),
                target,
                counter,
            },
        })
    }

    /// Returns a sealer with the vault's key for a file that moves an identity.
    ///
    /// # Errors
    /// [`VaultError::InMemory`].
    pub fn move_sealer(&self, rng: &mut dyn CryptoRng) -> Result<BackupSealer, VaultError> {
        self.sealer(StreamKind::Move, rng)
    }

    /// Opens a file that moves an identity with the vault's key, to verify a file that was just
    /// written.
    ///
    /// # Errors
    /// As [`open_backup`](Self::open_backup).
    pub fn open_move<R: Read>(&self, file: R) -> Result<OpeningReader<R>, SealError> {
        self.open_own(StreamKind::Move, file)
    }

    /// Checks that this vault may take the keys of an identity that moves here.
    ///
    /// # Errors
    /// [`VaultError::OtherTarget`] if another node is named; [`VaultError::ForeignChain`] if the
    /// chain does not continue the one of this vault; [`VaultError::Full`].
    pub fn check_handover(&self, handover: &Handover) -> Result<(), VaultError> {
        let state = self.read();
        let node = PeerId::from_bytes(*state.secrets.node.chain.genesis.first.as_bytes());
        if handover.target() != node {
            return Err(VaultError::OtherTarget(handover.target()));
        }
        match state.any_identity(handover.identity()) {
            // The key was rotated since.
            Some(known) if !known.is_away() && known.chain.continues(handover.chain()) => Ok(()),
            Some(known) if handover.chain().continues(&known.chain) => Ok(()),
            Some(_) => Err(VaultError::ForeignChain),
            None if state.secrets.identities.len() >= IDENTITIES_MAX => Err(VaultError::Full),
            None => Ok(()),
        }
    }

    /// Takes the keys of an identity that moves here. They are on the disk when this returns.
    /// Repeated, changes nothing.
    ///
    /// # Errors
    /// As [`check_handover`](Self::check_handover); [`VaultError::ChangedMeanwhile`],
    /// [`VaultError::File`].
    pub fn take_over(
        &self,
        handover: &Handover,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VaultError> {
        self.check_handover(handover)?;
        let mut state = self.write();
        let counter = handover.counter();
        let new = |counter| Holder {
            residence: Residence::Arrived(counter),
            ..handover.holder.clone()
        };
        let Some(known) = state.any_identity(handover.identity()) else {
            state.secrets.identities.push(new(counter));
            if let Err(error) = state.save(rng) {
                state.secrets.identities.pop();
                return Err(error);
            }
            return Ok(());
        };
        let is_here = !known.is_away() && known.chain.continues(handover.chain());
        let known_counter = known.residence.counter();
        if is_here && known_counter >= counter {
            return Ok(());
        }
        let holder = match is_here {
            true => Holder {
                residence: Residence::Arrived(counter),
                ..known.clone()
            },
            false => new(counter.max(known_counter)),
        };
        state.exchange(holder, rng)
    }

    /// Returns the lowest counter of the home record of an identity that moved here; 0 for others.
    pub fn arrival_counter(&self, identity: &Oid) -> u64 {
        let state = self.read();
        let holder = state.any_identity(*identity);
        holder.map_or(0, |holder| match holder.residence {
            Residence::Arrived(counter) => counter,
            Residence::Here | Residence::Away(..) => 0,
        })
    }

    /// Removes the keys of an identity that lives at another node. The caller knows its new home.
    /// Returns `false` if the vault has none.
    ///
    /// # Errors
    /// [`VaultError::ChangedMeanwhile`], [`VaultError::File`].
    pub fn forget_identity(
        &self,
        identity: Oid,
        rng: &mut dyn CryptoRng,
    ) -> Result<bool, VaultError> {
        let mut state = self.write();
        let mut holders = state.secrets.identities.iter();
        let Some(place) = holders.position(|holder| holder.oid == identity) else {
            return Ok(false);
        };
        let removed = state.secrets.identities.remove(place);
        if let Err(error) = state.save(rng) {
            state.secrets.identities.insert(place, removed);
            return Err(error);
        }
        Ok(true)
    }
}

impl Residence {
    fn counter(self) -> u64 {
        match self {
            Self::Here => 0,
            Self::Arrived(counter) | Self::Away(_, counter) => counter,
        }
    }
}

fn moving(holder: &Holder) -> Option<MovingIdentity> {
    match holder.residence {
        Residence::Away(target, counter) => Some(MovingIdentity {
            identity: holder.oid,
            target,
            counter,
            key_id: holder.key_id(),
        }),
        Residence::Here | Residence::Arrived(_) => None,
    }
}

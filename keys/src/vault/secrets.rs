//! The plaintext of the vault: the onion key, and for the node and each identity its chain and
//! keys.
//!
//! Version 2 has, in this order:
//!
//! 1. the onion key (64 bytes)
//! 2. the number of seeds (4 bytes, big-endian)
//! 3. the seeds, 32 bytes each
//! 4. canonical CBOR `[node, [identity, …]]`, each `[has_next, chain]`; a third element follows if
//!    an identity moves or moved here: `[[oid, counter, node or null], …]`
//!
//! The seeds are the node's current and next key, then each identity's, without offline next keys.
//! Seeds are not in the CBOR, because an encoder's growing buffer would leave copies of them in
//! memory. Invariant: the current key of every holder is the last of its chain. Its next key, if
//! present, is the one that the chain commits to. Tested below.

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::format::FILE_BYTES_MAX;
use crate::chain::{Genesis, KeyChain, commitment};
use crate::codec::{self, Limits};
use crate::ids::{Digest, Oid, PeerId};
use crate::onion_key::OnionKey;
use crate::protocol::KEY_EVENTS_MAX;
use crate::signing::SecretKey;

/// Most identities of one node: enough for any household or club, and the file stays below its
/// limit.
pub(super) const IDENTITIES_MAX: usize = 1000;
const ONION_BYTES: usize = 64;
const SEED_BYTES: usize = 32;

/// The key that a chain commits to.
#[derive(Clone)]
pub(super) enum Next {
    /// The key is in this vault.
    Present(SecretKey),
    /// The key was exported as a recovery key, or lost.
    Offline,
}

/// An identity or the node: its chain, its signing key, and the key after it.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) oid: Oid,
    pub(super) chain: KeyChain,
    pub(super) current: SecretKey,
    pub(super) next: Next,
    pub(super) residence: Residence,
}

/// Where an identity signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residence {
    /// Here.
    Here,
    /// Here, after it moved to this node. Its home record has this counter or a higher one.
    Arrived(u64),
    /// At the node to which it moves, whose home record has this counter. Nothing is signed here.
    Away(PeerId, u64),
}

/// Everything secret of one node.
pub(super) struct Secrets {
    pub(super) onion: OnionKey,
    pub(super) node: Holder,
    /// In the order of their creation.
    pub(super) identities: Vec<Holder>,
}

impl Holder {
    pub(super) fn generate(rng: &mut dyn CryptoRng) -> Self {
        let (current, next) = (SecretKey::generate(rng), SecretKey::generate(rng));
        let chain = KeyChain::new(Genesis::new(current.public(), &next.public()));
        Self {
            oid: chain.oid(),
            chain,
            current,
            next: Next::Present(next),
            residence: Residence::Here,
        }
    }

    /// Returns whether the keys wait for the node to which the identity moves.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.residence, Residence::Away(..))
    }

    /// Returns the number of the current key.
    pub(super) fn key_id(&self) -> u32 {
        self.chain.events.len() as u32
    }

    /// Returns whether the chain commits to this key.
    pub(super) fn is_next(&self, key: &SecretKey) -> bool {
        commitment(&key.public()) == committed(&self.chain)
    }

    /// Returns the holder after a rotation to `revealed`, which must be its next key.
    ///
    /// # Errors
    /// [`VaultError::ChainFull`] if the chain already has [`KEY_EVENTS_MAX`] events.
    pub(super) fn rotated(
        &self,
        revealed: &SecretKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, VaultError> {
        if self.chain.events.len() >= KEY_EVENTS_MAX {
            return Err(VaultError::ChainFull);
        }
        let (mut chain, next) = (self.chain.clone(), SecretKey::generate(rng));
        chain.rotate(revealed, &next.public());
        Ok(Self {
            oid: self.oid,
            chain,
            current: revealed.clone(),
            next: Next::Present(next),
            residence: self.residence,
        })
    }

    /// Combines a chain and its keys. Fails if the keys do not match the chain.
    pub(super) fn restore(
        chain: KeyChain,
        current: SecretKey,
        next: Next,
    ) -> Result<Self, VaultError> {
        let verified = chain.verify().map_err(|_| VaultError::Inconsistent)?;
        let is_committed = match &next {
            Next::Present(next) => committed(&chain) == commitment(&next.public()),
            Next::Offline => true,
        };
        if verified.current() != current.public() || !is_committed {
            return Err(VaultError::Inconsistent);
        }
        Ok(Self {
            oid: verified.oid(),
            chain,
            current,
            next,
            residence: Residence::Here,
        })
    }

    fn keys(&self) -> impl Iterator<Item = &SecretKey> {
        std::iter::once(&self.current).chain(self.next.present())
    }
}

impl Next {
    /// Returns the key if it is in this vault.
    pub(super) fn present(&self) -> Option<&SecretKey> {
        match self {
            Self::Present(key) => Some(key),
            Self::Offline => None,
        }
    }
}

/// An identity that moves or moved here, as stored.
type MovedRecord = (Oid, u64, Option<PeerId>);

fn moved_record(holder: &Holder) -> Option<MovedRecord> {
    match holder.residence {
        Residence::Here => None,
        Residence::Arrived(counter) => Some((holder.oid, counter, None)),
        Residence::Away(node, counter) => Some((holder.oid, counter, Some(node))),
    }
}

fn committed(chain: &KeyChain) -> Digest {
    chain
        .events
        .last()
        .map_or(chain.genesis.next, |event| event.next)
}

impl Secrets {
    /// Creates the secrets of a node without identities.
    pub(super) fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self {
            onion: OnionKey::generate(rng),
            node: Holder::generate(rng),
            identities: Vec::new(),
        }
    }

    /// Returns the node and then the identities.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.node).chain(&self.identities)
    }

    /// Returns why the memory of some key is not locked, or `None` if all of it is.
    pub(super) fn lock_fault(&self) -> Option<&str> {
        let mut faults = self
            .holders()
            .flat_map(Holder::keys)
            .map(SecretKey::lock_fault);
        self.onion
            .lock_fault()
            .or_else(|| faults.find_map(|fault| fault))
    }

    /// Returns the plaintext to seal, written into a buffer that does not grow.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        fn record(holder: &Holder) -> (bool, &KeyChain) {
            (holder.next.present().is_some(), &holder.chain)
        }
        let identities: Vec<_> = self.identities.iter().map(record).collect();
        let moved = self.identities.iter().filter_map(moved_record);
        let moved: Vec<MovedRecord> = moved.collect();
        let records = match moved.is_empty() {
            true => codec::encode(&(record(&self.node), identities)),
            false => codec::encode(&(record(&self.node), identities, moved)),
        };
        let seeds = self.holders().flat_map(Holder::keys).count();
        let bytes = ONION_BYTES + 4 + seeds * SEED_BYTES + records.len();
        let mut plain = Zeroizing::new(Vec::with_capacity(bytes));
        self.onion
            .with_secret(|secret| plain.extend_from_slice(secret));
        plain.extend_from_slice(&(seeds as u32).to_be_bytes());
        for key in self.holders().flat_map(Holder::keys) {
            key.with_seed(|seed| plain.extend_from_slice(seed));
        }
        plain.extend_from_slice(&records);
        plain
    }

    /// Decodes a plaintext that the cipher authenticated.
    ///
    /// # Errors
    /// [`VaultError::Inconsistent`]: this program wrote it, so any fault is this program's.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, VaultError> {
        let fault = || VaultError::Inconsistent;
        let (onion, rest) = plain.split_first_chunk::<ONION_BYTES>().ok_or_else(fault)?;
        let onion = OnionKey::from_expanded(onion).ok_or_else(fault)?;
        let (count, mut rest) = rest.split_first_chunk().ok_or_else(fault)?;
        let mut seeds = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let (seed, after) = rest.split_first_chunk::<SEED_BYTES>().ok_or_else(fault)?;
            seeds.push(SecretKey::from_seed(seed));
            rest = after;
        }
        let limits = Limits {
            bytes_max: FILE_BYTES_MAX,
            depth_max: 8,
            items_max: FILE_BYTES_MAX,
        };
        type Record = (bool, KeyChain);
        let (node, identities, moved): (Record, Vec<Record>, Vec<MovedRecord>) =
            match codec::decode(rest, &limits) {
                Ok(records) => records,
                Err(_) => {
                    let (node, identities) = codec::decode(rest, &limits).map_err(|_| fault())?;
                    (node, identities, Vec::new())
                }
            };
        let mut seeds = seeds.into_iter();
        let mut holder = |(is_present, chain): Record| {
            let current = seeds.next().ok_or_else(fault)?;
            let next = match is_present {
                true => Next::Present(seeds.next().ok_or_else(fault)?),
                false => Next::Offline,
            };
            Holder::restore(chain, current, next)
        };
        let node = holder(node)?;
        let mut identities: Vec<Holder> = identities
            .into_iter()
            .map(&mut holder)
            .collect::<Result<_, _>>()?;
        if seeds.next().is_some() {
            return Err(fault());
        }
        for (oid, counter, node) in moved {
            let mut holders = identities.iter_mut();
            let holder = holders.find(|holder| holder.oid == oid);
            holder.ok_or_else(fault)?.residence = match node {
                Some(node) => Residence::Away(node, counter),
                None => Residence::Arrived(counter),
            };
        }
        Ok(Self {
            onion,
            node,
            identities,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn secrets() -> Secrets {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(5);
        let mut secrets = Secrets::generate(&mut rng);
        secrets.identities.push(Holder::generate(&mut rng));
        let bob = Holder::generate(&mut rng);
        let next = bob.next.present().unwrap();
        secrets
            .identities
            .push(bob.rotated(next, &mut rng).unwrap());
        secrets.identities.push(Holder {
            next: Next::Offline,
            ..Holder::generate(&mut rng)
        });
        secrets
    }

    #[test]
    fn moves_round_trip_and_secrets_without_them_keep_their_form() {
        let mut moving = secrets();
        let plain = moving.encode();
        let node = PeerId::from_bytes([7; PeerId::LEN]);
        let residences = [
            Residence::Away(node, 5),
            Residence::Here,
            Residence::Arrived(3),
        ];
        for (holder, residence) in moving.identities.iter_mut().zip(residences) {
            holder.residence = residence;
        }
        let back = Secrets::decode(&moving.encode()).unwrap();
        let found: Vec<_> = back.identities.iter().map(|it| it.residence).collect();
        assert_eq!(found, residences);
        let mut back = Secrets::decode(&plain).unwrap();
        assert!(
            back.identities
                .iter()
                .all(|it| it.residence == Residence::Here)
        );
        back.identities[0].residence = Residence::Arrived(1);
        assert_ne!(*back.encode(), *plain);
    }

    #[test]
    fn secrets_round_trip_without_growing_a_buffer() {
        let plain = secrets().encode();
        assert_eq!(plain.len(), plain.capacity());
        let back = Secrets::decode(&plain).unwrap();
        assert_eq!(*back.encode(), *plain);
        assert_eq!(back.identities[1].key_id(), 1);
        assert_eq!(back.identities[1].oid, secrets().identities[1].oid);
        let is_present = |holder: &Holder| holder.next.present().is_some();
        assert!(
            is_present(&back.node)
                && is_present(&back.identities[1])
                && !is_present(&back.identities[2])
        );
    }

    #[test]
    fn decode_refuses_keys_that_do_not_match_their_chains() {
        let mut swapped = secrets();
        swapped.identities[0].current = swapped.identities[0].next.present().unwrap().clone();
        assert!(matches!(
            Secrets::decode(&swapped.encode()),
            Err(VaultError::Inconsistent)
        ));
        let mut uncommitted = secrets();
        uncommitted.node.next = uncommitted.identities[0].next.clone();
        assert!(matches!(
            Secrets::decode(&uncommitted.encode()),
            Err(VaultError::Inconsistent)
        ));
        let mut missing = secrets().encode();
        let count = missing[ONION_BYTES + 3];
        assert_eq!(count, 7);
        missing[ONION_BYTES + 3] = count - 1;
        missing.drain(ONION_BYTES + 4..ONION_BYTES + 4 + SEED_BYTES);
        assert!(matches!(
            Secrets::decode(&missing),
            Err(VaultError::Inconsistent)
        ));
        let plain = secrets().encode();
        for length in 0..plain.len() {
            assert!(Secrets::decode(&plain[..length]).is_err(), "{length}");
        }
    }
}

//! What the vault keeps: the onion's key, and of the node and each identity the chain, the current key and the next.
//!
//! Plaintext of version 2: the onion's key (64 bytes); the number of seeds (4 bytes, big-endian); the seeds of 32 bytes
//! each: the node's current and next, each identity's current and next, without the next keys that are offline; then
//! canonical CBOR `[node, [identity, …]]`, each `[whether the next key is here, chain]`.
//! Seeds stand apart from the CBOR so that no encoder's growing buffer leaves copies of them in memory.
//! Invariant: every holder's current key is the one its chain ends in, and its next key, if here, the one committed to.

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::VaultError;
use crate::chain::{Genesis, KeyChain, commitment};
use crate::codec::{self, Limits};
use crate::ids::{Digest, Oid};
use crate::onion_key::OnionKey;
use crate::signing::SecretKey;

/// Most identities of one node; far above what a household or a club needs, and the file stays below its limit.
pub(super) const IDENTITIES_MAX: usize = 1000;
/// Most rotations of one key that a vault is read with; what peers take is far less.
pub(super) const EVENTS_MAX: usize = 1000;
const ONION_BYTES: usize = 64;
const SEED_BYTES: usize = 32;

/// The key that a chain commits to.
#[derive(Clone)]
pub(super) enum Next {
    /// In this vault.
    Here(SecretKey),
    /// Elsewhere, as a recovery key, or lost.
    Offline,
}

/// An identity or the node: who can sign as it, and who can do so next.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) oid: Oid,
    pub(super) chain: KeyChain,
    pub(super) current: SecretKey,
    pub(super) next: Next,
}

/// Everything secret of one node.
pub(super) struct Secrets {
    pub(super) onion: OnionKey,
    pub(super) node: Holder,
    /// In the order in which they were made.
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
            next: Next::Here(next),
        }
    }

    /// Number of the current key.
    pub(super) fn key_id(&self) -> u32 {
        self.chain.events.len() as u32
    }

    /// Whether this is the key that the chain commits to.
    pub(super) fn is_next(&self, key: &SecretKey) -> bool {
        commitment(&key.public()) == committed(&self.chain)
    }

    /// The same holder after `revealed`, which must be its next key, became the current one and another was committed to,
    /// which is here. At most `events_max` rotations.
    pub(super) fn rotated(
        &self,
        revealed: &SecretKey,
        events_max: usize,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, VaultError> {
        // A vault with a longer chain would not be read again.
        let events_max = events_max.min(EVENTS_MAX);
        if self.chain.events.len() >= events_max {
            return Err(VaultError::ChainFull(events_max));
        }
        let (mut chain, next) = (self.chain.clone(), SecretKey::generate(rng));
        chain.rotate(revealed, &next.public());
        Ok(Self {
            oid: self.oid,
            chain,
            current: revealed.clone(),
            next: Next::Here(next),
        })
    }

    /// Puts keys to a chain, if they are the chain's.
    fn restore(chain: KeyChain, current: SecretKey, next: Next) -> Result<Self, VaultError> {
        let verified = chain
            .verify(EVENTS_MAX)
            .map_err(|_| VaultError::Inconsistent)?;
        let is_committed = match &next {
            Next::Here(next) => committed(&chain) == commitment(&next.public()),
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
        })
    }

    fn keys(&self) -> impl Iterator<Item = &SecretKey> {
        std::iter::once(&self.current).chain(self.next.here())
    }
}

impl Next {
    /// The key, if it is in this vault.
    pub(super) fn here(&self) -> Option<&SecretKey> {
        match self {
            Self::Here(key) => Some(key),
            Self::Offline => None,
        }
    }
}

fn committed(chain: &KeyChain) -> Digest {
    chain
        .events
        .last()
        .map_or(chain.genesis.next, |event| event.next)
}

impl Secrets {
    /// A new node: its key and the next one, its onion's key, no identity.
    pub(super) fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self {
            onion: OnionKey::generate(rng),
            node: Holder::generate(rng),
            identities: Vec::new(),
        }
    }

    /// The node first, then the identities.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.node).chain(&self.identities)
    }

    /// Why the memory of some key is not locked, if it is not.
    pub(super) fn lock_fault(&self) -> Option<&str> {
        let mut faults = self
            .holders()
            .flat_map(Holder::keys)
            .map(SecretKey::lock_fault);
        self.onion
            .lock_fault()
            .or_else(|| faults.find_map(|fault| fault))
    }

    /// The plaintext to seal. Written once into a buffer that is large enough.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        fn record(holder: &Holder) -> (bool, &KeyChain) {
            (holder.next.here().is_some(), &holder.chain)
        }
        let identities: Vec<_> = self.identities.iter().map(record).collect();
        let records = codec::encode(&(record(&self.node), identities));
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

    /// Reads a plaintext that the cipher authenticated. It was written by this program, so any fault is ours.
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
            bytes_max: super::format::FILE_BYTES_MAX,
            depth_max: 8,
            items_max: super::format::FILE_BYTES_MAX,
        };
        type Record = (bool, KeyChain);
        let (node, identities): (Record, Vec<Record>) =
            codec::decode(rest, &limits).map_err(|_| fault())?;
        let mut seeds = seeds.into_iter();
        let mut holder = |(is_here, chain): Record| {
            let current = seeds.next().ok_or_else(fault)?;
            let next = match is_here {
                true => Next::Here(seeds.next().ok_or_else(fault)?),
                false => Next::Offline,
            };
            Holder::restore(chain, current, next)
        };
        let node = holder(node)?;
        let identities = identities
            .into_iter()
            .map(&mut holder)
            .collect::<Result<_, _>>()?;
        if seeds.next().is_some() {
            return Err(fault());
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
        let next = bob.next.here().unwrap();
        secrets
            .identities
            .push(bob.rotated(next, 1, &mut rng).unwrap());
        secrets.identities.push(Holder {
            next: Next::Offline,
            ..Holder::generate(&mut rng)
        });
        secrets
    }

    #[test]
    fn secrets_come_back_as_they_were_without_growing_a_buffer() {
        let plain = secrets().encode();
        assert_eq!(plain.len(), plain.capacity());
        let back = Secrets::decode(&plain).unwrap();
        assert_eq!(*back.encode(), *plain);
        assert_eq!(back.identities[1].key_id(), 1);
        assert_eq!(back.identities[1].oid, secrets().identities[1].oid);
        let is_here = |holder: &Holder| holder.next.here().is_some();
        assert!(
            is_here(&back.node) && is_here(&back.identities[1]) && !is_here(&back.identities[2])
        );
    }

    #[test]
    fn keys_that_do_not_fit_their_chains_are_refused() {
        let mut swapped = secrets();
        swapped.identities[0].current = swapped.identities[0].next.here().unwrap().clone();
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

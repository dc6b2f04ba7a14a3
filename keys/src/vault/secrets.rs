//! What the vault keeps: the onion's key, and of the node and each identity the chain, the current key and the next.
//!
//! Plaintext of version 1: the number of seeds (4 bytes, big-endian); the seeds of 32 bytes each: the onion's, the
//! node's current and next, each identity's current and next; then canonical CBOR `[node chain, [identity chains]]`.
//! Seeds stand apart from the CBOR so that no encoder's growing buffer leaves copies of them in memory.
//! Invariant: every holder's current key is the one its chain ends in, and its next key the one committed to.

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::VaultError;
use crate::chain::{Genesis, KeyChain, commitment};
use crate::codec::{self, Limits};
use crate::ids::Oid;
use crate::signing::SecretKey;

/// Most identities of one node; far above what a household or a club needs, and the file stays below its limit.
pub(super) const IDENTITIES_MAX: usize = 1000;
/// Most rotations of one key.
const EVENTS_MAX: usize = 1000;
const SEED_BYTES: usize = 32;

/// An identity or the node: who can sign as it, and who can do so next.
pub(super) struct Holder {
    pub(super) oid: Oid,
    pub(super) chain: KeyChain,
    pub(super) current: SecretKey,
    next: SecretKey,
}

/// Everything secret of one node.
pub(super) struct Secrets {
    pub(super) onion: SecretKey,
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
            next,
        }
    }

    /// Number of the current key.
    pub(super) fn key_id(&self) -> u32 {
        self.chain.events.len() as u32
    }

    /// The same holder after it made its next key the current one and committed to another.
    pub(super) fn rotated(&self, rng: &mut dyn CryptoRng) -> Result<Self, VaultError> {
        if self.chain.events.len() >= EVENTS_MAX {
            return Err(VaultError::Full);
        }
        let (mut chain, next) = (self.chain.clone(), SecretKey::generate(rng));
        chain.rotate(&self.next, &next.public());
        Ok(Self {
            oid: self.oid,
            chain,
            current: self.next.clone(),
            next,
        })
    }

    /// Puts keys to a chain, if they are the chain's.
    fn restore(chain: KeyChain, current: SecretKey, next: SecretKey) -> Result<Self, VaultError> {
        let verified = chain.verify(EVENTS_MAX).map_err(|_| VaultError::Inconsistent)?;
        let committed = chain.events.last().map_or(chain.genesis.next, |event| event.next);
        if verified.current() != current.public() || committed != commitment(&next.public()) {
            return Err(VaultError::Inconsistent);
        }
        Ok(Self {
            oid: verified.oid(),
            chain,
            current,
            next,
        })
    }
}

impl Secrets {
    /// A new node: its key and the next one, its onion's key, no identity.
    pub(super) fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self {
            onion: SecretKey::generate(rng),
            node: Holder::generate(rng),
            identities: Vec::new(),
        }
    }

    /// The plaintext to seal. Written once into a buffer that is large enough.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let holders = || std::iter::once(&self.node).chain(&self.identities);
        let chains: Vec<_> = self.identities.iter().map(|holder| &holder.chain).collect();
        let chains = codec::encode(&(&self.node.chain, chains));
        let seeds = 1 + 2 * holders().count();
        let mut plain = Zeroizing::new(Vec::with_capacity(4 + seeds * SEED_BYTES + chains.len()));
        plain.extend_from_slice(&(seeds as u32).to_be_bytes());
        self.onion.with_seed(|seed| plain.extend_from_slice(seed));
        for key in holders().flat_map(|holder| [&holder.current, &holder.next]) {
            key.with_seed(|seed| plain.extend_from_slice(seed));
        }
        plain.extend_from_slice(&chains);
        plain
    }

    /// Reads a plaintext that the cipher authenticated. It was written by this program, so any fault is ours.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, VaultError> {
        let (count, mut rest) = plain.split_first_chunk().ok_or(VaultError::Inconsistent)?;
        let count = u32::from_be_bytes(*count) as usize;
        let mut seeds = Vec::new();
        for _ in 0..count {
            let (seed, after) = rest.split_first_chunk::<SEED_BYTES>().ok_or(VaultError::Inconsistent)?;
            seeds.push(SecretKey::from_seed(seed));
            rest = after;
        }
        let limits = Limits {
            bytes_max: super::format::FILE_BYTES_MAX,
            depth_max: 8,
            items_max: super::format::FILE_BYTES_MAX,
        };
        let (node, identities): (KeyChain, Vec<KeyChain>) =
            codec::decode(rest, &limits).map_err(|_| VaultError::Inconsistent)?;
        if count != 3 + 2 * identities.len() {
            return Err(VaultError::Inconsistent);
        }
        let mut seeds = seeds.into_iter();
        let mut seed = || seeds.next().ok_or(VaultError::Inconsistent);
        Ok(Self {
            onion: seed()?,
            node: Holder::restore(node, seed()?, seed()?)?,
            identities: identities
                .into_iter()
                .map(|chain| Holder::restore(chain, seed()?, seed()?))
                .collect::<Result<_, _>>()?,
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
        secrets
            .identities
            .push(Holder::generate(&mut rng).rotated(&mut rng).unwrap());
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
    }

    #[test]
    fn keys_that_do_not_fit_their_chains_are_refused() {
        let mut swapped = secrets();
        swapped.identities[0].current = swapped.identities[0].next.clone();
        assert!(matches!(
            Secrets::decode(&swapped.encode()),
            Err(VaultError::Inconsistent)
        ));
        let mut uncommitted = secrets();
        uncommitted.node.next = uncommitted.onion.clone();
        assert!(matches!(
            Secrets::decode(&uncommitted.encode()),
            Err(VaultError::Inconsistent)
        ));
        let plain = secrets().encode();
        for length in 0..plain.len() {
            assert!(Secrets::decode(&plain[..length]).is_err(), "{length}");
        }
    }
}

//! Key chains: the genesis record and key events of an identity or a node (docs/DECISIONS.md 5).
//!
//! A genesis names the first key and commits to the hash of the next key. An event reveals that
//! next key and commits to another (pre-rotation), so a thief of the current key cannot rotate. The
//! oid and the peer id stay the same across rotations. Input: a [`KeyChain`] as received. Output: a
//! [`VerifiedChain`]. Invariant: every commitment and signature of a [`VerifiedChain`] was checked;
//! a chain is accepted as a whole or not at all. Tested below and by the fuzz target `chain`.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::ids::{Digest, Oid, PeerId, PublicKey, Signature};
use crate::protocol::KEY_EVENTS_MAX;
use crate::signing::{BadSignature, Context, SecretKey, signing_input};

/// The first record of an identity or a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Commitment to the next key: see [`commitment`].
    pub next: Digest,
    /// The first key.
    pub first: PublicKey,
}

/// One rotation: reveals the key that the chain committed to, and commits to the key after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEvent {
    /// The revealed key, which is current until the next event.
    pub key: PublicKey,
    /// Commitment to the key after it.
    pub next: Digest,
    /// Signature by `key` over the oid, the event's number (4 bytes, big-endian, from 1), `key` and
    /// `next`.
    pub signature: Signature,
}

/// A genesis and all key events since, in wire form. Proves nothing until it is verified.
///
/// ```
/// use keys::{ChainError, Genesis, KeyChain, SecretKey};
///
/// let key = |seed| SecretKey::from_seed(&[seed; 32]);
/// let mut chain = KeyChain::new(Genesis::new(key(1).public(), &key(2).public()));
/// let oid = chain.oid();
///
/// // The second key is revealed, and the chain commits to a third.
/// chain.rotate(&key(2), &key(3).public());
/// let verified = chain.verify()?;
/// assert_eq!(verified.current(), key(2).public());
/// assert_eq!((verified.oid(), verified.key_id()), (oid, 1));
///
/// // A thief of the current key cannot rotate, because the chain commits to the third key.
/// chain.rotate(&key(2), &key(9).public());
/// assert_eq!(chain.verify(), Err(ChainError::NotCommitted(2)));
/// # Ok::<(), ChainError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChain {
    /// Rotations, oldest first.
    pub events: Vec<KeyEvent>,
    /// The first record, which gives the oid.
    pub genesis: Genesis,
}

/// A chain whose commitments and signatures all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    oid: Oid,
    keys: Vec<PublicKey>,
    current: PublicKey,
}

/// Why a chain is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// More than [`KEY_EVENTS_MAX`] events.
    #[error("the key chain has more than {KEY_EVENTS_MAX} events")]
    TooLong,
    /// The event with this number reveals a key that the chain did not commit to.
    #[error("key event {0} reveals a key that was not committed to")]
    NotCommitted(usize),
    /// The signature of the event with this number is invalid.
    #[error("key event {0} is not signed by the key that it reveals")]
    BadSignature(usize),
}

/// Returns the commitment to a next key: SHA-256 over context and key.
pub fn commitment(next: &PublicKey) -> Digest {
    Digest::of(&signing_input(Context::NextKey, &[next.as_bytes()]))
}

impl Genesis {
    /// Creates the record of a first key and the key that follows it.
    pub fn new(first: PublicKey, next: &PublicKey) -> Self {
        Self {
            next: commitment(next),
            first,
        }
    }

    /// Returns the oid of the identity or node: the first 16 bytes of SHA-256 over context and
    /// record.
    pub fn oid(&self) -> Oid {
        let digest = Digest::of(&signing_input(Context::Genesis, &[&codec::encode(self)]));
        let (head, _) = digest.as_bytes().split_at(Oid::LEN);
        Oid::from_slice(head).unwrap_or(Oid::from_bytes([0; 16]))
    }
}

fn event_parts(number: u32, key: &PublicKey, next: &Digest) -> ([u8; 4], [u8; 32], [u8; 32]) {
    (number.to_be_bytes(), *key.as_bytes(), *next.as_bytes())
}

impl KeyChain {
    /// Creates a chain without rotations.
    pub fn new(genesis: Genesis) -> Self {
        Self {
            events: Vec::new(),
            genesis,
        }
    }

    /// Returns the oid of the genesis.
    pub fn oid(&self) -> Oid {
        self.genesis.oid()
    }

    /// Appends a rotation that reveals `revealed` and commits to `next`.
    ///
    /// Does not check that the chain committed to `revealed`; [`verify`](Self::verify) does.
    pub fn rotate(&mut self, revealed: &SecretKey, next: &PublicKey) {
        let (key, next) = (revealed.public(), commitment(next));
        let (number, key_bytes, next_bytes) =
            event_parts(self.events.len() as u32 + 1, &key, &next);
        let signature = revealed.sign(
            Context::KeyEvent,
            &[self.oid().as_bytes(), &number, &key_bytes, &next_bytes],
        );
        self.events.push(KeyEvent {
            key,
            next,
            signature,
        });
    }

    /// Returns whether this chain equals `earlier` or continues it.
    ///
    /// A node replaces a known chain only by one that continues it. A thief of a key that an event
    /// revealed can sign that event again, with a commitment of his own, and so fork the chain.
    pub fn continues(&self, earlier: &KeyChain) -> bool {
        let is_same =
            |(one, other): (&KeyEvent, &KeyEvent)| (one.key, one.next) == (other.key, other.next);
        self.genesis == earlier.genesis
            && self.events.len() >= earlier.events.len()
            && self.events.iter().zip(&earlier.events).all(is_same)
    }

    /// Checks the whole chain, cheapest first: length, then each commitment and signature.
    ///
    /// # Errors
    /// [`ChainError`], with the number of the first invalid event.
    pub fn verify(&self) -> Result<VerifiedChain, ChainError> {
        if self.events.len() > KEY_EVENTS_MAX {
            return Err(ChainError::TooLong);
        }
        let oid = self.oid();
        let mut keys = vec![self.genesis.first];
        let (mut committed, mut current) = (self.genesis.next, self.genesis.first);
        for (number, event) in (1..).zip(&self.events) {
            if commitment(&event.key) != committed {
                return Err(ChainError::NotCommitted(number));
            }
            let (place, key, next) = event_parts(number as u32, &event.key, &event.next);
            event
                .key
                .verify(
                    Context::KeyEvent,
                    &[oid.as_bytes(), &place, &key, &next],
                    &event.signature,
                )
                .map_err(|BadSignature| ChainError::BadSignature(number))?;
            keys.push(event.key);
            (committed, current) = (event.next, event.key);
        }
        Ok(VerifiedChain { oid, keys, current })
    }
}

impl VerifiedChain {
    /// Returns the oid of the genesis.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// Returns the first key as a peer id. Meaningful only for a node's chain.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.keys.first().unwrap_or(&self.current).as_bytes())
    }

    /// Returns the current key.
    pub fn current(&self) -> PublicKey {
        self.current
    }

    /// Returns the number of the current key: 0 before any rotation.
    pub fn key_id(&self) -> u32 {
        self.keys.len() as u32 - 1
    }

    /// Returns the key with this number, or `None` if the chain has no such key.
    pub fn key(&self, key_id: u32) -> Option<PublicKey> {
        self.keys.get(key_id as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> SecretKey {
        SecretKey::from_seed(&[number; 32])
    }

    fn chain() -> KeyChain {
        KeyChain::new(Genesis::new(secret(1).public(), &secret(2).public()))
    }

    #[test]
    fn rotation_keeps_oid_and_peer_id() {
        let mut chain = chain();
        let oid = chain.oid();
        chain.rotate(&secret(2), &secret(3).public());
        chain.rotate(&secret(3), &secret(4).public());
        let verified = chain.verify().unwrap();
        assert_eq!(
            (verified.oid(), verified.current(), verified.key_id()),
            (oid, secret(3).public(), 2)
        );
        assert_eq!(verified.peer_id().as_bytes(), secret(1).public().as_bytes());
        assert_eq!(verified.key(1), Some(secret(2).public()));
    }

    #[test]
    fn verify_refuses_a_chain_with_more_events_than_the_protocol_allows() {
        let mut chain = chain();
        for number in 0..KEY_EVENTS_MAX as u8 {
            chain.rotate(&secret(number + 2), &secret(number + 3).public());
        }
        assert!(chain.verify().is_ok());
        let number = KEY_EVENTS_MAX as u8;
        chain.rotate(&secret(number + 2), &secret(number + 3).public());
        assert_eq!(chain.verify(), Err(ChainError::TooLong));
    }

    #[test]
    fn verify_refuses_a_rotation_by_the_current_key() {
        let mut chain = chain();
        chain.rotate(&secret(1), &secret(9).public());
        assert_eq!(chain.verify(), Err(ChainError::NotCommitted(1)));
    }

    #[test]
    fn verify_refuses_an_event_with_a_changed_commitment() {
        let mut chain = chain();
        chain.rotate(&secret(2), &secret(3).public());
        chain.events[0].next = commitment(&secret(9).public());
        assert_eq!(chain.verify(), Err(ChainError::BadSignature(1)));
    }

    #[test]
    fn continues_refuses_a_valid_fork_of_the_known_chain() {
        let (mut known, mut fork) = (chain(), chain());
        known.rotate(&secret(2), &secret(3).public());
        fork.rotate(&secret(2), &secret(9).public());
        fork.rotate(&secret(9), &secret(8).public());
        assert!(fork.verify().is_ok() && fork.continues(&chain()));
        assert!(!fork.continues(&known) && !chain().continues(&known));
        let mut later = known.clone();
        later.rotate(&secret(3), &secret(4).public());
        assert!(later.continues(&known) && known.continues(&known));
    }

    #[test]
    fn genesis_with_another_commitment_has_another_oid() {
        let other = Genesis::new(secret(1).public(), &secret(3).public());
        assert_ne!(other.oid(), chain().oid());
    }
}

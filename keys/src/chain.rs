//! Genesis records and key events: how an identity or a node begins and changes its key (docs/DECISIONS.md 5).
//!
//! A genesis names the first key and commits to the hash of the next; an event reveals that next key and commits
//! to another (pre-rotation), so a thief of the current key cannot rotate, and names survive rotation.
//! Never accepts a chain in part. Invariant: a [`VerifiedChain`] has held every commitment and signature of its chain.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::ids::{Digest, Oid, PeerId, PublicKey, Signature};
use crate::protocol::KEY_EVENTS_MAX;
use crate::signing::{BadSignature, Context, SecretKey, signing_input};

/// The beginning of an identity or a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Commitment to the next key: see [`commitment`].
    pub next: Digest,
    /// The first key.
    pub first: PublicKey,
}

/// One rotation: reveals the key that was committed to and commits to the one after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEvent {
    /// The key that is current from now on.
    pub key: PublicKey,
    /// Commitment to the key after it.
    pub next: Digest,
    /// By `key`, over the oid, the event's number (1 for the first, 4 bytes, big-endian), `key` and `next`.
    pub signature: Signature,
}

/// A genesis and all key events since, as they travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChain {
    /// Rotations, oldest first.
    pub events: Vec<KeyEvent>,
    /// The beginning.
    pub genesis: Genesis,
}

/// A chain whose every link held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    oid: Oid,
    keys: Vec<PublicKey>,
    current: PublicKey,
}

/// Why a chain proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// More than [`KEY_EVENTS_MAX`] events.
    #[error("the key chain has more than {KEY_EVENTS_MAX} events")]
    TooLong,
    /// An event reveals another key than the one committed to.
    #[error("key event {0} reveals a key that was not committed to")]
    NotCommitted(usize),
    /// An event's signature does not hold.
    #[error("key event {0} is not signed by the key that it reveals")]
    BadSignature(usize),
}

/// The commitment to a next key: SHA-256 over context and key.
pub fn commitment(next: &PublicKey) -> Digest {
    Digest::of(&signing_input(Context::NextKey, &[next.as_bytes()]))
}

impl Genesis {
    /// The record for a first key and the key that is to follow it.
    pub fn new(first: PublicKey, next: &PublicKey) -> Self {
        Self {
            next: commitment(next),
            first,
        }
    }

    /// The name of what begins here: the first 16 bytes of SHA-256 over context and record.
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
    /// A chain without rotations.
    pub fn new(genesis: Genesis) -> Self {
        Self {
            events: Vec::new(),
            genesis,
        }
    }

    /// The oid that the genesis gives.
    pub fn oid(&self) -> Oid {
        self.genesis.oid()
    }

    /// Appends a rotation to the key that was committed to, committing to `next`.
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

    /// Whether this chain is `earlier` or goes on from it. The thief of a key that an event revealed can sign that event
    /// anew, with a commitment of his own: whoever knows the chain follows it only where it goes on.
    pub fn continues(&self, earlier: &KeyChain) -> bool {
        let is_same =
            |(one, other): (&KeyEvent, &KeyEvent)| (one.key, one.next) == (other.key, other.next);
        self.genesis == earlier.genesis
            && self.events.len() >= earlier.events.len()
            && self.events.iter().zip(&earlier.events).all(is_same)
    }

    /// Checks the whole chain, cheapest first: length, then each commitment and signature.
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
    /// The name that the genesis gives.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// The first key as a node's name: right only for a node's chain.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.keys.first().unwrap_or(&self.current).as_bytes())
    }

    /// The key that is valid now.
    pub fn current(&self) -> PublicKey {
        self.current
    }

    /// The number of the current key: 0 before any rotation.
    pub fn key_id(&self) -> u32 {
        self.keys.len() as u32 - 1
    }

    /// The key of that number, if there was one.
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
    fn a_chain_keeps_its_name_through_rotations() {
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
    fn the_thief_of_a_current_key_cannot_rotate() {
        let mut chain = chain();
        chain.rotate(&secret(1), &secret(9).public());
        assert_eq!(chain.verify(), Err(ChainError::NotCommitted(1)));
    }

    #[test]
    fn an_event_of_another_chain_or_place_is_refused() {
        let mut chain = chain();
        chain.rotate(&secret(2), &secret(3).public());
        chain.events[0].next = commitment(&secret(9).public());
        assert_eq!(chain.verify(), Err(ChainError::BadSignature(1)));
    }

    #[test]
    fn the_thief_of_a_later_key_can_branch_off_but_not_go_on() {
        let (mut known, mut branch) = (chain(), chain());
        known.rotate(&secret(2), &secret(3).public());
        branch.rotate(&secret(2), &secret(9).public());
        branch.rotate(&secret(9), &secret(8).public());
        assert!(branch.verify().is_ok() && branch.continues(&chain()));
        assert!(!branch.continues(&known) && !chain().continues(&known));
        let mut later = known.clone();
        later.rotate(&secret(3), &secret(4).public());
        assert!(later.continues(&known) && known.continues(&known));
    }

    #[test]
    fn another_commitment_is_another_name() {
        let other = Genesis::new(secret(1).public(), &secret(3).public());
        assert_ne!(other.oid(), chain().oid());
    }
}

//! Home records: which node an identity lives on (docs/DECISIONS.md 5). "Ours" is homed here, "theirs" homed at the sender.
//!
//! Signed by the identity and countersigned by the node, whose chain it carries, so that it proves itself wherever it
//! arrives. Never trusts one of the two signatures alone. Invariant: a [`VerifiedHome`] was agreed to by both.

use serde::{Deserialize, Serialize};

use crate::chain::{ChainError, KeyChain, VerifiedChain};
use crate::codec;
use crate::ids::{Oid, PeerId, Signature};
use crate::signing::{BadSignature, Context, SecretKey};

/// A home record as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeRecord {
    /// The chain of the node that is the home.
    pub node: KeyChain,
    /// The highest counter wins.
    pub counter: u64,
    /// The identity that lives there.
    pub identity: Oid,
    /// Number of the identity's key that signed.
    pub identity_key: u32,
    /// By the node's current key, over the statement and the identity's signature.
    pub node_signature: Signature,
    /// By the identity's key, over the statement.
    pub identity_signature: Signature,
}

/// A home record that both sides signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedHome {
    identity: Oid,
    node: PeerId,
    counter: u64,
}

/// Why a home record proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// It speaks of another identity.
    #[error("the home record is of another identity")]
    OtherIdentity,
    /// The identity has no key of that number.
    #[error("the home record names a key that the identity does not have")]
    UnknownKey,
    /// It was signed by a key that the identity has given up. A rotation signs the home record anew.
    #[error("the home record is signed by an old key of the identity")]
    OldKey,
    /// The node's chain does not hold.
    #[error("the home record's node chain does not hold")]
    Node(#[source] ChainError),
    /// A signature does not hold.
    #[error("the home record is not signed by its {0}")]
    BadSignature(&'static str),
}

/// What both sign: the canonical array `[identity, node, counter]`.
fn statement(identity: &Oid, node: &PeerId, counter: u64) -> Vec<u8> {
    codec::encode(&(identity, node, counter))
}

impl HomeRecord {
    /// Signs a record with both keys; both are at hand only where the identity is at home.
    pub fn sign(
        identity: Oid,
        identity_key: (u32, &SecretKey),
        node: KeyChain,
        node_key: &SecretKey,
        counter: u64,
    ) -> Self {
        let peer = PeerId::from_bytes(*node.genesis.first.as_bytes());
        let statement = statement(&identity, &peer, counter);
        let identity_signature = identity_key.1.sign(Context::HomeIdentity, &[&statement]);
        let node_signature = node_key.sign(
            Context::HomeNode,
            &[&statement, identity_signature.as_bytes()],
        );
        Self {
            node,
            counter,
            identity,
            identity_key: identity_key.0,
            node_signature,
            identity_signature,
        }
    }

    /// Checks the record against the identity's verified chain, whose current key must have signed it.
    pub fn verify(&self, identity: &VerifiedChain) -> Result<VerifiedHome, HomeError> {
        if self.identity != identity.oid() {
            return Err(HomeError::OtherIdentity);
        }
        let key = identity
            .key(self.identity_key)
            .ok_or(HomeError::UnknownKey)?;
        // Whoever stole a key could otherwise move its owner after the rotation that was to stop the thief.
        if self.identity_key != identity.key_id() {
            return Err(HomeError::OldKey);
        }
        let node = self.node.verify().map_err(HomeError::Node)?;
        let statement = statement(&self.identity, &node.peer_id(), self.counter);
        key.verify(
            Context::HomeIdentity,
            &[&statement],
            &self.identity_signature,
        )
        .map_err(|BadSignature| HomeError::BadSignature("identity"))?;
        node.current()
            .verify(
                Context::HomeNode,
                &[&statement, self.identity_signature.as_bytes()],
                &self.node_signature,
            )
            .map_err(|BadSignature| HomeError::BadSignature("node"))?;
        Ok(VerifiedHome {
            identity: self.identity,
            node: node.peer_id(),
            counter: self.counter,
        })
    }
}

impl VerifiedHome {
    /// The identity.
    pub fn identity(&self) -> Oid {
        self.identity
    }

    /// The node that is its home.
    pub fn node(&self) -> PeerId {
        self.node
    }

    /// The record's counter: the highest wins.
    pub fn counter(&self) -> u64 {
        self.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Genesis;

    fn chain(number: u8) -> (SecretKey, KeyChain) {
        let secret = SecretKey::from_seed(&[number; 32]);
        let next = SecretKey::from_seed(&[number + 100; 32]).public();
        let genesis = Genesis::new(secret.public(), &next);
        (secret, KeyChain::new(genesis))
    }

    #[test]
    fn both_signatures_are_needed() {
        let (alice, alice_chain) = chain(1);
        let (node, node_chain) = chain(2);
        let verified = alice_chain.verify().unwrap();
        let record = HomeRecord::sign(verified.oid(), (0, &alice), node_chain.clone(), &node, 1);
        let home = record.verify(&verified).unwrap();
        assert_eq!(
            (home.identity(), home.node(), home.counter()),
            (verified.oid(), node.peer_id(), 1)
        );

        let forged = HomeRecord::sign(verified.oid(), (0, &node), node_chain.clone(), &node, 1);
        assert_eq!(
            forged.verify(&verified),
            Err(HomeError::BadSignature("identity"))
        );
        let forged = HomeRecord::sign(verified.oid(), (0, &alice), node_chain, &alice, 1);
        assert_eq!(
            forged.verify(&verified),
            Err(HomeError::BadSignature("node"))
        );
        let raised = HomeRecord {
            counter: 2,
            ..record
        };
        assert_eq!(
            raised.verify(&verified),
            Err(HomeError::BadSignature("identity"))
        );
    }

    #[test]
    fn only_the_current_key_says_where_its_identity_lives() {
        let (alice, mut chain_) = chain(1);
        let (node, node_chain) = chain(2);
        let (oid, next) = (chain_.oid(), SecretKey::from_seed(&[101; 32]));
        chain_.rotate(&next, &SecretKey::from_seed(&[77; 32]).public());
        let verified = chain_.verify().unwrap();
        let record = |number, key: &SecretKey| {
            HomeRecord::sign(oid, (number, key), node_chain.clone(), &node, 1)
        };
        assert_eq!(record(0, &alice).verify(&verified), Err(HomeError::OldKey));
        assert_eq!(record(0, &next).verify(&verified), Err(HomeError::OldKey));
        assert_eq!(
            record(2, &next).verify(&verified),
            Err(HomeError::UnknownKey)
        );
        assert_eq!(
            record(1, &alice).verify(&verified),
            Err(HomeError::BadSignature("identity"))
        );
        assert_eq!(
            record(1, &next)
                .verify(&verified)
                .map(|home| home.identity()),
            Ok(oid)
        );
    }
}

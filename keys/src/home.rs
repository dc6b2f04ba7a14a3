//! Home records: which node is the home of an identity (docs/DECISIONS.md 5).
//!
//! The identity signs a record and the node countersigns it. The record contains the node's chain,
//! so any receiver can verify it. Input: a [`HomeRecord`] as received and the identity's verified
//! chain. Output: a [`VerifiedHome`]. Invariant: both signatures of a [`VerifiedHome`] hold. Tested
//! below.

use serde::{Deserialize, Serialize};

use crate::chain::{ChainError, KeyChain, VerifiedChain};
use crate::codec;
use crate::ids::{Oid, PeerId, Signature};
use crate::signing::{BadSignature, Context, SecretKey};

/// A home record in wire form. Proves nothing until it is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeRecord {
    /// Key chain of the home node.
    pub node: KeyChain,
    /// Version of the record: of two valid records, receivers keep the one with the higher counter.
    pub counter: u64,
    /// The identity whose home the node is.
    pub identity: Oid,
    /// Number of the identity's key that made `identity_signature`.
    pub identity_key: u32,
    /// By the node's current key, over the statement and `identity_signature`.
    pub node_signature: Signature,
    /// By the identity's key, over the statement, the canonical CBOR of `[identity, node,
    /// counter]`.
    pub identity_signature: Signature,
}

/// A home record whose two signatures hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedHome {
    identity: Oid,
    node: PeerId,
    counter: u64,
}

/// Why a home record is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// The record names another identity than the chain.
    #[error("the home record is for another identity")]
    OtherIdentity,
    /// The identity has no key with that number.
    #[error("the home record names a key that the identity does not have")]
    UnknownKey,
    /// A former key of the identity signed the record. Every rotation re-signs the home record.
    #[error("the home record is signed by an old key of the identity")]
    OldKey,
    /// The node's chain is invalid.
    #[error("the home record's node chain is invalid")]
    Node(#[source] ChainError),
    /// The signature of the named signer, `identity` or `node`, is invalid.
    #[error("the home record is not signed by its {0}")]
    BadSignature(&'static str),
}

/// Returns the signed statement: the canonical CBOR of `[identity, node, counter]`.
fn statement(identity: &Oid, node: &PeerId, counter: u64) -> Vec<u8> {
    codec::encode(&(identity, node, counter))
}

impl HomeRecord {
    /// Signs a record with both keys. Only the home node has both.
    ///
    /// `identity_key` is the number of the identity's current key, and that key.
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

    /// Checks the record against the identity's verified chain.
    ///
    /// # Errors
    /// [`HomeError`]. The identity's current key and the node's current key must have signed.
    pub fn verify(&self, identity: &VerifiedChain) -> Result<VerifiedHome, HomeError> {
        if self.identity != identity.oid() {
            return Err(HomeError::OtherIdentity);
        }
        let key = identity
            .key(self.identity_key)
            .ok_or(HomeError::UnknownKey)?;
        // Otherwise a thief of a former key could still move the identity's home after the
        // rotation.
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
    /// Returns the identity whose home the node is.
    pub fn identity(&self) -> Oid {
        self.identity
    }

    /// Returns the peer id of the home node.
    pub fn node(&self) -> PeerId {
        self.node
    }

    /// Returns the record's counter. Receivers keep the record with the highest counter.
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
    fn verify_needs_both_signatures() {
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
    fn verify_refuses_every_key_but_the_current_one() {
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

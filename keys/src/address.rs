//! Address records: at which onion service a node is reached (docs/PROTOCOL.md 5.8).
//!
//! The onion service's key signs a record and the node countersigns it. No node can therefore name
//! the onion service of another one. Input: an [`AddressRecord`] as received. Output: a
//! [`VerifiedAddress`], whose signatures hold. Tested below.

use serde::{Deserialize, Serialize};

use crate::chain::{ChainError, KeyChain};
use crate::codec::{self, Limits, Malformed};
use crate::ids::{OnionAddr, PeerId, Signature};
use crate::onion_key::OnionKey;
use crate::protocol::{ADDRESS_RECORDS_MAX, KEY_EVENTS_MAX};
use crate::signing::{BadSignature, Context, SecretKey};

/// Longest list of address records, in bytes of its encoding: each has at most 32 events of 160
/// bytes, and 300 bytes beside them.
const LIST_BYTES_MAX: usize = ADDRESS_RECORDS_MAX * (KEY_EVENTS_MAX * 160 + 300);

/// Items of the longest record: 7 of each event, and 21 beside them.
const RECORD_ITEMS_MAX: usize = 7 * KEY_EVENTS_MAX + 21;

/// An address record in wire form. Proves nothing until it is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRecord {
    /// Key chain of the node.
    pub node: KeyChain,
    /// The node's onion service.
    pub onion: OnionAddr,
    /// Orders the records under one key of the node: the one with the higher counter is later.
    pub counter: u64,
    /// By the node's current key, over the statement and `onion_signature`.
    pub node_signature: Signature,
    /// By the onion service's key, over the statement, the canonical CBOR of `[node, onion,
    /// counter]`.
    pub onion_signature: Signature,
}

/// An address record whose two signatures hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAddress {
    record: AddressRecord,
    key_id: u32,
}

/// Why an address record is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The node's chain is invalid.
    #[error("the address record's node chain is invalid")]
    Node(#[source] ChainError),
    /// The signature of the named signer, `onion service` or `node`, is invalid.
    #[error("the address record is not signed by its {0}")]
    BadSignature(&'static str),
}

/// Returns the signed statement: the canonical CBOR of `[node, onion, counter]`.
fn statement(node: &PeerId, onion: &OnionAddr, counter: u64) -> Vec<u8> {
    codec::encode(&(node, onion, counter))
}

/// The peer id of a chain, valid or not.
fn peer_id(chain: &KeyChain) -> PeerId {
    PeerId::from_bytes(*chain.genesis.first.as_bytes())
}

impl AddressRecord {
    /// Signs a record with both keys. `node_key` is the current key of the chain `node`.
    pub(crate) fn sign(
        node: KeyChain,
        node_key: &SecretKey,
        onion_key: &OnionKey,
        counter: u64,
    ) -> Self {
        let onion = onion_key.onion_addr();
        let statement = statement(&peer_id(&node), &onion, counter);
        let onion_signature = onion_key.sign(Context::AddressOnion, &[&statement]);
        let parts: [&[u8]; 2] = [&statement, onion_signature.as_bytes()];
        Self {
            node,
            onion,
            counter,
            node_signature: node_key.sign(Context::AddressNode, &parts),
            onion_signature,
        }
    }

    /// Decodes a list of at most [`ADDRESS_RECORDS_MAX`] records; no signature is verified.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn decode_list(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let limits = Limits {
            bytes_max: LIST_BYTES_MAX,
            depth_max: 5,
            items_max: 1 + ADDRESS_RECORDS_MAX * RECORD_ITEMS_MAX,
        };
        let records: Vec<Self> = codec::decode(bytes, &limits)?;
        match records.len() <= ADDRESS_RECORDS_MAX {
            true => Ok(records),
            false => Err(Malformed::TooManyItems),
        }
    }

    /// The node that the record names. Its signatures may be invalid.
    pub fn node(&self) -> PeerId {
        peer_id(&self.node)
    }

    /// Verifies the chain and both signatures, three checks and one for each key event.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn verify(self) -> Result<VerifiedAddress, AddressError> {
        let chain = self.node.verify().map_err(AddressError::Node)?;
        let statement = statement(&chain.peer_id(), &self.onion, self.counter);
        let onion_signed = self.onion.public_key().verify(
            Context::AddressOnion,
            &[&statement],
            &self.onion_signature,
        );
        onion_signed.map_err(|BadSignature| AddressError::BadSignature("onion service"))?;
        let parts: [&[u8]; 2] = [&statement, self.onion_signature.as_bytes()];
        let node_signed =
            chain
                .current()
                .verify(Context::AddressNode, &parts, &self.node_signature);
        node_signed.map_err(|BadSignature| AddressError::BadSignature("node"))?;
        let key_id = chain.key_id();
        Ok(VerifiedAddress {
            record: self,
            key_id,
        })
    }
}

impl VerifiedAddress {
    /// The record in wire form.
    pub fn record(&self) -> &AddressRecord {
        &self.record
    }

    /// The node.
    pub fn node(&self) -> PeerId {
        self.record.node()
    }

    /// The node's onion service.
    pub fn onion(&self) -> OnionAddr {
        self.record.onion
    }

    /// The place of the record among those of its node: number of the key, then counter.
    pub fn order(&self) -> (u32, u64) {
        (self.key_id, self.record.counter)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::vault::KeyManager;

    fn node(seed: u64) -> KeyManager {
        KeyManager::generate(&mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn record_names_the_node_and_its_onion_service() {
        let node = node(1);
        let verified = node.address_record(7).verify().unwrap();
        assert_eq!(verified.node(), node.peer_id());
        assert_eq!(verified.onion(), node.onion());
        assert_eq!(verified.order(), (0, 7));
    }

    #[test]
    fn onion_service_of_another_node_cannot_be_named() {
        let (thief, victim) = (node(1), node(2));
        let mut record = thief.address_record(7);
        record.onion = victim.onion();
        assert_eq!(
            record.verify(),
            Err(AddressError::BadSignature("onion service"))
        );
        // The victim's signature is for the victim's node.
        let mut record = thief.address_record(7);
        let of_victim = victim.address_record(7);
        (record.onion, record.onion_signature) = (of_victim.onion, of_victim.onion_signature);
        assert_eq!(
            record.verify(),
            Err(AddressError::BadSignature("onion service"))
        );
    }

    #[test]
    fn node_of_another_onion_service_cannot_be_named() {
        let (thief, victim) = (node(1), node(2));
        let mut record = thief.address_record(7);
        record.node = victim.node_chain();
        assert!(record.verify().is_err());
    }

    #[test]
    fn counter_is_signed() {
        let mut record = node(1).address_record(7);
        record.counter = 8;
        assert_eq!(
            record.verify(),
            Err(AddressError::BadSignature("onion service"))
        );
    }

    #[test]
    fn former_key_of_the_node_signs_no_record_of_the_present_chain() {
        let node = node(1);
        let before = node.address_record(7);
        node.rotate(node.server_oid(), &mut StdRng::seed_from_u64(9))
            .unwrap();
        let mut forged = before.clone();
        forged.node = node.node_chain();
        assert_eq!(forged.verify(), Err(AddressError::BadSignature("node")));
        let after = node.address_record(1).verify().unwrap();
        assert!(after.order() > before.verify().unwrap().order());
    }

    #[test]
    fn longest_list_is_decoded_and_a_longer_one_is_not() {
        let node = node(1);
        let mut rng = StdRng::seed_from_u64(9);
        for _ in 0..KEY_EVENTS_MAX {
            node.rotate(node.server_oid(), &mut rng).unwrap();
        }
        let record = node.address_record(u64::MAX >> 1);
        let mut list = vec![record.clone(); ADDRESS_RECORDS_MAX];
        let bytes = codec::encode(&list);
        assert_eq!(AddressRecord::decode_list(&bytes).as_ref(), Ok(&list));
        list.push(record);
        assert!(AddressRecord::decode_list(&codec::encode(&list)).is_err());
    }
}

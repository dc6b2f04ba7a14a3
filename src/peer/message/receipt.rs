//! The message `receipt`: what its sender applied of the receiver's objects (docs/PROTOCOL.md 4.4).
//!
//! Invariant: each list is sorted without repeats, and all lists together have at most
//! [`RECEIPT_OIDS_MAX`] oids. Tested below.

use keys::protocol::RECEIPT_OIDS_MAX;
use keys::{Epoch, Oid};
use serde::{Deserialize, Serialize};

use crate::state_engine::Receipt;

/// States what its sender applied of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptMessage {
    /// Id of the request.
    pub id: u64,
    /// Epoch of the receiving side, in which `last_seq` counts.
    pub epoch: Epoch,
    /// Scopes of which the sender still pulls objects again.
    pub behind: Vec<Oid>,
    /// The domain.
    pub domain: String,
    /// Objects that the sender refused since the last receipt.
    pub refused: Vec<Oid>,
    /// Objects that wait at the sender.
    pub waiting: Vec<Oid>,
    /// Highest sequence number that the sender holds. None: further refused objects follow.
    pub last_seq: Option<u64>,
}

impl ReceiptMessage {
    /// The message that carries a receipt.
    pub fn new(id: u64, receipt: Receipt) -> Self {
        Self {
            id,
            epoch: receipt.epoch,
            behind: receipt.behind,
            domain: receipt.domain,
            refused: receipt.refused,
            waiting: receipt.waiting,
            last_seq: receipt.last_seq,
        }
    }

    /// The receipt, without the id of the request.
    pub fn into_receipt(self) -> Receipt {
        Receipt {
            domain: self.domain,
            epoch: self.epoch,
            behind: self.behind,
            refused: self.refused,
            waiting: self.waiting,
            last_seq: self.last_seq,
        }
    }

    /// Whether the lists follow the rules.
    pub(super) fn has_valid_lists(&self) -> bool {
        let lists = [&self.behind, &self.refused, &self.waiting];
        lists.iter().map(|list| list.len()).sum::<usize>() <= RECEIPT_OIDS_MAX
            && lists
                .iter()
                .all(|list| list.is_sorted_by(|one, next| one < next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SessionMessage;
    use super::*;

    fn oids(numbers: impl Iterator<Item = u16>) -> Vec<Oid> {
        let oid = |number: u16| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            Oid::from_bytes(bytes)
        };
        numbers.map(oid).collect()
    }

    fn receipt(refused: Vec<Oid>, waiting: Vec<Oid>) -> SessionMessage {
        SessionMessage::Receipt(ReceiptMessage {
            id: 1,
            epoch: Epoch::from_bytes([1; 16]),
            behind: Vec::new(),
            domain: "messages".into(),
            refused,
            waiting,
            last_seq: Some(7),
        })
    }

    fn decodes(message: &SessionMessage) -> bool {
        SessionMessage::decode(&message.encode()).as_ref() == Ok(message)
    }

    #[test]
    fn receipt_encodes_as_documented() {
        let bytes = receipt(Vec::new(), oids(2..3)).encode();
        let mut expected = b"\xa1\x67receipt\xa7\x62id\x01\x65epoch\x50".to_vec();
        expected.extend([1; 16]);
        expected.extend(b"\x66behind\x80\x66domain\x68messages\x67refused\x80\x67waiting\x81\x50");
        expected.extend([&[0, 2][..], &[0; 14]].concat());
        expected.extend(b"\x68last_seq\x07");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn lists_are_sorted_and_bounded_together() {
        assert!(decodes(&receipt(oids(0..512), oids(0..512))));
        assert!(!decodes(&receipt(oids(0..512), oids(0..513))));
        assert!(!decodes(&receipt(oids(0..1025), Vec::new())));
        let repeated = [oids(1..2), oids(1..2)].concat();
        assert!(!decodes(&receipt(repeated, Vec::new())));
        let unsorted = [oids(2..3), oids(1..2)].concat();
        assert!(!decodes(&receipt(Vec::new(), unsorted)));
        let SessionMessage::Receipt(message) = receipt(oids(0..2), Vec::new()) else {
            unreachable!()
        };
        let more = ReceiptMessage {
            last_seq: None,
            ..message.clone()
        };
        assert!(decodes(&SessionMessage::Receipt(more)));
        let long = ReceiptMessage {
            domain: "a".repeat(65),
            ..message
        };
        assert!(!decodes(&SessionMessage::Receipt(long)));
    }
}

//! `introduce`: asks at which onion services the nodes of a scope's members are reached
//! (docs/PROTOCOL.md 5.8).

use keys::{AddressRecord, Malformed, Oid};
use serde::{Deserialize, Serialize};

/// Requests the address records of the members of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introduce {
    /// Id of the request.
    pub id: u64,
    /// Member after which the reply begins; none at first.
    pub after: Option<Oid>,
    /// The scope.
    pub scope: Oid,
    /// A domain of the scope's app.
    pub domain: String,
}

/// The address records that the sender may give.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introduced {
    /// Id of the request.
    pub id: u64,
    /// Canonical CBOR: an array of address records.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Member after which the next reply begins; none: no member follows.
    pub next: Option<Oid>,
}

impl std::fmt::Debug for Introduced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, bytes) = (self.id, self.body.len());
        write!(f, "Introduced {{ id: {id}, {bytes} bytes }}")
    }
}

impl Introduced {
    /// Decodes the records; their signatures are not verified yet.
    pub fn records(&self) -> Result<Vec<AddressRecord>, Malformed> {
        AddressRecord::decode_list(&self.body)
    }
}

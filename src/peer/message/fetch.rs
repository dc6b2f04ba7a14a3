//! `fetch`: requests the objects of stubs (docs/PROTOCOL.md 5.7).

use keys::protocol::STUBS_MAX;
use keys::{Limits, Malformed, Oid, SignedObject, codec};
use serde::{Deserialize, Serialize};

use crate::state_engine::PackageLimits;

/// Requests objects of a domain by their oids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Id of the request.
    pub id: u64,
    /// The objects, from 1 to 1,024.
    pub oids: Vec<Oid>,
    /// The domain.
    pub domain: String,
    /// Whether the identity records of their owners are requested instead.
    pub records: bool,
}

impl Fetch {
    pub(super) fn has_valid_oids(&self) -> bool {
        (1..=STUBS_MAX).contains(&self.oids.len())
    }
}

/// The objects that were found for the first oids of a fetch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchedBatch {
    /// Id of the request.
    pub id: u64,
    /// Canonical CBOR: an array of signed objects.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// The number of oids that were looked up. The others did not fit.
    pub looked_up: u32,
}

impl std::fmt::Debug for FetchedBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, bytes) = (self.id, self.body.len());
        write!(f, "FetchedBatch {{ id: {id}, {bytes} bytes }}")
    }
}

impl FetchedBatch {
    /// Decodes the objects; their signatures are not verified yet.
    pub fn objects(&self) -> Result<Vec<SignedObject>, Malformed> {
        let limits = Limits {
            bytes_max: PackageLimits::PROTOCOL.bytes_max,
            depth_max: 2,
            items_max: 1 + 4 * STUBS_MAX,
        };
        codec::decode(&self.body, &limits)
    }
}

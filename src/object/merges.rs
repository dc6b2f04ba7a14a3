//! The lists that a rights list merges after a restore (docs/DECISIONS.md 4).

use std::collections::BTreeSet;

use keys::protocol::RIGHTS_MERGED_MAX;
use keys::{Digest, Limits, codec};

/// Bytes of one digest: a byte string of 32 bytes.
const DIGEST_BYTES: usize = 34;
/// Decoder limits for the digests.
const DIGESTS_LIMITS: Limits = Limits {
    bytes_max: Merges::BYTES_MAX,
    depth_max: 1,
    items_max: 1 + RIGHTS_MERGED_MAX,
};

/// Digests of lists, at most [`RIGHTS_MERGED_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merges(BTreeSet<Digest>);

impl Merges {
    /// Longest encoding, in bytes.
    pub const BYTES_MAX: usize = 1 + RIGHTS_MERGED_MAX * DIGEST_BYTES;

    /// Decodes canonical digests: sorted, each once, at least one. `None` if they are not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let digests: Vec<Digest> = codec::decode(bytes, &DIGESTS_LIMITS).ok()?;
        let is_sorted = digests.is_sorted_by(|one, other| one < other);
        let is_valid = is_sorted && (1..=RIGHTS_MERGED_MAX).contains(&digests.len());
        is_valid.then(|| Self(digests.into_iter().collect()))
    }

    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&self.0.iter().collect::<Vec<_>>())
    }

    /// Whether no list is merged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The digests, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter()
    }
}

impl FromIterator<Digest> for Merges {
    /// Collects the lowest [`RIGHTS_MERGED_MAX`] digests.
    fn from_iter<I: IntoIterator<Item = Digest>>(digests: I) -> Self {
        let digests: BTreeSet<Digest> = digests.into_iter().collect();
        Self(digests.into_iter().take(RIGHTS_MERGED_MAX).collect())
    }
}

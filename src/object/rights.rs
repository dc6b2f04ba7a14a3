//! Rights lists: which identities may read and write in a scope (docs/DECISIONS.md 4).

use std::collections::BTreeMap;

use keys::protocol::RIGHTS_ENTRIES_MAX;
use keys::signing::signing_input;
use keys::{Context, Digest, Limits, Oid, codec};

/// Bytes of one entry: an array of two, an oid, and the bits.
const ENTRY_BYTES: usize = 19;
/// Decoder limits for the entries of a list.
const ENTRIES_LIMITS: Limits = Limits {
    bytes_max: RightsList::BYTES_MAX,
    depth_max: 2,
    items_max: 1 + 3 * RIGHTS_ENTRIES_MAX,
};

/// The rights of one identity in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// May read.
    pub const READ: Self = Self(1);
    /// May write.
    pub const WRITE: Self = Self(2);
    /// May read and write.
    pub const READ_WRITE: Self = Self(3);

    /// The rights with these bits; `None` if they are not 1, 2 or 3.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (1..=3).contains(&bits).then_some(Self(bits))
    }

    /// Bit 0: read. Bit 1: write.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether the identity may read.
    pub fn may_read(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the identity may write.
    pub fn may_write(self) -> bool {
        self.0 & 2 != 0
    }
}

/// All rights in a scope, by identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RightsList(BTreeMap<Oid, Rights>);

impl RightsList {
    /// Longest encoding of the entries, in bytes.
    pub const BYTES_MAX: usize = 3 + RIGHTS_ENTRIES_MAX * ENTRY_BYTES;

    /// Decodes canonical entries: sorted by oid, each identity once, at most
    /// [`RIGHTS_ENTRIES_MAX`]. `None` if they are not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let entries: Vec<(Oid, u8)> = codec::decode(bytes, &ENTRIES_LIMITS).ok()?;
        let is_sorted = entries.is_sorted_by(|one, other| one.0 < other.0);
        if !is_sorted || entries.len() > RIGHTS_ENTRIES_MAX {
            return None;
        }
        let rights = entries.into_iter();
        let rights = rights.map(|(oid, bits)| Some((oid, Rights::from_bits(bits)?)));
        rights.collect::<Option<BTreeMap<_, _>>>().map(Self)
    }

    /// The canonical entries, as a rights list on the wire contains them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<_> = self.iter().map(|(oid, it)| (oid, it.bits())).collect();
        codec::encode(&entries)
    }

    /// Sets the rights of an identity; `None` removes it.
    pub fn set(&mut self, identity: Oid, rights: Option<Rights>) {
        match rights {
            Some(rights) => self.0.insert(identity, rights),
            None => self.0.remove(&identity),
        };
    }

    /// The number of entries.
    pub fn entries(&self) -> usize {
        self.0.len()
    }

    /// The rights of an identity. `None`: it has none.
    pub fn of(&self, identity: &Oid) -> Option<Rights> {
        self.0.get(identity).copied()
    }

    /// The entries, sorted by oid.
    pub fn iter(&self) -> impl Iterator<Item = (&Oid, Rights)> {
        self.0.iter().map(|(oid, rights)| (oid, *rights))
    }

    /// The identities that may read, sorted by oid.
    pub fn readers(&self) -> impl Iterator<Item = &Oid> {
        self.iter()
            .filter(|(_, rights)| rights.may_read())
            .map(|(oid, _)| oid)
    }

    /// The digest that names the founding list of a scope.
    pub fn digest(&self) -> Digest {
        Digest::of(&signing_input(Context::Rights, &[&self.to_bytes()]))
    }

    /// The digest that names a later list: it binds the scope and the version.
    pub fn digest_in(&self, scope: &Oid, version: u64) -> Digest {
        let parts: [&[u8]; 3] = [scope.as_bytes(), &version.to_be_bytes(), &self.to_bytes()];
        Digest::of(&signing_input(Context::Rights, &parts))
    }
}

impl FromIterator<(Oid, Rights)> for RightsList {
    /// Collects entries. The last one of an identity counts.
    fn from_iter<I: IntoIterator<Item = (Oid, Rights)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

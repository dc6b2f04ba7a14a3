//! Rights lists: which identities may read and write in a scope (docs/DECISIONS.md 4).

use std::collections::BTreeMap;

use keys::signing::signing_input;
use keys::{Context, Digest, Oid, codec};

/// The rights of one identity in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// May read.
    pub const READ: Self = Self(1);
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

    /// The digest that names the list.
    pub fn digest(&self) -> Digest {
        let entries: Vec<_> = self.iter().map(|(oid, it)| (oid, it.bits())).collect();
        Digest::of(&signing_input(Context::Rights, &[&codec::encode(&entries)]))
    }
}

impl FromIterator<(Oid, Rights)> for RightsList {
    /// Collects entries. The last one of an identity counts.
    fn from_iter<I: IntoIterator<Item = (Oid, Rights)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

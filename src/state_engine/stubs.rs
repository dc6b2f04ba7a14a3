//! Stubs: entries of a package that name an object which the peer may have from elsewhere
//! (docs/DECISIONS.md 10).
//!
//! A stub costs some 45 bytes, and the peer fetches the object only if it lacks it. The stub has a
//! part of the signature, which is a column, so that neither side loads values to compare.
//! Invariant: the places and owners of a [`Stubs`] that was checked exist for every entry. Tested
//! below and in `tests/core/stubs.rs`.

use std::collections::BTreeMap;

use keys::protocol::STUBS_MAX;
use keys::{Oid, Signature};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::store::ParentRow;

/// Bytes of a signature that a stub has.
const TAG_BYTES: usize = 16;

/// `[place, owner, oid, key_id, rev, deleted, core, tag]`. The first two are positions in
/// [`Stubs`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StubEntry(u16, u16, Oid, u32, u64, bool, bool, ByteArray<TAG_BYTES>);

/// The stubs of a package: `[places, owners, entries]`, in the order of `change_seq`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stubs(Vec<Oid>, Vec<Oid>, Vec<StubEntry>);

/// A form of an object that the sender of a stub has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stub {
    /// The scope: the oid of the Parent that is the scope.
    pub place: Oid,
    /// The owner.
    pub owner: Oid,
    /// The object.
    pub oid: Oid,
    /// Number of the owner's key that signed this form.
    pub key_id: u32,
    rev: u64,
    deleted: bool,
    is_core: bool,
    tag: [u8; TAG_BYTES],
}

impl Stub {
    /// The stub of a stored row in a scope.
    pub(super) fn of(row: &ParentRow, place: Oid) -> Self {
        Self {
            place,
            owner: row.owner,
            oid: row.oid,
            key_id: row.key_id,
            rev: row.rev,
            deleted: row.deleted,
            is_core: row.is_core(),
            tag: tag(&row.signature),
        }
    }

    /// Whether objects of other members may need this one: the Parent that is the scope, a rights
    /// list, or a `leave`. Its sender claims it.
    pub fn serves_others(&self) -> bool {
        self.is_core || self.oid == self.place
    }

    /// Whether this form may change what is stored: the stored one has another signature and does
    /// not precede it. Two forms under one key with one revision may be two rights lists that
    /// both count.
    pub fn may_change(&self, stored: &ParentRow) -> bool {
        let is_absent = stored.rev == 0;
        let order = (stored.key_id, stored.deleted, stored.rev);
        let precedes = order > (self.key_id, self.deleted, self.rev);
        is_absent || !(precedes || self.is_signed_by(stored.key_id, &stored.signature))
    }

    /// Whether the signature is that of this form.
    pub fn is_signed_by(&self, key_id: u32, signature: &Signature) -> bool {
        self.key_id == key_id && self.tag == tag(signature)
    }
}

/// The first bytes of a signature. An owner that makes two forms with one tag keeps the second one
/// from its own readers, which it could do in any case.
fn tag(signature: &Signature) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&signature.as_bytes()[..TAG_BYTES]);
    tag
}

impl Stubs {
    /// Bytes that a stub adds to a package, at most, without its place and its owner.
    pub(super) const STUB_BYTES: usize = 1 + 3 + 3 + 1 + Oid::LEN + 5 + 9 + 1 + 1 + 1 + TAG_BYTES;

    /// The number of stubs.
    pub fn len(&self) -> usize {
        self.2.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.2.is_empty()
    }

    /// Whether each entry has a place, an owner and a revision in its range, and each list is
    /// within its bound.
    pub(super) fn is_valid(&self) -> bool {
        let Self(places, owners, entries) = self;
        entries.len() <= STUBS_MAX
            && places.len() <= entries.len()
            && owners.len() <= entries.len()
            && entries
                .iter()
                .all(|StubEntry(place, owner, _, _, rev, ..)| {
                    usize::from(*place) < places.len()
                        && usize::from(*owner) < owners.len()
                        && (1..=i64::MAX.unsigned_abs()).contains(rev)
                })
    }

    /// The stubs in their order.
    pub fn iter(&self) -> impl Iterator<Item = Stub> {
        let Self(places, owners, entries) = self;
        entries.iter().filter_map(|entry| {
            let StubEntry(place, owner, oid, key_id, rev, deleted, is_core, tag) = entry;
            Some(Stub {
                place: *places.get(usize::from(*place))?,
                owner: *owners.get(usize::from(*owner))?,
                oid: *oid,
                key_id: *key_id,
                rev: *rev,
                deleted: *deleted,
                is_core: *is_core,
                tag: **tag,
            })
        })
    }
}

/// Collects the stubs of a package.
#[derive(Debug, Default)]
pub(super) struct StubList {
    stubs: Stubs,
    places: BTreeMap<Oid, u16>,
    owners: BTreeMap<Oid, u16>,
}

impl StubList {
    pub(super) fn len(&self) -> usize {
        self.stubs.len()
    }

    /// Adds a stub. At most [`STUBS_MAX`] are added, so that the positions fit.
    pub(super) fn push(&mut self, stub: &Stub) {
        let place = position(&mut self.places, &mut self.stubs.0, stub.place);
        let owner = position(&mut self.owners, &mut self.stubs.1, stub.owner);
        let tag = ByteArray::new(stub.tag);
        self.stubs.2.push(StubEntry(
            place,
            owner,
            stub.oid,
            stub.key_id,
            stub.rev,
            stub.deleted,
            stub.is_core,
            tag,
        ));
    }

    pub(super) fn finish(self) -> Stubs {
        self.stubs
    }
}

fn position(known: &mut BTreeMap<Oid, u16>, listed: &mut Vec<Oid>, oid: Oid) -> u16 {
    *known.entry(oid).or_insert_with(|| {
        listed.push(oid);
        u16::try_from(listed.len() - 1).unwrap_or(u16::MAX)
    })
}

#[cfg(test)]
mod tests {
    use keys::{Limits, codec};

    use super::*;
    use crate::state_engine::package::Package;

    fn oid(number: u8) -> Oid {
        Oid::from_bytes([number; Oid::LEN])
    }

    fn stub(number: u8) -> Stub {
        Stub {
            place: oid(100 + number % 2),
            owner: oid(200 + number % 3),
            oid: oid(number),
            key_id: u32::from(number),
            rev: u64::from(u32::MAX) << 31,
            deleted: number % 2 == 1,
            is_core: number % 3 == 1,
            tag: [number; TAG_BYTES],
        }
    }

    fn list(count: u8) -> StubList {
        let mut list = StubList::default();
        (0..count).for_each(|number| list.push(&stub(number)));
        list
    }

    #[test]
    fn list_returns_its_stubs_and_is_not_longer_than_counted() {
        let built = list(6);
        let names = (built.places.len() + built.owners.len()) * Package::NAME_BYTES;
        let stubs = built.finish();
        let bytes = codec::encode(&stubs);
        assert!(bytes.len() <= names + 6 * Stubs::STUB_BYTES + 16);
        let limits = Limits {
            bytes_max: 4096,
            depth_max: 3,
            items_max: 256,
        };
        let decoded: Stubs = codec::decode(&bytes, &limits).unwrap();
        assert!(decoded.is_valid());
        let expected: Vec<_> = (0..6).map(stub).collect();
        assert_eq!(decoded.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn stub_without_its_place_or_owner_is_not_valid() {
        let built = list(6).finish();
        let mut without_place = built.clone();
        without_place.0.pop();
        assert!(!without_place.is_valid());
        let mut without_owner = built.clone();
        without_owner.1.pop();
        assert!(!without_owner.is_valid());
        for rev in [0, u64::MAX] {
            let mut odd = built.clone();
            odd.2[0].4 = rev;
            assert!(!odd.is_valid());
        }
        let mut idle = built;
        idle.1.extend((0..6).map(oid));
        assert!(!idle.is_valid(), "more owners than stubs");
    }
}

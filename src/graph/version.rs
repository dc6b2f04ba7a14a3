//! The order of the versions of one object, without their bytes.

use keys::{Oid, SignedObject};

use super::limits::GraphLimits;
use crate::object::Object;
use crate::store::ParentRow;

/// The parts of a version that decide before its bytes, the most important first. The greater one
/// is in force.
///
/// A later key precedes whatever the revision is, because the thief of the earlier key could sign
/// any revision. The owner loses nothing, because it re-signs all its objects after a rotation.
///
/// A tombstone precedes every live revision under the same key, because a deletion is final: the
/// nodes would otherwise differ by the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectVersion {
    pub(super) key_id: u32,
    pub(super) deleted: bool,
    pub(super) rev: u64,
}

impl ObjectVersion {
    /// The version of a stored object.
    pub(super) fn of(row: &ParentRow) -> Self {
        Self {
            key_id: row.key_id,
            deleted: row.deleted,
            rev: row.rev,
        }
    }
}

/// A tombstone that was written.
#[derive(Debug, Clone, Copy)]
pub struct Tombstone {
    oid: Oid,
    version: ObjectVersion,
}

impl Tombstone {
    pub(super) fn of(row: &ParentRow) -> Self {
        Self {
            oid: row.oid,
            version: ObjectVersion::of(row),
        }
    }

    /// The oid of the deleted object, which also proves its app, type and owner.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// The number of the key that signed it. Versions under a later key precede it.
    pub fn key_id(&self) -> u32 {
        self.version.key_id
    }

    /// Whether the tombstone precedes another version of its object. Decodes only one that the same
    /// key signed.
    pub fn precedes(&self, signed: &SignedObject, limits: &GraphLimits) -> bool {
        let key_id = signed.key_id();
        if key_id != self.version.key_id {
            return key_id < self.version.key_id;
        }
        let object = Object::from_bytes(signed.bytes(), &limits.object);
        object.is_ok_and(|object| {
            let version = ObjectVersion {
                key_id,
                deleted: object.is_deleted(),
                rev: object.rev,
            };
            version < self.version
        })
    }
}

//! The order of the versions of one object, without their bytes.

use keys::Oid;

use crate::object::Object;
use crate::op_context::AppId;
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
    app: AppId,
    oid: Oid,
    owner: Oid,
    version: ObjectVersion,
}

impl Tombstone {
    pub(super) fn of(app: AppId, row: &ParentRow) -> Self {
        Self {
            app,
            oid: row.oid,
            owner: row.owner,
            version: ObjectVersion::of(row),
        }
    }

    /// The oid of the deleted object.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// The app of the deleted object.
    pub fn app(&self) -> AppId {
        self.app
    }

    /// Whether the tombstone precedes another version of its object, under the key of this number.
    pub(super) fn precedes(&self, object: &Object, key_id: u32) -> bool {
        let version = ObjectVersion {
            key_id,
            deleted: object.is_deleted(),
            rev: object.rev,
        };
        (object.oid, object.owner) == (self.oid, self.owner) && version < self.version
    }
}

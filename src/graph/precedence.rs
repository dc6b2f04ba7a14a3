//! Which of two versions of one object is in force: one comparison for objects of packages, waiting
//! objects and reclaimed ones (docs/DECISIONS.md 2).
//!
//! Invariant: all nodes choose the same version, whatever arrives first. Tested in
//! `tests/core/scopes.rs` and `tests/core/remote_writes.rs`.

use std::cmp::Ordering;

use keys::Digest;

use super::load::proof_of;
use super::manager::GraphManager;
use super::verify::VerifiedObject;
use super::version::ObjectVersion;
use crate::acl::{Existing, Precedence};
use crate::store::{AppTable, ParentRow, StoreError};

impl GraphManager<'_> {
    /// The stored object of that oid as `acl` needs it. A row without values counts as absent, but
    /// keeps its oid.
    pub(super) fn existing(
        &self,
        app: &AppTable,
        row: Option<&ParentRow>,
        verified: &VerifiedObject,
    ) -> Result<Option<Existing>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let object = &verified.object;
        let is_same = (row.type_number, row.owner) == (object.type_number, object.owner)
            && proof_of(self.tx, row)? == object.proof;
        let precedence = match is_same {
            true if row.rev == 0 => return Ok(None),
            true => self.precedence(app, row, verified)?,
            false => Precedence::Conflict,
        };
        Ok(Some(Existing {
            is_local: row.origin.is_none() && self.stays_here(verified)?,
            precedence,
        }))
    }

    /// Compares two versions of one object.
    fn precedence(
        &self,
        app: &AppTable,
        row: &ParentRow,
        verified: &VerifiedObject,
    ) -> Result<Precedence, StoreError> {
        let (object, signed) = (&verified.object, &verified.signed);
        let arrived = ObjectVersion {
            key_id: signed.key_id(),
            deleted: object.is_deleted(),
            rev: object.rev,
        };
        let (_, kept) = self.load(app, row)?;
        if kept.bytes() == signed.bytes() {
            // Two signatures of one version, perhaps under two keys.
            return Ok(Precedence::Same);
        }
        Ok(match arrived.cmp(&ObjectVersion::of(row)) {
            Ordering::Less => Precedence::Older,
            Ordering::Greater => Precedence::Later,
            Ordering::Equal => Precedence::Fork {
                wins: Digest::of(signed.bytes()) < Digest::of(kept.bytes()),
            },
        })
    }
}

//! Tables `receipt`, `unapplied_object` and `unapplied_scope`: what peers applied of what this node
//! sent, as their receipts state (docs/DECISIONS.md 10 "Delivery state").
//!
//! `state_engine` decides which receipts count. Invariants: the rows count in this node's epoch and
//! in one epoch of the peer. A peer and domain have at most [`RECEIPTS_MAX`] rows of `receipt`.
//! Tested in `tests/core/receipts.rs`.

use keys::{Oid, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// Most receipts of a peer and domain. Their times become coarser with age.
const RECEIPTS_MAX: usize = 256;
/// Most refused objects of a peer and domain, most that wait, and most scopes and objects that were
/// unapplied.
pub const UNAPPLIED_MAX: usize = 4096;

/// A receipt that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Objects created up to this number were applied, unless they are named as unapplied.
    pub seq: u64,
    /// This node's last `change_seq` when the receipt came.
    pub head: u64,
    /// Time at which the receipt came.
    pub at: Timestamp,
}

/// An object of this node that a peer received and did not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnappliedObject {
    /// The object.
    pub oid: Oid,
    /// Its scope.
    pub scope: Oid,
    /// Whether the peer refused it. Otherwise it waits there.
    pub is_refused: bool,
    /// Time since which it does not wait. `None`: it is not applied.
    pub applied_at: Option<Timestamp>,
}

/// A scope of which a peer lacks objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnappliedScope {
    /// The scope.
    pub scope: Oid,
    /// Objects created up to this number were applied before.
    pub after_seq: u64,
    /// Time since which the peer has all of it. `None`: it lacks objects.
    pub applied_at: Option<Timestamp>,
}

fn object_row(row: &Row<'_>) -> rusqlite::Result<UnappliedObject> {
    Ok(UnappliedObject {
        oid: Oid::from_bytes(fixed(row, 0)?),
        scope: Oid::from_bytes(fixed(row, 1)?),
        is_refused: row.get(2)?,
        applied_at: row.get::<_, Option<u64>>(3)?.map(Timestamp),
    })
}

fn scope_row(row: &Row<'_>) -> rusqlite::Result<UnappliedScope> {
    Ok(UnappliedScope {
        scope: Oid::from_bytes(fixed(row, 0)?),
        after_seq: row.get(1)?,
        applied_at: row.get::<_, Option<u64>>(2)?.map(Timestamp),
    })
}

impl Rows<'_> {
    /// The receipts of a peer in a domain, by ascending `seq`.
    pub fn receipts(&self, peer: &PeerId, domain: &str) -> Result<Vec<ReceiptRow>, StoreError> {
        let mut statement = self.prepare(
            "reading receipts",
            "SELECT seq, head, at FROM receipt WHERE peer_id = ?1 AND domain = ?2 ORDER BY seq",
        )?;
        statement.all((peer.as_bytes(), domain), |row| {
            Ok(ReceiptRow {
                seq: row.get(0)?,
                head: row.get(1)?,
                at: Timestamp(row.get(2)?),
            })
        })
    }

    /// The number of the last receipt; 0: none.
    pub fn receipted_seq(&self, peer: &PeerId, domain: &str) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "reading the last receipt",
            "SELECT COALESCE(MAX(seq), 0) FROM receipt WHERE peer_id = ?1 AND domain = ?2",
        )?;
        statement.one((peer.as_bytes(), domain), |row| row.get(0))
    }

    /// The objects that a peer did not apply, or did so later than its receipts say. At most three
    /// times [`UNAPPLIED_MAX`].
    pub fn unapplied_objects(
        &self,
        peer: &PeerId,
        domain: &str,
    ) -> Result<Vec<UnappliedObject>, StoreError> {
        let mut statement = self.prepare(
            "reading unapplied objects",
            "SELECT oid, scope_oid, is_refused, applied_at FROM unapplied_object
             WHERE peer_id = ?1 AND domain = ?2 ORDER BY oid",
        )?;
        statement.all((peer.as_bytes(), domain), object_row)
    }

    /// The number of [`Rows::unapplied_objects`] that the peer refused.
    pub fn refused_count(&self, (peer, domain): (&PeerId, &str)) -> Result<usize, StoreError> {
        let mut statement = self.prepare(
            "counting refused objects",
            "SELECT COUNT(*) FROM unapplied_object
             WHERE peer_id = ?1 AND domain = ?2 AND is_refused",
        )?;
        statement.one((peer.as_bytes(), domain), |row| row.get(0))
    }

    /// Whether there is any of [`Rows::unapplied_objects`].
    pub fn has_unapplied_object(&self, peer: &PeerId, domain: &str) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for unapplied objects",
            "SELECT 1 FROM unapplied_object WHERE peer_id = ?1 AND domain = ?2 LIMIT 1",
        )?;
        statement.exists((peer.as_bytes(), domain))
    }

    /// One of [`Rows::unapplied_objects`].
    pub fn unapplied_object(
        &self,
        (peer, domain): (&PeerId, &str),
        oid: &Oid,
    ) -> Result<Option<UnappliedObject>, StoreError> {
        let mut statement = self.prepare(
            "reading an unapplied object",
            "SELECT oid, scope_oid, is_refused, applied_at FROM unapplied_object
             WHERE peer_id = ?1 AND domain = ?2 AND oid = ?3",
        )?;
        statement.first((peer.as_bytes(), domain, oid.as_bytes()), object_row)
    }

    /// The scopes of which a peer lacks objects, or got them later than its receipts say.
    pub fn unapplied_scopes(
        &self,
        peer: &PeerId,
        domain: &str,
    ) -> Result<Vec<UnappliedScope>, StoreError> {
        let mut statement = self.prepare(
            "reading unapplied scopes",
            "SELECT scope_oid, after_seq, applied_at FROM unapplied_scope
             WHERE peer_id = ?1 AND domain = ?2 ORDER BY scope_oid",
        )?;
        statement.all((peer.as_bytes(), domain), scope_row)
    }

    /// One of [`Rows::unapplied_scopes`].
    pub fn unapplied_scope(
        &self,
        (peer, domain): (&PeerId, &str),
        scope: &Oid,
    ) -> Result<Option<UnappliedScope>, StoreError> {
        let mut statement = self.prepare(
            "reading an unapplied scope",
            "SELECT scope_oid, after_seq, applied_at FROM unapplied_scope
             WHERE peer_id = ?1 AND domain = ?2 AND scope_oid = ?3",
        )?;
        statement.first((peer.as_bytes(), domain, scope.as_bytes()), scope_row)
    }
}

impl WriteTx<'_> {
    /// Stores a receipt. With too many of them, every second one of the older half is deleted, and
    /// the next one counts for what it stated.
    pub fn put_receipt(
        &self,
        peer: &PeerId,
        domain: &str,
        receipt: &ReceiptRow,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a receipt",
            "INSERT INTO receipt (peer_id, domain, seq, head, at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?;
        let ReceiptRow { seq, head, at } = *receipt;
        statement.execute((peer.as_bytes(), domain, seq, head, at.0))?;
        let rows = self.receipts(peer, domain)?;
        if rows.len() <= RECEIPTS_MAX {
            return Ok(());
        }
        let mut statement = self.prepare(
            "merging receipts",
            "DELETE FROM receipt WHERE peer_id = ?1 AND domain = ?2 AND seq = ?3",
        )?;
        for row in rows.iter().take(RECEIPTS_MAX / 2).step_by(2) {
            statement.execute((peer.as_bytes(), domain, row.seq))?;
        }
        Ok(())
    }

    /// Inserts or replaces an object that a peer did not apply.
    pub fn put_unapplied_object(
        &self,
        (peer, domain): (&PeerId, &str),
        object: &UnappliedObject,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing an unapplied object",
            "INSERT OR REPLACE INTO unapplied_object
               (peer_id, domain, oid, scope_oid, is_refused, applied_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let (oid, scope) = (object.oid.as_bytes(), object.scope.as_bytes());
        let applied_at = object.applied_at.map(|at| at.0);
        statement
            .execute((
                peer.as_bytes(),
                domain,
                oid,
                scope,
                object.is_refused,
                applied_at,
            ))
            .map(drop)
    }

    /// Inserts or replaces a scope of which a peer lacks objects.
    pub fn put_unapplied_scope(
        &self,
        (peer, domain): (&PeerId, &str),
        scope: &UnappliedScope,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing an unapplied scope",
            "INSERT OR REPLACE INTO unapplied_scope
               (peer_id, domain, scope_oid, after_seq, applied_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let (oid, applied_at) = (scope.scope.as_bytes(), scope.applied_at.map(|at| at.0));
        statement
            .execute((peer.as_bytes(), domain, oid, scope.after_seq, applied_at))
            .map(drop)
    }

    /// Forgets when an object was applied that a peer first did not apply.
    pub fn remove_unapplied_object(
        &self,
        (peer, domain): (&PeerId, &str),
        oid: &Oid,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting an unapplied object",
            "DELETE FROM unapplied_object WHERE peer_id = ?1 AND domain = ?2 AND oid = ?3",
        )?;
        statement
            .execute((peer.as_bytes(), domain, oid.as_bytes()))
            .map(drop)
    }

    /// Forgets when a peer had all of a scope.
    pub fn remove_unapplied_scope(
        &self,
        (peer, domain): (&PeerId, &str),
        scope: &Oid,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting an unapplied scope",
            "DELETE FROM unapplied_scope WHERE peer_id = ?1 AND domain = ?2 AND scope_oid = ?3",
        )?;
        statement
            .execute((peer.as_bytes(), domain, scope.as_bytes()))
            .map(drop)
    }

    /// Forgets what a peer stated, because the peer may have lost what it had.
    pub fn forget_receipts(&self, peer: &PeerId) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM receipt WHERE peer_id = ?1",
            "DELETE FROM unapplied_object WHERE peer_id = ?1",
            "DELETE FROM unapplied_scope WHERE peer_id = ?1",
        ] {
            let mut statement = self.prepare("forgetting receipts", sql)?;
            statement.execute([peer.as_bytes()])?;
        }
        Ok(())
    }

    /// Forgets what all peers stated, because a new epoch of this node begins.
    pub(super) fn forget_all_receipts(&self) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM receipt",
            "DELETE FROM unapplied_object",
            "DELETE FROM unapplied_scope",
        ] {
            let mut statement = self.prepare("forgetting receipts", sql)?;
            statement.execute([])?;
        }
        Ok(())
    }
}

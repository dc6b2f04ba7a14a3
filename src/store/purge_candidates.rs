//! Candidates of a purge: the objects that purged peers sent, and the scopes and identities that
//! are removed unless something of them is kept.
//!
//! Invariant: a scope or an identity is noted until it is kept or removed. Tested in
//! `tests/core/purge_scopes.rs` and `tests/core/forgetting.rs`.

use keys::Oid;
use rusqlite::Row;

use super::app_tables::AppTable;
use super::columns::fixed;
use super::error::StoreError;
use super::parents::{ParentRow, parent_row};
use super::purge::PurgeRow;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

/// A scope that is removed unless something in it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgedScope {
    /// The scope.
    pub scope: ScopeId,
    /// Local number of the peer that sent its Parent.
    pub peer_no: i64,
    /// Whether it is being removed.
    pub is_going: bool,
}

/// An identity that is forgotten unless something of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgedIdentity {
    /// The identity.
    pub oid: Oid,
    /// Local number of the purged peer.
    pub peer_no: i64,
    /// The last of its scopes that was looked at.
    pub after_scope: ScopeId,
}

/// After each oid: the position behind the last identity.
const ALL_NOTED: [u8; Oid::LEN + 1] = [0xff; Oid::LEN + 1];

impl Rows<'_> {
    /// At most `limit` objects that purged peers sent, with local ids in a range, in their order.
    /// `only_with_objects`: those of peers whose objects are removed.
    pub fn sent_by_purged(
        &self,
        app: &AppTable,
        (after, until): (i64, i64),
        only_with_objects: bool,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading what purged peers sent", &app.purge.sent)?;
        statement.all((after, until, only_with_objects, limit), parent_row)
    }

    /// At most `limit` objects in a scope besides its Parent.
    pub fn in_purged_scope(
        &self,
        app: &AppTable,
        scope: ScopeId,
        parent_id: i64,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement =
            self.prepare("reading the objects of a purged scope", &app.purge.in_going)?;
        statement.all((scope.0, parent_id, limit), parent_row)
    }

    /// A scope that is to be removed; one that is being removed comes first.
    pub fn next_purged_scope(&self) -> Result<Option<PurgedScope>, StoreError> {
        let read = |row: &Row<'_>| {
            Ok(PurgedScope {
                scope: ScopeId(row.get(0)?),
                peer_no: row.get(1)?,
                is_going: row.get(2)?,
            })
        };
        let context = "looking for scopes to remove";
        let mut going = self.prepare(
            context,
            "SELECT scope_id, peer_no, is_going FROM purge_scope
             INDEXED BY purge_scope_going WHERE is_going = 1 LIMIT 1",
        )?;
        if let Some(found) = going.first([], read)? {
            return Ok(Some(found));
        }
        let mut any = self.prepare(
            context,
            "SELECT scope_id, peer_no, is_going FROM purge_scope LIMIT 1",
        )?;
        any.first([], read)
    }

    /// Whether a purge is removing a scope.
    pub fn is_going(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a scope that is removed",
            "SELECT 1 FROM purge_scope WHERE scope_id = ?1 AND is_going = 1",
        )?;
        statement.exists([scope.0])
    }

    /// An identity that is to be forgotten.
    pub fn next_purged_identity(&self) -> Result<Option<PurgedIdentity>, StoreError> {
        let mut statement = self.prepare(
            "looking for identities to forget",
            "SELECT oid, peer_no, after_scope FROM purge_identity LIMIT 1",
        )?;
        statement.first([], |row| {
            Ok(PurgedIdentity {
                oid: Oid::from_bytes(fixed(row, 0)?),
                peer_no: row.get(1)?,
                after_scope: ScopeId(row.get(2)?),
            })
        })
    }
}

impl WriteTx<'_> {
    /// Notes at most `limit` identities whose home is a purged peer. Returns whether all are noted.
    pub fn note_purged_identities(
        &self,
        purge: &PurgeRow,
        limit: usize,
    ) -> Result<bool, StoreError> {
        let context = "noting the identities of a purged peer";
        let mut statement = self.prepare(
            context,
            "SELECT i.oid FROM identity AS i
             WHERE i.home_peer = ?1 AND i.oid > (SELECT after_oid FROM purge WHERE peer_no = ?2)
             ORDER BY i.oid LIMIT ?3",
        )?;
        let found: Vec<Oid> = statement
            .all((purge.peer.as_bytes(), purge.peer_no, limit), |row| {
                fixed(row, 0).map(Oid::from_bytes)
            })?;
        for identity in &found {
            self.put_purged_identity(identity, purge.peer_no)?;
        }
        let after = match found.last() {
            Some(last) => last.as_bytes().as_slice(),
            None => &ALL_NOTED,
        };
        let mut statement = self.prepare(
            context,
            "UPDATE purge SET after_oid = ?2 WHERE peer_no = ?1",
        )?;
        statement.execute((purge.peer_no, after))?;
        Ok(found.is_empty())
    }

    /// Notes a scope that may be removed.
    pub fn put_purged_scope(&self, scope: &PurgedScope) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting a scope to remove",
            "INSERT OR REPLACE INTO purge_scope (scope_id, peer_no, is_going) VALUES (?1, ?2, ?3)",
        )?;
        statement
            .execute((scope.scope.0, scope.peer_no, scope.is_going))
            .map(drop)
    }

    /// Keeps a scope, or ends its removal.
    pub fn drop_purged_scope(&self, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "keeping a scope",
            "DELETE FROM purge_scope WHERE scope_id = ?1",
        )?;
        statement.execute([scope.0]).map(drop)
    }

    /// Notes an identity that may be forgotten.
    pub fn put_purged_identity(&self, identity: &Oid, peer_no: i64) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting an identity to forget",
            "INSERT OR IGNORE INTO purge_identity (oid, peer_no) VALUES (?1, ?2)",
        )?;
        statement.execute((identity.as_bytes(), peer_no)).map(drop)
    }

    /// Notes how far the scopes of an identity were looked at.
    pub fn put_purged_identity_scope(
        &self,
        identity: &Oid,
        after: ScopeId,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting a position in the scopes of an identity",
            "UPDATE purge_identity SET after_scope = ?2 WHERE oid = ?1",
        )?;
        statement.execute((identity.as_bytes(), after.0)).map(drop)
    }

    /// Keeps an identity, or ends its forgetting.
    pub fn drop_purged_identity(&self, identity: &Oid) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "keeping an identity",
            "DELETE FROM purge_identity WHERE oid = ?1",
        )?;
        statement.execute([identity.as_bytes()]).map(drop)
    }

    /// Keeps the scopes that have a kept object with a local id in a range.
    pub fn keep_scopes(&self, app: &AppTable, range: (i64, i64)) -> Result<(), StoreError> {
        let mut statement = self.prepare("looking for kept scopes", &app.purge.kept_scopes)?;
        let kept: Vec<i64> = statement.all(range, |row| row.get(0))?;
        let mut kept = kept;
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter()
            .try_for_each(|scope| self.drop_purged_scope(ScopeId(scope)))
    }

    /// Keeps the identities that own an object with a local id in a range.
    pub fn keep_owners(&self, app: &AppTable, range: (i64, i64)) -> Result<(), StoreError> {
        let mut statement = self.prepare("looking for kept identities", &app.purge.kept_owners)?;
        let mut kept: Vec<Oid> = statement.all(range, |row| fixed(row, 0).map(Oid::from_bytes))?;
        kept.sort_unstable();
        kept.dedup();
        kept.iter()
            .try_for_each(|owner| self.drop_purged_identity(owner))
    }
}

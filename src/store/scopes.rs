//! Scopes and their readers: who may read an object (docs/DECISIONS.md 2).
//!
//! A scope's id is local to this database and counts over all apps. Invariant: the rows of
//! [`ScopeId::LOCAL`] and [`ScopeId::PUBLIC`] always exist, and no scope ever changes.

use keys::{Digest, Oid, PeerId};
use rusqlite::{Params, Row};

use super::app_tables::AppTable;
use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::parents::{ParentRow, parent_row};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::AppId;

/// The right of one identity to read a scope, as its node has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerReader {
    /// The scope.
    pub scope: ScopeId,
    /// The node reads later changes by its cursors; up to this one it has to ask for the scope. 0:
    /// all come by its cursors.
    pub since_seq: u64,
    /// `change_seq` of the write that ended the right; `None`: it holds.
    pub until_seq: Option<u64>,
}

/// A scope that is a Parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeRow {
    /// Its local id.
    pub id: ScopeId,
    /// The app of its Parent.
    pub app: AppId,
    /// Local id of its Parent.
    pub parent_id: i64,
    /// Oid of its Parent.
    pub oid: Oid,
    /// Whether its owner lives here.
    pub is_local: bool,
}

/// A scope that ended, because its Parent was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedScope {
    /// The scope.
    pub id: ScopeId,
    /// `change_seq` of the last object whose values were dropped.
    pub after_seq: u64,
}

impl Rows<'_> {
    /// A scope by its id. `None` for the local and the public scope.
    pub fn scope(&self, id: ScopeId) -> Result<Option<ScopeRow>, StoreError> {
        if !id.has_readers() {
            return Ok(None);
        }
        let mut statement = self.prepare(
            "reading a scope",
            "SELECT app_id, parent_id, oid, is_local FROM scope WHERE id = ?1",
        )?;
        let row = statement.first([id.0], |row| {
            Ok(ScopeRow {
                id,
                app: AppId(row.get(0)?),
                parent_id: row.get(1)?,
                oid: Oid::from_bytes(fixed(row, 2)?),
                is_local: row.get(3)?,
            })
        })?;
        row.map(Some)
            .ok_or(StoreError::Inconsistent("an object in an unknown scope"))
    }

    /// Whether an identity may read a scope.
    pub fn is_reader(&self, scope: ScopeId, identity: &Oid) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "reading readers",
            "SELECT 1 FROM reader
             WHERE identity_oid = ?1 AND scope_id = ?2 AND until_seq IS NULL",
        )?;
        statement.exists((identity.as_bytes(), scope.0))
    }

    /// Whether any identity of a node may read a scope, and takes part in it.
    pub fn is_read_at(&self, scope: ScopeId, home: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare("reading readers", TAKES_PART_AT)?;
        statement.exists((home.as_bytes(), scope.0))
    }

    /// Whether any identity of a node has or had a right to read a scope.
    pub fn has_readers_at(&self, home: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "reading readers",
            "SELECT 1 FROM identity AS i CROSS JOIN reader AS r
             WHERE i.home_peer = ?1 AND r.identity_oid = i.oid LIMIT 1",
        )?;
        statement.exists([home.as_bytes()])
    }

    /// The `change_seq` of the write that ended an identity's right to read a scope. `None`: it
    /// never had the right, or has it.
    pub fn reader_until(&self, scope: ScopeId, identity: &Oid) -> Result<Option<u64>, StoreError> {
        let mut statement = self.prepare(
            "reading readers",
            "SELECT until_seq FROM reader WHERE identity_oid = ?1 AND scope_id = ?2",
        )?;
        let until = statement.first((identity.as_bytes(), scope.0), |row| row.get(0))?;
        Ok(until.flatten())
    }

    /// The identities that may read a scope, sorted by oid.
    pub fn readers(&self, scope: ScopeId) -> Result<Vec<Oid>, StoreError> {
        self.identities_in(READERS, [scope.0])
    }

    /// The identities that may read a scope, or could earlier, in no order. `None`: they are more
    /// than `max`.
    pub fn readers_ever(&self, scope: ScopeId, max: usize) -> Result<Option<Vec<Oid>>, StoreError> {
        let sql = "SELECT identity_oid FROM reader WHERE scope_id = ?1 LIMIT ?2";
        let readers = self.identities_in(sql, (scope.0, max.saturating_add(1)))?;
        Ok((readers.len() <= max).then_some(readers))
    }

    fn identities_in(&self, sql: &str, values: impl Params) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare("reading readers", sql)?;
        statement.all(values, |row| fixed(row, 0).map(Oid::from_bytes))
    }

    /// The newest `limit` scopes of an app that were founded for exactly these identities, with the
    /// oids of their Parents. Newest: this node stored them last.
    pub fn scopes_of_founders(
        &self,
        app: AppId,
        founders: &[Oid],
        limit: usize,
    ) -> Result<Vec<(ScopeId, Oid)>, StoreError> {
        let mut statement = self.prepare("reading scopes by their founders", SCOPES_OF_FOUNDERS)?;
        let founders = digest_of(founders);
        statement.all((app.0, founders.as_bytes(), limit), |row| {
            Ok((ScopeId(row.get(0)?), Oid::from_bytes(fixed(row, 1)?)))
        })
    }

    /// Calls `visit` with each right to read that an identity of a node has, or had.
    pub fn readers_at(
        &self,
        home: &PeerId,
        mut visit: impl FnMut(PeerReader),
    ) -> Result<(), StoreError> {
        let context = "reading the scopes of a node";
        let mut statement = self.prepare(context, READERS_AT)?;
        let mut rows = statement.query([home.as_bytes()]).context(context)?;
        while let Some(row) = rows.next().context(context)? {
            let reader = peer_reader(row).context(context)?;
            visit(reader);
        }
        Ok(())
    }

    /// Calls `visit` with each scope of an app that holds an exported row, also the public one. The
    /// other arguments are the newest `change_seq` of such a row, and whether it was made
    /// here. A scope with rows of both kinds is visited twice.
    pub fn newest_of_scopes(
        &self,
        app: &AppTable,
        mut visit: impl FnMut(ScopeId, u64, bool),
    ) -> Result<(), StoreError> {
        let context = "reading the newest change of each scope";
        let mut statement = self
            .connection
            .prepare(&app.newest_of_scopes)
            .context(context)?;
        let mut rows = statement
            .query((app.id.0, ScopeId::PUBLIC.0))
            .context(context)?;
        while let Some(row) = rows.next().context(context)? {
            let scope = ScopeId(row.get(0).context(context)?);
            for (column, is_own) in [(1, true), (2, false)] {
                let newest: Option<u64> = row.get(column).context(context)?;
                if let Some(newest) = newest {
                    visit(scope, newest, is_own);
                }
            }
        }
        Ok(())
    }

    /// The highest id of a scope, also of one that was removed.
    pub fn last_scope(&self) -> Result<ScopeId, StoreError> {
        let mut statement = self.prepare("reading the highest id of a scope", LAST_SCOPE)?;
        statement.one([], |row| row.get(0).map(ScopeId))
    }
}

/// The highest id that a scope had.
const LAST_SCOPE: &str = "SELECT MAX((SELECT MAX(id) FROM scope), \
     COALESCE((SELECT value FROM meta WHERE name = 'last_scope'), 0))";

/// The identities that may read the scope `?1`.
pub(super) const READERS: &str = "SELECT identity_oid FROM reader \
     WHERE scope_id = ?1 AND until_seq IS NULL ORDER BY identity_oid";

/// An open row of a reader of the scope `?2` that lives at the node `?1` and from which no
/// invitation hides the scope. A node has few identities, and a scope may have many readers.
pub(super) const TAKES_PART_AT: &str = "SELECT 1 FROM identity AS i CROSS JOIN reader AS r \
     WHERE i.home_peer = ?1 AND r.identity_oid = i.oid AND r.scope_id = ?2 \
     AND r.until_seq IS NULL AND NOT EXISTS (SELECT 1 FROM invitation AS v \
       WHERE v.identity_oid = r.identity_oid AND v.scope_id = r.scope_id \
       AND v.state IN ('open', 'declined')) LIMIT 1";

/// Closes the readers of the scope `?1` by the write `?2`.
pub(super) const CLOSE_READERS: &str =
    "UPDATE reader SET until_seq = ?2 WHERE scope_id = ?1 AND until_seq IS NULL";

/// The scopes of the app `?1` with the digest `?2` of their founders.
pub(super) const SCOPES_OF_FOUNDERS: &str =
    "SELECT id, oid FROM scope WHERE app_id = ?1 AND founders = ?2 ORDER BY id DESC LIMIT ?3";

/// Every right to read of the identities of the node `?1`.
pub(super) const READERS_AT: &str = "SELECT r.scope_id, r.since_seq, r.until_seq, \
     i.home_since_seq, i.home_since_scope \
     FROM identity AS i CROSS JOIN reader AS r \
     WHERE i.home_peer = ?1 AND r.identity_oid = i.oid";

pub(super) fn peer_reader(row: &Row<'_>) -> rusqlite::Result<PeerReader> {
    let scope = ScopeId(row.get(0)?);
    let (since_seq, home_since_seq): (u64, u64) = (row.get(1)?, row.get(3)?);
    // A scope that was made after the home was noted holds nothing from before.
    let is_older = scope <= ScopeId(row.get(4)?);
    Ok(PeerReader {
        scope,
        since_seq: since_seq.max(if is_older { home_since_seq } else { 0 }),
        until_seq: row.get(2)?,
    })
}

/// Digest of a set of identities, in which neither order nor repetition counts.
fn digest_of(identities: &[Oid]) -> Digest {
    let mut sorted = identities.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let bytes: Vec<u8> = sorted.iter().flat_map(|oid| *oid.as_bytes()).collect();
    Digest::of(&bytes)
}

impl Rows<'_> {
    /// A scope that ended and may have values to drop.
    pub fn ended_scope(&self) -> Result<Option<EndedScope>, StoreError> {
        let mut statement = self.prepare(
            "looking for ended scopes",
            "SELECT scope_id, after_seq FROM ended_scope LIMIT 1",
        )?;
        statement.first([], |row| {
            Ok(EndedScope {
                id: ScopeId(row.get(0)?),
                after_seq: row.get(1)?,
            })
        })
    }

    /// At most `limit` live objects in a scope that peers sent, from the sequence number `from_seq`
    /// on.
    pub fn received_in_scope(
        &self,
        app: &AppTable,
        scope: ScopeId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare(
            "reading the objects of an ended scope",
            &app.received_in_scope,
        )?;
        statement.all((scope.0, from_seq, limit), parent_row)
    }
}

impl WriteTx<'_> {
    /// Notes that the owner of a scope lives here now.
    pub fn scope_arrives(&self, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting that a scope's owner lives here",
            "UPDATE scope SET is_local = 1 WHERE id = ?1",
        )?;
        statement.execute([scope.0]).map(drop)
    }

    /// Notes that the owner of a scope lives elsewhere now. Which lists replace which is forgotten,
    /// and no list is due.
    pub fn scope_departs(&self, scope: ScopeId) -> Result<(), StoreError> {
        let context = "noting that a scope's owner lives elsewhere";
        for sql in [
            "UPDATE scope SET is_local = 0 WHERE id = ?1",
            "UPDATE rights_list SET is_head = 0 WHERE scope_id = ?1 AND is_head = 1",
            "DELETE FROM list_named WHERE scope_id = ?1",
            "DELETE FROM due_list WHERE scope_id = ?1",
        ] {
            let mut statement = self.prepare(context, sql)?;
            statement.execute([scope.0])?;
        }
        Ok(())
    }

    /// Makes a scope of a Parent that is about to be written.
    pub fn insert_scope(
        &self,
        app: &AppTable,
        parent_id: i64,
        oid: &Oid,
        founders: &[Oid],
        is_local: bool,
    ) -> Result<ScopeId, StoreError> {
        // The id of a removed scope is not used again: sets of scopes in memory may hold it.
        let sql = format!(
            "INSERT INTO scope (id, app_id, parent_id, oid, founders, is_local)
             VALUES (({LAST_SCOPE}) + 1, ?1, ?2, ?3, ?4, ?5) RETURNING id"
        );
        let mut statement = self.prepare("writing a scope", &sql)?;
        statement
            .one(
                (
                    app.id.0,
                    parent_id,
                    oid.as_bytes(),
                    digest_of(founders).as_bytes(),
                    is_local,
                ),
                |row| row.get(0),
            )
            .map(ScopeId)
    }

    /// Forgets from when on nodes read scopes, because cursors start at 0 in a new epoch.
    pub fn clear_since_seqs(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch(
                "UPDATE reader SET since_seq = 0 WHERE since_seq <> 0;
                 UPDATE identity SET home_since_seq = 0, home_since_scope = 0
                 WHERE home_since_seq <> 0;",
            )
            .context("resetting from when on nodes read scopes")
    }

    /// Makes an identity a reader of a scope, whose node reads changes above `since_seq` by its
    /// cursors. An open row stays as it is.
    pub fn put_reader(
        &self,
        scope: ScopeId,
        identity: &Oid,
        since_seq: u64,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a reader",
            "INSERT INTO reader (identity_oid, scope_id, since_seq) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET since_seq = ?3, until_seq = NULL
             WHERE until_seq IS NOT NULL",
        )?;
        statement
            .execute((identity.as_bytes(), scope.0, since_seq))
            .map(drop)
    }

    /// Notes that the write `opened_seq` lets an identity read a scope whose objects are stored
    /// already. Those with a `created_seq` above `from_seq` are new to it; `None`: all, because the
    /// scope had ended.
    pub fn put_opening(
        &self,
        scope: ScopeId,
        identity: &Oid,
        (from_seq, opened_seq): (Option<u64>, u64),
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting that an identity reads a scope",
            "INSERT INTO opening (identity_oid, opened_seq, scope_id, from_seq)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET from_seq = MIN(from_seq, excluded.from_seq)",
        )?;
        statement
            .execute((
                identity.as_bytes(),
                opened_seq,
                scope.0,
                from_seq.map_or(-1, u64::cast_signed),
            ))
            .map(drop)
    }

    /// Ends an identity's right to read a scope by the write `change_seq`.
    pub fn close_reader(
        &self,
        scope: ScopeId,
        identity: &Oid,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "closing a reader",
            "UPDATE reader SET until_seq = ?3
             WHERE identity_oid = ?1 AND scope_id = ?2 AND until_seq IS NULL",
        )?;
        statement
            .execute((identity.as_bytes(), scope.0, change_seq))
            .map(drop)
    }

    /// Ends a scope whose Parent was deleted by the write `change_seq`: closes its readers, and
    /// notes that its objects have values to drop.
    pub fn end_scope(&self, scope: ScopeId, change_seq: u64) -> Result<(), StoreError> {
        let mut statement = self.prepare("ending a scope", CLOSE_READERS)?;
        statement.execute((scope.0, change_seq))?;
        self.put_ended_scope(&EndedScope {
            id: scope,
            after_seq: 0,
        })
    }

    /// Notes that an object of an ended scope has values to drop. The write `change_seq` stored it.
    pub fn drop_values_again(&self, scope: ScopeId, change_seq: u64) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting values of an ended scope",
            "INSERT INTO ended_scope (scope_id, after_seq) VALUES (?1, ?2)
             ON CONFLICT (scope_id)
             DO UPDATE SET after_seq = MIN(after_seq, excluded.after_seq)",
        )?;
        let after_seq = change_seq.saturating_sub(1);
        statement.execute((scope.0, after_seq)).map(drop)
    }

    /// Notes how far the values of an ended scope were dropped.
    pub fn put_ended_scope(&self, ended: &EndedScope) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing an ended scope",
            "INSERT OR REPLACE INTO ended_scope (scope_id, after_seq) VALUES (?1, ?2)",
        )?;
        statement.execute((ended.id.0, ended.after_seq)).map(drop)
    }

    /// Deletes the note that a scope has values to drop: all are dropped, or the scope exists
    /// again.
    pub fn remove_ended_scope(&self, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting an ended scope",
            "DELETE FROM ended_scope WHERE scope_id = ?1",
        )?;
        statement.execute([scope.0]).map(drop)
    }
}

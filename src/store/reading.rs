//! Scopes as people see them: those of an identity, their former readers, and their size.
//!
//! Only reads. Tested in `tests/core/conversations.rs`.

use std::ops::ControlFlow;

use keys::Oid;
use rusqlite::Row;

use super::app_tables::AppTable;
use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::rights::{RightsRow, rights_row};
use super::rows::Rows;
use super::scope_id::ScopeId;
use super::scopes::ScopeRow;
use crate::op_context::AppId;

/// The scopes above `?2` that the identity `?1` may read, or could.
pub(super) const SCOPES_READ_BY: &str = "SELECT s.id, s.app_id, s.parent_id, s.oid, s.is_local \
     FROM reader AS r CROSS JOIN scope AS s \
     WHERE r.identity_oid = ?1 AND r.scope_id > ?2 AND s.id = r.scope_id \
     ORDER BY r.scope_id";

/// The live objects of one type among the newest rows of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeCount {
    /// The number of rows that were examined, of all types.
    pub examined: usize,
    /// The number of these objects.
    pub count: u64,
    /// Local id of the one that this node stored last.
    pub newest: Option<i64>,
}

/// At most `?3` identities whose right to read the scope `?1` ended with the write `?2` or later.
pub(super) const READERS_UNTIL: &str =
    "SELECT identity_oid FROM reader WHERE scope_id = ?1 AND until_seq >= ?2 LIMIT ?3";

impl Rows<'_> {
    /// At most `limit` identities whose right to read a scope ended by the write `since` or a later
    /// one, in no order.
    pub fn readers_until(
        &self,
        scope: ScopeId,
        since: u64,
        limit: usize,
    ) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare("reading former readers", READERS_UNTIL)?;
        statement.all((scope.0, since, limit), |row| {
            fixed(row, 0).map(Oid::from_bytes)
        })
    }

    /// At most `limit` identities whose right to read a scope ended by the write `until_seq` or an
    /// earlier one, those that ended last first.
    pub fn former_readers(
        &self,
        scope: ScopeId,
        until_seq: u64,
        limit: usize,
    ) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare(
            "reading former readers",
            "SELECT identity_oid FROM reader
             WHERE scope_id = ?1 AND until_seq <= ?2
             ORDER BY until_seq DESC, identity_oid DESC LIMIT ?3",
        )?;
        statement.all((scope.0, sql_seq(until_seq), limit), |row| {
            fixed(row, 0).map(Oid::from_bytes)
        })
    }

    /// Calls `visit` with each scope above `after` that an identity may read, or could, by id,
    /// until it breaks.
    pub fn scopes_read_by(
        &self,
        identity: &Oid,
        after: ScopeId,
        mut visit: impl FnMut(ScopeRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let context = "reading the scopes of an identity";
        let mut statement = self.prepare(context, SCOPES_READ_BY)?;
        let mut rows = statement
            .query((identity.as_bytes(), after.0))
            .context(context)?;
        while let Some(row) = rows.next().context(context)? {
            let scope = scope_row(row).context(context)?;
            if visit(scope).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// At most `limit` scopes above `after` that an identity may read, or could, by id.
    pub fn some_scopes_read_by(
        &self,
        identity: &Oid,
        after: ScopeId,
        limit: usize,
    ) -> Result<Vec<ScopeRow>, StoreError> {
        let mut scopes = Vec::new();
        self.scopes_read_by(identity, after, |scope| {
            scopes.push(scope);
            match scopes.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(scopes)
    }

    /// The list in force in a scope, among those that this node first stored up to `until_seq`.
    pub fn list_seen(
        &self,
        app: &AppTable,
        scope: ScopeId,
        until_seq: u64,
    ) -> Result<RightsRow, StoreError> {
        let mut statement =
            self.prepare("reading the list that an identity sees", &app.list_seen)?;
        statement.one((scope.0, sql_seq(until_seq)), rights_row)
    }

    /// Counts the live objects of a type among the newest `limit` rows of a scope. Counts only
    /// those that this node first stored up to `until_seq`.
    pub fn count_in_scope(
        &self,
        app: &AppTable,
        scope: ScopeId,
        type_number: u16,
        until_seq: u64,
        limit: usize,
    ) -> Result<ScopeCount, StoreError> {
        let mut statement = self.prepare("counting the objects in a scope", &app.count_in_scope)?;
        statement.one((scope.0, type_number, sql_seq(until_seq), limit), |row| {
            let newest_seq: Option<u64> = row.get(2)?;
            Ok(ScopeCount {
                examined: row.get(0)?,
                count: row.get(1)?,
                newest: newest_seq.and(row.get(3)?),
            })
        })
    }
}

/// A sequence number for SQL. `u64::MAX` stands for no bound.
fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn scope_row(row: &Row<'_>) -> rusqlite::Result<ScopeRow> {
    Ok(ScopeRow {
        id: ScopeId(row.get(0)?),
        app: AppId(row.get(1)?),
        parent_id: row.get(2)?,
        oid: Oid::from_bytes(fixed(row, 3)?),
        is_local: row.get(4)?,
    })
}

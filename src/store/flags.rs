//! The bits of `sync_flags` that a new domain needs in the rows of its app (docs/DECISIONS.md 7).
//!
//! Invariant: as long as rows lack the bit of a domain, a row of table `settling` says how far they
//! have it. Tested in `tests/core/new_domains.rs`.

use super::app_tables::AppTable;
use super::domain_table::RECEIVED_FLAG;
use super::error::{SqlContext as _, StoreError};
use super::parents::{ParentRow, parent_row};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use super::settling::SettlingWork;
use crate::op_context::AppId;

impl Rows<'_> {
    /// How far the rows of an app have the bit of a domain. `None`: all of them have it.
    pub fn flagged_up_to(&self, app: AppId, bit: u8) -> Result<Option<u64>, StoreError> {
        let (kind, needs) = SettlingWork::Flag(app, bit).columns();
        let mut statement = self.prepare(
            "reading how far a domain reaches",
            "SELECT after_id FROM settling WHERE needs_kind = ?1 AND needs = ?2",
        )?;
        statement.first((kind, needs), |row| row.get(0))
    }

    /// Whether the rows of any app lack the bit of a domain.
    pub fn is_any_flag_pending(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a domain that rows lack",
            "SELECT 1 FROM settling WHERE needs_kind = ?1 LIMIT 1",
        )?;
        statement.exists([SettlingWork::FLAG])
    }

    /// At most `limit` objects of an app that this node exports or should export, with a
    /// `change_seq` above `after` and up to `until`, oldest first.
    pub fn exported_in_order(
        &self,
        app: &AppTable,
        (after, until): (i64, i64),
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading exported objects", &app.exported)?;
        statement.all((after, until, limit), parent_row)
    }
}

impl WriteTx<'_> {
    /// Notes that the rows of an app lack the bit of a domain.
    pub(super) fn note_flag(&self, app: &AppTable, bit: u8) -> Result<(), StoreError> {
        let context = "noting a new domain";
        let until: Option<i64> = self
            .connection
            .query_row(
                &format!("SELECT MAX(change_seq) FROM app_{}_parent", app.slug),
                [],
                |row| row.get(0),
            )
            .context(context)?;
        let Some(until) = until else {
            return Ok(());
        };
        let (kind, needs) = SettlingWork::Flag(app.id, bit).columns();
        self.connection
            .execute(
                "INSERT INTO settling (needs_kind, needs, after_id, until_id)
                 VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (needs_kind, needs) DO UPDATE SET
                   after_id = 0, until_id = excluded.until_id",
                (kind, needs, until),
            )
            .map(drop)
            .context(context)
    }

    /// Notes that the received rows of scopes lack their bits, as an earlier version left them.
    pub(super) fn note_flags_of_received(&self) -> Result<(), StoreError> {
        for app in self.apps.iter() {
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM app_{}_parent
                   WHERE origin IS NOT NULL AND scope_id > ?1 AND rev > 0)",
                app.slug
            );
            let has_received: bool = self
                .connection
                .query_row(&sql, [ScopeId::PUBLIC.0], |row| row.get(0))
                .context("looking for received objects")?;
            if has_received {
                app.bits().try_for_each(|bit| self.note_flag(app, bit))?;
            }
        }
        Ok(())
    }

    /// Sets the bit of a domain in an object. Returns the number of rows that it has.
    pub fn set_flag(&self, app: &AppTable, row: &ParentRow, bit: u8) -> Result<usize, StoreError> {
        let received = row.origin.map_or(0, |_| RECEIVED_FLAG);
        let (id, mask) = (row.id, 1i64 << bit | received);
        let mut rows = 0;
        for sql in [&app.flag_parent, &app.flag_attrs] {
            let mut statement = self.prepare("setting the bit of a domain", sql)?;
            rows += statement.execute((id, mask))?;
        }
        Ok(rows)
    }
}

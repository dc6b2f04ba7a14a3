//! Setting the bit of a new domain in the rows that its app has already, in portions
//! (docs/DECISIONS.md 7). Received rows of scopes that an earlier version stored get their bits in
//! the same way.
//!
//! The rows keep their `change_seq`, so that peers of other domains receive nothing twice.
//! Invariant: a portion ends with a whole change group, and its position is stored in the same
//! transaction. Tested in `tests/core/new_domains.rs`.

use super::error::SaveError;
use super::manager::GraphManager;
use super::travel::travel_type;
use crate::op_context::AppId;
use crate::store::{AppTable, ParentRow, RECEIVED_FLAG, StoreError};

/// Most objects that one portion examines.
const EXAMINED_MAX: usize = 4096;
/// Most objects that one portion changes, besides the last change group.
const CHANGED_MAX: usize = 256;
/// Most rows of both tables that one portion changes, besides the last change group. An object has
/// up to 256 Attrs.
const ROWS_CHANGED_MAX: usize = 1024;

/// A row that becomes exported, as a received one.
fn received(row: &ParentRow) -> ParentRow {
    ParentRow {
        sync_flags: RECEIVED_FLAG,
        ..row.clone()
    }
}

impl GraphManager<'_> {
    /// Sets the bit of a domain in one portion of the rows of its app. `span` is the last
    /// `change_seq` that is done, and the last that is to be done. Returns how far it got; `None`:
    /// all is done.
    pub fn flag_portion(
        &mut self,
        (app, bit): (AppId, u8),
        span: (i64, i64),
    ) -> Result<Option<i64>, SaveError> {
        let apps = self.tx.apps();
        let Some(app) = apps.iter().find(|known| known.id == app) else {
            return Ok(None);
        };
        let Some(types) = app.types_of_bit(bit) else {
            return Ok(None);
        };
        let mut rows = self.tx.exported_in_order(app, span, EXAMINED_MAX)?;
        let is_all = rows.len() < EXAMINED_MAX;
        let last_seq = rows.last().map(|row| row.change_seq);
        if !is_all && rows.first().map(|row| row.change_seq) != last_seq {
            // The last change group may be cut; the next portion takes it whole.
            rows.retain(|row| Some(row.change_seq) != last_seq);
        }
        let (mut changed, mut all_rows, mut position) = (0, 0, None);
        for group in rows.chunk_by(|one, other| one.change_seq == other.change_seq) {
            let is_long = self.spent() >= ROWS_CHANGED_MAX;
            if changed >= CHANGED_MAX || all_rows >= ROWS_CHANGED_MAX || is_long {
                return Ok(position);
            }
            for row in group {
                if types.contains(&travel_type(self.tx, app, row)?) {
                    changed += 1;
                    all_rows += self.tx.set_flag(app, row, bit)?;
                    if row.sync_flags == 0 {
                        self.touch(app, &received(row))?;
                    }
                }
            }
            position = group.last().map(|row| row.change_seq.cast_signed());
        }
        if is_all {
            self.env.touched.add_everything();
            return Ok(None);
        }
        Ok(position)
    }

    /// The bits of a row that is signed again: those of every domain in which its type travels. An
    /// app may be disabled meanwhile. A row that is not exported has none.
    pub(super) fn present_flags(&self, app: &AppTable, row: &ParentRow) -> Result<i64, StoreError> {
        let is_own = row.origin.is_none() && self.is_local(&row.owner)?;
        // A received row may still lack the bits that an earlier version did not set.
        let is_received = !is_own && row.scope_id.has_readers();
        let is_passed_on = !is_own && row.sync_flags < 0;
        let is_exported = is_received || ((is_own || is_passed_on) && row.sync_flags != 0);
        if !is_exported {
            return Ok(0);
        }
        let flags = row.sync_flags | app.flags_of(travel_type(self.tx, app, row)?);
        Ok(match !is_own && flags != 0 {
            true => flags | RECEIVED_FLAG,
            false => flags & !RECEIVED_FLAG,
        })
    }
}

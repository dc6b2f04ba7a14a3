//! The rows of a domain that changed after a sequence number, in all scopes or in some
//! (docs/STORY.md 2.1 steps 3 and 4, 6.2).
//!
//! Both queries read an index alone, never a row. `state_engine` decides between them and drops
//! what the peer may not read. Invariants: entries come in order of `change_seq`, then of the local
//! id; all entries of a change group come together.

use std::fmt::Write as _;

use rusqlite::Row;

use super::domain_table::DomainTable;
use super::error::{SqlContext as _, StoreError};
use super::rows::Rows;
use super::scope_id::ScopeId;

/// An entry of an index of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeEntry {
    /// Sequence number of the last write of the object.
    pub change_seq: u64,
    /// Local id of the Parent.
    pub id: i64,
    /// The scope of the object.
    pub scope: ScopeId,
    /// The domains in which this node exports it.
    pub sync_flags: i64,
}

fn entry(row: &Row<'_>) -> rusqlite::Result<ChangeEntry> {
    Ok(ChangeEntry {
        change_seq: row.get(0)?,
        scope: ScopeId(row.get(1)?),
        sync_flags: row.get(2)?,
        id: row.get(3)?,
    })
}

/// A part of an index of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePart {
    /// The entries, exported or not.
    pub entries: Vec<ChangeEntry>,
    /// No entry up to this number is missing. `None`: none is missing at all.
    pub reached: Option<u64>,
}

impl Rows<'_> {
    /// The changes of a domain after `after` in all scopes: `most` entries, and the rest of the
    /// last one's change group.
    pub fn changes_in_order(
        &self,
        domain: &DomainTable,
        after: u64,
        most: usize,
    ) -> Result<ChangePart, StoreError> {
        let context = "selecting changes";
        let mut statement = self.prepare(context, &domain.in_order)?;
        let mut rows = statement.query([after]).context(context)?;
        let mut entries: Vec<ChangeEntry> = Vec::with_capacity(most.min(1024));
        let mut reached = None;
        while let Some(row) = rows.next().context(context)? {
            let next = entry(row).context(context)?;
            if let Some(last) = entries.last().filter(|_| entries.len() >= most)
                && last.change_seq != next.change_seq
            {
                reached = Some(last.change_seq);
                break;
            }
            entries.push(next);
        }
        entries.sort_unstable();
        Ok(ChangePart { entries, reached })
    }

    /// The changes of a domain in some scopes, each after its own number. Returns `most` entries of
    /// each scope, and the rest of the last one's change group.
    pub fn changes_by_scope(
        &self,
        domain: &DomainTable,
        scopes: &[(ScopeId, u64)],
        most: usize,
    ) -> Result<ChangePart, StoreError> {
        let context = "selecting the changes of scopes";
        let mut starts = String::from("{");
        for (index, (scope, after)) in scopes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(starts, "{comma}\"{}\":{after}", scope.0);
        }
        starts.push('}');
        let mut statement = self.prepare(context, &domain.by_scope)?;
        let mut rows = statement.query((starts, most)).context(context)?;
        let mut entries: Vec<ChangeEntry> = Vec::new();
        let mut reached: Option<u64> = None;
        let mut of_scope = 0;
        while let Some(row) = rows.next().context(context)? {
            let next = entry(row).context(context)?;
            if let Some(last) = entries.last()
                && last.scope != next.scope
            {
                reached = end_of(reached, last, of_scope >= most);
                of_scope = 0;
            }
            of_scope += 1;
            entries.push(next);
        }
        if let Some(last) = entries.last() {
            reached = end_of(reached, last, of_scope >= most);
        }
        if let Some(reached) = reached {
            entries.retain(|entry| entry.change_seq <= reached);
        }
        entries.sort_unstable();
        Ok(ChangePart { entries, reached })
    }
}

/// The lowest number at which a scope was cut, `last` being the last entry of one more scope.
fn end_of(reached: Option<u64>, last: &ChangeEntry, is_cut: bool) -> Option<u64> {
    match reached {
        _ if !is_cut => reached,
        None => Some(last.change_seq),
        Some(reached) => Some(reached.min(last.change_seq)),
    }
}

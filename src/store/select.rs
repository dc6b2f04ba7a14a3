//! The changes of a domain that a peer may read (docs/STORY.md 2.1 steps 3 and 4, 6.2).
//!
//! Pulls and pushes use the same query. A change group is returned whole. No peer reads a scope
//! without readers. Invariant: rows come in order of `change_seq`, and all follow `after`.

use keys::PeerId;

use super::app_tables::AppTable;
use super::error::{SqlContext as _, StoreError};
use super::parents::{ParentRow, parent_row};
use super::rows::Rows;

/// Parameters of a selection.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Mask of the domain in `sync_flags`.
    pub mask: i64,
    /// The peer whose identities must be among the readers.
    pub peer: &'a PeerId,
    /// Selects only changes with a higher `change_seq`.
    pub after: u64,
}

/// Whether the walk continues after a change group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Continue with the next change group.
    More,
    /// Stop before the next change group.
    Enough,
}

impl Rows<'_> {
    /// Calls `visit` with the rows of each change group, in order, until it returns
    /// [`Changed::Enough`].
    ///
    /// Returns the `change_seq` up to which all changes were visited: `head` if the walk reached
    /// the end.
    pub fn walk_changed<E: From<StoreError>>(
        &self,
        app: &AppTable,
        selection: Selection<'_>,
        head: u64,
        mut visit: impl FnMut(&[ParentRow]) -> Result<Changed, E>,
    ) -> Result<u64, E> {
        let context = "selecting changes";
        let mut statement = self
            .connection
            .prepare_cached(&app.changed(selection.mask))
            .context(context)?;
        let mut rows = statement
            .query((selection.after, selection.peer.as_bytes()))
            .context(context)?;
        let mut group: Vec<ParentRow> = Vec::new();
        loop {
            let next = rows
                .next()
                .context(context)?
                .map(parent_row)
                .transpose()
                .context(context)?;
            let group_seq = group.last().map(|row| row.change_seq);
            if let Some(seq) =
                group_seq.filter(|seq| next.as_ref().is_none_or(|row| row.change_seq != *seq))
            {
                let more = visit(&group)?;
                group.clear();
                if more == Changed::Enough && next.is_some() {
                    return Ok(seq);
                }
            }
            match next {
                Some(row) => group.push(row),
                None => return Ok(head),
            }
        }
    }
}

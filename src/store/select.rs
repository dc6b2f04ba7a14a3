//! The delta of a domain for a peer: exactly the rows that changed and that it may read (docs/STORY.md 2.1 step 3, 4, 6.2).
//!
//! One rule serves pull and push. Never returns part of a change group. Fails closed: a scope without readers is
//! read by nobody. Invariant: rows come in `change_seq` order and none at or below `after` is among them.

use keys::PeerId;

use super::parents::parent_row;
use super::{AppTable, ParentRow, Rows, SqlContext as _, StoreError};

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The domain's bit.
    pub mask: i64,
    /// The peer whose identities read.
    pub peer: &'a PeerId,
    /// Only later changes.
    pub after: u64,
}

/// Whether the walk wants to go on after a change group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The next change group may follow.
    More,
    /// Enough: do not begin another change group.
    Enough,
}

impl Rows<'_> {
    /// Walks the delta, a whole change group at a time. `visit` takes a group's rows and says whether to go on.
    /// Returns the `change_seq` up to which everything was scanned: the given head where the walk came to its end.
    pub fn walk_changed<E: From<StoreError>>(
        &self,
        app: &AppTable,
        selection: Selection<'_>,
        head: u64,
        mut visit: impl FnMut(&[ParentRow]) -> Result<Changed, E>,
    ) -> Result<u64, E> {
        let context = "selecting what changed";
        let mut statement = self
            .connection
            .prepare_cached(&app.changed(selection.mask))
            .context(context)?;
        let mut rows = statement
            .query((selection.after, selection.peer.as_bytes(), app.id.0))
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

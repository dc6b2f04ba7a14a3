//! The objects that an onlooker sees, in the order in which it began to see them, for a poller.
//!
//! An identity can begin to read a scope whose objects were stored long before. A later rights list
//! names it, or the scope's deletion was overruled. Table `opening` notes the write, and the
//! history of the scope comes at the place of that write.
//! Invariants: a poller that follows the cursor gets each object that it may see once. An object
//! that changed or was re-signed comes again in the order of [`SeqOrder::Changed`] only. A page
//! examines a bounded number of rows. Tested in `tests/core/feed.rs`.

use std::fmt;
use std::str::FromStr;

use rusqlite::{OptionalExtension as _, Row};

use super::app_tables::{AppTable, PARENT_COLUMNS};
use super::error::{SqlContext as _, StoreError};
use super::invitations::{SEEN_UNTIL, WITH_INVITATION};
use super::lists::{SeqOrder, SeqWindow};
use super::parents::{ParentRow, parent_row};
use super::sight::{Onlooker, Sight};

/// A position between two objects of a feed. Its text is `17`, or `17.42` within a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedCursor {
    seq: u64,
    /// Local id of the last object of the history at `seq`. `None`: the whole history is before.
    history_id: Option<i64>,
}

impl From<u64> for FeedCursor {
    fn from(seq: u64) -> Self {
        let history_id = None;
        Self { seq, history_id }
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.history_id {
            None => write!(out, "{}", self.seq),
            Some(id) => write!(out, "{}.{id}", self.seq),
        }
    }
}

/// The text is no position.
#[derive(Debug, thiserror::Error)]
#[error("must be a change_seq, or `after` of an earlier page")]
pub struct NoFeedCursor;

impl FromStr for FeedCursor {
    type Err = NoFeedCursor;

    fn from_str(text: &str) -> Result<Self, NoFeedCursor> {
        let (seq, id) = match text.split_once('.') {
            None => (text, None),
            Some((seq, id)) => (seq, Some(id)),
        };
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let id = match id.filter(|id| is_number(id)).map(str::parse) {
            Some(Ok(id)) => Some(id),
            None if id.is_none() => None,
            _ => return Err(NoFeedCursor),
        };
        // SQLite compares signed numbers.
        let seq = Some(seq)
            .filter(|seq| is_number(seq))
            .map(str::parse::<i64>);
        match seq {
            Some(Ok(seq)) => Ok(Self {
                seq: seq.unsigned_abs(),
                history_id: id,
            }),
            _ => Err(NoFeedCursor),
        }
    }
}

/// An object of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenObject {
    /// The object.
    pub row: ParentRow,
    /// The write by which the onlooker began to see it, or by which it changed. Never below that of
    /// the object before.
    pub seq: u64,
}

/// A part of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The objects, tombstones included.
    pub objects: Vec<SeenObject>,
    /// `after` of the next part.
    pub after: FeedCursor,
    /// Whether there may be a next part. The part can be empty then.
    pub more: bool,
}

impl Sight<'_> {
    /// The objects of a type that the onlooker sees and that follow `after`. Examines `limit` rows
    /// and the rest of the last change group; the onlooker may see fewer.
    pub fn feed(
        &mut self,
        app: &AppTable,
        (type_number, order): (u16, SeqOrder),
        after: FeedCursor,
        limit: usize,
    ) -> Result<Feed, StoreError> {
        let mut feed = Feed {
            objects: Vec::new(),
            after,
            more: true,
        };
        let mut left = limit;
        while left > 0 && feed.more {
            let examined = match feed.after.history_id {
                None => self.add_recent(&mut feed, app, (type_number, order), left)?,
                Some(id) => self.add_history(&mut feed, app, (type_number, order), id, left)?,
            };
            // An empty history is work too.
            left = left.saturating_sub(examined.max(1));
        }
        Ok(feed)
    }

    /// Adds objects in their order, up to the next history.
    fn add_recent(
        &mut self,
        feed: &mut Feed,
        app: &AppTable,
        (type_number, order): (u16, SeqOrder),
        limit: usize,
    ) -> Result<usize, StoreError> {
        let after = feed.after.seq;
        let opened = self.next_opening(after)?;
        let until = opened.unwrap_or(u64::MAX);
        let window = SeqWindow { after, until };
        let page = self
            .rows
            .ordered(app, (type_number, order), window, limit)?;
        let examined = page.rows.len();
        for row in page.rows {
            let seq = order.of(&row);
            // A history shows it later.
            let is_later = self.opened_at(&row)?.is_some_and(|opened| seq <= opened);
            if !is_later && self.shows(&row)? {
                feed.objects.push(SeenObject { row, seq });
            }
        }
        feed.more = page.more || opened.is_some();
        feed.after = match opened {
            Some(seq) if !page.more => FeedCursor {
                seq,
                history_id: Some(0),
            },
            _ => page.after.into(),
        };
        Ok(examined)
    }

    /// Adds objects of the scopes that opened at the cursor, by their local ids.
    fn add_history(
        &mut self,
        feed: &mut Feed,
        app: &AppTable,
        (type_number, order): (u16, SeqOrder),
        after_id: i64,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let seq = feed.after.seq;
        let rows = self.opened_rows(app, seq, after_id, limit)?;
        let (examined, last) = (rows.len(), rows.last().map(|row| row.id));
        feed.after.history_id = last.filter(|_| examined == limit);
        for row in rows {
            // In the order of changes, an object that changed since comes at that change.
            let is_here = order.of(&row) <= seq;
            let is_live_type = row.type_number == type_number && row.rev > 0;
            if is_live_type && is_here && self.opened_at(&row)? == Some(seq) && self.shows(&row)? {
                feed.objects.push(SeenObject { row, seq });
            }
        }
        Ok(examined)
    }

    /// The first write above `after` that opened a scope for the onlooker.
    fn next_opening(&self, after: u64) -> Result<Option<u64>, StoreError> {
        let context = "looking for scopes that opened";
        let (sql, id) = match &self.onlooker {
            Onlooker::Identity(identity) => (
                "SELECT MIN(opened_seq) FROM opening WHERE identity_oid = ?1 AND opened_seq > ?2",
                &identity.as_bytes()[..],
            ),
            Onlooker::AnyAt(home) => (
                "SELECT MIN((SELECT MIN(o.opened_seq) FROM opening AS o
                             WHERE o.identity_oid = i.oid AND o.opened_seq > ?2))
                 FROM identity AS i WHERE i.home_peer = ?1",
                &home.as_bytes()[..],
            ),
        };
        let connection = self.rows.connection;
        let mut statement = connection.prepare_cached(sql).context(context)?;
        statement
            .query_row((id, after), |row| row.get(0))
            .context(context)
    }

    /// The last write that opened the scope of an object for the onlooker, if the object is part of
    /// the history then.
    fn opened_at(&self, object: &ParentRow) -> Result<Option<u64>, StoreError> {
        let context = "reading when an identity began to see an object";
        let connection = self.rows.connection;
        let (scope, seq) = (object.scope_id.0, object.created_seq);
        let identity = match &self.onlooker {
            Onlooker::Identity(identity) => identity,
            Onlooker::AnyAt(home) => {
                let mut statement = connection.prepare_cached(&seen_at()).context(context)?;
                let rows = statement
                    .query_map((scope, home.as_bytes(), seq), seen)
                    .context(context)?;
                let readers: Vec<_> = rows.collect::<rusqlite::Result<_>>().context(context)?;
                return Ok(first_opened(&readers, seq));
            }
        };
        let mut statement = connection
            .prepare_cached(
                "SELECT MAX(opened_seq) FROM opening
                 WHERE scope_id = ?1 AND identity_oid = ?2 AND opened_seq >= ?3 AND from_seq < ?3",
            )
            .context(context)?;
        statement
            .query_row((scope, identity.as_bytes(), seq), |row| row.get(0))
            .optional()
            .context(context)
            .map(Option::flatten)
    }

    /// At most `limit` rows of the scopes that the write `opened_seq` opened, with local ids above
    /// `after_id`, by id. Reads the index of these scopes to its end.
    fn opened_rows(
        &self,
        app: &AppTable,
        opened_seq: u64,
        after_id: i64,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let context = "reading the history of a scope";
        let (identities, id) = match &self.onlooker {
            Onlooker::Identity(identity) => ("SELECT ?2", &identity.as_bytes()[..]),
            Onlooker::AnyAt(home) => (
                "SELECT oid FROM identity WHERE home_peer = ?2",
                &home.as_bytes()[..],
            ),
        };
        let sql = opened_rows_sql(&app.slug, identities);
        let connection = self.rows.connection;
        let mut statement = connection.prepare_cached(&sql).context(context)?;
        let rows = statement
            .query_map((opened_seq, id, after_id, limit), parent_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

/// Since when each identity of the node `?2` sees what the write `?3` stored in the scope `?1`. The
/// columns are the first opening since then, the last one of a scope that had ended, and the end of
/// the right to read.
fn seen_at() -> String {
    format!(
        "SELECT
           (SELECT o.opened_seq FROM opening AS o WHERE o.scope_id = ?1 AND o.identity_oid = i.oid
              AND o.opened_seq >= ?3 ORDER BY o.opened_seq LIMIT 1),
           (SELECT o.from_seq FROM opening AS o WHERE o.scope_id = ?1 AND o.identity_oid = i.oid
              AND o.opened_seq >= ?3 ORDER BY o.opened_seq LIMIT 1),
           (SELECT MAX(o.opened_seq) FROM opening AS o WHERE o.scope_id = ?1
              AND o.identity_oid = i.oid AND o.opened_seq >= ?3 AND o.from_seq < 0),
           {SEEN_UNTIL}
         FROM identity AS i CROSS JOIN reader AS r {WITH_INVITATION}
         WHERE i.home_peer = ?2 AND r.identity_oid = i.oid AND r.scope_id = ?1"
    )
}

/// A row of [`seen_at`].
struct Seen {
    /// `opened_seq` and `from_seq`.
    opening: Option<(u64, i64)>,
    lives_again: Option<u64>,
    until_seq: Option<u64>,
}

fn seen(row: &Row<'_>) -> rusqlite::Result<Seen> {
    let opened: Option<u64> = row.get(0)?;
    let from: Option<i64> = row.get(1)?;
    Ok(Seen {
        opening: opened.zip(from),
        lives_again: row.get(2)?,
        until_seq: row.get(3)?,
    })
}

/// The write that opened objects with this `created_seq` to the first of some identities. `None`:
/// one read the scope when they were stored, or none sees them. All of a scope that lives again is
/// new.
fn first_opened(readers: &[Seen], created_seq: u64) -> Option<u64> {
    let last = readers.iter().filter_map(|seen| seen.lives_again).max();
    if last.is_some() {
        return last;
    }
    let mut first = None;
    for seen in readers {
        let opened = seen
            .opening
            .filter(|(_, from)| u64::try_from(*from).is_ok_and(|from| from < created_seq));
        match (opened, seen.opening) {
            (Some((opened, _)), _) => {
                first = Some(first.map_or(opened, |first: u64| first.min(opened)));
            }
            (None, Some(_)) => return None,
            (None, None) if seen.until_seq.is_none_or(|until| until >= created_seq) => return None,
            (None, None) => {}
        }
    }
    first
}

/// The rows of scopes that the write `?1` opened for some of `identities`.
pub(super) fn opened_rows_sql(slug: &str, identities: &str) -> String {
    format!(
        "SELECT {PARENT_COLUMNS} FROM (
           SELECT h.id FROM app_{slug}_parent AS h INDEXED BY app_{slug}_parent_scope
           WHERE h.scope_id IN (SELECT scope_id FROM opening
                                WHERE identity_oid IN ({identities}) AND opened_seq = ?1)
             AND h.id > ?3
           ORDER BY h.id LIMIT ?4) AS found
         CROSS JOIN app_{slug}_parent AS p WHERE p.id = found.id ORDER BY p.id"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_cursor_returns_it_and_other_texts_are_refused() {
        for text in ["0", "17", "17.0", "9223372036854775807.42"] {
            let cursor: FeedCursor = text.parse().unwrap();
            assert_eq!(cursor.to_string(), text);
        }
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "-1",
            "+1",
            "1.2.3",
            "1.-2",
            "x",
            "9223372036854775808",
        ] {
            assert!(text.parse::<FeedCursor>().is_err(), "{text}");
        }
    }
}

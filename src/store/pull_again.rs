//! Table `pull_again`: scopes and domains of peers that are pulled again from 0
//! (docs/PROTOCOL.md 6.4).
//!
//! Invariants: a cursor moves in the transaction that stores the rows that it counts. One peer and
//! domain have at most [`ROWS_MAX`] rows, of them [`UNFINISHED_MAX`] unfinished ones. Tested in
//! `tests/core/pull_again.rs`.

use keys::protocol::SCOPES_NAMED_MAX;
use keys::{Epoch, Oid, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::pull_again_state::{DAY_MS, FINISHED, RETRY_MS, State};
pub use super::pull_again_state::{PullAgainCause, PullAgainNote};
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// Most unfinished rows of one peer and domain: all that one package names, and others. With more,
/// the whole domain is pulled again.
const UNFINISHED_MAX: usize = SCOPES_NAMED_MAX + 256;
/// Most rows of one peer and domain, with those that count the starts of the day.
const ROWS_MAX: usize = 2 * UNFINISHED_MAX;
/// Counting a row costs as much as writing so many bytes.
const COUNTED_ROW_BYTES: usize = 4;

/// The scopes of one peer and domain that the next request pulls again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullAgain {
    /// The scopes, sorted; none: the whole domain.
    pub scopes: Vec<Oid>,
    /// The peer's epoch.
    pub epoch: Epoch,
    /// The last number that was pulled again; 0: none.
    pub cursor: u64,
}

impl PullAgain {
    /// Whether a row is part of the request.
    fn has(&self, scope: Option<&Oid>) -> bool {
        match scope {
            None => self.scopes.is_empty(),
            Some(scope) => self.scopes.binary_search(scope).is_ok(),
        }
    }
}

/// Row of the peer `?1` in the domain `?2`.
const OF_DOMAIN: &str = "peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND domain = ?2";
const COLUMNS: &str = "epoch, cursor, until_seq, cause, noted_again, not_before, pause_ms, \
                       starts, rounds, day, retry_at, lacks_own, noted_own";

fn scope_and_state(row: &Row<'_>) -> rusqlite::Result<(Option<Oid>, State)> {
    let (scope, cause): (Vec<u8>, String) = (row.get(0)?, row.get(4)?);
    let state = State {
        epoch: Epoch::from_bytes(fixed(row, 1)?),
        cursor: row.get(2)?,
        until_seq: row.get(3)?,
        cause: PullAgainCause::of(&cause),
        noted_again: row.get(5)?,
        not_before: Timestamp(row.get(6)?),
        pause_ms: row.get(7)?,
        starts: row.get(8)?,
        rounds: row.get(9)?,
        day: row.get(10)?,
        retry_at: Timestamp(row.get(11)?),
        lacks_own: row.get(12)?,
        noted_own: row.get(13)?,
    };
    Ok((Oid::from_slice(&scope), state))
}

impl Rows<'_> {
    /// The scopes that the next request to a peer in a domain pulls again. `None`: none is due.
    pub fn next_pull_again(
        &self,
        peer: &PeerId,
        domain: &str,
        now: Timestamp,
    ) -> Result<Option<PullAgain>, StoreError> {
        let mut due = self.pull_again_rows(peer, domain)?;
        due.retain(|(_, state)| state.is_due(now));
        // A request that has begun continues first. The whole domain has no scope and sorts first.
        let first = due
            .iter()
            .max_by_key(|(scope, state)| (state.cursor, scope.is_none()));
        Ok(first.map(|(scope, first)| {
            let together =
                |state: &State| (state.epoch, state.cursor) == (first.epoch, first.cursor);
            let scopes = match scope {
                None => Vec::new(),
                Some(_) => due
                    .iter()
                    .filter(|(_, state)| together(state))
                    .filter_map(|(scope, _)| *scope)
                    .take(SCOPES_NAMED_MAX)
                    .collect(),
            };
            PullAgain {
                scopes,
                epoch: first.epoch,
                cursor: first.cursor,
            }
        }))
    }

    /// Whether these scopes still stand at the position at which a request began.
    pub fn is_pull_again_current(
        &self,
        peer: &PeerId,
        domain: &str,
        again: &PullAgain,
    ) -> Result<bool, StoreError> {
        let rows = self.pull_again_rows(peer, domain)?;
        let position = (again.epoch, again.cursor);
        Ok(rows.iter().any(|(scope, state)| {
            again.has(scope.as_ref()) && (state.epoch, state.cursor) == position
        }))
    }

    /// The row of one scope or of the whole domain.
    pub(super) fn pull_again_row(
        &self,
        peer: &PeerId,
        domain: &str,
        scope: Option<&Oid>,
    ) -> Result<Option<State>, StoreError> {
        let mut statement = self.prepare(
            "reading what is to be pulled again",
            &format!(
                "SELECT scope_oid, {COLUMNS} FROM pull_again WHERE {OF_DOMAIN} AND scope_oid = ?3"
            ),
        )?;
        let key = (peer.as_bytes(), domain, scope_column(scope));
        let row = statement.first(key, scope_and_state)?;
        Ok(row.map(|(_, state)| state))
    }

    /// All rows of a peer and domain, sorted by scope; the whole domain is the first.
    fn pull_again_rows(
        &self,
        peer: &PeerId,
        domain: &str,
    ) -> Result<Vec<(Option<Oid>, State)>, StoreError> {
        let mut statement = self.prepare(
            "reading what is to be pulled again",
            &format!(
                "SELECT scope_oid, {COLUMNS} FROM pull_again WHERE {OF_DOMAIN} ORDER BY scope_oid"
            ),
        )?;
        statement.all((peer.as_bytes(), domain), scope_and_state)
    }
}

impl WriteTx<'_> {
    /// Notes a scope or domain. Too many scopes of a domain are replaced by the whole domain.
    pub fn note_pull_again(
        &self,
        note: &PullAgainNote<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (peer, domain, scope) = (note.peer, note.domain, note.scope.as_ref());
        let state = match self.pull_again_row(peer, domain, scope)? {
            Some(mut known) => {
                known.note(note, now);
                known
            }
            None if scope.is_none() || self.has_room_again(peer, domain, 1)? => {
                State::new(note, now)
            }
            None => {
                self.drop_finished(peer, domain, now)?;
                if !self.has_room_again(peer, domain, 1)? {
                    return self.note_whole_domain(note, &self.pull_again_rows(peer, domain)?, now);
                }
                State::new(note, now)
            }
        };
        self.put_pull_again(peer, domain, scope, &state)
    }

    /// Notes scopes that a peer named; `note` says all but the scope. Reads the rows once, because
    /// a package may name many.
    pub fn note_scopes_again(
        &self,
        note: &PullAgainNote<'_>,
        scopes: &[Oid],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (peer, domain) = (note.peer, note.domain);
        self.drop_finished(peer, domain, now)?;
        let rows = self.pull_again_rows(peer, domain)?;
        let known = |oid: &Oid| {
            let found = rows.binary_search_by_key(&Some(*oid), |(scope, _)| *scope);
            found.ok().and_then(|index| rows.get(index))
        };
        let new = scopes.iter().filter(|oid| known(oid).is_none()).count();
        if !self.has_room_again(peer, domain, new)? {
            return self.note_whole_domain(note, &rows, now);
        }
        for oid in scopes {
            let state = match known(oid) {
                Some(&(_, mut state)) => {
                    state.note(note, now);
                    state
                }
                None => State::new(note, now),
            };
            self.put_pull_again(peer, domain, Some(oid), &state)?;
        }
        Ok(())
    }

    /// Replaces all rows of a domain by one of the whole domain.
    fn note_whole_domain(
        &self,
        note: &PullAgainNote<'_>,
        rows: &[(Option<Oid>, State)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (peer, domain) = (note.peer, note.domain);
        let mut whole = State::new(note, now);
        for (scope, row) in rows {
            // The whole domain sorts first.
            match scope {
                Some(_) => whole.absorb(row),
                None => {
                    whole = *row;
                    whole.note(note, now);
                }
            }
        }
        self.delete_pull_again(peer, domain)?;
        self.put_pull_again(peer, domain, None, &whole)
    }

    /// Moves the position of scopes whose next window was applied; `None`: nothing is left. A row
    /// that has reached its end is finished, or starts once more after a pause if it was noted
    /// meanwhile.
    pub fn move_pull_again(
        &self,
        peer: &PeerId,
        domain: &str,
        again: &PullAgain,
        to_seq: Option<u64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for (scope, state) in self.pull_again_rows(peer, domain)? {
            if !again.has(scope.as_ref())
                || (state.epoch, state.cursor) != (again.epoch, again.cursor)
            {
                continue;
            }
            let state = state.advance(to_seq.unwrap_or(u64::MAX), now);
            self.put_pull_again(peer, domain, scope.as_ref(), &state)?;
        }
        Ok(())
    }

    /// Lets a scope and the whole domain start now, because an object in the scope was settled.
    pub fn wake_pull_again(
        &self,
        peer: &PeerId,
        domain: &str,
        scope: Option<&Oid>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "waking what is to be pulled again",
            &format!(
                "UPDATE pull_again SET not_before = MIN(not_before, ?3), pause_ms = ?4
                 WHERE {OF_DOMAIN} AND scope_oid IN (x'', ?5) AND cursor != ?6
                   AND (not_before > ?3 OR pause_ms != ?4)"
            ),
        )?;
        let (peer, scope) = (peer.as_bytes(), scope_column(scope));
        statement
            .execute((peer, domain, now.0, DAY_MS, scope, FINISHED))
            .map(drop)
    }

    /// Lets everything of a peer start now for which there was no room, because its quota rose.
    pub(super) fn wake_no_room(&self, peer: &PeerId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "waking what found no room",
            "UPDATE pull_again SET not_before = 0, pause_ms = ?2
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND cause = 'no_room'
               AND cursor != ?3",
        )?;
        statement
            .execute((peer.as_bytes(), DAY_MS, FINISHED))
            .map(drop)
    }

    /// The same for all peers, because the configuration may have larger quotas since the start.
    pub fn wake_all_no_room(&self) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "waking what found no room",
            "UPDATE pull_again SET not_before = 0, pause_ms = ?1
             WHERE cause = 'no_room' AND cursor != ?2",
        )?;
        statement.execute((DAY_MS, FINISHED)).map(drop)
    }

    /// Lets a scope start now at all peers, because its Parent was stored.
    pub fn wake_scope_again(&self, scope: &Oid, now: Timestamp) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "waking a scope that is to be pulled again",
            "UPDATE pull_again SET not_before = MIN(not_before, ?2), pause_ms = ?3
             WHERE scope_oid = ?1 AND cursor != ?4",
        )?;
        statement
            .execute((scope.as_bytes(), now.0, DAY_MS, FINISHED))
            .map(drop)
    }

    /// Puts off everything of a domain for an hour, because a request failed.
    pub fn postpone_pull_again(
        &self,
        peer: &PeerId,
        domain: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let until = now.0.saturating_add(RETRY_MS);
        let mut statement = self.prepare(
            "postponing what is to be pulled again",
            &format!("UPDATE pull_again SET retry_at = ?3 WHERE {OF_DOMAIN} AND cursor != ?4"),
        )?;
        statement
            .execute((peer.as_bytes(), domain, until, FINISHED))
            .map(drop)
    }

    /// Ends the rows of a domain that count in another epoch than the peer's present one, because
    /// the domain is pulled from 0 then. If the cursor counts in the present epoch already, they
    /// start once more, up to the cursor. They keep the starts of the day.
    pub fn enter_epoch_again(
        &self,
        peer: &PeerId,
        domain: &str,
        epoch: &Epoch,
        cursor: Option<u64>,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "moving what is to be pulled again to another epoch",
            &format!(
                "UPDATE pull_again SET epoch = ?3, cursor = ?4, until_seq = ?5, noted_again = 0,
                   lacks_own = lacks_own OR noted_own, noted_own = 0
                 WHERE {OF_DOMAIN} AND epoch != ?3 AND cursor != ?6"
            ),
        )?;
        let start = if cursor.is_some() { 0 } else { FINISHED };
        statement.execute((
            peer.as_bytes(),
            domain,
            epoch.as_bytes(),
            start,
            cursor.unwrap_or(0),
            FINISHED,
        ))?;
        Ok(())
    }

    /// Whether rows for `new` other scopes fit. Counting them costs the transaction.
    fn has_room_again(&self, peer: &PeerId, domain: &str, new: usize) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "counting what is to be pulled again",
            &format!(
                "SELECT COUNT(*), COALESCE(SUM(cursor != ?3), 0)
                 FROM pull_again WHERE {OF_DOMAIN}"
            ),
        )?;
        let (all, unfinished): (usize, usize) = statement
            .one((peer.as_bytes(), domain, FINISHED), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        self.count_bytes(COUNTED_ROW_BYTES * all);
        Ok(all + new <= ROWS_MAX && unfinished + new <= UNFINISHED_MAX)
    }

    /// Deletes finished rows of earlier days, which count nothing any more.
    pub(super) fn drop_finished(
        &self,
        peer: &PeerId,
        domain: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting what was pulled again on earlier days",
            &format!("DELETE FROM pull_again WHERE {OF_DOMAIN} AND cursor = ?3 AND day != ?4"),
        )?;
        statement.execute((peer.as_bytes(), domain, FINISHED, now.0 / DAY_MS))?;
        Ok(())
    }

    /// Deletes all rows of a domain.
    fn delete_pull_again(&self, peer: &PeerId, domain: &str) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting what was pulled again",
            &format!("DELETE FROM pull_again WHERE {OF_DOMAIN}"),
        )?;
        statement.execute((peer.as_bytes(), domain))?;
        Ok(())
    }

    fn put_pull_again(
        &self,
        peer: &PeerId,
        domain: &str,
        scope: Option<&Oid>,
        state: &State,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing what is to be pulled again",
            &format!(
                "INSERT OR REPLACE INTO pull_again (peer_no, domain, scope_oid, {COLUMNS})
                 SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                   ?15, ?16
                 FROM peers WHERE peer_id = ?1"
            ),
        )?;
        statement.execute((
            peer.as_bytes(),
            domain,
            scope_column(scope),
            state.epoch.as_bytes(),
            state.cursor,
            state.until_seq,
            state.cause.as_str(),
            state.noted_again,
            state.not_before.0,
            state.pause_ms,
            state.starts,
            state.rounds,
            state.day,
            state.retry_at.0,
            state.lacks_own,
            state.noted_own,
        ))?;
        Ok(())
    }
}

/// The value of the column `scope_oid`.
fn scope_column(scope: Option<&Oid>) -> &[u8] {
    scope.map_or(&[], |oid| oid.as_bytes())
}

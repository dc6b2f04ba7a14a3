//! Table `overruled`: scopes whose deletion was overruled, until each peer that may have objects of
//! them has a row in `pull_again`. A scope whose app is disabled is held until the app is enabled.
//!
//! Invariants: the scopes of one owner are due at most [`AT_ONCE`] at once and one each
//! [`SPACING_MS`] later, whatever its node sends. A peer and domain have at most [`PER_DOMAIN_MAX`]
//! scopes of owners elsewhere, so that they never become the whole domain. Tested in
//! `tests/core/overruled.rs`.

use keys::Oid;

use super::columns::fixed;
use super::error::StoreError;
use super::pull_again::{PullAgainCause, PullAgainNote};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::{AppId, Timestamp};

/// Milliseconds between two scopes of one owner after the first ones: 96 are due in a day.
const SPACING_MS: u64 = 15 * 60 * 1000;
/// Scopes of one owner that are due at once.
const AT_ONCE: u64 = 32;
/// Most scopes of owners elsewhere that are pulled again from one peer in one domain and day. The
/// other rows of the domain are left to what the peer itself causes.
const PER_DOMAIN_MAX: usize = 128;
/// Milliseconds until a scope is tried again at the peers that had too many.
const FULL_MS: u64 = 24 * 60 * 60 * 1000;
/// `not_before` of a scope of a disabled app. No clock reaches it.
const HELD: i64 = i64::MAX;
/// Most rows that one write places again after the clock was ahead, or after an app was enabled.
const PLACED_MAX: usize = 16;
/// Most finished rows that one write deletes.
const DELETED_MAX: usize = 8;

/// A scope whose deletion was overruled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overruled {
    /// The scope.
    pub scope: ScopeId,
    /// Local id of the last rights list whose identities were looked at.
    pub after: i64,
    /// Whether some peer had too many of them.
    pub was_full: bool,
}

impl Rows<'_> {
    /// The scope that has been due for the longest time.
    pub fn next_overruled(&self, now: Timestamp) -> Result<Option<Overruled>, StoreError> {
        let mut statement = self.prepare(
            "looking for a scope whose deletion was overruled",
            "SELECT scope_id, after_list, was_full FROM overruled
             WHERE not_before <= ?1 ORDER BY not_before LIMIT 1",
        )?;
        statement.first([now.0], |row| {
            Ok(Overruled {
                scope: ScopeId(row.get(0)?),
                after: row.get(1)?,
                was_full: row.get(2)?,
            })
        })
    }

    /// Whether scopes need another place: they were noted while the clock was ahead, or their app
    /// was enabled.
    pub fn is_overruled_ahead(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for scopes that were noted while the clock was ahead",
            "SELECT 1 FROM overruled WHERE noted_at > ?1 LIMIT 1",
        )?;
        statement.exists([now.0])
    }

    /// The next rights list of a scope by local id.
    pub fn list_after(&self, scope: ScopeId, after: i64) -> Result<Option<i64>, StoreError> {
        let mut statement = self.prepare(
            "reading the lists of a scope one by one",
            "SELECT id FROM rights_list WHERE scope_id = ?1 AND id > ?2 ORDER BY id LIMIT 1",
        )?;
        statement.first((scope.0, after), |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Notes that the deletion of a scope was overruled.
    pub fn note_overruled(
        &self,
        scope: ScopeId,
        owner: &Oid,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let place = self.next_place(owner, now)?;
        let mut statement = self.prepare(
            "noting a scope whose deletion was overruled",
            "INSERT INTO overruled
               (scope_id, owner_oid, place, not_before, noted_at, after_list, was_full)
             VALUES (?1, ?2, ?3, ?3, ?4, 0, 0)
             ON CONFLICT DO UPDATE SET after_list = 0,
               place = IIF(not_before IS NULL, excluded.place, place),
               noted_at = IIF(not_before IS NULL, excluded.noted_at, noted_at),
               not_before = IFNULL(not_before, excluded.not_before)",
        )?;
        statement
            .execute((scope.0, owner.as_bytes(), place, now.0))
            .map(drop)
    }

    /// The next place of an owner's scopes. Unused places of the past are lost. Those that were
    /// taken while the clock was ahead do not count.
    fn next_place(&self, owner: &Oid, now: Timestamp) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "looking for the next place of an owner",
            "SELECT place FROM overruled WHERE owner_oid = ?1 AND noted_at <= ?2
             ORDER BY place DESC LIMIT 1",
        )?;
        let last = statement.first((owner.as_bytes(), now.0), |row| row.get(0))?;
        let next = last.map_or(0, |last: u64| last.saturating_add(SPACING_MS));
        Ok(next.max(first_place(now)))
    }

    /// Gives a place after the present time to some scopes that were noted while the clock was
    /// ahead, or whose app was enabled. Finished ones do not count any more. Returns `false` if
    /// there was none.
    pub fn place_overruled_ahead(&self, now: Timestamp) -> Result<bool, StoreError> {
        let context = "placing scopes that were noted while the clock was ahead";
        let mut statement = self.prepare(
            context,
            "SELECT scope_id, owner_oid, not_before IS NULL FROM overruled
             WHERE noted_at > ?1 ORDER BY noted_at LIMIT ?2",
        )?;
        let rows: Vec<(i64, Oid, bool)> = statement.all((now.0, PLACED_MAX), |row| {
            Ok((row.get(0)?, Oid::from_bytes(fixed(row, 1)?), row.get(2)?))
        })?;
        for (scope, owner, is_finished) in &rows {
            if *is_finished {
                let mut statement =
                    self.prepare(context, "DELETE FROM overruled WHERE scope_id = ?1")?;
                statement.execute([scope])?;
                continue;
            }
            let place = self.next_place(owner, now)?;
            let mut statement = self.prepare(
                context,
                "UPDATE overruled SET place = ?2, not_before = ?2, noted_at = ?3
                 WHERE scope_id = ?1",
            )?;
            statement.execute((scope, place, now.0))?;
        }
        Ok(!rows.is_empty())
    }

    /// Notes the position in a scope, and whether some peer had too many.
    pub fn put_overruled(&self, row: &Overruled) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting the position in a scope whose deletion was overruled",
            "UPDATE overruled SET after_list = ?2, was_full = ?3 WHERE scope_id = ?1",
        )?;
        statement
            .execute((row.scope.0, row.after, row.was_full))
            .map(drop)
    }

    /// Holds a scope until its app is enabled.
    pub fn hold_overruled(&self, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "holding a scope whose deletion was overruled",
            "UPDATE overruled SET after_list = 0, not_before = ?2 WHERE scope_id = ?1",
        )?;
        statement.execute((scope.0, HELD)).map(drop)
    }

    /// Lets the scopes of an app that were held get places. The app is enabled now.
    pub(super) fn release_overruled(&self, app: AppId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "releasing scopes whose deletions were overruled",
            "UPDATE overruled SET noted_at = ?2
             WHERE not_before = ?2 AND scope_id IN (SELECT id FROM scope WHERE app_id = ?1)",
        )?;
        statement.execute((app.0, HELD)).map(drop)
    }

    /// Ends the work on a scope. If some peer had too many, all peers of the scope are looked at
    /// again after a day. Otherwise the row stays as long as it counts for its owner.
    pub fn finish_overruled(&self, row: &Overruled, now: Timestamp) -> Result<(), StoreError> {
        let context = "ending the work on a scope whose deletion was overruled";
        let again = row.was_full.then(|| now.0.saturating_add(FULL_MS));
        let mut statement = self.prepare(
            context,
            "UPDATE overruled SET after_list = 0, was_full = 0, not_before = ?2, noted_at = ?3
             WHERE scope_id = ?1",
        )?;
        statement.execute((row.scope.0, again, now.0))?;
        let mut statement = self.prepare(
            context,
            "DELETE FROM overruled WHERE scope_id IN (SELECT scope_id FROM overruled
               WHERE not_before IS NULL AND place < ?1 LIMIT ?2)",
        )?;
        statement.execute((first_place(now), DELETED_MAX)).map(drop)
    }

    /// Notes at a peer that a scope is pulled again whose deletion an owner elsewhere overruled.
    /// Returns `false` if too many scopes are noted for this reason already.
    pub fn note_overruled_at(
        &self,
        note: &PullAgainNote<'_>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        debug_assert_eq!(
            note.cause,
            PullAgainCause::Overruled,
            "the cause is counted"
        );
        let is_known = self
            .pull_again_row(note.peer, note.domain, note.scope.as_ref())?
            .is_some();
        if !is_known && !self.has_room_overruled(note, now)? {
            return Ok(false);
        }
        self.note_pull_again(note, now).map(|()| true)
    }

    fn has_room_overruled(
        &self,
        note: &PullAgainNote<'_>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.overruled_rows_of(note)? < PER_DOMAIN_MAX {
            return Ok(true);
        }
        self.drop_finished(note.peer, note.domain, now)?;
        Ok(self.overruled_rows_of(note)? < PER_DOMAIN_MAX)
    }

    /// The number of such rows of a peer and domain, those that are finished included.
    fn overruled_rows_of(&self, note: &PullAgainNote<'_>) -> Result<usize, StoreError> {
        let mut statement = self.prepare(
            "counting scopes whose deletion was overruled",
            "SELECT COUNT(*) FROM pull_again
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND domain = ?2
               AND cause = 'overruled'",
        )?;
        statement.one((note.peer.as_bytes(), note.domain), |row| row.get(0))
    }
}

/// The place of the first of [`AT_ONCE`] scopes, in milliseconds.
fn first_place(now: Timestamp) -> u64 {
    now.0.saturating_sub((AT_ONCE - 1) * SPACING_MS)
}

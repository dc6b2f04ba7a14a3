//! Table `ended_ban`: when relayed objects that a ban refused are wanted again.
//!
//! A row is noted with the ban, and one for an identity when it moves away from a banned node.
//! Invariant: a row stays until all scopes of its identities are noted.

use keys::{Oid, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::Timestamp;

/// Of which identities objects were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbanned {
    /// Those whose home is this node.
    Node(PeerId),
    /// This one, which moved.
    Identity(Oid),
}

impl Unbanned {
    fn key(&self) -> &[u8] {
        match self {
            Self::Node(peer) => peer.as_bytes(),
            Self::Identity(identity) => identity.as_bytes(),
        }
    }
}

/// A ban that ended, and how far its scopes were noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedBan {
    /// Of which identities objects were refused.
    pub of: Unbanned,
    /// The identity that was looked at last.
    pub identity: Option<Oid>,
    /// Its last scope that was noted; [`EndedBan::DONE`]: all are.
    pub after_scope: ScopeId,
}

impl EndedBan {
    /// No scope has so high an id.
    pub const DONE: ScopeId = ScopeId(i64::MAX);
}

fn ended_ban(row: &Row<'_>) -> rusqlite::Result<EndedBan> {
    let key: Vec<u8> = row.get(0)?;
    let of = match Oid::from_slice(&key) {
        Some(identity) => Unbanned::Identity(identity),
        None => Unbanned::Node(PeerId::from_bytes(fixed(row, 0)?)),
    };
    Ok(EndedBan {
        of,
        identity: Oid::from_slice(&row.get::<_, Vec<u8>>(1)?),
        after_scope: ScopeId(row.get(2)?),
    })
}

impl Rows<'_> {
    /// The ban that ended first.
    pub fn next_ended_ban(&self, now: Timestamp) -> Result<Option<EndedBan>, StoreError> {
        let mut statement = self.prepare(
            "looking for a ban that ended",
            "SELECT key, identity_oid, after_scope FROM ended_ban
             WHERE due_at <= ?1 ORDER BY due_at LIMIT 1",
        )?;
        statement.first([now.0], ended_ban)
    }

    /// The identity of an ended ban whose scopes come next.
    pub fn next_unbanned(&self, ban: &EndedBan) -> Result<Option<Oid>, StoreError> {
        let is_done = ban.after_scope == EndedBan::DONE;
        let home = match ban.of {
            Unbanned::Identity(identity) => return Ok((!is_done).then_some(identity)),
            Unbanned::Node(home) => home,
        };
        let sql = match is_done {
            true => AFTER_IDENTITY,
            false => FROM_IDENTITY,
        };
        let mut statement = self.prepare("reading the identities of a node one by one", sql)?;
        statement.first((home.as_bytes(), identity_column(ban)), |row| {
            fixed(row, 0).map(Oid::from_bytes)
        })
    }
}

/// The first identity of the node `?1` from `?2` on.
const FROM_IDENTITY: &str =
    "SELECT oid FROM identity WHERE home_peer = ?1 AND oid >= ?2 ORDER BY oid LIMIT 1";
/// The first identity of the node `?1` after `?2`.
const AFTER_IDENTITY: &str =
    "SELECT oid FROM identity WHERE home_peer = ?1 AND oid > ?2 ORDER BY oid LIMIT 1";

/// The value of the column `identity_oid`.
fn identity_column(ban: &EndedBan) -> &[u8] {
    ban.identity.as_ref().map_or(&[], |oid| oid.as_bytes())
}

impl WriteTx<'_> {
    /// Notes when a ban of a node ends; `None`: never. An earlier note is replaced.
    pub(super) fn note_end_of_ban(
        &self,
        peer: &PeerId,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        match until {
            Some(until) => self.note_unbanned(&Unbanned::Node(*peer), until),
            None => self.remove_ended_ban(&Unbanned::Node(*peer)),
        }
    }

    /// Notes that relayed objects of identities are wanted again from a time on.
    pub fn note_unbanned(&self, of: &Unbanned, due_at: Timestamp) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting the end of a ban",
            "INSERT OR REPLACE INTO ended_ban (key, due_at, identity_oid, after_scope)
             VALUES (?1, ?2, x'', 0)",
        )?;
        statement.execute((of.key(), due_at.0)).map(drop)
    }

    /// Notes how far the scopes of an ended ban were noted.
    pub fn put_ended_ban(&self, ban: &EndedBan) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting the position in an ended ban",
            "UPDATE ended_ban SET identity_oid = ?2, after_scope = ?3 WHERE key = ?1",
        )?;
        statement
            .execute((ban.of.key(), identity_column(ban), ban.after_scope.0))
            .map(drop)
    }

    /// Deletes the note of a ban whose scopes are all noted.
    pub fn remove_ended_ban(&self, of: &Unbanned) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting the end of a ban",
            "DELETE FROM ended_ban WHERE key = ?1",
        )?;
        statement.execute([of.key()]).map(drop)
    }
}

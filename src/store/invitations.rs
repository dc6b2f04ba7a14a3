//! Table `invitation`: scopes that others let identities of this node read, and what was decided.
//!
//! A decision concerns this node alone; no package has it. Invariants: of a scope whose invitation
//! is hidden, an identity sees what it saw before. Without a row nothing is hidden. Tested in
//! `tests/core/consent.rs`.

use keys::{Oid, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::Timestamp;

/// The decision on an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvitationState {
    /// Nothing yet. The scope is hidden.
    Open,
    /// The node accepts it, and is to write the `accept`.
    Due,
    /// The node accepts it, and could not write the `accept`.
    Held,
    /// The identity takes part.
    Accepted,
    /// The scope is hidden, and nothing of it is stored.
    Declined,
}

impl InvitationState {
    const ALL: [Self; 5] = [
        Self::Open,
        Self::Due,
        Self::Held,
        Self::Accepted,
        Self::Declined,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Due => "due",
            Self::Held => "held",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
        }
    }

    /// Whether the identity sees nothing of the scope.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Open | Self::Declined)
    }
}

/// An invitation of an identity of this node to a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invitation {
    /// The identity.
    pub identity: Oid,
    /// The scope.
    pub scope: ScopeId,
    /// The decision.
    pub state: InvitationState,
    /// `change_seq` up to which the identity saw the scope before; `None`: the scope had ended.
    pub from_seq: Option<u64>,
    /// Time of the invitation or the decision.
    pub at: Timestamp,
}

/// Joins a row of `reader` with the alias `r` to its invitation with the alias `v`.
pub(super) const WITH_INVITATION: &str = "LEFT JOIN invitation AS v \
     ON v.identity_oid = r.identity_oid AND v.scope_id = r.scope_id";

/// Up to when the identity of such a row sees the scope; NULL: without end. Of a hidden scope, what
/// it saw before.
pub(super) const SEEN_UNTIL: &str = "CASE WHEN v.state IN ('open', 'declined') \
     THEN COALESCE(v.from_seq, 0) ELSE r.until_seq END";

/// Whether an identity of the node `?2` reads the scope `?1` and did not decline it.
const IS_WANTED: &str = "SELECT 1 FROM identity AS i CROSS JOIN reader AS r \
     WHERE i.home_peer = ?2 AND r.identity_oid = i.oid AND r.scope_id = ?1 \
     AND r.until_seq IS NULL AND NOT EXISTS (SELECT 1 FROM invitation AS v \
       WHERE v.identity_oid = r.identity_oid AND v.scope_id = r.scope_id \
       AND v.state = 'declined') LIMIT 1";

const COLUMNS: &str = "identity_oid, scope_id, state, from_seq, at";

fn invitation(row: &Row<'_>) -> rusqlite::Result<Invitation> {
    let text: String = row.get(2)?;
    let state = InvitationState::ALL.into_iter();
    let mut state = state.filter(|state| state.text() == text);
    Ok(Invitation {
        identity: Oid::from_bytes(fixed(row, 0)?),
        scope: ScopeId(row.get(1)?),
        // The table has no other text.
        state: state.next().unwrap_or(InvitationState::Open),
        from_seq: row.get(3)?,
        at: Timestamp(row.get(4)?),
    })
}

impl Rows<'_> {
    /// The invitation of an identity to a scope.
    pub fn invitation(
        &self,
        scope: ScopeId,
        identity: &Oid,
    ) -> Result<Option<Invitation>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM invitation WHERE identity_oid = ?1 AND scope_id = ?2");
        let mut statement = self.prepare("reading an invitation", &sql)?;
        statement.first((identity.as_bytes(), scope.0), invitation)
    }

    /// At most `limit` invitations of an identity in one state after a scope, by scope.
    pub fn invitations(
        &self,
        (identity, state): (&Oid, InvitationState),
        after: ScopeId,
        limit: usize,
    ) -> Result<Vec<Invitation>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM invitation
             WHERE identity_oid = ?1 AND state = ?2 AND scope_id > ?3 ORDER BY scope_id LIMIT ?4"
        );
        let mut statement = self.prepare("reading invitations", &sql)?;
        let values = (identity.as_bytes(), state.text(), after.0, limit);
        statement.all(values, invitation)
    }

    /// The number of invitations that wait for a decision of a node's operator; at most `limit`.
    pub fn open_invitations(&self, node: &PeerId, limit: u64) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "counting invitations",
            "SELECT COUNT(*) FROM (SELECT 1 FROM identity AS i
               JOIN invitation AS v ON v.identity_oid = i.oid AND v.state = 'open'
               JOIN reader AS r ON r.identity_oid = i.oid AND r.scope_id = v.scope_id
             WHERE i.home_peer = ?1 AND r.until_seq IS NULL LIMIT ?2)",
        )?;
        statement.one((node.as_bytes(), limit), |row| row.get(0))
    }

    /// The invitation whose `accept` is to be written first.
    pub fn next_due_accept(&self) -> Result<Option<Invitation>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM invitation INDEXED BY invitation_due
             WHERE state = 'due' ORDER BY at LIMIT 1"
        );
        let mut statement = self.prepare("looking for invitations to accept", &sql)?;
        statement.first([], invitation)
    }

    /// Whether an identity takes part in a scope by its invitation, or is about to.
    pub fn is_accepted_by_any(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "reading whether an invitation was accepted",
            "SELECT 1 FROM invitation
             WHERE scope_id = ?1 AND state IN ('due', 'held', 'accepted') LIMIT 1",
        )?;
        statement.exists([scope.0])
    }

    /// Whether any scope was declined.
    pub fn is_any_declined(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for declined scopes",
            "SELECT 1 FROM invitation INDEXED BY invitation_declined
             WHERE state = 'declined' LIMIT 1",
        )?;
        statement.exists([])
    }

    /// Whether identities of the node `home` declined a scope, and none of its other identities
    /// reads the scope.
    pub fn is_unwanted(&self, scope: ScopeId, home: &PeerId) -> Result<bool, StoreError> {
        let context = "reading whether a scope was declined";
        let mut statement = self.prepare(
            context,
            "SELECT 1 FROM invitation WHERE scope_id = ?1 AND state = 'declined' LIMIT 1",
        )?;
        if !statement.exists([scope.0])? {
            return Ok(false);
        }
        let mut statement = self.prepare(context, IS_WANTED)?;
        Ok(!statement.exists((scope.0, home.as_bytes()))?)
    }
}

impl Rows<'_> {
    /// `change_seq` up to which identities saw a scope that they declined later.
    pub fn seen_before_decline(&self, scope: ScopeId) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "reading what was seen before a scope was declined",
            "SELECT COALESCE(MAX(from_seq), 0) FROM invitation
             WHERE scope_id = ?1 AND state = 'declined'",
        )?;
        statement.one([scope.0], |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Writes an invitation, or replaces it.
    pub fn put_invitation(&self, new: &Invitation) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing an invitation",
            "INSERT OR REPLACE INTO invitation (identity_oid, scope_id, state, from_seq, at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement
            .execute((
                new.identity.as_bytes(),
                new.scope.0,
                new.state.text(),
                new.from_seq,
                new.at.0,
            ))
            .map(drop)
    }

    /// Lets each `accept` that could not be written be tried again.
    pub fn release_accepts(&self) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "releasing invitations to accept",
            "UPDATE invitation INDEXED BY invitation_held SET state = 'due' WHERE state = 'held'",
        )?;
        statement.execute([]).map(drop)
    }
}

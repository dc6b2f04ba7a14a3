//! The objects that the API and an inbox show: those that identities of this node may see.
//!
//! This node stores more, because an object arrives whether or not an identity here may read it
//! yet. Invariants: an identity sees public and local objects and those in scopes that it reads. A
//! former reader sees objects whose present revision was stored while it read their scope. A
//! former reader also sees later signatures of first revisions, later tombstones, and its own
//! objects. A move may bring those after the list that removed it. Of a scope that ended, an
//! identity sees tombstones only. Of a scope that it was invited to and did not accept, it sees
//! only what it saw before. Tested in `src/api/tests/objects.rs`, `tests/core/scopes.rs`,
//! `tests/core/former_readers.rs`, `tests/core/moves_late.rs` and `tests/core/consent.rs`.

use std::collections::BTreeMap;

use keys::{Oid, PeerId};
use rusqlite::OptionalExtension as _;

use super::error::{SqlContext as _, StoreError};
use super::invitations::{SEEN_UNTIL, WITH_INVITATION};
use super::parents::ParentRow;
use super::rows::Rows;
use super::scope_id::ScopeId;
use crate::object::Rights;

/// Identities whose right to read counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onlooker {
    /// One identity.
    Identity(Oid),
    /// Any identity of a node.
    AnyAt(PeerId),
}

/// Up to when the identity `?2` sees the scope `?1`.
pub(super) fn seen_by_identity() -> String {
    format!(
        "SELECT {SEEN_UNTIL} FROM reader AS r {WITH_INVITATION}
         WHERE r.identity_oid = ?2 AND r.scope_id = ?1"
    )
}

/// Up to when the identities of the node `?2` see the scope `?1`; an open right first. Begins with
/// the identities, because a scope may have very many former readers.
pub(super) fn seen_at_home() -> String {
    format!(
        "SELECT {SEEN_UNTIL} AS seen_until
         FROM identity AS i CROSS JOIN reader AS r {WITH_INVITATION}
         WHERE i.home_peer = ?2 AND r.identity_oid = i.oid AND r.scope_id = ?1
         ORDER BY seen_until IS NOT NULL, seen_until DESC LIMIT 1"
    )
}

/// The objects that an onlooker sees. Looks up each scope once.
#[derive(Debug)]
pub struct Sight<'r> {
    pub(super) rows: Rows<'r>,
    pub(super) onlooker: Onlooker,
    scopes: BTreeMap<ScopeId, SeenPart>,
}

/// The part of a scope that is seen.
#[derive(Debug, Clone, Copy)]
struct SeenPart {
    /// Highest `created_seq`; `None`: nothing is seen.
    until_seq: Option<u64>,
    /// The scope ended, so that only tombstones are seen.
    is_ended: bool,
}

impl<'r> Rows<'r> {
    /// The objects that an onlooker sees in this state.
    pub fn sight(self, onlooker: Onlooker) -> Sight<'r> {
        Sight {
            rows: self,
            onlooker,
            scopes: BTreeMap::new(),
        }
    }
}

impl Sight<'_> {
    /// Whether the onlooker sees an object.
    pub fn shows(&mut self, object: &ParentRow) -> Result<bool, StoreError> {
        let scope = object.scope_id;
        if !scope.has_readers() {
            return Ok(true);
        }
        let part = match self.scopes.get(&scope) {
            Some(known) => *known,
            None => {
                let part = SeenPart {
                    until_seq: self.until_seq(scope)?,
                    is_ended: self.is_ended(scope)?,
                };
                self.scopes.insert(scope, part);
                part
            }
        };
        let is_reached = part.until_seq.is_some_and(|until| {
            object.created_seq <= until && self.is_seen_revision(object, until)
        });
        let is_shown = is_reached || (self.is_own(object) && self.was_reader(object)?);
        Ok(is_shown && (object.deleted || !part.is_ended))
    }

    /// Whether the onlooker, or an identity of its node, wrote an object.
    fn is_own(&self, object: &ParentRow) -> bool {
        match &self.onlooker {
            Onlooker::Identity(identity) => object.owner == *identity,
            Onlooker::AnyAt(_) => object.origin.is_none(),
        }
    }

    /// Whether the owner of an object wrote it as a reader, and a list removed the owner then. An
    /// identity that moved here wrote before this node knew that list.
    fn was_reader(&self, object: &ParentRow) -> Result<bool, StoreError> {
        let (rows, scope, owner) = (&self.rows, object.scope_id, &object.owner);
        let reads_in = |list| {
            let rights = rows.rights_of(list, owner)?;
            Ok::<_, StoreError>(rights.is_some_and(Rights::may_read))
        };
        let named = match object.rights_id {
            Some(list) => list,
            None => rows.founding_list(scope)?.id,
        };
        let invitation = rows.invitation(scope, owner)?;
        let is_hidden = invitation.is_some_and(|it| it.state.is_hidden());
        // A list in force that lets it read: the owner left.
        Ok(!is_hidden && reads_in(named)? && !reads_in(rows.list_in_force(scope)?.id)?)
    }

    /// Whether the onlooker sees the present revision of an object that was stored when it read the
    /// scope, up to `until`. A row has no number of its last change of content, because a signature
    /// under a later key changes `change_seq` too. A first revision never changed its content.
    fn is_seen_revision(&self, object: &ParentRow, until: u64) -> bool {
        object.change_seq <= until || object.rev == 1 || object.deleted || self.is_own(object)
    }

    fn is_ended(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let Some(scope) = self.rows.scope(scope)? else {
            return Ok(false);
        };
        let app = self.rows.apps().iter().find(|app| app.id == scope.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        let parent = self.rows.parent_by_id(app, scope.parent_id)?;
        Ok(parent.is_some_and(|parent| parent.deleted))
    }

    /// Highest `created_seq` of an object that the onlooker sees in a scope; `u64::MAX`: all.
    /// `None`: the onlooker sees none.
    pub fn until_seq(&self, scope: ScopeId) -> Result<Option<u64>, StoreError> {
        let context = "reading what an identity sees";
        let (sql, id) = match &self.onlooker {
            Onlooker::Identity(identity) => (seen_by_identity(), identity.as_bytes().as_slice()),
            Onlooker::AnyAt(home) => (seen_at_home(), home.as_bytes().as_slice()),
        };
        let connection = self.rows.connection;
        let mut statement = connection.prepare_cached(&sql).context(context)?;
        let until: Option<Option<u64>> = statement
            .query_row((scope.0, id), |row| row.get(0))
            .optional()
            .context(context)?;
        Ok(until.map(|until| until.unwrap_or(u64::MAX)))
    }
}

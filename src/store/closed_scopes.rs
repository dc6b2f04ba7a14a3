//! Scopes of this node that are closed for peers. The home of an identity that may read them was
//! not asked yet in a recovery, or their rights lists have to be merged.
//!
//! Opening them takes portions. Table `recovery_home` holds the homes that close scopes: those that
//! were known when the recovery began, and unasked ones that became known since. An identity that
//! moves away leaves its row, so that what it closed is opened once, when that home was asked.
//! Invariants: a peer is in `recovery_peer` until it was asked, and then in `asked_peer` until its
//! readers' scopes are open. Readers with a home in `recovery_peer` close their scopes, and so do
//! those behind the position of a peer of `asked_peer`. Former readers count too. Tested in
//! `tests/core/closed_scopes.rs`.

use std::collections::BTreeSet;

use keys::{Oid, PeerId};

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

/// The scopes of this node with a reader whose home the recovery waits for, or whose scopes are
/// still closed. A former reader counts too, because that node may just have returned the list that
/// removed it. Then those whose rights lists have to be merged: the list in force may lack a
/// removal.
const CLOSED_SCOPES: &str = "SELECT r.scope_id FROM recovery_peer \
     CROSS JOIN recovery_home AS h CROSS JOIN reader AS r CROSS JOIN scope AS s \
     WHERE h.peer_id = recovery_peer.peer_id AND r.identity_oid = h.identity_oid \
     AND s.id = r.scope_id AND s.is_local = 1 \
     UNION ALL \
     SELECT r.scope_id FROM asked_peer \
     CROSS JOIN recovery_home AS h CROSS JOIN reader AS r CROSS JOIN scope AS s \
     WHERE h.peer_id = asked_peer.peer_id AND r.identity_oid = h.identity_oid \
     AND (r.identity_oid, r.scope_id) > (asked_peer.identity_oid, asked_peer.scope_id) \
     AND s.id = r.scope_id AND s.is_local = 1 \
     UNION ALL SELECT scope_id FROM due_list WHERE is_merging";

/// Whether the scope `?1` of this node is one of [`CLOSED_SCOPES`].
const IS_CLOSED: &str = "SELECT 1 FROM reader AS r CROSS JOIN recovery_home AS h \
     WHERE r.scope_id = ?1 AND h.identity_oid = r.identity_oid \
     AND (EXISTS (SELECT 1 FROM recovery_peer AS p WHERE p.peer_id = h.peer_id) \
       OR EXISTS (SELECT 1 FROM asked_peer AS p WHERE p.peer_id = h.peer_id \
                  AND (r.identity_oid, r.scope_id) > (p.identity_oid, p.scope_id))) \
     UNION ALL SELECT 1 FROM due_list WHERE scope_id = ?1 AND is_merging";

/// How far the scopes of a peer that was asked are open, by identity and scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedPosition {
    /// Oid of the identity; empty before the first one.
    pub identity: Vec<u8>,
    /// The scope.
    pub scope: ScopeId,
}

impl Rows<'_> {
    /// The scopes of this node that are closed during a recovery.
    pub fn closed_scopes(&self) -> Result<BTreeSet<ScopeId>, StoreError> {
        let mut statement = self.prepare(
            "reading the scopes that are closed during a recovery",
            CLOSED_SCOPES,
        )?;
        statement.all([], |row| row.get(0).map(ScopeId))
    }

    /// Whether a scope of this node is one of [`Rows::closed_scopes`].
    pub fn is_closed(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let mut statement = self.prepare("looking whether a recovery closes a scope", IS_CLOSED)?;
        statement.exists([scope.0])
    }

    /// Whether some home of an identity closes scopes, or did a short time ago.
    pub fn has_recovery_home(&self, identity: &Oid) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a home that closes scopes",
            "SELECT 1 FROM recovery_home WHERE identity_oid = ?1",
        )?;
        statement.exists([identity.as_bytes()])
    }

    /// How far the scopes of a peer are open. `None`: all are, or the recovery waits for it.
    pub fn asked_position(&self, peer: &PeerId) -> Result<Option<AskedPosition>, StoreError> {
        let mut statement = self.prepare(
            "reading how far the scopes of a peer are open",
            "SELECT identity_oid, scope_id FROM asked_peer WHERE peer_id = ?1",
        )?;
        statement.first([peer.as_bytes()], |row| {
            Ok(AskedPosition {
                identity: row.get(0)?,
                scope: ScopeId(row.get(1)?),
            })
        })
    }

    /// The position after another one: the next scope of its identity, else the peer's next
    /// identity, without a scope. `None`: there is none.
    pub fn next_asked_position(
        &self,
        peer: &PeerId,
        after: &AskedPosition,
    ) -> Result<Option<AskedPosition>, StoreError> {
        let context = "reading the next scope of a peer";
        let mut statement = self.prepare(
            context,
            "SELECT scope_id FROM reader WHERE identity_oid = ?1 AND scope_id > ?2
             ORDER BY scope_id LIMIT 1",
        )?;
        let scope = statement.first((&after.identity, after.scope.0), |row| row.get(0));
        if let Some(scope) = scope? {
            return Ok(Some(AskedPosition {
                identity: after.identity.clone(),
                scope: ScopeId(scope),
            }));
        }
        let mut statement = self.prepare(
            context,
            "SELECT identity_oid FROM recovery_home WHERE peer_id = ?1 AND identity_oid > ?2
             ORDER BY identity_oid LIMIT 1",
        )?;
        statement.first((peer.as_bytes(), &after.identity), |row| {
            let oid = Oid::from_bytes(fixed(row, 0)?);
            Ok(AskedPosition {
                identity: oid.as_bytes().to_vec(),
                scope: ScopeId::LOCAL,
            })
        })
    }
}

impl WriteTx<'_> {
    /// Notes a home of an identity. If the recovery waits for that node, the scopes that the
    /// identity reads are closed until it was asked. Returns whether this is new.
    pub fn note_recovery_home(&self, identity: &Oid, home: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "noting a home that closes scopes",
            "INSERT INTO recovery_home (peer_id, identity_oid)
             SELECT peer_id, ?2 FROM recovery_peer WHERE peer_id = ?1
             ON CONFLICT DO NOTHING",
        )?;
        statement
            .execute((home.as_bytes(), identity.as_bytes()))
            .map(|rows| rows > 0)
    }

    /// Deletes the note of an identity whose scopes a peer does not close any more.
    pub fn remove_recovery_home(
        &self,
        peer: &PeerId,
        done: &AskedPosition,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting a home that closed scopes",
            "DELETE FROM recovery_home WHERE peer_id = ?1 AND identity_oid = ?2",
        )?;
        statement
            .execute((peer.as_bytes(), &done.identity))
            .map(drop)
    }

    /// Ends waiting for a peer, whose scopes are to be opened. Returns whether the recovery waited
    /// for it.
    pub fn note_asked(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "noting that a peer was asked",
            "DELETE FROM recovery_peer WHERE peer_id = ?1",
        )?;
        if statement.execute([peer.as_bytes()])? == 0 {
            return Ok(false);
        }
        let none = AskedPosition {
            identity: Vec::new(),
            scope: ScopeId::LOCAL,
        };
        self.put_asked_position(peer, Some(&none))?;
        Ok(true)
    }

    /// Notes how far the scopes of a peer are open. `None`: all are.
    pub fn put_asked_position(
        &self,
        peer: &PeerId,
        position: Option<&AskedPosition>,
    ) -> Result<(), StoreError> {
        let context = "noting how far the scopes of a peer are open";
        let Some(position) = position else {
            let mut statement =
                self.prepare(context, "DELETE FROM asked_peer WHERE peer_id = ?1")?;
            return statement.execute([peer.as_bytes()]).map(drop);
        };
        let mut statement = self.prepare(
            context,
            "INSERT OR REPLACE INTO asked_peer (peer_id, identity_oid, scope_id)
             VALUES (?1, ?2, ?3)",
        )?;
        statement
            .execute((peer.as_bytes(), &position.identity, position.scope.0))
            .map(drop)
    }
}

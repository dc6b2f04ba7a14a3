//! Facts from which delivery states follow, besides receipts: who reads a scope at a node, and
//! which objects were made here.
//!
//! Only reads. Tested in `tests/core/receipts.rs` and `tests/core/delivery.rs`.

use keys::PeerId;

use super::app_tables::AppTable;
use super::error::StoreError;
use super::parents::{ParentRow, parent_row};
use super::rows::Rows;
use super::scope_id::ScopeId;
use super::scopes::{PeerReader, peer_reader};

/// Scopes in which objects were made here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatedHere {
    /// The scopes, each once, sorted.
    pub scopes: Vec<ScopeId>,
    /// Whether further objects were not examined.
    pub more: bool,
}

/// The present and former rights to read the scope `?1`, with the nodes of the identities. A node
/// may have more identities than the scope has readers.
pub(super) const RIGHTS_IN: &str = "SELECT r.scope_id, r.since_seq, r.until_seq, \
     i.home_since_seq, i.home_since_scope, i.home_peer \
     FROM reader AS r CROSS JOIN identity AS i \
     WHERE r.scope_id = ?1 AND i.oid = r.identity_oid";

/// Those of identities of the node `?2`.
pub(super) const SCOPE_AT: &str = "SELECT r.scope_id, r.since_seq, r.until_seq, \
     i.home_since_seq, i.home_since_scope \
     FROM reader AS r CROSS JOIN identity AS i \
     WHERE r.scope_id = ?1 AND i.oid = r.identity_oid AND i.home_peer = ?2";

/// The node of a peer that was not forgotten, whose last session had the feature `relay`, and at
/// which an identity reads the scope `?1`.
pub(super) const RELAYS_OF: &str = "SELECT p.peer_id, p.domains FROM reader AS r \
     CROSS JOIN identity AS i CROSS JOIN peers AS p \
     WHERE r.scope_id = ?1 AND r.until_seq IS NULL AND i.oid = r.identity_oid \
     AND p.peer_id = i.home_peer AND p.relays = 1 AND p.tier != 'forgotten'";

impl Rows<'_> {
    /// The rights to read a scope that identities of a node have or had. Examines all of the scope.
    pub fn scope_at(&self, scope: ScopeId, home: &PeerId) -> Result<Vec<PeerReader>, StoreError> {
        let mut statement = self.prepare("reading the readers of a scope at a node", SCOPE_AT)?;
        statement.all((scope.0, home.as_bytes()), peer_reader)
    }

    /// The rights to read a scope that identities have or had, each with the identity's node.
    pub fn rights_in(&self, scope: ScopeId) -> Result<Vec<(PeerId, PeerReader)>, StoreError> {
        let mut statement = self.prepare("reading the readers of a scope", RIGHTS_IN)?;
        statement.all([scope.0], |row| {
            let home = PeerId::from_bytes(super::columns::fixed(row, 5)?);
            Ok((home, peer_reader(row)?))
        })
    }

    /// The peers that read a scope and send on what they receive of a domain, sorted.
    pub fn relays_of(&self, scope: ScopeId, domain: &str) -> Result<Vec<PeerId>, StoreError> {
        let mut statement = self.prepare("reading the relays of a scope", RELAYS_OF)?;
        let peers: Vec<(PeerId, Vec<String>)> = statement.all([scope.0], |row| {
            let peer = PeerId::from_bytes(super::columns::fixed(row, 0)?);
            Ok((peer, super::columns::names(row, 1)?))
        })?;
        let shares = |domains: &[String]| domains.iter().any(|shared| shared == domain);
        let relays = peers.into_iter().filter(|(_, domains)| shares(domains));
        let mut relays: Vec<_> = relays.map(|(peer, _)| peer).collect();
        relays.sort_unstable();
        relays.dedup();
        Ok(relays)
    }

    /// The scopes of the objects that were made here with a `created_seq` above `after` and up to
    /// `until`. Examines at most `limit` objects.
    pub fn created_here(
        &self,
        app: &AppTable,
        (after, until): (u64, u64),
        limit: usize,
    ) -> Result<CreatedHere, StoreError> {
        let mut statement = self.prepare("reading what was created", &app.created_between)?;
        let rows: Vec<(i64, Option<i64>)> =
            statement.all((after, until, limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let own = rows.iter().filter(|(_, origin)| origin.is_none());
        let mut scopes: Vec<_> = own.map(|(scope, _)| ScopeId(*scope)).collect();
        scopes.retain(|scope| scope.has_readers());
        scopes.sort_unstable();
        scopes.dedup();
        let more = rows.len() == limit;
        Ok(CreatedHere { scopes, more })
    }

    /// The newest `limit` live objects of a type in a scope that were made here, newest first.
    /// Examines the newest `examined` objects of the scope.
    pub fn own_in_scope(
        &self,
        app: &AppTable,
        (scope, type_number): (ScopeId, u16),
        examined: usize,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading own objects of a scope", &app.own_in_scope)?;
        let mut rows: Vec<_> =
            statement.all((scope.0, type_number, examined, limit), parent_row)?;
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.created_seq));
        Ok(rows)
    }
}

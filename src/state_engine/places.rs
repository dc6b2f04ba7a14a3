//! Scopes in which identities of this node and of others take part, and the address records that
//! their members may ask for (docs/PROTOCOL.md 5.8).
//!
//! Reads one committed state. Invariants: a peer gets the address record of a node only if an
//! identity of both takes part in the scope. A member that does not take part looks like one that
//! does not exist. Tested in `tests/core/introductions.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use keys::protocol::ADDRESS_RECORDS_MAX;
use keys::{AddressRecord, Oid, PeerId, codec};

use super::peer_scopes::Reading;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{ParentRow, ScopeId, StoreError};

/// Fewest identities that the list in force names in a scope in which members are introduced.
const ENTRIES_MIN: usize = 3;
/// Most scopes that one look examines, read here or not.
const SCOPES_MAX: usize = 1024;
/// Readers after which a look ends.
const READERS_MAX: usize = 512;
/// Processor time of examining a reader of a scope.
const READER_COST: Duration = Duration::from_micros(30);
/// Processor time of a record for the side that sends it, and for the side that verifies it.
pub const RECORD_COST: Duration = Duration::from_millis(3);

/// A member of a scope that lives on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The identity.
    pub identity: Oid,
    /// Its home.
    pub home: PeerId,
}

/// A scope in which identities of this node and of others take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeetingPlace {
    /// The scope.
    pub scope: ScopeId,
    /// The oid of its Parent.
    pub oid: Oid,
    /// The app's slug.
    pub app: String,
    /// The owner of the scope.
    pub owner: Oid,
    /// The members on other nodes that take part, by identity.
    pub members: Vec<Member>,
}

/// The places that one look found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MeetingPlaces {
    /// The places, by scope.
    pub places: Vec<MeetingPlace>,
    /// The last scope that was examined; `None`: no scope follows.
    pub last: Option<ScopeId>,
}

/// The request of a peer for address records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRequest {
    /// The peer.
    pub peer: PeerId,
    /// The scope.
    pub scope: Oid,
    /// A domain of the scope's app.
    pub domain: String,
    /// Member after which the reply begins.
    pub after: Option<Oid>,
}

/// The reply to a peer that asks for address records.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AddressReply {
    /// The records, one for each node.
    pub records: Vec<AddressRecord>,
    /// Member after which the next reply begins; none: no member follows.
    pub next: Option<Oid>,
    /// Processor time of the reply.
    pub cost: Duration,
}

impl View<'_> {
    /// The places among the scopes after `after`. Ends after a bounded number of readers.
    pub fn meeting_places(&self, after: ScopeId) -> Result<MeetingPlaces, StoreError> {
        let (mut found, mut readers) = (MeetingPlaces::default(), 0);
        let scopes = self.rows.scopes_with_accepts(after, SCOPES_MAX)?;
        let is_last = scopes.len() < SCOPES_MAX;
        for scope in scopes {
            if readers >= READERS_MAX {
                return Ok(found);
            }
            found.last = Some(scope);
            // Any peer can send scopes in which no identity here takes part.
            if self.rows.is_read_at(scope, &self.this_node())? {
                let (place, examined) = self.meeting_place(scope)?;
                readers += examined;
                found.places.extend(place);
            }
        }
        if is_last {
            found.last = None;
        }
        Ok(found)
    }

    /// A scope, if identities of this node and of others take part in it, and how many readers were
    /// examined.
    pub(super) fn meeting_place(
        &self,
        scope: ScopeId,
    ) -> Result<(Option<MeetingPlace>, usize), StoreError> {
        let Some((app, parent)) = self.introducing_parent(scope)? else {
            return Ok((None, 1));
        };
        let (mut is_here, mut members) = (false, Vec::new());
        let readers = self.rows.readers(scope)?;
        for identity in &readers {
            let Some(home) = self.home_of_member(&parent, identity)? else {
                continue;
            };
            if home == self.this_node() {
                is_here = true;
            } else {
                let identity = *identity;
                members.push(Member { identity, home });
            }
        }
        let place = MeetingPlace {
            scope,
            oid: parent.oid,
            app,
            owner: parent.owner,
            members,
        };
        let is_place = is_here && !place.members.is_empty();
        Ok((is_place.then_some(place), 1 + readers.len()))
    }

    /// The app and the live Parent of a scope that names enough identities.
    fn introducing_parent(
        &self,
        scope: ScopeId,
    ) -> Result<Option<(String, ParentRow)>, StoreError> {
        let Some(known) = self.rows.scope(scope)? else {
            return Ok(None);
        };
        let Some(app) = self.rows.apps().iter().find(|app| app.id == known.app) else {
            return Ok(None);
        };
        let parent = self.rows.parent_by_id(app, known.parent_id)?;
        let Some(parent) = parent.filter(|parent| !parent.deleted) else {
            return Ok(None);
        };
        let list = self.rows.list_in_force(scope)?;
        let is_large = self.rows.entries_of(list.id)? >= ENTRIES_MIN;
        Ok(is_large.then(|| (app.slug.clone(), parent)))
    }

    /// The home of an identity, if it takes part in the scope of a Parent: it owns the scope, or
    /// its `accept` counts. One of this node must not have declined since.
    fn home_of_member(
        &self,
        parent: &ParentRow,
        identity: &Oid,
    ) -> Result<Option<PeerId>, StoreError> {
        let scope = parent.scope_id;
        if *identity != parent.owner && !self.rows.has_accepted(scope, identity)? {
            return Ok(None);
        }
        let Some(known) = self.rows.identity(identity)? else {
            return Ok(None);
        };
        let is_hidden = || {
            let invitation = self.rows.invitation(scope, identity)?;
            Ok::<_, StoreError>(invitation.is_some_and(|it| it.state.is_hidden()))
        };
        // A thief of the identity's key may have named the home.
        let is_disputed = known.frozen || self.rows.pending_home(identity)?.is_some();
        if is_disputed || known.retired || (known.home == self.this_node() && is_hidden()?) {
            return Ok(None);
        }
        Ok(Some(known.home))
    }

    /// The reply to a peer that asks for the addresses of members. Empty unless an identity of the
    /// peer takes part in the scope.
    pub fn addresses(
        &self,
        request: &AddressRequest,
        now: Timestamp,
    ) -> Result<AddressReply, StoreError> {
        let mut reply = AddressReply {
            cost: READER_COST,
            ..AddressReply::default()
        };
        let Some(parent) = self.place_of_peer(request)? else {
            return Ok(reply);
        };
        let readers = self.rows.readers(parent.scope_id)?;
        let (mut is_member, mut nodes, mut last) = (false, BTreeSet::new(), None);
        for identity in &readers {
            reply.cost += READER_COST;
            let Some(home) = self.home_of_member(&parent, identity)? else {
                continue;
            };
            is_member |= home == request.peer;
            let is_asked = request.after.is_none_or(|after| *identity > after);
            if !is_asked || home == request.peer {
                continue;
            }
            if nodes.len() < ADDRESS_RECORDS_MAX {
                nodes.insert(home);
                last = Some(*identity);
            } else if !nodes.contains(&home) {
                reply.next = last;
            }
        }
        if !is_member {
            reply.next = None;
            return Ok(reply);
        }
        for node in &nodes {
            reply.records.extend(self.address_of(node, now)?);
        }
        let records = u32::try_from(reply.records.len()).unwrap_or(u32::MAX);
        reply.cost += RECORD_COST.saturating_mul(records);
        Ok(reply)
    }

    /// The records that differ from the stored ones. A stored record was verified when it was
    /// taken.
    pub fn unstored_addresses(
        &self,
        records: Vec<AddressRecord>,
    ) -> Result<Vec<AddressRecord>, StoreError> {
        let mut unstored = Vec::new();
        for record in records {
            let stored = self.rows.address(&record.node())?;
            if stored.is_none_or(|row| row.record != codec::encode(&[&record])) {
                unstored.push(record);
            }
        }
        Ok(unstored)
    }

    /// The Parent of the scope of a request, if the peer reads the scope.
    fn place_of_peer(&self, request: &AddressRequest) -> Result<Option<ParentRow>, StoreError> {
        let shared = self.rows.peer(&request.peer)?.map(|peer| peer.domains);
        if !shared.is_some_and(|shared| shared.contains(&request.domain)) {
            return Ok(None);
        }
        let app = self.context.schemas.domain(&request.domain);
        let app = app.and_then(|domain| self.rows.apps().get(&domain.app));
        let Some(app) = app else {
            return Ok(None);
        };
        let Some(scope) = self
            .rows
            .parent(app, &request.scope)?
            .map(|row| row.scope_id)
        else {
            return Ok(None);
        };
        let (memory, head) = (&self.context.memory, self.head()?);
        let scopes = memory
            .peers
            .get(&self.rows, &memory.scopes, &request.peer, head)?;
        if !matches!(scopes.reading(scope), Some(Reading::After(_))) {
            return Ok(None);
        }
        let found = self.introducing_parent(scope)?;
        Ok(found
            .map(|(_, parent)| parent)
            .filter(|parent| parent.oid == request.scope))
    }

    /// The address record of a node: this node's own, or the one that is stored.
    fn address_of(
        &self,
        node: &PeerId,
        now: Timestamp,
    ) -> Result<Option<AddressRecord>, StoreError> {
        if *node == self.this_node() {
            return Ok(Some(self.context.keys.address_record(now.0 / 1000)));
        }
        if self.rows.is_banned(node, now)? {
            return Ok(None);
        }
        Ok(match self.rows.address(node)? {
            Some(row) => Some(row.record()?),
            None => None,
        })
    }
}

//! Fetching: the objects of stubs that this node lacks, and the replies to a peer that fetches.
//!
//! Reads one committed state. Invariants: a peer gets an object by its oid only if a package could
//! select it for this peer. An object that the peer may not read looks like one that does not
//! exist. Tested in `tests/core/stubs.rs`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keys::{Oid, PeerId, SignedObject};

use super::checked::OBJECT_COST;
use super::package::Package;
use super::peer_scopes::{PeerScopes, Reading};
use super::stubs::{Stub, Stubs};
use super::view::View;
use crate::graph::load_object;
use crate::op_context::Timestamp;
use crate::schema::identities;
use crate::store::{AppTable, ParentRow, Purged, StoreError};

/// Processor time of looking up an object by its oid.
const LOOKUP_COST: Duration = Duration::from_micros(10);

/// The objects and records that this node has to fetch for the stubs of a package.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The objects, in the order of the stubs.
    pub objects: Vec<Oid>,
    /// Those in scopes that the peer reads, each with the home of its owner, if it is known.
    pub homes: BTreeMap<Oid, Option<PeerId>>,
    /// One of the objects for each owner whose record, or whose later key, this node lacks.
    pub owners: Vec<Oid>,
}

/// The request of a peer that fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The peer.
    pub peer: PeerId,
    /// The domain.
    pub domain: String,
    /// The objects.
    pub oids: Vec<Oid>,
    /// Whether the peer fetches the identity records of their owners instead.
    pub records: bool,
}

/// The reply to a peer that fetches.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The objects, in the order of the request.
    pub objects: Vec<SignedObject>,
    /// The number of oids that were looked up. The reply has no room for the objects behind them.
    pub looked_up: usize,
    /// Processor time of the reply.
    pub cost: Duration,
}

impl View<'_> {
    /// The objects of a peer's stubs in a domain that this node lacks. Objects of a banned node's
    /// identities are left out, unless objects of other members need them.
    ///
    /// The peer sees what is fetched. In a place that it does not read here, or in which no
    /// identity of this node takes part, all stubs count as lacking. An invented stub would
    /// otherwise show which identities this node knows, bans or has as its own.
    pub fn lacking(
        &self,
        peer: &PeerId,
        domain: &str,
        stubs: &Stubs,
        now: Timestamp,
    ) -> Result<Lacking, StoreError> {
        let app = self.context.schemas.domain(domain);
        let app = app.and_then(|domain| self.rows.apps().get(&domain.app));
        let app = app.ok_or(StoreError::Inconsistent("a domain without tables"))?;
        let (mut lacking, mut owners) = (Lacking::default(), BTreeSet::new());
        let mut banned: BTreeMap<PeerId, bool> = BTreeMap::new();
        let mut places: BTreeMap<Oid, bool> = BTreeMap::new();
        let (memory, head) = (&self.context.memory, self.head()?);
        let scopes = memory.peers.get(&self.rows, &memory.scopes, peer, head)?;
        let is_any_purged = self.rows.is_any_purged()?;
        for stub in stubs.iter() {
            let is_shared = match places.entry(stub.place) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(self.is_shared(app, &scopes, &stub.place)?),
            };
            if !is_shared {
                if owners.insert(stub.owner) {
                    lacking.owners.push(stub.oid);
                }
                lacking.objects.push(stub.oid);
                continue;
            }
            if is_any_purged && self.is_purged(&stub)? {
                continue;
            }
            let owner = self.rows.identity(&stub.owner)?;
            let is_own = owner.is_some_and(|owner| owner.home == self.this_node());
            let key_id = owner.map(|owner| owner.key_id);
            // A form under an earlier key is not applied, and own objects are reclaimed.
            if is_own || key_id > Some(stub.key_id) || !self.lacks(app, peer, &stub)? {
                continue;
            }
            if let Some(owner) = owner.filter(|_| !stub.serves_others()) {
                let is_banned = match banned.entry(owner.home) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => *new.insert(self.rows.is_banned(&owner.home, now)?),
                };
                if is_banned {
                    continue;
                }
            }
            if key_id < Some(stub.key_id) && owners.insert(stub.owner) {
                lacking.owners.push(stub.oid);
            }
            let home = owner.map(|owner| owner.home);
            lacking.homes.insert(stub.oid, home);
            lacking.objects.push(stub.oid);
        }
        Ok(lacking)
    }

    /// Whether a purge removed the object of a stub, its owner or its place.
    fn is_purged(&self, stub: &Stub) -> Result<bool, StoreError> {
        for oid in [&stub.oid, &stub.owner, &stub.place] {
            if matches!(self.rows.purged(oid)?, Some(Purged::Object | Purged::Scope)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the peer and an identity of this node that takes part read a place.
    fn is_shared(
        &self,
        app: &AppTable,
        scopes: &PeerScopes,
        place: &Oid,
    ) -> Result<bool, StoreError> {
        let Some(scope) = self.rows.parent(app, place)?.map(|parent| parent.scope_id) else {
            return Ok(false);
        };
        let is_read_there = matches!(scopes.reading(scope), Some(Reading::After(_)));
        Ok(is_read_there && self.rows.is_read_at(scope, &self.this_node())?)
    }

    /// Whether neither a stored form nor one of the peer that waits is the one of a stub, or makes
    /// it useless. A form of another peer that waits is deleted with that peer.
    fn lacks(&self, app: &AppTable, peer: &PeerId, stub: &Stub) -> Result<bool, StoreError> {
        let stored = self.rows.parent(app, &stub.oid)?;
        if stored.is_some_and(|stored| !stub.may_change(&stored)) {
            return Ok(false);
        }
        let waiting = self.rows.waiting_signatures(peer, &stub.oid)?;
        let mut waiting = waiting.iter();
        Ok(!waiting.any(|(key_id, signature)| stub.is_signed_by(*key_id, signature)))
    }

    /// The reply to a peer that fetches. Empty for a domain that is not shared.
    pub fn fetch(&self, request: &FetchRequest) -> Result<Fetched, StoreError> {
        let mut fetched = Fetched {
            looked_up: request.oids.len(),
            ..Fetched::default()
        };
        let shared = self.rows.peer(&request.peer)?.map(|peer| peer.domains);
        let shared = shared.filter(|shared| shared.contains(&request.domain));
        let app = self.context.schemas.domain(&request.domain);
        let app = app.and_then(|domain| self.rows.apps().get(&domain.app));
        let table = self.rows.apps().domain(&request.domain);
        let (Some(shared), Some(app), Some(table)) = (shared, app, table) else {
            return Ok(fetched);
        };
        let memory = &self.context.memory;
        let (peers, head) = (&memory.peers, self.head()?);
        let scopes = peers.get(&self.rows, &memory.scopes, &request.peer, head)?;
        let hidden = self.hidden_types(&request.domain, &shared);
        let bytes_max = self.context.limits.package.bytes_max - Package::EMPTY_BYTES_MAX;
        let (mut bytes, mut owners) = (0, BTreeSet::new());
        for (number, oid) in request.oids.iter().enumerate() {
            fetched.cost += LOOKUP_COST;
            let row = self.rows.parent(app, oid)?;
            let is_sent = |row: &ParentRow| {
                row.sync_flags & table.mask != 0
                    && !hidden.contains(&row.type_number)
                    && is_readable(&scopes, row, request.records)
            };
            let Some(row) = row.filter(is_sent) else {
                continue;
            };
            let signed = match request.records {
                true if !owners.insert(row.owner) => continue,
                true => self.record_of(&row.owner)?,
                false => Some(load_object(&self.rows, app, &row)?.1),
            };
            let Some(signed) = signed else {
                continue;
            };
            fetched.cost += OBJECT_COST;
            bytes += Package::object_bytes(&signed);
            if bytes > bytes_max && !fetched.objects.is_empty() {
                fetched.looked_up = number;
                break;
            }
            fetched.objects.push(signed);
        }
        Ok(fetched)
    }

    /// The identity record of an owner, also if it is not listed.
    fn record_of(&self, owner: &Oid) -> Result<Option<SignedObject>, StoreError> {
        let app = self.rows.apps().get(identities::APP);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        let row = self.rows.parent(app, owner)?;
        let row = row.filter(|row| row.type_number == identities::IDENTITY && row.rev > 0);
        row.map(|row| Ok(load_object(&self.rows, app, &row)?.1))
            .transpose()
    }
}

/// Whether a peer may read an object in a scope. A former reader gets no records, because they name
/// the present homes of members.
fn is_readable(scopes: &PeerScopes, row: &ParentRow, records: bool) -> bool {
    match scopes.reading(row.scope_id) {
        None => false,
        Some(Reading::After(_)) => true,
        Some(Reading::Until(until)) => {
            !records && row.reaches_former_readers() && row.created_seq <= until
        }
    }
}

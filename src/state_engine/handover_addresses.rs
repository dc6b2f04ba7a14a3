//! The address records that an identity brings to its new home (docs/DECISIONS.md 10).
//!
//! The new home may know no member but the old home, which takes part in no scope of the identity
//! any more. Nothing new is shown, because the identity took part in the scopes. Tested in
//! `tests/core/moves_late.rs`.

use keys::{AddressRecord, Oid, VerifiedAddress};

use super::addresses::take_address;
use super::engine::StateEngine;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{ScopeId, StoreError};

/// Most scopes that a page looks at.
const PAGE_SCOPES_MAX: usize = 16;

/// The address records of members' nodes in some scopes of an identity.
#[derive(Debug, Default)]
pub struct MovedAddresses {
    /// The oid of each scope, with its records.
    pub scopes: Vec<(Oid, Vec<AddressRecord>)>,
    /// The last scope that was examined; `None`: no scope follows.
    pub last: Option<ScopeId>,
}

impl View<'_> {
    /// The records of members' nodes in the scopes after `after` in which an identity takes part.
    pub fn moved_addresses(
        &self,
        identity: &Oid,
        after: ScopeId,
    ) -> Result<MovedAddresses, StoreError> {
        let scopes = self
            .rows
            .some_scopes_read_by(identity, after, PAGE_SCOPES_MAX)?;
        let last = scopes.get(PAGE_SCOPES_MAX - 1).map(|scope| scope.id);
        let mut page = MovedAddresses {
            scopes: Vec::new(),
            last,
        };
        for scope in scopes {
            let (Some(place), _) = self.meeting_place(scope.id)? else {
                continue;
            };
            // Another identity of this node may take part in the scope.
            if place.owner != *identity && !self.rows.has_accepted(scope.id, identity)? {
                continue;
            }
            let mut records = Vec::new();
            for member in &place.members {
                if let Some(row) = self.rows.address(&member.home)? {
                    records.push(row.record()?);
                }
            }
            if !records.is_empty() {
                page.scopes.push((place.oid, records));
            }
        }
        Ok(page)
    }
}

impl StateEngine {
    /// Takes the records that an identity brought for one of its scopes. Returns how many were new.
    /// The members are not known here yet; only the nodes of members are dialled.
    pub fn take_moved_addresses(
        &mut self,
        now: Timestamp,
        scope: &Oid,
        records: &[VerifiedAddress],
    ) -> Result<usize, StoreError> {
        let known = {
            let rows = self.view().rows;
            let mut known = None;
            for app in rows.apps().iter() {
                known = known.or(rows.parent(app, scope)?);
            }
            known
        };
        let Some(parent) = known else {
            return Ok(0);
        };
        self.store.transaction(|tx| {
            let mut taken = 0;
            for record in records {
                taken += usize::from(take_address(tx, now, (record, &[]), parent.owner)?);
            }
            Ok(taken)
        })
    }
}

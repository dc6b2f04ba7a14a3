//! Pulling a scope again whose deletion was overruled, or of which a ban refused objects, from the
//! peers that may have objects of it.
//!
//! This node dropped what arrived meanwhile, and values that it had stored. Only an identity that
//! some list of the scope names can have objects of it, so no other peer is asked. Work is done in
//! portions, and the position is stored. Invariant: what one peer causes never lets the whole
//! domain of another be pulled again. Tested in `tests/core/overruled.rs`.

use std::collections::BTreeSet;

use keys::{Oid, PeerId};

use super::manager::GraphManager;
use crate::op_context::AppId;
use crate::store::{
    Cursor, Direction, ParentRow, PullAgainCause, PullAgainNote, ScopeId, StoreError,
};

/// Most that a portion spends ([`GraphManager::spent`]), besides its last list.
const SPENT_MAX: usize = 256;

/// The scope is pulled again to its end. The cursor is no end, because a package may be in progress
/// whose earlier parts were dropped and that moves the cursor later.
const NO_END: u64 = i64::MAX.unsigned_abs();

/// The state of a scope whose deletion was overruled.
enum Revival<'r> {
    /// The scope is pulled again.
    Live(Revived<'r>),
    /// Its app is disabled, so that its domains are not known.
    Disabled,
    /// The scope has no live Parent. The scope ended again.
    Ended,
}

/// A scope that is pulled again.
struct Revived<'r> {
    oid: Oid,
    /// Where its owner lives.
    home: Option<PeerId>,
    /// The domains of its app.
    domains: Vec<&'r str>,
}

impl<'e> GraphManager<'e> {
    /// Lets a scope whose deletion was overruled be pulled again.
    pub(super) fn pull_scope_again(&self, parent: &ParentRow) -> Result<(), StoreError> {
        let now = self.env.now;
        self.tx.note_overruled(parent.scope_id, &parent.owner, now)
    }

    /// Lets a scope be pulled again of which this node refused objects.
    pub(super) fn want_again(&self, scope: ScopeId) -> Result<(), StoreError> {
        let Some(known) = self.tx.scope(scope)? else {
            return Ok(());
        };
        let app = self.tx.apps().iter().find(|app| app.id == known.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        match self.tx.parent_by_id(app, known.parent_id)? {
            Some(parent) => self.pull_scope_again(&parent),
            None => Ok(()),
        }
    }

    /// Notes one portion of a scope that is pulled again at peers. Returns `false` if none is due.
    pub fn pull_overruled(&mut self) -> Result<bool, StoreError> {
        let now = self.env.now;
        let Some(mut row) = self.tx.next_overruled(now)? else {
            return Ok(false);
        };
        let revived = match self.revival(row.scope)? {
            Revival::Live(revived) => revived,
            Revival::Disabled => return self.tx.hold_overruled(row.scope).map(|()| true),
            Revival::Ended => {
                row.was_full = false;
                return self.tx.finish_overruled(&row, now).map(|()| true);
            }
        };
        while let Some(list) = self.tx.list_after(row.scope, row.after)? {
            let entries = self.tx.rights(list)?;
            self.look_at(1 + entries.entries());
            let mut homes = BTreeSet::new();
            for (identity, _) in entries.iter() {
                homes.extend(self.identity(identity)?.map(|known| known.home));
            }
            for home in &homes {
                row.was_full |= !self.pull_from(home, &revived)?;
            }
            row.after = list;
            if self.spent() > SPENT_MAX {
                return self.tx.put_overruled(&row).map(|()| true);
            }
        }
        self.tx.finish_overruled(&row, now).map(|()| true)
    }

    fn revival(&self, scope: ScopeId) -> Result<Revival<'e>, StoreError> {
        let (Some(known), Some(parent)) = (self.tx.scope(scope)?, self.live_parent(scope)?) else {
            return Ok(Revival::Ended);
        };
        let app = self.schemas().apps().find(|app| {
            let table = self.tx.apps().get(&app.slug);
            table.is_some_and(|table| table.id == known.app)
        });
        let Some(app) = app else {
            return Ok(Revival::Disabled);
        };
        let domains = app.domains.iter();
        Ok(Revival::Live(Revived {
            oid: known.oid,
            home: self.identity(&parent.owner)?.map(|owner| owner.home),
            domains: domains.map(|domain| domain.name.as_str()).collect(),
        }))
    }

    /// Notes at a peer that it may have a scope that a purge removes.
    pub(super) fn pull_removed_from(
        &self,
        peer: &PeerId,
        app: AppId,
        oid: &Oid,
    ) -> Result<(), StoreError> {
        let tables = self.tx.apps();
        let is_app = |slug: &str| tables.get(slug).is_some_and(|table| table.id == app);
        let app = self.schemas().apps().find(|schema| is_app(&schema.slug));
        let domains = app.into_iter().flat_map(|app| &app.domains);
        for domain in domains {
            self.pull_wanted_from(peer, &domain.name, oid)?;
        }
        Ok(())
    }

    /// Notes at a peer that it may have a scope that a purge removed.
    pub(super) fn pull_wanted_from(
        &self,
        peer: &PeerId,
        domain: &str,
        oid: &Oid,
    ) -> Result<(), StoreError> {
        let wanted = Revived {
            oid: *oid,
            home: None,
            domains: vec![domain],
        };
        // One that has too many is asked when it sends an object of the scope.
        self.pull_from(peer, &wanted).map(drop)
    }

    /// Notes a scope at one peer, in each domain that it shares or that was pulled from it before.
    /// Returns `false` if a domain has too many such scopes.
    ///
    /// A domain without a cursor is noted too, and the epoch is that of the last session. A package
    /// in progress may have skipped objects of the scope, and moves the cursor later.
    fn pull_from(&self, peer: &PeerId, revived: &Revived<'_>) -> Result<bool, StoreError> {
        let Some(known) = self.tx.peer(peer)? else {
            return Ok(true);
        };
        let mut is_noted = true;
        for domain in &revived.domains {
            self.look_at(1);
            let cursor = Cursor {
                peer,
                domain,
                direction: Direction::In,
            };
            let is_shared = known.domains.iter().any(|shared| shared == domain);
            if !is_shared && self.tx.sync_state(cursor)?.is_none() {
                continue;
            }
            let is_owner = revived.home == Some(*peer);
            let note = PullAgainNote {
                peer,
                domain,
                scope: Some(revived.oid),
                epoch: known.epoch,
                until_seq: NO_END,
                cause: match is_owner {
                    true => PullAgainCause::Named,
                    false => PullAgainCause::Overruled,
                },
                is_again: false,
                is_own: true,
            };
            let now = self.env.now;
            match is_owner {
                true => self.tx.note_pull_again(&note, now)?,
                false => is_noted &= self.tx.note_overruled_at(&note, now)?,
            }
        }
        Ok(is_noted)
    }
}

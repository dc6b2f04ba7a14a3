//! Sharing in any app: the rights list in force in a scope, and its changes (docs/DECISIONS.md 4).
//!
//! A scope is visible if an identity of this node sees its Parent (`store::Sight`). Invariants:
//! only the scope's owner changes rights, and the owner keeps all of them. Any other reader can
//! leave. Tested in
//! `tests/core/conversations.rs` and `src/api/tests/rights.rs`.

use keys::Oid;
use std::collections::BTreeSet;

use keys::protocol::RIGHTS_ENTRIES_MAX;

use super::context::{is_local, local_context};
use super::of_two::two_founders_of;
use super::people;
use crate::graph::{GraphManager, SaveError, Saved};
use crate::object::{Rights, RightsList};
use crate::store::{AppTable, Onlooker, ParentRow, RightsRow, Rows, ScopeId, StoreError};

/// Why rights were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// No identity of this node may read a scope with this oid.
    #[error("no identity of this node may read a scope with the oid {}", .0.to_hex())]
    NotFound(Oid),
    /// No enabled app has this slug.
    #[error("this node has no app {0:?} enabled")]
    UnknownApp(String),
    /// The owner of the scope lives elsewhere.
    #[error(
        "only the owner {} can change who takes part, and it does not live on this node",
        .owner.to_hex()
    )]
    NotOwner {
        /// The owner of the scope.
        owner: Oid,
    },
    /// The owner has all rights as long as the scope exists.
    #[error("the owner {} always takes part: it can neither leave nor be removed", .0.to_hex())]
    OwnerStays(Oid),
    /// The identity has no rights that could be taken.
    #[error("the identity {} has no rights in the scope", .0.to_hex())]
    NoRights(Oid),
    /// The leaving identity does not live on this node.
    #[error("the identity {} does not live on this node", .0.to_hex())]
    NotHere(Oid),
    /// The leaving identity does not read the scope.
    #[error("the identity {} may not read the scope, or has left it", .0.to_hex())]
    NotReader(Oid),
    /// The leaving identity has an invitation that it did not accept.
    #[error("the identity {} did not accept its invitation: it can decline", .0.to_hex())]
    NotAccepted(Oid),
    /// The identity is not known.
    #[error(
        "the identity {} is not known: synchronise the identities domain with its node first",
        .0.to_hex()
    )]
    UnknownIdentity(Oid),
    /// The identity is retired.
    #[error("the identity {} is retired", .0.to_hex())]
    Retired(Oid),
    /// Two founded the conversation, without the identity.
    #[error(
        "two founded this conversation, which stays one of two: `postern conversation add` founds \
         a new one with the identity {}",
        .0.to_hex()
    )]
    OfTwo(Oid),
    /// The list would have too many entries.
    #[error("at most {RIGHTS_ENTRIES_MAX} identities can take part")]
    TooMany,
    /// The write failed.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl From<StoreError> for RightsError {
    fn from(error: StoreError) -> Self {
        Self::Save(error.into())
    }
}

/// A scope whose Parent an onlooker sees.
#[derive(Debug)]
pub struct SharedScope<'r> {
    /// The app of its Parent.
    pub app: &'r AppTable,
    /// Its Parent.
    pub parent: ParentRow,
    /// Highest `created_seq` of an object in it that the onlooker sees.
    pub until_seq: u64,
    /// The newest rights list that the onlooker sees: the one in force, or the one that ended its
    /// reading.
    pub list: ListInForce,
}

/// The rights list in force in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListInForce {
    /// The version; the founding list has version 0.
    pub version: u64,
    /// The entries.
    pub rights: RightsList,
}

impl SharedScope<'_> {
    /// The scope.
    pub fn id(&self) -> ScopeId {
        self.parent.scope_id
    }

    /// Whether an identity reads the scope as far as the onlooker knows.
    pub fn is_reader(&self, rows: &Rows<'_>, identity: &Oid) -> Result<bool, StoreError> {
        let may_read = self.list.rights.of(identity).is_some_and(Rights::may_read);
        Ok(may_read && !self.has_left(rows, identity)?)
    }

    /// Whether an identity left as far as the onlooker knows: the list lets it read, and it ended
    /// that.
    pub fn has_left(&self, rows: &Rows<'_>, identity: &Oid) -> Result<bool, StoreError> {
        let may_read = self.list.rights.of(identity).is_some_and(Rights::may_read);
        if !may_read || rows.is_reader(self.id(), identity)? {
            return Ok(false);
        }
        let until_seq = rows.reader_until(self.id(), identity)?;
        Ok(until_seq.is_none_or(|until| until <= self.until_seq))
    }
}

/// The rights list in force in a scope that has not ended.
pub(super) fn list_in_force(rows: &Rows<'_>, scope: ScopeId) -> Result<ListInForce, StoreError> {
    load_list(rows, rows.list_in_force(scope)?)
}

fn load_list(rows: &Rows<'_>, row: RightsRow) -> Result<ListInForce, StoreError> {
    Ok(ListInForce {
        version: row.version,
        rights: rows.rights(row.id)?,
    })
}

/// The scope whose Parent has this oid, if the onlooker sees it and the scope has not ended.
pub fn find<'r>(
    rows: &'r Rows<'_>,
    onlooker: Onlooker,
    app: &str,
    scope: &Oid,
) -> Result<Option<SharedScope<'r>>, StoreError> {
    let Some(app) = rows.apps().get(app) else {
        return Ok(None);
    };
    let Some(parent) = rows.parent(app, scope)? else {
        return Ok(None);
    };
    let is_scope = rows
        .scope(parent.scope_id)?
        .is_some_and(|row| row.oid == *scope);
    let seen = rows.sight(onlooker).until_seq(parent.scope_id)?;
    let Some(until_seq) = seen.filter(|until| is_scope && parent.created_seq <= *until) else {
        return Ok(None);
    };
    if parent.deleted {
        return Ok(None);
    }
    Ok(Some(SharedScope {
        app,
        until_seq,
        list: load_list(rows, rows.list_seen(app, parent.scope_id, until_seq)?)?,
        parent,
    }))
}

/// Why [`find`] finds no scope.
pub fn missing(rows: &Rows<'_>, app: &str, scope: Oid) -> RightsError {
    match rows.apps().get(app) {
        None => RightsError::UnknownApp(app.to_owned()),
        Some(_) => RightsError::NotFound(scope),
    }
}

/// The list in force after a change, and the object that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The version of the list.
    pub version: u64,
    /// The object: the scope's Parent if the founding list is in force.
    pub saved: Saved,
}

/// Gives rights to identities, or takes them (`None`). The owner of the scope signs the new list.
/// If nothing changes, no list is written. In a conversation of two, no third identity gains
/// rights.
pub fn change(
    graph: &mut GraphManager<'_>,
    app: &str,
    scope: Oid,
    changes: &[(Oid, Option<Rights>)],
) -> Result<Changed, RightsError> {
    let given = changes.iter().filter(|(_, rights)| rights.is_some());
    if given.count() > RIGHTS_ENTRIES_MAX {
        return Err(RightsError::TooMany);
    }
    let shared = find_for_change(graph, app, scope)?;
    let owner = shared.parent.owner;
    let kept = |(identity, to): &(Oid, Option<Rights>)| {
        *identity != owner || *to == Some(Rights::READ_WRITE)
    };
    if !changes.iter().all(kept) {
        return Err(RightsError::OwnerStays(owner));
    }
    let next = graph.next_list(shared.id())?;
    if entries_after(&next, changes) > RIGHTS_ENTRIES_MAX {
        return Err(RightsError::TooMany);
    }
    let two = two_founders_of(graph.tx(), shared.app, &shared.parent)?;
    let is_third = |identity| two.as_ref().is_some_and(|two| !two.contains(identity));
    let mut changes_any = false;
    for (identity, to) in changes {
        let (before, now) = (shared.list.rights.of(identity), next.of(identity));
        if to.is_none() && before.is_none() && now.is_none() {
            return Err(RightsError::NoRights(*identity));
        }
        let returns = to.is_some() && shared.has_left(graph.tx(), identity)?;
        let bits = |rights: Option<Rights>| rights.map_or(0, Rights::bits);
        if returns || bits(*to) & !bits(now) != 0 {
            check_known(graph, identity)?;
            if is_third(identity) {
                return Err(RightsError::OfTwo(*identity));
            }
        }
        changes_any |= returns || *to != before || *to != now;
    }
    if !changes_any {
        return Ok(in_force(graph.tx(), &shared)?);
    }
    let context = local_context(graph, &owner, app)?;
    let saved = graph.save_rights(&context, app, &scope, changes)?;
    let version = graph.tx().list_in_force(shared.id())?.version;
    Ok(Changed { version, saved })
}

/// Ends the right of a local identity to read a scope, by its own decision. Its right to write
/// stays. The owner of a scope cannot leave it.
pub fn leave(
    graph: &mut GraphManager<'_>,
    app: &str,
    scope: Oid,
    identity: Oid,
) -> Result<Saved, RightsError> {
    let shared = find_visible(graph, app, scope)?;
    if !is_local(graph, &identity)? {
        return Err(RightsError::NotHere(identity));
    }
    if identity == shared.parent.owner {
        return Err(RightsError::OwnerStays(identity));
    }
    if !shared.is_reader(graph.tx(), &identity)? {
        return Err(RightsError::NotReader(identity));
    }
    // A `leave` would show to the members that the identity lives here and decided.
    let invitation = graph.tx().invitation(shared.id(), &identity)?;
    if invitation.is_some_and(|it| it.state.is_hidden()) {
        return Err(RightsError::NotAccepted(identity));
    }
    let context = local_context(graph, &identity, app)?;
    Ok(graph.save_leave(&context, app, &scope, identity)?)
}

/// The number of entries after changes of a list.
fn entries_after(list: &RightsList, changes: &[(Oid, Option<Rights>)]) -> usize {
    let mut entries: BTreeSet<_> = list.iter().map(|(identity, _)| *identity).collect();
    for (identity, to) in changes {
        match to {
            Some(_) => entries.insert(*identity),
            None => entries.remove(identity),
        };
    }
    entries.len()
}

/// The list in force in a scope, and the object that holds it.
fn in_force(rows: &Rows<'_>, scope: &SharedScope<'_>) -> Result<Changed, StoreError> {
    let list = rows.list_in_force(scope.id())?;
    let stored = match list.parent_id {
        Some(parent) => rows.parent_by_id(scope.app, parent)?,
        None => Some(scope.parent.clone()),
    };
    let holder = stored.ok_or(StoreError::Inconsistent("a rights list without an object"))?;
    Ok(Changed {
        version: list.version,
        saved: Saved {
            oid: holder.oid,
            rev: holder.rev,
            change_seq: holder.change_seq,
        },
    })
}

/// Refuses an identity that is unknown or retired.
pub(super) fn check_known(graph: &GraphManager<'_>, identity: &Oid) -> Result<(), RightsError> {
    match people::known(graph.tx(), identity)? {
        None => Err(RightsError::UnknownIdentity(*identity)),
        Some(row) if row.retired => Err(RightsError::Retired(*identity)),
        Some(_) => Ok(()),
    }
}

/// A visible scope.
pub(super) fn find_visible<'e>(
    graph: &GraphManager<'e>,
    app: &str,
    scope: Oid,
) -> Result<SharedScope<'e>, RightsError> {
    let onlooker = Onlooker::AnyAt(graph.keys().peer_id());
    find(graph.tx(), onlooker, app, &scope)?.ok_or_else(|| missing(graph.tx(), app, scope))
}

/// A visible scope whose owner lives on this node.
pub(super) fn find_for_change<'e>(
    graph: &GraphManager<'e>,
    app: &str,
    scope: Oid,
) -> Result<SharedScope<'e>, RightsError> {
    let shared = find_visible(graph, app, scope)?;
    let owner = shared.parent.owner;
    if !is_local(graph, &owner)? {
        return Err(RightsError::NotOwner { owner });
    }
    Ok(shared)
}

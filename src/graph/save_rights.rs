//! Local writes of rights lists and `leave` (docs/DECISIONS.md 4).
//!
//! Invariants: a list is written by the owner of its scope, replaces or merges its heads
//! (`merge.rs`), and holds all rights. Tested in `tests/core/rights.rs`.

use keys::protocol::{LEAVE_TYPE, RIGHTS_MERGED_MAX, RIGHTS_TYPE};
use keys::{Digest, Oid};

use super::error::SaveError;
use super::local::Saved;
use super::manager::GraphManager;
use crate::acl::{AclManager, Denied};
use crate::object::{Attrs, Object, OidParts, Place, Rights, RightsFault, RightsList, ScopeList};
use crate::op_context::OpContext;
use crate::store::{AppTable, ParentRow, RightsRow, ScopeId, StoreError};

/// The highest version of a list, which an object holds as a signed integer.
const VERSION_MAX: u64 = i64::MAX.unsigned_abs();

impl GraphManager<'_> {
    /// Changes the rights in a scope: for each identity its new rights, or `None` to remove it.
    /// Writes what the heads of the scope give, with these changes and without the identities that
    /// left.
    ///
    /// Only the owner of the scope may do so, and it keeps both rights. Adding an identity again
    /// that left writes a list without it first, in a change group of its own.
    pub fn save_rights(
        &mut self,
        context: &OpContext,
        app: &str,
        scope: &Oid,
        changes: &[(Oid, Option<Rights>)],
    ) -> Result<Saved, SaveError> {
        self.may_write(true)?;
        let app = self.table(app)?;
        let parent = self.scope_parent(app, scope)?;
        let owner_stays = |(identity, rights): &(Oid, Option<Rights>)| {
            *identity != parent.owner || *rights == Some(Rights::READ_WRITE)
        };
        if !changes.iter().all(owner_stays) {
            return Err(Denied::ScopeOwnerStays.into());
        }
        let scope = parent.scope_id;
        let heads = self.heads(scope)?;
        let mut rights = self.next_rights(scope, &heads)?;
        let lists = heads.iter().map(|head| self.tx.rights(head.id));
        let lists: Vec<_> = lists.collect::<Result<_, _>>()?;
        let returns = |(identity, to): &(Oid, Option<Rights>)| {
            let is_entry = lists.iter().any(|list| list.of(identity).is_some());
            to.is_some() && rights.of(identity).is_none() && is_entry
        };
        if changes.iter().any(returns) {
            self.write_list(Some(context), app, &parent, rights.clone())?;
            self.end_group();
        }
        for (identity, to) in changes {
            rights.set(*identity, *to);
        }
        self.write_list(Some(context), app, &parent, rights)
    }

    /// Ends the right of a local identity to read a scope. The owner of a scope cannot leave it.
    pub fn save_leave(
        &mut self,
        context: &OpContext,
        app: &str,
        scope: &Oid,
        identity: Oid,
    ) -> Result<Saved, SaveError> {
        self.save_answer(context, app, scope, (LEAVE_TYPE, identity))
    }

    /// Writes a `leave` or `accept` of a local identity, which names the list in force.
    pub(super) fn save_answer(
        &mut self,
        context: &OpContext,
        app: &str,
        scope: &Oid,
        kind: (u16, Oid),
    ) -> Result<Saved, SaveError> {
        self.may_write(true)?;
        let app = self.table(app)?;
        let parent = self.scope_parent(app, scope)?;
        let named = self.name_of_list_in_force(parent.scope_id)?;
        self.write_core(Some(context), app, kind, named, Attrs::new(), scope)
    }

    /// The name of the list in force, as objects state it. `None`: the founding list.
    pub(super) fn name_of_list_in_force(
        &self,
        scope: ScopeId,
    ) -> Result<Option<Digest>, StoreError> {
        Ok(name(&self.tx.list_in_force(scope)?))
    }

    /// Writes a list that replaces one head of the scope and merges the others. `context`: on whose
    /// behalf; `None` if the list only merges or leaves out identities that left.
    pub(super) fn write_list(
        &mut self,
        context: Option<&OpContext>,
        app: &AppTable,
        parent: &ParentRow,
        list: RightsList,
    ) -> Result<Saved, SaveError> {
        let heads = self.heads(parent.scope_id)?;
        let in_force = self.tx.list_in_force(parent.scope_id)?;
        let [replaced, others @ ..] = heads.as_slice() else {
            return Err(StoreError::Inconsistent("a scope without a list").into());
        };
        let versions = heads.iter().map(|head| head.version);
        let version = versions.fold(in_force.version, u64::max) + 1;
        if version > VERSION_MAX {
            return Err(RightsFault("no version is left: rotate the owner's key").into());
        }
        let others = others.iter().take(RIGHTS_MERGED_MAX);
        let list = ScopeList {
            scope: parent.oid,
            version,
            list,
            merges: others.map(|list| list.digest).collect(),
        };
        list.check(&parent.owner)?;
        let kind = (RIGHTS_TYPE, parent.owner);
        let (named, attrs) = (name(replaced), list.attrs());
        let saved = self.write_core(context, app, kind, named, attrs, &parent.oid)?;
        self.tx.remove_due_list(parent.scope_id)?;
        Ok(saved)
    }

    /// Writes a new object of a core type.
    pub(super) fn write_core(
        &mut self,
        context: Option<&OpContext>,
        app: &AppTable,
        (type_number, owner): (u16, Oid),
        rights: Option<Digest>,
        attrs: Attrs,
        scope: &Oid,
    ) -> Result<Saved, SaveError> {
        // Every app that is enabled has the core types.
        let schema = self.schemas().type_(&app.slug, type_number);
        let schema = schema.ok_or_else(|| SaveError::Disabled(app.slug.clone()))?;
        let mut salt = [0; 8];
        self.env.rng.fill_bytes(&mut salt);
        let parts = OidParts {
            owner: &owner,
            app: &app.slug,
            type_number,
            place: &Place::In(*scope),
        };
        let object = Object {
            rights,
            attrs: Some(attrs),
            ..Object::create(&parts, self.env.now.0, salt)
        };
        let resolved = self.resolve(app, schema, &object, None)?;
        let granted = match context {
            Some(context) => self.may_save(context, &object, None, resolved.right)?,
            None => AclManager::check_merge(object.oid, self.is_local(&owner)?)?,
        };
        self.sign_and_write(app, schema, &object, &resolved, None, &granted)
    }
}

fn name(list: &RightsRow) -> Option<Digest> {
    (list.version > 0).then_some(list.digest)
}

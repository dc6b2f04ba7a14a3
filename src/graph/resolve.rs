//! Resolving an object: its scope, its rights list, and the right of its owner.
//!
//! One function for local, remote and reclaimed objects. Of the references only the one that
//! decides the scope is looked up. Judging is left to `acl`, writing to `commit.rs`. Nothing here
//! writes. Tested in `tests/core/references.rs`.

use keys::protocol::RIGHTS_TYPE;
use keys::{Digest, Oid};

use super::load::REPLACES;
use super::manager::GraphManager;
use crate::acl::ScopeRight;
use crate::object::{Attrs, CoreRecord, Object, Place, Rights, RightsFault, RightsList};
use crate::op_context::AppId;
use crate::schema::{Kind, TypeSchema, Visibility};
use crate::store::{AppTable, ParentRow, ScopeId, StoreError, StoredValue};

/// The scope of an object: whose readers may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// A stored scope: local, public, or that of a stored Parent.
    Stored(ScopeId),
    /// The object founds a scope that this node does not know yet.
    New,
}

/// The founding list of an object that is itself a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Founding {
    /// The digest that the oid covers.
    pub(super) digest: Digest,
    /// The entries. `None`: a tombstone, which has no values.
    pub(super) list: Option<RightsList>,
}

/// An object whose scope was resolved, ready to be judged and written.
#[derive(Debug)]
pub(super) struct Resolved<'o> {
    /// The Attr rows: attribute number, ordinal and value.
    pub(super) attrs: Vec<(u16, u16, StoredValue<'o>)>,
    /// Where it is.
    pub(super) scope: Scope,
    /// Its founding list, if it is itself a scope.
    pub(super) founding: Option<Founding>,
    /// Its content, if it is of a core type and no tombstone.
    pub(super) core: Option<CoreRecord>,
    /// Local id of the rights list that it names. `None`: the founding list, or no list.
    pub(super) rights_id: Option<i64>,
    /// Whether the owner may write in the scope.
    pub(super) right: ScopeRight,
}

/// Why an object could not be resolved.
#[derive(Debug)]
pub(super) enum ResolveError {
    /// The Parent that is the scope is not stored, so the object has to wait.
    Missing(AppId, Oid),
    /// The reference that decides the scope leads to a Parent of another type.
    WrongReference,
    /// The place contradicts the type or the values.
    WrongScope,
    /// The rights list that the object names is not stored, so the object has to wait.
    MissingRights(Digest),
    /// The object may not name the rights list that it names.
    Rights(RightsFault),
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The scope, the named rights list and the right of the owner.
pub(super) type InScope = (ScopeId, Option<i64>, ScopeRight);

impl Resolved<'_> {
    /// Digest of the list that a rights list replaces. `None`: the founding list.
    pub(super) fn replaces(&self) -> Option<Digest> {
        let mut attrs = self.attrs.iter();
        attrs.find_map(|(_, _, value)| match value {
            StoredValue::Digest(digest) => Some(**digest),
            _ => None,
        })
    }
}

impl GraphManager<'_> {
    /// The place of a new object with these values.
    pub(super) fn place_of(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        owner: &Oid,
        attrs: &Attrs,
    ) -> Result<Place, ResolveError> {
        if let Some(list) = schema.founding_list(owner, attrs) {
            return Ok(Place::Founds(list.digest()));
        }
        let Visibility::Participants { through } = schema.visibility else {
            return Ok(Place::Public);
        };
        let oid = reference(attrs, through).ok_or(ResolveError::WrongScope)?;
        let parent = self.referenced(app, &oid)?;
        let parent = parent.ok_or(ResolveError::Missing(app.id, oid))?;
        check_type(schema, through, &parent)?;
        Ok(Place::In(oid))
    }

    /// Resolves an object whose Attrs passed the schema. `existing` is the stored revision; its oid
    /// proves that type, owner and place are the same.
    pub(super) fn resolve<'o>(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &'o Object,
        existing: Option<&ParentRow>,
    ) -> Result<Resolved<'o>, ResolveError> {
        let place = object.place();
        let core = CoreRecord::read(object).transpose();
        let core = core.map_err(ResolveError::Rights)?;
        let (mut founding, mut through_parent) = (None, None);
        let (scope, rights_id, right) = match (schema.visibility, place) {
            (Visibility::Local, Place::Public) if object.rights.is_none() => {
                (Scope::Stored(ScopeId::LOCAL), None, ScopeRight::Open)
            }
            (Visibility::Public, Place::Public) if object.rights.is_none() => {
                (Scope::Stored(ScopeId::PUBLIC), None, ScopeRight::Open)
            }
            (Visibility::Participants { through }, Place::In(scope)) => {
                let attrs = object.attrs.as_ref();
                // Before any look-up, so that the object does not wait for another scope.
                if attrs.is_some_and(|attrs| reference(attrs, through) != Some(scope)) {
                    return Err(ResolveError::WrongScope);
                }
                let parent = self.scope_parent(app, &scope)?;
                check_type(schema, through, &parent)?;
                through_parent = Some((through, parent.id));
                let (scope, rights_id, right) = self.resolve_within(object, &parent)?;
                (Scope::Stored(scope), rights_id, right)
            }
            (Visibility::Within, Place::In(scope)) => {
                let (scope, rights_id, right) = self.resolve_core(app, object, &scope)?;
                (Scope::Stored(scope), rights_id, right)
            }
            // The owner's right is enough, so that no list is named.
            (visibility, Place::Founds(digest))
                if visibility.founds_scopes() && object.rights.is_none() =>
            {
                let attrs = object.attrs.as_ref();
                let list = attrs.and_then(|attrs| schema.founding_list(&object.owner, attrs));
                let right = founder_right(object, list.as_ref(), &digest)?;
                founding = Some(Founding { digest, list });
                let scope = existing.map_or(Scope::New, |row| Scope::Stored(row.scope_id));
                (scope, None, right)
            }
            _ => return Err(ResolveError::WrongScope),
        };
        Ok(Resolved {
            attrs: attr_rows(object, through_parent),
            scope,
            founding,
            core,
            rights_id,
            right,
        })
    }

    /// Resolves the scope of an object within the Parent that is its scope.
    fn resolve_within(&self, object: &Object, parent: &ParentRow) -> Result<InScope, ResolveError> {
        if parent.deleted {
            return Ok((parent.scope_id, None, ScopeRight::Ended));
        }
        let named = self.named_list(parent.scope_id, object)?;
        let rights = self.rights_of(parent.scope_id, named, &object.owner)?;
        let may_write = rights.is_some_and(Rights::may_write);
        let right = if may_write {
            ScopeRight::Participant
        } else {
            ScopeRight::Outsider
        };
        Ok((parent.scope_id, named, right))
    }

    /// The Parent that is the scope with this oid.
    pub(super) fn scope_parent(
        &self,
        app: &AppTable,
        scope: &Oid,
    ) -> Result<ParentRow, ResolveError> {
        let parent = self.referenced(app, scope)?;
        let parent = parent.ok_or(ResolveError::Missing(app.id, *scope))?;
        let schema = self.schemas().type_(&app.slug, parent.type_number);
        if schema.is_some_and(|schema| schema.visibility.founds_scopes()) {
            Ok(parent)
        } else {
            Err(ResolveError::WrongScope)
        }
    }
}

/// The oid in an attribute that has one reference.
fn reference(attrs: &Attrs, attr: u16) -> Option<Oid> {
    attrs.get(&attr)?.first()?.as_oid()
}

/// Checks that the scope of an object is of the type that the attribute `through` refers to.
fn check_type(schema: &TypeSchema, through: u16, scope: &ParentRow) -> Result<(), ResolveError> {
    let type_number = scope.type_number;
    match schema.attr(through).map(|attr| attr.kind) {
        Some(Kind::Parent { type_number: of }) if of == type_number => Ok(()),
        _ => Err(ResolveError::WrongReference),
    }
}

/// The Attr rows of an object. `through`: the attribute that decides its scope, and the local id of
/// the Parent that is the scope. Every other reference is a plain value: readers may lack its
/// target, and the rows do not depend on the order of arrival.
fn attr_rows(object: &Object, through: Option<(u16, i64)>) -> Vec<(u16, u16, StoredValue<'_>)> {
    let mut rows = Vec::with_capacity(4);
    for (number, values) in object.attrs.iter().flatten() {
        let parent = through.filter(|(through, _)| through == number);
        for (ordinal, value) in (0..).zip(values) {
            let plain = StoredValue::Plain(value);
            let stored = parent.map_or(plain, |(_, id)| StoredValue::Parent(id));
            rows.push((*number, ordinal, stored));
        }
    }
    if object.type_number == RIGHTS_TYPE
        && let Some(replaces) = &object.rights
    {
        rows.push((REPLACES, 0, StoredValue::Digest(replaces)));
    }
    rows
}

/// The right of an owner to found a scope with this list, or to change or delete its Parent.
fn founder_right(
    object: &Object,
    list: Option<&RightsList>,
    digest: &Digest,
) -> Result<ScopeRight, ResolveError> {
    match list {
        Some(list) if list.digest() != *digest => Err(ResolveError::WrongScope),
        Some(list) if !list.of(&object.owner).is_some_and(|it| it.may_write()) => {
            Ok(ScopeRight::Outsider)
        }
        _ => Ok(ScopeRight::Open),
    }
}

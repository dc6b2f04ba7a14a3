//! Resolving an object's references and scope, and writing its rows.
//!
//! Judging is left to `acl`. Invariant: the readers of a scope are written in the transaction that
//! writes the scope's Parent.

use keys::Oid;

use super::manager::GraphManager;
use crate::acl::{Granted, ScopeRight};
use crate::object::Object;
use crate::schema::{Kind, TypeSchema, Visibility};
use crate::store::{AppTable, ParentRow, ScopeId, StoreError, StoredValue};

/// The scope of an object: whose readers may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// A stored scope: local, public, or another Parent.
    Stored(ScopeId),
    /// The object is a scope itself, with these readers.
    This(Vec<Oid>),
}

/// An object whose references were resolved, ready to be judged and written.
#[derive(Debug)]
pub(super) struct Resolved<'o> {
    /// The Attr rows: attribute number, ordinal and value.
    pub(super) attrs: Vec<(u16, u16, StoredValue<'o>)>,
    pub(super) scope: Scope,
    /// Whether the owner may write in the scope.
    pub(super) right: ScopeRight,
}

/// Why an object could not be resolved.
#[derive(Debug)]
pub(super) enum ResolveError {
    /// A referenced Parent is not stored, so the object has to wait.
    Missing(Oid),
    /// A reference leads to a Parent of another type, or to a deleted one.
    WrongReference,
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl GraphManager<'_> {
    /// Resolves the references and the scope of an object whose Attrs passed the schema.
    pub(super) fn resolve<'o>(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &'o Object,
    ) -> Result<Resolved<'o>, ResolveError> {
        let mut attrs = Vec::with_capacity(4);
        let mut scope = Scope::Stored(match schema.visibility {
            Visibility::Local => ScopeId::LOCAL,
            _ => ScopeId::PUBLIC,
        });
        let mut right = ScopeRight::Open;
        for (number, values) in object.attrs.iter().flatten() {
            let kind = schema.attr(*number).map(|attr| &attr.kind);
            for (ordinal, value) in (0..).zip(values) {
                let stored = match (kind, value.as_oid()) {
                    (Some(Kind::Parent { type_number }), Some(oid)) => {
                        let parent = self
                            .referenced(app, &oid)?
                            .ok_or(ResolveError::Missing(oid))?;
                        if parent.type_number != *type_number || parent.deleted {
                            return Err(ResolveError::WrongReference);
                        }
                        if schema.visibility == (Visibility::Participants { through: *number }) {
                            if !parent.scope_id.has_readers() {
                                return Err(ResolveError::WrongReference);
                            }
                            scope = Scope::Stored(parent.scope_id);
                            right =
                                membership(self.readers(parent.scope_id)?.contains(&object.owner));
                        }
                        StoredValue::Parent(parent.id)
                    }
                    _ => StoredValue::Plain(value),
                };
                attrs.push((*number, ordinal, stored));
            }
        }
        match schema.visibility {
            Visibility::ParticipantsHere { attr } => {
                let readers: Vec<Oid> = object
                    .all(attr)
                    .iter()
                    .filter_map(|value| value.as_oid())
                    .collect();
                right = membership(readers.contains(&object.owner));
                scope = Scope::This(readers);
            }
            Visibility::OwnerAndSubject { subject } => {
                let subject = object
                    .all(subject)
                    .iter()
                    .filter_map(|value| value.as_oid());
                scope = Scope::This(std::iter::once(object.owner).chain(subject).collect());
            }
            Visibility::Participants { .. } | Visibility::Public | Visibility::Local => {}
        }
        Ok(Resolved {
            attrs,
            scope,
            right,
        })
    }

    /// Resolves a tombstone, which names no scope: it stays in the scope of the object.
    pub(super) fn resolve_deletion(
        &self,
        row: &ParentRow,
        object: &Object,
    ) -> Result<Resolved<'static>, StoreError> {
        let scope = self.tx.scope(row.scope_id)?;
        let is_within_another = scope.is_some_and(|scope| scope.parent_id != row.id);
        let right = if is_within_another {
            membership(self.readers(row.scope_id)?.contains(&object.owner))
        } else {
            ScopeRight::Open
        };
        Ok(Resolved {
            attrs: Vec::new(),
            scope: Scope::Stored(row.scope_id),
            right,
        })
    }

    /// Whether a local identity may read objects of this scope.
    pub(super) fn read_here(&self, scope: &Scope) -> Result<bool, StoreError> {
        let readers = match scope {
            Scope::Stored(scope) if !scope.has_readers() => return Ok(true),
            Scope::Stored(scope) => &*self.readers(*scope)?,
            Scope::This(readers) => readers,
        };
        for reader in readers {
            if self.is_local(reader)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a Parent with its Attrs and readers, new or over `existing`. Fills in `id` and
    /// `scope_id` of `row`, and returns it.
    pub(super) fn write(
        &mut self,
        app: &AppTable,
        mut row: ParentRow,
        resolved: &Resolved<'_>,
        existing: Option<&ParentRow>,
        granted: &Granted,
    ) -> Result<ParentRow, StoreError> {
        if let Some(existing) = existing {
            (row.id, row.scope_id) = (existing.id, existing.scope_id);
            row.created_seq = existing.created_seq;
            self.parents(app)?
                .update_parent(&row, &resolved.attrs, granted)?;
            self.cache.borrow_mut().invalidate_parent(app.id, &row);
            return Ok(row);
        }
        let readers = match &resolved.scope {
            // Checked before the scope's own row is written.
            Scope::This(_) if self.tx.parent(app, &row.oid)?.is_some() => {
                return Err(StoreError::Exists);
            }
            Scope::This(readers) => Some(readers),
            Scope::Stored(scope) => {
                row.scope_id = *scope;
                None
            }
        };
        row.id = self.env.counters.next_id(app);
        if readers.is_some() {
            row.scope_id = self.tx.insert_scope(app, row.id, &row.oid)?;
        }
        self.parents(app)?
            .insert_parent(&row, &resolved.attrs, granted)?;
        for reader in readers.into_iter().flatten() {
            self.tx.put_reader(row.scope_id, reader)?;
        }
        Ok(row)
    }

    /// Whether an update would move an existing object to other readers, which is never permitted.
    pub(super) fn moves_scope(
        &self,
        existing: &ParentRow,
        scope: &Scope,
    ) -> Result<bool, StoreError> {
        let readers = match scope {
            Scope::Stored(scope) => return Ok(*scope != existing.scope_id),
            Scope::This(readers) => readers,
        };
        let scope = self.tx.scope(existing.scope_id)?;
        if scope.is_none_or(|scope| scope.parent_id != existing.id) {
            return Ok(true);
        }
        let mut readers = readers.clone();
        readers.sort();
        readers.dedup();
        Ok(*readers != *self.readers(existing.scope_id)?)
    }
}

fn membership(is_member: bool) -> ScopeRight {
    if is_member {
        ScopeRight::Participant
    } else {
        ScopeRight::Outsider
    }
}

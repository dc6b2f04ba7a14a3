//! Where an object belongs: its references, the scope whose readers decide, and the last lines of every write.
//!
//! Never judges. Invariant: readers of a scope are written in the transaction that writes the scope.

use keys::Oid;

use super::GraphManager;
use crate::acl::{Granted, ScopeRight};
use crate::object::Object;
use crate::schema::{Kind, TypeSchema, Visibility};
use crate::store::{AppTable, ParentRow, StoreError, StoredValue};

/// The scope of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Nobody's list decides: public, or never leaving.
    None,
    /// The object itself, read by these.
    This(Vec<Oid>),
    /// Another Parent.
    Other(i64),
}

/// An object's rows-to-be.
#[derive(Debug)]
pub(super) struct Place<'o> {
    pub(super) attrs: Vec<(u16, u16, StoredValue<'o>)>,
    pub(super) scope: Scope,
    pub(super) right: ScopeRight,
}

/// Why an object has no place yet, or none at all.
#[derive(Debug)]
pub(super) enum NoPlace {
    /// A referenced Parent is not here.
    Missing(Oid),
    /// A reference leads to a Parent of another type or a deleted one.
    WrongReference,
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for NoPlace {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl GraphManager<'_> {
    /// Resolves references and finds the scope of an object whose Attrs fit its schema.
    pub(super) fn place<'o>(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &'o Object,
    ) -> Result<Place<'o>, NoPlace> {
        let mut attrs = Vec::with_capacity(4);
        let mut scope = Scope::None;
        let mut right = ScopeRight::Open;
        for (number, values) in object.attrs.iter().flatten() {
            let kind = schema.attr(*number).map(|attr| &attr.kind);
            for (ordinal, value) in (0..).zip(values) {
                let stored = match (kind, value.as_oid()) {
                    (Some(Kind::Parent { type_number }), Some(oid)) => {
                        let parent = self.referenced(app, &oid)?.ok_or(NoPlace::Missing(oid))?;
                        if parent.type_number != *type_number || parent.deleted {
                            return Err(NoPlace::WrongReference);
                        }
                        if schema.visibility == (Visibility::Participants { through: *number }) {
                            let scope_id = parent.scope_id.ok_or(NoPlace::WrongReference)?;
                            scope = Scope::Other(scope_id);
                            right =
                                membership(self.readers(app, scope_id)?.contains(&object.owner));
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
        Ok(Place {
            attrs,
            scope,
            right,
        })
    }

    /// Whether anybody who lives here may read what has this scope.
    pub(super) fn read_here(&self, app: &AppTable, scope: &Scope) -> Result<bool, StoreError> {
        let readers = match scope {
            Scope::None => return Ok(true),
            Scope::This(readers) => readers,
            Scope::Other(scope_id) => &*self.readers(app, *scope_id)?,
        };
        for reader in readers {
            if self
                .identity(reader)?
                .is_some_and(|identity| identity.home == self.us)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a Parent, new or over `existing`, with its Attrs and readers. `row` comes without id and scope.
    pub(super) fn write(
        &mut self,
        app: &AppTable,
        mut row: ParentRow,
        place: &Place<'_>,
        existing: Option<&ParentRow>,
        granted: &Granted,
    ) -> Result<ParentRow, StoreError> {
        if let Some(existing) = existing {
            (row.id, row.scope_id) = (existing.id, existing.scope_id);
            self.parents(app)?
                .update_parent(&row, &place.attrs, granted)?;
            self.memory.borrow_mut().forget_parent(app.id, &row);
            return Ok(row);
        }
        row.id = self.env.counters.next_id(app);
        row.scope_id = match &place.scope {
            Scope::None => None,
            Scope::This(_) => Some(row.id),
            Scope::Other(scope_id) => Some(*scope_id),
        };
        self.parents(app)?
            .insert_parent(&row, &place.attrs, granted)?;
        if let Scope::This(readers) = &place.scope {
            for reader in readers {
                self.tx.put_reader(app.id, row.id, reader)?;
            }
            self.memory.borrow_mut().forget_parent(app.id, &row);
        }
        Ok(row)
    }

    /// Whether an update would move an existing object to other readers, which no update may.
    pub(super) fn moves_scope(
        &self,
        app: &AppTable,
        existing: &ParentRow,
        scope: &Scope,
    ) -> Result<bool, StoreError> {
        Ok(match (scope, existing.scope_id) {
            (Scope::None, None) => false,
            (Scope::Other(new), Some(old)) => *new != old,
            (Scope::This(readers), Some(old)) if old == existing.id => {
                let mut readers = readers.clone();
                readers.sort();
                readers.dedup();
                *readers != *self.readers(app, old)?
            }
            _ => true,
        })
    }
}

fn membership(is_member: bool) -> ScopeRight {
    if is_member {
        ScopeRight::Participant
    } else {
        ScopeRight::Outsider
    }
}

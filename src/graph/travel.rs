//! The type in whose domains an object travels. Invariant: objects of core types travel with the
//! Parent of their scope.

use super::manager::GraphManager;
use crate::object::{Object, Place, is_core_type};
use crate::store::{AppTable, ParentRow, Rows, ScopeId, StoreError};

/// The type whose domains an object travels in: of a core type, that of the scope's Parent.
pub fn travel_type(rows: &Rows<'_>, app: &AppTable, object: &ParentRow) -> Result<u16, StoreError> {
    if !is_core_type(object.type_number) {
        return Ok(object.type_number);
    }
    let parent = parent_of(rows, app, object.scope_id)?;
    Ok(parent.map_or(object.type_number, |parent| parent.type_number))
}

/// The Parent that is a scope. `None`: the scope is local or public.
fn parent_of(
    rows: &Rows<'_>,
    app: &AppTable,
    scope: ScopeId,
) -> Result<Option<ParentRow>, StoreError> {
    match rows.scope(scope)? {
        Some(scope) => rows.parent_by_id(app, scope.parent_id),
        None => Ok(None),
    }
}

impl GraphManager<'_> {
    /// [`travel_type`] of an object that is not stored yet.
    pub fn travel_type(&self, app: &AppTable, object: &Object) -> Result<u16, StoreError> {
        match object.place() {
            Place::In(scope) if is_core_type(object.type_number) => {
                let parent = self.referenced(app, &scope)?;
                Ok(parent.map_or(object.type_number, |parent| parent.type_number))
            }
            _ => Ok(object.type_number),
        }
    }
}

//! From rows to an object: exactly the bytes that its owner signed. Reads only.

use keys::SignedObject;

use crate::object::{Attrs, Object, OidProof, Place};
use crate::store::{AppTable, ParentRow, Rows, StoreError};

/// Loads a stored object and returns it with its owner's signature.
pub fn load_object(
    rows: &Rows<'_>,
    app: &AppTable,
    parent: &ParentRow,
) -> Result<(Object, SignedObject), StoreError> {
    let attrs = if parent.deleted {
        None
    } else {
        let mut attrs = Attrs::new();
        for (number, value) in rows.attrs(app, parent.id)? {
            attrs.entry(number).or_default().push(value);
        }
        Some(attrs)
    };
    let rights = parent.rights_id.map(|list| rows.rights_digest(list));
    let object = Object {
        app: app.slug.clone(),
        type_number: parent.type_number,
        oid: parent.oid,
        owner: parent.owner,
        rev: parent.rev,
        proof: proof_of(rows, parent)?,
        rights: rights.transpose()?,
        attrs,
    };
    let signed = SignedObject::from_parts(parent.key_id, object.to_bytes(), parent.signature);
    Ok((object, signed))
}

/// The part of a stored object that proves its oid.
pub(super) fn proof_of(rows: &Rows<'_>, parent: &ParentRow) -> Result<OidProof, StoreError> {
    let Some(salt) = parent.salt else {
        return Ok(OidProof::Genesis);
    };
    let place = match rows.scope(parent.scope_id)? {
        None => Place::Public,
        Some(scope) if scope.parent_id == parent.id => {
            Place::Founds(rows.founding_list(parent.scope_id)?.digest)
        }
        Some(scope) => Place::In(scope.oid),
    };
    Ok(OidProof::Bound { salt, place })
}

//! From rows to an object: exactly the bytes that its owner signed. Reads only.

use keys::SignedObject;

use crate::object::{Attrs, Object};
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
    let object = Object {
        app: app.slug.clone(),
        type_number: parent.type_number,
        oid: parent.oid,
        owner: parent.owner,
        rev: parent.rev,
        attrs,
    };
    let signed = SignedObject::from_parts(parent.key_id, object.to_bytes(), parent.signature);
    Ok((object, signed))
}

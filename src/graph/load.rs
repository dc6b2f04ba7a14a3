//! From rows to an object: exactly the bytes that its owner signed. Reads only.

use keys::{Digest, SignedObject};

use super::manager::GraphManager;
use crate::object::{Attrs, Object, OidProof, Place, Value};
use crate::store::{AppTable, ParentRow, Rows, StoreError};

/// Attribute in which the store keeps the digest of the list that a rights list replaces. The list
/// with that digest need not be stored. Attributes of objects have numbers from 1 on.
pub(super) const REPLACES: u16 = 0;

/// Loading so many values takes as long as a search.
const VALUES_PER_LOOK: usize = 8;
/// Loading so many bytes takes as long as a search.
const BYTES_PER_LOOK: usize = 4096;

/// Loads a stored object and returns it with its owner's signature.
pub fn load_object(
    rows: &Rows<'_>,
    app: &AppTable,
    parent: &ParentRow,
) -> Result<(Object, SignedObject), StoreError> {
    let mut attrs = if parent.deleted {
        None
    } else {
        let mut attrs = Attrs::new();
        for (number, value) in rows.attrs(app, parent.id)? {
            attrs.entry(number).or_default().push(value);
        }
        Some(attrs)
    };
    let rights = match attrs.as_mut().and_then(|attrs| attrs.remove(&REPLACES)) {
        Some(replaces) => Some(digest_of(&replaces)?),
        None => {
            let named = parent.rights_id.map(|list| rows.rights_digest(list));
            named.transpose()?
        }
    };
    let object = Object {
        app: app.slug.clone(),
        type_number: parent.type_number,
        oid: parent.oid,
        owner: parent.owner,
        rev: parent.rev,
        proof: proof_of(rows, parent)?,
        rights,
        attrs,
    };
    let signed = SignedObject::from_parts(parent.key_id, object.to_bytes(), parent.signature);
    Ok((object, signed))
}

impl GraphManager<'_> {
    /// [`load_object`] within a write, which counts what was loaded ([`GraphManager::spent`]).
    pub(super) fn load(
        &self,
        app: &AppTable,
        parent: &ParentRow,
    ) -> Result<(Object, SignedObject), StoreError> {
        let (object, signed) = load_object(self.tx, app, parent)?;
        let values: usize = object
            .attrs
            .iter()
            .flat_map(Attrs::values)
            .map(Vec::len)
            .sum();
        self.look_at(values / VALUES_PER_LOOK + signed.bytes().len() / BYTES_PER_LOOK);
        Ok((object, signed))
    }
}

fn digest_of(values: &[Value]) -> Result<Digest, StoreError> {
    let bytes = values.first().and_then(Value::as_bytes);
    bytes
        .and_then(Digest::from_slice)
        .ok_or(StoreError::Inconsistent(
            "the list that a rights list replaces",
        ))
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

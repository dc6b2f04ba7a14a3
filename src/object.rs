//! Objects: a Parent with all its Attrs, as plain values and as the bytes that travel.
//!
//! The bytes are canonical CBOR (docs/PROTOCOL.md 6.1). They are self-contained, and the owner
//! signs them. This module uses no database and no schema. Invariant: `from_bytes(b)` succeeds only
//! if `to_bytes` of the result returns `b`. So the store keeps rows only, and rebuilds the signed
//! bytes.

mod core_record;
mod merges;
mod oid;
mod rights;
mod value;

use std::collections::BTreeMap;

use keys::protocol::{OBJECT_ATTRS_MAX, OBJECT_BYTES_MAX};
use keys::{Digest, Limits, Malformed, Oid, codec};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf, Bytes};

pub use core_record::{CoreRecord, RightsFault, ScopeList, is_core_type};
pub use merges::Merges;
pub use oid::{OidParts, OidProof, Place, Salt};
pub use rights::{Rights, RightsList};
pub use value::{Attrs, Value};
use value::{AttrsRef, Values};

/// A Parent with all its Attrs: the unit of stamping, signing, selecting, waiting and rejecting
/// (docs/DECISIONS.md 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Slug of its app.
    pub app: String,
    /// Number of its type in the schema.
    pub type_number: u16,
    /// Its global id.
    pub oid: Oid,
    /// The identity that owns it. An identity owns itself.
    pub owner: Oid,
    /// Revision from 1, raised by the owner at each change. The higher one is in force.
    pub rev: u64,
    /// The part that proves the oid.
    pub proof: OidProof,
    /// Digest of the rights list that the author knew. `None`: the founding list, or no list.
    pub rights: Option<Digest>,
    /// Its values. `None` if it was deleted.
    pub attrs: Option<Attrs>,
}

/// Limits of one object, checked while decoding. The defaults are those of the protocol; tests set
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Longest object, in bytes of CBOR.
    pub bytes_max: usize,
    /// Most Attrs in one object.
    pub attrs_max: usize,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self {
            bytes_max: OBJECT_BYTES_MAX,
            attrs_max: OBJECT_ATTRS_MAX,
        }
    }
}

impl Object {
    /// The canonical bytes, which are signed and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (app, kind, oid, owner) = (&self.app, self.type_number, self.oid, self.owner);
        let (rev, attrs) = (self.rev, self.attrs.as_ref().map(AttrsRef));
        match &self.proof {
            OidProof::Genesis => codec::encode(&(app, kind, oid, owner, rev, attrs)),
            OidProof::Bound { salt, place } => {
                let place = place.as_bytes();
                let place = (!place.is_empty()).then(|| Bytes::new(place));
                let (salt, rights) = (Bytes::new(salt), self.rights);
                codec::encode(&(app, kind, oid, owner, rev, salt, place, rights, attrs))
            }
        }
    }

    /// Decodes canonical bytes. Does not check whether the oid is proved.
    ///
    /// # Errors
    /// The bytes are not canonical, are not an object, or exceed a limit.
    pub fn from_bytes(bytes: &[u8], limits: &ObjectLimits) -> Result<Self, Malformed> {
        let attrs_max = limits.attrs_max;
        let limits = Limits {
            bytes_max: limits.bytes_max,
            depth_max: 3,
            items_max: HEAD_ITEMS_MAX + 3 * attrs_max,
        };
        let object = if bytes.first() == Some(&BOUND_HEAD) {
            codec::decode::<BoundWire>(bytes, &limits)?.into_object()?
        } else {
            codec::decode::<GenesisWire>(bytes, &limits)?.into_object()
        };
        // The store marks rows without values by revision 0.
        if object.rev == 0 {
            return Err(Malformed::Unexpected("a revision of 0".into()));
        }
        if object.attrs_count() > attrs_max {
            return Err(Malformed::TooManyItems);
        }
        Ok(object)
    }

    /// Creates revision 1 of an object without values, and derives its oid. `unix_ms` is the time
    /// of creation in milliseconds since 1970.
    pub fn create(parts: &OidParts<'_>, unix_ms: u64, salt: Salt) -> Self {
        Self {
            app: parts.app.to_owned(),
            type_number: parts.type_number,
            oid: parts.oid(unix_ms, &salt),
            owner: *parts.owner,
            rev: 1,
            proof: OidProof::Bound {
                salt,
                place: *parts.place,
            },
            rights: None,
            attrs: None,
        }
    }

    /// Whether the oid covers owner, app, type, place and salt. `None`: the oid is a genesis's,
    /// which only a key chain proves.
    pub fn is_oid_proved(&self) -> Option<bool> {
        let OidProof::Bound { salt, place } = &self.proof else {
            return None;
        };
        let parts = OidParts {
            owner: &self.owner,
            app: &self.app,
            type_number: self.type_number,
            place,
        };
        Some(parts.is_proved(&self.oid, salt))
    }

    /// Where it is. An identity is public.
    pub fn place(&self) -> Place {
        match self.proof {
            OidProof::Genesis => Place::Public,
            OidProof::Bound { place, .. } => place,
        }
    }

    /// The scope in which the object lies. `None`: it is public, or a scope itself.
    pub fn scope(&self) -> Option<Oid> {
        match self.place() {
            Place::In(scope) => Some(scope),
            Place::Public | Place::Founds(_) => None,
        }
    }

    /// The number of its Attrs.
    pub fn attrs_count(&self) -> usize {
        self.attrs
            .iter()
            .flat_map(BTreeMap::values)
            .map(Vec::len)
            .sum()
    }

    /// Whether its owner deleted it.
    pub fn is_deleted(&self) -> bool {
        self.attrs.is_none()
    }

    /// The first value of an attribute, if there is one.
    pub fn first(&self, attr: u16) -> Option<&Value> {
        self.all(attr).first()
    }

    /// All values of an attribute, in order.
    pub fn all(&self, attr: u16) -> &[Value] {
        self.attrs
            .as_ref()
            .and_then(|attrs| attrs.get(&attr))
            .map_or(&[], Vec::as_slice)
    }
}

/// First byte of an object whose oid is bound: an array of 9 items.
const BOUND_HEAD: u8 = 0x89;
/// Most items of an object besides its Attrs: the array, its 9 elements, and spare ones.
const HEAD_ITEMS_MAX: usize = 12;

type AttrsWire = Option<BTreeMap<u16, Values>>;

#[derive(Serialize, Deserialize)]
struct GenesisWire(String, u16, Oid, Oid, u64, AttrsWire);

#[derive(Serialize, Deserialize)]
struct BoundWire(
    String,
    u16,
    Oid,
    Oid,
    u64,
    ByteArray<8>,
    Option<ByteBuf>,
    Option<Digest>,
    AttrsWire,
);

impl GenesisWire {
    fn into_object(self) -> Object {
        let Self(app, type_number, oid, owner, rev, attrs) = self;
        Object {
            app,
            type_number,
            oid,
            owner,
            rev,
            proof: OidProof::Genesis,
            rights: None,
            attrs: attrs.map(into_attrs),
        }
    }
}

impl BoundWire {
    fn into_object(self) -> Result<Object, Malformed> {
        let Self(app, type_number, oid, owner, rev, salt, place, rights, attrs) = self;
        let unexpected = || Malformed::Unexpected("a place of another length".into());
        let place = match place {
            None => Place::Public,
            // An empty place would be another form of null.
            Some(bytes) => Place::from_bytes(&bytes)
                .filter(|place| *place != Place::Public)
                .ok_or_else(unexpected)?,
        };
        Ok(Object {
            app,
            type_number,
            oid,
            owner,
            rev,
            proof: OidProof::Bound {
                salt: salt.into_array(),
                place,
            },
            rights,
            attrs: attrs.map(into_attrs),
        })
    }
}

fn into_attrs(attrs: BTreeMap<u16, Values>) -> Attrs {
    attrs
        .into_iter()
        .map(|(number, Values(values))| (number, values))
        .collect()
}

#[cfg(test)]
mod tests;

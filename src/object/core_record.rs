//! The content of core types: rights lists, `leave` and `accept`, which exist in every app
//! (docs/DECISIONS.md 4 and 10).
//!
//! All are objects in a scope, are written once, and are never changed or deleted. Invariant: a
//! [`CoreRecord`] is well-formed; whether its author may write it is decided elsewhere.

use keys::protocol::{ACCEPT_TYPE, CORE_TYPES_FROM, LEAVE_TYPE, RIGHTS_ENTRIES_MAX, RIGHTS_TYPE};
use keys::{Digest, Oid};

use super::merges::Merges;
use super::rights::{Rights, RightsList};
use super::value::{Attrs, Value};
use super::{Object, Place};

/// Attribute of a rights list: its version.
const VERSION: u16 = 1;
/// Attribute of a rights list: its entries in canonical CBOR.
const ENTRIES: u16 = 2;
/// Attribute of a rights list that merges others: their digests in canonical CBOR.
const MERGES: u16 = 3;

/// Why a rights list is not valid, or why an object may not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RightsFault(pub &'static str);

/// The content of an object of a core type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreRecord {
    /// A rights list.
    Rights(ScopeList),
    /// The owner of the object ends its own right to read the scope.
    Leave,
    /// The owner of the object takes part in the scope.
    Accept,
}

/// A rights list of a scope, other than its founding list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeList {
    /// The scope.
    pub scope: Oid,
    /// From 1 to 2^63 - 1. Under one key the list with the highest one is in force.
    pub version: u64,
    /// The entries.
    pub list: RightsList,
    /// The lists that it merges besides the one that it replaces. Its digest does not cover them.
    pub merges: Merges,
}

/// Whether objects of this type are of a core type.
pub fn is_core_type(type_number: u16) -> bool {
    type_number >= CORE_TYPES_FROM
}

impl CoreRecord {
    /// Reads the content of an object. `None` for a tombstone, and for other types.
    pub fn read(object: &Object) -> Option<Result<Self, RightsFault>> {
        let attrs = object.attrs.as_ref()?;
        match object.type_number {
            RIGHTS_TYPE => Some(ScopeList::read(object, attrs).map(Self::Rights)),
            LEAVE_TYPE | ACCEPT_TYPE if !attrs.is_empty() => {
                Some(Err(RightsFault("a `leave` or `accept` has no values")))
            }
            LEAVE_TYPE => Some(scope_of(object).map(|_| Self::Leave)),
            ACCEPT_TYPE => Some(scope_of(object).map(|_| Self::Accept)),
            _ => None,
        }
    }

    /// The number of entries of a rights list; 0 for a `leave` or `accept`.
    pub fn entries(&self) -> usize {
        match self {
            Self::Rights(it) => it.list.entries(),
            Self::Leave | Self::Accept => 0,
        }
    }
}

impl ScopeList {
    /// The digest that names the list.
    pub fn digest(&self) -> Digest {
        self.list.digest_in(&self.scope, self.version)
    }

    /// The values of the object that holds the list.
    pub fn attrs(&self) -> Attrs {
        let version = i64::try_from(self.version).unwrap_or(i64::MAX);
        let mut attrs = Attrs::from([
            (VERSION, vec![Value::from(version)]),
            (ENTRIES, vec![Value::Bytes(self.list.to_bytes())]),
        ]);
        if !self.merges.is_empty() {
            attrs.insert(MERGES, vec![Value::Bytes(self.merges.to_bytes())]);
        }
        attrs
    }

    fn read(object: &Object, attrs: &Attrs) -> Result<Self, RightsFault> {
        let values = |number| attrs.get(&number).map(Vec::as_slice);
        let merges = values(MERGES);
        let (Some([version]), Some([entries]), None | Some([_])) =
            (values(VERSION), values(ENTRIES), merges)
        else {
            return Err(RightsFault(
                "a rights list has one version and one list of entries",
            ));
        };
        if attrs.len() != 2 + usize::from(merges.is_some()) {
            return Err(RightsFault("a rights list has three attributes at most"));
        }
        let merges = match merges.and_then(<[_]>::first) {
            Some(merges) => merges.as_bytes().and_then(Merges::from_bytes),
            None => Some(Merges::default()),
        };
        let merges = merges.ok_or(RightsFault("the merged lists are not canonical"))?;
        if merges.iter().any(|it| Some(it) == object.rights.as_ref()) {
            return Err(RightsFault(
                "a rights list merges the list that it replaces",
            ));
        }
        let version = version.as_integer().and_then(|it| u64::try_from(it).ok());
        let version = version.filter(|it| *it > 0);
        let list = entries.as_bytes().and_then(RightsList::from_bytes);
        let this = Self {
            scope: scope_of(object)?,
            version: version.ok_or(RightsFault("a version is at least 1 and below 2^63"))?,
            list: list.ok_or(RightsFault("the entries are not canonical"))?,
            merges,
        };
        this.check(&object.owner)?;
        Ok(this)
    }

    /// Checks what the encoding alone does not show. `owner` is the owner of the object.
    pub fn check(&self, owner: &Oid) -> Result<(), RightsFault> {
        if self.list.entries() > RIGHTS_ENTRIES_MAX {
            return Err(RightsFault("a rights list has at most 256 entries"));
        }
        if self.list.of(owner) != Some(Rights::READ_WRITE) {
            return Err(RightsFault("the owner of a scope keeps both rights"));
        }
        Ok(())
    }
}

fn scope_of(object: &Object) -> Result<Oid, RightsFault> {
    match object.place() {
        Place::In(scope) => Ok(scope),
        Place::Public | Place::Founds(_) => Err(RightsFault("the object is in no scope")),
    }
}

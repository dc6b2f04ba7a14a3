//! Oids that bind their owners: what the oid of an object covers (docs/DECISIONS.md 2).
//!
//! An oid is 6 bytes of time followed by 10 bytes of a digest over owner, app, type, place, time
//! and salt. So no object can take the oid of another owner's object, and a tombstone proves its
//! type and scope. An identity's oid is the digest of its genesis instead.

use keys::signing::signing_input;
use keys::{Context, Digest, Oid};

/// Bytes of time at the beginning of an oid: milliseconds since 1970, big-endian.
const TIME_LEN: usize = 6;

/// Random bytes, so that two objects of one owner and time have different oids.
pub type Salt = [u8; 8];

/// The part of an object that proves its oid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OidProof {
    /// The oid is the digest of a genesis: the object is an identity or a server, and its key chain
    /// proves the oid.
    Genesis,
    /// The oid covers these values.
    Bound {
        /// Random bytes.
        salt: Salt,
        /// Where the object is.
        place: Place,
    },
}

/// Where an object is: its scope, in the form that is the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Public, or of a local type, which never travels.
    Public,
    /// In the scope that has this oid: another Parent.
    In(Oid),
    /// The object is itself a scope. Digest of its founding rights list.
    Founds(Digest),
}

impl Place {
    /// The bytes that travel and that the oid covers; empty for a public object.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Public => &[],
            Self::In(scope) => scope.as_bytes(),
            Self::Founds(list) => list.as_bytes(),
        }
    }

    /// The place with these bytes. `None` for any other length than 0, 16 or 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::Public);
        }
        let within = Oid::from_slice(bytes).map(Self::In);
        within.or_else(|| Digest::from_slice(bytes).map(Self::Founds))
    }
}

/// The values besides time and salt that an oid covers.
#[derive(Debug, Clone, Copy)]
pub struct OidParts<'p> {
    /// The owner.
    pub owner: &'p Oid,
    /// Slug of the app.
    pub app: &'p str,
    /// Number of the type in the app's schema.
    pub type_number: u16,
    /// Where the object is.
    pub place: &'p Place,
}

impl OidParts<'_> {
    /// The oid of an object that is made at `unix_ms`, milliseconds since 1970.
    pub fn oid(&self, unix_ms: u64, salt: &Salt) -> Oid {
        let [_, _, time @ ..] = unix_ms.to_be_bytes();
        self.derive(time, salt)
    }

    /// Whether an oid covers these values and `salt`.
    pub fn is_proved(&self, oid: &Oid, salt: &Salt) -> bool {
        let time = oid.as_bytes().first_chunk();
        time.is_some_and(|time| self.derive(*time, salt) == *oid)
    }

    fn derive(&self, time: [u8; TIME_LEN], salt: &Salt) -> Oid {
        let input = signing_input(
            Context::Oid,
            &[
                self.owner.as_bytes(),
                self.app.as_bytes(),
                &self.type_number.to_be_bytes(),
                self.place.as_bytes(),
                &time,
                salt,
            ],
        );
        let mut bytes = [0; 16];
        let covered = time.into_iter().chain(*Digest::of(&input).as_bytes());
        for (byte, value) in bytes.iter_mut().zip(covered) {
            *byte = value;
        }
        Oid::from_bytes(bytes)
    }
}

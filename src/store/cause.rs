//! The events for which objects wait, and their two columns (docs/PROTOCOL.md 6.4).

use keys::{Digest, Oid, PeerId};
use rusqlite::Row;
use rusqlite::types::Type;

use crate::op_context::AppId;

/// The event for which an object waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The object of this app that is its scope is stored.
    Arrived(AppId, Oid),
    /// The key of this number of the identity is known, or a later one.
    KeyKnown(Oid, u32),
    /// The identity is no longer frozen.
    Unfrozen(Oid),
    /// The home of the identity is this peer.
    Home(Oid, PeerId),
    /// The rights list with this digest is stored, under a key that counts.
    Rights(Digest),
    /// This version of the app's schema is loaded, or a later one.
    Schema(AppId, u32),
}

impl Cause {
    /// Value of `needs_kind` for [`Cause::KeyKnown`].
    pub(super) const KEY_KNOWN: u8 = 2;
    /// Value of `needs_kind` for [`Cause::Schema`].
    pub(super) const SCHEMA: u8 = 6;

    /// Whether no key could verify the object yet.
    pub fn is_unverified(&self) -> bool {
        matches!(self, Self::KeyKnown(..))
    }

    /// The values of the columns `needs_kind` and `needs`.
    pub(super) fn columns(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Arrived(app, oid) => (1, [oid.as_bytes(), &app.0.to_be_bytes()[..]].concat()),
            Self::KeyKnown(identity, key_id) => (
                Self::KEY_KNOWN,
                [identity.as_bytes(), &key_id.to_be_bytes()[..]].concat(),
            ),
            Self::Unfrozen(identity) => (3, identity.as_bytes().to_vec()),
            Self::Home(identity, home) => (4, [&identity.as_bytes()[..], home.as_bytes()].concat()),
            Self::Rights(list) => (5, list.as_bytes().to_vec()),
            Self::Schema(app, version) => (
                Self::SCHEMA,
                [&app.0.to_be_bytes()[..], &version.to_be_bytes()].concat(),
            ),
        }
    }

    /// The cause of the columns' values.
    pub(super) fn from_columns(kind: u8, needs: &[u8]) -> Option<Self> {
        if kind == 5 {
            return Digest::from_slice(needs).map(Self::Rights);
        }
        if kind == Self::SCHEMA {
            let (app, version) = needs.split_first_chunk()?;
            let version = u32::from_be_bytes(version.try_into().ok()?);
            return Some(Self::Schema(AppId(i64::from_be_bytes(*app)), version));
        }
        let (identity, rest) = needs.split_first_chunk::<16>()?;
        let oid = Oid::from_bytes(*identity);
        match kind {
            1 => Some(Self::Arrived(
                AppId(i64::from_be_bytes(rest.try_into().ok()?)),
                oid,
            )),
            Self::KEY_KNOWN => Some(Self::KeyKnown(
                oid,
                u32::from_be_bytes(rest.try_into().ok()?),
            )),
            3 if rest.is_empty() => Some(Self::Unfrozen(oid)),
            4 => Some(Self::Home(oid, PeerId::from_bytes(rest.try_into().ok()?))),
            _ => None,
        }
    }
}

/// Reads a cause from two columns, starting at `column`.
pub(super) fn cause(row: &Row<'_>, column: usize) -> rusqlite::Result<Cause> {
    let needs: Vec<u8> = row.get(column + 1)?;
    Cause::from_columns(row.get(column)?, &needs).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(column + 1, Type::Blob, "unknown cause".into())
    })
}

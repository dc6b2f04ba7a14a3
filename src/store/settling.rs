//! Table `settling`: work that is done in portions, between other writes (docs/DECISIONS.md 7).
//!
//! Invariant: work that a transaction causes is noted in that transaction, so that no crash loses
//! it.

use keys::{Oid, PeerId};
use rusqlite::Row;
use rusqlite::types::Type;

use super::cause::Cause;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::AppId;

/// Work that is done in portions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlingWork {
    /// Tries the waiting objects of a cause that has occurred. The position is their local number.
    Retry(Cause),
    /// Restamps all objects in a scope that opened. The position is their `change_seq`.
    Restamp(AppId, ScopeId),
    /// Restamps objects in a scope whose Parent was re-signed, but no rights list. The position is
    /// their `change_seq`.
    Follow(AppId, ScopeId),
    /// Opens the scopes that a recovery closed because of a peer. The position is in `asked_peer`.
    Open(PeerId),
    /// Completes the key rotation of an identity of this node. The position is in the objects.
    Rotate(Oid),
    /// Sets the bit of a new domain in the stored rows of its app. The position is their
    /// `change_seq`.
    Flag(AppId, u8),
    /// Turns the objects of an identity that moved to another node into received ones, and lets its
    /// scopes follow. The position is the id of the scope.
    Depart(Oid),
    /// Lets an identity that moved here be asked about the scopes of others that it reads. The
    /// position is the id of the scope.
    Arrive(Oid),
}

impl SettlingWork {
    /// Value of `needs_kind` for [`SettlingWork::Restamp`]. Lower ones are causes.
    const RESTAMP: u8 = 64;
    const FOLLOW: u8 = 65;
    const OPEN: u8 = 66;
    const ROTATE: u8 = 67;
    /// Value of `needs_kind` for [`SettlingWork::Flag`].
    pub(super) const FLAG: u8 = 68;
    const DEPART: u8 = 69;
    const ARRIVE: u8 = 70;

    pub(super) fn columns(&self) -> (u8, Vec<u8>) {
        let in_scope =
            |app: AppId, scope: ScopeId| [app.0.to_be_bytes(), scope.0.to_be_bytes()].concat();
        match self {
            Self::Retry(cause) => cause.columns(),
            Self::Restamp(app, scope) => (Self::RESTAMP, in_scope(*app, *scope)),
            Self::Follow(app, scope) => (Self::FOLLOW, in_scope(*app, *scope)),
            Self::Open(peer) => (Self::OPEN, peer.as_bytes().to_vec()),
            Self::Rotate(identity) => (Self::ROTATE, identity.as_bytes().to_vec()),
            Self::Depart(identity) => (Self::DEPART, identity.as_bytes().to_vec()),
            Self::Arrive(identity) => (Self::ARRIVE, identity.as_bytes().to_vec()),
            Self::Flag(app, bit) => (Self::FLAG, [&app.0.to_be_bytes()[..], &[*bit]].concat()),
        }
    }

    fn from_columns(kind: u8, needs: &[u8]) -> Option<Self> {
        match kind {
            Self::RESTAMP | Self::FOLLOW => {
                let (app, scope) = needs.split_first_chunk()?;
                let scope = ScopeId(i64::from_be_bytes(scope.try_into().ok()?));
                let app = AppId(i64::from_be_bytes(*app));
                Some(match kind {
                    Self::RESTAMP => Self::Restamp(app, scope),
                    _ => Self::Follow(app, scope),
                })
            }
            Self::OPEN => PeerId::from_slice(needs).map(Self::Open),
            Self::ROTATE => Oid::from_slice(needs).map(Self::Rotate),
            Self::DEPART => Oid::from_slice(needs).map(Self::Depart),
            Self::ARRIVE => Oid::from_slice(needs).map(Self::Arrive),
            Self::FLAG => {
                let (app, [bit]) = needs.split_first_chunk()? else {
                    return None;
                };
                Some(Self::Flag(AppId(i64::from_be_bytes(*app)), *bit))
            }
            _ => Cause::from_columns(kind, needs).map(Self::Retry),
        }
    }
}

/// Which work comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlingTurn {
    /// The node starts: without work that can take minutes, which are objects that waited for a
    /// schema and bits of new domains.
    Start,
    /// Any work, bits of new domains last.
    Others,
    /// Any work, bits of new domains first.
    Flags,
}

/// Work with its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettlingRow {
    /// The work.
    pub work: SettlingWork,
    /// The last position that is done.
    pub after: i64,
    /// The last position that is to be done.
    pub until: i64,
}

fn settling_row(row: &Row<'_>) -> rusqlite::Result<SettlingRow> {
    let needs: Vec<u8> = row.get(1)?;
    let work = SettlingWork::from_columns(row.get(0)?, &needs);
    let unknown =
        || rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, "unknown work".into());
    Ok(SettlingRow {
        work: work.ok_or_else(unknown)?,
        after: row.get(2)?,
        until: row.get(3)?,
    })
}

impl Rows<'_> {
    /// Whether objects in a scope have yet to get other numbers.
    pub fn is_restamp_pending(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for objects to be restamped",
            "SELECT 1 FROM settling WHERE needs_kind = ?1 OR needs_kind = ?2",
        )?;
        statement.exists((SettlingWork::RESTAMP, SettlingWork::FOLLOW))
    }

    /// The work whose turn it is. Bits of new domains take minutes, so that they come last unless
    /// it is their turn.
    pub fn next_settling(&self, turn: SettlingTurn) -> Result<Option<SettlingRow>, StoreError> {
        let others = |skipped: u8| {
            self.first_settling(
                "SELECT needs_kind, needs, after_id, until_id FROM settling
                 WHERE needs_kind NOT IN (?1, ?2) ORDER BY id LIMIT 1",
                (SettlingWork::FLAG, skipped),
            )
        };
        let flags = || {
            self.first_settling(
                "SELECT needs_kind, needs, after_id, until_id FROM settling
                 WHERE needs_kind = ?1 ORDER BY id LIMIT 1",
                [SettlingWork::FLAG],
            )
        };
        match turn {
            SettlingTurn::Start => others(Cause::SCHEMA),
            SettlingTurn::Others => match others(SettlingWork::FLAG)? {
                None => flags(),
                found => Ok(found),
            },
            SettlingTurn::Flags => match flags()? {
                None => others(SettlingWork::FLAG),
                found => Ok(found),
            },
        }
    }

    fn first_settling(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Option<SettlingRow>, StoreError> {
        let mut statement = self.prepare("reading the next portion of work", sql)?;
        statement.first(parameters, settling_row)
    }
}

impl WriteTx<'_> {
    /// Notes that a cause has occurred: the objects that wait for it now are to be tried again. A
    /// known key or a loaded version of a schema also satisfies objects that wait for an earlier
    /// one.
    pub fn fulfil(&self, cause: &Cause) -> Result<(), StoreError> {
        let (kind, needs) = cause.columns();
        let lowest = match cause {
            Cause::KeyKnown(identity, _) => Cause::KeyKnown(*identity, 0).columns().1,
            Cause::Schema(app, _) => Cause::Schema(*app, 0).columns().1,
            _ => needs.clone(),
        };
        let mut statement = self.prepare(
            "noting a cause",
            "INSERT INTO settling (needs_kind, needs, after_id, until_id)
             SELECT DISTINCT needs_kind, needs, 0, (SELECT MAX(id) FROM waiting)
             FROM waiting WHERE needs_kind = ?1 AND needs BETWEEN ?2 AND ?3
             ON CONFLICT DO UPDATE SET after_id = 0, until_id = excluded.until_id",
        )?;
        statement.execute((kind, lowest, needs))?;
        Ok(())
    }

    /// Notes work that keeps its position elsewhere.
    pub fn note_work(&self, work: &SettlingWork) -> Result<(), StoreError> {
        let (kind, needs) = work.columns();
        let mut statement = self.prepare(
            "noting work",
            "INSERT INTO settling (needs_kind, needs, after_id, until_id)
             VALUES (?1, ?2, 0, 0) ON CONFLICT DO NOTHING",
        )?;
        statement.execute((kind, needs)).map(drop)
    }

    /// Notes work on the objects up to a `change_seq`.
    pub fn note_span(&self, work: &SettlingWork, until_seq: u64) -> Result<(), StoreError> {
        let (kind, needs) = work.columns();
        let mut statement = self.prepare(
            "noting a scope to be restamped",
            "INSERT INTO settling (needs_kind, needs, after_id, until_id) VALUES (?1, ?2, 0, ?3)
             ON CONFLICT DO UPDATE SET after_id = 0, until_id = excluded.until_id",
        )?;
        statement.execute((kind, needs, until_seq))?;
        Ok(())
    }

    /// Deletes the work in a scope, because the scope is removed.
    pub(super) fn drop_settling_in(&self, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting work in a removed scope",
            "DELETE FROM settling WHERE needs_kind = ?1 AND needs = ?2",
        )?;
        for app in self.apps.iter() {
            for work in [
                SettlingWork::Restamp(app.id, scope),
                SettlingWork::Follow(app.id, scope),
            ] {
                statement.execute(work.columns())?;
            }
        }
        Ok(())
    }

    /// Notes the position of work; `None`: it is done.
    pub fn put_settled(&self, work: &SettlingWork, after: Option<i64>) -> Result<(), StoreError> {
        let (kind, needs) = work.columns();
        let sql = match after {
            Some(_) => "UPDATE settling SET after_id = ?3 WHERE needs_kind = ?1 AND needs = ?2",
            None => "DELETE FROM settling WHERE needs_kind = ?1 AND needs = ?2 AND ?3 IS NULL",
        };
        let mut statement = self.prepare("noting the position of work", sql)?;
        statement.execute((kind, needs, after))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use keys::Digest;

    use super::*;

    #[test]
    fn columns_return_each_kind_of_work() {
        let (app, oid) = (AppId(7), Oid::from_bytes([3; 16]));
        let causes = [
            Cause::Arrived(app, oid),
            Cause::KeyKnown(oid, 4),
            Cause::Unfrozen(oid),
            Cause::Home(oid, PeerId::from_bytes([5; 32])),
            Cause::Rights(Digest::from_bytes([6; 32])),
            Cause::Schema(app, 7),
        ];
        let others = [
            SettlingWork::Restamp(app, ScopeId(9)),
            SettlingWork::Follow(app, ScopeId(9)),
            SettlingWork::Open(PeerId::from_bytes([8; 32])),
            SettlingWork::Rotate(oid),
            SettlingWork::Flag(app, 3),
            SettlingWork::Depart(oid),
            SettlingWork::Arrive(oid),
        ];
        for work in causes.map(SettlingWork::Retry).into_iter().chain(others) {
            let (kind, needs) = work.columns();
            assert_eq!(SettlingWork::from_columns(kind, &needs), Some(work));
            assert_eq!(SettlingWork::from_columns(kind, &needs[1..]), None);
        }
    }
}

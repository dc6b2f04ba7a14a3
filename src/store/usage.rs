//! Usage: the objects and bytes that each peer and each tier have stored on this node.
//!
//! Counts objects that are written and objects that wait, as the bytes that were sent, without
//! indexes and page overhead. Relayed objects have accounts of their own ([`Account`]). Invariant:
//! all sums change in the transaction that writes the objects, and never fall below zero.

use std::ops::{AddAssign, Neg};

use bastion::Tier;
use keys::{Oid, PeerId};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use super::columns::tier;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};

/// A stored amount, or a change of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Number of objects.
    pub objects: i64,
    /// Sum of their signed bytes.
    pub bytes: i64,
}

impl Usage {
    /// More than any account holds.
    pub const MAX: Self = Self {
        objects: i64::MAX,
        bytes: i64::MAX,
    };

    /// The usage of one object of `bytes` bytes.
    pub fn one(bytes: usize) -> Self {
        Self {
            objects: 1,
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }

    /// A bound of both numbers.
    pub fn bound(objects: u64, bytes: u64) -> Self {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            objects: number(objects),
            bytes: number(bytes),
        }
    }

    /// Both numbers, a number of times.
    #[must_use]
    pub fn times(self, times: i64) -> Self {
        Self {
            objects: self.objects.saturating_mul(times),
            bytes: self.bytes.saturating_mul(times),
        }
    }

    /// This part of both numbers.
    #[must_use]
    pub fn part(self, part: i64) -> Self {
        Self {
            objects: self.objects / part,
            bytes: self.bytes / part,
        }
    }

    /// This usage without another one.
    #[must_use]
    pub fn less(mut self, used: &Self) -> Self {
        self += -*used;
        self
    }

    /// The lower one of each number.
    #[must_use]
    pub fn min(self, other: &Self) -> Self {
        Self {
            objects: self.objects.min(other.objects),
            bytes: self.bytes.min(other.bytes),
        }
    }

    /// Whether both numbers are 0.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Neg for Usage {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            objects: self.objects.saturating_neg(),
            bytes: self.bytes.saturating_neg(),
        }
    }
}

/// The account of a peer in which an object that it sent counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The peer's own: the owner lives at the peer, or the object lies in no scope.
    Own,
    /// Relayed objects of this author, in scopes that an identity of this node reads.
    Author(Oid),
    /// Relayed objects in all other scopes.
    Shared,
    /// None: this node made the object, and its owner moved to another node.
    Unmetered,
}

impl Account {
    /// The value of a column beside the owner of the object.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Own => 0,
            Self::Author(_) => 1,
            Self::Shared => 2,
            Self::Unmetered => 3,
        }
    }

    /// The account of a column beside the owner of the object.
    pub(super) fn of_number(number: u8, owner: Oid) -> Self {
        match number {
            0 => Self::Own,
            1 => Self::Author(owner),
            2 => Self::Shared,
            _ => Self::Unmetered,
        }
    }
}

/// A column that names an account: `NULL`, the author's oid, or an empty value.
impl ToSql for Account {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Own | Self::Unmetered => ValueRef::Null,
            Self::Author(author) => ValueRef::Blob(author.as_bytes()),
            Self::Shared => ValueRef::Blob(&[]),
        }))
    }
}

impl FromSql for Account {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Null => Ok(Self::Own),
            ValueRef::Blob([]) => Ok(Self::Shared),
            ValueRef::Blob(author) => Oid::from_slice(author)
                .map(Self::Author)
                .ok_or(FromSqlError::InvalidType),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// The usage of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The tier in which it counts. A forgotten peer counts as untrusted.
    pub tier: Tier,
    /// Objects and bytes of the peer's own account.
    pub usage: Usage,
    /// Objects and bytes of all its accounts of relayed objects.
    pub relayed: Usage,
}

impl Stored {
    /// The part of its tier that the peer uses.
    pub(super) fn all(&self) -> Usage {
        let mut all = self.usage;
        all += self.relayed;
        all
    }
}

/// Reads objects and bytes from two columns, starting at `column`.
fn usage(row: &Row<'_>, column: usize) -> rusqlite::Result<Usage> {
    Ok(Usage {
        objects: row.get(column)?,
        bytes: row.get(column + 1)?,
    })
}

impl Rows<'_> {
    /// The usage of a peer. `None` if it was never admitted.
    pub fn stored_by(&self, peer: &PeerId) -> Result<Option<Stored>, StoreError> {
        let mut statement = self.prepare(
            "reading the usage of a peer",
            "SELECT tier, stored_objects, stored_bytes, relayed_objects, relayed_bytes
             FROM peers WHERE peer_id = ?1",
        )?;
        statement.first([peer.as_bytes()], |row| {
            Ok(Stored {
                tier: tier(row, 0)?,
                usage: usage(row, 1)?,
                relayed: usage(row, 3)?,
            })
        })
    }

    /// The usage of one of a peer's accounts of relayed objects.
    pub fn relayed_by(&self, peer: &PeerId, account: Account) -> Result<Usage, StoreError> {
        let mut statement = self.prepare(
            "reading the usage of relayed objects",
            "SELECT objects, bytes FROM relayed_usage
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND account = ?2",
        )?;
        let usage = statement.first((peer.as_bytes(), account), |row| usage(row, 0))?;
        Ok(usage.unwrap_or_default())
    }

    /// The usage of all peers of a tier together.
    pub fn tier_usage(&self, tier: Tier) -> Result<Usage, StoreError> {
        let mut statement = self.prepare(
            "reading the usage of a tier",
            "SELECT objects, bytes FROM tier_usage WHERE tier = ?1",
        )?;
        let usage = statement.first([tier.as_str()], |row| usage(row, 0))?;
        Ok(usage.unwrap_or_default())
    }
}

impl WriteTx<'_> {
    /// Adds a change to the usage of an account of a peer, and of the peer's tier.
    pub fn add_usage(
        &self,
        peer: &PeerId,
        account: Account,
        change: &Usage,
    ) -> Result<(), StoreError> {
        if change.is_zero() || account == Account::Unmetered {
            return Ok(());
        }
        let Some(stored) = self.stored_by(peer)? else {
            return Ok(());
        };
        let (sql, before) = match account {
            Account::Own | Account::Unmetered => (
                "UPDATE peers SET stored_objects = MAX(0, stored_objects + ?2),
                   stored_bytes = MAX(0, stored_bytes + ?3)
                 WHERE peer_id = ?1",
                stored.usage,
            ),
            Account::Author(_) | Account::Shared => (
                "UPDATE peers SET relayed_objects = MAX(0, relayed_objects + ?2),
                   relayed_bytes = MAX(0, relayed_bytes + ?3)
                 WHERE peer_id = ?1",
                stored.relayed,
            ),
        };
        let mut statement = self.prepare("writing the usage of a peer", sql)?;
        statement.execute((peer.as_bytes(), change.objects, change.bytes))?;
        if account != Account::Own {
            self.add_relayed(peer, account, change)?;
        }
        // Objects from before usage was counted were never added, so they must not be subtracted.
        let floor = -before;
        let counted = Usage {
            objects: change.objects.max(floor.objects),
            bytes: change.bytes.max(floor.bytes),
        };
        self.add_to_tier(stored.tier, &counted)
    }

    /// Adds a change to an account of relayed objects. An empty account has no row.
    fn add_relayed(
        &self,
        peer: &PeerId,
        account: Account,
        change: &Usage,
    ) -> Result<(), StoreError> {
        let context = "writing the usage of relayed objects";
        let mut statement = self.prepare(
            context,
            "INSERT INTO relayed_usage (peer_no, account, objects, bytes)
             SELECT id, ?2, MAX(0, ?3), MAX(0, ?4) FROM peers WHERE peer_id = ?1
             ON CONFLICT DO UPDATE SET
               objects = MAX(0, objects + ?3), bytes = MAX(0, bytes + ?4)",
        )?;
        statement.execute((peer.as_bytes(), account, change.objects, change.bytes))?;
        if change.objects < 0 {
            let mut statement = self.prepare(
                context,
                "DELETE FROM relayed_usage
                 WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND account = ?2
                   AND objects = 0",
            )?;
            statement.execute((peer.as_bytes(), account))?;
        }
        Ok(())
    }

    /// Adds a change to the usage of a tier.
    pub(super) fn add_to_tier(&self, tier: Tier, change: &Usage) -> Result<(), StoreError> {
        if change.is_zero() {
            return Ok(());
        }
        let mut statement = self.prepare(
            "writing the usage of a tier",
            "INSERT INTO tier_usage (tier, objects, bytes) VALUES (?1, MAX(0, ?2), MAX(0, ?3))
             ON CONFLICT (tier) DO UPDATE SET
               objects = MAX(0, objects + ?2), bytes = MAX(0, bytes + ?3)",
        )?;
        statement.execute((tier.as_str(), change.objects, change.bytes))?;
        Ok(())
    }
}

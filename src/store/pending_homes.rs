//! Table `pending_home`: homes that records prove and that do not count yet (docs/DECISIONS.md 5).
//!
//! A home waits for a day if its identity moved on the day before. A home under the known key waits
//! for the operator. Invariant: at most one row of each identity.

use keys::{Oid, PeerId, Signature, SignedObject};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// A home that does not count yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingHome {
    /// The identity.
    pub identity: Oid,
    /// The node that its record names.
    pub home: PeerId,
    /// Number of the identity's key that signed the record.
    pub key_id: u32,
    /// Counter of the record.
    pub counter: u64,
    /// Time of its arrival.
    pub at: Timestamp,
    /// The event from which it counts.
    pub until: PutAside,
}

/// The event from which a home counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutAside {
    /// This time. The stored object of the identity is the record.
    Due(Timestamp),
    /// The operator. The record, and the local number of the peer that sent it.
    Confirmed(i64, SignedObject),
}

impl PendingHome {
    /// Key number and counter, by which records of one identity are compared.
    pub fn precedence(&self) -> (u32, u64) {
        (self.key_id, self.counter)
    }

    /// Whether the stored object of the identity is the record.
    pub fn is_due_later(&self) -> bool {
        matches!(self.until, PutAside::Due(_))
    }
}

const COLUMNS: &str = "identity_oid, home_peer, key_number, home_counter, at, due_at, peer_no, \
                       bytes, signature";

fn pending_home(row: &Row<'_>) -> rusqlite::Result<PendingHome> {
    let key_id = row.get(2)?;
    let due_at: Option<u64> = row.get(5)?;
    let until = match due_at {
        Some(due_at) => PutAside::Due(Timestamp(due_at)),
        None => {
            let signature = Signature::from_bytes(fixed(row, 8)?);
            let record = SignedObject::from_parts(key_id, row.get(7)?, signature);
            PutAside::Confirmed(row.get(6)?, record)
        }
    };
    Ok(PendingHome {
        identity: Oid::from_bytes(fixed(row, 0)?),
        home: PeerId::from_bytes(fixed(row, 1)?),
        key_id,
        counter: row.get(3)?,
        at: Timestamp(row.get(4)?),
        until,
    })
}

impl Rows<'_> {
    /// The home of an identity that does not count yet.
    pub fn pending_home(&self, identity: &Oid) -> Result<Option<PendingHome>, StoreError> {
        let mut statement = self.prepare(
            "reading a home that waits",
            &format!("SELECT {COLUMNS} FROM pending_home WHERE identity_oid = ?1"),
        )?;
        statement.first([identity.as_bytes()], pending_home)
    }

    /// A home that counts from now on.
    pub fn next_due_home(&self, now: Timestamp) -> Result<Option<PendingHome>, StoreError> {
        let mut statement = self.prepare(
            "looking for a home that is due",
            &format!(
                "SELECT {COLUMNS} FROM pending_home
                 WHERE due_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at LIMIT 1"
            ),
        )?;
        statement.first([now.0], pending_home)
    }

    /// How many records name a node and wait for the operator; at most `limit`.
    pub fn homes_to_confirm(&self, home: &PeerId, limit: usize) -> Result<usize, StoreError> {
        let mut statement = self.prepare(
            "counting homes that wait",
            "SELECT COUNT(*) FROM (SELECT 1 FROM pending_home
             WHERE home_peer = ?1 AND due_at IS NULL LIMIT ?2)",
        )?;
        statement.one((home.as_bytes(), limit), |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Notes a home that does not count yet, in place of another one of the identity.
    pub fn put_pending_home(&self, row: &PendingHome) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "noting a home that waits",
            &format!(
                "INSERT OR REPLACE INTO pending_home ({COLUMNS})
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            ),
        )?;
        let (due_at, record) = match &row.until {
            PutAside::Due(due_at) => (Some(due_at.0), None),
            PutAside::Confirmed(origin, record) => (None, Some((origin, record))),
        };
        statement
            .execute((
                row.identity.as_bytes(),
                row.home.as_bytes(),
                row.key_id,
                row.counter,
                row.at.0,
                due_at,
                record.map(|(origin, _)| origin),
                record.map(|(_, record)| record.bytes()),
                record.map(|(_, record)| record.signature().as_bytes()),
            ))
            .map(drop)
    }

    /// Deletes the home of an identity that does not count yet.
    pub fn remove_pending_home(&self, identity: &Oid) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting a home that waits",
            "DELETE FROM pending_home WHERE identity_oid = ?1",
        )?;
        statement.execute([identity.as_bytes()]).map(drop)
    }
}

//! Waiting objects: they arrived in a valid package, and something that they need is missing
//! (docs/PROTOCOL.md 6.4).
//!
//! Bounded for each peer by the caller. Invariant: a waiting object is stored exactly as it was
//! sent, before any rule judged it.

use keys::{Digest, Epoch, Oid, PeerId, Signature, SignedObject};
use rusqlite::Row;

use super::cause::{Cause, cause};
use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::usage::{Account, Usage};
use crate::op_context::Timestamp;

/// A waiting object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRow {
    /// Local number, in order of arrival.
    pub id: i64,
    /// The peer that sent it.
    pub peer: PeerId,
    /// Domain of its package.
    pub domain: String,
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// `to_seq` of its package.
    pub seq: u64,
    /// Its oid.
    pub oid: Oid,
    /// The event for which it waits.
    pub cause: Cause,
    /// Whether it is an object of this node that the peer returned after a restore.
    pub is_reclaimed: bool,
    /// The account of the peer in which it counts.
    pub account: Account,
    /// The object as sent.
    pub object: SignedObject,
}

/// The number of waiting objects of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingCount {
    /// All of them.
    pub all: u64,
    /// Returned objects of this node. They take no room of the peer's own objects.
    pub reclaimed: u64,
    /// Relayed objects.
    pub relayed: u64,
    /// Those whose signature could not be verified yet.
    pub unverified: u64,
    /// Those that need a later schema.
    pub schema: u64,
}

/// The numbers of waiting objects of one peer, by the event for which they wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingByCause {
    /// [`Cause::Arrived`].
    pub object: u64,
    /// [`Cause::KeyKnown`].
    pub key: u64,
    /// [`Cause::Unfrozen`].
    pub unfreezing: u64,
    /// [`Cause::Home`].
    pub home: u64,
    /// [`Cause::Rights`].
    pub rights_list: u64,
    /// [`Cause::Schema`].
    pub schema: u64,
}

impl Rows<'_> {
    /// Whether any object waits.
    pub fn is_any_waiting(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for waiting objects",
            "SELECT 1 FROM waiting LIMIT 1",
        )?;
        statement.exists([])
    }

    /// A waiting object by its local number.
    pub fn waiting(&self, id: i64) -> Result<Option<WaitingRow>, StoreError> {
        let mut statement = self.prepare(
            "reading a waiting object",
            "SELECT p.peer_id, w.domain, w.epoch, w.seq, w.oid, w.needs_kind, w.needs,
               w.is_reclaimed, w.key_id, w.bytes, w.signature, w.account
             FROM waiting AS w JOIN peers AS p ON p.id = w.peer_no WHERE w.id = ?1",
        )?;
        let waiting = |row: &Row<'_>| {
            let signature = Signature::from_bytes(fixed(row, 10)?);
            Ok(WaitingRow {
                id,
                peer: PeerId::from_bytes(fixed(row, 0)?),
                domain: row.get(1)?,
                epoch: Epoch::from_bytes(fixed(row, 2)?),
                seq: row.get(3)?,
                oid: Oid::from_bytes(fixed(row, 4)?),
                cause: cause(row, 5)?,
                is_reclaimed: row.get(7)?,
                account: row.get(11)?,
                object: SignedObject::from_parts(row.get(8)?, row.get(9)?, signature),
            })
        };
        statement.first([id], waiting)
    }

    /// Whether the same object of the same peer waits already.
    pub fn is_waiting(&self, waiting: &WaitingRow) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a waiting object",
            "SELECT 1 FROM waiting WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)
               AND oid = ?2 AND key_id = ?3 AND digest = ?4",
        )?;
        let (object, oid) = (&waiting.object, waiting.oid.as_bytes());
        let digest = Digest::of(object.bytes());
        statement.exists((
            waiting.peer.as_bytes(),
            oid,
            object.key_id(),
            digest.as_bytes(),
        ))
    }

    /// The number of waiting objects of a peer.
    pub fn waiting_count(&self, peer: &PeerId) -> Result<WaitingCount, StoreError> {
        let mut statement = self.prepare(
            "counting waiting objects",
            "SELECT COUNT(*), COALESCE(SUM(w.is_reclaimed), 0),
               COALESCE(SUM(w.needs_kind = ?2), 0), COALESCE(SUM(w.needs_kind = ?3), 0),
               COUNT(w.account)
             FROM waiting AS w JOIN peers AS p ON p.id = w.peer_no WHERE p.peer_id = ?1",
        )?;
        let count = |row: &Row<'_>| {
            Ok(WaitingCount {
                all: row.get(0)?,
                reclaimed: row.get(1)?,
                unverified: row.get(2)?,
                schema: row.get(3)?,
                relayed: row.get(4)?,
            })
        };
        statement.one((peer.as_bytes(), Cause::KEY_KNOWN, Cause::SCHEMA), count)
    }

    /// The numbers of waiting objects of a peer by cause, for the operator.
    pub fn waiting_by_cause(&self, peer: &PeerId) -> Result<WaitingByCause, StoreError> {
        let mut statement = self.prepare(
            "counting waiting objects by cause",
            "SELECT COALESCE(SUM(needs_kind = 1), 0), COALESCE(SUM(needs_kind = 2), 0),
               COALESCE(SUM(needs_kind = 3), 0), COALESCE(SUM(needs_kind = 4), 0),
               COALESCE(SUM(needs_kind = 5), 0), COALESCE(SUM(needs_kind = 6), 0)
             FROM waiting WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)",
        )?;
        let counts = |row: &Row<'_>| {
            Ok(WaitingByCause {
                object: row.get(0)?,
                key: row.get(1)?,
                unfreezing: row.get(2)?,
                home: row.get(3)?,
                rights_list: row.get(4)?,
                schema: row.get(5)?,
            })
        };
        statement.one([peer.as_bytes()], counts)
    }

    /// The usage of a peer's waiting objects by account, except returned objects of this node.
    pub(super) fn waiting_usage(&self, peer: &PeerId) -> Result<Vec<(Account, Usage)>, StoreError> {
        let mut statement = self.prepare(
            "summing the waiting objects of a peer",
            "SELECT w.account, COUNT(*), COALESCE(SUM(LENGTH(w.bytes)), 0)
             FROM waiting AS w JOIN peers AS p ON p.id = w.peer_no
             WHERE p.peer_id = ?1 AND NOT w.is_reclaimed GROUP BY w.account",
        )?;
        let usage = |row: &Row<'_>| {
            let usage = Usage {
                objects: row.get(1)?,
                bytes: row.get(2)?,
            };
            Ok((row.get(0)?, usage))
        };
        statement.all([peer.as_bytes()], usage)
    }

    /// The oids of at most `limit` waiting objects that follow `after`, sorted.
    pub fn waiting_oids(&self, after: Option<Oid>, limit: usize) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare(
            "reading the oids of waiting objects",
            "SELECT DISTINCT oid FROM waiting WHERE oid > ?1 ORDER BY oid LIMIT ?2",
        )?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        statement.all((after, limit), |row| Ok(Oid::from_bytes(fixed(row, 0)?)))
    }

    /// Local numbers of at most `limit` waiting versions of an object under a key up to `key_id`,
    /// the oldest first.
    pub fn waiting_of(&self, oid: &Oid, key_id: u32, limit: usize) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.prepare(
            "reading the waiting versions of an object",
            "SELECT id FROM waiting WHERE oid = ?1 AND key_id <= ?2 ORDER BY id LIMIT ?3",
        )?;
        statement.all((oid.as_bytes(), key_id, limit), |row| row.get(0))
    }

    /// Key number and signature of each version of an object that a peer sent and that waits, at
    /// most 64. Versions that wait for the key that verifies them are left out.
    pub fn waiting_signatures(
        &self,
        peer: &PeerId,
        oid: &Oid,
    ) -> Result<Vec<(u32, Signature)>, StoreError> {
        let mut statement = self.prepare(
            "reading the signatures of waiting objects",
            "SELECT key_id, signature FROM waiting WHERE oid = ?1 AND needs_kind <> ?2
               AND peer_no = (SELECT id FROM peers WHERE peer_id = ?3) LIMIT 64",
        )?;
        let values = (oid.as_bytes(), Cause::KEY_KNOWN, peer.as_bytes());
        statement.all(values, |row| {
            Ok((row.get(0)?, Signature::from_bytes(fixed(row, 1)?)))
        })
    }

    /// Local numbers of at most `limit` objects that have waited since a time from `first` to
    /// `last`, the oldest first. Returned objects of this node are left out.
    pub fn waiting_since(
        &self,
        (first, last): (Timestamp, Timestamp),
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.prepare(
            "reading the oldest waiting objects",
            "SELECT id FROM waiting WHERE is_reclaimed = 0 AND at BETWEEN ?1 AND ?2
             ORDER BY at LIMIT ?3",
        )?;
        statement.all((first.0, last.0, limit), |row| row.get(0))
    }

    /// Local numbers of at most `limit` objects that wait for a cause, the oldest first.
    pub fn waiting_for(
        &self,
        cause: &Cause,
        (after_id, until_id): (i64, i64),
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let (kind, needs) = cause.columns();
        let mut statement = self.prepare(
            "reading waiting objects",
            "SELECT id FROM waiting WHERE needs_kind = ?1 AND needs = ?2
               AND id > ?3 AND id <= ?4 ORDER BY id LIMIT ?5",
        )?;
        statement.all((kind, needs, after_id, until_id, limit), |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Notes that an object which waits already has come again from its peer, in another package
    /// and perhaps in another epoch. Returns `false` if it does not wait.
    pub fn renew_waiting(&self, waiting: &WaitingRow) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "renewing a waiting object",
            "UPDATE waiting SET domain = ?5, epoch = ?6, seq = ?7
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)
               AND oid = ?2 AND key_id = ?3 AND digest = ?4 AND is_reclaimed = 0",
        )?;
        let object = &waiting.object;
        statement
            .execute((
                waiting.peer.as_bytes(),
                waiting.oid.as_bytes(),
                object.key_id(),
                Digest::of(object.bytes()).as_bytes(),
                &waiting.domain,
                waiting.epoch.as_bytes(),
                waiting.seq,
            ))
            .map(|rows| rows > 0)
    }

    /// Stores a waiting object, whose `id` is ignored. Returns `false` if the same object of the
    /// same peer waits already.
    pub fn put_waiting(&self, waiting: &WaitingRow, at: Timestamp) -> Result<bool, StoreError> {
        let (kind, needs) = waiting.cause.columns();
        let object = &waiting.object;
        let mut statement = self.prepare(
            "writing a waiting object",
            "INSERT INTO waiting (peer_no, domain, epoch, seq, oid, needs_kind, needs,
               is_reclaimed, key_id, digest, bytes, signature, at, account)
             SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14
             FROM peers WHERE peer_id = ?1
             ON CONFLICT DO NOTHING",
        )?;
        statement
            .execute((
                waiting.peer.as_bytes(),
                &waiting.domain,
                waiting.epoch.as_bytes(),
                waiting.seq,
                waiting.oid.as_bytes(),
                kind,
                needs,
                waiting.is_reclaimed,
                object.key_id(),
                Digest::of(object.bytes()).as_bytes(),
                object.bytes(),
                object.signature().as_bytes(),
                at.0,
                waiting.account,
            ))
            .map(|rows| rows > 0)
    }

    /// Sets the time since which an object waits.
    pub fn put_waiting_since(&self, id: i64, at: Timestamp) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "changing the time of a waiting object",
            "UPDATE waiting SET at = ?2 WHERE id = ?1",
        )?;
        statement.execute((id, at.0)).map(drop)
    }

    /// Notes that a waiting object needs something else now.
    pub fn put_waiting_cause(&self, id: i64, cause: &Cause) -> Result<(), StoreError> {
        let (kind, needs) = cause.columns();
        let mut statement = self.prepare(
            "changing the cause of a waiting object",
            "UPDATE waiting SET needs_kind = ?2, needs = ?3 WHERE id = ?1",
        )?;
        statement.execute((id, kind, needs))?;
        Ok(())
    }

    /// Deletes a waiting object, which the caller has applied, refused or given up.
    pub fn remove_waiting(&self, id: i64) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting a waiting object",
            "DELETE FROM waiting WHERE id = ?1",
        )?;
        statement.execute([id])?;
        Ok(())
    }
}

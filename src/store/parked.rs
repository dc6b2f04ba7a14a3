//! Waiting objects, which refer to an object that this node lacks, and rejects.
//!
//! Both are bounded for each peer. A waiting object that finds no slot is recorded as a reject,
//! with its position. Invariant: a waiting object is stored exactly as it was sent, before any rule
//! judged it.

use keys::{Epoch, Oid, PeerId, Signature, SignedObject};
use rusqlite::{OptionalExtension as _, Row};

use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// A waiting object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
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
    /// The object for which it waits.
    pub missing: Oid,
    /// The object as sent.
    pub object: SignedObject,
}

/// A rejected object, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    /// The peer that sent it.
    pub peer: PeerId,
    /// Domain of its package.
    pub domain: String,
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// `to_seq` of its package.
    pub seq: u64,
    /// Its oid, where its bytes could be read.
    pub oid: Option<Oid>,
    /// Stable code of the reason.
    pub code: String,
    /// Time of the rejection.
    pub at: Timestamp,
}

fn parked_row(row: &Row<'_>) -> rusqlite::Result<Parked> {
    let object = SignedObject::from_parts(
        row.get(7)?,
        row.get(8)?,
        Signature::from_bytes(fixed(row, 9)?),
    );
    Ok(Parked {
        id: row.get(0)?,
        peer: PeerId::from_bytes(fixed(row, 1)?),
        domain: row.get(2)?,
        epoch: Epoch::from_bytes(fixed(row, 3)?),
        seq: row.get(4)?,
        oid: Oid::from_bytes(fixed(row, 5)?),
        missing: Oid::from_bytes(fixed(row, 6)?),
        object,
    })
}

impl Rows<'_> {
    /// Local numbers of the objects that wait for `missing`, oldest first.
    pub fn parked_for(&self, missing: &Oid) -> Result<Vec<i64>, StoreError> {
        let context = "reading waiting objects";
        let mut statement = self
            .connection
            .prepare_cached("SELECT id FROM sync_parked WHERE missing = ?1 ORDER BY id")
            .context(context)?;
        let rows = statement
            .query_map([missing.as_bytes()], |row| row.get(0))
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// Whether any object waits.
    pub fn is_any_parked(&self) -> Result<bool, StoreError> {
        let context = "looking for waiting objects";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM sync_parked LIMIT 1")
            .context(context)?;
        statement.exists([]).context(context)
    }

    /// A waiting object by its local number.
    pub fn parked(&self, id: i64) -> Result<Option<Parked>, StoreError> {
        let context = "reading a waiting object";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT id, peer_id, domain, epoch, seq, oid, missing, key_id, bytes, signature
                 FROM sync_parked WHERE id = ?1",
            )
            .context(context)?;
        statement
            .query_row([id], parked_row)
            .optional()
            .context(context)
    }

    /// The number of waiting objects of a peer.
    pub fn parked_count(&self, peer: &PeerId) -> Result<u64, StoreError> {
        let context = "counting waiting objects";
        let mut statement = self
            .connection
            .prepare_cached("SELECT COUNT(*) FROM sync_parked WHERE peer_id = ?1")
            .context(context)?;
        statement
            .query_row([peer.as_bytes()], |row| row.get(0))
            .context(context)
    }

    /// At most `limit` rejects, newest first, of all peers or of one.
    pub fn rejects(
        &self,
        peer: Option<&PeerId>,
        limit: usize,
    ) -> Result<Vec<RejectRow>, StoreError> {
        let context = "reading rejects";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT peer_id, domain, epoch, seq, oid, code, at FROM sync_rejects
                 WHERE ?1 IS NULL OR peer_id = ?1 ORDER BY id DESC LIMIT ?2",
            )
            .context(context)?;
        let rows = statement
            .query_map((peer.map(|peer| peer.as_bytes()), limit), |row| {
                Ok(RejectRow {
                    peer: PeerId::from_bytes(fixed(row, 0)?),
                    domain: row.get(1)?,
                    epoch: Epoch::from_bytes(fixed(row, 2)?),
                    seq: row.get(3)?,
                    oid: Oid::from_slice(&row.get::<_, Vec<u8>>(4)?),
                    code: row.get(5)?,
                    at: Timestamp(row.get(6)?),
                })
            })
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

impl WriteTx<'_> {
    /// Stores a waiting object. Returns `false` if the same object of the same peer waits already.
    pub fn park(&self, parked: &Parked, at: Timestamp) -> Result<bool, StoreError> {
        let context = "writing a waiting object";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO sync_parked (peer_id, domain, epoch, seq, oid, missing, key_id, bytes,
                   signature, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            )
            .context(context)?;
        statement
            .execute((
                parked.peer.as_bytes(),
                &parked.domain,
                parked.epoch.as_bytes(),
                parked.seq,
                parked.oid.as_bytes(),
                parked.missing.as_bytes(),
                parked.object.key_id(),
                parked.object.bytes(),
                parked.object.signature().as_bytes(),
                at.0,
            ))
            .map(|rows| rows > 0)
            .context(context)
    }

    /// Deletes a waiting object, which the caller then applies.
    pub fn unpark(&self, id: i64) -> Result<(), StoreError> {
        let context = "deleting a waiting object";
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM sync_parked WHERE id = ?1")
            .context(context)?;
        statement.execute([id]).context(context)?;
        Ok(())
    }

    /// Stores a reject and deletes the peer's oldest rejects beyond `keep`.
    pub fn put_reject(&self, reject: &RejectRow, keep: u64) -> Result<(), StoreError> {
        let context = "writing a reject";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO sync_rejects (peer_id, domain, epoch, seq, oid, code, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .context(context)?;
        statement
            .execute((
                reject.peer.as_bytes(),
                &reject.domain,
                reject.epoch.as_bytes(),
                reject.seq,
                reject.oid.as_ref().map_or(&[][..], |oid| oid.as_bytes()),
                &reject.code,
                reject.at.0,
            ))
            .context(context)?;
        let mut statement = self
            .connection
            .prepare_cached(
                "DELETE FROM sync_rejects WHERE peer_id = ?1 AND id <= (
                   SELECT id FROM sync_rejects WHERE peer_id = ?1
                   ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )
            .context(context)?;
        statement
            .execute((reject.peer.as_bytes(), keep))
            .context(context)?;
        Ok(())
    }
}

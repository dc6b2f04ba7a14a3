//! Objects of packages that were refused or that wait for another object. Both are bounded and visible.
//!
//! Never drops a waiting object silently: one that finds no room is recorded as refused, with its place.
//! Invariant: a parked object is exactly as it was sent; it was not judged yet.

use keys::{Epoch, Oid, PeerId, Signature, SignedObject};
use rusqlite::{OptionalExtension as _, Row};

use super::{Rows, SqlContext as _, StoreError, WriteTx, fixed};
use crate::op_context::Timestamp;

/// An object that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Local number.
    pub id: i64,
    /// Who sent it.
    pub peer: PeerId,
    /// In which domain.
    pub domain: String,
    /// In which epoch of the sender.
    pub epoch: Epoch,
    /// `to_seq` of its package.
    pub seq: u64,
    /// Its name.
    pub oid: Oid,
    /// The object that it waits for.
    pub missing: Oid,
    /// The object as sent.
    pub object: SignedObject,
}

/// A refused object, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    /// Who sent it.
    pub peer: PeerId,
    /// In which domain.
    pub domain: String,
    /// In which epoch of the sender.
    pub epoch: Epoch,
    /// `to_seq` of its package.
    pub seq: u64,
    /// Its name, where it could be read.
    pub oid: Option<Oid>,
    /// Why.
    pub code: String,
    /// When.
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
    /// Numbers of the objects that wait for `missing`, oldest first.
    pub fn parked_for(&self, missing: &Oid) -> Result<Vec<i64>, StoreError> {
        let context = "reading parked objects";
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
        let context = "looking for parked objects";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM sync_parked LIMIT 1")
            .context(context)?;
        statement.exists([]).context(context)
    }

    /// A parked object by its number.
    pub fn parked(&self, id: i64) -> Result<Option<Parked>, StoreError> {
        let context = "reading a parked object";
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

    /// How many objects of a peer wait.
    pub fn parked_count(&self, peer: &PeerId) -> Result<u64, StoreError> {
        let context = "counting parked objects";
        let mut statement = self
            .connection
            .prepare_cached("SELECT COUNT(*) FROM sync_parked WHERE peer_id = ?1")
            .context(context)?;
        statement
            .query_row([peer.as_bytes()], |row| row.get(0))
            .context(context)
    }

    /// The newest refusals, newest first; of one peer where given.
    pub fn rejects(
        &self,
        peer: Option<&PeerId>,
        limit: usize,
    ) -> Result<Vec<RejectRow>, StoreError> {
        let context = "reading refusals";
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
    /// Parks an object as it was sent. The same object of the same peer is parked once: false where it was already.
    pub fn park(&self, parked: &Parked, at: Timestamp) -> Result<bool, StoreError> {
        let context = "parking an object";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO sync_parked (peer_id, domain, epoch, seq, oid, missing, key_id, bytes, signature, at)
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

    /// Takes an object out of the parked ones.
    pub fn unpark(&self, id: i64) -> Result<(), StoreError> {
        let context = "taking up a parked object";
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM sync_parked WHERE id = ?1")
            .context(context)?;
        statement.execute([id]).context(context)?;
        Ok(())
    }

    /// Records a refusal and forgets the peer's oldest beyond `keep`.
    pub fn put_reject(&self, reject: &RejectRow, keep: u64) -> Result<(), StoreError> {
        let context = "recording a refusal";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO sync_rejects (peer_id, domain, epoch, seq, oid, code, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
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
                "DELETE FROM sync_rejects WHERE peer_id = ?1 AND id <=
                   (SELECT id FROM sync_rejects WHERE peer_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )
            .context(context)?;
        statement
            .execute((reject.peer.as_bytes(), keep))
            .context(context)?;
        Ok(())
    }
}

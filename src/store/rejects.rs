//! Rejects: objects of packages that a rule refused permanently, for the operator.
//!
//! Bounded for each peer. The caller counts each row as a stored object of the sender.

use keys::{Epoch, Oid, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// A rejected object, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    /// The peer that sent it. `None`: a peer relayed it, which is not to blame.
    pub peer: Option<PeerId>,
    /// Domain of its package.
    pub domain: String,
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// `to_seq` of its package.
    pub seq: u64,
    /// Its oid, where its bytes could be read.
    pub oid: Option<Oid>,
    /// Name of its type in the schema, where it is known.
    pub type_name: Option<String>,
    /// Stable code of the reason.
    pub code: String,
    /// Time of the rejection.
    pub at: Timestamp,
}

/// Stored rejects of one peer with one reason and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectGroup {
    /// The peer that sent them. `None`: peers relayed them.
    pub peer: Option<PeerId>,
    /// Stable code of the reason.
    pub code: String,
    /// Name of their type in the schema, where it is known.
    pub type_name: Option<String>,
    /// Their number.
    pub count: u64,
    /// Time of the newest.
    pub newest_at: Timestamp,
}

/// The value of the column `peer_id`; empty for relayed objects.
fn peer_column(peer: Option<&PeerId>) -> &[u8] {
    peer.map_or(&[], |peer| peer.as_bytes())
}

fn peer_in(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<PeerId>> {
    Ok(PeerId::from_slice(&row.get::<_, Vec<u8>>(column)?))
}

fn type_name(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let name: String = row.get(column)?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

impl Rows<'_> {
    /// The number of stored rejects of a peer; `None`: of relayed objects.
    pub fn reject_count(&self, peer: Option<&PeerId>) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "counting rejects",
            "SELECT COUNT(*) FROM sync_rejects WHERE peer_id = ?1",
        )?;
        statement.one([peer_column(peer)], |row| row.get(0))
    }

    /// At most `limit` groups of the stored rejects of all peers or of one, the newest first. Reads
    /// all of these rejects.
    pub fn reject_groups(
        &self,
        peer: Option<&PeerId>,
        limit: usize,
    ) -> Result<Vec<RejectGroup>, StoreError> {
        let mut statement = self.prepare(
            "counting rejects by their reasons",
            "SELECT peer_id, code, type, COUNT(*), MAX(at) FROM sync_rejects
             WHERE ?1 IS NULL OR peer_id = ?1
             GROUP BY peer_id, code, type ORDER BY MAX(id) DESC LIMIT ?2",
        )?;
        statement.all((peer.map(|peer| peer.as_bytes()), limit), |row| {
            Ok(RejectGroup {
                peer: peer_in(row, 0)?,
                code: row.get(1)?,
                type_name: type_name(row, 2)?,
                count: row.get(3)?,
                newest_at: Timestamp(row.get(4)?),
            })
        })
    }

    /// At most `limit` rejects, newest first, of all peers or of one.
    pub fn rejects(
        &self,
        peer: Option<&PeerId>,
        limit: usize,
    ) -> Result<Vec<RejectRow>, StoreError> {
        let mut statement = self.prepare(
            "reading rejects",
            "SELECT peer_id, domain, epoch, seq, oid, type, code, at FROM sync_rejects
             WHERE ?1 IS NULL OR peer_id = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        statement.all((peer.map(|peer| peer.as_bytes()), limit), |row| {
            Ok(RejectRow {
                peer: peer_in(row, 0)?,
                domain: row.get(1)?,
                epoch: Epoch::from_bytes(fixed(row, 2)?),
                seq: row.get(3)?,
                oid: Oid::from_slice(&row.get::<_, Vec<u8>>(4)?),
                type_name: type_name(row, 5)?,
                code: row.get(6)?,
                at: Timestamp(row.get(7)?),
            })
        })
    }
}

impl WriteTx<'_> {
    /// Stores rejects of one peer, or of relayed objects, and deletes the oldest beyond `kept_max`.
    pub fn put_rejects(
        &self,
        peer: Option<&PeerId>,
        rejects: &[RejectRow],
        kept_max: u64,
    ) -> Result<(), StoreError> {
        let context = "writing rejects";
        let mut statement = self.prepare(
            context,
            "INSERT INTO sync_rejects (peer_id, domain, epoch, seq, oid, type, code, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for reject in rejects {
            statement.execute((
                peer_column(peer),
                &reject.domain,
                reject.epoch.as_bytes(),
                reject.seq,
                reject.oid.as_ref().map_or(&[][..], |oid| oid.as_bytes()),
                reject.type_name.as_deref().unwrap_or_default(),
                &reject.code,
                reject.at.0,
            ))?;
        }
        let mut statement = self.prepare(
            context,
            "DELETE FROM sync_rejects WHERE peer_id = ?1 AND id <= (
               SELECT id FROM sync_rejects WHERE peer_id = ?1
               ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?;
        statement.execute((peer_column(peer), kept_max))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{EPOCH, Folder};

    #[test]
    fn rejects_are_bounded_per_peer_and_the_newest_stay() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let (one, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let reject = |peer, seq| RejectRow {
            peer: Some(peer),
            domain: "rides.offers".into(),
            epoch: EPOCH,
            seq,
            oid: (seq % 2 == 0).then(|| Oid::from_bytes([seq as u8; 16])),
            type_name: (seq % 2 == 0).then(|| "rides.offer".into()),
            code: "mode".into(),
            at: Timestamp(seq),
        };
        store
            .transaction(|tx| tx.put_rejects(Some(&other), &[reject(other, 1)], 3))
            .unwrap();
        for seq in 1..=10 {
            store
                .transaction(|tx| tx.put_rejects(Some(&one), &[reject(one, seq)], 3))
                .unwrap();
        }
        let kept = store.rows().rejects(Some(&one), 100).unwrap();
        assert_eq!(kept, [reject(one, 10), reject(one, 9), reject(one, 8)]);
        assert_eq!(store.rows().rejects(None, 100).unwrap().len(), 4);
        let group = |seq: u64, count| {
            let RejectRow {
                peer,
                type_name,
                code,
                at: newest_at,
                ..
            } = reject(one, seq);
            RejectGroup {
                peer,
                code,
                type_name,
                count,
                newest_at,
            }
        };
        let groups = store.rows().reject_groups(Some(&one), 100).unwrap();
        assert_eq!(groups, [group(10, 2), group(9, 1)]);
        assert_eq!(store.rows().reject_groups(None, 100).unwrap().len(), 3);
        assert_eq!(store.rows().reject_groups(None, 1).unwrap(), groups[..1]);
    }
}

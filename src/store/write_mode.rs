//! Whether this node may write as usual, and what a recovery after a restore still waits for (docs/DECISIONS.md 2).
//!
//! Never decides when it is over: `state_engine` does. Invariant: no row of `write mode` means that nothing is in the way,
//! and then nobody is waited for.

use std::path::Path;

use keys::{Epoch, Oid, PeerId, Signature, SignedObject};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};

use super::{Rows, SqlContext as _, StoreError, WriteTx, fixed};
use crate::op_context::Timestamp;

/// What this node may write of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Everything.
    ReadWrite,
    /// New objects; what exists may have changed after the backup, so that it waits.
    NewObjectsOnly,
    /// Nothing: another node signs with the same keys, or did.
    ReadOnly,
}

/// Why it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteModeRow {
    /// What may be written. Never [`WriteMode::ReadWrite`], for which there is no row.
    pub mode: WriteMode,
    /// Why the epoch began; or which peer showed the foreign epoch.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When a recovery ends by itself.
    pub until: Option<Timestamp>,
    /// An epoch that is signed with this node's key and was not minted here.
    pub foreign_epoch: Option<Epoch>,
}

impl WriteMode {
    /// What may be written at a moment, where this is in the way; a recovery ends when its time is up.
    pub fn of(row: Option<&WriteModeRow>, now: Timestamp) -> Self {
        match row {
            Some(row) if row.until.is_none_or(|until| until > now) => row.mode,
            _ => Self::ReadWrite,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "open",
            Self::NewObjectsOnly => "recovering",
            Self::ReadOnly => "read_only",
        }
    }
}

fn write_mode(row: &Row<'_>) -> rusqlite::Result<WriteModeRow> {
    let word: String = row.get(0)?;
    let until: Option<u64> = row.get(3)?;
    let foreign: Option<Vec<u8>> = row.get(4)?;
    Ok(WriteModeRow {
        mode: if word == WriteMode::NewObjectsOnly.as_str() {
            WriteMode::NewObjectsOnly
        } else {
            WriteMode::ReadOnly
        },
        reason: row.get(1)?,
        since: Timestamp(row.get(2)?),
        until: until.map(Timestamp),
        foreign_epoch: foreign.as_deref().and_then(Epoch::from_slice),
    })
}

/// What is in the way of writing in a database that no node has open; none: nothing.
///
/// # Errors
/// Not a database of this program's present version, or one that cannot be read.
pub fn write_mode_of(database: &Path) -> Result<Option<WriteModeRow>, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(database, flags).map_err(|source| StoreError::Open {
            path: database.to_owned(),
            source,
        })?;
    let version: i32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .context("version")?;
    if version < 3 {
        // Made before there was anything that could be in the way.
        return Ok(None);
    }
    connection
        .query_row(READ, [], write_mode)
        .optional()
        .context("reading whether this node may write")
}

const READ: &str = "SELECT state, reason, since, until, foreign_epoch FROM standing";

impl Rows<'_> {
    /// What is in the way of writing; none: nothing.
    pub fn write_mode(&self) -> Result<Option<WriteModeRow>, StoreError> {
        let context = "reading whether this node may write";
        let mut statement = self.connection.prepare_cached(READ).context(context)?;
        statement
            .query_row([], write_mode)
            .optional()
            .context(context)
    }

    /// Peers that have not been asked yet for what they hold of this node's, by id.
    pub fn recovery_peers(&self) -> Result<Vec<PeerId>, StoreError> {
        let context = "reading whom a recovery waits for";
        let mut statement = self
            .connection
            .prepare_cached("SELECT peer_id FROM recovery_peer ORDER BY peer_id")
            .context(context)?;
        let rows = statement
            .query_map([], |row| fixed(row, 0).map(PeerId::from_bytes))
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// Whether a peer gave back what it holds of this node's since the last epoch began.
    pub fn was_asked(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let context = "looking whether a peer was asked";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM recovery_asked WHERE peer_id = ?1")
            .context(context)?;
        statement.exists([peer.as_bytes()]).context(context)
    }

    /// Number of an own identity's key when the last epoch began; 0 where it had none, or where no epoch followed the first.
    pub fn recovery_key(&self, identity: &Oid) -> Result<u32, StoreError> {
        let context = "reading the number of a key of then";
        let mut statement = self
            .connection
            .prepare_cached("SELECT key_id FROM recovery_key WHERE oid = ?1")
            .context(context)?;
        let known = statement.query_row([identity.as_bytes()], |row| row.get(0));
        known
            .optional()
            .context(context)
            .map(Option::unwrap_or_default)
    }

    /// A deletion of our own that waits for what it deletes.
    pub fn kept_deletion(&self, oid: &Oid) -> Result<Option<SignedObject>, StoreError> {
        let context = "looking for a deletion that came back";
        let mut statement = self
            .connection
            .prepare_cached("SELECT key_id, bytes, signature FROM recovery_deletion WHERE oid = ?1")
            .context(context)?;
        statement
            .query_row([oid.as_bytes()], |row| {
                let signature = Signature::from_bytes(fixed(row, 2)?);
                Ok(SignedObject::from_parts(
                    row.get(0)?,
                    row.get(1)?,
                    signature,
                ))
            })
            .optional()
            .context(context)
    }
}

impl WriteTx<'_> {
    /// Says what is in the way of writing from now on.
    pub fn put_write_mode(&self, row: &WriteModeRow) -> Result<(), StoreError> {
        let context = "noting whether this node may write";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO standing (id, state, reason, since, until, foreign_epoch)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            )
            .context(context)?;
        statement
            .execute((
                row.mode.as_str(),
                &row.reason,
                row.since.0,
                row.until.map(|until| until.0),
                row.foreign_epoch.as_ref().map(|epoch| epoch.as_bytes()),
            ))
            .context(context)?;
        Ok(())
    }

    /// Nothing is in the way of writing any more, and no recovery waits for anything.
    pub fn clear_write_mode(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch("DELETE FROM standing; DELETE FROM recovery_peer;")
            .context("noting that this node may write")
    }

    /// All peers are to be asked anew, and waited for but where they are banned or forgotten; the keys of now are those that count.
    pub fn ask_all_peers(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch(
                "DELETE FROM recovery_peer; DELETE FROM recovery_asked; DELETE FROM recovery_key;
                 INSERT INTO recovery_peer (peer_id) SELECT peer_id FROM peers WHERE tier <> 'forgotten'
                   AND peer_id NOT IN (SELECT peer_id FROM verdict WHERE verdict = 'banned');
                 INSERT INTO recovery_key (oid, key_id) SELECT oid, key_id FROM identity WHERE key_id > 0;",
            )
            .context("noting whom a recovery waits for")
    }

    /// A peer was asked.
    pub fn peer_was_asked(&self, peer: &PeerId) -> Result<(), StoreError> {
        let context = "noting that a peer was asked";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO recovery_asked (peer_id) VALUES (?1) ON CONFLICT DO NOTHING",
            )
            .context(context)?;
        statement.execute([peer.as_bytes()]).context(context)?;
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM recovery_peer WHERE peer_id = ?1")
            .context(context)?;
        statement.execute([peer.as_bytes()]).context(context)?;
        Ok(())
    }

    /// Keeps a deletion until what it deletes comes back; of two the one with the higher revision is the caller's to choose.
    pub fn keep_deletion(&self, oid: &Oid, object: &SignedObject) -> Result<(), StoreError> {
        let context = "keeping a deletion that came back";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO recovery_deletion (oid, key_id, bytes, signature) VALUES (?1, ?2, ?3, ?4)",
            )
            .context(context)?;
        let signature = object.signature().as_bytes();
        statement
            .execute((oid.as_bytes(), object.key_id(), object.bytes(), signature))
            .context(context)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Folder;

    #[test]
    fn what_stands_in_the_way_is_one_row_and_goes_with_all_that_it_waited_for() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        assert_eq!(store.rows().write_mode().unwrap(), None);
        let recovering = WriteModeRow {
            mode: WriteMode::NewObjectsOnly,
            reason: "restored".into(),
            since: Timestamp(1),
            until: Some(Timestamp(9)),
            foreign_epoch: None,
        };
        let read_only = WriteModeRow {
            mode: WriteMode::ReadOnly,
            reason: "a peer".into(),
            until: None,
            foreign_epoch: Some(Epoch::from_bytes([3; 16])),
            ..recovering.clone()
        };
        let deletion = SignedObject::from_parts(2, vec![1, 2], Signature::from_bytes([5; 64]));
        let oid = Oid::from_bytes([4; 16]);
        for row in [&recovering, &read_only] {
            store
                .transaction(|tx| {
                    tx.keep_deletion(&oid, &deletion)?;
                    tx.put_write_mode(row)
                })
                .unwrap();
            assert_eq!(store.rows().write_mode().unwrap().as_ref(), Some(row));
        }
        assert_eq!(store.rows().kept_deletion(&oid).unwrap(), Some(deletion));
        store.transaction(|tx| tx.clear_write_mode()).unwrap();
        assert_eq!(store.rows().write_mode().unwrap(), None);
        assert!(
            store.rows().kept_deletion(&oid).unwrap().is_some(),
            "for who is asked late"
        );
    }
}

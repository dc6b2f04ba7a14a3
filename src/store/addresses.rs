//! Tables `address` and `introduction`: the onion services of other members' nodes, and the dials
//! to those that this node does not know.
//!
//! Holds only records that were verified. Invariants: one record for each node; at most
//! [`INTRODUCTIONS_MAX`] introductions. Tested in `tests/core/introductions.rs`.

use keys::{AddressRecord, Oid, OnionAddr, PeerId, PublicKey};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::Timestamp;

/// Most rows of `introduction`. Each may become a session.
pub const INTRODUCTIONS_MAX: usize = 256;
/// Most rows of `address`. The oldest of the owner that has the most is evicted.
const ADDRESSES_MAX: usize = 1024;
/// Most rows of `address` for one owner of scopes.
const OWNER_ADDRESSES_MAX: usize = 256;

/// The stored address record of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRow {
    /// The node.
    pub peer: PeerId,
    /// The encoding of a list that has only the record.
    pub record: Vec<u8>,
    /// Its onion service.
    pub onion: OnionAddr,
    /// Number of the node's key that signed the record.
    pub key_id: u32,
    /// The record's counter.
    pub counter: u64,
    /// The owner of the scope by which the record came.
    pub scope_owner: Oid,
    /// Time at which this record was taken.
    pub at: Timestamp,
}

/// A node of other members that is dialled without the operator's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction {
    /// The node.
    pub peer: PeerId,
    /// A scope in which an identity of both nodes takes part.
    pub scope: ScopeId,
    /// The owner of the scope, to which the dials are counted.
    pub scope_owner: Oid,
    /// Time at which this node decided to dial.
    pub begun_at: Timestamp,
    /// Time of the next dial.
    pub next_at: Timestamp,
    /// Dials that failed since the last session.
    pub failures: u32,
    /// Time of the last session that this node dialled.
    pub reached_at: Option<Timestamp>,
}

impl AddressRow {
    /// The record.
    pub fn record(&self) -> Result<AddressRecord, StoreError> {
        let mut list = AddressRecord::decode_list(&self.record).unwrap_or_default();
        list.pop().ok_or(StoreError::Inconsistent(
            "an address record of another form",
        ))
    }
}

const ADDRESS: &str = "peer_id, record, onion, key_id, counter, scope_owner, at";
const INTRODUCTION: &str =
    "peer_id, scope_id, scope_owner, begun_at, next_at, failures, reached_at";

fn address(row: &Row<'_>) -> rusqlite::Result<AddressRow> {
    Ok(AddressRow {
        peer: PeerId::from_bytes(fixed(row, 0)?),
        record: row.get(1)?,
        onion: OnionAddr::from_public_key(PublicKey::from_bytes(fixed(row, 2)?)),
        key_id: row.get(3)?,
        counter: row.get(4)?,
        scope_owner: Oid::from_bytes(fixed(row, 5)?),
        at: Timestamp(row.get(6)?),
    })
}

fn introduction(row: &Row<'_>) -> rusqlite::Result<Introduction> {
    Ok(Introduction {
        peer: PeerId::from_bytes(fixed(row, 0)?),
        scope: ScopeId(row.get(1)?),
        scope_owner: Oid::from_bytes(fixed(row, 2)?),
        begun_at: Timestamp(row.get(3)?),
        next_at: Timestamp(row.get(4)?),
        failures: row.get(5)?,
        reached_at: row.get::<_, Option<u64>>(6)?.map(Timestamp),
    })
}

impl Rows<'_> {
    /// The address record of a node.
    pub fn address(&self, peer: &PeerId) -> Result<Option<AddressRow>, StoreError> {
        let sql = format!("SELECT {ADDRESS} FROM address WHERE peer_id = ?1");
        let mut statement = self.prepare("reading an address record", &sql)?;
        statement.first([peer.as_bytes()], address)
    }

    /// The introduction of a node.
    pub fn introduction(&self, peer: &PeerId) -> Result<Option<Introduction>, StoreError> {
        let sql = format!("SELECT {INTRODUCTION} FROM introduction WHERE peer_id = ?1");
        let mut statement = self.prepare("reading an introduction", &sql)?;
        statement.first([peer.as_bytes()], introduction)
    }

    /// All introductions, by node.
    pub fn introductions(&self) -> Result<Vec<Introduction>, StoreError> {
        let sql = format!("SELECT {INTRODUCTION} FROM introduction ORDER BY peer_id");
        let mut statement = self.prepare("listing introductions", &sql)?;
        statement.all([], introduction)
    }

    /// At most `limit` scopes after one in which an identity gave an `accept`, by number.
    pub fn scopes_with_accepts(
        &self,
        after: ScopeId,
        limit: usize,
    ) -> Result<Vec<ScopeId>, StoreError> {
        let mut statement = self.prepare(
            "listing scopes in which members take part",
            "SELECT scope_id FROM accept WHERE scope_id > ?1 ORDER BY scope_id LIMIT 1",
        )?;
        let (mut scopes, mut after) = (Vec::new(), after);
        while scopes.len() < limit {
            let Some(next) = statement.first([after.0], |row| row.get(0).map(ScopeId))? else {
                break;
            };
            scopes.push(next);
            after = next;
        }
        Ok(scopes)
    }
}

impl WriteTx<'_> {
    /// Writes the address record of a node, in place of an earlier one.
    pub fn put_address(&self, new: &AddressRow) -> Result<(), StoreError> {
        let context = "writing an address record";
        let sql = format!(
            "INSERT OR REPLACE INTO address ({ADDRESS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        );
        let mut statement = self.prepare(context, &sql)?;
        statement.execute((
            new.peer.as_bytes(),
            &new.record,
            new.onion.public_key().as_bytes(),
            new.key_id,
            new.counter,
            new.scope_owner.as_bytes(),
            new.at.0,
        ))?;
        let mut statement = self.prepare(
            context,
            "WITH owner AS (SELECT scope_owner, COUNT(*) AS rows FROM address GROUP BY scope_owner)
             DELETE FROM address WHERE peer_id = (
               SELECT peer_id FROM address AS a
               WHERE a.scope_owner = (SELECT scope_owner FROM owner ORDER BY rows DESC LIMIT 1)
                 AND ((SELECT MAX(rows) FROM owner) > ?1 OR (SELECT SUM(rows) FROM owner) > ?2)
               ORDER BY a.at LIMIT 1)",
        )?;
        let bounds = (OWNER_ADDRESSES_MAX, ADDRESSES_MAX);
        statement.execute(bounds).map(drop)
    }

    /// Deletes the address record of a node.
    pub fn remove_address(&self, peer: &PeerId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting an address record",
            "DELETE FROM address WHERE peer_id = ?1",
        )?;
        statement.execute([peer.as_bytes()]).map(drop)
    }

    /// Deletes the address records that were not taken between two times.
    pub fn keep_addresses_between(
        &self,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting old address records",
            "DELETE FROM address WHERE at NOT BETWEEN ?1 AND ?2",
        )?;
        statement.execute((first.0, last.0)).map(drop)
    }

    /// Writes an introduction, in place of an earlier one of this node.
    pub fn put_introduction(&self, new: &Introduction) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT OR REPLACE INTO introduction ({INTRODUCTION})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        );
        let mut statement = self.prepare("writing an introduction", &sql)?;
        statement
            .execute((
                new.peer.as_bytes(),
                new.scope.0,
                new.scope_owner.as_bytes(),
                new.begun_at.0,
                new.next_at.0,
                new.failures,
                new.reached_at.map(|at| at.0),
            ))
            .map(drop)
    }

    /// Deletes an introduction.
    pub fn remove_introduction(&self, peer: &PeerId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting an introduction",
            "DELETE FROM introduction WHERE peer_id = ?1",
        )?;
        statement.execute([peer.as_bytes()]).map(drop)
    }
}

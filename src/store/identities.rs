//! A table derived from objects: the current key and home of each identity.
//!
//! `graph` verified the records. Invariant: every row can be rebuilt from the objects.

use keys::{Oid, PeerId, PublicKey};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::op_context::{PubkeyAttrId, Timestamp};

/// An identity or server whose record was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityRow {
    /// The identity's oid.
    pub oid: Oid,
    /// Local id of its Parent in `identities`.
    pub parent_id: i64,
    /// Local id of its `public_key` Attr.
    pub pubkey_attr_id: PubkeyAttrId,
    /// Number of its current key.
    pub key_id: u32,
    /// Its current key.
    pub public_key: PublicKey,
    /// Its home node. A server is its own home.
    pub home: PeerId,
    /// Counter of its home record. The record with the higher counter is valid.
    pub home_counter: u64,
    /// Its owner declared that it writes no more objects.
    pub retired: bool,
    /// Two home records with one counter exist. Its objects are refused until its owner rotates the
    /// key or the operator unfreezes it.
    pub frozen: bool,
    /// `change_seq` of the write that noted this home; 0 if its node had no session before, so that
    /// it gets every object by its cursors.
    pub home_since_seq: u64,
    /// Highest id of a scope at that write. Later scopes hold nothing from before it.
    pub home_since_scope: ScopeId,
    /// Time of its last move, as this node learned it; 0: none.
    pub home_moved_at: Timestamp,
}

const COLUMNS: &str = "oid, parent_id, pubkey_attr_id, key_id, public_key, home_peer, \
                       home_counter, retired, frozen, home_since_seq, home_since_scope, \
                       home_moved_at";

fn identity_row(row: &Row<'_>) -> rusqlite::Result<IdentityRow> {
    Ok(IdentityRow {
        oid: Oid::from_bytes(fixed(row, 0)?),
        parent_id: row.get(1)?,
        pubkey_attr_id: PubkeyAttrId(row.get(2)?),
        key_id: row.get(3)?,
        public_key: PublicKey::from_bytes(fixed(row, 4)?),
        home: PeerId::from_bytes(fixed(row, 5)?),
        home_counter: row.get(6)?,
        retired: row.get(7)?,
        frozen: row.get(8)?,
        home_since_seq: row.get(9)?,
        home_since_scope: ScopeId(row.get(10)?),
        home_moved_at: Timestamp(row.get(11)?),
    })
}

impl Rows<'_> {
    /// An identity or server by its oid.
    pub fn identity(&self, oid: &Oid) -> Result<Option<IdentityRow>, StoreError> {
        let mut statement = self.prepare(
            "reading an identity",
            &format!("SELECT {COLUMNS} FROM identity WHERE oid = ?1"),
        )?;
        statement.first([oid.as_bytes()], identity_row)
    }

    /// The identity whose current key is stored in that Attr.
    pub fn identity_by_pubkey_attr(
        &self,
        attr: PubkeyAttrId,
    ) -> Result<Option<IdentityRow>, StoreError> {
        let mut statement = self.prepare(
            "reading an identity by its key",
            &format!("SELECT {COLUMNS} FROM identity WHERE pubkey_attr_id = ?1"),
        )?;
        statement.first([attr.0], identity_row)
    }

    /// The identities whose home is a node, its server included, sorted by oid.
    pub fn identities_at(&self, home: &PeerId) -> Result<Vec<IdentityRow>, StoreError> {
        let mut statement = self.prepare(
            "reading the identities of a node",
            &format!("SELECT {COLUMNS} FROM identity WHERE home_peer = ?1 ORDER BY oid"),
        )?;
        statement.all([home.as_bytes()], identity_row)
    }

    /// The first `limit` identities whose home is a node, its server included, sorted by oid.
    pub fn first_identities_at(
        &self,
        home: &PeerId,
        limit: usize,
    ) -> Result<Vec<IdentityRow>, StoreError> {
        let mut statement = self.prepare(
            "reading the first identities of a node",
            &format!("SELECT {COLUMNS} FROM identity WHERE home_peer = ?1 ORDER BY oid LIMIT ?2"),
        )?;
        statement.all((home.as_bytes(), limit), identity_row)
    }

    /// The number of frozen identities.
    pub fn frozen_count(&self) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "counting frozen identities",
            "SELECT COUNT(*) FROM identity WHERE frozen = 1",
        )?;
        statement.one([], |row| row.get(0))
    }

    /// At most `limit` identities that follow `after` by oid, whose home is neither this node nor a
    /// trusted peer, and that have no petname.
    pub fn untrusted_identities(
        &self,
        this_node: &PeerId,
        after: Option<Oid>,
        limit: usize,
    ) -> Result<Vec<IdentityRow>, StoreError> {
        let mut statement = self.prepare(
            "listing identities of untrusted peers",
            &format!("SELECT {} {UNTRUSTED} ORDER BY i.oid LIMIT ?3", prefixed()),
        )?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        statement.all((this_node.as_bytes(), after, limit), identity_row)
    }

    /// The number of such identities; `max` if there are more.
    pub fn untrusted_identity_count(
        &self,
        this_node: &PeerId,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut statement = self.prepare(
            "counting identities of untrusted peers",
            &format!("SELECT COUNT(*) FROM (SELECT 1 {UNTRUSTED} LIMIT ?3)"),
        )?;
        let first: &[u8] = &[];
        statement.one((this_node.as_bytes(), first, max), |row| row.get(0))
    }

    /// At most `limit` identities and servers whose oid follows `after`, sorted by oid.
    pub fn identities(
        &self,
        after: Option<Oid>,
        limit: usize,
    ) -> Result<Vec<IdentityRow>, StoreError> {
        let mut statement = self.prepare(
            "listing identities",
            &format!("SELECT {COLUMNS} FROM identity WHERE oid > ?1 ORDER BY oid LIMIT ?2"),
        )?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        statement.all((after, limit), identity_row)
    }
}

/// The identities after the oid `?2` of peers that the node `?1` does not trust, without petnames.
/// A server has a row too, and its record is no identity.
const UNTRUSTED: &str = "FROM identity AS i \
     CROSS JOIN app_identities_parent AS r ON r.id = i.parent_id \
     WHERE i.oid > ?2 AND i.home_peer <> ?1 AND r.salt IS NULL AND r.origin IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM peers AS p \
       WHERE p.peer_id = i.home_peer AND p.tier = 'trusted') \
     AND NOT EXISTS (SELECT 1 FROM contact AS c WHERE c.identity_oid = i.oid)";

fn prefixed() -> String {
    let columns = COLUMNS.split(", ").map(str::trim);
    columns
        .map(|column| format!("i.{column}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl WriteTx<'_> {
    /// Inserts or replaces an identity.
    pub fn put_identity(&self, row: &IdentityRow) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing an identity",
            &format!(
                "INSERT OR REPLACE INTO identity ({COLUMNS})
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
            ),
        )?;
        statement.execute((
            row.oid.as_bytes(),
            row.parent_id,
            row.pubkey_attr_id.0,
            row.key_id,
            row.public_key.as_bytes(),
            row.home.as_bytes(),
            row.home_counter,
            row.retired,
            row.frozen,
            row.home_since_seq,
            row.home_since_scope.0,
            row.home_moved_at.0,
        ))?;
        Ok(())
    }

    /// Freezes or unfreezes an identity.
    pub fn set_frozen(&self, identity: &Oid, frozen: bool) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "freezing an identity",
            "UPDATE identity SET frozen = ?2 WHERE oid = ?1",
        )?;
        statement.execute((identity.as_bytes(), frozen))?;
        Ok(())
    }
}

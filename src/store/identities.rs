//! Derived indexes: whose key is current, where identities live, and who may read which scope.
//!
//! Never judges a record: `graph` verified it. Invariant: every row can be made again from the objects in the graph.

use keys::{Oid, PeerId, PublicKey};
use rusqlite::{OptionalExtension as _, Row};

use super::{Rows, SqlContext as _, StoreError, WriteTx, fixed};
use crate::op_context::{AppId, PubkeyAttrId};

/// An identity or server whose record was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityRow {
    /// Its name.
    pub oid: Oid,
    /// Local id of its Parent in `identities`.
    pub parent_id: i64,
    /// Local id of its `public_key` Attr.
    pub pubkey_attr_id: PubkeyAttrId,
    /// Number of its current key.
    pub key_id: u32,
    /// Its current key.
    pub public_key: PublicKey,
    /// The node where it lives.
    pub home: PeerId,
    /// Counter of its home record.
    pub home_counter: u64,
    /// Its owner said that it writes no more.
    pub retired: bool,
    /// Two homes were claimed under one counter: nothing of it is taken until its key is rotated, or the operator says so.
    pub frozen: bool,
}

const COLUMNS: &str =
    "oid, parent_id, pubkey_attr_id, key_id, public_key, home_peer, home_counter, retired, frozen";

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
    })
}

impl Rows<'_> {
    /// An identity or server by its oid.
    pub fn identity(&self, oid: &Oid) -> Result<Option<IdentityRow>, StoreError> {
        let context = "reading an identity";
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM identity WHERE oid = ?1"))
            .context(context)?;
        statement
            .query_row([oid.as_bytes()], identity_row)
            .optional()
            .context(context)
    }

    /// The identity whose current key is that Attr.
    pub fn identity_by_pubkey_attr(
        &self,
        attr: PubkeyAttrId,
    ) -> Result<Option<IdentityRow>, StoreError> {
        let context = "reading an identity by its key";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM identity WHERE pubkey_attr_id = ?1"
            ))
            .context(context)?;
        statement
            .query_row([attr.0], identity_row)
            .optional()
            .context(context)
    }

    /// Everybody who lives at a node, its server included, by oid.
    pub fn identities_at(&self, home: &PeerId) -> Result<Vec<IdentityRow>, StoreError> {
        let context = "reading who lives at a node";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM identity WHERE home_peer = ?1 ORDER BY oid"
            ))
            .context(context)?;
        let rows = statement
            .query_map([home.as_bytes()], identity_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// How many identities are frozen.
    pub fn frozen_count(&self) -> Result<u64, StoreError> {
        let context = "counting frozen identities";
        let mut statement = self
            .connection
            .prepare_cached("SELECT COUNT(*) FROM identity WHERE frozen = 1")
            .context(context)?;
        statement.query_row([], |row| row.get(0)).context(context)
    }

    /// All identities and servers known, by oid, from `after` on.
    pub fn identities(
        &self,
        after: Option<Oid>,
        limit: usize,
    ) -> Result<Vec<IdentityRow>, StoreError> {
        let context = "listing identities";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM identity WHERE oid > ?1 ORDER BY oid LIMIT ?2"
            ))
            .context(context)?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        let rows = statement
            .query_map((after, limit), identity_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// Whether an identity may read a scope.
    pub fn is_reader(&self, app: AppId, scope_id: i64, identity: &Oid) -> Result<bool, StoreError> {
        let context = "reading readers";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM reader WHERE identity_oid = ?1 AND app_id = ?2 AND scope_id = ?3",
            )
            .context(context)?;
        statement
            .exists((identity.as_bytes(), app.0, scope_id))
            .context(context)
    }

    /// Who may read a scope, by oid.
    pub fn readers(&self, app: AppId, scope_id: i64) -> Result<Vec<Oid>, StoreError> {
        let context = "reading readers";
        let mut statement = self
            .connection
            .prepare_cached("SELECT identity_oid FROM reader WHERE app_id = ?1 AND scope_id = ?2 ORDER BY identity_oid")
            .context(context)?;
        let rows = statement
            .query_map((app.0, scope_id), |row| fixed(row, 0).map(Oid::from_bytes))
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// Scopes of an app that both identities may read, oldest first.
    pub fn common_scopes(
        &self,
        app: AppId,
        one: &Oid,
        other: &Oid,
    ) -> Result<Vec<i64>, StoreError> {
        let context = "reading common scopes";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT a.scope_id FROM reader AS a JOIN reader AS b ON b.app_id = a.app_id AND b.scope_id = a.scope_id
                 WHERE a.app_id = ?1 AND a.identity_oid = ?2 AND b.identity_oid = ?3 ORDER BY a.scope_id",
            )
            .context(context)?;
        let rows = statement
            .query_map((app.0, one.as_bytes(), other.as_bytes()), |row| row.get(0))
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

impl WriteTx<'_> {
    /// Notes or replaces an identity.
    pub fn put_identity(&self, row: &IdentityRow) -> Result<(), StoreError> {
        let context = "noting an identity";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO identity ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            ))
            .context(context)?;
        statement
            .execute((
                row.oid.as_bytes(),
                row.parent_id,
                row.pubkey_attr_id.0,
                row.key_id,
                row.public_key.as_bytes(),
                row.home.as_bytes(),
                row.home_counter,
                row.retired,
                row.frozen,
            ))
            .context(context)?;
        Ok(())
    }

    /// Freezes an identity, or thaws it.
    pub fn set_frozen(&self, identity: &Oid, frozen: bool) -> Result<(), StoreError> {
        let context = "freezing an identity";
        let mut statement = self
            .connection
            .prepare_cached("UPDATE identity SET frozen = ?2 WHERE oid = ?1")
            .context(context)?;
        statement
            .execute((identity.as_bytes(), frozen))
            .context(context)?;
        Ok(())
    }

    /// Notes that an identity may read a scope.
    pub fn put_reader(&self, app: AppId, scope_id: i64, identity: &Oid) -> Result<(), StoreError> {
        let context = "noting a reader";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO reader (identity_oid, app_id, scope_id, since_seq) VALUES (?1, ?2, ?3, 0) ON CONFLICT DO NOTHING",
            )
            .context(context)?;
        statement
            .execute((identity.as_bytes(), app.0, scope_id))
            .context(context)?;
        Ok(())
    }
}

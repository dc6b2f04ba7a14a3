//! The pair of tables that each app has, made from its schema (SEED: `app_messages_parent`, `app_messages_attr`).
//!
//! Never takes a name from the network: slugs come from checked schemas, and their grammar allows no SQL.
//! Invariant: a bit of `sync_flags` means one domain for the life of the database.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};

use super::{SqlContext as _, StoreError};
use crate::op_context::AppId;
use crate::schema::Schemas;

/// One app's tables: its number here, and the statements for them, written once.
#[derive(Debug)]
pub struct AppTable {
    /// The app's number here.
    pub id: AppId,
    /// The slug.
    pub slug: String,
    pub(super) insert_parent: String,
    pub(super) update_parent: String,
    pub(super) insert_attr: String,
    pub(super) delete_attrs: String,
    pub(super) parent_by_oid: String,
    pub(super) parent_by_id: String,
    pub(super) oid_by_id: String,
    pub(super) attrs: String,
    pub(super) listing: String,
    pub(super) head: String,
    pub(super) by_oid: String,
    pub(super) made_here_in: String,
    pub(super) send_parent_again: String,
    pub(super) send_attrs_again: String,
    pub(super) signed_before: String,
    pub(super) put_signature: String,
}

/// All apps' tables, and the domains' bits.
#[derive(Debug)]
pub struct Apps {
    by_slug: BTreeMap<String, AppTable>,
    bits: BTreeMap<String, u32>,
}

const PARENT_COLUMNS: &str = "p.id, p.oid, p.type, p.owner_oid, p.scope_id, p.rev, p.deleted, p.key_id, p.signature, p.origin, p.change_seq, p.sync_flags";

impl AppTable {
    fn new(id: AppId, slug: &str) -> Self {
        let (parent, attr) = (format!("app_{slug}_parent"), format!("app_{slug}_attr"));
        Self {
            id,
            slug: slug.to_owned(),
            insert_parent: format!(
                "INSERT INTO {parent} (id, oid, type, owner_oid, scope_id, rev, deleted, key_id, signature, origin, change_seq, sync_flags)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
            ),
            update_parent: format!(
                "UPDATE {parent} SET rev = ?6, deleted = ?7, key_id = ?8, signature = ?9,
                   origin = ?10, change_seq = ?11, sync_flags = ?12
                 WHERE id = ?1"
            ),
            insert_attr: format!(
                "INSERT INTO {attr} (id, parent_id, type, ordinal, value, value_parent_id, change_seq, sync_flags)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ),
            delete_attrs: format!("DELETE FROM {attr} WHERE id BETWEEN (?1 << 16) AND ((?1 << 16) | 65535)"),
            parent_by_oid: format!("SELECT {PARENT_COLUMNS} FROM {parent} AS p WHERE p.oid = ?1"),
            parent_by_id: format!("SELECT {PARENT_COLUMNS} FROM {parent} AS p WHERE p.id = ?1"),
            oid_by_id: format!("SELECT oid FROM {parent} WHERE id = ?1"),
            attrs: format!(
                "SELECT a.type, a.value, a.value_parent_id, a.id FROM {attr} AS a
                 WHERE a.id BETWEEN (?1 << 16) AND ((?1 << 16) | 65535) ORDER BY a.id"
            ),
            listing: format!(
                "SELECT {PARENT_COLUMNS} FROM {parent} AS p
                 WHERE p.type = ?1 AND p.change_seq > ?2 ORDER BY p.change_seq, p.id LIMIT ?3"
            ),
            // Two scalar queries: SQLite answers a lone MAX from the index's end, but two in one query by reading every row.
            head: format!(
                "SELECT COALESCE((SELECT MAX(change_seq) FROM {parent}), 0), COALESCE((SELECT MAX(id) FROM {parent}), 0)"
            ),
            by_oid: format!("SELECT {PARENT_COLUMNS} FROM {parent} AS p WHERE p.oid > ?1 ORDER BY p.oid LIMIT ?2"),
            made_here_in: format!(
                "SELECT {PARENT_COLUMNS} FROM {parent} AS p
                 WHERE p.scope_id = ?1 AND p.origin IS NULL ORDER BY p.change_seq, p.id"
            ),
            send_parent_again: format!("UPDATE {parent} SET key_id = ?2, signature = ?3, change_seq = ?4 WHERE id = ?1"),
            send_attrs_again: format!(
                "UPDATE {attr} SET change_seq = ?2 WHERE id BETWEEN (?1 << 16) AND ((?1 << 16) | 65535)"
            ),
            signed_before: format!(
                "SELECT {PARENT_COLUMNS} FROM {parent} AS p
                 WHERE p.owner_oid = ?1 AND p.key_id < ?2 AND p.origin IS NULL ORDER BY p.change_seq, p.id LIMIT ?3"
            ),
            put_signature: format!("UPDATE {parent} SET key_id = ?2, signature = ?3 WHERE id = ?1"),
        }
    }

    /// The delta of one domain for one peer (docs/STORY.md 2.1 step 3). The mask is a literal so that the planner can use a
    /// partial index; `?2` is the peer, `?3` the app.
    pub(super) fn changed(&self, mask: i64) -> String {
        format!(
            "SELECT {PARENT_COLUMNS} FROM app_{slug}_parent AS p
             WHERE p.change_seq > ?1 AND (p.sync_flags & {mask}) != 0
               AND (p.scope_id IS NULL OR EXISTS (
                     SELECT 1 FROM reader AS r JOIN identity AS i ON i.oid = r.identity_oid
                     WHERE r.app_id = ?3 AND r.scope_id = p.scope_id AND i.home_peer = ?2))
             ORDER BY p.change_seq, p.id",
            slug = self.slug
        )
    }

    fn create(connection: &Connection, slug: &str) -> Result<(), StoreError> {
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS app_{slug}_parent (
                   id         INTEGER NOT NULL PRIMARY KEY,
                   oid        BLOB    NOT NULL UNIQUE,
                   type       INTEGER NOT NULL,   -- the schema's number
                   owner_oid  BLOB    NOT NULL,
                   scope_id   INTEGER,            -- the Parent whose readers decide; NULL: public or local
                   rev        INTEGER NOT NULL,
                   deleted    INTEGER NOT NULL,
                   key_id     INTEGER NOT NULL,   -- number of the owner's key that signed
                   signature  BLOB    NOT NULL,
                   origin     INTEGER REFERENCES peers (id),  -- the peer that sent it; NULL: made here
                   change_seq INTEGER NOT NULL,
                   sync_flags INTEGER NOT NULL    -- domains in which this node exports it
                 ) STRICT;
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_seq   ON app_{slug}_parent (change_seq);
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_scope ON app_{slug}_parent (scope_id, change_seq);
                 CREATE TABLE IF NOT EXISTS app_{slug}_attr (
                   id              INTEGER NOT NULL PRIMARY KEY,  -- parent_id << 16 | place: an object's Attrs lie together
                   parent_id       INTEGER NOT NULL REFERENCES app_{slug}_parent (id),
                   type            INTEGER NOT NULL,  -- the schema's number
                   ordinal         INTEGER NOT NULL,
                   value           ANY,
                   value_parent_id INTEGER REFERENCES app_{slug}_parent (id),
                   change_seq      INTEGER NOT NULL,
                   sync_flags      INTEGER NOT NULL
                 ) STRICT;"
            ))
            .context("making of an app's tables")
    }
}

impl Apps {
    /// Makes what is missing: tables of new apps, bits of new domains, partial indexes of apps with several domains.
    pub(super) fn open(connection: &Connection, schemas: &Schemas) -> Result<Self, StoreError> {
        let mut apps = Self {
            by_slug: BTreeMap::new(),
            bits: BTreeMap::new(),
        };
        for schema in schemas.apps() {
            connection
                .execute(
                    "INSERT INTO app (slug, version) VALUES (?1, ?2)
                     ON CONFLICT (slug) DO UPDATE SET version = MAX(version, excluded.version)",
                    (&schema.slug, schema.version),
                )
                .context("noting an app")?;
            AppTable::create(connection, &schema.slug)?;
            let several = schema.domains.len() > 1;
            for domain in &schema.domains {
                let bit = domain_bit(connection, &domain.name)?;
                if several {
                    let (slug, mask) = (&schema.slug, 1i64 << bit);
                    connection
                        .execute_batch(&format!(
                            "CREATE INDEX IF NOT EXISTS app_{slug}_parent_bit{bit} ON app_{slug}_parent (change_seq)
                             WHERE (sync_flags & {mask}) != 0"
                        ))
                        .context("making a domain's index")?;
                }
                apps.bits.insert(domain.name.clone(), bit);
            }
        }
        // Apps that are turned off count too: their rows hold sequence numbers that must not be given out again.
        let mut statement = connection
            .prepare("SELECT id, slug FROM app")
            .context("reading the apps")?;
        let known = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .context("reading the apps")?;
        for app in known {
            let (id, slug): (i64, String) = app.context("reading the apps")?;
            apps.by_slug
                .insert(slug.clone(), AppTable::new(AppId(id), &slug));
        }
        Ok(apps)
    }

    /// The tables of an app that is or was turned on here.
    pub fn get(&self, slug: &str) -> Option<&AppTable> {
        self.by_slug.get(slug)
    }

    /// All apps' tables, by slug, those of apps that are turned off included.
    pub fn iter(&self) -> impl Iterator<Item = &AppTable> {
        self.by_slug.values()
    }

    /// The mask of a domain in `sync_flags` (the story's `messages_domain_mask`); 0 where there is no such domain.
    pub fn mask(&self, domain: &str) -> i64 {
        self.bits.get(domain).map_or(0, |bit| 1 << bit)
    }
}

fn domain_bit(connection: &Connection, domain: &str) -> Result<u32, StoreError> {
    let known = connection
        .query_row(
            "SELECT bit FROM domain_bit WHERE domain = ?1",
            [domain],
            |row| row.get(0),
        )
        .optional()
        .context("reading a domain's bit")?;
    if let Some(bit) = known {
        return Ok(bit);
    }
    connection
        .query_row(
            "INSERT INTO domain_bit (domain, bit) SELECT ?1, COALESCE(MAX(bit) + 1, 0) FROM domain_bit RETURNING bit",
            [domain],
            |row| row.get(0),
        )
        .context("binding a domain to a bit (63 at most)")
}

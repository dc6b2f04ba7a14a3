//! The pair of tables of each app, such as `app_messages_parent` and `app_messages_attr`.
//!
//! Input: checked schemas. Table names contain the app's slug, and the grammar of slugs excludes
//! SQL syntax. Invariant: a bit of `sync_flags` keeps its domain for the life of the database.

use std::collections::BTreeMap;

use keys::protocol::RIGHTS_TYPE;
use rusqlite::Connection;

use super::app_schema::{LoadedApp, note_schema};
use super::domain_bits::{DomainBits, bit_of};
use super::domain_table::DomainTable;
use super::error::{SqlContext as _, StoreError};
use super::purge_sql::PurgeSql;
use super::scope_id::ScopeId;
use crate::op_context::AppId;
use crate::schema::{Schemas, parse_stored};

/// One app's tables: the app's local number, and the text of each statement on them.
#[derive(Debug)]
pub struct AppTable {
    /// The app's local number.
    pub id: AppId,
    /// The app's slug.
    pub slug: String,
    travel: Vec<Travel>,
    pub(super) insert_parent: String,
    pub(super) update_parent: String,
    pub(super) insert_attr: String,
    pub(super) delete_attrs: String,
    pub(super) parent_by_oid: String,
    pub(super) parent_by_id: String,
    pub(super) oid_by_id: String,
    pub(super) attrs: String,
    pub(super) listing: String,
    pub(super) created: String,
    pub(super) created_between: String,
    pub(super) own_in_scope: String,
    pub(super) head: String,
    pub(super) by_oid: String,
    pub(super) restamped_in_scope: String,
    pub(super) received_in_scope: String,
    pub(super) count_in_scope: String,
    pub(super) list_seen: String,
    pub(super) drop_values: String,
    pub(super) restamp_parent: String,
    pub(super) restamp_attrs: String,
    pub(super) value_bytes: String,
    pub(super) signed_before: String,
    pub(super) own_page: String,
    pub(super) change_origin: String,
    pub(super) list_before: String,
    pub(super) lists_before: String,
    pub(super) newest_of_scopes: String,
    pub(super) exported: String,
    pub(super) flag_parent: String,
    pub(super) flag_attrs: String,
    pub(super) purge: PurgeSql,
}

/// The types of the domain with a bit.
#[derive(Debug)]
struct Travel {
    bit: u8,
    types: Vec<u16>,
}

/// The tables of all apps, and the statements of all domains.
#[derive(Debug)]
pub struct Apps {
    by_slug: BTreeMap<String, AppTable>,
    domains: BTreeMap<String, DomainTable>,
}

/// The columns that `parents::parent_row` reads, in its order.
pub(super) const PARENT_COLUMNS: &str = "p.id, p.oid, p.type, p.owner_oid, p.scope_id, p.rev, \
    p.deleted, p.key_id, p.signature, p.origin, p.salt, p.rights_id, p.created_seq, p.change_seq, \
    p.sync_flags, p.account";

/// The ids of all Attrs of the Parent `?1` (see `AppTable::create`).
const ATTR_IDS: &str = "BETWEEN (?1 << 16) AND ((?1 << 16) | 65535)";

impl AppTable {
    /// The bits of the domains in which objects of a type travel, by the schema that was loaded
    /// last. So those of a disabled app are known too.
    pub fn flags_of(&self, type_number: u16) -> i64 {
        let domains = self.travel.iter();
        let domains = domains.filter(|domain| domain.types.contains(&type_number));
        domains.fold(0, |flags, domain| flags | 1i64 << domain.bit)
    }

    /// The types of the domain with a bit. `None`: the app has no such domain.
    pub fn types_of_bit(&self, bit: u8) -> Option<&[u16]> {
        let domain = self.travel.iter().find(|domain| domain.bit == bit);
        domain.map(|domain| domain.types.as_slice())
    }

    /// The bits of the app's domains.
    pub(super) fn bits(&self) -> impl Iterator<Item = u8> {
        self.travel.iter().map(|domain| domain.bit)
    }

    fn new(id: AppId, slug: &str, travel: Vec<Travel>) -> Self {
        let (parent, attr) = (format!("app_{slug}_parent"), format!("app_{slug}_attr"));
        let select = format!("SELECT {PARENT_COLUMNS} FROM {parent} AS p");
        Self {
            id,
            slug: slug.to_owned(),
            travel,
            insert_parent: format!(
                "INSERT INTO {parent} (id, oid, type, owner_oid, scope_id, rev, deleted, key_id,
                   signature, origin, salt, rights_id, created_seq, change_seq, sync_flags, account)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
            ),
            update_parent: format!(
                "UPDATE {parent} SET rev = ?6, deleted = ?7, key_id = ?8, signature = ?9,
                   origin = ?10, rights_id = ?12, created_seq = ?13, change_seq = ?14,
                   sync_flags = ?15, account = ?16
                 WHERE id = ?1"
            ),
            insert_attr: format!(
                "INSERT INTO {attr} (id, parent_id, type, ordinal, value, value_parent_id,
                   change_seq, sync_flags)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ),
            delete_attrs: format!("DELETE FROM {attr} WHERE id {ATTR_IDS}"),
            parent_by_oid: format!("{select} WHERE p.oid = ?1"),
            parent_by_id: format!("{select} WHERE p.id = ?1"),
            oid_by_id: format!("SELECT oid FROM {parent} WHERE id = ?1"),
            attrs: format!(
                "SELECT a.type, a.value, a.value_parent_id, a.id FROM {attr} AS a
                 WHERE a.id {ATTR_IDS} ORDER BY a.id"
            ),
            listing: format!(
                "{select} WHERE p.type = ?1 AND p.change_seq > ?2 AND p.rev > 0
                 ORDER BY p.change_seq, p.id"
            ),
            created: format!(
                "{select} WHERE p.type = ?1 AND p.created_seq > ?2 AND p.rev > 0
                 ORDER BY p.created_seq, p.id"
            ),
            created_between: format!(
                "SELECT p.scope_id, p.origin FROM {parent} AS p
                 WHERE p.created_seq > ?1 AND p.created_seq <= ?2
                 ORDER BY p.created_seq LIMIT ?3"
            ),
            own_in_scope: format!(
                "{select} WHERE p.id IN (
                   SELECT id FROM (SELECT id, type, rev, deleted, origin FROM {parent}
                                   WHERE scope_id = ?1 ORDER BY change_seq DESC LIMIT ?3)
                   WHERE type = ?2 AND origin IS NULL AND rev > 0 AND NOT deleted LIMIT ?4)"
            ),
            // Two scalar queries: SQLite answers a single MAX from the end of the index, but reads
            // every row for two of them in one query.
            head: format!(
                "SELECT COALESCE((SELECT MAX(change_seq) FROM {parent}), 0),
                        COALESCE((SELECT MAX(id) FROM {parent}), 0)"
            ),
            by_oid: format!("{select} WHERE p.oid > ?1 AND p.rev > 0 ORDER BY p.oid LIMIT ?2"),
            restamped_in_scope: format!(
                "{select} WHERE p.scope_id = ?1 AND p.change_seq > ?2 AND p.change_seq <= ?3
                   AND (p.origin IS NULL OR ?5) AND p.rev > 0
                 ORDER BY p.change_seq, p.id LIMIT ?4"
            ),
            received_in_scope: format!(
                "{select} WHERE p.scope_id = ?1 AND p.change_seq >= ?2 AND NOT p.deleted
                   AND p.origin IS NOT NULL
                 ORDER BY p.change_seq LIMIT ?3"
            ),
            // The row with the MAX gives the id, which SQLite guarantees for a single MAX.
            count_in_scope: format!(
                "SELECT COUNT(*), COUNT(seq), MAX(seq), id
                 FROM (SELECT id, CASE WHEN type = ?2 AND created_seq <= ?3 AND rev > 0
                         AND NOT deleted THEN created_seq END AS seq
                       FROM {parent} WHERE scope_id = ?1 ORDER BY change_seq DESC LIMIT ?4)"
            ),
            list_seen: format!(
                "SELECT r.id, r.digest, r.key_number, r.version, r.parent_id
                 FROM rights_list AS r LEFT JOIN {parent} AS p ON p.id = r.parent_id
                 WHERE r.scope_id = ?1 AND (r.parent_id IS NULL OR p.created_seq <= ?2)
                 ORDER BY r.key_number DESC, r.version DESC, r.digest DESC LIMIT 1"
            ),
            drop_values: format!(
                "UPDATE {parent} SET rev = 0, deleted = 1, key_id = 0, signature = zeroblob(64),
                   rights_id = NULL, sync_flags = 0
                 WHERE id = ?1"
            ),
            restamp_parent: format!(
                "UPDATE {parent} SET key_id = ?2, signature = ?3, change_seq = ?4, sync_flags = ?5
                 WHERE id = ?1"
            ),
            restamp_attrs: format!(
                "UPDATE {attr} SET change_seq = ?2, sync_flags = ?3 WHERE id {ATTR_IDS}"
            ),
            value_bytes: format!(
                "SELECT COALESCE(SUM(OCTET_LENGTH(value)), 0) FROM {attr} WHERE id {ATTR_IDS}"
            ),
            signed_before: format!(
                "{select} INDEXED BY {parent}_local
                 WHERE p.owner_oid = ?1 AND p.origin IS NULL AND p.rev > 0 AND p.key_id = (
                   SELECT MIN(o.key_id) FROM {parent} AS o INDEXED BY {parent}_local
                   WHERE o.owner_oid = ?1 AND o.key_id < ?2 AND o.origin IS NULL AND o.rev > 0)
                 ORDER BY p.change_seq LIMIT ?3"
            ),
            own_page: format!(
                "{select} INDEXED BY {parent}_local
                 WHERE p.owner_oid = ?1 AND p.origin IS NULL AND p.rev > 0
                   AND (p.key_id, p.change_seq, p.id) > (?2, ?3, ?4)
                 ORDER BY p.key_id, p.change_seq, p.id LIMIT ?5"
            ),
            change_origin: format!(
                "UPDATE {parent} SET origin = ?2, sync_flags = ?3, account = ?4 WHERE id = ?1"
            ),
            list_before: format!(
                "{select} INDEXED BY {parent}_lists
                 WHERE p.owner_oid = ?1 AND p.key_id < ?2 AND p.type = {RIGHTS_TYPE}
                   AND p.origin IS NULL AND p.rev > 0 LIMIT 1"
            ),
            lists_before: format!(
                "SELECT {PARENT_COLUMNS} FROM rights_list AS r INDEXED BY rights_list_order
                 CROSS JOIN {parent} AS p ON p.id = r.parent_id
                 WHERE r.scope_id = ?1 AND r.key_number < ?2 AND p.key_id < ?2
                   AND p.origin IS NULL AND p.rev > 0
                 ORDER BY r.key_number DESC, r.version DESC, r.digest DESC LIMIT ?3"
            ),
            exported: format!(
                "{select} INDEXED BY {parent}_seq
                 WHERE p.change_seq > ?1 AND p.change_seq <= ?2 AND (p.sync_flags != 0
                   OR p.scope_id > {public} AND p.rev > 0 AND p.origin IS NOT NULL)
                 ORDER BY p.change_seq, p.id LIMIT ?3",
                public = ScopeId::PUBLIC.0
            ),
            flag_parent: format!("UPDATE {parent} SET sync_flags = sync_flags | ?2 WHERE id = ?1"),
            flag_attrs: format!(
                "UPDATE {attr} SET sync_flags = sync_flags | ?2 WHERE id {ATTR_IDS}"
            ),
            purge: PurgeSql::new(&parent, PARENT_COLUMNS),
            newest_of_scopes: format!(
                "SELECT s.id, (SELECT p.change_seq FROM {parent} AS p INDEXED BY {parent}_scope
                               WHERE p.scope_id = s.id AND p.sync_flags > 0
                               ORDER BY p.change_seq DESC LIMIT 1),
                        (SELECT p.change_seq FROM {parent} AS p INDEXED BY {parent}_scope
                         WHERE p.scope_id = s.id AND p.sync_flags < 0
                         ORDER BY p.change_seq DESC LIMIT 1)
                 FROM scope AS s WHERE s.app_id = ?1 OR s.id = ?2"
            ),
        }
    }

    /// Creates an app's tables, unless they exist. The comments in this text are the documentation
    /// of the columns.
    pub(super) fn create(connection: &Connection, slug: &str) -> Result<(), StoreError> {
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS app_{slug}_parent (
                   id         INTEGER NOT NULL PRIMARY KEY,
                   oid        BLOB    NOT NULL UNIQUE,
                   type       INTEGER NOT NULL,   -- number in the schema
                   owner_oid  BLOB    NOT NULL,
                   scope_id   INTEGER NOT NULL REFERENCES scope (id),  -- never changes
                   rev        INTEGER NOT NULL,
                   deleted    INTEGER NOT NULL,
                   key_id     INTEGER NOT NULL,   -- number of the owner's key that signed
                   signature  BLOB    NOT NULL,
                   origin     INTEGER REFERENCES peers (id),  -- sending peer; NULL: made locally
                   salt       BLOB,               -- 8 bytes that the oid covers; NULL: identity
                   rights_id  INTEGER REFERENCES rights_list (id),  -- NULL: founding list or none
                   created_seq INTEGER NOT NULL,  -- change_seq since which the object is here
                   change_seq INTEGER NOT NULL,
                   sync_flags INTEGER NOT NULL,   -- domains in which this node exports it
                   account    INTEGER NOT NULL DEFAULT 0  -- of the sender in which it counts. 0:
                                                  -- its own, 1: the owner's, 2: the shared one,
                                                  -- 3: none, because its owner lived here
                 ) STRICT;
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_seq
                   ON app_{slug}_parent (change_seq, scope_id, sync_flags);
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_scope
                   ON app_{slug}_parent (scope_id, change_seq, sync_flags);
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_created
                   ON app_{slug}_parent (created_seq);
                 -- What a rotation re-signs: local objects by the key that signed them.
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_local
                   ON app_{slug}_parent (owner_oid, key_id, change_seq)
                   WHERE origin IS NULL AND rev > 0;
                 -- Rights lists among them, which come first.
                 CREATE INDEX IF NOT EXISTS app_{slug}_parent_lists
                   ON app_{slug}_parent (owner_oid, key_id)
                   WHERE origin IS NULL AND rev > 0 AND type = {RIGHTS_TYPE};
                 -- An id is parent_id << 16 | position, so that an object's Attrs are adjacent.
                 CREATE TABLE IF NOT EXISTS app_{slug}_attr (
                   id              INTEGER NOT NULL PRIMARY KEY,
                   parent_id       INTEGER NOT NULL REFERENCES app_{slug}_parent (id),
                   type            INTEGER NOT NULL,  -- number in the schema
                   ordinal         INTEGER NOT NULL,
                   value           ANY,               -- a reference: an oid
                   value_parent_id INTEGER REFERENCES app_{slug}_parent (id),  -- the scope, in
                                                      -- place of the reference that decides it
                   change_seq      INTEGER NOT NULL,
                   sync_flags      INTEGER NOT NULL
                 ) STRICT;"
            ))
            .context("creating an app's tables")
    }
}

impl Apps {
    /// Creates what is missing: tables of new apps, bits of new domains, and partial indexes of
    /// apps that have several domains.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if a schema cannot replace the stored one, or needs more bits than
    /// are left.
    pub(super) fn open<'s>(
        connection: &Connection,
        schemas: &'s Schemas,
    ) -> Result<(Self, Vec<LoadedApp<'s>>), StoreError> {
        let mut loaded = Vec::new();
        let mut apps = Self {
            by_slug: BTreeMap::new(),
            domains: BTreeMap::new(),
        };
        if let Some(refused) = DomainBits::read(connection)?.refused(schemas) {
            return Err(refused.into());
        }
        for schema in schemas.apps() {
            let before = note_schema(connection, schema)?;
            let mut new_bits = Vec::new();
            AppTable::create(connection, &schema.slug)?;
            let several = schema.domains.len() > 1;
            for domain in &schema.domains {
                let (bit, is_new) = bit_of(connection, &domain.name)?;
                new_bits.extend(is_new.then_some(bit));
                if several {
                    let (slug, mask) = (&schema.slug, 1i64 << bit);
                    connection
                        .execute_batch(&format!(
                            "CREATE INDEX IF NOT EXISTS app_{slug}_parent_bit{bit}
                               ON app_{slug}_parent (change_seq, scope_id, sync_flags)
                               WHERE (sync_flags & {mask}) != 0;
                             CREATE INDEX IF NOT EXISTS app_{slug}_parent_scope_bit{bit}
                               ON app_{slug}_parent (scope_id, change_seq, sync_flags)
                               WHERE (sync_flags & {mask}) != 0;"
                        ))
                        .context("creating a domain's index")?;
                }
                let table = DomainTable::new(&schema.slug, bit, several);
                apps.domains.insert(domain.name.clone(), table);
            }
            loaded.push(LoadedApp::new(schema, before, new_bits));
        }
        let bits = DomainBits::read(connection)?;
        // Disabled apps count too, because their rows hold sequence numbers that must not be
        // reused.
        let mut statement = connection
            .prepare("SELECT id, slug, text FROM app")
            .context("reading the apps")?;
        let known = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .context("reading the apps")?;
        for app in known {
            let (id, slug, text): (i64, String, Option<String>) =
                app.context("reading the apps")?;
            let stored = text.as_deref().and_then(parse_stored);
            let domains = stored.into_iter().flat_map(|stored| stored.domains);
            let travel = domains.filter_map(|domain| {
                let (bit, types) = (bits.of(&domain.name)?, domain.types);
                Some(Travel { bit, types })
            });
            let table = AppTable::new(AppId(id), &slug, travel.collect());
            apps.by_slug.insert(slug, table);
        }
        Ok((apps, loaded))
    }

    /// The tables of an app that is, or once was, enabled on this node.
    pub fn get(&self, slug: &str) -> Option<&AppTable> {
        self.by_slug.get(slug)
    }

    /// The tables of all apps, disabled ones included, sorted by slug.
    pub fn iter(&self) -> impl Iterator<Item = &AppTable> {
        self.by_slug.values()
    }

    /// The mask of a domain in `sync_flags` (the story's `messages_domain_mask`). 0 for an unknown
    /// domain, which selects no rows.
    pub fn mask(&self, domain: &str) -> i64 {
        self.domain(domain).map_or(0, |domain| domain.mask)
    }

    /// The statements of a domain of an enabled app.
    pub fn domain(&self, domain: &str) -> Option<&DomainTable> {
        self.domains.get(domain)
    }
}

//! The reference: the same rows written with SQLite only, into the same tables, indexes and
//! settings.
//!
//! Nothing is verified or computed, because all values are read before the measurement. Invariant:
//! the database then holds exactly the rows of the database from which they were read.

use std::path::Path;

use anyhow::Result;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, ToSql, TransactionBehavior, params};

type Oid = [u8; 16];

/// The rows of an object: Parent, Attrs, and scope with readers.
#[derive(Debug)]
pub(crate) struct Entity {
    parent: Parent,
    attrs: Vec<Attr>,
    scope: Option<Scope>,
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Parent {
    id: i64,
    oid: Oid,
    type_number: i64,
    owner_oid: Oid,
    scope_id: i64,
    rev: i64,
    deleted: i64,
    key_id: i64,
    signature: [u8; 64],
    origin: Option<i64>,
    salt: Option<[u8; 8]>,
    rights_id: Option<i64>,
    created_seq: i64,
    change_seq: i64,
    sync_flags: i64,
}

#[derive(Debug)]
struct Attr {
    id: i64,
    parent_id: i64,
    type_number: i64,
    ordinal: i64,
    value: AnyValue,
    value_parent_id: Option<i64>,
    change_seq: i64,
    sync_flags: i64,
}

#[derive(Debug)]
struct AnyValue(Value);

/// Binds by reference, because the measurement must not include copies that the other side avoids.
impl ToSql for AnyValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::from(&self.0)))
    }
}

#[derive(Debug)]
struct Scope {
    id: i64,
    app_id: i64,
    parent_id: i64,
    oid: Oid,
    list: List,
}

/// The founding rights list of a scope.
#[derive(Debug)]
struct List {
    id: i64,
    digest: [u8; 32],
    key_number: i64,
    entries: Vec<(Oid, i64)>,
}

#[derive(Debug)]
struct Reader {
    identity_oid: Oid,
    scope_id: i64,
    since_seq: i64,
}

/// Reads the objects of the messages app with local ids above `after_id`, in the order of the ids.
pub(crate) fn read(path: &Path, after_id: i64) -> Result<Vec<Entity>> {
    let connection = Connection::open(path)?;
    let mut parents = connection.prepare(
        "SELECT id, oid, type, owner_oid, scope_id, rev, deleted, key_id, signature, origin, \
         salt, rights_id, created_seq, change_seq, sync_flags
         FROM app_messages_parent WHERE id > ?1 ORDER BY id",
    )?;
    let mut attrs = connection.prepare(
        "SELECT id, parent_id, type, ordinal, value, value_parent_id, change_seq, sync_flags
         FROM app_messages_attr WHERE id BETWEEN (?1 << 16) AND ((?1 << 16) | 65535) ORDER BY id",
    )?;
    let mut readers = connection.prepare(
        "SELECT identity_oid, scope_id, since_seq FROM reader WHERE scope_id = ?1
         ORDER BY identity_oid",
    )?;
    let mut scopes = connection.prepare(
        "SELECT s.id, s.app_id, s.parent_id, s.oid, l.id, l.digest, l.key_number
         FROM scope AS s JOIN rights_list AS l ON l.scope_id = s.id AND l.version = 0
         WHERE s.id = ?1 AND s.parent_id = ?2",
    )?;
    let mut entries =
        connection.prepare("SELECT identity_oid, rights FROM rights_entry WHERE list_id = ?1")?;
    let parents = parents.query_map([after_id], |row| {
        Ok(Parent {
            id: row.get(0)?,
            oid: row.get(1)?,
            type_number: row.get(2)?,
            owner_oid: row.get(3)?,
            scope_id: row.get(4)?,
            rev: row.get(5)?,
            deleted: row.get(6)?,
            key_id: row.get(7)?,
            signature: row.get(8)?,
            origin: row.get(9)?,
            salt: row.get(10)?,
            rights_id: row.get(11)?,
            created_seq: row.get(12)?,
            change_seq: row.get(13)?,
            sync_flags: row.get(14)?,
        })
    })?;
    let mut entities = Vec::new();
    for parent in parents {
        let parent = parent?;
        let attrs = attrs.query_map([parent.id], |row| {
            Ok(Attr {
                id: row.get(0)?,
                parent_id: row.get(1)?,
                type_number: row.get(2)?,
                ordinal: row.get(3)?,
                value: AnyValue(row.get(4)?),
                value_parent_id: row.get(5)?,
                change_seq: row.get(6)?,
                sync_flags: row.get(7)?,
            })
        })?;
        let attrs = attrs.collect::<rusqlite::Result<_>>()?;
        let mut scope = scopes
            .query_row([parent.scope_id, parent.id], |row| {
                Ok(Scope {
                    id: row.get(0)?,
                    app_id: row.get(1)?,
                    parent_id: row.get(2)?,
                    oid: row.get(3)?,
                    list: List {
                        id: row.get(4)?,
                        digest: row.get(5)?,
                        key_number: row.get(6)?,
                        entries: Vec::new(),
                    },
                })
            })
            .optional()?;
        if let Some(scope) = &mut scope {
            let entries =
                entries.query_map([scope.list.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            scope.list.entries = entries.collect::<rusqlite::Result<_>>()?;
        }
        let readers =
            readers.query_map(scope.as_ref().map(|it| [it.id]).unwrap_or([-1]), |row| {
                Ok(Reader {
                    identity_oid: row.get(0)?,
                    scope_id: row.get(1)?,
                    since_seq: row.get(2)?,
                })
            })?;
        let readers = readers.collect::<rusqlite::Result<_>>()?;
        entities.push(Entity {
            parent,
            attrs,
            scope,
            readers,
        });
    }
    Ok(entities)
}

/// Returns the highest local id of the messages app.
pub(crate) fn last_id(path: &Path) -> Result<i64> {
    let connection = Connection::open(path)?;
    let sql = "SELECT COALESCE(MAX(id), 0) FROM app_messages_parent";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Opens a connection with the settings of the store's writer.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -64 * 1024)?;
    connection.pragma_update(None, "wal_autocheckpoint", 16_384)?;
    Ok(connection)
}

/// Writes objects in one transaction.
pub(crate) fn write(connection: &mut Connection, entities: &[Entity]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut parents = transaction.prepare_cached(
            "INSERT INTO app_messages_parent
               (id, oid, type, owner_oid, scope_id, rev, deleted, key_id, signature, origin,
                salt, rights_id, created_seq, change_seq, sync_flags)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?;
        let mut attrs = transaction.prepare_cached(
            "INSERT INTO app_messages_attr
               (id, parent_id, type, ordinal, value, value_parent_id, change_seq, sync_flags)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let mut readers = transaction.prepare_cached(
            "INSERT INTO reader (identity_oid, scope_id, since_seq) VALUES (?1, ?2, ?3)",
        )?;
        let mut scopes = transaction.prepare_cached(
            "INSERT INTO scope (id, app_id, parent_id, oid) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut lists = transaction.prepare_cached(
            "INSERT INTO rights_list (id, scope_id, digest, key_number, version)
             VALUES (?1, ?2, ?3, ?4, 0)",
        )?;
        let mut entries = transaction.prepare_cached(
            "INSERT INTO rights_entry (list_id, identity_oid, rights) VALUES (?1, ?2, ?3)",
        )?;
        for entity in entities {
            if let Some(it) = &entity.scope {
                scopes.execute(params![it.id, it.app_id, it.parent_id, it.oid])?;
                let list = &it.list;
                lists.execute(params![list.id, it.id, list.digest, list.key_number])?;
                for (identity, rights) in &list.entries {
                    entries.execute(params![list.id, identity, rights])?;
                }
            }
            let it = &entity.parent;
            parents.execute(params![
                it.id,
                it.oid,
                it.type_number,
                it.owner_oid,
                it.scope_id,
                it.rev,
                it.deleted,
                it.key_id,
                it.signature,
                it.origin,
                it.salt,
                it.rights_id,
                it.created_seq,
                it.change_seq,
                it.sync_flags
            ])?;
            for it in &entity.attrs {
                attrs.execute(params![
                    it.id,
                    it.parent_id,
                    it.type_number,
                    it.ordinal,
                    it.value,
                    it.value_parent_id,
                    it.change_seq,
                    it.sync_flags
                ])?;
            }
            for it in &entity.readers {
                readers.execute(params![it.identity_oid, it.scope_id, it.since_seq])?;
            }
        }
    }
    transaction.commit()
}

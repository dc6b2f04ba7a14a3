//! Parents and their Attrs: rows in, rows out.
//!
//! Never writes without a [`Granted`] for that very object. Invariant: a Parent and all its Attrs carry the same
//! `change_seq` and `sync_flags`, those of the write that made them what they are.

use keys::{Oid, Signature};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, OptionalExtension as _, Row, ToSql, ffi};

use super::{AppTable, Rows, SqlContext as _, StoreError, WriteTx, fixed};
use crate::acl::Granted;
use crate::object::Value;

/// A Parent as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRow {
    /// Local id, for joins only.
    pub id: i64,
    /// Global name.
    pub oid: Oid,
    /// The schema's number of its type.
    pub type_number: u16,
    /// Its owner.
    pub owner: Oid,
    /// Local id of the Parent whose readers decide.
    pub scope_id: Option<i64>,
    /// Revision.
    pub rev: u64,
    /// Deleted by its owner.
    pub deleted: bool,
    /// Number of the owner's key that signed.
    pub key_id: u32,
    /// The owner's signature.
    pub signature: Signature,
    /// The peer that sent it; none: made here.
    pub origin: Option<i64>,
    /// Of the write that made it what it is.
    pub change_seq: u64,
    /// Domains in which this node exports it.
    pub sync_flags: i64,
}

/// The value of an Attr as stored: a reference to a Parent becomes its local id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredValue<'v> {
    /// A value as it travels.
    Plain(&'v Value),
    /// `value_parent_id`.
    Parent(i64),
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(super) fn parent_row(row: &Row<'_>) -> rusqlite::Result<ParentRow> {
    Ok(ParentRow {
        id: row.get(0)?,
        oid: Oid::from_bytes(fixed(row, 1)?),
        type_number: row.get(2)?,
        owner: Oid::from_bytes(fixed(row, 3)?),
        scope_id: row.get(4)?,
        rev: row.get(5)?,
        deleted: row.get(6)?,
        key_id: row.get(7)?,
        signature: Signature::from_bytes(fixed(row, 8)?),
        origin: row.get(9)?,
        change_seq: row.get(10)?,
        sync_flags: row.get(11)?,
    })
}

impl Rows<'_> {
    /// A Parent by its oid.
    pub fn parent(&self, app: &AppTable, oid: &Oid) -> Result<Option<ParentRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&app.parent_by_oid)
            .context("reading a Parent")?;
        statement
            .query_row([oid.as_bytes()], parent_row)
            .optional()
            .context("reading a Parent")
    }

    /// A Parent by its local id.
    pub fn parent_by_id(&self, app: &AppTable, id: i64) -> Result<Option<ParentRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&app.parent_by_id)
            .context("reading a Parent")?;
        statement
            .query_row([id], parent_row)
            .optional()
            .context("reading a Parent")
    }

    /// An object's Attrs in order: attribute number and value, references as oids.
    pub fn attrs(&self, app: &AppTable, parent_id: i64) -> Result<Vec<(u16, Value)>, StoreError> {
        let context = "reading Attrs";
        let mut statement = self
            .connection
            .prepare_cached(&app.attrs)
            .context(context)?;
        let mut rows = statement.query([parent_id]).context(context)?;
        let mut attrs = Vec::with_capacity(4);
        while let Some(row) = rows.next().context(context)? {
            let value = match row.get_ref(1).context(context)? {
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
                ValueRef::Null => Value::from(&self.oid_of(app, row.get(2).context(context)?)?),
                ValueRef::Real(_) => {
                    return Err(StoreError::Inconsistent("a real number in an Attr"));
                }
            };
            attrs.push((row.get(0).context(context)?, value));
        }
        Ok(attrs)
    }

    /// The local id of an object's first Attr of that number.
    pub fn attr_id(
        &self,
        app: &AppTable,
        parent_id: i64,
        attr: u16,
    ) -> Result<Option<i64>, StoreError> {
        let context = "reading an Attr's id";
        let mut statement = self
            .connection
            .prepare_cached(&app.attrs)
            .context(context)?;
        let mut rows = statement.query([parent_id]).context(context)?;
        while let Some(row) = rows.next().context(context)? {
            if row.get::<_, u16>(0).context(context)? == attr {
                return row.get(3).map(Some).context(context);
            }
        }
        Ok(None)
    }

    fn oid_of(&self, app: &AppTable, id: i64) -> Result<Oid, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&app.oid_by_id)
            .context("reading an oid")?;
        statement
            .query_row([id], |row| fixed(row, 0))
            .map(Oid::from_bytes)
            .context("reading an oid")
    }

    /// Parents of one type with a later `change_seq`, oldest first.
    pub fn listing(
        &self,
        app: &AppTable,
        type_number: u16,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&app.listing)
            .context("listing")?;
        let rows = statement
            .query_map((type_number, after, limit), parent_row)
            .context("listing")?;
        rows.collect::<rusqlite::Result<_>>().context("listing")
    }

    /// The highest `change_seq` of all apps, and per app the highest local id.
    pub fn heads(&self) -> Result<(u64, Vec<(String, i64)>), StoreError> {
        let (mut head, mut ids) = (0, Vec::new());
        for app in self.apps.iter() {
            let mut statement = self
                .connection
                .prepare_cached(&app.head)
                .context("reading the head")?;
            let (seq, id): (u64, i64) = statement
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .context("reading the head")?;
            head = head.max(seq);
            ids.push((app.slug.clone(), id));
        }
        Ok((head, ids))
    }
}

/// Writes the Parents of one app. Its statements are prepared once for all that a transaction writes.
pub struct ParentWriter<'c> {
    insert_parent: CachedStatement<'c>,
    update_parent: CachedStatement<'c>,
    insert_attr: CachedStatement<'c>,
    delete_attrs: CachedStatement<'c>,
    send_parent_again: CachedStatement<'c>,
    send_attrs_again: CachedStatement<'c>,
}

impl<'c> WriteTx<'c> {
    /// What writes an app's Parents.
    pub fn parents(&self, app: &AppTable) -> Result<ParentWriter<'c>, StoreError> {
        let connection = self.connection;
        let prepare = |sql| {
            connection
                .prepare_cached(sql)
                .context("preparing to write Parents")
        };
        Ok(ParentWriter {
            insert_parent: prepare(&app.insert_parent)?,
            update_parent: prepare(&app.update_parent)?,
            insert_attr: prepare(&app.insert_attr)?,
            delete_attrs: prepare(&app.delete_attrs)?,
            send_parent_again: prepare(&app.send_parent_again)?,
            send_attrs_again: prepare(&app.send_attrs_again)?,
        })
    }
}

impl ParentWriter<'_> {
    /// Writes a new Parent with its Attrs.
    pub fn insert_parent(
        &mut self,
        parent: &ParentRow,
        attrs: &[(u16, u16, StoredValue<'_>)],
        granted: &Granted,
    ) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        execute(&mut self.insert_parent, parent).map_err(|source| match source.sqlite_error() {
            // Of the table's constraints only the oid's is of this kind.
            Some(error) if error.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE => {
                StoreError::Exists
            }
            _ => StoreError::Sqlite {
                context: "writing a Parent",
                source,
            },
        })?;
        self.insert_attrs(parent, attrs)
    }

    /// Replaces a Parent's revision and all its Attrs. Owner, type, oid and scope never change.
    pub fn update_parent(
        &mut self,
        parent: &ParentRow,
        attrs: &[(u16, u16, StoredValue<'_>)],
        granted: &Granted,
    ) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        let context = "updating a Parent";
        self.delete_attrs.execute([parent.id]).context(context)?;
        execute(&mut self.update_parent, parent).context(context)?;
        self.insert_attrs(parent, attrs)
    }

    /// Gives a Parent and its Attrs another `change_seq`, and the Parent a signature: what they say stays what it is.
    pub fn send_parent_again(
        &mut self,
        parent: &ParentRow,
        granted: &Granted,
    ) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        let context = "noting that a Parent is sent again";
        let (signature, change_seq) = (parent.signature.as_bytes(), parent.change_seq);
        self.send_parent_again
            .execute((parent.id, parent.key_id, signature, change_seq))
            .context(context)?;
        self.send_attrs_again
            .execute((parent.id, change_seq))
            .context(context)?;
        Ok(())
    }

    fn insert_attrs(
        &mut self,
        parent: &ParentRow,
        attrs: &[(u16, u16, StoredValue<'_>)],
    ) -> Result<(), StoreError> {
        for (place, (number, ordinal, stored)) in (0i64..).zip(attrs) {
            let (value, value_parent_id) = match stored {
                StoredValue::Plain(value) => (Some(*value), None),
                StoredValue::Parent(id) => (None, Some(*id)),
            };
            let id = (parent.id << 16) | place;
            self.insert_attr
                .execute((
                    id,
                    parent.id,
                    number,
                    ordinal,
                    value,
                    value_parent_id,
                    parent.change_seq,
                    parent.sync_flags,
                ))
                .context("writing Attrs")?;
        }
        Ok(())
    }
}

/// Runs `insert_parent` or `update_parent`, whose parameters are numbered alike.
fn execute(statement: &mut CachedStatement<'_>, parent: &ParentRow) -> rusqlite::Result<usize> {
    statement.execute((
        parent.id,
        parent.oid.as_bytes(),
        parent.type_number,
        parent.owner.as_bytes(),
        parent.scope_id,
        parent.rev,
        parent.deleted,
        parent.key_id,
        parent.signature.as_bytes(),
        parent.origin,
        parent.change_seq,
        parent.sync_flags,
    ))
}

fn check_granted(parent: &ParentRow, granted: &Granted) -> Result<(), StoreError> {
    if granted.oid() == parent.oid {
        Ok(())
    } else {
        Err(StoreError::Inconsistent("a grant for another object"))
    }
}

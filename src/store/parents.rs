//! Parents and their Attrs: reads, inserts, updates.
//!
//! Every write demands a [`Granted`] for the same object. Invariant: a Parent and all its Attrs
//! carry the same `change_seq` and `sync_flags`, those of the last write of the object.

use keys::protocol::RIGHTS_TYPE;
use keys::{Digest, Oid, Signature};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Row, ToSql, ffi};

use super::app_tables::AppTable;
use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use super::usage::Account;
use crate::acl::Granted;
use crate::object::{Salt, Value, is_core_type};

/// A Parent as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRow {
    /// Local id, for joins only. Other nodes use other ids.
    pub id: i64,
    /// Global id.
    pub oid: Oid,
    /// Number of its type in the schema.
    pub type_number: u16,
    /// The identity that owns it.
    pub owner: Oid,
    /// Its scope, which never changes.
    pub scope_id: ScopeId,
    /// Revision, raised by the owner at each change. 0: the object's scope ended and its values
    /// were dropped, so that the row counts as absent.
    pub rev: u64,
    /// Whether its owner deleted it. Then the row is a tombstone without Attrs.
    pub deleted: bool,
    /// Number of the owner's key that signed.
    pub key_id: u32,
    /// The owner's signature.
    pub signature: Signature,
    /// Local number of the peer that sent it. `None`: made on this node.
    pub origin: Option<i64>,
    /// Random bytes that its oid covers. `None`: an identity or a server.
    pub salt: Option<Salt>,
    /// Local id of the rights list that the author knew. `None`: the founding list, or no list.
    pub rights_id: Option<i64>,
    /// Sequence number of the write that inserted the object, or that made it live again after it
    /// was deleted or dropped. Re-stamping does not change it.
    pub created_seq: u64,
    /// Sequence number of the last write of the object.
    pub change_seq: u64,
    /// One bit for each domain in which this node exports it.
    pub sync_flags: i64,
    /// The account of its sender in which it counts.
    pub account: Account,
}

impl ParentRow {
    /// Whether its type is a core type.
    pub fn is_core(&self) -> bool {
        is_core_type(self.type_number)
    }

    /// Whether former readers of its scope receive it: those that could read when it was created.
    /// So they learn that an object was deleted, and which list removed them.
    pub fn reaches_former_readers(&self) -> bool {
        self.deleted || self.type_number == RIGHTS_TYPE
    }
}

/// The value of an Attr as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredValue<'v> {
    /// Column `value`: any value. A reference is an oid, whose target need not be stored.
    Plain(&'v Value),
    /// Column `value`: the digest of the rights list that a rights list replaces.
    Digest(&'v Digest),
    /// Column `value_parent_id`: the local id of the Parent that is the object's scope, in place of
    /// the reference that decides the scope.
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

/// Reads a row of `app_tables::PARENT_COLUMNS`.
pub(super) fn parent_row(row: &Row<'_>) -> rusqlite::Result<ParentRow> {
    let owner = Oid::from_bytes(fixed(row, 3)?);
    Ok(ParentRow {
        id: row.get(0)?,
        oid: Oid::from_bytes(fixed(row, 1)?),
        type_number: row.get(2)?,
        owner,
        scope_id: ScopeId(row.get(4)?),
        rev: row.get(5)?,
        deleted: row.get(6)?,
        key_id: row.get(7)?,
        signature: Signature::from_bytes(fixed(row, 8)?),
        origin: row.get(9)?,
        salt: row.get(10)?,
        rights_id: row.get(11)?,
        created_seq: row.get(12)?,
        change_seq: row.get(13)?,
        sync_flags: row.get(14)?,
        account: Account::of_number(row.get(15)?, owner),
    })
}

impl Rows<'_> {
    /// A Parent by its oid.
    pub fn parent(&self, app: &AppTable, oid: &Oid) -> Result<Option<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading a Parent", &app.parent_by_oid)?;
        statement.first([oid.as_bytes()], parent_row)
    }

    /// A Parent by its local id.
    pub fn parent_by_id(&self, app: &AppTable, id: i64) -> Result<Option<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading a Parent", &app.parent_by_id)?;
        statement.first([id], parent_row)
    }

    /// An object's Attrs in order: attribute number and value. Every reference comes as an oid.
    pub fn attrs(&self, app: &AppTable, parent_id: i64) -> Result<Vec<(u16, Value)>, StoreError> {
        let context = "reading Attrs";
        let mut statement = self.prepare(context, &app.attrs)?;
        let mut rows = statement.query([parent_id]).context(context)?;
        let mut attrs = Vec::with_capacity(4);
        while let Some(row) = rows.next().context(context)? {
            let value = match row.get_ref(1).context(context)? {
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
                ValueRef::Null => Value::from(&self.oid_of(app, row.get(2).context(context)?)?),
                ValueRef::Real(_) => {
                    return Err(StoreError::Inconsistent(
                        "a floating-point number in an Attr",
                    ));
                }
            };
            attrs.push((row.get(0).context(context)?, value));
        }
        Ok(attrs)
    }

    /// The local id of the first Attr with that attribute number in an object.
    pub fn attr_id(
        &self,
        app: &AppTable,
        parent_id: i64,
        attr: u16,
    ) -> Result<Option<i64>, StoreError> {
        let context = "reading an Attr's id";
        let mut statement = self.prepare(context, &app.attrs)?;
        let mut rows = statement.query([parent_id]).context(context)?;
        while let Some(row) = rows.next().context(context)? {
            if row.get::<_, u16>(0).context(context)? == attr {
                return row.get(3).map(Some).context(context);
            }
        }
        Ok(None)
    }

    /// The sum of the bytes of an object's values.
    pub fn value_bytes(&self, app: &AppTable, parent_id: i64) -> Result<usize, StoreError> {
        let mut statement = self.prepare("measuring Attrs", &app.value_bytes)?;
        statement.one([parent_id], |row| row.get(0))
    }

    fn oid_of(&self, app: &AppTable, id: i64) -> Result<Oid, StoreError> {
        let mut statement = self.prepare("reading an oid", &app.oid_by_id)?;
        statement
            .one([id], |row| fixed(row, 0))
            .map(Oid::from_bytes)
    }

    /// The highest `change_seq` of all apps, and the highest local id of each app, also those of
    /// rows that were removed.
    pub fn heads(&self) -> Result<(u64, Vec<(String, i64)>), StoreError> {
        let (mut head, mut ids) = (self.removed_head()?, Vec::new());
        let head_is_kept = head > 0;
        for app in self.apps.iter() {
            let mut statement = self.prepare("reading the highest sequence number", &app.head)?;
            let (seq, id): (u64, i64) = statement.one([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            head = head.max(seq);
            let id = match head_is_kept {
                true => id.max(self.removed_id(&app.slug)?),
                false => id,
            };
            ids.push((app.slug.clone(), id));
        }
        Ok((head, ids))
    }
}

/// Writes the Parents of one app. Holds prepared statements for the writes of one transaction.
pub struct ParentWriter<'c> {
    insert_parent: CachedStatement<'c>,
    update_parent: CachedStatement<'c>,
    insert_attr: CachedStatement<'c>,
    delete_attrs: CachedStatement<'c>,
    delete_parent: CachedStatement<'c>,
    restamp_parent: CachedStatement<'c>,
    restamp_attrs: CachedStatement<'c>,
    drop_values: CachedStatement<'c>,
    change_origin: CachedStatement<'c>,
}

impl<'c> WriteTx<'c> {
    /// Prepares the statements that write an app's Parents.
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
            delete_parent: prepare(&app.purge.delete_parent)?,
            restamp_parent: prepare(&app.restamp_parent)?,
            restamp_attrs: prepare(&app.restamp_attrs)?,
            drop_values: prepare(&app.drop_values)?,
            change_origin: prepare(&app.change_origin)?,
        })
    }
}

impl ParentWriter<'_> {
    /// Inserts a new Parent with its Attrs.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if its oid exists already.
    pub fn insert_parent(
        &mut self,
        parent: &ParentRow,
        attrs: &[(u16, u16, StoredValue<'_>)],
        granted: &Granted,
    ) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        execute(&mut self.insert_parent, parent).map_err(|source| match source.sqlite_error() {
            // `oid` has the only UNIQUE constraint of the table.
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

    /// Replaces a Parent's revision and all its Attrs. Owner, type, oid and scope do not change.
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

    /// Replaces the `change_seq` of a Parent and its Attrs, and the Parent's signature. The content
    /// does not change.
    pub fn restamp_parent(
        &mut self,
        parent: &ParentRow,
        granted: &Granted,
    ) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        let context = "restamping a Parent";
        let (signature, change_seq) = (parent.signature.as_bytes(), parent.change_seq);
        self.restamp_parent
            .execute((
                parent.id,
                parent.key_id,
                signature,
                change_seq,
                parent.sync_flags,
            ))
            .context(context)?;
        self.restamp_attrs
            .execute((parent.id, change_seq, parent.sync_flags))
            .context(context)?;
        Ok(())
    }

    /// Replaces the origin, the account and the `sync_flags` of an object whose owner moved.
    /// Content and `change_seq` do not change.
    pub fn change_origin(
        &mut self,
        parent: &ParentRow,
        granted: &Granted,
    ) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        let context = "changing the origin of a Parent";
        let account = parent.account.number();
        self.change_origin
            .execute((parent.id, parent.origin, parent.sync_flags, account))
            .context(context)?;
        self.restamp_attrs
            .execute((parent.id, parent.change_seq, parent.sync_flags))
            .context(context)?;
        Ok(())
    }

    /// Deletes the values of an object whose scope ended. The row stays, as revision 0, because its
    /// sender stays charged for it.
    pub fn drop_values(&mut self, parent: &ParentRow, granted: &Granted) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        let context = "dropping the values of an object";
        self.delete_attrs.execute([parent.id]).context(context)?;
        self.drop_values.execute([parent.id]).context(context)?;
        Ok(())
    }

    /// Removes an object. Nothing may refer to it, because a purge works without foreign keys.
    pub fn remove(&mut self, parent: &ParentRow, granted: &Granted) -> Result<(), StoreError> {
        check_granted(parent, granted)?;
        let context = "removing an object";
        self.delete_attrs.execute([parent.id]).context(context)?;
        self.delete_parent.execute([parent.id]).context(context)?;
        Ok(())
    }

    fn insert_attrs(
        &mut self,
        parent: &ParentRow,
        attrs: &[(u16, u16, StoredValue<'_>)],
    ) -> Result<(), StoreError> {
        for (position, (number, ordinal, stored)) in (0i64..).zip(attrs) {
            let (value, value_parent_id): (Option<&dyn ToSql>, _) = match stored {
                StoredValue::Plain(value) => (Some(*value), None),
                StoredValue::Digest(digest) => (Some(digest.as_bytes()), None),
                StoredValue::Parent(id) => (None, Some(*id)),
            };
            let id = (parent.id << 16) | position;
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
        parent.scope_id.0,
        parent.rev,
        parent.deleted,
        parent.key_id,
        parent.signature.as_bytes(),
        parent.origin,
        parent.salt,
        parent.rights_id,
        parent.created_seq,
        parent.change_seq,
        parent.sync_flags,
        parent.account.number(),
    ))
}

fn check_granted(parent: &ParentRow, granted: &Granted) -> Result<(), StoreError> {
    if granted.oid() == parent.oid {
        Ok(())
    } else {
        Err(StoreError::Inconsistent(
            "a grant that names another object",
        ))
    }
}

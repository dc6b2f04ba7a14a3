//! The objects that a node has stored, so that nodes can be compared.

use std::collections::BTreeMap;

use keys::{Oid, PeerId, Signature, SignedObject};
use postern::graph::load_object;
use postern::schema::identities;
use rusqlite::{Connection, OpenFlags};

use crate::TestNode;

/// An object as a node has stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The object's app.
    pub app: String,
    /// The object's owner.
    pub owner: Oid,
    /// The object's revision.
    pub rev: u64,
    /// Whether the object is a tombstone.
    pub is_deleted: bool,
    /// Number of the key that signed the object.
    pub key_id: u32,
    /// The bytes that the owner signed.
    pub bytes: Vec<u8>,
    /// The owner's signature.
    pub signature: Signature,
    /// The `change_seq` of the node that stored the object.
    pub change_seq: u64,
    /// The peer that sent the object, while it is known. `None`: the object was made here.
    pub origin: Option<PeerId>,
}

/// The part of a stored object that is the same at every node: revision, whether it is a tombstone,
/// key number, bytes.
pub type Replica<'o> = (u64, bool, u32, &'o [u8]);

/// Objects by their id.
pub type StoredObjects = BTreeMap<Oid, StoredObject>;

impl StoredObject {
    /// The object as a package carries it.
    pub fn signed(&self) -> SignedObject {
        SignedObject::from_parts(self.key_id, self.bytes.clone(), self.signature)
    }

    /// The part that is the same at every node.
    pub fn replica(&self) -> Replica<'_> {
        (self.rev, self.is_deleted, self.key_id, &self.bytes)
    }
}

/// The objects of one owner in one app.
pub fn replicas<'o>(
    objects: &'o StoredObjects,
    owner: Oid,
    app: &str,
) -> BTreeMap<Oid, Replica<'o>> {
    let own = objects
        .iter()
        .filter(|(_, it)| it.owner == owner && it.app == app);
    own.map(|(oid, it)| (*oid, it.replica())).collect()
}

impl TestNode {
    /// Every stored object except server identities, which never leave their node.
    pub fn stored_objects(&self) -> StoredObjects {
        let oids = self.stored_oids();
        self.read(move |view| {
            let mut all = BTreeMap::new();
            for (app, oid) in oids {
                let table = view.rows.apps().get(&app).unwrap();
                let row = view.rows.parent(table, &oid)?.unwrap();
                let (_, signed) = load_object(&view.rows, table, &row)?;
                let object = StoredObject {
                    app,
                    owner: row.owner,
                    rev: row.rev,
                    is_deleted: row.deleted,
                    key_id: row.key_id,
                    bytes: signed.bytes().to_vec(),
                    signature: *signed.signature(),
                    change_seq: row.change_seq,
                    origin: match row.origin {
                        Some(origin) => view.rows.peer_by_number(origin)?,
                        None => None,
                    },
                };
                assert!(all.insert(oid, object).is_none(), "{oid:?} is stored twice");
            }
            Ok(all)
        })
    }

    fn stored_oids(&self) -> Vec<(String, Oid)> {
        let mut oids = Vec::new();
        let connection =
            Connection::open_with_flags(self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        for app in self.apps() {
            let sql = format!("SELECT oid, type FROM app_{app}_parent WHERE change_seq > 0");
            let mut statement = connection.prepare(&sql).unwrap();
            let rows = statement.query_map([], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, u16>(1)?))
            });
            for row in rows.unwrap() {
                let (oid, type_number) = row.unwrap();
                if (&**app, type_number) != (identities::APP, identities::SERVER) {
                    oids.push((app.clone(), Oid::from_slice(&oid).unwrap()));
                }
            }
        }
        oids
    }
}

//! What a live node holds, object by object, so that nodes can be compared.
//!
//! Beside `live.rs`, which the test program has as its module `live`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by several test programs, each of which uses a part; helpers may fail like the tests themselves"
)]

use std::collections::BTreeMap;

use keys::{Oid, Signature, SignedObject};
use postern::graph::load_object;
use postern::object::{Attrs, Value};
use postern::schema::identities;
use rusqlite::{Connection, OpenFlags};

use crate::live::{ALL_APPS, LiveNode};

/// An object as a node holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub app: &'static str,
    pub owner: Oid,
    pub rev: u64,
    pub deleted: bool,
    pub key_id: u32,
    /// As its owner signed them.
    pub bytes: Vec<u8>,
    pub signature: Signature,
    /// At the node that holds it.
    pub change_seq: u64,
}

impl Held {
    /// As it travels.
    pub fn signed(&self) -> SignedObject {
        SignedObject::from_parts(self.key_id, self.bytes.clone(), self.signature)
    }

    /// What must be the same at every node.
    pub fn said(&self) -> (u64, bool, u32, &[u8]) {
        (self.rev, self.deleted, self.key_id, &self.bytes)
    }
}

/// Every object but the server identities, which never leave their node.
pub async fn held(node: &LiveNode) -> BTreeMap<Oid, Held> {
    let mut oids = Vec::new();
    let connection =
        Connection::open_with_flags(node.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for app in ALL_APPS {
        let mut statement = connection
            .prepare(&format!("SELECT oid, type FROM app_{app}_parent"))
            .unwrap();
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, u16>(1)?))
        });
        for row in rows.unwrap() {
            let (oid, type_number) = row.unwrap();
            if (app, type_number) != (identities::APP, identities::SERVER) {
                oids.push((app, Oid::from_slice(&oid).unwrap()));
            }
        }
    }
    node.read(move |view| {
        let mut all = BTreeMap::new();
        for (app, oid) in oids {
            let table = view.rows.apps().get(app).unwrap();
            let row = view.rows.parent(table, &oid)?.unwrap();
            let (_, signed) = load_object(&view.rows, table, &row)?;
            let one = Held {
                app,
                owner: row.owner,
                rev: row.rev,
                deleted: row.deleted,
                key_id: row.key_id,
                bytes: signed.bytes().to_vec(),
                signature: *signed.signature(),
                change_seq: row.change_seq,
            };
            assert!(all.insert(oid, one).is_none(), "{oid} is there twice");
        }
        Ok(all)
    })
    .await
}

/// Those of one owner and app.
pub fn of<'h>(
    held: &'h BTreeMap<Oid, Held>,
    owner: Oid,
    app: &str,
) -> BTreeMap<Oid, (u64, bool, u32, &'h [u8])> {
    let own = held
        .iter()
        .filter(|(_, it)| it.owner == owner && it.app == app);
    own.map(|(oid, it)| (*oid, it.said())).collect()
}

/// A ride's values.
pub fn ride(origin: &str) -> Option<Attrs> {
    Some(Attrs::from([
        (1, vec![Value::from(origin)]),
        (2, vec![Value::from("the sea")]),
        (3, vec![Value::from(1_800_000_000_000)]),
        (4, vec![Value::from(2)]),
    ]))
}

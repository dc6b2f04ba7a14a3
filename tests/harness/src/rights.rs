//! Rights lists and `leave`, and the readers of every scope recomputed from nothing.

use std::collections::{BTreeMap, BTreeSet};

use keys::protocol::{ACCEPT_TYPE, LEAVE_TYPE, RIGHTS_TYPE};
use keys::{Digest, Oid};
use postern::graph::{SaveError, Saved};
use postern::object::{
    Attrs, CoreRecord, Merges, Object, ObjectLimits, OidParts, Place, Rights, RightsList, ScopeList,
};
use rusqlite::{Connection, OpenFlags};

use crate::TestNode;
use crate::stored::{StoredObject, StoredObjects};

/// The open readers of each scope, by the scope's oid.
pub type ScopeReaders = BTreeMap<Oid, BTreeSet<Oid>>;

/// An object of a core type, which a hostile node may give any content.
pub fn core_object(
    (app, type_number): (&str, u16),
    salt: u8,
    owner: Oid,
    place: Place,
    attrs: Attrs,
) -> Object {
    let parts = OidParts {
        owner: &owner,
        app,
        type_number,
        place: &place,
    };
    Object {
        attrs: Some(attrs),
        ..Object::create(&parts, 1_700_000_000_000, [salt; 8])
    }
}

/// A rights list. Its owner is one of its entries.
pub fn list_object(
    app: &str,
    salt: u8,
    scope: Oid,
    version: u64,
    (owner, others): (Oid, &[(Oid, Rights)]),
) -> Object {
    let entries = others.iter().copied();
    let list: RightsList = entries.chain([(owner, Rights::READ_WRITE)]).collect();
    let list = ScopeList {
        scope,
        version,
        list,
        merges: Merges::default(),
    };
    let kind = (app, RIGHTS_TYPE);
    core_object(kind, salt, owner, Place::In(scope), list.attrs())
}

/// The digest of a rights list object.
pub fn digest_of(list: &Object) -> Digest {
    match CoreRecord::read(list) {
        Some(Ok(CoreRecord::Rights(list))) => list.digest(),
        other => panic!("no rights list: {other:?}"),
    }
}

impl TestNode {
    /// Changes the rights in a scope of the node's identity.
    pub fn set_rights(
        &self,
        app: &str,
        scope: Oid,
        changes: &[(Oid, Option<Rights>)],
    ) -> Result<Saved, SaveError> {
        let context = self.context(self.identity, app);
        let (app, changes) = (app.to_owned(), changes.to_vec());
        self.graph(move |graph| graph.save_rights(&context, &app, &scope, &changes))
    }

    /// Ends the right of the node's identity to read a scope.
    pub fn leave(&self, app: &str, scope: Oid) -> Result<Saved, SaveError> {
        let (context, identity) = (self.context(self.identity, app), self.identity);
        let app = app.to_owned();
        self.graph(move |graph| graph.save_leave(&context, &app, &scope, identity))
    }

    /// The open readers of each scope, as stored.
    pub fn stored_readers(&self) -> ScopeReaders {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(self.database(), flags).unwrap();
        let sql = "SELECT s.oid, r.identity_oid FROM reader AS r JOIN scope AS s \
                   ON s.id = r.scope_id WHERE r.until_seq IS NULL";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let mut readers = ScopeReaders::new();
        for row in rows.unwrap() {
            let (scope, identity): ([u8; 16], [u8; 16]) = row.unwrap();
            let scope = readers.entry(Oid::from_bytes(scope)).or_default();
            scope.insert(Oid::from_bytes(identity));
        }
        readers
    }

    /// The readers of each scope, recomputed from the stored objects alone.
    pub fn recomputed_readers(&self) -> ScopeReaders {
        let stored = self.stored_objects();
        let live = stored.values().filter(|it| it.rev > 0 && !it.is_deleted);
        let parents = live.filter_map(|it| Some((it, self.founding_list(it)?)));
        let readers = parents.map(|(parent, founding)| {
            let scope = decoded(parent).oid;
            let forked = self.stored_lists(scope);
            let readers = readers_of(scope, parent.key_id, (&founding, forked), &stored);
            (scope, readers)
        });
        readers.filter(|(_, it)| !it.is_empty()).collect()
    }

    /// Every list of a scope, as stored. One of them may have lost against another one with its
    /// oid, so that no object holds it.
    fn stored_lists(&self, scope: Oid) -> BTreeMap<Digest, (Order, RightsList)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(self.database(), flags).unwrap();
        let sql = "SELECT r.digest, r.key_number, r.version, e.identity_oid, e.rights
                   FROM scope AS s JOIN rights_list AS r ON r.scope_id = s.id
                   JOIN rights_entry AS e ON e.list_id = r.id WHERE s.oid = ?1";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([scope.as_bytes()], |row| {
            let (digest, identity): ([u8; 32], [u8; 16]) = (row.get(0)?, row.get(3)?);
            let order = (row.get(1)?, row.get(2)?, Digest::from_bytes(digest));
            Ok((order, Oid::from_bytes(identity), row.get(4)?))
        });
        let mut lists = BTreeMap::new();
        for row in rows.unwrap() {
            let (order, identity, bits): (Order, Oid, u8) = row.unwrap();
            let list = lists
                .entry(order.2)
                .or_insert((order, RightsList::default()));
            list.1.set(identity, Rights::from_bits(bits));
        }
        lists
    }

    fn founding_list(&self, object: &StoredObject) -> Option<RightsList> {
        let object = decoded(object);
        let schema = self.schemas().type_(&object.app, object.type_number)?;
        schema.founding_list(&object.owner, object.attrs.as_ref()?)
    }

    /// The scopes of this node's owners whose lists are to be merged, and those with several lists
    /// that no other list replaces.
    pub fn unmerged_scopes(&self) -> BTreeSet<Oid> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(self.database(), flags).unwrap();
        let sql = "SELECT s.oid FROM scope AS s WHERE s.id IN (SELECT scope_id FROM due_list) \
                   OR (SELECT COUNT(*) FROM rights_list AS r \
                       WHERE r.scope_id = s.id AND r.is_head = 1) > 1";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0).map(Oid::from_bytes));
        rows.unwrap().map(|oid| oid.unwrap()).collect()
    }

    /// Each `accept` that this node wrote, and its scope.
    pub fn own_accepts(&self) -> Vec<(Oid, Oid)> {
        let stored = self.stored_objects().into_iter();
        let own = stored.filter(|(_, it)| it.origin.is_none());
        let own = own.map(|(oid, it)| (oid, decoded(&it)));
        let accepts = own.filter(|(_, it)| it.type_number == ACCEPT_TYPE);
        let in_scope = accepts.filter_map(|(oid, it)| match it.place() {
            Place::In(scope) => Some((oid, scope)),
            _ => None,
        });
        in_scope.collect()
    }

    /// Fails unless the stored readers are those that follow from the stored objects.
    pub fn assert_readers(&self, when: &str) {
        assert_eq!(self.stored_readers(), self.recomputed_readers(), "{when}");
    }
}

fn decoded(object: &StoredObject) -> Object {
    Object::from_bytes(&object.bytes, &ObjectLimits::default()).unwrap()
}

/// The order of a list: key number, version, digest.
type Order = (u32, u64, Digest);

/// The readers of one live scope whose Parent has this key number.
fn readers_of(
    scope: Oid,
    key_id: u32,
    (founding, forked): (&RightsList, BTreeMap<Digest, (Order, RightsList)>),
    stored: &StoredObjects,
) -> BTreeSet<Oid> {
    let within = stored.values().filter(|it| it.rev > 0 && !it.is_deleted);
    let within = within.map(|it| (it.key_id, decoded(it)));
    let within: Vec<_> = within
        .filter(|(_, it)| it.place() == Place::In(scope))
        .collect();
    let founding_order: Order = (key_id, 0, founding.digest());
    let mut lists: BTreeMap<Digest, (Order, RightsList)> =
        BTreeMap::from([(founding.digest(), (founding_order, founding.clone()))]);
    for (key_id, object) in within.iter().filter(|(it, _)| *it >= key_id) {
        if let Some(Ok(CoreRecord::Rights(list))) = CoreRecord::read(object) {
            let order = (*key_id, list.version, list.digest());
            let known = lists.entry(list.digest()).or_insert((order, list.list));
            known.0 = known.0.max(order);
        }
    }
    for (digest, list) in forked.into_iter().filter(|(_, it)| it.0.0 >= key_id) {
        lists.entry(digest).or_insert(list);
    }
    let (order, rights) = lists.values().max_by_key(|(order, _)| *order).unwrap();
    let mut readers: BTreeSet<Oid> = rights.readers().copied().collect();
    for (_, leave) in within.iter().filter(|(_, it)| it.type_number == LEAVE_TYPE) {
        let named = leave.rights.unwrap_or(founding.digest());
        let version = lists.get(&named).map(|((_, version, _), _)| *version);
        if version.is_some_and(|version| version >= order.1) {
            readers.remove(&leave.owner);
        }
    }
    readers
}

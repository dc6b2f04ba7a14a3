//! Scopes of the hostile peer: conversations and cards that name honest readers, with rights lists
//! that fork, are back-dated and change quickly.
//!
//! The design promises that honest nodes agree on such a scope if they received the same objects.
//! They know the same lists, objects and readers then, whatever came first. A scope whose Parent
//! was deleted has no readers.

use std::collections::{BTreeMap, BTreeSet};

use keys::protocol::RIGHTS_TYPE;
use keys::{Digest, Oid};
use postern::object::{Object, Rights};
use postern::peer::message::{PackageBody, SessionMessage};
use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rusqlite::{Connection, OpenFlags};

use super::hostile::PATIENCE;
use super::world::World;
use crate::TestNode;
use crate::forge::salted;
use crate::rights::{digest_of, list_object};
use crate::values::{card, conversation, message};

/// Most scopes of the hostile peer in one run.
const SCOPES_MAX: usize = 6;
/// How often each node receives everything in the end, because little may wait at once.
const ROUNDS: usize = 3;

/// A scope of the hostile peer, with everything that it signed in it.
pub(super) struct HostileScope {
    app: &'static str,
    oid: Oid,
    objects: Vec<Object>,
}

/// The part of a scope on which nodes agree.
#[derive(Debug, PartialEq, Eq)]
struct Agreed {
    readers: BTreeSet<Oid>,
    /// By digest.
    lists: BTreeMap<Vec<u8>, Vec<(Vec<u8>, u8)>>,
    objects: BTreeSet<Vec<u8>>,
}

impl World {
    /// A push of what the hostile peer newly wrote in scopes of its own, and of earlier objects.
    pub(super) fn scope_push(&mut self, node: usize) -> Vec<Vec<u8>> {
        let app = ["messages", "contacts"][self.rng.random_range(0..2)];
        for _ in 0..self.rng.random_range(4..16) {
            self.write_hostile(app);
        }
        let of_app = self.hostile_scopes.iter().filter(|scope| scope.app == app);
        let mut objects: Vec<_> = of_app.flat_map(|scope| scope.objects.clone()).collect();
        objects.shuffle(&mut self.rng);
        objects.truncate(20);
        let mallory = &self.mallory.core;
        let signed = objects.iter().map(|object| mallory.sign(object)).collect();
        let victim = self.up(node).unwrap();
        let last_seq = victim.request(mallory, app).last_seq;
        let from_seq = if last_seq == 0 { 0 } else { last_seq + 1 };
        let package = mallory.package(victim, app, (from_seq, last_seq + 1), signed);
        let body = package.sign(&mallory.keys, &self.hostile_features(node));
        vec![SessionMessage::Push(PackageBody { id: 1, body }).encode()]
    }

    /// The oids of the hostile peer's scopes, to be requested by name.
    pub(super) fn hostile_oids(&self) -> Vec<Oid> {
        self.hostile_scopes.iter().map(|scope| scope.oid).collect()
    }

    fn write_hostile(&mut self, app: &'static str) {
        let owner = self.mallory.core.identity;
        let people: Vec<Oid> = self.memory.people.keys().copied().collect();
        let some = self.rng.random_range(1..=people.len().min(4));
        let people: Vec<Oid> = people.sample(&mut self.rng, some).copied().collect();
        let own = (0..self.hostile_scopes.len()).filter(|it| self.hostile_scopes[*it].app == app);
        let own: Vec<usize> = own.collect();
        let salt = self.rng.random_range(0..6);
        let Some(number) = own.choose(&mut self.rng).copied() else {
            return self.found_hostile(app, &people);
        };
        let scope = &self.hostile_scopes[number];
        let oid = scope.oid;
        let lists: Vec<Digest> = scope
            .objects
            .iter()
            .filter(|it| it.type_number == RIGHTS_TYPE)
            .map(digest_of)
            .collect();
        let named = match self.rng.random_range(0..4) {
            0 => None,
            _ => lists.choose(&mut self.rng).copied(),
        };
        let new = match self.rng.random_range(0..10) {
            0 if self.hostile_scopes.len() < SCOPES_MAX => return self.found_hostile(app, &people),
            // With few salts, so that many have one oid.
            1..6 => {
                let version = self.rng.random_range(1..8);
                let bits = |bits: u8| Rights::from_bits(1 + bits % 3).unwrap();
                let others = people.iter().map(|it| (*it, bits(self.rng.random())));
                let others: Vec<_> = others.collect();
                let list = list_object(app, salt, oid, version, (owner, &others));
                Object {
                    rights: named,
                    ..list
                }
            }
            6..9 if app == "messages" => {
                let text = format!("hostile {}", self.rng.random_range(0..9));
                let attrs = Some(message(oid, &text));
                Object {
                    rights: named,
                    ..salted((app, 2), [salt; 8], owner, 1, attrs)
                }
            }
            9 if app == "contacts" => Object {
                attrs: None,
                rev: 2,
                ..scope.objects[0].clone()
            },
            _ => return,
        };
        self.hostile_scopes[number].objects.push(new);
    }

    fn found_hostile(&mut self, app: &'static str, people: &[Oid]) {
        let owner = self.mallory.core.identity;
        let attrs = match app {
            "messages" => conversation(&[&[owner], people].concat()),
            _ => card(people[0], "hostile"),
        };
        let salt = self.rng.random();
        let parent = salted((app, 1), salt, owner, 1, Some(attrs));
        self.hostile_scopes.push(HostileScope {
            app,
            oid: parent.oid,
            objects: vec![parent],
        });
    }

    /// Lets the hostile peer meet the nodes again that forgot it.
    async fn meet_hostile_again(&mut self) {
        for number in 0..self.nodes.len() {
            let node = self.up(number).unwrap();
            let is_known = node.home_of(self.mallory.core.identity).is_some();
            if is_known && node.stored_peer(&self.mallory.core).is_none() {
                self.visit(number, Vec::new(), (None, Vec::new()));
            }
        }
        self.pass(2 * PATIENCE).await;
    }

    /// Gives all objects of the hostile peer to every node that admitted it, in an order of its
    /// own. Compares what the nodes know of its scopes.
    pub(super) async fn check_hostile_scopes(&mut self) -> Result<(), String> {
        self.meet_hostile_again().await;
        let nodes: Vec<usize> = (0..self.nodes.len())
            .filter(|number| {
                let node = self.up(*number).unwrap();
                // A rollback may lose its record, without which all its objects wait.
                node.home_of(self.mallory.core.identity).is_some()
                    && node.stored_peer(&self.mallory.core).is_some()
            })
            .collect();
        for scope in 0..self.hostile_scopes.len() {
            let mut first: Option<(usize, Agreed)> = None;
            for number in &nodes {
                let mut objects = self.hostile_scopes[scope].objects.clone();
                for _ in 0..ROUNDS {
                    objects.shuffle(&mut self.rng);
                    self.force_hostile(*number, scope, &objects)?;
                }
                let node = self.up(*number).unwrap();
                let scope = &self.hostile_scopes[scope];
                // A node drops the content of a scope that its identities declined.
                if self.unwanted(*number).contains(&scope.oid) {
                    continue;
                }
                let here = agreed(node, scope);
                match &first {
                    Some((other, there)) if *there != here => {
                        return Err(format!(
                            "nodes {other} and {number} differ in the hostile scope {:?}: \
                             {there:?}, {here:?}",
                            scope.oid
                        ));
                    }
                    Some(_) => {}
                    None => first = Some((*number, here)),
                }
            }
        }
        Ok(())
    }

    fn force_hostile(&self, node: usize, scope: usize, objects: &[Object]) -> Result<(), String> {
        let mallory = &self.mallory.core;
        for object in objects {
            let sent = vec![mallory.sign(object)];
            let app = self.hostile_scopes[scope].app;
            let node = self.up(node).unwrap();
            mallory
                .force(node, app, sent)
                .map_err(|error| format!("a hostile package was not applied: {error:?}"))?;
        }
        Ok(())
    }
}

/// The knowledge of a node of a hostile scope. Empty if the scope ended.
fn agreed(node: &TestNode, scope: &HostileScope) -> Agreed {
    let mut agreed = Agreed {
        readers: BTreeSet::new(),
        lists: BTreeMap::new(),
        objects: BTreeSet::new(),
    };
    let Some(row) = node.parent(scope.app, scope.oid).filter(|row| !row.deleted) else {
        return agreed;
    };
    agreed.readers = node.readers(scope.app, scope.oid).into_iter().collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(node.database(), flags).unwrap();
    let sql = "SELECT id, digest FROM rights_list WHERE scope_id = ?1";
    let mut lists = connection.prepare(sql).unwrap();
    let sql = "SELECT identity_oid, rights FROM rights_entry WHERE list_id = ?1";
    let mut entries = connection.prepare(sql).unwrap();
    let rows = lists.query_map([row.scope_id.0], |row| Ok((row.get(0)?, row.get(1)?)));
    for list in rows.unwrap() {
        let (id, digest): (i64, Vec<u8>) = list.unwrap();
        let rows = entries.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)));
        let entries = rows.unwrap().map(Result::unwrap).collect();
        agreed.lists.insert(digest, entries);
    }
    let oids = scope.objects.iter().map(|object| object.oid);
    let stored = oids.filter_map(|oid| node.object(scope.app, oid));
    agreed.objects = stored.map(|(_, signed)| signed.bytes().to_vec()).collect();
    agreed
}

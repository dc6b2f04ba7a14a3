//! Relay in a simulation: what nodes receive of others that they have not met.
//!
//! The oracle demands the closure of two linked nodes that offer the protocol feature `relay`. Each
//! has the objects that the other one stores in scopes that its identities read. The form is the
//! same or a later one.
//! Exempt are:
//!
//! - objects of identities that moved, and of scopes whose owner moved
//! - objects of the hostile peer, which [`World::check_hostile_scopes`] compares
//! - forms under an earlier key than the known one
//! - tombstones of scopes whose readers moved to the receiver
//! - objects of a scope that ended, and of one that the receiver lacks (its own Parent is reported)
//! - objects that the receiver refused, and those of a scope that it declined

use std::collections::BTreeSet;

use keys::Oid;
use keys::protocol::RIGHTS_TYPE;
use rusqlite::{Connection, OpenFlags};

use super::world::World;
use crate::stored::{StoredObject, StoredObjects};

/// Objects in scopes, each with its scope and with an identity that may read it: now, or until it
/// lost the right. Such an identity gets deletions and rights lists of that time. The name of an
/// app's table replaces `TABLE`.
const READABLE: &str = "SELECT p.oid, s.oid, r.identity_oid
    FROM reader AS r JOIN identity AS i ON i.oid = r.identity_oid
    JOIN scope AS s ON s.id = r.scope_id
    JOIN TABLE AS p ON p.scope_id = r.scope_id
    WHERE i.home_peer = ?1 AND p.rev > 0 AND (r.until_seq IS NULL
      OR (p.created_seq <= r.until_seq AND (p.deleted OR p.type = ?2)))";

/// The order of two forms of an object: a form with a higher value replaces one with a lower.
fn order(object: &StoredObject) -> (u32, bool, u64) {
    (object.key_id, object.is_deleted, object.rev)
}

impl World {
    /// Whether sessions of two nodes relay.
    pub(super) fn relays(&self, one: usize, other: usize) -> bool {
        let offers = |number: usize| {
            let offered = &self.nodes[number].offered;
            offered.has(bastion::Feature::Relay)
        };
        let meet = !self.apart.contains(&(one.min(other), one.max(other)));
        self.knows(one, other) && meet && offers(one) && offers(other)
    }

    /// Whether what a node wrote may reach another one: directly, or through nodes that relay.
    pub(super) fn hears_of(&self, number: usize, home: usize) -> bool {
        if number == home || self.may_know(number, home) || self.has_file_of(number, home) {
            return true;
        }
        let nodes = 0..self.nodes.len();
        let reached = nodes.clone().filter(|it| self.may_know(*it, home));
        let mut reached: BTreeSet<usize> = reached.collect();
        let relays = |number: usize| {
            let offered = &self.nodes[number].offered;
            offered.has(bastion::Feature::Relay)
        };
        let may_relay = |from: usize, to: usize| {
            self.relays(from, to)
                || self.has_file_of(to, from)
                || (self.may_know(from, to) && !self.knows(from, to) && relays(from) && relays(to))
        };
        loop {
            let next = nodes.clone().find(|it| {
                !reached.contains(it) && reached.iter().any(|from| may_relay(*from, *it))
            });
            match next {
                None => return false,
                Some(next) if next == number => return true,
                Some(next) => drop(reached.insert(next)),
            }
        }
    }

    /// Whether an object may be gone or older at its home: the home was set back, and the object
    /// came from another node. The home asks its peers once, and they may get it later.
    pub(super) fn outlasts(&self, object: &StoredObject, home: usize) -> bool {
        let home_peer = self.up(home).unwrap().peer_id();
        self.memory.set_back.contains(&home)
            && object.origin.is_some_and(|origin| origin != home_peer)
    }

    /// [`World::check_relayed`] of every node.
    pub(super) fn check_all_relayed(&self) -> Result<(), String> {
        let nodes = 0..self.nodes.len();
        let stored: Vec<_> = nodes
            .map(|number| self.up(number).unwrap().stored_objects())
            .collect();
        (0..stored.len()).try_for_each(|number| self.check_relayed(&stored, number))
    }

    /// Each linked node that relays has what this node stores for it.
    pub(super) fn check_relayed(
        &self,
        stored: &[StoredObjects],
        number: usize,
    ) -> Result<(), String> {
        for other in (0..stored.len()).filter(|other| self.relays(number, *other)) {
            let unwanted = self.unwanted(other);
            for (app, oid, scope) in self.readable(number, other) {
                let sent = &stored[number][&oid];
                let there = stored[other].get(&oid);
                let is_there = there
                    .is_some_and(|it| order(it) > order(sent) || it.replica() == sent.replica());
                let is_excused = unwanted.contains(&scope);
                if !is_there && !is_excused && !self.may_lack(stored, (number, other), (oid, scope))
                {
                    let made = self.memory.made.get(&oid);
                    return Err(format!(
                        "node {other} lacks {oid:?} of {app} and scope {scope:?}, which node \
                         {number} relays: {made:?}; {sent:?}; there {there:?}, {}",
                        self.reasons(other, &oid)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Objects of a node that another one may read, each with its app and its scope.
    fn readable(&self, number: usize, other: usize) -> BTreeSet<(String, Oid, Oid)> {
        let mut readable = BTreeSet::new();
        let (connection, peer) = (self.open(number), self.up(other).unwrap().peer_id());
        let apps = self.nodes[number].apps.iter();
        for app in apps.filter(|app| self.nodes[other].apps.contains(app)) {
            let sql = READABLE.replace("TABLE", &format!("app_{app}_parent"));
            let mut statement = connection.prepare(&sql).unwrap();
            let rows = statement.query_map((peer.as_bytes(), RIGHTS_TYPE), |row| {
                let oid = |column| row.get(column).map(Oid::from_bytes);
                Ok((oid(0)?, oid(1)?, oid(2)?))
            });
            for row in rows.unwrap() {
                let (oid, scope, reader) = row.unwrap();
                if self.memory.lives_at(other, &reader) {
                    readable.insert((app.clone(), oid, scope));
                }
            }
        }
        readable
    }

    /// Whether a node may lack what another one sends it.
    fn may_lack(
        &self,
        stored: &[StoredObjects],
        (number, other): (usize, usize),
        (oid, scope): (Oid, Oid),
    ) -> bool {
        let sent = &stored[number][&oid];
        let node = self.up(other).unwrap();
        let is_ended = |at: usize| stored[at].get(&scope).is_none_or(|it| it.is_deleted);
        let owner_of = |oid: &Oid| stored[number].get(oid).map(|it| it.owner);
        let owners = [Some(sent.owner), owner_of(&scope)].into_iter().flatten();
        let is_excused = |owner: Oid| self.memory.is_moving(&owner) || self.is_hostile(&owner);
        let owner = sent.owner;
        let known = node.read(move |view| view.rows.identity(&owner));
        owners.into_iter().any(is_excused)
            || self.memory.lives_at(other, &owner)
            || known.is_some_and(|known| known.key_id > sent.key_id)
            || (oid != scope && (is_ended(number) || is_ended(other)))
            || (!stored[other].contains_key(&oid) && self.is_unknown_tombstone(sent, other, oid))
    }

    /// Whether an object is the tombstone of a scope that a node never had. Its readers there moved
    /// to the node, and their files hold no scope that ended.
    fn is_unknown_tombstone(&self, sent: &StoredObject, other: usize, oid: Oid) -> bool {
        let lists = self.memory.lists.get(&oid).into_iter().flatten();
        let readers = lists.flat_map(|(_, readers)| readers);
        let mut there = readers.filter(|it| self.memory.lives_at(other, it));
        sent.is_deleted && there.all(|it| self.memory.has_moved(it))
    }

    fn reasons(&self, number: usize, oid: &Oid) -> String {
        let connection = self.open(number);
        let list = |sql: &str| -> String {
            let found = connection.query_row(sql, [oid.as_bytes()], |row| row.get(0));
            found.unwrap()
        };
        let waits = list(
            "SELECT COALESCE(group_concat(needs_kind || ' ' || hex(needs)), 'nothing')
             FROM waiting WHERE oid = ?1",
        );
        let refused =
            list("SELECT COALESCE(group_concat(code), 'not') FROM sync_rejects WHERE oid = ?1");
        format!("waits for {waits}, refused {refused}")
    }

    pub(super) fn open(&self, number: usize) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Connection::open_with_flags(self.up(number).unwrap().database(), flags).unwrap()
    }
}

//! Damage to a node after a run, which the oracle must find.

use rand::seq::IteratorRandom as _;
use rusqlite::Connection;

use super::members::is_scope;
use super::world::World;

/// A kind of damage to one object of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// A node loses an object of another node.
    Loss,
    /// A node loses an object of its own.
    OwnLoss,
    /// A node loses a message of a node that it has not met.
    RelayedLoss,
    /// A node has an earlier or later revision than the owner's home.
    Revision,
    /// A node gets an object that no node wrote.
    Invention,
    /// A node notes that the lists of a scope of its own have to be merged.
    Merging,
    /// A scope has two lists at its owner's home that no other list replaces.
    Heads,
    /// An object waits since 1970.
    Waiting,
    /// A recovery should have ended in 1970.
    Recovery,
    /// A node has received objects of a conversation whose Parent is deleted.
    Ended,
    /// An object of a node lacks the bits of its domains.
    Flags,
    /// An object waits for a schema.
    Schema,
    /// An object was refused by the schema.
    Refused,
    /// A node has something to push.
    Outbox,
    /// A node lost what its peers stated.
    Receipts,
    /// A peer counts more than it stored.
    Usage,
    /// A row refers to a missing one.
    Dangling,
}

impl Tamper {
    /// Whether it damages an object at its owner's home.
    fn is_at_home(self) -> bool {
        matches!(
            self,
            Self::OwnLoss | Self::Merging | Self::Heads | Self::Flags
        )
    }

    /// Whether it damages a scope.
    fn is_of_scope(self) -> bool {
        matches!(self, Self::Merging | Self::Heads | Self::Ended)
    }
}

impl World {
    /// Damages a public object or a scope at a random node.
    pub(super) fn tamper(&mut self, tamper: Tamper) {
        let nodes = 0..self.nodes.len();
        let objects = nodes.flat_map(|number| {
            let objects = self.up(number).unwrap().stored_objects();
            objects.into_iter().map(move |(oid, it)| (number, oid, it))
        });
        let fitting = objects.filter(|(number, oid, object)| {
            let made = self.memory.made.get(oid);
            let is_here = made.is_some_and(|made| made.home == *number);
            let is_fit = match tamper.is_of_scope() {
                true => made.is_some_and(|made| {
                    is_scope(made) && (tamper != Tamper::Ended || made.app == "messages")
                }),
                false if tamper == Tamper::RelayedLoss => made.is_some_and(|made| {
                    let is_message = made.app == "messages" && made.type_number == 2;
                    is_message && !self.knows(*number, made.home)
                }),
                false => object.app == "rides",
            };
            is_fit && !object.is_deleted && is_here == tamper.is_at_home()
        });
        let fitting: Vec<_> = fitting.collect();
        let (number, oid, _) = fitting.into_iter().choose(&mut self.rng).unwrap();
        let database = Connection::open(self.up(number).unwrap().database()).unwrap();
        database.pragma_update(None, "foreign_keys", false).unwrap();
        let sql = match tamper {
            Tamper::Loss | Tamper::OwnLoss => "DELETE FROM app_rides_parent WHERE oid = ?1",
            Tamper::RelayedLoss => "DELETE FROM app_messages_parent WHERE oid = ?1",
            Tamper::Revision => "UPDATE app_rides_parent SET rev = rev + 1 WHERE oid = ?1",
            Tamper::Invention => "UPDATE app_rides_parent SET oid = zeroblob(16) WHERE oid = ?1",
            Tamper::Merging => "INSERT INTO due_list SELECT id, 1, 0 FROM scope WHERE oid = ?1",
            Tamper::Heads => {
                "INSERT INTO rights_list (scope_id, digest, key_number, version, is_head)
                 SELECT id, randomblob(32), 9, value, 1
                 FROM scope, (SELECT 98 AS value UNION SELECT 99) WHERE oid = ?1"
            }
            Tamper::Waiting => {
                "INSERT INTO waiting (peer_no, domain, epoch, seq, oid, needs_kind, needs,
                   is_reclaimed, key_id, digest, bytes, signature, at)
                 SELECT id, 'rides', x'', 1, ?1, 1, ?1, 0, 1, x'', x'', x'', 0 FROM peers LIMIT 1"
            }
            Tamper::Recovery => {
                "INSERT INTO write_mode VALUES (1, 'new_objects_only', 'restored', 0, 1, ?1)"
            }
            Tamper::Flags => "UPDATE app_rides_parent SET sync_flags = 0 WHERE oid = ?1",
            Tamper::Schema => {
                "INSERT INTO waiting (peer_no, domain, epoch, seq, oid, needs_kind, needs,
                   is_reclaimed, key_id, digest, bytes, signature, at)
                 SELECT id, 'rides', x'', 1, ?1, 6, x'', 1, 1, x'', x'', x'', 0 FROM peers LIMIT 1"
            }
            Tamper::Refused => {
                "INSERT INTO sync_rejects (peer_id, domain, epoch, seq, oid, type, code, at)
                 VALUES (x'', 'rides', x'', 1, ?1, '', 'schema', 0)"
            }
            Tamper::Outbox => "INSERT INTO sync_outbox VALUES (x'', hex(?1), 1)",
            Tamper::Receipts => "DELETE FROM receipt WHERE ?1 IS NOT NULL",
            Tamper::Usage => {
                "UPDATE peers SET stored_objects = stored_objects + 1 WHERE ?1 IS NOT NULL"
            }
            Tamper::Dangling => "INSERT INTO overruled VALUES (987654, ?1, 0, NULL, 0, 0, 0)",
            Tamper::Ended => "UPDATE app_messages_parent SET deleted = 1 WHERE oid = ?1",
        };
        assert!(database.execute(sql, [oid.as_bytes()]).unwrap() > 0);
    }
}

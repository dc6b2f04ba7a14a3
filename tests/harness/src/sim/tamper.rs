//! Damage to a node after a run, which the oracle must find.

use rand::seq::IteratorRandom as _;
use rusqlite::Connection;

use super::world::World;

/// A kind of damage to one object of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// A node loses an object of another node.
    Loss,
    /// A node loses an object of its own.
    OwnLoss,
    /// A node has an earlier or later revision than the owner's home.
    Revision,
    /// A node gets an object that no node wrote.
    Invention,
}

impl World {
    /// Damages a public object at a random node.
    pub(super) fn tamper(&mut self, tamper: Tamper) {
        let is_own = tamper == Tamper::OwnLoss;
        let nodes = 0..self.nodes.len();
        let objects = nodes.flat_map(|number| {
            let objects = self.up(number).unwrap().stored_objects();
            objects.into_iter().map(move |(oid, it)| (number, oid, it))
        });
        let fitting = objects.filter(|(number, oid, object)| {
            let made = self.memory.made.get(oid);
            let is_here = made.is_some_and(|made| self.memory.home(made) == *number);
            object.app == "rides" && !object.is_deleted && is_here == is_own
        });
        let fitting: Vec<_> = fitting.collect();
        let (number, oid, _) = fitting.into_iter().choose(&mut self.rng).unwrap();
        let database = Connection::open(self.up(number).unwrap().database()).unwrap();
        database.pragma_update(None, "foreign_keys", false).unwrap();
        let sql = match tamper {
            Tamper::Loss | Tamper::OwnLoss => "DELETE FROM app_rides_parent WHERE oid = ?1",
            Tamper::Revision => "UPDATE app_rides_parent SET rev = rev + 1 WHERE oid = ?1",
            Tamper::Invention => "UPDATE app_rides_parent SET oid = zeroblob(16) WHERE oid = ?1",
        };
        assert_eq!(database.execute(sql, [oid.as_bytes()]).unwrap(), 1);
    }
}

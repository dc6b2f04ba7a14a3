//! Identities that move from one node to another in a simulation, at most once each.
//!
//! The old node rotates the key, retires the identity and gives its keys away. The new node signs a
//! record that names itself as the home, under a later key. The oracle demands of a move:
//!
//! - Every node that met the new home has the record of the new home. The old home is an exception:
//!   it does not give up the identity, and freezes it.
//! - The new home receives what the identity may read from every home that it met, except from the
//!   old home. Other nodes receive what the identity writes at its new home.
//! - Objects that it wrote at its old home stay there. Nodes that did not meet the new home receive
//!   them as before. Others may lack them: they refuse the earlier key, and the new home does not
//!   export them. A node that lost one of them in a restore may lack its own objects that need it.
//! - In a scope of the identity, objects that others write at its old home may be withheld. A node
//!   that lost the scope in a restore may lack its own objects of the scope too.

use postern::graph::IdentityProfile;
use postern::store::WriteMode;
use rand::SeedableRng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::memory::{Made, Person};
use super::world::World;

/// Highest key number of an identity that moves. A move adds two.
const KEY_MAX: u32 = 4;

impl World {
    /// One identity of a node moves to another node.
    pub(super) fn move_identity(&mut self, old: usize) {
        let mut rng = self.rng.fork();
        let live = self.up(old).unwrap();
        let people = self.memory.people.iter();
        let movable = people.filter(|(oid, person)| {
            let is_here = person.home == old && person.old_home.is_none() && person.published;
            is_here
                && live.home_of(**oid) == Some(live.peer_id())
                && live.keys.key_id(**oid).is_ok_and(|key| key <= KEY_MAX)
        });
        let Some(identity) = movable.map(|(oid, _)| *oid).choose(&mut rng) else {
            return;
        };
        let can_change = |number: &usize| {
            let node = self.up(*number);
            node.is_some_and(|node| node.write_mode() == WriteMode::ReadWrite)
        };
        let others: Vec<_> = (0..self.nodes.len())
            .filter(|number| *number != old && can_change(number))
            .collect();
        let Some(new) = others
            .choose(&mut rng)
            .copied()
            .filter(|_| can_change(&old))
        else {
            return;
        };
        self.rotate_identity(old, identity, &mut rng);
        if let Some(live) = self.up(old) {
            let retired = IdentityProfile {
                retired: true,
                ..IdentityProfile::named(Some("moved"))
            };
            let retired = live.graph(move |graph| graph.save_profile(identity, &retired));
            assert!(retired.is_ok(), "{retired:?}");
        }
        // The same draws give the same keys.
        let mut draws = self.key_draws[&identity].clone().into_iter();
        let keys = &self.up(new).unwrap().keys;
        let genesis = draws.next().map(|mut draw| keys.add_identity(&mut draw));
        assert_eq!(genesis.unwrap().unwrap(), identity);
        for mut draw in draws {
            keys.rotate(identity, &mut draw).unwrap();
        }
        self.key_draws.get_mut(&identity).unwrap().push(rng.clone());
        let live = self.up(new).unwrap();
        live.keys.rotate(identity, &mut rng).unwrap();
        let profile = IdentityProfile::named(Some("moved here"));
        let saved = live.graph(move |graph| graph.save_profile(identity, &profile));
        assert!(saved.is_ok(), "{saved:?}");
        let person = Person {
            home: new,
            old_home: Some(old),
            published: true,
        };
        self.memory.people.insert(identity, person);
    }

    /// Whether the move of an identity leaves the delivery of an object to a node as it was
    /// promised.
    pub(super) fn is_promised(&self, number: usize, made: &Made) -> bool {
        let scope = made.scope.and_then(|scope| self.memory.made.get(&scope));
        let scope_owner = scope.map(|scope| self.memory.people[&scope.owner]);
        if scope_owner.is_some_and(|owner| owner.old_home == Some(made.home)) && number != made.home
        {
            return false;
        }
        let owner = self.memory.people[&made.owner];
        match owner.old_home {
            None => true,
            Some(old) if made.home == old => {
                number == old || (number != owner.home && !self.may_know(number, owner.home))
            }
            Some(old) => number != old,
        }
    }
}

//! The oracle: compares what every node has in the end with what was written.

use std::collections::{BTreeMap, BTreeSet};

use keys::Oid;
use keys::protocol::{ACCEPT_TYPE, LEAVE_TYPE, RIGHTS_TYPE};
use postern::object::{Object, ObjectLimits, Place};
use postern::schema::identities;

use super::members::is_scope;
use super::memory::Made;
use super::world::World;
use crate::live::LiveNode;
use crate::stored::{StoredObject, StoredObjects};

/// Whether a node has the deletion of the scope in which an object lies.
fn is_deleted_at(objects: &StoredObjects, made: &Made) -> bool {
    let scope = made.scope.and_then(|scope| objects.get(&scope));
    scope.is_some_and(|scope| scope.is_deleted)
}

impl World {
    /// Compares every node with the memory. The error names the first difference.
    pub(super) fn check(&self) -> Result<(), String> {
        let nodes = 0..self.nodes.len();
        let stored: Vec<_> = nodes
            .map(|number| self.up(number).unwrap().stored_objects())
            .collect();
        let unwanted: Vec<_> = (0..stored.len()).map(|it| self.unwanted(it)).collect();
        self.check_secrecy()?;
        self.check_homes()?;
        self.check_owners(&stored)?;
        self.check_merged(&stored)?;
        self.check_deliveries()?;
        (0..stored.len()).try_for_each(|number| self.check_overdue(number))?;
        for (number, objects) in stored.iter().enumerate() {
            let is_dropped = |it: &StoredObject| it.rev == 0 && !unwanted[number].is_empty();
            for (oid, object) in objects.iter().filter(|(_, it)| !is_dropped(it)) {
                self.check_held(&stored, number, oid, object)?;
            }
            for (oid, made) in &self.memory.made {
                let lacks = !objects.contains_key(oid);
                let is_unwanted = made.scope.is_some_and(|it| unwanted[number].contains(&it));
                if lacks && !is_unwanted && self.must_have(&stored, number, oid, made) {
                    let home = made.home;
                    let aside = self.aside(number);
                    return Err(format!(
                        "node {number} lacks {oid:?} of node {home}, which it may see: {made:?}; \
                         there {aside}"
                    ));
                }
            }
            self.check_identities(&stored, number)?;
            self.check_readers(number, objects)?;
            self.check_removed(&stored, number)?;
            self.check_outbox(number)?;
            self.check_sight(number)?;
            self.check_consent(number)?;
            self.check_versions(number)?;
            self.check_whole(number)?;
            self.check_relayed(&stored, number)?;
            let node = self.up(number).unwrap();
            let (stored, recomputed) = (node.stored_readers(), node.recomputed_readers());
            if stored != recomputed {
                return Err(format!(
                    "node {number} has readers {stored:?}, its objects give {recomputed:?}"
                ));
            }
        }
        Ok(())
    }

    /// The objects that a node could not apply.
    fn aside(&self, number: usize) -> String {
        let node = self.up(number).unwrap();
        let mut tables = node.dump();
        tables.retain(|name, _| name == "waiting");
        let waiting: usize = tables.values().map(Vec::len).sum();
        format!(
            "{waiting} objects wait, and these were refused: {:?}",
            node.rejects()
        )
    }

    /// Nothing that must survive is missing at its owner's home, or there in a lower revision.
    fn check_owners(&self, stored: &[StoredObjects]) -> Result<(), String> {
        for (oid, made) in self.memory.made.iter().filter(|(_, made)| made.rev > 0) {
            let home = made.home;
            match stored[home].get(oid) {
                None if self.is_left_in_file(stored, made) => {}
                // The received one, whose values were dropped with the scope.
                Some(object) if object.rev == 0 && self.is_left_in_file(stored, made) => {}
                None => return Err(format!("node {home} lost its own {oid:?}: {made:?}")),
                Some(object) if object.rev < made.rev => {
                    let rev = object.rev;
                    return Err(format!("a lower revision, {rev}, won at home: {made:?}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Each scope has one list that no other list replaces or merges, if its Parent is live at its
    /// owner's home.
    fn check_merged(&self, stored: &[StoredObjects]) -> Result<(), String> {
        for (number, objects) in stored.iter().enumerate() {
            let unmerged = self.up(number).unwrap().unmerged_scopes();
            let is_live = |oid: &&Oid| objects.get(oid).is_some_and(|it| !it.is_deleted);
            if let Some(oid) = unmerged.iter().find(is_live) {
                let made = self.memory.made.get(oid);
                return Err(format!(
                    "node {number} has not merged the lists of {oid:?}: {made:?}"
                ));
            }
        }
        Ok(())
    }

    /// A stored object is one that the node may see, as it is at its owner's home.
    fn check_held(
        &self,
        stored: &[StoredObjects],
        number: usize,
        oid: &Oid,
        object: &StoredObject,
    ) -> Result<(), String> {
        if object.app == identities::APP {
            return Ok(());
        }
        if self.is_hostile(&object.owner) {
            return match self.memory.made.get(oid) {
                None => Ok(()),
                Some(made) => Err(format!(
                    "the hostile peer took {oid:?} at {number}: {made:?}"
                )),
            };
        }
        let Some(made) = self.memory.made.get(oid) else {
            if self.is_of_its_home(stored, number, oid, object) {
                return Ok(());
            }
            return Err(format!(
                "node {number} has {oid:?}, which no node wrote: {object:?}"
            ));
        };
        if !self.may_have(number, made) {
            return Err(format!(
                "node {number} has {oid:?}, which it may not see: {made:?}"
            ));
        }
        let home = made.home;
        let is_linked = number == home || self.knows(number, home);
        match stored[home].get(oid) {
            // No peer of the restored home had it when the home asked.
            None if made.rev == 0 && self.outlasts(object, home) => Ok(()),
            // A restored home lacks what its own objects need, if no peer sends it.
            None if !self.are_needs_sent(home, made) => Ok(()),
            None if self.is_left_in_file(stored, made) => Ok(()),
            // A restored home drops objects of a scope that was deleted meanwhile.
            None if made.rev == 0 && is_deleted_at(&stored[home], made) => Ok(()),
            None => {
                let aside = self.aside(home);
                Err(format!(
                    "node {number} has {oid:?}, its home {home} has not: {made:?}; there {aside}"
                ))
            }
            Some(at_home)
                if at_home.replica() != object.replica()
                    && is_linked
                    && !self.outlasts(object, home)
                    && self.is_served(number, made)
                    && !self.is_ended(stored, made) =>
            {
                let (owner, aside) = (made.owner, self.aside(number));
                let node = self.up(number).unwrap();
                let known = node.read(move |view| view.rows.identity(&owner));
                Err(format!(
                    "node {number} has another {oid:?} than its home {home}: {object:?}, \
                     {at_home:?}; there {aside}, and its owner is {known:?}, {:?}",
                    self.memory.people.get(&owner)
                ))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a node may have an object.
    fn may_have(&self, number: usize, made: &Made) -> bool {
        let home = made.home;
        let has_app = self.nodes[number].apps.contains(&made.app);
        let mut homes = self.memory.homes_of(&made.owner).into_iter().chain([home]);
        let is_listed = made.scope.is_some_and(|scope| self.is_listed_scope(&scope));
        has_app
            && (is_listed || homes.any(|home| self.hears_of(number, home)))
            && (number == home
                || self.memory.could_read(number, made)
                || self.is_of_hostile_scope(made))
    }

    /// Whether an object lies in a scope of a hostile peer, whose lists the memory lacks.
    fn is_of_hostile_scope(&self, made: &Made) -> bool {
        made.scope.is_some_and(|scope| {
            self.hostile_oids().contains(&scope) || self.is_listed_scope(&scope)
        })
    }

    /// Whether a node must have an object: its home has it, and nothing that it needs is missing.
    fn must_have(&self, stored: &[StoredObjects], number: usize, oid: &Oid, made: &Made) -> bool {
        let at_home = stored[made.home].get(oid);
        let has_needed = |oid: &Oid| {
            self.memory.made.get(oid).is_some_and(|made| {
                let home = made.home;
                let is_deleted = stored[home].get(oid).map(|object| object.is_deleted);
                match is_deleted {
                    None => false,
                    Some(_) if home == number => true,
                    Some(false) => self.must_have(stored, number, oid, made),
                    Some(true) => self.may_have(number, made),
                }
            })
        };
        at_home.is_some_and(|object| !object.is_deleted)
            && self.may_have(number, made)
            && (number == made.home || self.knows(number, made.home))
            && self.is_served(number, made)
            && !self.is_ended(stored, made)
            && made.needs.iter().all(has_needed)
    }

    /// Whether the home of an object sends it to a node: an identity there may read its scope.
    fn is_served(&self, number: usize, made: &Made) -> bool {
        let home = made.home;
        let Some(scope) = made.scope.filter(|_| number != home) else {
            return true;
        };
        let at_home = self.up(home).unwrap();
        let is_known = at_home.parent(&made.app, scope).is_some();
        let readers = is_known.then(|| at_home.readers(&made.app, scope));
        let mut readers = readers.into_iter().flatten();
        readers.any(|reader| self.memory.lives_at(number, &reader))
    }

    /// Whether the home of an object's scope sends the scope to a node.
    fn is_scope_served(&self, number: usize, made: &Made) -> bool {
        let scope = made.scope.and_then(|scope| self.memory.made.get(&scope));
        scope.is_none_or(|scope| self.is_served(number, scope))
    }

    /// Whether peers send a node the scope of an object and the objects that it needs.
    fn are_needs_sent(&self, number: usize, made: &Made) -> bool {
        let mut needs = made
            .needs
            .iter()
            .filter_map(|oid| self.memory.made.get(oid));
        self.is_scope_served(number, made)
            && needs.all(|needed| self.are_needs_sent(number, needed))
    }

    /// Whether the scope of an object was deleted.
    fn is_ended(&self, stored: &[StoredObjects], made: &Made) -> bool {
        made.needs.iter().any(|needed| {
            self.memory.made.get(needed).is_some_and(|scope| {
                let at_home = stored[scope.home].get(needed);
                is_scope(scope) && at_home.is_some_and(|object| object.is_deleted)
            })
        })
    }

    /// Every node that has met an identity's home has its record as it is there, and no other.
    fn check_identities(&self, stored: &[StoredObjects], number: usize) -> Result<(), String> {
        let here = stored[number]
            .iter()
            .filter(|(_, object)| object.app == identities::APP);
        let here: BTreeMap<_, _> = here.collect();
        for (oid, person) in self.memory.people.iter().filter(|it| it.1.published) {
            let is_met = number == person.home || self.knows(number, person.home);
            let mut homes = [Some(person.home), person.old_home].into_iter().flatten();
            let is_heard_of = homes.any(|home| self.hears_of(number, home));
            let at_home = stored[person.home].get(oid);
            match (here.get(oid), at_home) {
                (None, Some(_)) if is_met => {
                    return Err(format!(
                        "node {number} lacks the record of {oid:?}: {person:?}"
                    ));
                }
                (Some(_), _) if !is_met && (is_heard_of || self.is_told(oid)) => {}
                (Some(_), _) if !is_met => {
                    return Err(format!(
                        "node {number} has the record of {oid:?}: {person:?}"
                    ));
                }
                (Some(object), Some(at_home)) if object.replica() != at_home.replica() => {
                    return Err(format!(
                        "node {number} has another record of {oid:?} than its home: {person:?}"
                    ));
                }
                _ => {}
            }
        }
        let is_known = |oid: &Oid| self.memory.people.contains_key(oid) || self.is_hostile(oid);
        match here.keys().find(|oid| !is_known(oid)) {
            Some(oid) => Err(format!(
                "node {number} has the record of {oid:?}, which belongs to no node"
            )),
            None => Ok(()),
        }
    }

    /// Whether an object is a rights list or an `accept` that its owner's home wrote by itself and
    /// has.
    fn is_of_its_home(
        &self,
        stored: &[StoredObjects],
        number: usize,
        oid: &Oid,
        object: &StoredObject,
    ) -> bool {
        let decoded = Object::from_bytes(&object.bytes, &ObjectLimits::default());
        let by_itself = [RIGHTS_TYPE, ACCEPT_TYPE];
        let core = decoded
            .ok()
            .filter(|it| by_itself.contains(&it.type_number));
        let scope = core.as_ref().map(Object::place);
        // A restored home lacks what its own objects need, if no peer sends it.
        let lacks_scope = |home: &usize| match scope {
            Some(Place::In(scope)) => {
                self.memory.set_back.contains(home) && !stored[*home].contains_key(&scope)
            }
            _ => false,
        };
        let owner = self.memory.people.get(&object.owner);
        let homes = owner.map(|owner| [Some(owner.home), owner.old_home]);
        let mut homes = homes.into_iter().flatten().flatten();
        let is_there = |home: usize| {
            stored[home].contains_key(oid)
                || (self.hears_of(number, home) && self.outlasts(object, home))
        };
        // A restored home does not take back what it wrote in a scope that ended meanwhile. Without
        // values, the object does not show its type.
        let is_dropped = object.rev == 0 && owner.is_some();
        is_dropped || (core.is_some() && homes.any(|home| is_there(home) || lacks_scope(&home)))
    }

    /// A node that met the home of a scope has a list that removed its identity, if the scope's
    /// home has one. An identity that left before has none.
    fn check_removed(&self, stored: &[StoredObjects], number: usize) -> Result<(), String> {
        let memory = &self.memory;
        for ((scope, reader), lists) in &memory.closing {
            let made = &memory.made[scope];
            let home = made.home;
            let is_live = |at: usize| stored[at].get(scope).is_some_and(|it| !it.is_deleted);
            let is_meant = memory.lives_at(number, reader)
                && self.knows(number, home)
                && !memory.has_left(scope, reader)
                && is_live(number)
                && is_live(home);
            let mut at_home = lists.iter().filter(|list| stored[home].contains_key(list));
            if is_meant
                && at_home.clone().next().is_some()
                && !at_home.any(|list| stored[number].contains_key(list))
            {
                return Err(format!(
                    "node {number} lacks the lists {lists:?} that removed {reader:?} from \
                     {scope:?} of node {home}: {made:?}"
                ));
            }
        }
        Ok(())
    }

    /// A node whose identities may read a scope knows the readers that the scope's home knows. A
    /// leave is known only where its author's home was met.
    fn check_readers(&self, number: usize, objects: &StoredObjects) -> Result<(), String> {
        for (oid, object) in objects.iter().filter(|(_, object)| !object.is_deleted) {
            let Some(made) = self.memory.made.get(oid).filter(|made| is_scope(made)) else {
                continue;
            };
            let home = made.home;
            let at_home = self.up(home).unwrap();
            let is_live = at_home.parent(&made.app, *oid);
            if is_live.is_none_or(|row| row.deleted) {
                continue;
            }
            let left = self
                .memory
                .made
                .values()
                .filter(|it| it.type_number == LEAVE_TYPE);
            let left: BTreeSet<_> = left
                .filter(|it| it.scope == Some(*oid))
                .map(|it| it.owner)
                .collect();
            let staying = |node: &LiveNode| -> BTreeSet<Oid> {
                let readers = node.readers(&object.app, *oid).into_iter();
                readers.filter(|reader| !left.contains(reader)).collect()
            };
            let (here, there) = (staying(self.up(number).unwrap()), staying(at_home));
            let is_reader = there.iter().any(|it| self.memory.lives_at(number, it));
            if is_reader && self.knows(number, home) && here != there {
                return Err(format!(
                    "node {number} has readers {here:?} of {oid:?}, its home {there:?}: {made:?}"
                ));
            }
        }
        Ok(())
    }
}

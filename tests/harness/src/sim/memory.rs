//! The oracle's memory: the objects that were written, their owners and their readers.

use std::collections::{BTreeMap, BTreeSet};

use keys::Oid;

/// An identity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    /// Number of the node at which it lives.
    pub(super) home: usize,
    /// Whether its record was written.
    pub(super) published: bool,
}

/// An object that was written.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) app: String,
    pub(super) type_number: u16,
    pub(super) owner: Oid,
    /// Identities that may read it; none if all may.
    pub(super) readers: Option<BTreeSet<Oid>>,
    /// Objects without which a node cannot apply it.
    pub(super) needs: Vec<Oid>,
    /// The least revision that must survive; 0 if the object may be lost.
    pub(super) rev: u64,
    /// Whether its owner deleted it.
    pub(super) deleted: bool,
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) people: BTreeMap<Oid, Person>,
    pub(super) made: BTreeMap<Oid, Made>,
}

impl Memory {
    /// Number of the node at which an object's owner lives.
    pub(super) fn home(&self, made: &Made) -> usize {
        self.people[&made.owner].home
    }

    /// Identities that live at a node.
    pub(super) fn people_at(&self, node: usize) -> Vec<Oid> {
        let people = self.people.iter();
        people
            .filter(|(_, person)| person.home == node && person.published)
            .map(|(oid, _)| *oid)
            .collect()
    }

    /// Whether an identity that lives at a node may read an object.
    pub(super) fn reads(&self, node: usize, made: &Made) -> bool {
        let lives_here = |oid| {
            self.people
                .get(oid)
                .is_some_and(|person: &Person| person.home == node && person.published)
        };
        made.readers
            .as_ref()
            .is_none_or(|readers| readers.iter().any(lives_here))
    }

    /// The revisions that must survive, of the objects of a node.
    pub(super) fn revs_of(&self, node: usize) -> BTreeMap<Oid, u64> {
        let own = self.made.iter().filter(|(_, made)| self.home(made) == node);
        own.map(|(oid, made)| (*oid, made.rev)).collect()
    }

    /// Notes that a node was set back to the state in which it had these revisions. Later ones may
    /// be lost.
    pub(super) fn set_back(&mut self, node: usize, revs: &BTreeMap<Oid, u64>) {
        let people = &self.people;
        for (oid, made) in &mut self.made {
            if people[&made.owner].home == node {
                made.rev = made.rev.min(revs.get(oid).copied().unwrap_or(0));
            }
        }
    }
}

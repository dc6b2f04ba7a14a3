//! The oracle's memory: the objects that were written, their owners and their readers.

use std::collections::{BTreeMap, BTreeSet};

use keys::Oid;
use keys::protocol::LEAVE_TYPE;

/// An identity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    /// Number of the node at which it lives.
    pub(super) home: usize,
    /// The node at which it lived before it moved.
    pub(super) old_home: Option<usize>,
    /// Whether its record was written.
    pub(super) published: bool,
    /// Whether it has left its home, and is not at the next one yet.
    pub(super) moving: bool,
}

/// An object that was written.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) app: String,
    pub(super) type_number: u16,
    pub(super) owner: Oid,
    /// Number of the node that wrote it.
    pub(super) home: usize,
    /// The scope that it is or in which it lies; none if all may read it.
    pub(super) scope: Option<Oid>,
    /// Version of the rights list that was in force at its home when it was written.
    pub(super) version: u64,
    /// Objects without which a node cannot apply it: its scope. Not what it refers to.
    pub(super) needs: Vec<Oid>,
    /// The least revision that must survive; 0 if the object may be lost.
    pub(super) rev: u64,
    /// Whether its owner deleted it.
    pub(super) deleted: bool,
}

/// A rights list that was in force somewhere: its version and its readers.
pub(super) type ListOfReaders = (u64, BTreeSet<Oid>);

/// Everything that was written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) people: BTreeMap<Oid, Person>,
    pub(super) made: BTreeMap<Oid, Made>,
    /// The rights lists of each scope. A restore may lose some, so that versions repeat.
    pub(super) lists: BTreeMap<Oid, Vec<ListOfReaders>>,
    /// For each scope and each identity that its owner removed, the lists that removed it.
    pub(super) closing: BTreeMap<(Oid, Oid), BTreeSet<Oid>>,
    /// Nodes that were set back to an earlier state.
    pub(super) set_back: BTreeSet<usize>,
}

impl Memory {
    /// Whether an identity has left its home, and is not at the next one yet.
    pub(super) fn is_moving(&self, identity: &Oid) -> bool {
        self.people
            .get(identity)
            .is_some_and(|person| person.moving)
    }

    /// Whether an identity has moved, or moves.
    pub(super) fn has_moved(&self, identity: &Oid) -> bool {
        let person = self.people.get(identity);
        person.is_some_and(|person| person.old_home.is_some() || person.moving)
    }

    /// The nodes at which an identity lived.
    pub(super) fn homes_of(&self, identity: &Oid) -> Vec<usize> {
        let person = self.people.get(identity);
        let homes = person.map(|person| [Some(person.home), person.old_home]);
        homes.into_iter().flatten().flatten().collect()
    }

    /// Identities that live at a node and write there.
    pub(super) fn people_at(&self, node: usize) -> Vec<Oid> {
        let people = self.people.iter();
        people
            .filter(|(_, person)| person.home == node && person.published && !person.moving)
            .map(|(oid, _)| *oid)
            .collect()
    }

    /// Whether an identity that lives at a node could read an object once it was written.
    pub(super) fn could_read(&self, node: usize, made: &Made) -> bool {
        let Some(scope) = &made.scope else {
            return true;
        };
        let lists = self.lists.get(scope).into_iter().flatten();
        let later = lists.filter(|(version, _)| *version >= made.version);
        later
            .flat_map(|(_, readers)| readers)
            .any(|reader| self.lived_at(node, reader))
    }

    /// Whether a published identity lives at a node.
    pub(super) fn lives_at(&self, node: usize, identity: &Oid) -> bool {
        let person = self.people.get(identity);
        person.is_some_and(|person| person.home == node && person.published)
    }

    /// Whether a published identity lives at a node, or lived there before it moved.
    fn lived_at(&self, node: usize, identity: &Oid) -> bool {
        let person = self.people.get(identity);
        let homes = person.filter(|person| person.published);
        homes.is_some_and(|person| person.home == node || person.old_home == Some(node))
    }

    /// Whether an identity was ever a reader of a scope.
    pub(super) fn is_known_reader(&self, scope: &Oid, identity: &Oid) -> bool {
        let lists = self.lists.get(scope).into_iter().flatten();
        lists
            .into_iter()
            .any(|(_, readers)| readers.contains(identity))
    }

    /// The most identities that could read an object at once; 0 if all may.
    pub(super) fn readers_max(&self, oid: &Oid) -> usize {
        let scope = self.made.get(oid).and_then(|made| made.scope);
        let lists = scope.and_then(|scope| self.lists.get(&scope));
        let counts = lists
            .into_iter()
            .flatten()
            .map(|(_, readers)| readers.len());
        counts.max().unwrap_or(0)
    }

    /// Notes a rights list of a scope.
    pub(super) fn note_list(&mut self, scope: Oid, list: ListOfReaders) {
        let lists = self.lists.entry(scope).or_default();
        if !lists.contains(&list) {
            lists.push(list);
        }
    }

    /// Whether an identity wrote a `leave` in a scope.
    pub(super) fn has_left(&self, scope: &Oid, identity: &Oid) -> bool {
        let leaves = self.made.values().filter(|it| it.type_number == LEAVE_TYPE);
        let mut left = leaves.filter(|it| it.scope == Some(*scope));
        left.any(|leave| leave.owner == *identity)
    }

    /// The revisions that must survive, of the objects of a node.
    pub(super) fn revs_of(&self, node: usize) -> BTreeMap<Oid, u64> {
        let own = self.made.iter().filter(|(_, made)| made.home == node);
        own.map(|(oid, made)| (*oid, made.rev)).collect()
    }

    /// Notes that a node was set back to the state in which it had these revisions. Later ones may
    /// be lost.
    pub(super) fn set_back(&mut self, node: usize, revs: &BTreeMap<Oid, u64>) {
        self.set_back.insert(node);
        for (oid, made) in &mut self.made {
            if made.home == node {
                made.rev = made.rev.min(revs.get(oid).copied().unwrap_or(0));
            }
        }
    }
}

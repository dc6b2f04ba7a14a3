//! Changes of who may read and write in the scopes of a simulation.

use std::collections::{BTreeMap, BTreeSet};

use keys::Oid;
use keys::protocol::{CORE_TYPES_FROM, LEAVE_TYPE, RIGHTS_TYPE};
use postern::acl::Denied;
use postern::graph::{SaveError, Saved};
use postern::object::{Rights, RightsList};
use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::club;
use super::memory::Made;
use super::scenario::Feature;
use super::world::World;

/// Whether an object is a scope itself.
pub(super) fn is_scope(made: &Made) -> bool {
    matches!(
        (&*made.app, made.type_number),
        ("messages" | "contacts", 1) | (club::APP, club::ROOM)
    )
}

impl World {
    /// Whether a write was refused for a reason that this run permits.
    pub(super) fn is_permitted(&self, error: &SaveError) -> bool {
        match error {
            SaveError::Recovering | SaveError::ReadOnly => true,
            SaveError::Denied(Denied::NotParticipant) => self.has(Feature::Memberships),
            SaveError::NotAccepted(_) => self.has(Feature::Consent),
            SaveError::Moves(_) => self.has(Feature::Moves),
            SaveError::Denied(Denied::ScopeEnded) => self.has(Feature::ScopeDeletions),
            _ => false,
        }
    }

    /// Version of the rights list in force in a scope at a node; 0 if the node lacks the scope.
    pub(super) fn version_at(&self, node: usize, app: &str, scope: Oid) -> u64 {
        let live = self.up(node);
        let list = live.and_then(|live| live.list_in_force(app, scope));
        list.map_or(0, |(version, _)| version)
    }

    /// The owner of a scope adds or removes a member, or changes its rights.
    pub(super) fn change_members(&mut self, node: usize) {
        let memory = &self.memory;
        let own = memory.made.iter().filter(|(_, made)| {
            is_scope(made)
                && !made.deleted
                && memory.lives_at(node, &made.owner)
                && !memory.is_moving(&made.owner)
                && made.home == node
                && (made.app != "contacts" || self.has(Feature::CardMembers))
        });
        let own: Vec<_> = own.map(|(oid, made)| (*oid, made.clone())).collect();
        let Some((scope, made)) = own.choose(&mut self.rng).cloned() else {
            return;
        };
        let live = self.up(node).unwrap();
        let Some((version, list)) = live.list_in_force(&made.app, scope) else {
            return;
        };
        if live.home_of(made.owner) != Some(live.peer_id()) {
            return;
        }
        let members = list.iter().map(|(oid, _)| *oid);
        let others = members.filter(|oid| *oid != made.owner);
        let member = others.choose(&mut self.rng);
        let fails = self.rng.random_bool(0.2);
        let change = match (self.rng.random_range(0..5), member) {
            (0..2, Some(member)) => (member, None),
            (2, Some(member)) => (member, Some(Rights::READ)),
            _ => match self.person_known_at(node, made.owner) {
                Some(other) => (other, Some(Rights::READ_WRITE)),
                None => return,
            },
        };
        // Noted before the write, because a crash may follow the commit. A list without a member
        // that left comes first if it is added again.
        let mut changed: BTreeMap<_, _> = list.iter().map(|(oid, it)| (*oid, it)).collect();
        match change {
            (member, Some(rights)) => drop(changed.insert(member, rights)),
            (member, None) => drop(changed.remove(&member)),
        }
        let changed: RightsList = changed.into_iter().collect();
        let readers: BTreeSet<_> = changed.readers().copied().collect();
        for version in [version + 1, version + 2] {
            self.memory.note_list(scope, (version, readers.clone()));
        }
        let (app, live) = (made.app.clone(), self.up(node).unwrap());
        let context = live.context(made.owner, &app);
        if self.has(Feature::FailedWrites) && fails {
            let (context, app) = (context.clone(), app.clone());
            let undone = live.graph(move |graph| {
                let saved = graph.save_rights(&context, &app, &scope, &[change])?;
                Err::<(), _>(SaveError::Missing(saved.oid))
            });
            assert!(undone.is_err());
        }
        let saved = live.graph(move |graph| graph.save_rights(&context, &app, &scope, &[change]));
        if let (Ok(saved), (member, None)) = (&saved, &change) {
            let closing = &mut self.memory.closing;
            let lists = closing.entry((scope, *member)).or_default();
            lists.insert(saved.oid);
        }
        self.note_core(
            node,
            (scope, &made.app),
            made.owner,
            version,
            (RIGHTS_TYPE, saved),
        );
    }

    /// A member leaves a scope.
    pub(super) fn leave_scope(&mut self, node: usize) {
        let people: BTreeSet<_> = self.memory.people_at(node).into_iter().collect();
        let live = self.up(node).unwrap();
        let scopes = self.memory.made.iter().filter(|(_, made)| is_scope(made));
        let mut memberships = Vec::new();
        for (scope, made) in scopes.filter(|(_, made)| !made.deleted) {
            let has_app = self.nodes[node].apps.contains(&made.app);
            if has_app && live.list_in_force(&made.app, *scope).is_some() {
                let readers = live.readers(&made.app, *scope).into_iter();
                let here = readers.filter(|it| people.contains(it) && *it != made.owner);
                memberships.extend(here.map(|reader| (*scope, made.app.clone(), reader)));
            }
        }
        let Some((scope, app, reader)) = memberships.choose(&mut self.rng).cloned() else {
            return;
        };
        let version = self.version_at(node, &app, scope);
        let live = self.up(node).unwrap();
        if live.home_of(reader) != Some(live.peer_id()) {
            return;
        }
        let (context, slug) = (live.context(reader, &app), app.clone());
        let saved = live.graph(move |graph| graph.save_leave(&context, &slug, &scope, reader));
        self.note_core(node, (scope, &app), reader, version, (LEAVE_TYPE, saved));
    }

    /// Notes the write of an object of a core type.
    pub(super) fn note_core(
        &mut self,
        node: usize,
        (scope, app): (Oid, &str),
        owner: Oid,
        version: u64,
        (type_number, saved): (u16, Result<Saved, SaveError>),
    ) {
        match saved {
            Ok(saved) => self.note(node, saved.oid, saved.rev, || Made {
                app: app.to_owned(),
                type_number,
                owner,
                home: node,
                scope: Some(scope),
                version,
                needs: vec![scope],
                rev: 0,
                deleted: false,
            }),
            Err(error) if self.is_permitted(&error) => {}
            Err(error) => {
                panic!("node {node} could not change the readers of {scope:?}: {error:?}")
            }
        }
    }
}

/// Whether an object is of a core type.
pub(super) fn is_core(made: &Made) -> bool {
    made.type_number >= CORE_TYPES_FROM
}

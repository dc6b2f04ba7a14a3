//! Scopes of three identities and more in a simulation, whose homes need not be linked.

use std::collections::BTreeSet;

use keys::Oid;
use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::club;
use super::world::World;
use super::writes::Draft;
use crate::values::{conversation, message};

/// Chance that a write in a group founds one.
const FOUNDS: f64 = 0.15;

impl World {
    /// A message or a note in a group of the writer, or a new group.
    pub(super) fn group_draft(&mut self, node: usize, writer: Oid) -> Option<Draft> {
        let has_club = self.nodes[node].apps.iter().any(|app| app == club::APP);
        let is_club = has_club && self.rng.random_bool(0.5);
        let app = if is_club { club::APP } else { "messages" };
        let text = self.text();
        let group = match self.rng.random_bool(FOUNDS) {
            true => None,
            false => self.group_of(node, app, writer),
        };
        let Some(group) = group else {
            let members = self.any_people(writer);
            let list: Vec<_> = members.iter().copied().collect();
            return Some(match is_club {
                true => Draft::founds(club::APP, club::ROOM, club::room(&list, &text), members),
                false => Draft::founds("messages", 1, conversation(&list), members),
            });
        };
        Some(match is_club {
            true => {
                let about = self.any_note(node);
                let note = club::note(group, &text, &about);
                Draft::within(club::APP, club::NOTE, note, group)
            }
            false => Draft::within("messages", 2, message(group, &text), group),
        })
    }

    /// An identity and some others of any node.
    fn any_people(&mut self, besides: Oid) -> BTreeSet<Oid> {
        let people = self.memory.people.iter();
        let published = people.filter(|(_, person)| person.published);
        let published = published.map(|(oid, _)| *oid);
        let count = self.rng.random_range(2..=5);
        let mut chosen: BTreeSet<_> = published.sample(&mut self.rng, count).into_iter().collect();
        chosen.insert(besides);
        chosen
    }

    /// A stored scope of an app with more than two readers, one of which is the writer.
    fn group_of(&mut self, node: usize, app: &str, writer: Oid) -> Option<Oid> {
        let live = self.up(node)?;
        let is_group = |oid: &Oid| {
            let lists = self.memory.lists.get(oid).into_iter().flatten();
            let mut of_writer = lists.filter(|(_, readers)| readers.contains(&writer));
            of_writer.any(|(_, readers)| readers.len() > 2)
        };
        let made = self.memory.made.iter().filter(|(_, made)| made.app == app);
        let groups = made.map(|(oid, _)| *oid).filter(is_group);
        let stored = groups.filter(|oid| live.parent(app, *oid).is_some_and(|row| !row.deleted));
        let stored: Vec<_> = stored.collect();
        stored.choose(&mut self.rng).copied()
    }
}

//! Writes of people in a simulation, changes and deletions, which the memory notes.

use std::collections::BTreeSet;

use keys::Oid;
use postern::graph::{SaveError, Saved, WriteRequest};
use postern::object::{Attrs, Value};
use postern::schema::identities;
use postern::services::identities::IdentityError;
use postern::services::messages::{self, SendError};
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::club;
use super::members::is_core;
use super::memory::{Made, Person};
use super::scenario::Feature;
use super::world::World;
use crate::values::{card, conversation, message, offer, ride};

/// A draft of a new object.
pub(super) struct Draft {
    app: &'static str,
    type_number: u16,
    attrs: Attrs,
    place: Place,
    needs: Vec<Oid>,
}

/// Where a new object is.
enum Place {
    Public,
    /// A scope itself, with these readers.
    Founds(BTreeSet<Oid>),
    /// In the scope with this oid.
    In(Oid),
}

impl Draft {
    fn public(app: &'static str, type_number: u16, attrs: Attrs) -> Self {
        Self {
            app,
            type_number,
            attrs,
            place: Place::Public,
            needs: Vec::new(),
        }
    }

    /// A scope with these readers.
    pub(super) fn founds(
        app: &'static str,
        type_number: u16,
        attrs: Attrs,
        readers: BTreeSet<Oid>,
    ) -> Self {
        Self {
            place: Place::Founds(readers),
            ..Self::public(app, type_number, attrs)
        }
    }

    /// An object in a scope.
    pub(super) fn within(app: &'static str, type_number: u16, attrs: Attrs, scope: Oid) -> Self {
        Self {
            place: Place::In(scope),
            needs: vec![scope],
            ..Self::public(app, type_number, attrs)
        }
    }
}

impl World {
    /// One person of a node writes something.
    pub(super) fn write(&mut self, node: usize) {
        let people = self.memory.people_at(node);
        let Some(writer) = people.choose(&mut self.rng).copied() else {
            return;
        };
        let writes_to_many = self.has(Feature::Apart) && self.rng.random_bool(0.5);
        let draft = match self.rng.random_range(0..20) {
            _ if writes_to_many => self.group_draft(node, writer),
            0..6 => return self.send(node, writer),
            6..9 if self.has(Feature::Groups) => self.group(node, writer),
            9..12 => self.message(node, writer),
            12..15 => self.offer(node),
            15..20 if self.has(Feature::OwnApps) => self.club(node, writer),
            _ => self.card(node, writer),
        };
        if let Some(draft) = draft {
            self.save(node, writer, draft);
        }
    }

    /// Many writes at once.
    pub(super) fn write_much(&mut self, node: usize) {
        for _ in 0..self.rng.random_range(5..40) {
            if self.up(node).is_some() {
                self.write(node);
            }
        }
    }

    /// A message to one identity that the node knows, in their conversation of two.
    fn send(&mut self, node: usize, sender: Oid) {
        let Some(recipient) = self.person_known_at(node, sender) else {
            return;
        };
        let body = self.text();
        self.fail_to_send(node, sender);
        let live = self.up(node).unwrap();
        if live.home_of(sender) != Some(live.peer_id()) {
            return;
        }
        let sent = live.try_send_as(sender, recipient, &body);
        let sent = match sent {
            Ok(sent) => sent,
            Err(SendError::Save(error)) if self.is_permitted(&error) => return,
            Err(error) => panic!("send failed: {error:?}"),
        };
        let version = self.version_at(node, messages::APP, sent.conversation);
        let made = |type_number, needs| Made {
            app: messages::APP.into(),
            type_number,
            owner: sender,
            home: node,
            scope: Some(sent.conversation),
            version,
            needs,
            rev: 0,
            deleted: false,
        };
        if !self.memory.made.contains_key(&sent.conversation) {
            let readers = BTreeSet::from([sender, recipient]);
            self.memory.note_list(sent.conversation, (0, readers));
            self.note(node, sent.conversation, 1, || made(1, Vec::new()));
        }
        self.note(node, sent.oid, 1, || made(2, vec![sent.conversation]));
    }

    /// Notes a write of an object, which may be lost if its node crashed before the commit.
    pub(super) fn note(&mut self, node: usize, oid: Oid, rev: u64, new: impl FnOnce() -> Made) {
        let is_safe = self.up(node).is_some();
        let made = self.memory.made.entry(oid).or_insert_with(new);
        if is_safe {
            made.rev = rev;
        }
    }

    fn save(&mut self, node: usize, owner: Oid, draft: Draft) -> Option<Oid> {
        let request = WriteRequest {
            app: draft.app.into(),
            type_number: draft.type_number,
            oid: None,
            owner,
            attrs: Some(draft.attrs),
        };
        let version = match &draft.place {
            Place::In(scope) => self.version_at(node, draft.app, *scope),
            Place::Public | Place::Founds(_) => 0,
        };
        let saved = self.try_save(node, request)?;
        let scope = match draft.place {
            Place::Public => None,
            Place::In(scope) => Some(scope),
            Place::Founds(readers) => {
                self.memory.note_list(saved.oid, (0, readers));
                Some(saved.oid)
            }
        };
        self.note(node, saved.oid, saved.rev, || Made {
            app: draft.app.into(),
            type_number: draft.type_number,
            owner,
            home: node,
            scope,
            version,
            needs: draft.needs,
            rev: 0,
            deleted: false,
        });
        Some(saved.oid)
    }

    /// Sends a message that is too long, sometimes. The write is undone after it has founded a
    /// conversation.
    fn fail_to_send(&mut self, node: usize, sender: Oid) {
        if !self.has(Feature::FailedWrites) || !self.rng.random_bool(0.2) {
            return;
        }
        if let Some(recipient) = self.person_known_at(node, sender) {
            let live = self.up(node).unwrap();
            let sent = live.try_send_as(sender, recipient, &"x".repeat(20_000));
            assert!(sent.is_err());
        }
    }

    /// Saves an object. Sometimes another write is undone before, or the same one.
    fn try_save(&mut self, node: usize, request: WriteRequest) -> Option<Saved> {
        self.fail_to_send(node, request.owner);
        let fails = self.has(Feature::FailedWrites) && self.rng.random_bool(0.1);
        let live = self.up(node).unwrap();
        // Lost in a restore, and not written again yet.
        if live.home_of(request.owner) != Some(live.peer_id()) {
            return None;
        }
        let context = live.context(request.owner, &request.app);
        if fails {
            let (context, request) = (context.clone(), request.clone());
            let undone = live.graph(move |graph| {
                let saved = graph.save_with_sync(&context, request)?;
                Err::<(), _>(SaveError::Missing(saved.oid))
            });
            assert!(undone.is_err());
        }
        match live.save_as(context, request.clone()) {
            Ok(saved) => Some(saved),
            Err(error) if self.is_permitted(&error) => None,
            Err(error) => panic!("node {node} could not write {request:?}: {error:?}"),
        }
    }

    fn group(&mut self, node: usize, owner: Oid) -> Option<Draft> {
        let mut members = BTreeSet::from([owner]);
        for _ in 0..self.rng.random_range(2..=4) {
            members.extend(self.person_known_at(node, owner));
        }
        if self.has(Feature::FarMembers) {
            // Also of nodes that have never met, and identities without a record.
            members.extend(self.memory.people.keys().choose(&mut self.rng));
        }
        if members.len() < 2 {
            return None;
        }
        let list: Vec<_> = members.iter().copied().collect();
        Some(Draft::founds("messages", 1, conversation(&list), members))
    }

    /// A message in a conversation that the node has stored.
    fn message(&mut self, node: usize, writer: Oid) -> Option<Draft> {
        let within = self.held(node, "messages", 1, Some(writer))?;
        let mut body = self.text();
        if self.rng.random_bool(0.05) {
            body = body.repeat(200);
        }
        Some(Draft::within("messages", 2, message(within, &body), within))
    }

    fn offer(&mut self, node: usize) -> Option<Draft> {
        let text = self.text();
        let has_market = self.nodes[node].apps.iter().any(|app| app == "market");
        Some(if has_market && self.rng.random_bool(0.5) {
            Draft::public("market", 1, offer(&text))
        } else {
            Draft::public("rides", 1, ride(&text, 2))
        })
    }

    fn card(&mut self, node: usize, writer: Oid) -> Option<Draft> {
        let subject = self.person_known_at(node, writer)?;
        let text = self.text();
        let readers = BTreeSet::from([writer, subject]);
        Some(Draft::founds("contacts", 1, card(subject, &text), readers))
    }

    fn club(&mut self, node: usize, writer: Oid) -> Option<Draft> {
        if !self.nodes[node].apps.iter().any(|app| app == club::APP) {
            return None;
        }
        let text = self.text();
        if self.writes_poll(node) {
            return Some(Draft::public(club::APP, club::POLL, club::poll(&text)));
        }
        let mut draft = self.club_draft(node, writer, &text)?;
        self.add_later(node, draft.type_number, &mut draft.attrs);
        Some(draft)
    }

    fn club_draft(&mut self, node: usize, writer: Oid, text: &str) -> Option<Draft> {
        match self.rng.random_range(0..3) {
            0 => {
                let members: BTreeSet<_> = [Some(writer), self.person_known_at(node, writer)]
                    .into_iter()
                    .flatten()
                    .collect();
                let list: Vec<_> = members.iter().copied().collect();
                let room = club::room(&list, text);
                Some(Draft::founds(club::APP, club::ROOM, room, members))
            }
            1 => {
                let room = self.held(node, club::APP, club::ROOM, Some(writer))?;
                let about = self.any_note(node);
                let note = club::note(room, text, &about);
                Some(Draft::within(club::APP, club::NOTE, note, room))
            }
            _ => {
                let after: BTreeSet<_> = (0..self.rng.random_range(0..3))
                    .filter_map(|_| self.held(node, club::APP, club::EVENT, None))
                    .collect();
                let after: Vec<_> = after
                    .into_iter()
                    .filter(|_| self.refers_to_others())
                    .collect();
                let about = self.any_note(node);
                let attrs = club::event(text, &after, &about);
                Some(Draft::public(club::APP, club::EVENT, attrs))
            }
        }
    }

    pub(super) fn refers_to_others(&self) -> bool {
        self.has(Feature::FarMembers) || self.has(Feature::ScopeDeletions)
    }

    /// A live object of this type that a node has stored, and that one of its identities may read.
    pub(super) fn held(
        &mut self,
        node: usize,
        app: &str,
        type_number: u16,
        reader: Option<Oid>,
    ) -> Option<Oid> {
        let live = self.up(node)?;
        let made = self.memory.made.iter();
        let fitting = made.filter(|(oid, made)| {
            let is_reader = match (reader, &made.scope) {
                (Some(reader), Some(scope)) => self.memory.is_known_reader(scope, &reader),
                _ => true,
            };
            made.app == app
                && made.type_number == type_number
                && is_reader
                && live.parent(app, **oid).is_some_and(|row| !row.deleted)
        });
        let fitting: Vec<_> = fitting.map(|(oid, _)| *oid).collect();
        fitting.choose(&mut self.rng).copied()
    }

    /// Another identity that the node knows.
    pub(super) fn person_known_at(&mut self, node: usize, besides: Oid) -> Option<Oid> {
        let live = self.up(node)?;
        let people = self.memory.people.iter();
        let known: Vec<_> = people
            .filter(|(oid, _)| **oid != besides && live.public_key_of(**oid).is_some())
            .map(|(oid, _)| *oid)
            .collect();
        known.choose(&mut self.rng).copied()
    }

    pub(super) fn text(&mut self) -> String {
        format!("text {}", self.rng.random::<u32>())
    }

    /// Changes or deletes an object of a node.
    pub(super) fn change(&mut self, node: usize) {
        let memory = &self.memory;
        let own = memory.made.iter().filter(|(_, made)| {
            let may_change = !made.deleted && made.app != "messages" && made.app != identities::APP;
            may_change && !is_core(made) && made.home == node && !memory.is_moving(&made.owner)
        });
        let own: Vec<_> = own.map(|(oid, _)| *oid).collect();
        let is_of_group = |oid: &Oid| self.memory.readers_max(oid) > 2;
        let of_groups: Vec<_> = own.iter().copied().filter(is_of_group).collect();
        let of_groups = of_groups.choose(&mut self.rng).copied();
        let of_groups = of_groups.filter(|_| self.has(Feature::Apart));
        let any = own.choose(&mut self.rng).copied();
        let Some(oid) = of_groups.or(any) else {
            return;
        };
        let made = self.memory.made[&oid].clone();
        let Some((object, _)) = self
            .up(node)
            .filter(|live| live.parent(&made.app, oid).is_some())
            .and_then(|live| live.object(&made.app, oid))
        else {
            return;
        };
        if object.attrs.is_none() {
            return;
        }
        let may_be_referred_to = made.app == club::APP;
        let deletes = self.has(Feature::Deletions)
            && self.rng.random_bool(0.35)
            && (!may_be_referred_to || self.has(Feature::ScopeDeletions));
        let text = self.text();
        let mut attrs = object.attrs.filter(|_| !deletes).map(|mut attrs| {
            let is_card = made.app == "contacts";
            let number = match (&*made.app, made.type_number) {
                (club::APP, club::ROOM | club::NOTE) => 2,
                _ => 1 + u16::from(is_card),
            };
            attrs.insert(number, vec![Value::from(text.as_str())]);
            attrs
        });
        if let Some(attrs) = attrs.as_mut().filter(|_| made.app == club::APP) {
            self.refer_anew(node, (oid, made.type_number), attrs);
        }
        let request = WriteRequest {
            app: made.app.clone(),
            type_number: made.type_number,
            oid: Some(oid),
            owner: made.owner,
            attrs,
        };
        if let Some(saved) = self.try_save(node, request) {
            self.note(node, oid, saved.rev, || made);
            self.memory.made.get_mut(&oid).unwrap().deleted = deletes;
        }
    }

    /// Creates an identity, whose record is published now or later.
    pub(super) fn new_identity(&mut self, node: usize) {
        let mut rng = self.rng.fork();
        let live = self.up(node).unwrap();
        let identity = live.keys.add_identity(&mut rng).unwrap();
        let person = Person {
            home: node,
            old_home: None,
            moving: false,
            published: false,
        };
        self.memory.people.insert(identity, person);
    }

    /// Publishes the record of one identity that has none yet.
    pub(super) fn publish(&mut self, node: usize) {
        let people = self.memory.people.iter();
        let unpublished = people.filter(|(_, person)| person.home == node && !person.published);
        if let Some(identity) = unpublished.map(|(oid, _)| *oid).next() {
            self.publish_identity(node, identity);
        }
    }

    /// Publishes the record of an identity of a node.
    pub(super) fn publish_identity(&mut self, node: usize, identity: Oid) {
        let live = self.up(node).unwrap();
        let name = format!("person {}", identity.to_hex());
        let written = live.graph(move |graph| {
            postern::services::identities::publish(graph, identity, Some(&name[..12]))
        });
        match written {
            Ok(_) => self.memory.people.get_mut(&identity).unwrap().published = true,
            Err(IdentityError::Save(error)) if self.is_permitted(&error) => {}
            Err(error) => panic!("node {node} could not publish an identity: {error:?}"),
        }
    }
}

//! Identities that move from one node to another in a simulation, at most once each.
//!
//! One event stops an identity at its old home and writes its file. A later one receives the file
//! at the new home, which may crash meanwhile. In the end each file is received once more, since a
//! restore may have lost something, and the old home forgets the keys. A hostile peer replays what
//! the earlier keys signed. The oracle demands of a move:
//!
//! - An object that was written at the old home counts as one of the new home, which has it. All
//!   rules for objects of a home hold for it. Objects that the file cannot bring are exempt.
//! - The vault of one node signs for the identity. Every node that met the new home has its record
//!   and agrees on the home, the old home too. Nothing waits or is frozen.

use keys::{Handover, Oid, SignedObject};
use postern::object::{Object, ObjectLimits};
use postern::store::WriteMode;
use rand::SeedableRng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::memory::{Made, Person};
use super::world::World;
use crate::live::LiveNode;
use crate::stolen_keys::StolenKeys;
use crate::stored::StoredObjects;

/// Highest key number of an identity that moves.
const KEY_MAX: u32 = 4;
/// Counter and revision of a claim of the hostile peer.
const CLAIMED: u64 = 1 << 40;

/// The file of an identity that moves.
pub(super) struct MoveFile {
    identity: Oid,
    old: usize,
    new: usize,
    handover: Handover,
    objects: Vec<SignedObject>,
    /// Whether the new home has the keys.
    is_received: bool,
}

fn is_peer(node: &LiveNode, other: &LiveNode) -> bool {
    let peer = other.peer_id();
    node.read(move |view| view.rows.peer_number(&peer))
        .is_some()
}

impl World {
    /// One identity of a node begins to move to another node.
    pub(super) fn begin_move(&mut self, old: usize) {
        let mut rng = self.rng.fork();
        let live = self.up(old).unwrap();
        if live.write_mode() != WriteMode::ReadWrite {
            return;
        }
        let people = self.memory.people.iter();
        let movable = people.filter(|(oid, person)| {
            let is_here = person.home == old && person.old_home.is_none() && person.published;
            is_here
                && !person.moving
                && live.home_of(**oid) == Some(live.peer_id())
                && live.keys.key_id(**oid).is_ok_and(|key| key <= KEY_MAX)
        });
        let Some(identity) = movable.map(|(oid, _)| *oid).choose(&mut rng) else {
            return;
        };
        let others = (0..self.nodes.len()).filter(|new| {
            // Objects of an app that the new home lacks would stay in the file.
            let (here, there) = (&self.nodes[old].apps, &self.nodes[*new].apps);
            let has_apps = here.iter().all(|app| there.contains(app));
            let met = self.up(*new).filter(|_| self.knows(old, *new));
            has_apps && met.is_some_and(|new| is_peer(live, new))
        });
        let Some(new) = others.choose(&mut rng) else {
            return;
        };
        let known = live
            .read(move |view| view.rows.identity(&identity))
            .unwrap();
        let target = (self.up(new).unwrap().peer_id(), known.home_counter + 1);
        live.keys.begin_move(identity, target, &mut rng).unwrap();
        let file = MoveFile {
            identity,
            old,
            new,
            handover: live.keys.hand_over(identity).unwrap(),
            objects: live.handed_over(identity),
            is_received: false,
        };
        self.files.push(file);
        self.memory.people.get_mut(&identity).unwrap().moving = true;
    }

    /// A node receives a file, perhaps once more.
    pub(super) fn receive_some(&mut self, node: usize) {
        let files = self.files.iter().enumerate();
        let for_it: Vec<_> = files.filter(|(_, file)| file.new == node).collect();
        let Some(place) = for_it.choose(&mut self.rng).map(|(place, _)| *place) else {
            return;
        };
        self.receive(place);
    }

    fn receive(&mut self, place: usize) {
        let MoveFile {
            identity, old, new, ..
        } = self.files[place];
        let Some(live) = self.up(new) else { return };
        let file = &self.files[place];
        let is_met = live.read({
            let old = file.handover.source();
            move |view| view.rows.peer_number(&old)
        });
        if live.write_mode() != WriteMode::ReadWrite || is_met.is_none() {
            return;
        }
        let taken = live.take_objects(&file.handover, file.objects.clone());
        taken.unwrap();
        // Otherwise it crashed, and the file is received again.
        if self.up(new).is_none() {
            return;
        }
        live.take_keys(&file.handover).unwrap();
        live.complete_move(identity);
        if std::mem::replace(&mut self.files[place].is_received, true) {
            return;
        }
        let person = Person {
            home: new,
            old_home: Some(old),
            published: true,
            moving: false,
        };
        self.memory.people.insert(identity, person);
        let own = self.memory.made.values_mut();
        for made in own.filter(|made| made.owner == identity && made.home == old) {
            made.home = new;
        }
    }

    /// Every file is received, and the old homes forget the keys.
    pub(super) fn end_moves(&mut self) {
        for place in 0..self.files.len() {
            self.receive(place);
            let file = &self.files[place];
            if file.is_received {
                let old = self.up(file.old).unwrap();
                let mut rng = rand::rng();
                old.keys.forget_identity(file.identity, &mut rng).unwrap();
            }
        }
    }

    /// A push of records and objects that earlier keys of a moved identity signed. The hostile peer
    /// has stolen some of these keys.
    pub(super) fn replayed_push(&mut self, node: usize) -> Vec<Vec<u8>> {
        let live = self.up(node).unwrap();
        let knows = |file: &&MoveFile| {
            let identity = file.identity;
            let known = live.read(move |view| view.rows.identity(&identity));
            let key_id = file.handover.chain().events.len();
            file.is_received && known.is_some_and(|known| known.key_id as usize >= key_id)
        };
        let files: Vec<_> = self.files.iter().filter(knows).collect();
        let Some(file) = files.choose(&mut self.rng).copied() else {
            return Vec::new();
        };
        let mut objects: Vec<_> = file.objects.iter().take(8).cloned().collect();
        if let Some(seed) = self.seeds.get(&file.identity) {
            let record = Object::from_bytes(objects[0].bytes(), &ObjectLimits::default());
            let thief = StolenKeys::of(*seed);
            let home = self.mallory.seed;
            objects.push(thief.claim(record.unwrap(), home, CLAIMED, CLAIMED));
        }
        self.push_of(node, "identities", objects)
    }

    /// Whether an object of an identity that moved stays in its file. Its scope ended at the new
    /// home, or the file has the scope's Parent under an earlier key than the new home knows.
    pub(super) fn is_left_in_file(&self, stored: &[StoredObjects], made: &Made) -> bool {
        let person = self.memory.people.get(&made.owner);
        let old = person.and_then(|person| person.old_home);
        let (Some(old), Some(scope)) = (old, made.scope) else {
            return false;
        };
        let (sent, there) = (stored[old].get(&scope), stored[made.home].get(&scope));
        match (sent, there) {
            (_, Some(there)) => there.is_deleted,
            (Some(sent), None) => {
                let owner = sent.owner;
                let new_home = self.up(made.home).unwrap();
                let known = new_home.read(move |view| view.rows.identity(&owner));
                known.is_some_and(|known| known.key_id > sent.key_id)
            }
            (None, None) => false,
        }
    }

    /// Whether a node received objects in a file of another one.
    pub(super) fn has_file_of(&self, new: usize, old: usize) -> bool {
        let mut files = self.files.iter();
        files.any(|file| (file.old, file.new) == (old, new))
    }

    /// One node signs for each identity, and all that heard of it agree on its home.
    pub(super) fn check_homes(&self) -> Result<(), String> {
        for (oid, person) in self.memory.people.iter().filter(|it| it.1.published) {
            for number in 0..self.nodes.len() {
                let (node, identity) = (self.up(number).unwrap(), *oid);
                let signs = node.keys.identities().contains(oid);
                if signs != (number == person.home) {
                    return Err(format!(
                        "node {number} signs for {oid:?}: {signs}, {person:?}"
                    ));
                }
                let known = node.read(move |view| view.rows.identity(&identity));
                let pending = node.read(move |view| view.rows.pending_home(&identity));
                let Some(known) = known else { continue };
                let knows = |home: usize| number == home || self.knows(number, home);
                // The old home passes the record on in sessions that relay, if it knows the new
                // one.
                let is_told = |old: usize| {
                    self.knows(old, person.home)
                        && self.relays(old, number)
                        && !self.memory.set_back.contains(&old)
                };
                let is_met = knows(person.home) || person.old_home.is_some_and(is_told);
                let homes = self.memory.homes_of(oid).into_iter();
                let mut homes = homes.filter(|home| !is_met || *home == person.home);
                let is_agreed = homes.any(|it| self.up(it).unwrap().peer_id() == known.home);
                if !is_agreed || known.frozen || pending.is_some() {
                    return Err(format!(
                        "node {number} does not agree on the home of {oid:?}: {known:?}, \
                         {pending:?}, {person:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

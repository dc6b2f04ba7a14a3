//! Introductions in a simulation: nodes that learn of each other by members of common scopes.
//!
//! The oracle demands that each address is that of the node. An identity of that node takes part in
//! a scope of three or more, or did. A node has the address of each member's node that a
//! common peer has. Introduced nodes may have objects of each other, and need not.

use std::collections::{BTreeMap, BTreeSet};

use bastion::Feature as Protocol;
use keys::{AddressRecord, Oid, OnionAddr, PeerId, codec};
use postern::peer::message::{Introduce, Introduced, SessionMessage};
use postern::state_engine::MeetingPlace;
use postern::store::ScopeId;
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use rusqlite::{Connection, OpenFlags};

use super::members::is_scope;
use super::scenario::Feature;
use super::world::World;
use crate::TestNode;

/// Identities that gave an `accept`, each with the scope.
const ACCEPTS: &str = "SELECT DISTINCT s.oid, a.identity_oid
    FROM accept AS a JOIN scope AS s ON s.id = a.scope_id";
/// The addresses that a node has.
const ADDRESSES: &str = "SELECT peer_id, onion FROM address";
/// Fewest readers of a scope in which members are introduced.
const READERS_MIN: usize = 3;
/// First id of a question of the hostile peer.
pub(super) const QUESTION_ID: u64 = 200;
/// Questions of the hostile peer at once.
const QUESTIONS: usize = 5;

impl World {
    /// Whether two nodes know each other, or may have been introduced.
    pub(super) fn may_know(&self, one: usize, other: usize) -> bool {
        let (first, second) = (self.nodes[one].onion, self.nodes[other].onion);
        self.knows(one, other) || self.net.has_met(first, second)
    }

    fn offers_introduction(&self, number: usize) -> bool {
        self.nodes[number].offered.has(Protocol::Introduce)
    }

    /// Whether two nodes have a session in the end in which they ask each other for addresses.
    fn introduce_each_other(&self, one: usize, other: usize) -> bool {
        let meet = !self.apart.contains(&(one.min(other), one.max(other)));
        let offers = |number| self.offers_introduction(number);
        self.knows(one, other) && meet && offers(one) && offers(other)
    }

    pub(super) fn number_of(&self, peer: &PeerId) -> Option<usize> {
        let mut nodes = 0..self.nodes.len();
        nodes.find(|number| self.up(*number).unwrap().peer_id() == *peer)
    }

    /// For each scope of three or more the identities that take part, or took part.
    pub(super) fn members_ever(&self) -> BTreeMap<Oid, BTreeSet<Oid>> {
        let mut members: BTreeMap<Oid, BTreeSet<Oid>> = BTreeMap::new();
        for number in 0..self.nodes.len() {
            let connection = self.open(number);
            let mut statement = connection.prepare(ACCEPTS).unwrap();
            let rows = statement.query_map([], |row| {
                let oid = |column| row.get(column).map(Oid::from_bytes);
                Ok((oid(0)?, oid(1)?))
            });
            for row in rows.unwrap() {
                let (scope, identity) = row.unwrap();
                members.entry(scope).or_default().insert(identity);
            }
        }
        for (scope, made) in self.memory.made.iter().filter(|(_, made)| is_scope(made)) {
            members.entry(*scope).or_default().insert(made.owner);
        }
        members
    }

    /// Whether a node may have the address of another one. Identities of both could read a scope of
    /// three or more, and one of the other node took part. All are permitted in a scope of the
    /// hostile peer.
    fn may_have_address(
        &self,
        members: &BTreeMap<Oid, BTreeSet<Oid>>,
        number: usize,
        of: usize,
    ) -> bool {
        let lived_at = |identity: &Oid, node: usize| {
            let person = self.memory.people.get(identity);
            person.is_some_and(|it| it.home == node || it.old_home == Some(node))
        };
        members.iter().any(|(scope, members)| {
            let lists = self.memory.lists.get(scope);
            let read_here = lists.is_none_or(|lists| {
                let large = lists.iter().filter(|(_, list)| list.len() >= READERS_MIN);
                large
                    .flat_map(|(_, list)| list)
                    .any(|it| lived_at(it, number))
            });
            read_here && members.iter().any(|it| lived_at(it, of))
        })
    }

    /// Every address is true and of a node that takes part somewhere, and none is missing that a
    /// common peer has.
    pub(super) fn check_introductions(&self) -> Result<(), String> {
        if !self.has(Feature::Introduce) {
            return Ok(());
        }
        let members = self.members_ever();
        let hostile = self.mallory.core.peer_id();
        let is_honest = |peer: &PeerId| *peer != hostile && !self.is_listed_node(peer);
        let nodes = 0..self.nodes.len();
        let known: Vec<_> = nodes
            .map(|number| addresses_of(self.up(number).unwrap()))
            .collect();
        for (number, addresses) in known.iter().enumerate() {
            for (peer, onion) in addresses.iter().filter(|it| is_honest(it.0)) {
                let Some(of) = self.number_of(peer) else {
                    return Err(format!("node {number} has an address of no node"));
                };
                if self.nodes[of].onion != *onion {
                    return Err(format!("node {number} has a false address of node {of}"));
                }
                if !self.may_have_address(&members, number, of) {
                    return Err(format!(
                        "node {number} has the address of node {of}, of which no identity takes \
                         part in a scope of both"
                    ));
                }
            }
        }
        self.check_addresses_spread(&known)
    }

    fn check_addresses_spread(&self, known: &[BTreeMap<PeerId, OnionAddr>]) -> Result<(), String> {
        let nodes = 0..self.nodes.len();
        let homes: Vec<_> = nodes.clone().map(|it| self.homes_by_scope(it)).collect();
        for (number, scopes) in homes.iter().enumerate() {
            for (scope, members) in scopes {
                let are_in = |at: usize, which: &[usize]| {
                    let there = homes[at].get(scope);
                    there
                        .is_some_and(|there| which.iter().all(|it| *it == at || there.contains(it)))
                };
                for of in members {
                    let passes = |via: &usize| {
                        (*via == *of || self.introduce_each_other(*via, *of))
                            && self.introduce_each_other(number, *via)
                            && members.contains(via)
                            && are_in(*via, &[number, *of])
                            && are_in(*of, &[*via])
                    };
                    let peer = self.up(*of).unwrap().peer_id();
                    let via = nodes.clone().find(passes);
                    if let Some(via) = via.filter(|_| !known[number].contains_key(&peer)) {
                        return Err(format!(
                            "node {number} lacks the address of node {of}, which node {via} may \
                             give it in {scope:?}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// For each scope in which an identity of a node takes part, the other nodes of members.
    fn homes_by_scope(&self, number: usize) -> BTreeMap<Oid, BTreeSet<usize>> {
        let (node, mut after) = (self.up(number).unwrap(), ScopeId(0));
        let mut places: Vec<MeetingPlace> = Vec::new();
        loop {
            let found = node.read(move |view| view.meeting_places(after));
            places.extend(found.places);
            match found.last {
                Some(last) => after = last,
                None => break,
            }
        }
        let homes = |place: &MeetingPlace| {
            let members = place.members.iter();
            members.filter_map(|it| self.number_of(&it.home)).collect()
        };
        places
            .iter()
            .map(|place| (place.oid, homes(place)))
            .collect()
    }

    /// Questions of the hostile peer for the addresses of members of others' scopes.
    pub(super) fn nosy_questions(&mut self) -> Vec<SessionMessage> {
        let scopes = self.memory.made.iter().filter(|(_, made)| is_scope(made));
        let asked = scopes.sample(&mut self.rng, QUESTIONS);
        let question = |(id, (scope, made)): (u64, (&Oid, &super::memory::Made))| {
            SessionMessage::Introduce(Introduce {
                id,
                after: None,
                scope: *scope,
                domain: made.app.clone(),
            })
        };
        (QUESTION_ID..).zip(asked).map(question).collect()
    }

    /// The reply of the hostile peer to a question: nothing, its own address, a forged address, or
    /// one of a node that no node knows.
    pub(super) fn false_addresses(&mut self, victim: usize) -> Vec<u8> {
        let core = &self.mallory.core;
        let now = core.engine.now().0 / 1000;
        let own = core.keys.address_record(now);
        let forged = self.up(victim).map(|node| AddressRecord {
            onion: own.onion,
            ..node.keys.address_record(now)
        });
        let list = match self.rng.random_range(0..4) {
            0 => Vec::new(),
            1 => vec![own],
            2 => forged.into_iter().collect(),
            _ => {
                let stranger = keys::KeyManager::generate(&mut self.rng);
                vec![own, stranger.address_record(now)]
            }
        };
        codec::encode(&list)
    }
}

/// The addresses that a node has.
pub(super) fn addresses_of(node: &TestNode) -> BTreeMap<PeerId, OnionAddr> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(node.database(), flags).unwrap();
    let mut statement = connection.prepare(ADDRESSES).unwrap();
    let rows = statement.query_map([], |row| {
        let onion = keys::PublicKey::from_bytes(row.get(1)?);
        let onion = OnionAddr::from_public_key(onion);
        Ok((PeerId::from_bytes(row.get(0)?), onion))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The reply to a node that asks for addresses.
pub(super) fn reply(frame: &[u8], body: &[u8]) -> Option<SessionMessage> {
    match SessionMessage::decode(frame).ok()? {
        SessionMessage::Introduce(asked) => Some(SessionMessage::Introduced(Introduced {
            id: asked.id,
            body: body.to_vec(),
            next: None,
        })),
        _ => None,
    }
}

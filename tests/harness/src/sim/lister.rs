//! A hostile peer that founds conversations and lists members on nodes that nothing serves.
//!
//! The lister is a node with the real stack. Members on dead nodes met it before the run and took
//! part, so that all that the lister sends is signed and true. The oracle demands that honest nodes
//! dial dead nodes seldom. The lister learns nothing of scopes in which it has no identity. A node
//! without a member that took part in its scopes keeps its address from the lister.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bastion::{Feature as Protocol, GateConfig};
use keys::{Oid, OnionAddr, PeerId};
use parking_lot::Mutex;
use postern::op_context::Timestamp;
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

use super::hostile::gate;
use super::scenario::Feature;
use super::world::{World, folder};
use crate::clock::ManualClock;
use crate::live::{LiveNode, Wiring};
use crate::pull::meet;
use crate::setup::Setup;
use crate::values::conversation;

const MESSAGES: &str = "messages";
/// More dead nodes than the introductions that begin in a day for one owner of scopes.
const DEAD_NODES: usize = 10;
/// Conversations of the lister.
const TALKS: usize = 2;
/// Most honest nodes that the lister dials.
const DIALLED_MAX: usize = 3;
/// Most honest identities in a conversation of the lister.
const LISTED_MAX: usize = 5;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Most introductions that begin in a day for one owner of scopes.
const BEGUN_PER_DAY_MAX: usize = 8;
/// Least time between two dials of one node. A dial that a crash ended is repeated after ten
/// minutes, and a dial lasts up to three.
const PAUSE_MS_MIN: u64 = 7 * 60 * 1000;
/// Most dials of one node to another in a day: five, and three that crashes ended.
const DIALS_PER_DAY_MAX: usize = 8;

/// The dials to dead nodes. Clones share one list.
#[derive(Clone, Default)]
pub(super) struct DeadDials(Arc<Mutex<Dials>>);

#[derive(Default)]
struct Dials {
    dead: BTreeSet<OnionAddr>,
    clock: ManualClock,
    /// The times of dials, by the node that dialled and the dead one.
    times: BTreeMap<(OnionAddr, OnionAddr), Vec<Timestamp>>,
    count: usize,
}

impl DeadDials {
    fn watch(&self, dead: BTreeSet<OnionAddr>, clock: ManualClock) {
        let mut dials = self.0.lock();
        (dials.dead, dials.clock) = (dead, clock);
    }

    /// Notes a dial, if nothing serves the address.
    pub(super) fn note(&self, from: OnionAddr, to: OnionAddr) {
        let mut dials = self.0.lock();
        if dials.dead.contains(&to) {
            let now = dials.clock.timestamp();
            dials.times.entry((from, to)).or_default().push(now);
            dials.count += 1;
        }
    }

    /// Forgets the dials of a node that lost its memory of them.
    pub(super) fn forget(&self, from: OnionAddr) {
        self.0.lock().times.retain(|(node, _), _| *node != from);
    }

    /// Number of all dials.
    pub(super) fn count(&self) -> usize {
        self.0.lock().count
    }
}

/// The lister, with the identities and nodes that belong to it.
pub(super) struct Lister {
    node: LiveNode,
    people: BTreeSet<Oid>,
    peers: BTreeSet<PeerId>,
    talks: BTreeSet<Oid>,
}

impl World {
    /// Starts the lister, which dials some honest nodes.
    pub(super) fn start_lister(&mut self) {
        if !self.has(Feature::DeadNodes) {
            return;
        }
        let count = self.rng.random_range(1..=DIALLED_MAX);
        let dialled: Vec<usize> = (0..self.nodes.len()).sample(&mut self.rng, count);
        let setup = self.setup_of("lister");
        let wiring = Wiring {
            net: self.net.memory.clone(),
            transport: Arc::new(self.net.transport(setup.keys.onion())),
            gate: GateConfig {
                features: [Protocol::Introduce, Protocol::Relay].into_iter().collect(),
                ..gate()
            },
        };
        let sync = self.scenario.sync(&mut self.rng);
        let node = setup.sync(sync).live_over(wiring);
        let mut lister = Lister {
            people: [node.identity].into(),
            peers: [node.peer_id()].into(),
            talks: BTreeSet::new(),
            node,
        };
        self.list_dead_nodes(&mut lister);
        for number in dialled {
            lister.node.dialler.keep(self.nodes[number].onion);
        }
        self.lister = Some(lister);
    }

    fn setup_of(&mut self, name: &str) -> Setup {
        Setup::seeded(name, self.rng.random())
            .apps(&["identities", MESSAGES])
            .readers(0)
            .clock(self.clock.clone())
            .folder(folder())
    }

    /// Founds the conversations, of which the members on dead nodes take part.
    fn list_dead_nodes(&mut self, lister: &mut Lister) {
        let dead: Vec<_> = (0..DEAD_NODES)
            .map(|number| self.setup_of(&format!("dead node {number}")).node())
            .collect();
        let node = &lister.node;
        for other in &dead {
            meet(node, other);
            lister.people.insert(other.identity);
            lister.peers.insert(other.peer_id());
        }
        for _ in 0..TALKS {
            let honest = self.memory.people.keys().copied();
            let honest = honest.sample(&mut self.rng, LISTED_MAX);
            let members: Vec<Oid> = lister.people.iter().copied().chain(honest).collect();
            let talk = node.make(MESSAGES, 1, conversation(&members)).unwrap().oid;
            lister.talks.insert(talk);
        }
        for other in &dead {
            other.relay(node, MESSAGES);
            node.relay(other, MESSAGES);
        }
        let now_s = self.clock.timestamp().0 / 1000;
        for talk in &lister.talks {
            let scope = node.parent(MESSAGES, *talk).unwrap().scope_id;
            let records = dead.iter().map(|it| it.keys.address_record(now_s));
            let records: Vec<_> = records.map(|it| it.verify().unwrap()).collect();
            node.write(move |core, now| core.take_addresses(now, scope, &records))
                .unwrap();
        }
        self.net.dead_dials.watch(
            dead.iter().map(|it| it.onion()).collect(),
            self.clock.clone(),
        );
    }

    /// Whether an identity belongs to the lister.
    pub(super) fn is_listed(&self, identity: &Oid) -> bool {
        let lister = self.lister.as_ref();
        lister.is_some_and(|lister| lister.people.contains(identity))
    }

    /// Whether a scope belongs to the lister.
    pub(super) fn is_listed_scope(&self, scope: &Oid) -> bool {
        let lister = self.lister.as_ref();
        lister.is_some_and(|lister| lister.talks.contains(scope))
    }

    /// Whether the lister knows an identity, so that nodes may hear of it in its conversations.
    pub(super) fn is_told(&self, identity: &Oid) -> bool {
        let lister = self.lister.as_ref();
        lister.is_some_and(|lister| lister.node.home_of(*identity).is_some())
    }

    /// Whether a node is the lister or one that it lists.
    pub(super) fn is_listed_node(&self, peer: &PeerId) -> bool {
        let lister = self.lister.as_ref();
        lister.is_some_and(|lister| lister.peers.contains(peer))
    }

    /// Dead nodes are dialled seldom, and the lister knows no more than it may.
    pub(super) fn check_lister(&self) -> Result<(), String> {
        let Some(lister) = &self.lister else {
            return Ok(());
        };
        self.check_dead_dials()?;
        for number in 0..self.nodes.len() {
            let node = self.up(number).unwrap();
            let rows = node.read(|view| view.rows.introductions());
            let rows = rows
                .iter()
                .filter(|row| lister.people.contains(&row.scope_owner));
            let begun: Vec<_> = rows.map(|row| row.begun_at).collect();
            let most = most_in_a_day(begun);
            if most > BEGUN_PER_DAY_MAX {
                return Err(format!(
                    "node {number} began {most} introductions in a day for the lister"
                ));
            }
        }
        for (oid, object) in lister.node.stored_objects() {
            let made = self.memory.made.get(&oid);
            let is_of_others = |scope: Oid| !lister.talks.contains(&scope);
            if let Some(made) = made.filter(|made| made.scope.is_some_and(is_of_others)) {
                return Err(format!("the lister has {oid:?}: {made:?}, {object:?}"));
            }
        }
        self.check_lister_addresses(lister)
    }

    fn check_dead_dials(&self) -> Result<(), String> {
        for ((from, _), times) in &self.net.dead_dials.0.lock().times {
            let number = self.nodes.iter().position(|node| node.onion == *from);
            let pauses = times.windows(2).map(|pair| pair[1].0 - pair[0].0);
            if let Some(pause) = pauses.min().filter(|pause| *pause < PAUSE_MS_MIN) {
                return Err(format!(
                    "node {number:?} dialled a dead node again after {pause} ms"
                ));
            }
            let most = most_in_a_day(times.clone());
            if most > DIALS_PER_DAY_MAX {
                return Err(format!(
                    "node {number:?} dialled a dead node {most} times in a day"
                ));
            }
        }
        Ok(())
    }

    /// The lister has the addresses of nodes of which an identity took part in its conversations.
    fn check_lister_addresses(&self, lister: &Lister) -> Result<(), String> {
        let members = self.members_ever();
        let talks = lister.talks.iter().filter_map(|talk| members.get(talk));
        let people = talks.flatten().filter_map(|it| self.memory.people.get(it));
        let homes: BTreeSet<usize> = people
            .flat_map(|it| [Some(it.home), it.old_home])
            .flatten()
            .collect();
        for (peer, _) in super::introductions::addresses_of(&lister.node) {
            if lister.peers.contains(&peer) {
                continue;
            }
            match self.number_of(&peer) {
                Some(of) if homes.contains(&of) => {}
                of => {
                    return Err(format!(
                        "the lister has the address of node {of:?}, of which no identity took part"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Most of these times in one day.
fn most_in_a_day(mut times: Vec<Timestamp>) -> usize {
    times.sort_unstable();
    let in_the_day_from = |first: &Timestamp| {
        let mut later = times.iter().filter(|it| **it >= *first);
        later
            .by_ref()
            .take_while(|it| it.0 < first.0 + DAY_MS)
            .count()
    };
    times.iter().map(in_the_day_from).max().unwrap_or(0)
}

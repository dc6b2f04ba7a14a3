//! Many nodes and a network that loses, doubles and delays packages, by chance from a seed.
//!
//! In the end each node has exactly the objects that it may read, with the bytes that their owners
//! signed.

use std::collections::{BTreeMap, BTreeSet};

use keys::{Digest, Oid};
use postern::state_engine::{ApplyPackageError, CoreLimits, PackageLimits, PullReply};
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use harness::pull::{TakeError, meet};
use harness::{ALL_APPS, NO_MARKET, Setup, TestNode, card, conversation, message, offer, ride};

/// An object, as the test itself remembers it.
#[derive(Debug, Clone)]
struct Made {
    app: &'static str,
    owner: usize,
    /// Nodes whose identities may read it; none if all may.
    readers: Option<BTreeSet<usize>>,
    /// The conversation that it belongs to.
    within: Option<Oid>,
    deleted: bool,
}

/// A package in flight.
#[derive(Clone)]
struct Flight {
    from: usize,
    to: usize,
    domain: String,
    is_push: bool,
    bytes: Vec<u8>,
}

struct World {
    nodes: Vec<Option<TestNode>>,
    met: BTreeSet<(usize, usize)>,
    made: BTreeMap<Oid, Made>,
    flights: Vec<Flight>,
    rng: ChaCha20Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let count = rng.random_range(5..=8);
        // Small packages, so that windows are cut often.
        let package = PackageLimits {
            bytes_max: 16 * 1024,
            objects_max: rng.random_range(2..8),
        };
        let limits = CoreLimits {
            package,
            ..CoreLimits::default()
        };
        let nodes = (0..count).map(|number| {
            let apps: &[&str] = if rng.random_bool(0.7) {
                &ALL_APPS
            } else {
                &NO_MARKET
            };
            let id_offset = rng.random_range(2..1000);
            let setup = Setup::new(&format!("node {number}")).apps(apps);
            let setup = setup.id_offset(id_offset).limits(limits);
            Some(setup.node())
        });
        let nodes: Vec<_> = nodes.collect();
        let mut world = Self {
            nodes,
            met: BTreeSet::new(),
            made: BTreeMap::new(),
            flights: Vec::new(),
            rng,
        };
        for one in 0..count {
            for other in one + 1..count {
                if world.rng.random_bool(0.8) {
                    meet(world.node(one), world.node(other));
                    world.met.extend([(one, other), (other, one)]);
                }
            }
        }
        world
    }

    fn node(&self, number: usize) -> &TestNode {
        self.nodes[number].as_ref().unwrap()
    }

    fn any(&mut self) -> usize {
        self.rng.random_range(0..self.nodes.len())
    }

    /// A random node that this node has met.
    fn acquaintance(&mut self, of: usize) -> Option<usize> {
        let known: Vec<_> = self
            .met
            .iter()
            .filter(|pair| pair.0 == of)
            .map(|pair| pair.1)
            .collect();
        known.choose(&mut self.rng).copied()
    }

    fn note(
        &mut self,
        oid: Oid,
        app: &'static str,
        owner: usize,
        readers: Option<BTreeSet<usize>>,
        within: Option<Oid>,
    ) {
        self.made.insert(
            oid,
            Made {
                app,
                owner,
                readers,
                within,
                deleted: false,
            },
        );
    }

    /// Conversations that a node has stored and takes part in.
    fn conversations(&self, of: usize) -> Vec<Oid> {
        let own = self.made.iter().filter(|(_, made)| {
            made.app == "messages"
                && made.within.is_none()
                && made.readers.as_ref().is_some_and(|it| it.contains(&of))
        });
        own.map(|(oid, _)| *oid)
            .filter(|oid| self.node(of).parent("messages", *oid).is_some())
            .collect()
    }

    fn step(&mut self) {
        let number = self.any();
        let late = self.rng.random_range(0..5000);
        self.node(number).clock.advance_ms(late);
        match self.rng.random_range(0..100) {
            0..12 => self.send(number),
            12..16 => self.start_group(number),
            16..24 => self.write_message(number),
            24..36 => self.make(number),
            36..46 => self.change(number),
            46..62 => self.ask(number, false),
            62..74 => self.ask(number, true),
            74..99 => self.deliver(),
            _ => {
                let node = self.nodes[number].take().unwrap();
                self.nodes[number] = Some(node.restart());
            }
        }
    }

    fn send(&mut self, from: usize) {
        let Some(to) = self.acquaintance(from) else {
            return;
        };
        let body = format!("text {}", self.rng.random::<u32>());
        let sent = self.node(from).send(self.node(to).identity, &body);
        let readers = Some(BTreeSet::from([from, to]));
        if !self.made.contains_key(&sent.conversation) {
            self.note(sent.conversation, "messages", from, readers.clone(), None);
        }
        self.note(sent.oid, "messages", from, readers, Some(sent.conversation));
    }

    fn start_group(&mut self, from: usize) {
        let (Some(one), Some(other)) = (self.acquaintance(from), self.acquaintance(from)) else {
            return;
        };
        if one == other {
            return;
        }
        let members = BTreeSet::from([from, one, other]);
        let identities: Vec<_> = members
            .iter()
            .map(|member| self.node(*member).identity)
            .collect();
        let saved = self
            .node(from)
            .make("messages", 1, conversation(&identities))
            .unwrap();
        self.note(saved.oid, "messages", from, Some(members), None);
    }

    fn write_message(&mut self, from: usize) {
        let conversations = self.conversations(from);
        let Some(within) = conversations.choose(&mut self.rng).copied() else {
            return;
        };
        let body = format!("text {}", self.rng.random::<u32>());
        let saved = self
            .node(from)
            .make("messages", 2, message(within, &body))
            .unwrap();
        let readers = self.made[&within].readers.clone();
        self.note(saved.oid, "messages", from, readers, Some(within));
    }

    fn make(&mut self, owner: usize) {
        let number = self.rng.random_range(1..9);
        match self.rng.random_range(0..3) {
            0 => {
                let saved = self
                    .node(owner)
                    .make("rides", 1, ride("Bern", number))
                    .unwrap();
                self.note(saved.oid, "rides", owner, None, None);
            }
            1 if self.node(owner).apps().iter().any(|app| app == "market") => {
                let saved = self
                    .node(owner)
                    .make("market", 1, offer(&format!("{number} bikes")))
                    .unwrap();
                self.note(saved.oid, "market", owner, None, None);
            }
            _ => {
                let Some(subject) = self.acquaintance(owner) else {
                    return;
                };
                let attrs = card(self.node(subject).identity, &format!("friend {number}"));
                let saved = self.node(owner).make("contacts", 1, attrs).unwrap();
                self.note(
                    saved.oid,
                    "contacts",
                    owner,
                    Some(BTreeSet::from([owner, subject])),
                    None,
                );
            }
        }
    }

    /// Changes or deletes an object of the owner that may change.
    fn change(&mut self, owner: usize) {
        let own = self
            .made
            .iter()
            .filter(|(_, made)| made.owner == owner && !made.deleted && made.app != "messages");
        let own: Vec<_> = own.map(|(oid, made)| (*oid, made.app)).collect();
        let Some((oid, app)) = own.choose(&mut self.rng).copied() else {
            return;
        };
        let deleted = self.rng.random_bool(0.3);
        let node = self.node(owner);
        let attrs = node.object(app, oid).unwrap().0.attrs.map(|mut attrs| {
            let text = if app == "market" || app == "rides" {
                1
            } else {
                2
            };
            attrs.insert(text, vec!["changed".into()]);
            attrs
        });
        node.change(app, 1, oid, attrs.filter(|_| !deleted))
            .unwrap();
        self.made.get_mut(&oid).unwrap().deleted = deleted;
    }

    /// Puts the package of a pull or a push in flight.
    fn ask(&mut self, to: usize, is_push: bool) {
        let Some(from) = self.acquaintance(to) else {
            return;
        };
        let domains = self.node(to).sync_domains();
        let domain = domains.choose(&mut self.rng).unwrap().clone();
        let (sender, receiver) = (self.node(from), self.node(to));
        let answer = if is_push {
            sender.push(receiver, &domain)
        } else {
            sender.answer(&receiver.request(sender, &domain))
        };
        if let PullReply::Package { bytes, .. } = answer {
            self.flights.push(Flight {
                from,
                to,
                domain,
                is_push,
                bytes,
            });
        }
    }

    /// Takes a random package in flight, which arrives, is lost, or arrives and stays in flight.
    fn deliver(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.flights.len());
        let flight = match self.rng.random_range(0..10) {
            0 | 1 => return drop(self.flights.swap_remove(place)),
            2 => self.flights[place].clone(),
            _ => self.flights.swap_remove(place),
        };
        let ack_arrives = self.rng.random_bool(0.6);
        let (sender, receiver) = (self.node(flight.from), self.node(flight.to));
        match receiver.take(sender, &flight.bytes) {
            Ok(applied) if flight.is_push && ack_arrives => {
                sender.acked_by(receiver, &flight.domain, applied.last_seq)
            }
            Ok(_) | Err(TakeError::Apply(ApplyPackageError::Window(_))) => (),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// All nodes pull everything from each other until nothing is new.
    fn settle(&mut self) {
        let mut pairs: Vec<_> = self.met.iter().copied().collect();
        for round in 0.. {
            assert!(round < 8, "the nodes do not converge");
            pairs.shuffle(&mut self.rng);
            let written: usize = pairs
                .iter()
                .map(|(to, from)| self.node(*to).pull_everything(self.node(*from)))
                .sum();
            if written == 0 {
                return;
            }
        }
    }

    /// Whether a node must have an object in the end.
    fn may_have(&self, node: usize, made: &Made) -> bool {
        let knows = |other: usize| node == other || self.met.contains(&(node, other));
        let reads = made
            .readers
            .as_ref()
            .is_none_or(|readers| readers.contains(&node));
        let has_app = self.node(node).apps().iter().any(|app| app == made.app);
        let has_scope = made
            .within
            .is_none_or(|within| knows(self.made[&within].owner));
        knows(made.owner) && reads && has_app && has_scope
    }

    /// Notes what the nodes wrote by themselves: each member's `accept` in a conversation.
    fn note_accepts(&mut self) {
        for owner in 0..self.nodes.len() {
            for (oid, scope) in self.node(owner).own_accepts() {
                let readers = self.made[&scope].readers.clone();
                self.note(oid, "messages", owner, readers, Some(scope));
            }
        }
    }

    fn check(&self) {
        for number in 0..self.nodes.len() {
            let node = self.node(number);
            assert_eq!(
                node.rejects(),
                Vec::<String>::new(),
                "honest nodes refuse nothing"
            );
            let mut held: BTreeSet<Oid> = BTreeSet::new();
            for (oid, made) in &self.made {
                let here = node
                    .apps()
                    .iter()
                    .any(|app| app == made.app)
                    .then(|| node.object(made.app, *oid))
                    .flatten();
                held.extend(here.as_ref().map(|_| *oid));
                let at_owner = self.node(made.owner).object(made.app, *oid).unwrap();
                match here {
                    Some(here) => {
                        assert!(
                            self.may_have(number, made),
                            "node {number} may not read {made:?}"
                        );
                        assert_eq!(here, at_owner, "the owner signed other bytes");
                    }
                    // A node that never had a deleted object needs no tombstone.
                    None => assert!(
                        made.deleted || !self.may_have(number, made),
                        "node {number} lacks {made:?}"
                    ),
                }
            }
            let parents = |app: &String| node.rows(&format!("app_{app}_parent")).len() - 1;
            let others = node.apps().iter().filter(|app| *app != "identities");
            let stored: usize = others.map(parents).sum();
            assert_eq!(stored, held.len(), "no further objects");
            let waiting = self.made.iter().filter(|(_, made)| {
                let readers = made.readers.as_ref();
                readers.is_some_and(|readers| readers.contains(&number))
                    && made.owner != number
                    && self.met.contains(&(number, made.owner))
                    && !self.may_have(number, made)
            });
            assert_eq!(
                node.rows("waiting").len(),
                waiting.count(),
                "objects that wait for a node that was never met"
            );
        }
    }

    fn digest(&self) -> Digest {
        let dumps: Vec<_> = self.nodes.iter().flatten().map(TestNode::dump).collect();
        Digest::of(format!("{dumps:?}").as_bytes())
    }
}

fn run(seed: u64, steps: usize) -> Digest {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    world.note_accepts();
    world.check();
    world.digest()
}

#[test]
fn nodes_converge_after_a_bad_network_seed_1() {
    run(1, 400);
}

#[test]
fn nodes_converge_after_a_bad_network_seed_2() {
    run(2, 400);
}

#[test]
fn nodes_converge_after_a_bad_network_seed_3() {
    run(3, 400);
}

#[test]
fn nodes_converge_in_many_short_runs() {
    for seed in 100..112 {
        run(seed, 80);
    }
}

#[test]
fn equal_seeds_give_equal_rows() {
    assert_eq!(run(7, 150), run(7, 150));
    assert_ne!(run(7, 150), run(8, 150));
}

//! After any sequence of lists, leaves, deletions, stolen keys and rotations, the readers of each
//! node are those that follow from its objects alone.

use harness::TestNode;
use harness::forge::tombstone;
use harness::pull::meet;
use harness::rights::list_object;
use harness::stolen_keys::StolenKeys;
use keys::{Oid, SignedObject};
use postern::object::Rights;
use postern::services::identities;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::scopes::{FOLDER, PAGE, folder, page, writer};

/// One step. The numbers choose a node, an identity or rights.
#[derive(Debug, Clone)]
enum Step {
    /// Alice changes the rights of two identities.
    List([(u8, u8); 2]),
    /// A member other than Alice leaves.
    Leave(u8),
    /// A node writes a page.
    Page(u8),
    /// A node pulls from another one.
    Pull(u8, u8),
    /// Alice's key changes, or one more of her objects is re-signed.
    Rotate,
    /// A thief of Alice's first key sends a list of this version to a node.
    StolenList(u8, u8),
    /// A thief of Alice's first key deletes the folder at a node.
    StolenDeletion(u8),
    /// Alice changes the folder.
    Change,
    /// Alice deletes the folder.
    Delete,
    /// Bob's second identity becomes known to his node.
    Publish,
    /// A node drops values of an ended scope.
    Drop(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let list = any::<[(u8, u8); 2]>().prop_map(Step::List);
    let pull = any::<(u8, u8)>().prop_map(|(to, from)| Step::Pull(to, from));
    let stolen = any::<(u8, u8)>().prop_map(|(node, version)| Step::StolenList(node, version));
    prop_oneof![
        5 => list,
        3 => any::<u8>().prop_map(Step::Leave),
        2 => any::<u8>().prop_map(Step::Page),
        8 => pull,
        4 => Just(Step::Rotate),
        2 => stolen,
        1 => any::<u8>().prop_map(Step::StolenDeletion),
        1 => Just(Step::Change),
        1 => Just(Step::Delete),
        1 => Just(Step::Publish),
        1 => any::<u8>().prop_map(Step::Drop),
    ]
}

struct Garden {
    nodes: [TestNode; 3],
    folder: Oid,
    /// Bob's second identity.
    second: Oid,
    rotations: u8,
}

impl Garden {
    fn new() -> Self {
        let nodes = [
            writer("alice", 0),
            writer("bob", 700),
            writer("carol", 1400),
        ];
        let [alice, bob, carol] = &nodes;
        meet(alice, bob);
        meet(alice, carol);
        meet(bob, carol);
        let attrs = folder(&[alice, bob], "plans");
        let folder = alice.make("wiki", FOLDER, attrs).unwrap().oid;
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let second = bob.keys.add_identity(&mut rng).unwrap();
        Self {
            nodes,
            folder,
            second,
            rotations: 0,
        }
    }

    fn node(&self, number: u8) -> &TestNode {
        &self.nodes[usize::from(number) % 3]
    }

    fn identity(&self, number: u8) -> Oid {
        let [_, bob, carol] = &self.nodes;
        [bob.identity, carol.identity, self.second][usize::from(number) % 3]
    }

    /// Sends what a thief signed with Alice's first key.
    fn forge(&self, to: u8, object: SignedObject) {
        let to = &self.nodes[1 + usize::from(to) % 2];
        let from = self
            .nodes
            .iter()
            .skip(1)
            .find(|it| it.peer_id() != to.peer_id());
        from.unwrap().force(to, "wiki", vec![object]).unwrap();
    }

    /// Does a step. Steps that the rules deny do nothing.
    fn step(&mut self, step: &Step) {
        let [alice, bob, _] = &self.nodes;
        let (owner, stolen) = (alice.identity, StolenKeys::of_name("alice"));
        match *step {
            Step::List(changes) => {
                let changes = changes
                    .map(|(identity, bits)| (self.identity(identity), Rights::from_bits(bits % 4)));
                let _ = alice.set_rights("wiki", self.folder, &changes);
            }
            Step::Leave(node) => {
                let _ = self.nodes[1 + usize::from(node) % 2].leave("wiki", self.folder);
            }
            Step::Page(node) => {
                let _ = self
                    .node(node)
                    .make("wiki", PAGE, page(self.folder, "text"));
            }
            Step::Pull(to, from) if to % 3 != from % 3 => {
                self.node(to).pull_everything(self.node(from));
            }
            Step::Pull(..) => {}
            Step::Rotate => {
                let signed = alice
                    .graph(move |graph| graph.resign_some(&owner, 1))
                    .unwrap();
                if signed == 0 && self.rotations < 2 {
                    self.rotations += 1;
                    let mut rng = ChaCha20Rng::seed_from_u64(self.rotations.into());
                    alice.keys.rotate(owner, &mut rng).unwrap();
                    alice
                        .graph(move |graph| {
                            let profile = graph.profile(&owner)?.unwrap();
                            graph.save_profile(owner, &profile)
                        })
                        .unwrap();
                }
            }
            Step::StolenList(node, version) => {
                let others = [(self.identity(version), Rights::READ_WRITE)];
                let (salt, version) = (version, 1 + u64::from(version));
                let list = list_object("wiki", salt, self.folder, version, (owner, &others));
                self.forge(node, stolen.sign(&list));
            }
            Step::StolenDeletion(node) => {
                let (folder, _) = alice.object("wiki", self.folder).unwrap();
                self.forge(node, stolen.sign(&tombstone(&folder, folder.rev + 1)));
            }
            Step::Change => {
                let attrs = folder(&[alice, bob], "better plans");
                let _ = alice.change("wiki", FOLDER, self.folder, Some(attrs));
            }
            Step::Delete => {
                let _ = alice.change("wiki", FOLDER, self.folder, None);
            }
            Step::Publish => {
                let second = self.second;
                let known = bob.public_key_of(second).is_some();
                if !known {
                    bob.graph(move |graph| identities::publish(graph, second, Some("Second")))
                        .unwrap();
                }
            }
            Step::Drop(node) => {
                let node = self.node(node);
                node.write(|core, now| core.drop_ended_step(now)).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn readers_equal_a_recomputation_from_nothing(
        steps in proptest::collection::vec(any_step(), 1..30),
    ) {
        let mut garden = Garden::new();
        for step in &steps {
            garden.step(step);
            for node in &garden.nodes {
                prop_assert_eq!(node.stored_readers(), node.recomputed_readers(), "{:?}", step);
            }
        }
    }
}

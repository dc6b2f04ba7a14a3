//! Purges: what a peer sent is removed in portions, and does not come back (docs/DECISIONS.md 10).

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bastion::Tier;
use harness::pull::meet;
use harness::{Setup, TestNode, conversation, ride};
use keys::{Oid, PeerId};
use parking_lot::Mutex;
use postern::graph::{AcceptPolicy, load_object};
use postern::object::CoreRecord;
use postern::services::removals::{self, RemovalError};
use postern::services::verdicts::{self, Reason, VerdictError};
use postern::state_engine::CoreLimits;
use postern::store::{
    Account, EpochReason, PurgeRow, PurgeState, ScopeId, SettlingTurn, SettlingWork, StoreError,
    Usage, WriteMode, check_whole,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::rights::BOTH;
use crate::stubs::MESSAGES;

pub(crate) const HOUR_MS: u64 = 60 * 60 * 1000;

/// Bans a node for some time, and removes what it sent.
pub(crate) fn ban_and_purge(node: &TestNode, banned: &TestNode, for_ms: Option<u64>) {
    let (peer, quotas) = (banned.peer_id(), node.limits().quotas);
    let until = for_ms.map(|ms| postern::op_context::Timestamp(node.engine.now().0 + ms));
    node.graph::<_, RemovalError>(move |graph| {
        removals::ban_and_purge(graph, &quotas, peer, (Reason::default(), until))
    })
    .unwrap();
}

pub(crate) fn ban(node: &TestNode, banned: &TestNode) {
    let peer = banned.peer_id();
    node.graph::<_, VerdictError>(move |graph| verdicts::ban(graph, peer, Reason::default(), None))
        .unwrap();
}

/// A ban makes its peer untrusted, whose quota is smaller.
#[test]
fn every_removed_object_is_remembered_also_if_a_ban_came_first() {
    let mut limits = CoreLimits::default();
    limits.quotas.untrusted.stored_objects_max = 2;
    let alice = Setup::new("alice").limits(limits).node();
    let mallory = TestNode::new("mallory", 300);
    meet(&alice, &mallory);
    let rides: Vec<Oid> = (0..5)
        .map(|number| mallory.make("rides", 1, ride("Basel", number)).unwrap().oid)
        .collect();
    alice.pull_everything(&mallory);
    ban(&alice, &mallory);
    ban_and_purge(&alice, &mallory, None);
    for oid in rides {
        assert!(alice.read(move |view| view.rows.purged(&oid)).is_some());
    }
}

pub(crate) fn unban(node: &TestNode, banned: &TestNode) {
    let peer = banned.peer_id();
    node.graph::<_, VerdictError>(move |graph| verdicts::unban(graph, peer))
        .unwrap();
}

pub(crate) fn remove(node: &TestNode, peer: &TestNode, purge: bool) -> Result<(), RemovalError> {
    let (peer, quotas) = (peer.peer_id(), node.limits().quotas);
    node.graph(move |graph| removals::remove(graph, &quotas, peer, purge).map(drop))
}

pub(crate) fn purge_of(node: &TestNode, peer: &TestNode) -> Option<PurgeRow> {
    let peer = peer.peer_id();
    let purges = node.read(|view| view.rows.purges());
    purges.into_iter().find(|row| row.peer == peer)
}

/// Identities of a node without petnames, which all give themselves one name.
pub(crate) fn bobs(node: &TestNode, count: u8) -> Vec<Oid> {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let made: Vec<Oid> = (0..count)
        .map(|_| node.keys.add_identity(&mut rng).unwrap())
        .collect();
    let saved = made.clone();
    node.graph::<_, postern::graph::SaveError>(move |graph| {
        saved
            .iter()
            .try_for_each(|oid| graph.save_identity(*oid, Some("Bob")).map(drop))
    })
    .unwrap();
    made
}

/// A node whose operator decides on each invitation.
pub(crate) fn asking(name: &str, id_offset: i64) -> TestNode {
    let mut limits = CoreLimits::default();
    limits.graph.accept = AcceptPolicy::Ask;
    Setup::new(name).id_offset(id_offset).limits(limits).node()
}

/// The files of a folder, each with its name.
type Files = Vec<(String, Vec<u8>)>;
type Accounts = BTreeMap<(PeerId, Account), Usage>;

/// The usage of each account, counted again from what is stored, waits or was refused.
pub(crate) fn recounted(node: &TestNode) -> Accounts {
    let oids = node.stored_objects();
    node.read(move |view| {
        let mut sums = Accounts::new();
        for (oid, stored) in oids {
            let app = view.rows.apps().get(&stored.app).unwrap();
            let row = view.rows.parent(app, &oid)?.unwrap();
            if let Some(sender) = stored.origin {
                let bytes = match row.rev {
                    0 => 0,
                    _ => {
                        let (object, signed) = load_object(&view.rows, app, &row)?;
                        let entries = match CoreRecord::read(&object) {
                            Some(Ok(record)) => record.entries(),
                            _ => 0,
                        };
                        signed.bytes().len() + 64 * entries
                    }
                };
                *sums.entry((sender, row.account)).or_default() += Usage::one(bytes);
            }
        }
        // Each record of a refused object counts as one object.
        for peer in view.rows.peers()? {
            let objects = i64::try_from(view.rows.reject_count(Some(&peer.peer_id))?).unwrap();
            if objects > 0 {
                let sum = sums.entry((peer.peer_id, Account::Own)).or_default();
                *sum += Usage { objects, bytes: 0 };
            }
        }
        Ok(sums)
    })
}

/// Asserts that each account holds what is stored, and that no row refers to a missing one.
pub(crate) fn assert_whole(node: &TestNode, peers: &[&TestNode]) {
    check_whole(&node.database()).unwrap();
    let recounted = recounted(node);
    for peer in peers {
        let id = peer.peer_id();
        let Some(stored) = node.read(move |view| view.rows.stored_by(&id)) else {
            continue;
        };
        let own = recounted.get(&(id, Account::Own));
        assert_eq!(
            stored.usage,
            own.copied().unwrap_or_default(),
            "own account"
        );
        let mut relayed = Usage::default();
        for ((_, account), usage) in recounted.iter().filter(|((of, _), _)| *of == id) {
            if *account != Account::Own {
                relayed += *usage;
            }
        }
        assert_eq!(stored.relayed, relayed, "relayed");
    }
    let tier = node.read(|view| {
        let mut sum = view.rows.tier_usage(Tier::Trusted)?;
        sum += view.rows.tier_usage(Tier::Untrusted)?;
        Ok(sum)
    });
    let all = recounted.values().fold(Usage::default(), |mut sum, usage| {
        sum += *usage;
        sum
    });
    assert_eq!(tier, all, "tiers");
}

/// Tables that hold what peers sent, each with its number of rows.
fn counts(node: &TestNode) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (table, rows) in node.dump() {
        let is_counted = table.starts_with("app_")
            || [
                "identity",
                "scope",
                "reader",
                "rights_list",
                "rights_entry",
                "waiting",
            ]
            .contains(&table.as_str());
        if is_counted {
            counts.insert(table, rows.len());
        }
    }
    counts
}

/// Mallory has some identities that call themselves Bob, and writes as the first of them.
pub(crate) fn spam(mallory: &TestNode, to: &TestNode, count: u8) -> Vec<Oid> {
    let bobs = bobs(mallory, count);
    for number in 0..count {
        mallory
            .make("rides", 1, ride("Bern", i64::from(number)))
            .unwrap();
        mallory.try_send_as(bobs[0], to.identity, "buy").unwrap();
    }
    bobs
}

#[test]
fn ban_with_purge_leaves_nothing_of_the_peer() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    let clean = counts(&alice);
    meet(&alice, &mallory);
    let bobs = spam(&mallory, &alice, 20);
    alice.pull_everything(&mallory);
    assert_eq!(alice.texts().len(), 20);
    let head = alice.head();
    ban_and_purge(&alice, &mallory, None);
    let mut left = counts(&alice);
    // The server row of the node keeps its key chain.
    *left.get_mut("identity").unwrap() -= 1;
    *left.get_mut("app_identities_parent").unwrap() -= 1;
    *left.get_mut("app_identities_attr").unwrap() -= 2;
    assert_eq!(left, clean);
    let purge = purge_of(&alice, &mallory).unwrap();
    assert_eq!(purge.state, PurgeState::Done);
    // Mallory's own identity, 20 others, 20 rides, and a conversation with 20 messages.
    assert_eq!((purge.identities, purge.removed.objects), (21, 62));
    assert_eq!(purge.remembered, 62);
    assert_whole(&alice, &[&mallory]);
    assert!(alice.head() > head);
    assert!(bobs.iter().all(|bob| alice.home_of(*bob).is_none()));
    assert_eq!(alice.texts(), []);
}

#[test]
fn removal_of_the_last_numbers_is_no_rollback_and_none_is_used_again() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    spam(&mallory, &alice, 5);
    alice.pull_everything(&mallory);
    let numbers = |node: &TestNode| {
        let (head, ids) = node.read(|view| view.rows.heads());
        (head, ids, node.read(|view| view.rows.last_scope()))
    };
    let (head, ids, scope) = numbers(&alice);
    ban_and_purge(&alice, &mallory, None);
    let epoch = alice.epoch();
    let alice = alice.restart();
    assert_eq!(
        (alice.epoch(), alice.write_mode()),
        (epoch, WriteMode::ReadWrite)
    );
    let later = numbers(&alice);
    assert!(later.0 >= head && later.1 == ids && later.2 == scope);
    let people = [alice.identity, mallory.identity];
    let made = alice.make(MESSAGES, 1, conversation(&people)).unwrap();
    let row = alice.parent(MESSAGES, made.oid).unwrap();
    let last = ids.iter().find(|(slug, _)| slug == MESSAGES).unwrap().1;
    assert!(row.change_seq > head && row.id > last && row.scope_id > scope);
}

#[test]
fn kill_between_two_portions_loses_nothing() {
    let prepared = || {
        let [alice, mallory] = [("alice", 0), ("mallory", 300)].map(|(name, id)| asking(name, id));
        meet(&alice, &mallory);
        let bobs = spam(&mallory, &alice, 60);
        let people = [mallory.identity, alice.identity, bobs[1]];
        let talk = mallory
            .make(MESSAGES, 1, conversation(&people))
            .unwrap()
            .oid;
        for bob in &bobs[3..20] {
            mallory.set_rights(MESSAGES, talk, &[(*bob, BOTH)]).unwrap();
        }
        alice.pull_everything(&mallory);
        (alice, mallory)
    };
    let (alice, mallory) = prepared();
    let copies: Arc<Mutex<Vec<Files>>> = Arc::default();
    let (kept, folder) = (
        copies.clone(),
        alice.database().parent().unwrap().to_owned(),
    );
    let copy = move || {
        let files = fs::read_dir(&folder).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_file = path.is_file() && !name.ends_with("-shm");
            (
                name,
                if is_file {
                    fs::read(&path).unwrap()
                } else {
                    Vec::new()
                },
            )
        });
        let files = files.filter(|(_, bytes)| !bytes.is_empty());
        kept.lock().push(files.collect());
    };
    alice
        .write(move |core, _| {
            core.on_commit(Box::new(copy));
            Ok::<_, StoreError>(())
        })
        .unwrap();
    copies.lock().clear();
    ban_and_purge(&alice, &mallory, None);
    let (expected, done) = (counts(&alice), purge_of(&alice, &mallory));
    assert_whole(&alice, &[&mallory]);
    let states = std::mem::take(&mut *copies.lock());
    assert!(states.len() > 8, "{} portions", states.len());
    for files in states {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let mut limits = CoreLimits::default();
        limits.graph.accept = AcceptPolicy::Ask;
        let again = Setup::new("alice")
            .limits(limits)
            .unpublished()
            .start_number(1)
            .folder(folder)
            .node();
        again.graph(|_| Ok::<_, StoreError>(())).unwrap();
        assert_eq!(
            (counts(&again), purge_of(&again, &mallory)),
            (expected.clone(), done)
        );
        assert_eq!(again.write_mode(), WriteMode::ReadWrite);
        assert_whole(&again, &[&mallory]);
    }
}

#[test]
fn removal_is_refused_while_peers_may_return_objects() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    let restored = alice.into_setup().new_epoch(EpochReason::Restored);
    let alice = restored.node();
    assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
    for purge in [false, true] {
        let refused = remove(&alice, &mallory, purge);
        assert!(matches!(refused, Err(RemovalError::Recovering)));
    }
    let (peer, quotas) = (mallory.peer_id(), alice.limits().quotas);
    let refused = alice.graph(move |graph| {
        removals::ban_and_purge(graph, &quotas, peer, (Reason::default(), None))
    });
    assert!(matches!(refused, Err(RemovalError::Recovering)));
    assert!(alice.stored_peer(&mallory).is_some());
    assert_eq!(alice.rows("purge").len(), 0);
}

#[test]
fn many_objects_are_removed_in_portions_and_the_peer_waits_until_then() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    for number in 0..300 {
        mallory.make("rides", 1, ride("Bern", number)).unwrap();
    }
    alice.pull_everything(&mallory);
    let (peer, quotas) = (mallory.peer_id(), alice.limits().quotas);
    let portions = alice.write(move |core, now| {
        core.write(now, |graph| {
            removals::ban_and_purge(graph, &quotas, peer, (Reason::default(), None))
        })?;
        let mut portions = 0;
        loop {
            let rows = core.view().rows;
            let is_purging = rows.is_purging(&peer)?;
            if !is_purging {
                break;
            }
            core.settle_step(now)?;
            portions += 1;
            assert!(core.view().rows.purge_progress()?.is_some() || portions > 6);
        }
        Ok::<_, RemovalError>(portions)
    });
    assert!((8..60).contains(&portions.unwrap()));
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn purge_and_other_work_take_turns() {
    let (alice, mallory) = (TestNode::new("alice", 0), TestNode::new("mallory", 300));
    meet(&alice, &mallory);
    for number in 0..3 {
        mallory.make("rides", 1, ride("Basel", number)).unwrap();
    }
    alice.pull_everything(&mallory);
    let (peer, quotas) = (mallory.peer_id(), alice.limits().quotas);
    let turns = alice.write(move |core, now| {
        core.write(now, |graph| {
            removals::ban_and_purge(graph, &quotas, peer, (Reason::default(), None))?;
            let app = graph.tx().apps().get("rides").unwrap().id;
            let scopes = (1..=20).map(|number| SettlingWork::Restamp(app, ScopeId(1000 + number)));
            for work in scopes {
                graph.tx().note_span(&work, 1)?;
            }
            Ok::<_, RemovalError>(())
        })?;
        let mut turns = Vec::new();
        for _ in 0..12 {
            let before = core.view().rows.next_settling(SettlingTurn::Others)?;
            assert!(core.settle_step(now)?);
            turns.push(core.view().rows.next_settling(SettlingTurn::Others)? == before);
        }
        Ok::<_, RemovalError>(turns)
    });
    let turns = turns.unwrap();
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
}

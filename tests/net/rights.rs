//! Rights lists over sessions: a late member gets the history, and a restored owner its lists.

use std::path::Path;

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, conversation, message};
use keys::Oid;
use keys::protocol::{LEAVE_TYPE, RIGHTS_TYPE};
use postern::graph::SaveError;
use postern::object::Rights;
use postern::store::{self, EpochReason, WriteMode};

const BOTH: Option<Rights> = Some(Rights::READ_WRITE);

/// Alice founded a conversation with Bob; Carol is a peer of both.
async fn three(net: &MemoryNet) -> ([LiveNode; 3], Oid) {
    let nodes = [("Alice", 1), ("Bob", 2), ("Carol", 3)];
    let nodes = nodes.map(|(name, seed)| LiveNode::start(net, name, seed));
    let [alice, bob, carol] = &nodes;
    bob.meet(alice).await;
    carol.meet(alice).await;
    carol.meet(bob).await;
    let people = conversation(&[alice.identity, bob.identity]);
    let talk = alice.make("messages", 1, people).unwrap().oid;
    alice.make("messages", 2, message(talk, "one")).unwrap();
    bob.pull_everything(alice).await;
    bob.make("messages", 2, message(talk, "two")).unwrap();
    for (to, from) in [(alice, bob), (carol, alice), (carol, bob)] {
        to.pull_everything(from).await;
    }
    (nodes, talk)
}

/// Starts a node's keys over a copy of its database, as a restore does.
async fn restored(net: &MemoryNet, node: LiveNode, copy: &Path) -> LiveNode {
    let again = node.stop().await.elsewhere();
    let again = again.new_epoch(EpochReason::Restored);
    std::fs::rename(copy, again.database()).unwrap();
    again.live(net)
}

/// Waits until a restored node has asked a peer for its objects.
async fn peer_was_asked(node: &LiveNode, peer: &LiveNode) {
    let waits_for = || node.read(|view| view.rows.recovery_peers());
    while waits_for().contains(&peer.peer_id()) {
        tokio::task::yield_now().await;
    }
}

fn texts(node: &LiveNode) -> Vec<String> {
    let mut texts: Vec<_> = node.texts().into_iter().map(|(_, text)| text).collect();
    texts.sort();
    texts
}

/// The rights lists and leaves of a node's identity: oid, and the domains of each.
fn core_objects(node: &LiveNode, owner: Oid) -> Vec<(Oid, i64)> {
    let stored = node.stored_objects();
    let own = stored.iter().filter(|(_, it)| it.owner == owner);
    let rows = own.filter_map(|(oid, it)| node.parent(&it.app, *oid));
    let core = rows.filter(|row| [RIGHTS_TYPE, LEAVE_TYPE].contains(&row.type_number));
    core.map(|row| (row.oid, row.sync_flags)).collect()
}

#[tokio::test]
async fn late_member_receives_the_history_of_all_members() {
    let net = MemoryNet::new();
    let (nodes, talk) = three(&net).await;
    let [alice, bob, carol] = &nodes;
    assert_eq!(texts(carol), Vec::<String>::new());
    let add = [(carol.identity, BOTH)];
    alice.set_rights("messages", talk, &add).unwrap();
    bob.pull_everything(alice).await;
    for from in [alice, bob] {
        carol.pull_everything(from).await;
    }
    assert_eq!(texts(carol), ["one", "two"]);
    carol.make("messages", 2, message(talk, "three")).unwrap();
    for to in [alice, bob] {
        to.pull_everything(carol).await;
        assert_eq!(texts(to), ["one", "three", "two"]);
    }
    for node in &nodes {
        assert_eq!(node.rejects(), Vec::<String>::new());
        node.assert_readers("at the end");
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Alice was restored without the list that removes the member `removed`, which Bob alone has.
/// After Carol, but not Bob, was asked for Alice's objects, Alice wrote "three".
async fn three_with_a_lost_list(net: &MemoryNet, removed: usize) -> ([LiveNode; 3], Oid) {
    let (nodes, talk) = three(net).await;
    let removed = nodes[removed].identity;
    let [alice, bob, carol] = nodes;
    let set = |rights| alice.set_rights("messages", talk, &[rights]).unwrap();
    set((carol.identity, BOTH));
    for to in [&bob, &carol] {
        to.pull_everything(&alice).await;
    }
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copy.db");
    store::snapshot(&alice.database(), &copy).unwrap();
    set((removed, None));
    bob.pull_everything(&alice).await;
    let alice = restored(net, alice, &copy).await;
    carol.meet(&alice).await;
    peer_was_asked(&alice, &carol).await;
    alice.make("messages", 2, message(talk, "three")).unwrap();
    carol.pull_everything(&alice).await;
    assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
    ([alice, bob, carol], talk)
}

#[tokio::test]
async fn restored_owner_serves_a_scope_once_the_homes_of_its_readers_were_asked() {
    let net = MemoryNet::new();
    let ([alice, bob, carol], _) = three_with_a_lost_list(&net, 2).await;
    assert!(!texts(&carol).contains(&"three".to_owned()));
    bob.meet(&alice).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    for to in [&bob, &carol] {
        to.pull_everything(&alice).await;
    }
    assert_eq!(texts(&bob), ["one", "three", "two"]);
    assert!(!texts(&carol).contains(&"three".to_owned()));
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn scope_opens_when_the_last_home_returns_the_list_that_removed_its_reader() {
    let net = MemoryNet::new();
    // Carol's cursor has passed the closed scope.
    let ([alice, bob, carol], talk) = three_with_a_lost_list(&net, 1).await;
    bob.meet(&alice).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    alice.make("messages", 2, message(talk, "four")).unwrap();
    carol.pull_everything(&alice).await;
    assert_eq!(texts(&carol), ["four", "one", "three"]);
    bob.pull_everything(&alice).await;
    assert_eq!(texts(&bob), ["one", "two"]);
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn restored_owner_gets_its_lists_and_leaves_back() {
    let net = MemoryNet::new();
    let (nodes, talk) = three(&net).await;
    let [alice, bob, carol] = nodes;
    let owner = alice.identity;
    // Alice will leave a conversation that Bob founded.
    let other = conversation(&[owner, bob.identity]);
    let other = bob.make("messages", 1, other).unwrap().oid;
    alice.pull_everything(&bob).await;
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copy.db");
    store::snapshot(&alice.database(), &copy).unwrap();
    for change in [(carol.identity, BOTH), (bob.identity, None)] {
        alice.set_rights("messages", talk, &[change]).unwrap();
    }
    alice.leave("messages", other).unwrap();
    for node in [&bob, &carol] {
        node.pull_everything(&alice).await;
    }
    let before = core_objects(&alice, owner);
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(|(_, flags)| *flags != 0));
    let alice = restored(&net, alice, &copy).await;
    assert_eq!(core_objects(&alice, owner), []);
    let early = alice.set_rights("messages", talk, &[(carol.identity, BOTH)]);
    assert!(matches!(early, Err(SaveError::Recovering)), "{early:?}");
    for node in [&bob, &carol] {
        node.meet(&alice).await;
    }
    alice.wait_for(WriteMode::ReadWrite).await;
    alice.pull_everything(&bob).await;
    assert_eq!(core_objects(&alice, owner), before);
    alice.assert_readers("after the restore");
    let readers = alice.readers("messages", talk);
    assert!(!readers.contains(&bob.identity) && readers.contains(&carol.identity));
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

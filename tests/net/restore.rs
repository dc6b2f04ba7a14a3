//! A node that is restored from a copy of its database reclaims its later objects from its peers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use harness::stored::{Replica, StoredObjects, replicas};
use harness::{LiveNode, offer, ride};
use keys::Oid;
use postern::graph::SaveError;
use postern::services::identities;
use postern::store::{self, Direction, EpochReason, WriteMode};

async fn three(net: &MemoryNet) -> (Arc<LiveNode>, LiveNode, LiveNode) {
    let alice = LiveNode::start(net, "Alice", 1);
    let bob = LiveNode::start(net, "Bob", 2);
    let carol = LiveNode::start(net, "Carol", 3);
    bob.meet(&alice).await;
    carol.meet(&alice).await;
    (Arc::new(alice), bob, carol)
}

fn offer_ride(node: &LiveNode, origin: &str) -> Oid {
    node.make("rides", 1, ride(origin, 2)).unwrap().oid
}

fn change(node: &LiveNode, oid: Oid, origin: &str) -> u64 {
    node.change("rides", 1, oid, Some(ride(origin, 2)))
        .unwrap()
        .rev
}

fn delete(node: &LiveNode, oid: Oid) {
    node.change("rides", 1, oid, None).unwrap();
}

fn rename(node: &LiveNode, name: &'static str) -> Result<u64, SaveError> {
    let identity = node.identity;
    node.graph(
        move |graph| match identities::rename(graph, identity, Some(name)) {
            Ok(saved) => Ok(saved.rev),
            Err(identities::IdentityError::Save(error)) => Err(error),
            Err(error) => panic!("{error}"),
        },
    )
}

/// Copies the database of a node while it writes, between its first and its last write.
async fn copied_amid_writes(alice: &Arc<LiveNode>, to: (Oid, Oid), out: &Path) -> Vec<Oid> {
    let (progress, mut written) = tokio::sync::watch::channel(0);
    let (enough, is_enough) = tokio::sync::watch::channel(false);
    let node = alice.clone();
    let writing = tokio::spawn(async move {
        let mut offers = Vec::new();
        while !*is_enough.borrow() || offers.len() < 30 {
            let number = offers.len();
            offers.push(offer_ride(&node, &format!("Town {number}")));
            node.send(to.0, &format!("to Bob {number}"));
            node.send(to.1, &format!("to Carol {number}"));
            if number % 3 == 1 {
                change(&node, offers[number - 1], "elsewhere");
            }
            if number % 5 == 4 {
                delete(&node, offers[number - 2]);
            }
            rename(&node, "Alice B").unwrap();
            progress.send_replace(offers.len());
            tokio::task::yield_now().await;
        }
        offers
    });
    written.wait_for(|count| *count >= 10).await.unwrap();
    let (database, out) = (alice.database(), out.to_owned());
    tokio::task::spawn_blocking(move || store::snapshot(&database, &out).unwrap())
        .await
        .unwrap();
    enough.send_replace(true);
    writing.await.unwrap()
}

/// Discards a node, and starts its keys over a copy of the database without the file of reserved
/// sequence numbers.
async fn restored(net: &MemoryNet, alice: Arc<LiveNode>, copy: &Path) -> LiveNode {
    let stopped = Arc::into_inner(alice).unwrap().stop().await;
    let again = stopped.elsewhere().new_epoch(EpochReason::Restored);
    std::fs::rename(copy, again.database()).unwrap();
    again.live(net)
}

/// Asserts that no object is lost and none has a lower revision.
fn assert_nothing_lost(before: &StoredObjects, after: &StoredObjects, owner: Oid) {
    for (oid, old) in before.iter().filter(|(_, old)| old.owner == owner) {
        let new = after
            .get(oid)
            .unwrap_or_else(|| panic!("{oid:?} is lost: {old:?}"));
        assert!(
            new.rev >= old.rev,
            "a lower revision won: {old:?} and {new:?}"
        );
        assert!(
            new.is_deleted || !old.is_deleted,
            "a deleted object is back: {new:?}"
        );
        if new.rev == old.rev {
            assert_eq!(new.bytes, old.bytes);
        }
    }
}

fn assert_changes_refused(node: &LiveNode, oid: Oid) {
    assert_eq!(node.write_mode(), WriteMode::NewObjectsOnly);
    let changed = node.change("rides", 1, oid, Some(ride("nowhere", 2)));
    assert!(matches!(changed, Err(SaveError::Recovering)), "{changed:?}");
    let deleted = node.change("rides", 1, oid, None);
    assert!(matches!(deleted, Err(SaveError::Recovering)), "{deleted:?}");
    let renamed = rename(node, "Too early");
    assert!(matches!(renamed, Err(SaveError::Recovering)), "{renamed:?}");
    let identity = node.identity;
    let signed = node.graph(move |graph| graph.resign_some(&identity, 1));
    assert!(matches!(signed, Err(SaveError::Recovering)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_node_reclaims_its_objects_from_two_peers() {
    let net = MemoryNet::new();
    let (alice, bob, carol) = three(&net).await;
    let (id, folder) = (alice.identity, tempfile::tempdir().unwrap());
    let copy = folder.path().join("copy");
    bob.send(id, "from Bob, early");
    let (bobs_ride, carols_ride) = (offer_ride(&bob, "Basel"), offer_ride(&carol, "Chur"));
    alice.pull_everything(&bob).await;
    let early = copied_amid_writes(&alice, (bob.identity, carol.identity), &copy).await;
    let at_copy = rides_in(&copy);
    for peer in [&bob, &carol] {
        peer.pull_everything(&alice).await;
    }
    // Changes after the copy, known to Bob, to Carol, to both or to neither.
    let (deleted_at_bob, twice) = (early[0], early[1]);
    let made_and_deleted = offer_ride(&alice, "Zug");
    change(&alice, twice, "once more");
    bob.pull_everything(&alice).await;
    carol.pull_everything(&alice).await;
    let for_bob = offer_ride(&alice, "for Bob");
    delete(&alice, deleted_at_bob);
    delete(&alice, made_and_deleted);
    alice.send(bob.identity, "late, to Bob");
    change(&alice, twice, "and again");
    bob.pull_everything(&alice).await;
    carol.send(id, "from Carol, late");
    alice.pull_everything(&carol).await;
    let highest = change(&alice, twice, "a third time");
    let for_carol = offer_ride(&alice, "for Carol");
    let renamed = rename(&alice, "Alice C").unwrap();
    let bike = alice.make("market", 1, offer("a bike")).unwrap().oid;
    carol.pull(&alice, "market.public_offers").await;
    alice.send(carol.identity, "late, to Carol");
    carol.pull(&alice, "identities").await;
    carol.pull(&alice, "messages").await;
    // Carol has pulled everything except the two tombstones, which only Bob has.
    let at_carol = carol.stored_objects();
    assert!(!at_carol[&deleted_at_bob].is_deleted && !at_carol[&made_and_deleted].is_deleted);
    let (old_head, old_epoch) = (alice.head(), alice.epoch());
    let (at_bob, before) = (bob.stored_objects(), alice.stored_objects());
    assert!(at_bob[&deleted_at_bob].is_deleted && at_bob[&made_and_deleted].is_deleted);

    let alice = restored(&net, alice, &copy).await;
    assert_ne!(alice.epoch(), old_epoch);
    let early_copy = alice.stored_objects();
    assert!(
        !early_copy.contains_key(&for_bob),
        "the copy is older than this ride"
    );
    assert!(at_copy >= 10 && early_copy.len() < before.len());
    assert_changes_refused(&alice, twice);
    let fresh = offer_ride(&alice, "made while recovering");
    for peer in [&bob, &carol] {
        alice.meet(peer).await;
    }
    alice.wait_for(WriteMode::ReadWrite).await;
    for _ in 0..2 {
        for (to, from) in [
            (&alice, &bob),
            (&alice, &carol),
            (&bob, &alice),
            (&carol, &alice),
        ] {
            to.pull_everything(from).await;
        }
    }

    let (a, b, c) = (
        alice.stored_objects(),
        bob.stored_objects(),
        carol.stored_objects(),
    );
    assert_nothing_lost(&at_bob, &a, id);
    assert_nothing_lost(&at_carol, &a, id);
    assert_nothing_lost(&early_copy, &a, id);
    for (before, after) in [(&at_bob, &b), (&at_carol, &c)] {
        assert_nothing_lost(before, after, id);
        assert_nothing_lost(before, after, bob.identity);
    }
    for (app, owner) in [("rides", id), ("identities", id)] {
        assert_eq!(live_of(&a, owner, app), live_of(&b, owner, app));
        assert_eq!(live_of(&a, owner, app), live_of(&c, owner, app));
    }
    assert!(a[&deleted_at_bob].is_deleted && a[&made_and_deleted].is_deleted);
    assert!(c[&deleted_at_bob].is_deleted && c[&made_and_deleted].is_deleted);
    assert!(a.contains_key(&for_bob) && b.contains_key(&fresh));
    // An object that no peer had pulled is lost.
    assert!(
        !at_bob.contains_key(&for_carol)
            && !at_carol.contains_key(&for_carol)
            && !a.contains_key(&for_carol)
    );
    assert_eq!(a[&twice].rev, highest - 1);
    assert_eq!(a[&id].rev, renamed);
    assert!(
        a.contains_key(&bike)
            && b.contains_key(&bike)
            && a.contains_key(&bobs_ride)
            && a.contains_key(&carols_ride)
    );
    let mut texts: Vec<_> = alice
        .inbox()
        .into_iter()
        .map(|message| message.body)
        .collect();
    let count = texts.len();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), count, "no message is doubled");
    for text in [
        "late, to Bob",
        "late, to Carol",
        "from Carol, late",
        "from Bob, early",
    ] {
        assert!(texts.iter().any(|it| it == text), "{text}");
    }
    assert_cursors_are_of_the_new_epoch(&[&bob, &carol], &alice);
    // No two objects share a sequence number of the new epoch.
    let mut numbers: Vec<_> = a
        .values()
        .filter(|it| it.app == "rides")
        .map(|it| it.change_seq)
        .collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    assert!(old_head > 0 && a[&fresh].change_seq <= alice.head());
    // The restored node can write again.
    assert_eq!(change(&alice, twice, "home"), highest);
    bob.pull_everything(&alice).await;
    assert_eq!(bob.stored_objects()[&twice].rev, highest);
    let rejects = bob.read(|view| view.rows.rejects(None, 10));
    assert!(rejects.is_empty(), "{rejects:?}");
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

/// The replicas of an owner without tombstones, because a peer drops a tombstone of an unknown
/// object.
fn live_of<'o>(objects: &'o StoredObjects, owner: Oid, app: &str) -> BTreeMap<Oid, Replica<'o>> {
    let mut all = replicas(objects, owner, app);
    all.retain(|_, replica| !replica.1);
    all
}

/// The number of rides in a copy.
fn rides_in(copy: &Path) -> u64 {
    let connection = rusqlite::Connection::open(copy).unwrap();
    let count = "SELECT count(*) FROM app_rides_parent";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

fn assert_cursors_are_of_the_new_epoch(peers: &[&LiveNode], alice: &LiveNode) {
    let (us, now) = (alice.peer_id(), alice.epoch());
    for peer in peers {
        let cursors = peer.read(move |view| view.rows.sync_states(&us));
        let mut incoming = cursors
            .iter()
            .filter(|(_, direction, _)| *direction == Direction::In);
        assert!(
            incoming.all(|(_, _, state)| state.epoch == now),
            "{cursors:?}"
        );
        assert!(!cursors.is_empty());
    }
}

/// A restored node with two peers, and one of its rides.
async fn restored_with_two_peers(net: &MemoryNet) -> (LiveNode, LiveNode, LiveNode, Oid) {
    let (alice, bob, carol) = three(net).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let ride = offer_ride(&alice, "Bern");
    store::snapshot(&alice.database(), &copy).unwrap();
    bob.pull_everything(&alice).await;
    let alice = restored(net, alice, &copy).await;
    (alice, bob, carol, ride)
}

#[tokio::test]
async fn recovery_waits_for_every_peer_or_the_operator() {
    let net = MemoryNet::new();
    let (alice, bob, carol, ride) = restored_with_two_peers(&net).await;
    alice.meet(&bob).await;
    let them = carol.peer_id();
    while alice.read(|view| view.recovery()).waits_for != [them] {
        tokio::task::yield_now().await;
    }
    assert_changes_refused(&alice, ride);
    let ended = alice.write(|core, now| core.end_recovery(now)).unwrap();
    assert!(ended);
    assert_eq!(alice.write_mode(), WriteMode::ReadWrite);
    assert_eq!(change(&alice, ride, "Biel"), 2);
    let again = alice.write(|core, now| core.end_recovery(now)).unwrap();
    assert!(!again, "the recovery has ended already");
    assert_eq!(alice.read(|view| view.recovery()).waits_for, []);
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

#[tokio::test]
async fn recovery_ends_at_its_deadline() {
    let net = MemoryNet::new();
    let (alice, bob, carol, ride) = restored_with_two_peers(&net).await;
    let wait_ms = alice.engine.context().limits.recovery.wait_ms;
    alice.clock.advance_s(wait_ms / 1000 - 1);
    assert_changes_refused(&alice, ride);
    let late = alice
        .write(|core, now| core.end_overdue_recovery(now))
        .unwrap();
    assert!(!late, "the deadline is a second away");
    alice.clock.advance_s(1);
    assert_eq!(alice.write_mode(), WriteMode::ReadWrite);
    let late = alice
        .write(|core, now| core.end_overdue_recovery(now))
        .unwrap();
    assert!(late);
    assert_eq!(alice.read(|view| view.recovery()).write_mode, None);
    assert_eq!(change(&alice, ride, "Biel"), 2);
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

#[tokio::test]
async fn recovery_continues_after_a_restart() {
    let net = MemoryNet::new();
    let (alice, bob, carol, ride) = restored_with_two_peers(&net).await;
    let started = alice.epoch();
    let alice = alice.restart(&net).await;
    assert_eq!(alice.epoch(), started, "a restart starts no epoch");
    assert_changes_refused(&alice, ride);
    alice.meet(&carol).await;
    alice.meet(&bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(change(&alice, ride, "Biel"), 2);
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

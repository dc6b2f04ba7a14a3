//! A node that is gone and comes back from a copy of its database: what its peers hold finds its way home, and nothing that
//! a peer says makes it worse. Over live nodes and memory pipes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/held.rs"]
mod held;
#[path = "common/live.rs"]
mod live;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use held::{Held, held, of, ride};
use keys::{Epoch, Oid};
use live::{ALL_APPS, LiveNode, Setup, by_hand};
use postern::graph::SaveError;
use postern::object::Attrs;
use postern::services::identities;
use postern::store::{self, Direction, EpochReason, WriteMode};

const RIDE: (&str, u16) = ("rides", 1);

async fn three(net: &MemoryNet) -> (Arc<LiveNode>, LiveNode, LiveNode) {
    let alice = LiveNode::start(net, "Alice", 1, &ALL_APPS, by_hand()).await;
    let bob = LiveNode::start(net, "Bob", 2, &ALL_APPS, by_hand()).await;
    let carol = LiveNode::start(net, "Carol", 3, &ALL_APPS, by_hand()).await;
    bob.meet(&alice).await;
    carol.meet(&alice).await;
    (Arc::new(alice), bob, carol)
}

fn bike() -> Option<Attrs> {
    Some(Attrs::from([
        (1, vec!["a bike".into()]),
        (2, vec!["as new".into()]),
        (3, vec!["5 EUR".into()]),
    ]))
}

async fn offer(node: &LiveNode, origin: &str) -> Oid {
    node.save(RIDE, None, ride(origin)).await.unwrap().oid
}

async fn change(node: &LiveNode, oid: Oid, origin: &str) -> u64 {
    node.save(RIDE, Some(oid), ride(origin)).await.unwrap().rev
}

async fn delete(node: &LiveNode, oid: Oid) {
    node.save(RIDE, Some(oid), None).await.unwrap();
}

async fn rename(node: &LiveNode, name: &'static str) -> Result<u64, SaveError> {
    let identity = node.identity;
    let renamed = node.write(move |core, now| {
        core.write(now, |graph| {
            match identities::rename(graph, identity, Some(name)) {
                Ok(saved) => Ok(saved.rev),
                Err(identities::IdentityError::Save(error)) => Err(error),
                Err(error) => panic!("{error}"),
            }
        })
    });
    renamed.await
}

/// Copies the database of a node while it writes: begun when some of it is written, over before the last of it is.
async fn copied_amid_writes(alice: &Arc<LiveNode>, to: (Oid, Oid), out: &Path) -> Vec<Oid> {
    let (said, mut written) = tokio::sync::watch::channel(0);
    let (enough, is_enough) = tokio::sync::watch::channel(false);
    let node = alice.clone();
    let writing = tokio::spawn(async move {
        let mut offers = Vec::new();
        while !*is_enough.borrow() || offers.len() < 30 {
            let number = offers.len();
            offers.push(offer(&node, &format!("Town {number}")).await);
            node.send(to.0, &format!("to Bob {number}")).await;
            node.send(to.1, &format!("to Carol {number}")).await;
            if number % 3 == 1 {
                change(&node, offers[number - 1], "elsewhere").await;
            }
            if number % 5 == 4 {
                delete(&node, offers[number - 2]).await;
            }
            rename(&node, "Alice B").await.unwrap();
            said.send_replace(offers.len());
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

/// Throws a node away and starts one with its keys over a copy of its database, without the file of reserved numbers.
async fn restored(net: &MemoryNet, alice: Arc<LiveNode>, copy: &Path) -> LiveNode {
    let alice = Arc::into_inner(alice).unwrap();
    let (keys, identity, clock) = (alice.keys.clone(), alice.identity, alice.clock.clone());
    alice.stop().await;
    let setup = Setup {
        start: 1,
        ..Setup::new(by_hand())
    };
    std::fs::rename(copy, setup.folder.path().join("postern.db")).unwrap();
    LiveNode::over(
        net,
        (1, keys, identity),
        &ALL_APPS,
        (setup, clock),
        Some(EpochReason::Restored),
    )
}

fn epoch(node: &LiveNode) -> Epoch {
    node.engine.ground().epoch
}

/// No object is lost, none is behind what was known before.
fn nothing_is_lost(before: &BTreeMap<Oid, Held>, after: &BTreeMap<Oid, Held>, owner: Oid) {
    for (oid, old) in before.iter().filter(|(_, old)| old.owner == owner) {
        let new = after
            .get(oid)
            .unwrap_or_else(|| panic!("{oid} is lost: {old:?}"));
        assert!(
            new.rev >= old.rev,
            "a lower revision won: {old:?} and {new:?}"
        );
        assert!(
            new.deleted || !old.deleted,
            "what was deleted is back: {new:?}"
        );
        if new.rev == old.rev {
            assert_eq!(new.bytes, old.bytes);
        }
    }
}

async fn changes_wait(node: &LiveNode, oid: Oid) {
    assert_eq!(node.write_mode().await, WriteMode::NewObjectsOnly);
    let changed = node.save(RIDE, Some(oid), ride("nowhere")).await;
    assert!(matches!(changed, Err(SaveError::Recovering)), "{changed:?}");
    let deleted = node.save(RIDE, Some(oid), None).await;
    assert!(matches!(deleted, Err(SaveError::Recovering)), "{deleted:?}");
    let renamed = rename(node, "Too early").await;
    assert!(matches!(renamed, Err(SaveError::Recovering)), "{renamed:?}");
    let identity = node.identity;
    let signed =
        node.write(move |core, now| core.write(now, |graph| graph.sign_again(&identity, 1)));
    assert!(matches!(signed.await, Err(SaveError::Recovering)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_peers_hold_comes_home_and_all_three_agree() {
    let net = MemoryNet::new();
    let (alice, bob, carol) = three(&net).await;
    let (id, folder) = (alice.identity, tempfile::tempdir().unwrap());
    let copy = folder.path().join("copy");
    bob.send(id, "from Bob, early").await;
    let (theirs, mine) = (offer(&bob, "Basel").await, offer(&carol, "Chur").await);
    alice.pull_everything(&bob).await;
    let early = copied_amid_writes(&alice, (bob.identity, carol.identity), &copy).await;
    let at_copy = held_by_copy(&copy);
    for peer in [&bob, &carol] {
        peer.pull_everything(&alice).await;
    }
    // What the copy does not have, in every combination of who was told.
    let (deleted_at_bob, twice) = (early[0], early[1]);
    let made_and_deleted = offer(&alice, "Zug").await;
    change(&alice, twice, "once more").await;
    bob.pull_everything(&alice).await;
    carol.pull_everything(&alice).await;
    let for_bob = offer(&alice, "for Bob").await;
    delete(&alice, deleted_at_bob).await;
    delete(&alice, made_and_deleted).await;
    alice.send(bob.identity, "late, to Bob").await;
    change(&alice, twice, "and again").await;
    bob.pull_everything(&alice).await;
    carol.send(id, "from Carol, late").await;
    alice.pull_everything(&carol).await;
    let highest = change(&alice, twice, "a third time").await;
    let for_carol = offer(&alice, "for Carol").await;
    let renamed = rename(&alice, "Alice C").await.unwrap();
    let bike = alice.save(("market", 1), None, bike()).await.unwrap().oid;
    carol.pull(&alice, "market.public_offers").await;
    alice.send(carol.identity, "late, to Carol").await;
    carol.pull(&alice, "identities").await;
    carol.pull(&alice, "messages").await;
    // Carol hears of everything that is new but the two deletions: they were pulled by Bob only.
    let hers = held(&carol).await;
    assert!(!hers[&deleted_at_bob].deleted && !hers[&made_and_deleted].deleted);
    let (old_head, old_epoch) = (alice.read(|view| view.head()).await, epoch(&alice));
    let (his, before) = (held(&bob).await, held(&alice).await);
    assert!(his[&deleted_at_bob].deleted && his[&made_and_deleted].deleted);

    let alice = restored(&net, alice, &copy).await;
    assert_ne!(epoch(&alice), old_epoch);
    let early_copy = held(&alice).await;
    assert!(
        !early_copy.contains_key(&for_bob),
        "the copy is from before"
    );
    assert!(at_copy >= 10 && early_copy.len() < before.len());
    changes_wait(&alice, twice).await;
    let fresh = offer(&alice, "made while recovering").await;
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

    let (a, b, c) = (held(&alice).await, held(&bob).await, held(&carol).await);
    nothing_is_lost(&his, &a, id);
    nothing_is_lost(&hers, &a, id);
    nothing_is_lost(&early_copy, &a, id);
    for (before, after) in [(&his, &b), (&hers, &c)] {
        nothing_is_lost(before, after, id);
        nothing_is_lost(before, after, bob.identity);
    }
    for (app, owner) in [("rides", id), ("identities", id)] {
        assert_eq!(live_of(&a, owner, app), live_of(&b, owner, app));
        assert_eq!(live_of(&a, owner, app), live_of(&c, owner, app));
    }
    assert!(a[&deleted_at_bob].deleted && a[&made_and_deleted].deleted);
    assert!(c[&deleted_at_bob].deleted && c[&made_and_deleted].deleted);
    assert!(a.contains_key(&for_bob) && b.contains_key(&fresh));
    // Of what Carol was not told, only what the old node alone knew is gone: nobody could give it back.
    assert!(
        !his.contains_key(&for_carol)
            && !hers.contains_key(&for_carol)
            && !a.contains_key(&for_carol)
    );
    assert_eq!(a[&twice].rev, highest - 1);
    assert_eq!(a[&id].rev, renamed);
    assert!(
        a.contains_key(&bike)
            && b.contains_key(&bike)
            && a.contains_key(&theirs)
            && a.contains_key(&mine)
    );
    let mut said: Vec<_> = alice
        .inbox()
        .await
        .into_iter()
        .map(|message| message.body)
        .collect();
    let count = said.len();
    said.sort();
    said.dedup();
    assert_eq!(said.len(), count, "nothing is said twice");
    for word in [
        "late, to Bob",
        "late, to Carol",
        "from Carol, late",
        "from Bob, early",
    ] {
        assert!(said.iter().any(|it| it == word), "{word}");
    }
    only_the_new_epoch_counts(&[&bob, &carol], &alice).await;
    // What was given a number after the copy has one of the new epoch, and no two of them share one.
    let mut numbers: Vec<_> = a
        .values()
        .filter(|it| it.app == "rides")
        .map(|it| it.change_seq)
        .collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    assert!(old_head > 0 && a[&fresh].change_seq <= alice.read(|view| view.head()).await);
    // And it writes as before.
    assert_eq!(change(&alice, twice, "home").await, highest);
    bob.pull_everything(&alice).await;
    assert_eq!(held(&bob).await[&twice].rev, highest);
    let rejects = bob.read(|view| view.rows.rejects(None, 10)).await;
    assert!(rejects.is_empty(), "{rejects:?}");
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

/// Without what was deleted before the other ever heard of it.
fn live_of<'h>(
    held: &'h BTreeMap<Oid, Held>,
    owner: Oid,
    app: &str,
) -> BTreeMap<Oid, (u64, bool, u32, &'h [u8])> {
    let mut all = of(held, owner, app);
    all.retain(|_, said| !said.1);
    all
}

/// How many rides a copy holds.
fn held_by_copy(copy: &Path) -> u64 {
    let connection = rusqlite::Connection::open(copy).unwrap();
    let count = "SELECT count(*) FROM app_rides_parent";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

async fn only_the_new_epoch_counts(peers: &[&LiveNode], alice: &LiveNode) {
    let (us, now) = (alice.peer_id(), epoch(alice));
    for peer in peers {
        let cursors = peer.read(move |view| view.rows.sync_states(&us)).await;
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

/// A node with two peers that is restored, and one of its rides.
async fn restored_with_two_peers(net: &MemoryNet) -> (LiveNode, LiveNode, LiveNode, Oid) {
    let (alice, bob, carol) = three(net).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let ride = offer(&alice, "Bern").await;
    store::snapshot(&alice.database(), &copy).unwrap();
    bob.pull_everything(&alice).await;
    let alice = restored(net, alice, &copy).await;
    (alice, bob, carol, ride)
}

#[tokio::test]
async fn one_of_two_peers_is_not_enough_and_the_operators_word_is() {
    let net = MemoryNet::new();
    let (alice, bob, carol, ride) = restored_with_two_peers(&net).await;
    alice.meet(&bob).await;
    let them = carol.peer_id();
    while alice.read(|view| view.recovery()).await.waits_for != [them] {
        tokio::task::yield_now().await;
    }
    changes_wait(&alice, ride).await;
    let ended = alice
        .write(|core, now| Ok(core.end_recovery(now)?))
        .await
        .unwrap();
    assert!(ended);
    assert_eq!(alice.write_mode().await, WriteMode::ReadWrite);
    assert_eq!(change(&alice, ride, "Biel").await, 2);
    let again = alice
        .write(|core, now| Ok(core.end_recovery(now)?))
        .await
        .unwrap();
    assert!(!again, "there is nothing left to end");
    assert_eq!(alice.read(|view| view.recovery()).await.waits_for, []);
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

#[tokio::test]
async fn when_time_is_up_nobody_is_waited_for() {
    let net = MemoryNet::new();
    let (alice, bob, carol, ride) = restored_with_two_peers(&net).await;
    let wait_ms = alice.engine.ground().limits.recovery.wait_ms;
    alice.clock.advance_s(wait_ms / 1000 - 1);
    changes_wait(&alice, ride).await;
    let late = alice
        .write(|core, now| Ok(core.end_late_recovery(now)?))
        .await
        .unwrap();
    assert!(!late, "a second is left");
    alice.clock.advance_s(1);
    assert_eq!(alice.write_mode().await, WriteMode::ReadWrite);
    let late = alice
        .write(|core, now| Ok(core.end_late_recovery(now)?))
        .await
        .unwrap();
    assert!(late);
    assert_eq!(alice.read(|view| view.recovery()).await.write_mode, None);
    assert_eq!(change(&alice, ride, "Biel").await, 2);
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

#[tokio::test]
async fn a_recovery_goes_on_after_a_restart() {
    let net = MemoryNet::new();
    let (alice, bob, carol, ride) = restored_with_two_peers(&net).await;
    let begun = epoch(&alice);
    let alice = alice.restart(&net).await;
    assert_eq!(epoch(&alice), begun, "a restart begins no epoch");
    changes_wait(&alice, ride).await;
    alice.meet(&carol).await;
    alice.meet(&bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(change(&alice, ride, "Biel").await, 2);
    alice.stop().await;
    bob.stop().await;
    carol.stop().await;
}

//! Keys that change while sessions are open: peers go on with the new one, and a thief of the old one comes to nothing.
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
#[path = "common/stranger.rs"]
mod stranger;
#[path = "common/thief.rs"]
mod thief;

use bastion::transport::memory::MemoryNet;
use bastion::{HandshakeError, RefusalCode};
use held::{held, of, ride};
use keys::vault::VaultError;
use keys::{KeyChain, codec};
use live::{ALL_APPS, LiveNode, Setup, by_hand};
use postern::acl::Denied;
use postern::graph::SaveError;
use postern::object::Value;
use postern::schema::identities as attributes;
use postern::services::admission::{self, Reason};
use postern::services::identities;
use postern::store::Verdict;
use stranger::Stranger;
use thief::Thief;

const RIDE: (&str, u16) = ("rides", 1);

async fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    LiveNode::start(net, name, seed, &ALL_APPS, by_hand()).await
}

/// Two that have met, and three rides of the first that the second has.
async fn two(net: &MemoryNet) -> (LiveNode, LiveNode, Vec<keys::Oid>) {
    let (alice, bob) = (node(net, "Alice", 1).await, node(net, "Bob", 2).await);
    bob.meet(&alice).await;
    let mut rides = Vec::new();
    for origin in ["Bern", "Biel", "Basel"] {
        rides.push(alice.save(RIDE, None, ride(origin)).await.unwrap().oid);
    }
    bob.pull_everything(&alice).await;
    (alice, bob, rides)
}

async fn is_frozen(node: &LiveNode, identity: keys::Oid) -> bool {
    let known = node.read(|view| identities::known(&view)).await;
    known
        .iter()
        .find(|card| card.oid == identity)
        .unwrap()
        .frozen
}

#[tokio::test]
async fn after_a_rotation_peers_hold_the_same_under_the_new_key() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let id = alice.identity;
    alice.send(bob.identity, "before").await;
    bob.pull_everything(&alice).await;
    let before = held(&bob).await;
    // Deleted, and signed again before anybody heard of it.
    alice.save(RIDE, Some(rides[1]), None).await.unwrap();
    assert_eq!(alice.rotate(id).await.unwrap(), 1);
    // What is pulled first waits for the record of the new key.
    for domain in ["rides.offers", "messages", "identities"] {
        bob.pull(&alice, domain).await;
    }
    let (a, b) = (held(&alice).await, held(&bob).await);
    assert_eq!(b.len(), before.len(), "nothing is doubled");
    assert!(b[&rides[1]].deleted);
    for (oid, old) in before
        .iter()
        .filter(|(oid, old)| old.owner == id && **oid != id && **oid != rides[1])
    {
        let new = &b[oid];
        assert_eq!(
            (new.rev, &new.bytes),
            (old.rev, &old.bytes),
            "the same is said"
        );
        assert!(
            old.key_id == 0 && new.key_id == 1,
            "under the later key: {new:?}"
        );
    }
    for app in ["rides", "messages", "identities"] {
        assert_eq!(of(&a, id, app), of(&b, id, app));
        assert!(of(&a, id, app).values().all(|said| said.2 == 1));
    }
    assert_eq!(bob.inbox().await.len(), 1);
    // Pulled again, nothing comes again.
    let again = bob.pull(&alice, "rides.offers").await;
    assert_eq!(again[0].window, None);
    let rejects = bob.read(|view| view.rows.rejects(None, 10)).await;
    assert!(rejects.is_empty(), "{rejects:?}");

    // The old key signs no more.
    let thief = Thief::of(1);
    let mut object = thief.object(&a[&rides[0]]);
    object.rev += 1;
    let applied = thief::force(&alice, &bob, "rides.offers", vec![thief.sign(&object)]).await;
    assert_eq!((applied.rejected, applied.written), (1, 0));
    let rejects = bob.read(|view| view.rows.rejects(None, 1)).await;
    assert_eq!(rejects[0].code, "old_key");
    assert_eq!(held(&bob).await, b);

    // Somebody who comes only now needs nothing from before.
    let dora = node(&net, "Dora", 4).await;
    dora.meet(&alice).await;
    dora.pull_everything(&alice).await;
    let d = held(&dora).await;
    let mut live = of(&a, id, "rides");
    live.retain(|_, said| !said.1);
    assert_eq!(of(&d, id, "rides"), live);
    assert_eq!(of(&d, id, "identities"), of(&a, id, "identities"));
    for node in [alice, bob, dora] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_with_another_key_is_the_same_node_to_its_peers() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let (us, them, server) = (alice.peer_id(), bob.peer_id(), alice.keys.server_oid());
    let banned = Stranger::new(9).peer_id();
    alice
        .write(move |core, now| {
            let word = Reason::new("a test".into()).unwrap();
            core.write(now, |graph| {
                admission::ban(graph, banned, word, None).unwrap();
                Ok(())
            })
        })
        .await
        .unwrap();
    let cursors = bob.read(move |view| view.rows.sync_states(&us)).await;
    let peer = bob.read(move |view| view.rows.peer(&us)).await.unwrap();
    let tickets = alice.gate.status().by_ticket_total;
    let (_, over) = bob.peers.session_at(&alice.onion()).unwrap();
    assert_eq!(alice.rotate(server).await.unwrap(), 1);
    over.cancelled().await;

    bob.meet(&alice).await;
    assert_eq!((alice.peer_id(), alice.keys.server_oid()), (us, server));
    assert!(
        alice.gate.status().by_ticket_total > tickets,
        "the ticket is still good"
    );
    assert_eq!(
        bob.read(move |view| view.rows.sync_states(&us)).await,
        cursors
    );
    let again = bob.read(move |view| view.rows.peer(&us)).await.unwrap();
    assert_eq!(
        (again.tier, again.epoch, again.server_oid),
        (peer.tier, peer.epoch, server)
    );
    let verdict = alice
        .read(move |view| view.rows.verdict(&banned))
        .await
        .unwrap();
    assert_eq!(verdict.verdict, Verdict::Banned);
    assert!(
        Stranger::new(9).dial(&net, &alice).await.is_err(),
        "a ban stays"
    );
    let known = bob
        .read(move |view| view.rows.identity(&server))
        .await
        .unwrap();
    assert_eq!(known.key_id, 1);
    // Its person's home record names the new key, and one more counter.
    bob.pull_everything(&alice).await;
    let id = alice.identity;
    let person = bob.read(move |view| view.rows.identity(&id)).await.unwrap();
    assert_eq!(
        (person.home, person.home_counter, person.key_id),
        (us, 2, 0)
    );
    alice
        .save(RIDE, Some(rides[0]), ride("Chur"))
        .await
        .unwrap();
    bob.pull_everything(&alice).await;
    assert_eq!(held(&bob).await[&rides[0]].rev, 2);
    alice.pull_everything(&bob).await;
    let rejects = bob.read(|view| view.rows.rejects(None, 10)).await;
    assert!(rejects.is_empty(), "{rejects:?}");

    // Whoever has the old node key is not the node any more.
    let thief = Stranger::new(1);
    assert_eq!(thief.peer_id(), us);
    let sessions = bob.peers.sessions().len();
    let refused = thief.dial(&net, &bob).await.err();
    assert!(
        matches!(
            refused,
            Some(HandshakeError::Refused {
                code: RefusalCode::Signature,
                ..
            })
        ),
        "he learns nothing: {refused:?}"
    );
    assert_eq!(bob.peers.sessions().len(), sessions);
    assert_eq!(
        bob.read(move |view| view.rows.identity(&server))
            .await
            .unwrap(),
        known
    );
    assert!(
        alice
            .read(move |view| view.rows.peer(&them))
            .await
            .is_some()
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn who_has_the_current_key_cannot_name_a_successor() {
    let net = MemoryNet::new();
    let (alice, bob, _) = two(&net).await;
    let (id, thief) = (alice.identity, Thief::of(1));
    let record = held(&alice).await[&id].clone();
    let mut chain: KeyChain = alice.keys.identity_chain(id).unwrap();
    // The stolen key stands in the place of the next one, which the thief does not have.
    chain.rotate(
        &thief.identity,
        &keys::SecretKey::from_seed(&[7; 32]).public(),
    );
    let mut object = thief.object(&record);
    object.rev += 1;
    let attrs = object.attrs.as_mut().unwrap();
    attrs.insert(attributes::CHAIN, vec![Value::Bytes(codec::encode(&chain))]);
    let known = bob.read(move |view| view.rows.identity(&id)).await;
    let applied = thief::force(&alice, &bob, "identities", vec![thief.sign(&object)]).await;
    assert_eq!((applied.rejected, applied.written), (1, 0));
    let rejects = bob.read(|view| view.rows.rejects(None, 1)).await;
    assert_eq!(rejects[0].code, "identity_record");
    assert_eq!(bob.read(move |view| view.rows.identity(&id)).await, known);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_full_chain_takes_no_rotation_and_says_so() {
    let net = MemoryNet::new();
    let setup = Setup::new(by_hand());
    let alice = LiveNode::set_up(&net, "Alice", 1, &ALL_APPS, setup);
    for number in 1..=keys::protocol::KEY_EVENTS_MAX as u32 {
        assert_eq!(alice.rotate(alice.identity).await.unwrap(), number);
    }
    let error = alice.rotate(alice.identity).await.unwrap_err();
    assert!(matches!(error, VaultError::ChainFull), "{error:?}");
    assert!(error.to_string().contains("32"), "{error}");
    assert_eq!(alice.keys.key_id(alice.identity).unwrap(), 32);
    alice.save(RIDE, None, ride("Bern")).await.unwrap();
    alice.stop().await;
}

#[tokio::test]
async fn a_second_home_under_one_counter_freezes_until_the_next_key() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let (id, thief) = (alice.identity, Thief::of(1));
    let mallory = node(&net, "Mallory", 9).await;
    mallory.meet(&bob).await;
    let claim = thief.claims(&held(&alice).await[&id], 9, 1, 2);
    let applied = thief::force(&mallory, &bob, "identities", vec![claim]).await;
    assert_eq!((applied.rejected, applied.written), (1, 0));
    assert!(is_frozen(&bob, id).await);
    let bern = held(&bob).await[&rides[0]].clone();
    alice
        .save(RIDE, Some(rides[0]), ride("Chur"))
        .await
        .unwrap();
    bob.pull_everything(&alice).await;
    assert_eq!(held(&bob).await[&rides[0]], bern, "nothing of it is taken");
    alice.rotate(id).await.unwrap();
    bob.pull_everything(&alice).await;
    assert!(!is_frozen(&bob, id).await);
    assert_eq!(
        held(&bob).await[&rides[0]].rev,
        2,
        "what was refused has come again"
    );
    for node in [alice, bob, mallory] {
        node.stop().await;
    }
}

#[tokio::test]
async fn the_operators_word_unfreezes_too() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let (id, thief) = (alice.identity, Thief::of(1));
    let mallory = node(&net, "Mallory", 9).await;
    mallory.meet(&bob).await;
    let claim = thief.claims(&held(&alice).await[&id], 9, 1, 2);
    thief::force(&mallory, &bob, "identities", vec![claim]).await;
    assert!(is_frozen(&bob, id).await);
    let unfreezeed = bob.write(move |core, now| {
        core.write(now, |graph| {
            identities::unfreeze(graph, id).unwrap();
            Ok(())
        })
    });
    unfreezeed.await.unwrap();
    assert!(!is_frozen(&bob, id).await);
    alice
        .save(RIDE, Some(rides[0]), ride("Chur"))
        .await
        .unwrap();
    bob.pull_everything(&alice).await;
    assert_eq!(held(&bob).await[&rides[0]].rev, 2);
    for node in [alice, bob, mallory] {
        node.stop().await;
    }
}

#[tokio::test]
async fn the_owner_wins_back_an_identity_that_a_thief_moved() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let (id, us, thief) = (alice.identity, alice.peer_id(), Thief::of(1));
    let mallory = node(&net, "Mallory", 9).await;
    mallory.meet(&bob).await;
    mallory.meet(&alice).await;
    // Counter and revision as high as a thief likes.
    let claim = thief.claims(&held(&alice).await[&id], 9, 1_000_000, 1_000_000);
    let applied = thief::force(&mallory, &bob, "identities", vec![claim.clone()]).await;
    assert_eq!(
        applied.written, 1,
        "under the stolen key it looks like a move"
    );
    let known = bob.read(move |view| view.rows.identity(&id)).await.unwrap();
    assert_eq!(
        (known.home, known.home_counter),
        (mallory.peer_id(), 1_000_000)
    );

    let applied = thief::force(&mallory, &alice, "identities", vec![claim]).await;
    assert_eq!((applied.written, applied.rejected), (0, 1));
    assert!(is_frozen(&alice, id).await, "its own node knows better");
    let saved = alice.save(RIDE, Some(rides[0]), ride("Chur")).await;
    assert!(
        matches!(saved, Err(SaveError::Denied(Denied::OwnerFrozen))),
        "{saved:?}"
    );

    alice.rotate(id).await.unwrap();
    assert!(!is_frozen(&alice, id).await);
    alice
        .save(RIDE, Some(rides[0]), ride("Chur"))
        .await
        .unwrap();
    bob.pull_everything(&alice).await;
    let known = bob.read(move |view| view.rows.identity(&id)).await.unwrap();
    assert_eq!((known.home, known.home_counter, known.key_id), (us, 2, 1));
    assert_eq!(held(&bob).await[&rides[0]].rev, 2);
    for node in [alice, bob, mallory] {
        node.stop().await;
    }
}

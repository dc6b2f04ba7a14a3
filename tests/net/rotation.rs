//! Key rotation while sessions are open: peers accept the new key and no longer the old one, and a
//! frozen identity recovers.

use bastion::transport::memory::MemoryNet;
use bastion::{HandshakeError, RefusalCode};
use harness::raw_client::RawClient;
use harness::stolen_keys::StolenKeys;
use harness::stored::replicas;
use harness::{LiveNode, ride};
use keys::vault::VaultError;
use keys::{KeyChain, codec};
use postern::acl::Denied;
use postern::graph::SaveError;
use postern::object::Value;
use postern::schema::identities as attributes;
use postern::services::identities;
use postern::services::verdicts::{self, Reason};
use postern::store::{StoreError, Verdict};

fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    LiveNode::start(net, name, seed)
}

/// Two nodes that have met, and three rides of the first, which the second has pulled.
async fn two(net: &MemoryNet) -> (LiveNode, LiveNode, Vec<keys::Oid>) {
    let (alice, bob) = (node(net, "Alice", 1), node(net, "Bob", 2));
    bob.meet(&alice).await;
    let mut rides = Vec::new();
    for origin in ["Bern", "Biel", "Basel"] {
        rides.push(alice.make("rides", 1, ride(origin, 2)).unwrap().oid);
    }
    bob.pull_everything(&alice).await;
    (alice, bob, rides)
}

fn is_frozen(node: &LiveNode, identity: keys::Oid) -> bool {
    let known = node.read(|view| identities::known(&view));
    known
        .iter()
        .find(|card| card.person.oid == identity)
        .unwrap()
        .frozen
}

#[tokio::test]
async fn rotated_identity_has_the_same_objects_under_its_new_key() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let id = alice.identity;
    alice.send(bob.identity, "before");
    bob.pull_everything(&alice).await;
    let before = bob.stored_objects();
    // A tombstone that is re-signed before any peer pulled it.
    alice.change("rides", 1, rides[1], None).unwrap();
    assert_eq!(alice.rotate(id).unwrap(), 1);
    // Objects under the new key wait for the record that proves it.
    for domain in ["rides.offers", "messages", "identities"] {
        bob.pull(&alice, domain).await;
    }
    let (a, b) = (alice.stored_objects(), bob.stored_objects());
    assert_eq!(b.len(), before.len(), "nothing is doubled");
    assert!(b[&rides[1]].is_deleted);
    for (oid, old) in before
        .iter()
        .filter(|(oid, old)| old.owner == id && **oid != id && **oid != rides[1])
    {
        let new = &b[oid];
        assert_eq!(
            (new.rev, &new.bytes),
            (old.rev, &old.bytes),
            "the content is unchanged"
        );
        assert!(old.key_id == 0 && new.key_id == 1, "re-signed: {new:?}");
    }
    for app in ["rides", "messages", "identities"] {
        assert_eq!(replicas(&a, id, app), replicas(&b, id, app));
        assert!(replicas(&a, id, app).values().all(|said| said.2 == 1));
    }
    assert_eq!(bob.inbox().len(), 1);
    // A further pull finds nothing new.
    let again = bob.pull(&alice, "rides.offers").await;
    assert_eq!(again[0].window, None);
    let rejects = bob.read(|view| view.rows.rejects(None, 10));
    assert!(rejects.is_empty(), "{rejects:?}");

    // Objects under the old key are acknowledged and not applied.
    let thief = StolenKeys::of(1);
    let mut object = thief.object(&a[&rides[0]]);
    object.rev += 1;
    let applied = alice
        .force(&bob, "rides.offers", vec![thief.sign(&object)])
        .unwrap();
    assert_eq!((applied.already_stored, applied.written), (1, 0));
    let rejects = bob.read(|view| view.rows.rejects(None, 1));
    assert!(rejects.is_empty(), "{rejects:?}");
    assert_eq!(bob.stored_objects(), b);

    // A peer that meets Alice after the rotation needs no object under the old key.
    let dora = node(&net, "Dora", 4);
    dora.meet(&alice).await;
    dora.pull_everything(&alice).await;
    let d = dora.stored_objects();
    assert_eq!(replicas(&d, id, "rides"), replicas(&a, id, "rides"));
    assert_eq!(
        replicas(&d, id, "identities"),
        replicas(&a, id, "identities")
    );
    for node in [alice, bob, dora] {
        node.stop().await;
    }
}

#[tokio::test]
async fn rotated_node_keeps_its_peer_id_tickets_and_cursors() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let (us, them, server) = (alice.peer_id(), bob.peer_id(), alice.keys.server_oid());
    let banned = RawClient::new(9).peer_id();
    let reason = Reason::new("a test".into()).unwrap();
    alice
        .graph(move |graph| verdicts::ban(graph, banned, reason, None))
        .unwrap();
    let cursors = bob.read(move |view| view.rows.sync_states(&us));
    let peer = bob.read(move |view| view.rows.peer(&us)).unwrap();
    let tickets = alice.gate.status().by_ticket_total;
    let over = bob.peers.registry().session_at(&alice.onion()).unwrap();
    assert_eq!(alice.rotate(server).unwrap(), 1);
    over.cancelled().await;

    bob.meet(&alice).await;
    assert_eq!((alice.peer_id(), alice.keys.server_oid()), (us, server));
    assert!(
        alice.gate.status().by_ticket_total > tickets,
        "the ticket is still valid"
    );
    assert_eq!(bob.read(move |view| view.rows.sync_states(&us)), cursors);
    let again = bob.read(move |view| view.rows.peer(&us)).unwrap();
    assert_eq!(
        (again.tier, again.epoch, again.server_oid),
        (peer.tier, peer.epoch, server)
    );
    let verdict = alice.read(move |view| view.rows.verdict(&banned)).unwrap();
    assert_eq!(verdict.verdict, Verdict::Banned);
    assert!(
        RawClient::new(9).dial(&net, &alice).await.is_err(),
        "the ban is still in force"
    );
    let known = bob.read(move |view| view.rows.identity(&server)).unwrap();
    assert_eq!(known.key_id, 1);
    // The home record of its identity names the new key under the next counter.
    bob.pull_everything(&alice).await;
    let id = alice.identity;
    let person = bob.read(move |view| view.rows.identity(&id)).unwrap();
    assert_eq!(
        (person.home, person.home_counter, person.key_id),
        (us, 2, 0)
    );
    alice
        .change("rides", 1, rides[0], Some(ride("Chur", 2)))
        .unwrap();
    bob.pull_everything(&alice).await;
    assert_eq!(bob.stored_objects()[&rides[0]].rev, 2);
    alice.pull_everything(&bob).await;
    let rejects = bob.read(|view| view.rows.rejects(None, 10));
    assert!(rejects.is_empty(), "{rejects:?}");

    // A client with the old node key is refused.
    let thief = RawClient::new(1);
    assert_eq!(thief.peer_id(), us);
    let sessions = bob.peers.registry().sessions().len();
    let refused = thief.dial(&net, &bob).await.err();
    assert!(
        matches!(
            refused,
            Some(HandshakeError::Refused {
                code: RefusalCode::Signature,
                ..
            })
        ),
        "the client learns the refusal code only: {refused:?}"
    );
    assert_eq!(bob.peers.registry().sessions().len(), sessions);
    assert_eq!(
        bob.read(move |view| view.rows.identity(&server)).unwrap(),
        known
    );
    assert!(alice.read(move |view| view.rows.peer(&them)).is_some());
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn stolen_current_key_cannot_rotate_the_identity() {
    let net = MemoryNet::new();
    let (alice, bob, _) = two(&net).await;
    let (id, thief) = (alice.identity, StolenKeys::of(1));
    let record = alice.stored_objects()[&id].clone();
    let mut chain: KeyChain = alice.keys.identity_chain(id).unwrap();
    // The thief signs with the current key because it does not have the next one.
    chain.rotate(
        &thief.identity,
        &keys::SecretKey::from_seed(&[7; 32]).public(),
    );
    let mut object = thief.object(&record);
    object.rev += 1;
    let attrs = object.attrs.as_mut().unwrap();
    attrs.insert(attributes::CHAIN, vec![Value::Bytes(codec::encode(&chain))]);
    let known = bob.read(move |view| view.rows.identity(&id));
    let applied = alice
        .force(&bob, "identities", vec![thief.sign(&object)])
        .unwrap();
    assert_eq!((applied.rejected, applied.written), (1, 0));
    let rejects = bob.read(|view| view.rows.rejects(None, 1));
    assert_eq!(rejects[0].code, "identity_record");
    assert_eq!(bob.read(move |view| view.rows.identity(&id)), known);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn full_key_chain_refuses_a_rotation() {
    let net = MemoryNet::new();
    let alice = node(&net, "Alice", 1);
    for number in 1..=keys::protocol::KEY_EVENTS_MAX as u32 {
        assert_eq!(alice.rotate(alice.identity).unwrap(), number);
    }
    let error = alice.rotate(alice.identity).unwrap_err();
    assert!(matches!(error, VaultError::ChainFull), "{error:?}");
    assert!(error.to_string().contains("32"), "{error}");
    assert_eq!(alice.keys.key_id(alice.identity).unwrap(), 32);
    alice.make("rides", 1, ride("Bern", 2)).unwrap();
    alice.stop().await;
}

/// Mallory has claimed Alice's identity with its stolen keys, so that it is frozen on Bob's node.
async fn two_and_a_thief(net: &MemoryNet) -> ([LiveNode; 3], Vec<keys::Oid>) {
    let (alice, bob, rides) = two(net).await;
    let (id, thief) = (alice.identity, StolenKeys::of(1));
    let mallory = node(net, "Mallory", 9);
    mallory.meet(&bob).await;
    let claim = thief.claim_home(&alice.stored_objects()[&id], 9, 1, 2);
    let applied = mallory.force(&bob, "identities", vec![claim]).unwrap();
    assert_eq!((applied.rejected, applied.written), (1, 0));
    assert!(is_frozen(&bob, id));
    ([alice, bob, mallory], rides)
}

#[tokio::test]
async fn conflicting_home_freezes_an_identity_until_its_next_rotation() {
    let net = MemoryNet::new();
    let ([alice, bob, mallory], rides) = two_and_a_thief(&net).await;
    let id = alice.identity;
    let bern = bob.stored_objects()[&rides[0]].clone();
    alice
        .change("rides", 1, rides[0], Some(ride("Chur", 2)))
        .unwrap();
    bob.pull_everything(&alice).await;
    assert_eq!(
        bob.stored_objects()[&rides[0]],
        bern,
        "objects of a frozen identity are refused"
    );
    alice.rotate(id).unwrap();
    bob.pull_everything(&alice).await;
    assert!(!is_frozen(&bob, id));
    assert_eq!(
        bob.stored_objects()[&rides[0]].rev,
        2,
        "the refused change was sent again"
    );
    for node in [alice, bob, mallory] {
        node.stop().await;
    }
}

#[tokio::test]
async fn operator_can_unfreeze_an_identity() {
    let net = MemoryNet::new();
    let ([alice, bob, mallory], rides) = two_and_a_thief(&net).await;
    let id = alice.identity;
    bob.graph(move |graph| identities::unfreeze(graph, id))
        .unwrap();
    assert!(!is_frozen(&bob, id));
    alice
        .change("rides", 1, rides[0], Some(ride("Chur", 2)))
        .unwrap();
    bob.pull_everything(&alice).await;
    assert_eq!(bob.stored_objects()[&rides[0]].rev, 2);
    for node in [alice, bob, mallory] {
        node.stop().await;
    }
}

#[tokio::test]
async fn owner_recovers_a_stolen_identity_by_a_rotation() {
    let net = MemoryNet::new();
    let (alice, bob, rides) = two(&net).await;
    let (id, us, thief) = (alice.identity, alice.peer_id(), StolenKeys::of(1));
    let mallory = node(&net, "Mallory", 9);
    mallory.meet(&bob).await;
    mallory.meet(&alice).await;
    // The thief may choose any counter and revision.
    let claim = thief.claim_home(&alice.stored_objects()[&id], 9, 1_000_000, 1_000_000);
    let applied = mallory
        .force(&bob, "identities", vec![claim.clone()])
        .unwrap();
    assert_eq!(
        (applied.written, applied.rejected),
        (0, 0),
        "a claim under the current key waits for Bob's operator"
    );
    let waits = bob.read(move |view| view.rows.pending_home(&id));
    assert_eq!(waits.map(|waits| waits.home), Some(mallory.peer_id()));
    bob.confirm_home(id, &mallory);
    let known = bob.read(move |view| view.rows.identity(&id)).unwrap();
    assert_eq!(
        (known.home, known.home_counter),
        (mallory.peer_id(), 1_000_000)
    );

    let applied = mallory.force(&alice, "identities", vec![claim]).unwrap();
    assert_eq!((applied.written, applied.rejected), (0, 1));
    assert!(
        is_frozen(&alice, id),
        "the home of an identity accepts no other home"
    );
    let saved = alice.change("rides", 1, rides[0], Some(ride("Chur", 2)));
    assert!(
        matches!(saved, Err(SaveError::Denied(Denied::OwnerFrozen))),
        "{saved:?}"
    );

    alice.rotate(id).unwrap();
    assert!(!is_frozen(&alice, id));
    alice
        .change("rides", 1, rides[0], Some(ride("Chur", 2)))
        .unwrap();
    bob.pull_everything(&alice).await;
    let known = bob.read(move |view| view.rows.identity(&id)).unwrap();
    assert_eq!(
        (known.home, known.key_id),
        (mallory.peer_id(), 1),
        "the key counts at once, and the second home of a day waits"
    );
    bob.clock.advance_days(1);
    bob.graph(|_| Ok::<_, StoreError>(())).unwrap();
    let known = bob.read(move |view| view.rows.identity(&id)).unwrap();
    assert_eq!((known.home, known.home_counter, known.key_id), (us, 2, 1));
    bob.pull_everything(&alice).await;
    assert_eq!(bob.stored_objects()[&rides[0]].rev, 2);
    for node in [alice, bob, mallory] {
        node.stop().await;
    }
}

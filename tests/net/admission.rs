//! Admission policies, pending requests, verdicts and tickets.

use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use bastion::{Gate, GateConfig, HandshakeError, RefusalCode, Tier};
use harness::profile::FixedProfile;
use harness::raw_client::RawClient;
use harness::{ALL_APPS, LiveNode, Setup};
use keys::{BootId, Oid, PeerId};
use postern::admission::NodeGatekeeper;
use postern::config::{AdmissionConfig, Policy};
use postern::graph::GraphManager;
use postern::op_context::Timestamp;
use postern::peer::dialler::Reached;
use postern::peer::message::SessionMessage;
use postern::peer::{EndCode, PeerDialError};
use postern::services::identities;
use postern::services::verdicts::{self, Reason, VerdictError};
use postern::store::{PendingRow, VerdictRow};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio_util::sync::CancellationToken;

fn alice(net: &MemoryNet, policy: Policy) -> LiveNode {
    let admission = AdmissionConfig {
        policy,
        ..AdmissionConfig::default()
    };
    Setup::seeded("Alice", 1).admission(admission).live(net)
}

fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    LiveNode::start(net, name, seed)
}

async fn dial(from: &LiveNode, to: &LiveNode) -> Result<Reached, PeerDialError> {
    from.dialler.dial(&to.onion(), &|_| {}).await
}

#[track_caller]
fn refused(result: Result<Reached, PeerDialError>, expected: RefusalCode) {
    match result {
        Err(PeerDialError::Handshake(HandshakeError::Refused { code, .. })) => {
            assert_eq!(code, expected)
        }
        other => panic!("{other:?} and not refused: {expected}"),
    }
}

fn pending(node: &LiveNode) -> Vec<PendingRow> {
    node.read(|view| view.rows.pending(Timestamp(0)))
}

fn tier(node: &LiveNode, peer: PeerId) -> Option<Tier> {
    node.read(move |view| Ok(view.rows.peer(&peer)?.map(|row| row.tier)))
}

/// Writes a verdict as the API does.
fn decide(
    node: &LiveNode,
    kept_out: bool,
    verb: impl FnOnce(&mut GraphManager<'_>) -> Result<VerdictRow, VerdictError> + Send + 'static,
) {
    let peer = node.graph(verb).unwrap().peer_id;
    node.gate.forget_replies(&peer);
    if kept_out {
        node.peers.registry().end(&peer, EndCode::End);
    }
}

fn approve(node: &LiveNode, peer: PeerId) {
    decide(node, false, move |graph| verdicts::approve(graph, peer));
}

fn ban(node: &LiveNode, peer: PeerId) {
    decide(node, true, move |graph| {
        verdicts::ban(graph, peer, Reason::default(), None)
    });
}

fn unban(node: &LiveNode, peer: PeerId) {
    decide(node, false, move |graph| verdicts::unban(graph, peer));
}

/// Cuts all streams, and waits until both nodes have noticed.
async fn disconnect(net: &MemoryNet, one: &LiveNode, other: &LiveNode) {
    net.cut_all();
    one.wait_for_session_end(&other.peer_id()).await;
    other.wait_for_session_end(&one.peer_id()).await;
}

#[tokio::test]
async fn approved_request_makes_a_trusted_peer() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Approve), node(&net, "Bob", 2));
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    let [row] = pending(&alice).try_into().unwrap();
    assert_eq!(
        (row.request.peer_id, row.request.onion, row.attempts),
        (bob.peer_id(), bob.onion(), 1)
    );
    assert_eq!(row.request.names, ["Bob"]);
    assert_eq!(
        (row.request.apps.len(), row.request.effort),
        (ALL_APPS.len(), 4)
    );
    // Neither node stores the other as a peer.
    let bobs = bob.identity;
    assert!(alice.read(move |view| view.rows.identity(&bobs)).is_none());
    assert_eq!(tier(&alice, bob.peer_id()), None);
    let alices = alice.identity;
    assert!(bob.read(move |view| view.rows.identity(&alices)).is_none());
    assert_eq!(tier(&bob, alice.peer_id()), None);

    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    assert_eq!(pending(&alice)[0].attempts, 2);

    approve(&alice, bob.peer_id());
    assert_eq!(pending(&alice), []);
    dial(&bob, &alice).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()), Some(Tier::Trusted));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn dialler_repeats_a_pending_dial_and_stops_for_a_banned_peer() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Approve), node(&net, "Bob", 2));
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    bob.dialler.keep_later(alice.onion());
    while pending(&alice)[0].attempts < 2 {
        tokio::task::yield_now().await;
    }
    approve(&alice, bob.peer_id());
    bob.wait_for_session(&alice.peer_id()).await;
    assert_eq!(bob.connector.admitted_total(), 1);
    ban(&bob, alice.peer_id());
    alice.wait_for_session_end(&bob.peer_id()).await;
    assert!(matches!(
        dial(&bob, &alice).await,
        Err(PeerDialError::Banned)
    ));
    unban(&bob, alice.peer_id());
    bob.wait_for_session(&alice.peer_id()).await;
    assert_eq!(bob.connector.admitted_total(), 2);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn refused_node_cannot_request_again_before_the_refusal_expires() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Approve), node(&net, "Bob", 2));
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    let (peer, until) = (bob.peer_id(), Timestamp(alice.engine.now().0 + 60_000));
    decide(&alice, true, move |graph| {
        verdicts::refuse(graph, peer, Reason::default(), Some(until))
    });
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    alice.admission.set_policy(Policy::Open);
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    assert_eq!(pending(&alice), []);
    alice.admission.set_policy(Policy::Approve);
    alice.clock.advance_s(60);
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    assert_eq!(pending(&alice).len(), 1);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn verdict_between_admission_and_session_refuses_the_session() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), RawClient::new(2));
    let gatekeeper = Arc::new(NodeGatekeeper {
        peers: alice.peers.clone(),
        policy: alice.admission.clone(),
        boot_id: BootId::from_bytes([1; 16]),
    });
    let (keys, clock) = (alice.keys.clone(), Arc::new(alice.clock.clone()));
    let gate = Gate::new(
        GateConfig::default(),
        keys,
        gatekeeper.clone(),
        gatekeeper,
        clock,
    );
    let (admitted, mut admissions) = tokio::sync::mpsc::unbounded_channel();
    let (listener, stop) = (net.listen(alice.onion()), CancellationToken::new());
    let serving = gate.serve(
        Box::new(listener),
        move |session, peer| admitted.send((session, peer)).unwrap(),
        stop.clone(),
    );
    let dialling = async {
        let mut session_of_bob = bob.dial(&net, &alice).await.unwrap();
        let (session, peer) = admissions.recv().await.unwrap();
        let id = bob.peer_id();
        decide(&alice, true, move |graph| {
            verdicts::refuse(graph, id, Reason::default(), None)
        });
        alice.peers.admit(session, peer).await.unwrap();
        // Without the verdict, the node would reply to this pull first.
        let _ = session_of_bob
            .writer
            .write(&bob.pull(1, "rides.offers").encode())
            .await;
        let first = harness::raw_client::receive(&mut session_of_bob).await;
        assert!(
            matches!(&first, Some(SessionMessage::Bye(bye)) if bye.code == "refused"),
            "{first:?}"
        );
        stop.cancel();
    };
    tokio::join!(serving, dialling);
    alice.stop().await;
}

#[tokio::test]
async fn allowlist_admits_listed_and_dialled_peers_only() {
    let net = MemoryNet::new();
    let alice = alice(&net, Policy::Allowlist);
    let (bob, carol) = (node(&net, "Bob", 2), node(&net, "Carol", 3));
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    assert_eq!(pending(&alice), []);
    alice.admission.replace(AdmissionConfig {
        policy: Policy::Allowlist,
        allow: vec![bob.peer_id()],
        ..AdmissionConfig::default()
    });
    dial(&bob, &alice).await.unwrap();
    // A peer that this node dialled is trusted and so admitted.
    dial(&alice, &carol).await.unwrap();
    disconnect(&net, &alice, &carol).await;
    dial(&carol, &alice).await.unwrap();
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn stricter_policy_applies_to_untrusted_peers() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), node(&net, "Bob", 2));
    dial(&bob, &alice).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()), Some(Tier::Untrusted));
    disconnect(&net, &alice, &bob).await;
    alice.admission.set_policy(Policy::Approve);
    // A ticket replaces the puzzle only; the policy still applies.
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    assert_eq!(pending(&alice)[0].request.effort, 0);
    alice.admission.set_policy(Policy::Allowlist);
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    alice.admission.set_policy(Policy::Open);
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(pending(&alice), [], "an admitted peer is not pending");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn ticket_replaces_the_puzzle_after_restarts() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), node(&net, "Bob", 2));
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 4);
    alice.wait_for_session(&bob.peer_id()).await;
    disconnect(&net, &alice, &bob).await;
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    alice.wait_for_session(&bob.peer_id()).await;
    let alice = alice.restart(&net).await;
    bob.wait_for_session_end(&alice.peer_id()).await;
    let bob = bob.restart(&net).await;
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    assert_eq!(alice.gate.status().by_ticket_total, 1);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn ban_ends_the_session_and_outlives_restart_and_rotation() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), node(&net, "Bob", 2));
    dial(&alice, &bob).await.unwrap();
    bob.wait_for_session(&alice.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()), Some(Tier::Trusted));
    ban(&alice, bob.peer_id());
    alice.wait_for_session_end(&bob.peer_id()).await;
    bob.wait_for_session_end(&alice.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()), Some(Tier::Untrusted));
    refused(dial(&bob, &alice).await, RefusalCode::Banned);
    assert!(matches!(
        dial(&alice, &bob).await,
        Err(PeerDialError::Banned)
    ));
    assert_eq!(
        alice.connector.admitted_total(),
        1,
        "no challenge was requested"
    );

    let alice = alice.restart(&net).await;
    refused(dial(&bob, &alice).await, RefusalCode::Banned);
    let server = server_oid(&bob);
    bob.keys
        .rotate(server, &mut ChaCha20Rng::seed_from_u64(77))
        .unwrap();
    assert_eq!(bob.keys.node_chain().events.len(), 1);
    refused(dial(&bob, &alice).await, RefusalCode::Banned);
    assert!(alice.peers.registry().sessions().is_empty());
    alice.stop().await;
    bob.stop().await;
}

fn server_oid(node: &LiveNode) -> Oid {
    node.keys.node_chain().verify().unwrap().oid()
}

#[tokio::test]
async fn forgotten_banned_peer_is_not_dialled() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), node(&net, "Bob", 2));
    dial(&alice, &bob).await.unwrap();
    ban(&alice, bob.peer_id());
    alice.wait_for_session_end(&bob.peer_id()).await;
    alice.clock.advance_days(31);
    assert_eq!(alice.peers.forget_idle(30).await.unwrap(), 1);
    assert_eq!(tier(&alice, bob.peer_id()), None);
    assert!(matches!(
        dial(&alice, &bob).await,
        Err(PeerDialError::Banned)
    ));
    assert_eq!(
        alice.connector.admitted_total(),
        1,
        "no challenge was requested"
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn unbanned_peer_must_solve_a_puzzle_again() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), node(&net, "Bob", 2));
    dial(&bob, &alice).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    ban(&alice, bob.peer_id());
    bob.wait_for_session_end(&alice.peer_id()).await;
    unban(&alice, bob.peer_id());
    alice.clock.advance_s(1);
    bob.clock.advance_s(1);
    // The old ticket is void. The solution earns a new one.
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 4);
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(alice.gate.status().by_ticket_total, 0);
    disconnect(&net, &alice, &bob).await;
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn banned_peer_behind_an_unknown_address_gets_no_session() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open), node(&net, "Bob", 2));
    ban(&alice, bob.peer_id());
    assert!(matches!(
        dial(&alice, &bob).await,
        Err(PeerDialError::Banned)
    ));
    assert_eq!(tier(&alice, bob.peer_id()), None);
    assert!(alice.peers.registry().sessions().is_empty());
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn full_request_list_keeps_the_requests_with_the_most_work() {
    let net = MemoryNet::new();
    let admission = AdmissionConfig {
        policy: Policy::Approve,
        pending_max: 1,
        ..AdmissionConfig::default()
    };
    let alice = Setup::seeded("Alice", 1).admission(admission).live(&net);
    let (bob, carol) = (node(&net, "Bob", 2), node(&net, "Carol", 3));
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    let [first] = pending(&alice).try_into().unwrap();
    assert_eq!(first.request.peer_id, bob.peer_id());
    // At the same effort as Bob, Carol receives "busy" until she solves a harder puzzle.
    refused(dial(&carol, &alice).await, RefusalCode::Pending);
    let [row] = pending(&alice).try_into().unwrap();
    assert_eq!(row.request.peer_id, carol.peer_id());
    assert!(
        row.request.effort > first.request.effort,
        "{}",
        row.request.effort
    );
    assert!(alice.gate.status().busy_total > 0);
    approve(&alice, carol.peer_id());
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn pending_request_shows_no_name_of_another_node_or_without_proof() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Approve), node(&net, "Bob", 2));
    let mut shown = bob.read(|view| identities::for_handshake(&view, 8));
    assert_eq!(shown.len(), 1);
    let signed = bob
        .keys
        .sign_object(bob.identity, b"no object".to_vec())
        .unwrap();
    shown.push(signed);
    let boot_id = BootId::from_bytes([9; 16]);
    let profile = FixedProfile::new(&["identities"], &["identities"], boot_id, shown);
    let client = RawClient::with_profile(9, profile);
    let error = client.dial(&net, &alice).await;
    assert!(matches!(
        error,
        Err(HandshakeError::Refused {
            code: RefusalCode::Pending,
            ..
        })
    ));
    let [row] = pending(&alice).try_into().unwrap();
    assert_eq!(
        (row.request.peer_id, row.request.names),
        (client.peer_id(), Vec::new())
    );
    alice.stop().await;
    bob.stop().await;
}

//! Who gets in: policies, strangers that wait, the operator's word, and tickets, between whole nodes over memory pipes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/live.rs"]
mod live;
#[path = "common/stranger.rs"]
mod stranger;

use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use bastion::{
    Connector, Gate, GateConfig, HandshakeError, Internal, LocalProfile, NodeProfile, RefusalCode,
    Tier,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, Oid, PeerId, SignedObject};
use live::{ALL_APPS, LiveNode, by_hand};
use postern::admission::NodeGatekeeper;
use postern::config::{AdmissionConfig, Policy};
use postern::graph::GraphManager;
use postern::op_context::Timestamp;
use postern::peer::DialError;
use postern::peer::dialler::Reached;
use postern::peer::message::Message;
use postern::services::admission::{self, Reason, VerdictError};
use postern::services::identities;
use postern::store::{PendingRow, VerdictRow};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use stranger::Stranger;
use tokio_util::sync::CancellationToken;

async fn alice(net: &MemoryNet, policy: Policy) -> LiveNode {
    let admission = AdmissionConfig {
        policy,
        ..AdmissionConfig::default()
    };
    LiveNode::start_under(net, "Alice", 1, &ALL_APPS, by_hand(), admission).await
}

async fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    LiveNode::start(net, name, seed, &ALL_APPS, by_hand()).await
}

async fn dial(from: &LiveNode, to: &LiveNode) -> Result<Reached, DialError> {
    from.dialler.dial(&to.onion(), &|_| {}).await
}

#[track_caller]
fn refused(result: Result<Reached, DialError>, expected: RefusalCode) {
    match result {
        Err(DialError::Handshake(HandshakeError::Refused { code, .. })) => {
            assert_eq!(code, expected)
        }
        other => panic!("{other:?} and not refused: {expected}"),
    }
}

async fn pending(node: &LiveNode) -> Vec<PendingRow> {
    node.read(|view| view.rows.pending(Timestamp(0))).await
}

async fn tier(node: &LiveNode, peer: PeerId) -> Option<Tier> {
    node.read(move |view| Ok(view.rows.peer(&peer)?.map(|row| row.tier)))
        .await
}

/// What the API does with the operator's word.
async fn say(
    node: &LiveNode,
    kept_out: bool,
    verb: impl FnOnce(&mut GraphManager<'_>) -> Result<VerdictRow, VerdictError> + Send + 'static,
) {
    let written = node
        .engine
        .write(move |core, now| core.write(now, verb))
        .await;
    let peer = written.unwrap().peer_id;
    node.gate.forget_replies(&peer);
    if kept_out {
        node.peers.end(&peer, "end");
    }
}

async fn approve(node: &LiveNode, peer: PeerId) {
    say(node, false, move |graph| admission::approve(graph, peer)).await;
}

async fn ban(node: &LiveNode, peer: PeerId) {
    say(node, true, move |graph| {
        admission::ban(graph, peer, Reason::default(), None)
    })
    .await;
}

async fn unban(node: &LiveNode, peer: PeerId) {
    say(node, false, move |graph| admission::unban(graph, peer)).await;
}

async fn until_gone(node: &LiveNode, peer: &PeerId) {
    while node
        .peers
        .sessions()
        .iter()
        .any(|session| session.peer == *peer)
    {
        tokio::task::yield_now().await;
    }
}

/// Both sides know that their streams are cut.
async fn part(net: &MemoryNet, one: &LiveNode, other: &LiveNode) {
    net.cut_all();
    until_gone(one, &other.peer_id()).await;
    until_gone(other, &one.peer_id()).await;
}

#[tokio::test]
async fn a_stranger_waits_and_once_approved_gets_in_and_is_trusted() {
    let net = MemoryNet::new();
    let (alice, bob) = (
        alice(&net, Policy::Approve).await,
        node(&net, "Bob", 2).await,
    );
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    let [row] = pending(&alice).await.try_into().unwrap();
    assert_eq!(
        (row.request.peer_id, row.request.onion, row.attempts),
        (bob.peer_id(), bob.onion(), 1)
    );
    assert_eq!(row.request.names, ["Bob"]);
    assert_eq!(
        (row.request.apps.len(), row.request.effort),
        (ALL_APPS.len(), 4)
    );
    // Nothing else of it is kept, and it knows nothing of Alice.
    let bobs = bob.identity;
    assert!(
        alice
            .read(move |view| view.rows.identity(&bobs))
            .await
            .is_none()
    );
    assert_eq!(tier(&alice, bob.peer_id()).await, None);
    let alices = alice.identity;
    assert!(
        bob.read(move |view| view.rows.identity(&alices))
            .await
            .is_none()
    );
    assert_eq!(tier(&bob, alice.peer_id()).await, None);

    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    assert_eq!(pending(&alice).await[0].attempts, 2);

    approve(&alice, bob.peer_id()).await;
    assert_eq!(pending(&alice).await, []);
    dial(&bob, &alice).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()).await, Some(Tier::Trusted));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn dialling_goes_on_while_the_operator_thinks_and_stops_for_who_is_banned() {
    let net = MemoryNet::new();
    let (alice, bob) = (
        alice(&net, Policy::Approve).await,
        node(&net, "Bob", 2).await,
    );
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    bob.dialler.keep_later(alice.onion());
    while pending(&alice).await[0].attempts < 2 {
        tokio::task::yield_now().await;
    }
    approve(&alice, bob.peer_id()).await;
    bob.wait_for_session(&alice.peer_id()).await;
    assert_eq!(bob.connector.admitted_total(), 1);
    ban(&bob, alice.peer_id()).await;
    until_gone(&alice, &bob.peer_id()).await;
    assert!(matches!(dial(&bob, &alice).await, Err(DialError::Banned)));
    unban(&bob, alice.peer_id()).await;
    bob.wait_for_session(&alice.peer_id()).await;
    assert_eq!(bob.connector.admitted_total(), 2);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_refused_stranger_does_not_wait_again_before_its_time() {
    let net = MemoryNet::new();
    let (alice, bob) = (
        alice(&net, Policy::Approve).await,
        node(&net, "Bob", 2).await,
    );
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    let (peer, until) = (bob.peer_id(), Timestamp(alice.engine.now().0 + 60_000));
    say(&alice, true, move |graph| {
        admission::refuse(graph, peer, Reason::default(), Some(until))
    })
    .await;
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    alice.admission.set_policy(Policy::Open);
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    assert_eq!(pending(&alice).await, []);
    alice.admission.set_policy(Policy::Approve);
    alice.clock.advance_s(60);
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    assert_eq!(pending(&alice).await.len(), 1);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn who_is_refused_between_its_admission_and_its_session_has_none() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, Stranger::new(2));
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
    let telling = async {
        let mut heard = bob.dial(&net, &alice).await.unwrap();
        let (session, peer) = admissions.recv().await.unwrap();
        let id = bob.peer_id();
        say(&alice, true, move |graph| {
            admission::refuse(graph, id, Reason::default(), None)
        })
        .await;
        alice.peers.admit(session, peer).await.unwrap();
        // Without a word to the contrary the first thing that it would hear is the answer to this.
        let _ = heard.writer.write(&bob.pull(1).encode()).await;
        let first = stranger::hear(&mut heard).await;
        assert!(
            matches!(&first, Some(Message::Bye(bye)) if bye.code == "refused"),
            "{first:?}"
        );
        stop.cancel();
    };
    tokio::join!(serving, telling);
    alice.stop().await;
}

#[tokio::test]
async fn under_allowlist_only_who_is_known_gets_in() {
    let net = MemoryNet::new();
    let alice = alice(&net, Policy::Allowlist).await;
    let (bob, carol) = (node(&net, "Bob", 2).await, node(&net, "Carol", 3).await);
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    assert_eq!(pending(&alice).await, []);
    alice.admission.replace(AdmissionConfig {
        policy: Policy::Allowlist,
        allow: vec![bob.peer_id()],
        ..AdmissionConfig::default()
    });
    dial(&bob, &alice).await.unwrap();
    // Whom this node dialled is known too.
    dial(&alice, &carol).await.unwrap();
    part(&net, &alice, &carol).await;
    dial(&carol, &alice).await.unwrap();
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_policy_that_changes_makes_strangers_of_those_who_only_worked() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, node(&net, "Bob", 2).await);
    dial(&bob, &alice).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()).await, Some(Tier::Untrusted));
    part(&net, &alice, &bob).await;
    alice.admission.set_policy(Policy::Approve);
    // Its ticket spares it the work and helps no further.
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    assert_eq!(pending(&alice).await[0].request.effort, 0);
    alice.admission.set_policy(Policy::Allowlist);
    refused(dial(&bob, &alice).await, RefusalCode::Policy);
    alice.admission.set_policy(Policy::Open);
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(pending(&alice).await, [], "who was let in waits no longer");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_ticket_spares_the_work_also_after_the_other_node_started_again() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, node(&net, "Bob", 2).await);
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 4);
    alice.wait_for_session(&bob.peer_id()).await;
    part(&net, &alice, &bob).await;
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    alice.wait_for_session(&bob.peer_id()).await;
    let alice = alice.restart(&net).await;
    until_gone(&bob, &alice.peer_id()).await;
    let bob = bob.restart(&net).await;
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    assert_eq!(alice.gate.status().by_ticket_total, 1);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_ban_ends_the_session_and_outlives_a_restart_and_a_new_key() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, node(&net, "Bob", 2).await);
    dial(&alice, &bob).await.unwrap();
    bob.wait_for_session(&alice.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()).await, Some(Tier::Trusted));
    ban(&alice, bob.peer_id()).await;
    until_gone(&alice, &bob.peer_id()).await;
    until_gone(&bob, &alice.peer_id()).await;
    assert_eq!(tier(&alice, bob.peer_id()).await, Some(Tier::Untrusted));
    refused(dial(&bob, &alice).await, RefusalCode::Banned);
    assert!(matches!(dial(&alice, &bob).await, Err(DialError::Banned)));
    assert_eq!(
        alice.connector.admitted_total(),
        1,
        "it was not even knocked at"
    );

    let alice = alice.restart(&net).await;
    refused(dial(&bob, &alice).await, RefusalCode::Banned);
    let server = server_oid(&bob);
    bob.keys
        .rotate(server, &mut ChaCha20Rng::seed_from_u64(77))
        .unwrap();
    assert_eq!(bob.keys.node_chain().events.len(), 1);
    refused(dial(&bob, &alice).await, RefusalCode::Banned);
    assert!(alice.peers.sessions().is_empty());
    alice.stop().await;
    bob.stop().await;
}

fn server_oid(node: &LiveNode) -> Oid {
    node.keys.node_chain().verify().unwrap().oid()
}

#[tokio::test]
async fn a_banned_peer_that_is_forgotten_is_still_not_dialled() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, node(&net, "Bob", 2).await);
    dial(&alice, &bob).await.unwrap();
    ban(&alice, bob.peer_id()).await;
    until_gone(&alice, &bob.peer_id()).await;
    alice.clock.advance_days(31);
    assert_eq!(alice.peers.forget_idle(30).await.unwrap(), 1);
    assert_eq!(tier(&alice, bob.peer_id()).await, None);
    assert!(matches!(dial(&alice, &bob).await, Err(DialError::Banned)));
    assert_eq!(
        alice.connector.admitted_total(),
        1,
        "it was not even knocked at"
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_peer_that_was_banned_and_is_no_longer_has_to_work_again() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, node(&net, "Bob", 2).await);
    dial(&bob, &alice).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    ban(&alice, bob.peer_id()).await;
    until_gone(&bob, &alice.peer_id()).await;
    unban(&alice, bob.peer_id()).await;
    alice.clock.advance_s(1);
    bob.clock.advance_s(1);
    // The old ticket is shown, and void; the work brings a new one.
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 4);
    alice.wait_for_session(&bob.peer_id()).await;
    assert_eq!(alice.gate.status().by_ticket_total, 0);
    part(&net, &alice, &bob).await;
    assert_eq!(dial(&bob, &alice).await.unwrap().effort, 0);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_banned_peer_that_is_met_where_it_was_not_known_gets_no_session() {
    let net = MemoryNet::new();
    let (alice, bob) = (alice(&net, Policy::Open).await, node(&net, "Bob", 2).await);
    ban(&alice, bob.peer_id()).await;
    assert!(matches!(dial(&alice, &bob).await, Err(DialError::Banned)));
    assert_eq!(tier(&alice, bob.peer_id()).await, None);
    assert!(alice.peers.sessions().is_empty());
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn in_a_full_list_of_strangers_who_works_more_takes_the_place_of_who_worked_least() {
    let net = MemoryNet::new();
    let admission = AdmissionConfig {
        policy: Policy::Approve,
        pending_max: 1,
        ..AdmissionConfig::default()
    };
    let alice = LiveNode::start_under(&net, "Alice", 1, &ALL_APPS, by_hand(), admission).await;
    let (bob, carol) = (node(&net, "Bob", 2).await, node(&net, "Carol", 3).await);
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    let [first] = pending(&alice).await.try_into().unwrap();
    assert_eq!(first.request.peer_id, bob.peer_id());
    // With as much work as Bob did she is told "busy" until she puts more into it.
    refused(dial(&carol, &alice).await, RefusalCode::Pending);
    let [row] = pending(&alice).await.try_into().unwrap();
    assert_eq!(row.request.peer_id, carol.peer_id());
    assert!(
        row.request.effort > first.request.effort,
        "{}",
        row.request.effort
    );
    assert!(alice.gate.status().busy_total > 0);
    approve(&alice, carol.peer_id()).await;
    refused(dial(&bob, &alice).await, RefusalCode::Pending);
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

/// Says what it likes of itself.
struct Boaster(Vec<SignedObject>);

impl LocalProfile for Boaster {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let profile = NodeProfile {
            apps: vec!["identities".into()],
            sync_domains: vec!["identities".into()],
            epoch: Epoch::from_bytes([9; 16]),
            boot_id: BootId::from_bytes([9; 16]),
            identities: self.0.clone(),
        };
        Box::pin(async { Ok(profile) })
    }
}

#[tokio::test]
async fn nobody_waits_under_a_name_that_lives_elsewhere_or_proves_nothing() {
    let net = MemoryNet::new();
    let (alice, bob) = (
        alice(&net, Policy::Approve).await,
        node(&net, "Bob", 2).await,
    );
    let mut shown = bob.read(|view| identities::for_handshake(&view, 8)).await;
    assert_eq!(shown.len(), 1);
    let signed = bob
        .keys
        .sign_object(bob.identity, b"no object".to_vec())
        .unwrap();
    shown.push(signed);
    let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(9)));
    let connector = Connector::new(
        GateConfig::default(),
        keys.clone(),
        Arc::new(Boaster(shown)),
    );
    let error = connector
        .dial(&net.transport(), &alice.onion(), None, &|_| {})
        .await;
    assert!(matches!(
        error,
        Err(HandshakeError::Refused {
            code: RefusalCode::Pending,
            ..
        })
    ));
    let [row] = pending(&alice).await.try_into().unwrap();
    assert_eq!(
        (row.request.peer_id, row.request.names),
        (keys.peer_id(), Vec::new())
    );
    alice.stop().await;
    bob.stop().await;
}

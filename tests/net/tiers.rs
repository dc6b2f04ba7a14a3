//! Limits of a peer by its tier: session slots, storage, requests, and how long the node remembers
//! it.

use std::time::Duration;

use bastion::transport::memory::MemoryNet;
use bastion::{HandshakeError, Tier};
use futures::future::join_all;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, manual_sync};
use keys::PeerId;
use postern::config::{AdmissionConfig, SyncConfig};
use postern::peer::SyncError;
use postern::peer::message::{IdOnly, SessionMessage};
use postern::state_engine::{CoreLimits, QuotaFault, Quotas};
use postern::store::{self, Usage};

fn session_slots(sessions_max: usize, sessions_untrusted_max: usize) -> SyncConfig {
    SyncConfig {
        sessions_max,
        sessions_untrusted_max,
        ..manual_sync()
    }
}

/// Default limits with other quotas.
fn quotas(change: impl FnOnce(&mut Quotas)) -> CoreLimits {
    let mut limits = CoreLimits::default();
    change(&mut limits.quotas);
    limits
}

/// Alice, with other quotas than by default.
fn alice(net: &MemoryNet, change: impl FnOnce(&mut Quotas)) -> LiveNode {
    Setup::seeded("Alice", 1).limits(quotas(change)).live(net)
}

fn start(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    LiveNode::start(net, name, seed)
}

/// The tier of a peer, its storage, and the storage of its tier.
fn stored(node: &LiveNode, peer: PeerId) -> (Tier, Usage, Usage) {
    node.read(move |view| {
        let stored = view.rows.stored_by(&peer)?.unwrap();
        Ok((
            stored.tier,
            stored.usage,
            view.rows.tier_usage(stored.tier)?,
        ))
    })
}

fn quota_key(error: &SyncError) -> &'static str {
    error.quota().map(|fault: &QuotaFault| fault.key).unwrap()
}

#[tokio::test]
async fn full_quota_stops_a_peer_until_the_quota_grows() {
    let net = MemoryNet::new();
    let node = alice(&net, |quotas| quotas.untrusted.stored_objects_max = 6);
    let bob = start(&net, "Bob", 2);
    let from = bob.peer_id();
    bob.meet(&node).await;
    let (tier, handshake, total) = stored(&node, from);
    assert_eq!(
        (tier, handshake.objects, total),
        (Tier::Untrusted, 1, handshake),
        "Bob's identity record"
    );
    bob.send(node.identity, "0");
    node.pull(&bob, "messages").await;
    let (_, before, _) = stored(&node, from);
    assert_eq!(
        before.objects, 3,
        "the record, a conversation and a message"
    );

    for body in ["1", "2", "3", "4"] {
        bob.send(node.identity, body);
    }
    let cursor = node.read(move |view| view.rows.sync_states(&from));
    let refused = node.peers.pull(&from, "messages").await.unwrap_err();
    assert_eq!(quota_key(&refused), "stored_objects_max");
    let pushed = bob
        .peers
        .push(&node.peer_id(), "messages")
        .await
        .unwrap_err();
    assert!(matches!(pushed, SyncError::Refused(code) if code == "quota"));
    assert_eq!(node.inbox().len(), 1, "all or nothing");
    assert_eq!(node.read(move |view| view.rows.sync_states(&from)), cursor);
    assert_eq!(stored(&node, from).1, before);
    assert_eq!(
        node.peers.registry().sessions().len(),
        1,
        "the session stays open"
    );

    let limits = quotas(|quotas| quotas.untrusted.stored_objects_max = 7);
    let node = node.stop().await.limits(limits).live(&net);
    bob.meet(&node).await;
    let pulled = node.pull(&bob, "messages").await;
    assert_eq!(
        (pulled[0].applied.written, pulled[0].applied.rejected),
        (4, 0)
    );
    assert_eq!(node.inbox().len(), 5);
    let (_, after, total) = stored(&node, from);
    assert_eq!((after.objects, total), (7, after));
    assert!(after.bytes > before.bytes);
    node.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peers_of_a_tier_share_a_total_and_keep_their_sessions_when_it_is_full() {
    let net = MemoryNet::new();
    let node = alice(&net, |quotas| quotas.untrusted.total_objects_max = 3);
    let (bob, carol) = (start(&net, "Bob", 2), start(&net, "Carol", 3));
    bob.meet(&node).await;
    bob.send(node.identity, "Hi");
    node.pull(&bob, "messages").await;
    carol.meet(&node).await;
    assert_eq!(
        stored(&node, carol.peer_id()).1,
        Usage::default(),
        "no identity record is stored"
    );
    let refused = node
        .peers
        .pull(&carol.peer_id(), "identities")
        .await
        .unwrap_err();
    assert_eq!(quota_key(&refused), "total_objects_max");
    node.send(bob.identity, "Hello");
    assert_eq!(
        bob.pull(&node, "messages").await[0].applied.written,
        1,
        "a peer without storage can still pull"
    );

    // Bob becomes trusted and his storage counts there, so Carol's record fits.
    node.dialler.dial(&bob.onion(), &|_| {}).await.unwrap();
    let (tier, usage, total) = stored(&node, bob.peer_id());
    assert_eq!((tier, usage.objects, total), (Tier::Trusted, 3, usage));
    node.pull(&carol, "identities").await;
    let (tier, usage, total) = stored(&node, carol.peer_id());
    assert_eq!((tier, usage.objects, total), (Tier::Untrusted, 1, usage));
    node.stop().await;
    bob.stop().await;
    carol.stop().await;
}

#[tokio::test]
async fn trusted_peer_evicts_the_newest_untrusted_session() {
    let net = MemoryNet::new();
    let node = Setup::seeded("Alice", 1)
        .sync(session_slots(2, 2))
        .live(&net);
    let (first, second, third) = (RawClient::new(11), RawClient::new(12), RawClient::new(13));
    let mut first_session = first.dial(&net, &node).await.unwrap();
    node.wait_for_session(&first.peer_id()).await;
    let mut second_session = second.dial(&net, &node).await.unwrap();
    node.wait_for_session(&second.peer_id()).await;
    let refused = third.dial(&net, &node).await;
    assert!(
        matches!(refused, Err(HandshakeError::Refused { .. })),
        "all slots are in use"
    );

    let (bob, carol, dave) = (
        start(&net, "Bob", 2),
        start(&net, "Carol", 3),
        start(&net, "Dave", 4),
    );
    node.dialler.dial(&bob.onion(), &|_| {}).await.unwrap();
    assert_eq!(receive_bye(&mut second_session).await, "busy");
    send(&mut first_session, &first.pull(1, "rides.offers")).await;
    assert!(
        matches!(
            receive(&mut first_session).await,
            Some(SessionMessage::UpToDate(_))
        ),
        "the older session stays open"
    );
    let tiers: Vec<_> = node
        .peers
        .registry()
        .sessions()
        .iter()
        .map(|session| (session.peer, session.tier))
        .collect();
    assert_eq!(tiers.len(), 2);
    assert!(
        tiers.contains(&(first.peer_id(), Tier::Untrusted))
            && tiers.contains(&(bob.peer_id(), Tier::Trusted))
    );

    // No trusted peer is evicted for another trusted peer.
    node.dialler.dial(&carol.onion(), &|_| {}).await.unwrap();
    assert_eq!(receive_bye(&mut first_session).await, "busy");
    node.dialler.dial(&dave.onion(), &|_| {}).await.unwrap();
    let mut here: Vec<_> = node
        .peers
        .registry()
        .sessions()
        .iter()
        .map(|session| session.peer)
        .collect();
    here.sort_unstable();
    let mut expected = vec![bob.peer_id(), carol.peer_id()];
    expected.sort_unstable();
    assert_eq!(here, expected);
    for node in [node, bob, carol, dave] {
        node.stop().await;
    }
}

/// Twelve clients dial a node with three slots at once. Returns how many the gate admitted.
async fn twelve_at_three_slots() -> usize {
    let net = MemoryNet::new();
    let node = Setup::seeded("Alice", 1)
        .sync(session_slots(8, 3))
        .live(&net);
    let clients: Vec<_> = (20..32).map(RawClient::new).collect();
    let dials = clients.iter().map(|client| async {
        let mut session = client.dial(&net, &node).await.ok()?;
        assert!(node.peers.registry().sessions().len() <= 3);
        // An admitted client without a slot receives `bye`; one with a slot receives a reply.
        let _ = session
            .writer
            .write(&client.pull(1, "rides.offers").encode())
            .await;
        loop {
            assert!(node.peers.registry().sessions().len() <= 3);
            match receive(&mut session).await? {
                SessionMessage::UpToDate(_) => return Some((session, true)),
                SessionMessage::Bye(bye) => {
                    assert_eq!(bye.code, "busy");
                    return Some((session, false));
                }
                _ => {}
            }
        }
    });
    let admitted = join_all(dials).await;
    let answered = admitted
        .iter()
        .flatten()
        .filter(|(_, is_answered)| *is_answered)
        .count();
    let admitted = admitted.iter().flatten().count();
    assert_eq!((answered, node.peers.registry().sessions().len()), (3, 3));
    node.stop().await;
    admitted
}

#[tokio::test]
async fn concurrent_admissions_get_no_more_sessions_than_slots() {
    // The registry is tested only if the gate admits more than three before it sees three sessions.
    for _ in 0..30 {
        if twelve_at_three_slots().await > 3 {
            return;
        }
    }
    panic!("the gate refused all further clients, so the registry was not tested");
}

#[tokio::test]
async fn request_limit_answers_busy_and_outlives_the_session() {
    let net = MemoryNet::new();
    let node = alice(&net, |quotas| quotas.untrusted.requests_per_minute_max = 2);
    let bob = start(&net, "Bob", 2);
    bob.meet(&node).await;
    node.send(bob.identity, "Hi");
    bob.pull(&node, "messages").await;
    bob.pull(&node, "messages").await;
    node.send(bob.identity, "Hello");
    let busy = bob
        .peers
        .pull(&node.peer_id(), "messages")
        .await
        .unwrap_err();
    assert!(matches!(busy, SyncError::Refused(code) if code == "busy"));
    bob.send(node.identity, "Hi");
    let busy = bob
        .peers
        .push(&node.peer_id(), "messages")
        .await
        .unwrap_err();
    assert!(matches!(busy, SyncError::Refused(code) if code == "busy"));
    assert_eq!(bob.inbox().len(), 2, "Alice's first message and his own");
    // Replies do not count as requests, so Alice receives the refused objects with her own pull.
    node.pull(&bob, "messages").await;
    assert_eq!(node.inbox().len(), 3);

    let client = RawClient::new(11);
    let mut session = client.dial(&net, &node).await.unwrap();
    for id in 1..=3 {
        send(&mut session, &client.pull(id, "rides.offers")).await;
    }
    let mut codes = Vec::new();
    while codes.len() < 3 {
        match receive(&mut session).await.unwrap() {
            SessionMessage::Refused(refused) => codes.push(refused.code),
            SessionMessage::UpToDate(_) => codes.push("ok".into()),
            _ => {}
        }
    }
    codes.sort_unstable();
    assert_eq!(codes, ["busy", "ok", "ok"]);
    send(&mut session, &SessionMessage::Ping(IdOnly { id: 4 })).await;
    assert_eq!(
        receive(&mut session).await,
        Some(SessionMessage::Pong(IdOnly { id: 4 }))
    );
    drop(session);
    let mut session = client.dial(&net, &node).await.unwrap();
    send(&mut session, &client.pull(1, "rides.offers")).await;
    let answer = receive(&mut session).await.unwrap();
    assert!(matches!(answer, SessionMessage::Refused(refused) if refused.code == "busy"));
    node.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn forgotten_untrusted_peer_returns_without_duplicate_objects() {
    let net = MemoryNet::new();
    let (node, bob) = (start(&net, "Alice", 1), start(&net, "Bob", 2));
    let (from, to) = (bob.peer_id(), node.peer_id());
    bob.meet(&node).await;
    for body in ["1", "2", "3"] {
        bob.send(node.identity, body);
    }
    node.pull(&bob, "messages").await;
    let days = |days| [&node, &bob].map(|node| node.clock.advance_days(days));
    days(31);
    assert_eq!(
        node.peers.forget_idle(30).await.unwrap(),
        0,
        "a connected peer is kept"
    );
    let over = node.peers.registry().session_at(&bob.onion()).unwrap();
    net.cut_all();
    over.cancelled().await;
    days(30);
    assert_eq!(
        node.peers.forget_idle(30).await.unwrap(),
        0,
        "exactly 30 days"
    );
    days(1);
    assert_eq!(
        node.peers.forget_idle(0).await.unwrap(),
        0,
        "0 days means never"
    );
    assert_eq!(
        bob.peers.forget_idle(30).await.unwrap(),
        0,
        "Bob dialled Alice and so trusts her"
    );
    assert!(bob.read(move |view| view.rows.peer(&to)).is_some());
    let before = stored(&node, from);
    assert_eq!(node.peers.forget_idle(30).await.unwrap(), 1);

    let (row, all, states) = node.read(move |view| {
        Ok((
            view.rows.peer(&from)?,
            view.rows.peers()?,
            view.rows.sync_states(&from)?,
        ))
    });
    assert_eq!((row, all, states), (None, vec![], vec![]));
    assert_eq!(stored(&node, from), before, "its storage still counts");
    assert_eq!(node.inbox().len(), 3, "received messages stay");
    // A message to the forgotten peer waits for its return.
    node.send(bob.identity, "still here?");

    bob.send(node.identity, "4");
    bob.meet(&node).await;
    let pulled = node.pull(&bob, "messages").await;
    let (window, applied) = (pulled[0].window.unwrap(), pulled[0].applied);
    assert_eq!(
        (window.from_seq, applied.written, applied.already_stored),
        (0, 1, 4)
    );
    assert_eq!(node.inbox().len(), 5, "Bob's four and her own");
    let (tier, usage, total) = stored(&node, from);
    assert_eq!(
        (tier, usage.objects, total),
        (Tier::Untrusted, before.1.objects + 1, usage)
    );
    bob.pull(&node, "messages").await;
    assert_eq!(bob.inbox().len(), 5);
    node.stop().await;
    bob.stop().await;
}

#[tokio::test(start_paused = true)]
async fn timer_forgets_idle_peers_after_a_minute_and_then_hourly() {
    let net = MemoryNet::new();
    // Inline, because a paused clock does not wait for other threads.
    let start = |name, seed| Setup::seeded(name, seed).readers(0).live(&net);
    let (node, bob) = (start("Alice", 1), start("Bob", 2));
    let from = bob.peer_id();
    let row = |node: &LiveNode, bob: &LiveNode| store::PeerRow {
        peer_id: from,
        server_oid: bob.keys.server_oid(),
        peer_apps: Vec::new(),
        peer_sync_domains: Vec::new(),
        domains: Vec::new(),
        onion: bob.onion(),
        epoch: bob.engine.context().epoch,
        tier: Tier::Untrusted,
        last_contact: node.engine.now(),
        relays: false,
    };
    let admission = node.admission.clone();
    node.peers
        .keep_forgetting(move || admission.get().untrusted_idle_days);
    for wait in [Duration::from_secs(61), Duration::from_secs(3600)] {
        let row = row(&node, &bob);
        node.graph(move |graph| graph.tx().put_peer(&row)).unwrap();
        node.clock.advance_days(31);
        tokio::task::yield_now().await;
        assert!(node.read(move |view| view.rows.peer(&from)).is_some());
        tokio::time::advance(wait).await;
        while node.read(move |view| view.rows.peer(&from)).is_some() {
            tokio::task::yield_now().await;
        }
    }
    // A reloaded configuration takes effect without a restart.
    let row = row(&node, &bob);
    node.graph(move |graph| graph.tx().put_peer(&row)).unwrap();
    node.clock.advance_days(2);
    node.admission.replace(AdmissionConfig {
        untrusted_idle_days: 1,
        ..AdmissionConfig::default()
    });
    tokio::time::advance(Duration::from_secs(3600)).await;
    while node.read(move |view| view.rows.peer(&from)).is_some() {
        tokio::task::yield_now().await;
    }
    node.stop().await;
    bob.stop().await;
}

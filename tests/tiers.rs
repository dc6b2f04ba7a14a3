//! What a peer may take of a node, by its tier: places, disk, requests, memory of it. Over memory pipes.
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

use std::time::Duration;

use bastion::transport::memory::MemoryNet;
use bastion::{HandshakeError, Tier};
use futures::future::join_all;
use keys::PeerId;
use live::{ALL_APPS, LiveNode, Setup, by_hand};
use postern::config::{AdmissionConfig, SyncConfig};
use postern::peer::SyncError;
use postern::peer::message::{Id, Message};
use postern::state_engine::{CoreLimits, QuotaFault, Quotas};
use postern::store::{self, Usage};
use stranger::{Stranger, goodbye, hear, say};

fn places(sessions_max: usize, sessions_untrusted_max: usize) -> SyncConfig {
    SyncConfig {
        sessions_max,
        sessions_untrusted_max,
        ..by_hand()
    }
}

/// Alice, whose untrusted peers have other quotas than usual.
fn alice(net: &MemoryNet, setup: Setup, change: impl FnOnce(&mut Quotas)) -> LiveNode {
    let mut limits = CoreLimits::default();
    change(&mut limits.quotas);
    LiveNode::set_up(net, "Alice", 1, &ALL_APPS, Setup { limits, ..setup })
}

async fn start(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    LiveNode::start(net, name, seed, &ALL_APPS, by_hand()).await
}

/// What a node has stored of a peer, and of that peer's tier.
async fn stored(node: &LiveNode, peer: PeerId) -> (Tier, Usage, Usage) {
    node.read(move |view| {
        let stored = view.rows.stored_by(&peer)?.unwrap();
        Ok((
            stored.tier,
            stored.usage,
            view.rows.tier_usage(stored.tier)?,
        ))
    })
    .await
}

fn quota_key(error: &SyncError) -> &'static str {
    error.quota().map(|fault: &QuotaFault| fault.key).unwrap()
}

#[tokio::test]
async fn a_full_quota_stops_a_peer_and_a_larger_one_lets_it_go_on_with_nothing_missing() {
    let net = MemoryNet::new();
    let node = alice(&net, Setup::new(by_hand()), |quotas| {
        quotas.untrusted.stored_objects_max = 6
    });
    let bob = start(&net, "Bob", 2).await;
    let from = bob.peer_id();
    bob.meet(&node).await;
    let (tier, handshake, total) = stored(&node, from).await;
    assert_eq!(
        (tier, handshake.objects, total),
        (Tier::Untrusted, 1, handshake),
        "Bob's identity"
    );
    bob.send(node.identity, "0").await;
    node.pull(&bob, "messages").await;
    let (_, before, _) = stored(&node, from).await;
    assert_eq!(before.objects, 3, "and a conversation with a message");

    for body in ["1", "2", "3", "4"] {
        bob.send(node.identity, body).await;
    }
    let cursor = node.read(move |view| view.rows.sync_states(&from)).await;
    let refused = node.peers.pull(&from, "messages").await.unwrap_err();
    assert_eq!(quota_key(&refused), "stored_objects_max");
    let pushed = bob
        .peers
        .push(&node.peer_id(), "messages")
        .await
        .unwrap_err();
    assert!(matches!(pushed, SyncError::Refused(code) if code == "quota"));
    assert_eq!(node.inbox().await.len(), 1, "all or nothing");
    assert_eq!(
        node.read(move |view| view.rows.sync_states(&from)).await,
        cursor
    );
    assert_eq!(stored(&node, from).await.1, before);
    assert_eq!(node.peers.sessions().len(), 1, "the session goes on");

    let folder = node.stop_and_keep().await;
    let again = Setup {
        folder,
        start: 1,
        ..Setup::new(by_hand())
    };
    let node = alice(&net, again, |quotas| {
        quotas.untrusted.stored_objects_max = 7
    });
    bob.meet(&node).await;
    let pulled = node.pull(&bob, "messages").await;
    assert_eq!(
        (pulled[0].applied.written, pulled[0].applied.rejected),
        (4, 0)
    );
    assert_eq!(node.inbox().await.len(), 5);
    let (_, after, total) = stored(&node, from).await;
    assert_eq!((after.objects, total), (7, after));
    assert!(after.bytes > before.bytes);
    node.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peers_of_a_tier_share_a_total_and_one_without_room_still_has_a_session() {
    let net = MemoryNet::new();
    let node = alice(&net, Setup::new(by_hand()), |quotas| {
        quotas.untrusted.total_objects_max = 3
    });
    let (bob, carol) = (start(&net, "Bob", 2).await, start(&net, "Carol", 3).await);
    bob.meet(&node).await;
    bob.send(node.identity, "Hi").await;
    node.pull(&bob, "messages").await;
    carol.meet(&node).await;
    assert_eq!(
        stored(&node, carol.peer_id()).await.1,
        Usage::default(),
        "not even its identity"
    );
    let refused = node
        .peers
        .pull(&carol.peer_id(), "identities")
        .await
        .unwrap_err();
    assert_eq!(quota_key(&refused), "total_objects_max");
    node.send(bob.identity, "Hello").await;
    assert_eq!(
        bob.pull(&node, "messages").await[0].applied.written,
        1,
        "it still gives"
    );

    // Trusted now, Bob takes what he has stored along, and Carol finds room.
    node.dialler.dial(&bob.onion(), &|_| {}).await.unwrap();
    let (tier, usage, total) = stored(&node, bob.peer_id()).await;
    assert_eq!((tier, usage.objects, total), (Tier::Trusted, 3, usage));
    node.pull(&carol, "identities").await;
    let (tier, usage, total) = stored(&node, carol.peer_id()).await;
    assert_eq!((tier, usage.objects, total), (Tier::Untrusted, 1, usage));
    node.stop().await;
    bob.stop().await;
    carol.stop().await;
}

#[tokio::test]
async fn a_trusted_peer_takes_the_place_of_the_newest_worked_one() {
    let net = MemoryNet::new();
    let node = LiveNode::start(&net, "Alice", 1, &ALL_APPS, places(2, 2)).await;
    let (first, second, third) = (Stranger::new(11), Stranger::new(12), Stranger::new(13));
    let mut first_session = first.dial(&net, &node).await.unwrap();
    node.wait_for_session(&first.peer_id()).await;
    let mut second_session = second.dial(&net, &node).await.unwrap();
    node.wait_for_session(&second.peer_id()).await;
    let refused = third.dial(&net, &node).await;
    assert!(
        matches!(refused, Err(HandshakeError::Refused { .. })),
        "all places are taken"
    );

    let (bob, carol, dave) = (
        start(&net, "Bob", 2).await,
        start(&net, "Carol", 3).await,
        start(&net, "Dave", 4).await,
    );
    node.dialler.dial(&bob.onion(), &|_| {}).await.unwrap();
    assert_eq!(goodbye(&mut second_session).await, "busy");
    say(&mut first_session, &first.pull(1)).await;
    assert!(
        matches!(hear(&mut first_session).await, Some(Message::UpToDate(_))),
        "the older one goes on"
    );
    let tiers: Vec<_> = node
        .peers
        .sessions()
        .iter()
        .map(|session| (session.peer, session.tier))
        .collect();
    assert_eq!(tiers.len(), 2);
    assert!(
        tiers.contains(&(first.peer_id(), Tier::Untrusted))
            && tiers.contains(&(bob.peer_id(), Tier::Trusted))
    );

    // Among the trusted nobody is sent away for another.
    node.dialler.dial(&carol.onion(), &|_| {}).await.unwrap();
    assert_eq!(goodbye(&mut first_session).await, "busy");
    node.dialler.dial(&dave.onion(), &|_| {}).await.unwrap();
    let mut here: Vec<_> = node
        .peers
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

/// Twelve strangers at once at a node with three places. How many of them the gate let in.
async fn twelve_at_three_places() -> usize {
    let net = MemoryNet::new();
    let node = LiveNode::start(&net, "Alice", 1, &ALL_APPS, places(8, 3)).await;
    let strangers: Vec<_> = (20..32).map(Stranger::new).collect();
    let come = strangers.iter().map(|stranger| async {
        let mut session = stranger.dial(&net, &node).await.ok()?;
        assert!(node.peers.sessions().len() <= 3);
        // Who was let in by the gate and finds no place hears why; who has one is answered.
        let _ = session.writer.write(&stranger.pull(1).encode()).await;
        loop {
            assert!(node.peers.sessions().len() <= 3);
            match hear(&mut session).await? {
                Message::UpToDate(_) => return Some((session, true)),
                Message::Bye(bye) => {
                    assert_eq!(bye.code, "busy");
                    return Some((session, false));
                }
                _ => {}
            }
        }
    });
    let came = join_all(come).await;
    let answered = came
        .iter()
        .flatten()
        .filter(|(_, is_answered)| *is_answered)
        .count();
    let admitted = came.iter().flatten().count();
    assert_eq!((answered, node.peers.sessions().len()), (3, 3));
    node.stop().await;
    admitted
}

#[tokio::test]
async fn many_that_are_admitted_at_once_find_no_more_places_than_there_are() {
    // Where the first three are listed before the next one is judged, the gate tells all others, and the list was not tried.
    for _ in 0..30 {
        if twelve_at_three_places().await > 3 {
            return;
        }
    }
    panic!("this has tested nothing: all were told at the gate");
}

#[tokio::test]
async fn who_asks_too_much_hears_busy_loses_nothing_and_wins_nothing_by_coming_back() {
    let net = MemoryNet::new();
    let node = alice(&net, Setup::new(by_hand()), |quotas| {
        quotas.untrusted.requests_per_minute_max = 2
    });
    let bob = start(&net, "Bob", 2).await;
    bob.meet(&node).await;
    node.send(bob.identity, "Hi").await;
    bob.pull(&node, "messages").await;
    bob.pull(&node, "messages").await;
    node.send(bob.identity, "Hello").await;
    let busy = bob
        .peers
        .pull(&node.peer_id(), "messages")
        .await
        .unwrap_err();
    assert!(matches!(busy, SyncError::Refused(code) if code == "busy"));
    bob.send(node.identity, "Hi").await;
    let busy = bob
        .peers
        .push(&node.peer_id(), "messages")
        .await
        .unwrap_err();
    assert!(matches!(busy, SyncError::Refused(code) if code == "busy"));
    assert_eq!(bob.inbox().await.len(), 2, "Alice's first and his own");
    // Answering is not asking: Alice, trusted there, gets what was not taken.
    node.pull(&bob, "messages").await;
    assert_eq!(node.inbox().await.len(), 3);

    let stranger = Stranger::new(11);
    let mut session = stranger.dial(&net, &node).await.unwrap();
    for id in 1..=3 {
        say(&mut session, &stranger.pull(id)).await;
    }
    let mut codes = Vec::new();
    while codes.len() < 3 {
        match hear(&mut session).await.unwrap() {
            Message::Refused(refused) => codes.push(refused.code),
            Message::UpToDate(_) => codes.push("ok".into()),
            _ => {}
        }
    }
    codes.sort_unstable();
    assert_eq!(codes, ["busy", "ok", "ok"]);
    say(&mut session, &Message::Ping(Id { id: 4 })).await;
    assert_eq!(hear(&mut session).await, Some(Message::Pong(Id { id: 4 })));
    drop(session);
    let mut session = stranger.dial(&net, &node).await.unwrap();
    say(&mut session, &stranger.pull(1)).await;
    let answer = hear(&mut session).await.unwrap();
    assert!(matches!(answer, Message::Refused(refused) if refused.code == "busy"));
    node.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn an_idle_worked_peer_is_forgotten_and_comes_back_without_doubling_anything() {
    let net = MemoryNet::new();
    let (node, bob) = (start(&net, "Alice", 1).await, start(&net, "Bob", 2).await);
    let (from, to) = (bob.peer_id(), node.peer_id());
    bob.meet(&node).await;
    for body in ["1", "2", "3"] {
        bob.send(node.identity, body).await;
    }
    node.pull(&bob, "messages").await;
    let days = |days| [&node, &bob].map(|node| node.clock.advance_days(days));
    days(31);
    assert_eq!(node.peers.forget_idle(30).await.unwrap(), 0, "it is here");
    let (_, over) = node.peers.session_at(&bob.onion()).unwrap();
    net.cut_all();
    over.cancelled().await;
    days(30);
    assert_eq!(
        node.peers.forget_idle(30).await.unwrap(),
        0,
        "exactly 30 days"
    );
    days(1);
    assert_eq!(node.peers.forget_idle(0).await.unwrap(), 0, "never");
    assert_eq!(
        bob.peers.forget_idle(30).await.unwrap(),
        0,
        "whom Bob dialled he trusts"
    );
    assert!(bob.read(move |view| view.rows.peer(&to)).await.is_some());
    let before = stored(&node, from).await;
    assert_eq!(node.peers.forget_idle(30).await.unwrap(), 1);

    let (row, all, states) = node
        .read(move |view| {
            Ok((
                view.rows.peer(&from)?,
                view.rows.peers()?,
                view.rows.sync_states(&from)?,
            ))
        })
        .await;
    assert_eq!((row, all, states), (None, vec![], vec![]));
    assert_eq!(
        stored(&node, from).await,
        before,
        "what it stored is counted on"
    );
    assert_eq!(node.inbox().await.len(), 3, "people keep what they got");
    // To whom nobody can send now, there is something to send later.
    node.send(bob.identity, "still here?").await;

    bob.send(node.identity, "4").await;
    bob.meet(&node).await;
    let pulled = node.pull(&bob, "messages").await;
    let (window, applied) = (pulled[0].window.unwrap(), pulled[0].applied);
    assert_eq!(
        (window.from_seq, applied.written, applied.already_here),
        (0, 1, 4)
    );
    assert_eq!(node.inbox().await.len(), 5, "Bob's four and her own");
    let (tier, usage, total) = stored(&node, from).await;
    assert_eq!(
        (tier, usage.objects, total),
        (Tier::Untrusted, before.1.objects + 1, usage)
    );
    bob.pull(&node, "messages").await;
    assert_eq!(bob.inbox().await.len(), 5);
    node.stop().await;
    bob.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_running_node_forgets_by_itself_soon_after_its_start_and_then_hourly() {
    let net = MemoryNet::new();
    let (node, bob) = (start(&net, "Alice", 1).await, start(&net, "Bob", 2).await);
    let from = bob.peer_id();
    let row = |node: &LiveNode, bob: &LiveNode| store::PeerRow {
        peer_id: from,
        server_oid: bob.keys.server_oid(),
        peer_apps: Vec::new(),
        peer_sync_domains: Vec::new(),
        domains: Vec::new(),
        onion: bob.onion(),
        epoch: bob.engine.ground().epoch,
        tier: Tier::Untrusted,
        last_contact: node.engine.now(),
    };
    let admission = node.admission.clone();
    node.peers
        .keep_forgetting(move || admission.get().untrusted_idle_days);
    for wait in [Duration::from_secs(61), Duration::from_secs(3600)] {
        let row = row(&node, &bob);
        node.write(move |core, now| core.write(now, |graph| Ok(graph.tx().put_peer(&row)?)))
            .await
            .unwrap();
        node.clock.advance_days(31);
        tokio::task::yield_now().await;
        assert!(node.read(move |view| view.rows.peer(&from)).await.is_some());
        tokio::time::advance(wait).await;
        while node.read(move |view| view.rows.peer(&from)).await.is_some() {
            tokio::task::yield_now().await;
        }
    }
    // The operator wrote another time into the file, and had it read again.
    let row = row(&node, &bob);
    node.write(move |core, now| core.write(now, |graph| Ok(graph.tx().put_peer(&row)?)))
        .await
        .unwrap();
    node.clock.advance_days(2);
    node.admission.replace(AdmissionConfig {
        untrusted_idle_days: 1,
        ..AdmissionConfig::default()
    });
    tokio::time::advance(Duration::from_secs(3600)).await;
    while node.read(move |view| view.rows.peer(&from)).await.is_some() {
        tokio::task::yield_now().await;
    }
    node.stop().await;
    bob.stop().await;
}

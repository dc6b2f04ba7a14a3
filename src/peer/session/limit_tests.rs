//! Tests of the limits on a peer's requests in one session, with a paused clock.

use bastion::Tier;
use futures::FutureExt as _;
use tokio::time::{Instant, advance};

use super::tests::{epoch_note, untrusted};
use super::*;
use crate::peer::message::{PackageBody, Pull, RequestRefusal};
use crate::peer::outgoing::BUSY_MAX;
use crate::peer::session_testing::{RunningSession, run_session};
use crate::peer::testing::{DOMAIN, TestCore, manual, peer_id, ping, pong, pull};

fn reader(node: &TestCore, config: &SyncConfig) -> (SessionReader, OutgoingFrames) {
    let stop = CancellationToken::new();
    let (handle, frames) = SessionHandle::new(untrusted(), config, &stop);
    let reader = SessionReader {
        handle: Arc::new(handle),
        server: RequestServer::new(node.core.clone(), config),
        limits: RequestLimits::new(config),
        tasks: TaskTracker::new(),
    };
    (reader, frames)
}

#[tokio::test(start_paused = true)]
async fn refuses_requests_beyond_the_slots() {
    let node = TestCore::new(1);
    let config = SyncConfig {
        requests_in_flight_max: 1,
        ..manual()
    };
    let peer = peer_id(9);
    let mut session = run_session(&node, peer, &config);
    session.peer.send(&pull(1, peer, DOMAIN, 60)).await;
    session.peer.send(&pull(2, peer, DOMAIN, 60)).await;
    let busy = RequestRefusal {
        id: 2,
        code: "busy".into(),
        last_seq: None,
    };
    assert_eq!(
        session.peer.receive().await,
        Some(SessionMessage::Refused(busy))
    );
    let start = Instant::now();
    let reply = session.peer.receive_reply().await;
    assert!(matches!(reply, Some(SessionMessage::UpToDate(reply)) if reply.id == 1));
    assert_eq!(start.elapsed().as_secs(), 60);
    session.peer.send(&pull(3, peer, DOMAIN, 0)).await;
    let reply = session.peer.receive_reply().await;
    assert!(
        matches!(reply, Some(SessionMessage::UpToDate(reply)) if reply.id == 3),
        "the slot is free again"
    );
}

#[tokio::test(start_paused = true)]
async fn refuses_requests_without_a_token_but_takes_epochs() {
    let node = TestCore::new(1);
    let peer = peer_id(9);
    let mut session = run_session(&node, peer, &manual());
    let tokens = node
        .core
        .context()
        .limits
        .quotas
        .untrusted
        .requests_per_minute_max;
    for id in 1..=u64::from(tokens) {
        session.peer.send(&pull(id, peer, DOMAIN, 0)).await;
        assert!(matches!(
            session.peer.receive().await,
            Some(SessionMessage::UpToDate(_))
        ));
    }
    session.peer.send(&pull(1000, peer, DOMAIN, 0)).await;
    assert_eq!(session.peer.refusal().await, "busy");
    let push = PackageBody {
        id: 1001,
        body: vec![],
    };
    session.peer.send(&SessionMessage::Push(push)).await;
    assert_eq!(session.peer.refusal().await, "busy");
    session
        .peer
        .send(&SessionMessage::Epoch(epoch_note(1002)))
        .await;
    assert_eq!(session.peer.refusal().await, "epoch");
}

#[tokio::test(start_paused = true)]
async fn a_trusted_peer_has_the_tokens_of_its_tier() {
    let node = TestCore::new(1);
    let config = manual();
    let (mut reader, mut frames) = reader(&node, &config);
    reader.handle.trust();
    let quotas = node.core.context().limits.quotas;
    for id in 0..u64::from(quotas.untrusted.requests_per_minute_max) + 1 {
        let permits = reader.admit_request(id, RequestKind::Metered).await;
        assert!(permits.unwrap().is_some());
    }
    assert!(
        frames.next().now_or_never().is_none(),
        "nothing was refused"
    );
}

#[tokio::test(start_paused = true)]
async fn ends_at_more_epochs_than_an_honest_node_sends() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    for id in 0..EPOCH_MESSAGES_MAX {
        let note = epoch_note(id);
        let message = if id % 2 == 0 {
            SessionMessage::Epoch(note)
        } else {
            SessionMessage::Heard(note)
        };
        session.peer.send(&message).await;
        assert_eq!(session.peer.refusal().await, "epoch");
    }
    let message = SessionMessage::Heard(epoch_note(99));
    session.peer.send(&message).await;
    assert_eq!(session.peer.bye().await, "misbehaviour");
}

#[tokio::test(start_paused = true)]
async fn ends_when_the_peer_exceeds_its_slots_and_does_not_read() {
    let node = TestCore::new(1);
    let config = SyncConfig {
        requests_in_flight_max: 0,
        ..manual()
    };
    let (mut reader, mut frames) = reader(&node, &config);
    reader.handle.trust();
    for id in 0..BUSY_MAX as u64 {
        let permits = reader.admit_request(id, RequestKind::Metered).await;
        assert!(permits.unwrap().is_none(), "there are no slots");
    }
    let end = reader.admit_request(1, RequestKind::Metered).await;
    assert!(matches!(end, Err(SessionError::Misbehaved(_))));
    for _ in 0..BUSY_MAX {
        assert!(frames.next().now_or_never().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn id_is_free_again_before_its_reply_is_queued() {
    let (node, peer) = (TestCore::new(1), peer_id(9));
    let (mut reader, mut frames) = reader(&node, &manual());
    let handle = reader.handle.clone();
    // The queue is full, so that the reply stays in its task.
    while handle.send(&ping(1)).now_or_never().is_some() {}
    let request = pull(1, peer, DOMAIN, 0);
    let permits = reader.admit_request(1, RequestKind::Metered).await;
    let again = reader.admit_request(1, RequestKind::Metered).await;
    assert!(matches!(again, Err(SessionError::Misbehaved(_))));
    reader.spawn_request(1, request, permits.unwrap().unwrap());
    while reader.limits.in_flight.lock().contains(&1) {
        tokio::task::yield_now().await;
    }
    let again = reader.admit_request(1, RequestKind::Metered).await;
    assert!(again.unwrap().is_some());
    while frames.next().await.unwrap() == ping(1).encode() {}
}

#[tokio::test(start_paused = true)]
async fn takes_one_push_at_a_time() {
    let node = TestCore::new(1);
    let (mut reader, _frames) = reader(&node, &manual());
    let first = reader.admit_request(1, RequestKind::Push).await.unwrap();
    let metered = reader.admit_request(2, RequestKind::Metered).await;
    assert!(metered.unwrap().is_some(), "pulls need no push permit");
    let second = timeout(
        Duration::from_secs(1),
        reader.admit_request(3, RequestKind::Push),
    );
    assert!(second.await.is_err(), "the second push waits");
    drop(first);
    let second = reader.admit_request(4, RequestKind::Push).await.unwrap();
    assert!(second.is_some_and(|permits| permits.push.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_push_ends_with_the_session() {
    let node = TestCore::new(1);
    let (mut reader, _frames) = reader(&node, &manual());
    let _first = reader.admit_request(1, RequestKind::Push).await.unwrap();
    let handle = reader.handle.clone();
    let (second, ()) = tokio::join!(reader.admit_request(2, RequestKind::Push), async {
        handle.end(EndCode::End);
    });
    assert!(matches!(second, Err(SessionError::Over)));
}

/// A node that has met an untrusted peer, and the session between them.
async fn met() -> (TestCore, TestCore, RunningSession) {
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    node.meet(&peer, Tier::Untrusted).await;
    peer.meet(&node, Tier::Untrusted).await;
    let session = run_session(&node, peer.peer_id(), &manual());
    (node, peer, session)
}

/// A pull after everything that the node has committed, which waits as long as it may.
async fn live_pull(id: u64, node: &TestCore, peer: &TestCore) -> SessionMessage {
    SessionMessage::Pull(Pull {
        again: None,
        id,
        epoch: Some(node.epoch()),
        domain: DOMAIN.into(),
        wait_s: 60,
        peer_id: peer.peer_id(),
        last_seq: node.head().await,
    })
}

/// Whether the session replies to a ping: then it has read all earlier requests.
async fn has_read(session: &mut RunningSession) -> bool {
    session.peer.send(&ping(1)).await;
    session.peer.receive().await == Some(pong(1))
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_peer_receives_300_live_messages_in_a_minute() {
    let (node, peer, mut session) = met().await;
    let start = Instant::now();
    for id in 1..=300 {
        session.peer.send(&live_pull(id, &node, &peer).await).await;
        assert!(has_read(&mut session).await);
        advance(Duration::from_millis(150)).await;
        node.send_message(&peer, "hello").await;
        let reply = session.peer.receive().await;
        assert!(
            matches!(&reply, Some(SessionMessage::Package(body)) if body.id == id),
            "message {id}: {reply:?}"
        );
    }
    assert_eq!(start.elapsed(), Duration::from_secs(45), "no delay");
}

#[tokio::test(start_paused = true)]
async fn news_that_was_ready_or_sent_before_costs_a_token() {
    let (node, peer, mut session) = met().await;
    for id in 1..=60 {
        let waiting = live_pull(id, &node, &peer).await;
        session.peer.send(&waiting).await;
        assert!(has_read(&mut session).await);
    }
    node.send_message(&peer, "hello").await;
    for _ in 0..60 {
        let reply = session.peer.receive().await;
        assert!(matches!(reply, Some(SessionMessage::Package(_))));
    }
    // 60 pulls of one message took 60 tokens and got one back.
    let mut replies = 0;
    loop {
        session.peer.send(&pull(2, peer.peer_id(), DOMAIN, 0)).await;
        match session.peer.receive().await {
            Some(SessionMessage::Package(_)) => replies += 1,
            Some(SessionMessage::Refused(refusal)) => break assert_eq!(refusal.code, "busy"),
            other => panic!("{other:?}"),
        }
    }
    let tokens = node.core.context().limits.quotas.untrusted;
    assert_eq!(replies, tokens.requests_per_minute_max - 60 + 1);
}

#[tokio::test(start_paused = true)]
async fn refuses_what_a_peer_asks_at_once_beyond_its_tokens() {
    let (node, peer, mut session) = met().await;
    node.send_message(&peer, "hello").await;
    let (mut packages, mut refused) = (0, 0);
    for id in 0..200 {
        session
            .peer
            .send(&pull(id, peer.peer_id(), DOMAIN, 60))
            .await;
        match session.peer.receive().await {
            Some(SessionMessage::Package(_)) => packages += 1,
            Some(SessionMessage::Refused(refusal)) if refusal.code == "busy" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((packages, refused), (120, 80));
}

//! Tests of the limits on a peer's requests in one session, with a paused clock.

use tokio::time::Instant;

use super::tests::{epoch_note, untrusted};
use super::*;
use crate::peer::message::PackageBody;
use crate::peer::testing::{DOMAIN, TestCore, manual, peer_id, pull, run_session};

fn reader(node: &TestCore, config: &SyncConfig) -> (SessionReader, mpsc::Receiver<Vec<u8>>) {
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
    assert!(frames.try_recv().is_err(), "nothing was refused");
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
    let (mut reader, frames) = reader(&node, &config);
    for _ in 0..frames.max_capacity() {
        let permits = reader.admit_request(1, RequestKind::Metered).await;
        assert!(permits.unwrap().is_none(), "there are no slots");
    }
    let end = reader.admit_request(1, RequestKind::Metered).await;
    assert!(matches!(end, Err(SessionError::Misbehaved(_))));
    assert_eq!(frames.len(), frames.max_capacity());
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
    let second = reader.admit_request(3, RequestKind::Push).await.unwrap();
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

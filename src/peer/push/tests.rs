//! Tests of how the reply to a push is judged, and of the cursor that a push starts from.

use super::*;
use crate::peer::message::{IdOnly, UpToDate};
use crate::peer::session_testing::run_session;
use crate::peer::testing::{DOMAIN, TestCore, manual};
use bastion::Tier;

const EPOCH: Epoch = Epoch::from_bytes([1; 16]);
const WINDOW: Window = Window {
    from_seq: 5,
    to_seq: 9,
};

fn ack(epoch: Epoch, last_seq: u64) -> SessionMessage {
    SessionMessage::Ack(UpToDate {
        id: 1,
        epoch,
        last_seq,
    })
}

fn refused(code: &str, last_seq: Option<u64>) -> SessionMessage {
    SessionMessage::Refused(RequestRefusal {
        id: 1,
        code: code.into(),
        last_seq,
    })
}

fn judge(reply: SessionMessage) -> Result<PushReply, String> {
    judge_ack(reply, EPOCH, WINDOW).map_err(|error| match error {
        SyncError::Session(SessionError::Misbehaved(what)) => format!("misbehaved: {what}"),
        SyncError::Refused(code) => code,
        other => panic!("{other:?}"),
    })
}

#[test]
fn accepts_an_ack_at_or_above_the_window() {
    assert_eq!(judge(ack(EPOCH, 9)), Ok(PushReply::Acked(9)));
    assert_eq!(judge(ack(EPOCH, 20)), Ok(PushReply::Acked(20)));
}

#[test]
fn refuses_an_ack_below_the_window_or_of_another_epoch() {
    let wrong = Err("misbehaved: a reply of a wrong kind to a push".to_owned());
    assert_eq!(judge(ack(EPOCH, 8)), wrong);
    assert_eq!(judge(ack(Epoch::from_bytes([2; 16]), 9)), wrong);
    assert_eq!(judge(SessionMessage::Noted(IdOnly { id: 1 })), wrong);
}

#[test]
fn restarts_where_the_peer_reports_a_gap() {
    assert_eq!(
        judge(refused("gap", Some(3))),
        Ok(PushReply::RestartAfter(3))
    );
    assert_eq!(judge(refused("gap", None)), Ok(PushReply::RestartAfter(0)));
}

#[test]
fn refuses_a_gap_that_the_window_fills() {
    let wrong = Err("misbehaved: a gap where there is none".to_owned());
    assert_eq!(judge(refused("gap", Some(4))), wrong);
    assert_eq!(judge(refused("gap", Some(u64::MAX))), wrong);
}

#[test]
fn passes_on_any_other_refusal() {
    assert_eq!(judge(refused("quota", None)), Err("quota".to_owned()));
    assert_eq!(judge(refused("busy", Some(3))), Err("busy".to_owned()));
}

/// A node with a peer, and a session with it.
async fn met() -> (TestCore, TestCore) {
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    node.meet(&peer, Tier::Untrusted).await;
    peer.meet(&node, Tier::Untrusted).await;
    (node, peer)
}

#[tokio::test(start_paused = true)]
async fn pushes_from_the_acknowledged_number_on() {
    let (node, peer) = met().await;
    let mut session = run_session(&node, peer.peer_id(), &manual());
    let handle = session.handle.clone();
    let nothing = push_once(&node.core, &handle, DOMAIN).await.unwrap();
    assert_eq!((nothing.window, nothing.acked_seq), (None, 0));
    node.send_message(&peer, "hello").await;
    let core = node.core.clone();
    let pushing = tokio::spawn(async move { push_once(&core, &handle, DOMAIN).await });
    let Some(SessionMessage::Push(body)) = session.peer.receive().await else {
        panic!("no push");
    };
    let head = node.head().await;
    let ack = SessionMessage::Ack(UpToDate {
        id: body.id,
        epoch: node.epoch(),
        last_seq: head,
    });
    session.peer.send(&ack).await;
    let outcome = pushing.await.unwrap().unwrap();
    assert_eq!((outcome.objects, outcome.acked_seq), (2, head));
    let acked = acked_seq(&node.core, peer.peer_id(), DOMAIN).await.unwrap();
    assert_eq!(acked, head);
    let after = push_once(&node.core, &session.handle, DOMAIN)
        .await
        .unwrap();
    assert_eq!((after.window, after.acked_seq), (None, head));
}

#[tokio::test(start_paused = true)]
async fn gap_moves_the_cursor_back_and_asks_for_another_round() {
    let (node, peer) = met().await;
    let mut session = run_session(&node, peer.peer_id(), &manual());
    node.send_message(&peer, "hello").await;
    let id = peer.peer_id();
    node.core
        .write(move |core, now| core.record_ack(now, &id, DOMAIN, 1))
        .await
        .unwrap();
    let (core, handle) = (node.core.clone(), session.handle.clone());
    let pushing = tokio::spawn(async move { push_once(&core, &handle, DOMAIN).await });
    let Some(SessionMessage::Push(body)) = session.peer.receive().await else {
        panic!("no push");
    };
    let gap = SessionMessage::Refused(RequestRefusal {
        id: body.id,
        code: "gap".into(),
        last_seq: Some(0),
    });
    session.peer.send(&gap).await;
    let outcome = pushing.await.unwrap().unwrap();
    assert_eq!((outcome.acked_seq, outcome.more), (0, true));
    let acked = acked_seq(&node.core, id, DOMAIN).await.unwrap();
    assert_eq!(acked, 0);
}

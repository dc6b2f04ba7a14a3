//! Tests of one session against a scripted peer, with a paused clock.

use std::collections::BTreeMap;

use tokio::time::{Instant, advance};

use super::*;
use crate::peer::message::{
    EpochNote, IdOnly, PackageBody, Pull, ReclaimRequest, ReclaimedBatch, RequestRefusal, UpToDate,
    Watch,
};
use crate::peer::session_testing::{ScriptedPeer, pipe, run_session};
use crate::peer::testing::{DOMAIN, TestCore, info, manual, peer_id, ping, pong, pull};
use bastion::{FrameError, Tier};
use keys::{Epoch, Signature};

pub(super) fn untrusted() -> SessionInfo {
    info(peer_id(9), Tier::Untrusted)
}

pub(super) fn epoch_note(id: u64) -> EpochNote {
    EpochNote {
        id,
        head: 0,
        epoch: Epoch::from_bytes([1; 16]),
        key_id: 0,
        signature: Signature::from_bytes([2; 64]),
    }
}

#[test]
fn classifies_every_message() {
    use MessageClass::{Bye as End, Ping, Reply, Request};
    use RequestKind::{Epoch as EpochKind, Metered, Push};
    let (id, epoch) = (7, Epoch::from_bytes([1; 16]));
    let body = || PackageBody { id, body: vec![] };
    let held = || UpToDate {
        id,
        epoch,
        last_seq: 1,
    };
    let only = || IdOnly { id };
    let refusal = RequestRefusal {
        id,
        code: "busy".into(),
        last_seq: None,
    };
    let pull = Pull {
        again: None,
        id,
        epoch: None,
        domain: "d".into(),
        wait_s: 0,
        peer_id: peer_id(1),
        last_seq: 0,
    };
    let request = ReclaimRequest {
        id,
        after: None,
        domain: "d".into(),
    };
    let watch = Watch {
        id,
        epoch: None,
        wait_s: 0,
        cursors: BTreeMap::new(),
    };
    let batch = ReclaimedBatch {
        id,
        body: vec![],
        next: None,
    };
    let bye = || Bye { code: "end".into() };
    let cases = [
        (SessionMessage::Package(body()), Reply(id)),
        (SessionMessage::UpToDate(held()), Reply(id)),
        (SessionMessage::Ack(held()), Reply(id)),
        (SessionMessage::Refused(refusal), Reply(id)),
        (SessionMessage::Noted(only()), Reply(id)),
        (SessionMessage::Reclaimed(batch), Reply(id)),
        (SessionMessage::Pong(only()), Reply(id)),
        (SessionMessage::Pull(pull), Request(id, Metered)),
        (SessionMessage::Reclaim(request), Request(id, Metered)),
        (SessionMessage::Push(body()), Request(id, Push)),
        (
            SessionMessage::Epoch(epoch_note(id)),
            Request(id, EpochKind),
        ),
        (
            SessionMessage::Heard(epoch_note(id)),
            Request(id, EpochKind),
        ),
        (SessionMessage::Ping(only()), Ping(id)),
        (SessionMessage::Bye(bye()), End("end".into())),
        (SessionMessage::Unchanged(only()), Reply(id)),
        (SessionMessage::Watch(watch), Request(id, Metered)),
    ];
    for (message, class) in cases {
        assert_eq!(classify(&message), class, "{message:?}");
    }
}

#[test]
fn close_code_names_the_cause() {
    let io = || FrameError::Io(std::io::ErrorKind::BrokenPipe.into());
    let cases = [
        (SessionError::Over, None, EndCode::Shutdown),
        (SessionError::Over, Some(EndCode::Refused), EndCode::Refused),
        (
            SessionError::Silent(Duration::from_secs(240)),
            None,
            EndCode::Silence,
        ),
        (
            SessionError::Malformed(keys::Malformed::Unexpected("x".into())),
            None,
            EndCode::Misbehaviour,
        ),
        (
            SessionError::Misbehaved("x"),
            Some(EndCode::Busy),
            EndCode::Misbehaviour,
        ),
        (SessionError::Bye("end".into()), None, EndCode::End),
        (SessionError::Timeout, None, EndCode::End),
        (SessionError::Frame(io()), None, EndCode::End),
    ];
    for (end, requested, code) in cases {
        assert_eq!(close_code(&end, requested), code, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn replies_to_a_ping_with_a_pong() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    session.peer.send(&ping(41)).await;
    assert_eq!(session.peer.receive().await, Some(pong(41)));
}

#[tokio::test(start_paused = true)]
async fn hands_a_reply_to_its_request() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    let handle = session.handle.clone();
    let asking = tokio::spawn(async move {
        handle
            .request(Duration::ZERO, |id| SessionMessage::Epoch(epoch_note(id)))
            .await
    });
    let Some(SessionMessage::Epoch(note)) = session.peer.receive().await else {
        panic!("no request");
    };
    let reply = SessionMessage::Noted(IdOnly { id: note.id });
    session.peer.send(&reply).await;
    assert_eq!(asking.await.unwrap().unwrap(), reply);
}

#[tokio::test(start_paused = true)]
async fn ends_at_a_reply_to_no_request() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    session.peer.send(&pong(1000)).await;
    assert_eq!(session.peer.bye().await, "misbehaviour");
    assert!(matches!(
        session.end.await.unwrap(),
        SessionError::Misbehaved("a reply to no request")
    ));
}

#[tokio::test(start_paused = true)]
async fn ends_at_a_malformed_frame() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    session.peer.send_frame(b"\xff").await;
    assert_eq!(session.peer.bye().await, "misbehaviour");
    assert!(matches!(
        session.end.await.unwrap(),
        SessionError::Malformed(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn ends_when_the_peer_sends_bye() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    let code = "rotated".to_owned();
    session.peer.send(&SessionMessage::Bye(Bye { code })).await;
    assert_eq!(session.peer.bye().await, "end");
    assert!(matches!(session.end.await.unwrap(), SessionError::Bye(code) if code == "rotated"));
}

#[tokio::test(start_paused = true)]
async fn ends_when_the_peer_closes_the_stream() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    session.peer.0.writer.close().await.unwrap();
    assert_eq!(session.peer.bye().await, "shutdown");
    assert!(matches!(session.end.await.unwrap(), SessionError::Over));
    assert!(session.handle.closed().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn ends_at_half_a_frame() {
    let node = TestCore::new(1);
    let (driver, remote) = {
        let (local, remote) = tokio::io::duplex(64);
        let session = Session::new(local, 1 << 20);
        let (config, stop) = (manual(), CancellationToken::new());
        let driver = SessionDriver::new(session, untrusted(), &config, &stop);
        (driver, remote)
    };
    let server = RequestServer::new(node.core.clone(), &manual());
    let end = tokio::spawn(async move { driver.run(server, &manual()).await });
    let mut remote = remote;
    tokio::io::AsyncWriteExt::write_all(&mut remote, &[0, 0, 0, 9, 1])
        .await
        .unwrap();
    drop(remote);
    assert!(matches!(end.await.unwrap(), SessionError::Frame(_)));
}

#[tokio::test(start_paused = true)]
async fn sends_bye_with_the_code_of_its_end() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    session.handle.end(EndCode::Refused);
    session.handle.end(EndCode::Busy);
    assert_eq!(session.peer.bye().await, "refused");
    assert_eq!(session.peer.receive().await, None, "the stream is closed");
    assert!(matches!(session.end.await.unwrap(), SessionError::Over));
}

#[tokio::test(start_paused = true)]
async fn ends_with_the_node() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    session.stop.cancel();
    assert_eq!(session.peer.bye().await, "shutdown");
    assert!(matches!(session.end.await.unwrap(), SessionError::Over));
}

#[tokio::test(start_paused = true)]
async fn pings_at_each_interval_and_ends_after_silence() {
    let node = TestCore::new(1);
    let config = manual();
    let start = Instant::now();
    let mut session = run_session(&node, peer_id(9), &config);
    let mut pings = 0;
    let code = loop {
        match session.peer.receive().await {
            Some(SessionMessage::Ping(_)) if pings < 20 => pings += 1,
            Some(SessionMessage::Bye(bye)) => break bye.code,
            other => panic!("{other:?}"),
        }
        assert_eq!(start.elapsed().as_secs(), pings * config.ping_interval_s);
    };
    assert_eq!(code, "silence");
    assert_eq!(start.elapsed().as_secs(), config.silence_s_max);
    assert!(matches!(
        session.end.await.unwrap(),
        SessionError::Silent(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn stays_while_the_peer_replies_to_pings() {
    let node = TestCore::new(1);
    let config = manual();
    let start = Instant::now();
    let mut session = run_session(&node, peer_id(9), &config);
    while start.elapsed().as_secs() <= 2 * config.silence_s_max {
        let Some(SessionMessage::Ping(IdOnly { id })) = session.peer.receive().await else {
            panic!("the session ended");
        };
        session.peer.send(&pong(id)).await;
    }
    assert!(!session.handle.closed().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn drops_a_late_reply() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    let handle = session.handle.clone();
    let asking = tokio::spawn(async move {
        handle
            .request(Duration::ZERO, |id| SessionMessage::Epoch(epoch_note(id)))
            .await
    });
    let Some(SessionMessage::Epoch(note)) = session.peer.receive().await else {
        panic!("no request");
    };
    // Pings keep the session alive past the request's deadline.
    let late = loop {
        if asking.is_finished() {
            break asking.await.unwrap();
        }
        advance(Duration::from_secs(20)).await;
        session.peer.send(&ping(1)).await;
        while session.peer.receive().await != Some(pong(1)) {}
    };
    assert!(matches!(late, Err(SessionError::Timeout)));
    let id = note.id;
    session
        .peer
        .send(&SessionMessage::Noted(IdOnly { id }))
        .await;
    session.peer.send(&ping(2)).await;
    while session.peer.receive().await != Some(pong(2)) {}
    assert!(!session.handle.closed().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn fails_pending_requests_at_its_end() {
    let node = TestCore::new(1);
    let session = run_session(&node, peer_id(9), &manual());
    let handle = session.handle.clone();
    let asking = tokio::spawn(async move {
        handle
            .request(Duration::ZERO, |id| SessionMessage::Epoch(epoch_note(id)))
            .await
    });
    drop(session.peer);
    session.end.await.unwrap();
    assert!(matches!(asking.await.unwrap(), Err(SessionError::Over)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_loses_the_session_at_the_write_deadline() {
    let node = TestCore::new(1);
    let config = manual();
    let session = run_session(&node, peer_id(9), &config);
    let start = Instant::now();
    // Larger than the pipe: the write cannot end.
    let long = SessionMessage::Push(PackageBody {
        id: 1,
        body: vec![0; 1000],
    });
    session.handle.send(&long).await.unwrap();
    let end = session.end.await.unwrap();
    assert!(matches!(end, SessionError::Over), "{end:?}");
    let elapsed = start.elapsed();
    let deadline = Duration::from_secs(config.reply_deadline_s);
    assert!(elapsed >= deadline && elapsed <= deadline + 2 * CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_delays_the_end_by_the_close_timeout() {
    let node = TestCore::new(1);
    let session = run_session(&node, peer_id(9), &manual());
    let long = SessionMessage::Push(PackageBody {
        id: 1,
        body: vec![0; 1000],
    });
    session.handle.send(&long).await.unwrap();
    let start = Instant::now();
    session.handle.end(EndCode::End);
    session.end.await.unwrap();
    assert!(start.elapsed() <= 2 * CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn finishes_the_frame_under_way_and_drops_the_queue_before_bye() {
    let node = TestCore::new(1);
    let mut session = run_session(&node, peer_id(9), &manual());
    let long = SessionMessage::Push(PackageBody {
        id: 1,
        body: vec![0; 1000],
    });
    session.handle.send(&long).await.unwrap();
    // The writer takes the frame, which is larger than the pipe.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    for id in 2..=3 {
        session.handle.send(&ping(id)).await.unwrap();
    }
    session.handle.end(EndCode::Busy);
    advance(CLOSE_TIMEOUT / 2).await;
    assert_eq!(session.peer.receive().await, Some(long));
    let busy = bye(EndCode::Busy);
    assert_eq!(session.peer.receive().await, Some(busy));
    assert_eq!(session.peer.receive().await, None, "the stream is closed");
}

#[tokio::test(start_paused = true)]
async fn requests_in_progress_end_with_the_session() {
    let node = TestCore::new(1);
    let peer = peer_id(9);
    let mut session = run_session(&node, peer, &manual());
    session.peer.send(&pull(1, peer, DOMAIN, 60)).await;
    session.peer.send(&ping(2)).await;
    assert_eq!(session.peer.receive().await, Some(pong(2)));
    let start = Instant::now();
    session.handle.end(EndCode::End);
    assert_eq!(session.peer.bye().await, "end");
    session.end.await.unwrap();
    assert!(start.elapsed() <= CLOSE_TIMEOUT, "the pull waits no longer");
}

#[tokio::test(start_paused = true)]
async fn refuse_sends_the_code_and_closes() {
    let (local, remote) = pipe(64);
    let (config, stop) = (manual(), CancellationToken::new());
    let driver = SessionDriver::new(local, untrusted(), &config, &stop);
    let refusing = tokio::spawn(async move { driver.refuse(EndCode::Duplicate).await });
    let mut remote = ScriptedPeer(remote);
    assert_eq!(remote.bye().await, "duplicate");
    assert_eq!(remote.receive().await, None, "the stream is closed");
    refusing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refuse_ends_although_the_peer_does_not_read() {
    let (local, _remote) = pipe(1);
    let (config, stop) = (manual(), CancellationToken::new());
    let driver = SessionDriver::new(local, untrusted(), &config, &stop);
    let start = Instant::now();
    driver.refuse(EndCode::Duplicate).await;
    assert!(start.elapsed() <= 2 * CLOSE_TIMEOUT);
}

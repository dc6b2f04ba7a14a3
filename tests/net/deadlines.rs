//! Every step of a session has a deadline: the peer may fall silent, stop reading or not reply.
//!
//! The clock of tokio is paused; it jumps to the next deadline when every task waits.

use std::time::Duration;

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use harness::raw_client::{RawClient, receive, send};
use harness::{LiveNode, Setup, manual_sync};
use postern::config::SyncConfig;
use postern::peer::SessionError;
use postern::peer::SyncError;
use postern::peer::message::SessionMessage;
use tokio::time::Instant;

/// A node with a session to a client. Pauses the clock of tokio.
async fn met(sync: SyncConfig) -> (LiveNode, RawClient, Session) {
    let net = MemoryNet::new();
    let node = Setup::seeded("Alice", 1).sync(sync).live(&net);
    let client = RawClient::new(11);
    let session = client.dial(&net, &node).await.unwrap();
    node.wait_for_session(&client.peer_id()).await;
    tokio::time::pause();
    (node, client, session)
}

#[tokio::test]
async fn silent_peer_is_pinged_and_then_disconnected() {
    let (node, _, mut session) = met(manual_sync()).await;
    let started = Instant::now();
    let mut pings = 0;
    let code = loop {
        match receive(&mut session).await.unwrap() {
            SessionMessage::Ping(_) => pings += 1,
            SessionMessage::Bye(bye) => break bye.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (code.as_str(), pings),
        ("silence", 7),
        "at 30, 60, .. 210 s"
    );
    assert_eq!(started.elapsed().as_secs(), 240);
    node.stop().await;
}

#[tokio::test]
async fn request_without_a_reply_times_out() {
    let (node, client, mut session) = met(manual_sync()).await;
    let started = Instant::now();
    let answering = async {
        loop {
            if let SessionMessage::Ping(ping) = receive(&mut session).await.unwrap() {
                send(&mut session, &SessionMessage::Pong(ping)).await;
            }
        }
    };
    let peer = client.peer_id();
    let asked = tokio::select! {
        asked = node.peers.pull(&peer, "identities") => asked,
        () = answering => unreachable!(),
    };
    assert!(matches!(
        asked,
        Err(SyncError::Session(SessionError::Timeout))
    ));
    assert_eq!(started.elapsed().as_secs(), 180);
    assert_eq!(
        node.peers.registry().sessions().len(),
        1,
        "the session stays open"
    );
    node.stop().await;
}

/// A session whose client requested more than a pipe holds and reads nothing, and its start.
async fn stalled() -> (LiveNode, RawClient, Session, Instant) {
    let day = 24 * 60 * 60;
    let patient = SyncConfig {
        ping_interval_s: day,
        silence_s_max: 2 * day,
        ..manual_sync()
    };
    let (node, client, mut session) = met(patient).await;
    let started = Instant::now();
    let pull = client.pull(1, "identities");
    send(&mut session, &pull).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    (node, client, session, started)
}

#[tokio::test]
async fn blocked_frame_write_ends_at_the_deadline() {
    let (node, client, _session, started) = stalled().await;
    let over = node
        .peers
        .registry()
        .session_at(&client.keys.onion())
        .unwrap();
    over.cancelled().await;
    assert!(started.elapsed().as_secs() <= 181);
    node.stop().await;
}

#[tokio::test]
async fn blocked_peer_does_not_delay_shutdown() {
    let (node, _client, _session, started) = stalled().await;
    node.stop().await;
    assert!(
        started.elapsed().as_secs() <= 4,
        "a second each for the frame and the stream"
    );
}

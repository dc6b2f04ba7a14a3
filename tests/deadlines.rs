//! Every step of a session ends: a peer may fall silent, stop reading or not answer, and costs no more than its deadline.
//!
//! Time stands still but where everybody waits for it: then it jumps to the next deadline.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/live.rs"]
mod live;
#[path = "common/stranger.rs"]
mod stranger;

use std::time::Duration;

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use live::{ALL_APPS, LiveNode, by_hand};
use postern::config::SyncConfig;
use postern::peer::SyncError;
use postern::peer::message::Message;
use postern::peer::session::SessionError;
use stranger::{Stranger, hear, say};
use tokio::time::Instant;

/// A node with somebody in a session; from now on time stands still.
async fn met(sync: SyncConfig) -> (LiveNode, Stranger, Session) {
    let net = MemoryNet::new();
    let node = LiveNode::start(&net, "Alice", 1, &ALL_APPS, sync).await;
    let stranger = Stranger::new(11);
    let session = stranger.dial(&net, &node).await.unwrap();
    node.wait_for_session(&stranger.peer_id()).await;
    tokio::time::pause();
    (node, stranger, session)
}

#[tokio::test]
async fn who_falls_silent_is_pinged_and_then_let_go() {
    let (node, _, mut session) = met(by_hand()).await;
    let begun = Instant::now();
    let mut pings = 0;
    let code = loop {
        match hear(&mut session).await.unwrap() {
            Message::Ping(_) => pings += 1,
            Message::Bye(bye) => break bye.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (code.as_str(), pings),
        ("silence", 7),
        "at 30, 60, .. 210 s"
    );
    assert_eq!(begun.elapsed().as_secs(), 240);
    node.stop().await;
}

#[tokio::test]
async fn who_answers_pings_but_no_request_is_waited_for_no_longer_than_the_deadline() {
    let (node, stranger, mut session) = met(by_hand()).await;
    let begun = Instant::now();
    let answering = async {
        loop {
            if let Message::Ping(ping) = hear(&mut session).await.unwrap() {
                say(&mut session, &Message::Pong(ping)).await;
            }
        }
    };
    let peer = stranger.peer_id();
    let asked = tokio::select! {
        asked = node.peers.pull(&peer, "identities") => asked,
        () = answering => unreachable!(),
    };
    assert!(matches!(
        asked,
        Err(SyncError::Session(SessionError::Timeout))
    ));
    assert_eq!(begun.elapsed().as_secs(), 180);
    assert_eq!(node.peers.sessions().len(), 1, "its other requests go on");
    node.stop().await;
}

/// A session of somebody who has asked for more than the pipe holds and reads nothing, and when it began.
async fn stalled() -> (LiveNode, Stranger, Session, Instant) {
    let day = 24 * 60 * 60;
    let patient = SyncConfig {
        ping_interval_s: day,
        silence_s_max: 2 * day,
        ..by_hand()
    };
    let (node, stranger, mut session) = met(patient).await;
    let begun = Instant::now();
    let mut pull = stranger.pull(1);
    if let Message::Pull(pull) = &mut pull {
        pull.domain = "identities".into();
    }
    say(&mut session, &pull).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    (node, stranger, session, begun)
}

#[tokio::test]
async fn who_reads_nothing_holds_a_frame_no_longer_than_the_deadline() {
    let (node, stranger, _session, begun) = stalled().await;
    let (_, over) = node.peers.session_at(&stranger.keys.onion()).unwrap();
    over.cancelled().await;
    assert!(begun.elapsed().as_secs() <= 181);
    node.stop().await;
}

#[tokio::test]
async fn who_reads_nothing_does_not_hold_up_the_end() {
    let (node, _stranger, _session, begun) = stalled().await;
    node.stop().await;
    assert!(
        begun.elapsed().as_secs() <= 4,
        "a second each for the frame and the stream"
    );
}

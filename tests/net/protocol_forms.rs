//! Statements of docs/PROTOCOL.md about handshake, integers and packages, against a live node.

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use harness::profile::EPOCH;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, manual_sync};
use keys::Context;
use postern::peer::message::{EpochNote, SessionMessage};

fn alice(net: &MemoryNet) -> LiveNode {
    Setup::seeded("Alice", 1).sync(manual_sync()).live(net)
}

async fn session_at(net: &MemoryNet, alice: &LiveNode, client: &RawClient) -> Session {
    let session = client.dial(net, alice).await.unwrap();
    alice.wait_for_session(&client.peer_id()).await;
    session
}

#[tokio::test]
async fn epoch_with_head_above_the_range_ends_the_session() {
    let net = MemoryNet::new();
    let (alice, mallory) = (alice(&net), RawClient::new(9));
    let mut session = session_at(&net, &alice, &mallory).await;
    let last = i64::MAX as u64;
    let note = |id, head: u64, signed: u64| {
        let epoch = EPOCH;
        let (key_id, signature) = mallory
            .keys
            .sign_as_node_numbered(Context::Epoch, &[epoch.as_bytes(), &signed.to_be_bytes()]);
        SessionMessage::Epoch(EpochNote {
            id,
            head,
            epoch,
            key_id,
            signature,
        })
    };
    send(&mut session, &note(1, last, last)).await;
    let reply = receive(&mut session).await.unwrap();
    assert!(matches!(reply, SessionMessage::Noted(_)), "{reply:?}");
    // The encoder of this workspace refuses such a number, so its bytes are changed.
    let mut frame = note(2, last, u64::MAX).encode();
    let head = last.to_be_bytes();
    let at = frame.windows(8).position(|window| window == head).unwrap();
    frame[at] = u8::MAX;
    session.writer.write(&frame).await.unwrap();
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    alice.stop().await;
}

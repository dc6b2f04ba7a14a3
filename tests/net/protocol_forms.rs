//! Statements of docs/PROTOCOL.md about handshake, integers and packages, against a live node.

use bastion::transport::memory::MemoryNet;
use bastion::{Features, Session};
use harness::profile::{EPOCH, FixedProfile};
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, boot_id, manual_sync};
use keys::{Context, Epoch};
use postern::peer::message::{EpochNote, PackageBody, SessionMessage};
use postern::services::identities;
use postern::state_engine::Package;

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

/// A push of an empty package of `mallory` in `epoch`.
fn push(id: u64, mallory: &RawClient, alice: &LiveNode, epoch: Epoch) -> SessionMessage {
    let package = Package {
        stubs: None,
        more: false,
        epoch,
        domain: "identities".into(),
        scopes: Some(Vec::new()),
        sender: mallory.peer_id(),
        to_seq: 1,
        objects: Vec::new(),
        version: 1,
        from_seq: 0,
        recipient: alice.peer_id(),
    };
    let body = package.sign(&mallory.keys, &Features::none());
    SessionMessage::Push(PackageBody { id, body })
}

#[tokio::test]
async fn package_of_another_epoch_is_refused() {
    let net = MemoryNet::new();
    let (alice, mallory) = (alice(&net), RawClient::new(9));
    let mut session = session_at(&net, &alice, &mallory).await;
    let other = Epoch::from_bytes([8; 16]);
    send(&mut session, &push(1, &mallory, &alice, other)).await;
    let reply = receive(&mut session).await.unwrap();
    let SessionMessage::Refused(refused) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((refused.id, refused.code.as_str()), (1, "epoch"));
    send(&mut session, &push(2, &mallory, &alice, EPOCH)).await;
    let reply = receive(&mut session).await.unwrap();
    assert!(matches!(reply, SessionMessage::Ack(_)), "{reply:?}");
    alice.stop().await;
}

#[tokio::test]
async fn each_side_may_speak_first() {
    let net = MemoryNet::new();
    let (alice, mallory) = (alice(&net), RawClient::new(9));
    // B sends a frame that is longer than any before admission, before it reads a message of A.
    let mut session = mallory.dial(&net, &alice).await.unwrap();
    let body = vec![0; 100_000];
    send(
        &mut session,
        &SessionMessage::Push(PackageBody { id: 1, body }),
    )
    .await;
    let reply = receive(&mut session).await.unwrap();
    assert!(matches!(reply, SessionMessage::Refused(_)), "{reply:?}");
    drop(session);
    alice.wait_for_session_end(&mallory.peer_id()).await;
    // A speaks, although B is silent.
    let mut session = mallory.dial(&net, &alice).await.unwrap();
    let first = session.reader.read().await.unwrap().unwrap();
    let first = SessionMessage::decode(&first).unwrap();
    assert!(matches!(first, SessionMessage::Epoch(_)), "{first:?}");
    alice.stop().await;
}

#[tokio::test]
async fn claimed_identity_is_stored_without_the_domain() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let claimed = bob
        .read(|view| identities::for_handshake(&view, 8))
        .into_iter()
        .collect();
    let identity = bob.identity;
    bob.stop().await;
    let alice = alice(&net);
    let apps = ["identities", "rides"];
    let profile = FixedProfile::new(&apps, &["rides.offers"], boot_id(2, 0), claimed);
    let client = RawClient::with_profile(2, profile);
    let session = session_at(&net, &alice, &client).await;
    let peer = client.peer_id();
    let row = alice.read(move |view| view.rows.peer(&peer)).unwrap();
    assert_eq!(row.domains, ["rides.offers"]);
    assert!(
        alice
            .read(move |view| view.rows.identity(&identity))
            .is_some()
    );
    drop(session);
    alice.stop().await;
}

#[test]
fn page_names_the_port_and_every_shared_limit_of_bytes() {
    use keys::protocol as shared;
    let page = std::fs::read_to_string("docs/PROTOCOL.md").unwrap();
    for text in [
        format!("virtual port {} of its onion service", shared::ONION_PORT),
        format!("at most {} events", shared::KEY_EVENTS_MAX),
        format!("{} bytes |", shared::UNADMITTED_FRAME_BYTES_MAX),
        format!("{} bytes |", shared::FRAME_BYTES_MAX),
        format!("sealed has at most {} bytes", shared::SEALED_BYTES_MAX),
        format!("(at most {} bytes)", shared::COOKIE_BYTES_MAX),
        format!("at most {} bytes, opaque to B", shared::TICKET_BYTES_MAX),
        format!("versions: [1*{} uint]", shared::VERSIONS_MAX),
        format!("{} bytes, envelope included", shared::PACKAGE_BYTES_MAX),
        format!("; at most {}\n", shared::PACKAGE_OBJECTS_MAX),
    ] {
        assert!(page.contains(&text), "{text}");
    }
}

//! Two copies of one node: peers tell the older copy about the newer epoch, and it becomes
//! read-only.
//!
//! No other node can make a node read-only.

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, ride};
use keys::{Context, Epoch, KeyManager};
use postern::graph::SaveError;
use postern::peer::message::{EpochNote, SessionMessage};
use postern::store::{EpochReason, WriteMode, snapshot};

/// A node that has met Bob, was stopped, and was copied: the original and the copy.
async fn stopped_twice(net: &MemoryNet, bob: &LiveNode) -> (Setup, Setup) {
    let alice = LiveNode::start(net, "Alice", 1);
    alice.make("rides", 1, ride("Bern", 2)).unwrap();
    alice.meet(bob).await;
    epoch_is_known(bob, &alice).await;
    let old = alice.stop().await;
    let copy = old.elsewhere().new_epoch(EpochReason::Restored);
    snapshot(&old.database(), &copy.database()).unwrap();
    (old, copy)
}

/// The copy as `postern restore` leaves it, and the original as it was.
async fn restored_and_old(net: &MemoryNet, bob: &LiveNode) -> (LiveNode, LiveNode) {
    let (old, copy) = stopped_twice(net, bob).await;
    let (restored, old) = (copy.live(net), old.live(net));
    assert_ne!(restored.epoch(), old.epoch());
    (restored, old)
}

/// Waits until Bob has received Alice's current epoch.
async fn epoch_is_known(bob: &LiveNode, alice: &LiveNode) {
    let (us, epoch) = (alice.peer_id(), alice.epoch());
    let mut is_known = false;
    while !is_known {
        let heard = bob.read(move |view| view.rows.peer_epochs(&us));
        is_known = heard.iter().any(|heard| heard.epoch == epoch);
        tokio::task::yield_now().await;
    }
}

fn assert_read_only(node: &LiveNode) {
    assert_eq!(node.write_mode(), WriteMode::ReadOnly);
    let made = node.make("rides", 1, ride("Chur", 2));
    assert!(matches!(made, Err(SaveError::ReadOnly)), "{made:?}");
    let identity = node.identity;
    let renamed = node.graph(move |graph| graph.save_identity(identity, Some("Al")));
    assert!(matches!(renamed, Err(SaveError::ReadOnly)));
    let signed = node.graph(move |graph| graph.resign_some(&identity, 1));
    assert!(matches!(signed, Err(SaveError::ReadOnly)));
}

#[tokio::test]
async fn original_that_reconnects_after_its_restored_copy_is_read_only_until_resolved() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let (restored, old) = restored_and_old(&net, &bob).await;
    restored.meet(&bob).await;
    epoch_is_known(&bob, &restored).await;
    restored.wait_for(WriteMode::ReadWrite).await;
    restored.make("rides", 1, ride("Davos", 2)).unwrap();
    bob.pull_everything(&restored).await;
    let (other_epoch, stored) = (restored.epoch(), restored.stored_objects().len());
    restored.stop().await;

    assert_eq!(
        old.write_mode(),
        WriteMode::ReadWrite,
        "no peer has reported the other epoch yet"
    );
    old.meet(&bob).await;
    old.wait_for(WriteMode::ReadOnly).await;
    assert_read_only(&old);
    let row = old.read(|view| view.rows.write_mode()).unwrap();
    assert_eq!(
        (row.foreign_epoch, row.reason),
        (Some(other_epoch), bob.peer_id().to_string())
    );
    let old = old.restart(&net).await;
    assert_read_only(&old);
    assert!(old.write(|core, _| core.resolve_read_only()).unwrap());
    assert_read_only(&old);
    let before = old.epoch();
    let old = old.restart(&net).await;
    assert!(
        old.epoch() != before && old.epoch() != other_epoch,
        "a third epoch"
    );
    assert_eq!(old.write_mode(), WriteMode::NewObjectsOnly);
    old.meet(&bob).await;
    old.wait_for(WriteMode::ReadWrite).await;
    // The recovery has fetched the objects of the other copy and accepted its epoch.
    assert_eq!(old.stored_objects().len(), stored);
    old.make("rides", 1, ride("Arosa", 2)).unwrap();
    let old = old.restart(&net).await;
    old.meet(&bob).await;
    epoch_is_known(&bob, &old).await;
    old.pull(&bob, "identities").await;
    assert_eq!(old.write_mode(), WriteMode::ReadWrite);
    old.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn original_that_connected_before_its_restored_copy_is_read_only_when_it_reconnects() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let (restored, old) = restored_and_old(&net, &bob).await;
    old.meet(&bob).await;
    old.make("rides", 1, ride("Davos", 2)).unwrap();
    bob.pull_everything(&old).await;
    let over = old.peers.registry().session_at(&bob.onion()).unwrap();
    // Bob keeps one session per peer: that of the later start.
    restored.meet(&bob).await;
    restored.wait_for(WriteMode::ReadWrite).await;
    epoch_is_known(&bob, &restored).await;
    over.cancelled().await;
    assert_eq!(
        restored.write_mode(),
        WriteMode::ReadWrite,
        "an earlier epoch of this node is no foreign epoch"
    );
    assert_eq!(old.write_mode(), WriteMode::ReadWrite);
    old.meet(&bob).await;
    old.wait_for(WriteMode::ReadOnly).await;
    assert_read_only(&old);
    assert_eq!(restored.stored_objects().len(), old.stored_objects().len());
    old.stop().await;
    restored.stop().await;
    bob.stop().await;
}

fn note(id: u64, epoch: Epoch, by: &KeyManager) -> EpochNote {
    let head = 1u64;
    let (key_id, signature) =
        by.sign_as_node_numbered(Context::Epoch, &[epoch.as_bytes(), &head.to_be_bytes()]);
    EpochNote {
        id,
        head,
        epoch,
        key_id,
        signature,
    }
}

async fn answer(session: &mut Session, message: &SessionMessage) -> SessionMessage {
    send(session, message).await;
    let id = match message {
        SessionMessage::Heard(note) | SessionMessage::Epoch(note) => note.id,
        other => panic!("{other:?}"),
    };
    loop {
        let reply = receive(session).await.unwrap();
        let is_reply = match &reply {
            SessionMessage::Noted(noted) => noted.id == id,
            SessionMessage::Refused(refused) => refused.id == id,
            _ => false,
        };
        if is_reply {
            return reply;
        }
    }
}

#[tokio::test]
async fn forged_epoch_note_does_not_make_a_node_read_only() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1);
    let mallory = RawClient::new(9);
    let mut session = mallory.dial(&net, &alice).await.unwrap();
    let foreign = Epoch::from_bytes([3; 16]);
    let genuine = note(1000, foreign, &alice.keys);
    let forgeries = [
        note(1001, foreign, &mallory.keys),
        // Alice's signature over another epoch.
        EpochNote {
            id: 1002,
            epoch: Epoch::from_bytes([4; 16]),
            ..genuine.clone()
        },
        EpochNote {
            id: 1003,
            key_id: 1,
            ..genuine.clone()
        },
        EpochNote {
            id: 1004,
            signature: keys::Signature::from_bytes([0x55; 64]),
            ..genuine.clone()
        },
    ];
    for forged in forgeries {
        let reply = answer(&mut session, &SessionMessage::Heard(forged)).await;
        assert!(
            matches!(&reply, SessionMessage::Refused(refused) if refused.code == "epoch"),
            "{reply:?}"
        );
    }
    let own = note(1005, alice.epoch(), &alice.keys);
    let reply = answer(&mut session, &SessionMessage::Heard(own)).await;
    assert!(matches!(reply, SessionMessage::Noted(_)), "{reply:?}");
    assert_eq!(alice.write_mode(), WriteMode::ReadWrite);
    alice.make("rides", 1, ride("Bern", 2)).unwrap();
    // Mallory cannot announce another epoch than that of the handshake.
    let other = note(1006, foreign, &mallory.keys);
    let reply = answer(&mut session, &SessionMessage::Epoch(other)).await;
    assert!(
        matches!(&reply, SessionMessage::Refused(refused) if refused.code == "epoch"),
        "{reply:?}"
    );
    // The same note under Alice's key makes her node read-only.
    let reply = answer(&mut session, &SessionMessage::Heard(genuine)).await;
    assert!(matches!(reply, SessionMessage::Noted(_)), "{reply:?}");
    assert_read_only(&alice);
    alice.stop().await;
}

#[tokio::test]
async fn epoch_note_under_a_rotated_node_key_is_noted_and_has_no_effect() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1);
    let under_the_old_key = note(1000, Epoch::from_bytes([3; 16]), &alice.keys);
    alice.rotate(alice.keys.server_oid()).unwrap();
    let mut session = RawClient::new(9).dial(&net, &alice).await.unwrap();
    let reply = answer(&mut session, &SessionMessage::Heard(under_the_old_key)).await;
    assert!(matches!(reply, SessionMessage::Noted(_)), "{reply:?}");
    assert_eq!(alice.write_mode(), WriteMode::ReadWrite);
    alice.make("rides", 1, ride("Bern", 2)).unwrap();
    alice.stop().await;
}

#[tokio::test]
async fn restored_node_recognises_its_earlier_epoch() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    // The original first: the node that listens last at an address has it.
    let (old, copy) = stopped_twice(&net, &bob).await;
    let (old, restored) = (old.live(&net), copy.live(&net));
    let earlier = old.epoch();
    old.stop().await;
    let mallory = RawClient::new(9);
    let mut session = mallory.dial(&net, &restored).await.unwrap();
    let reply = answer(
        &mut session,
        &SessionMessage::Heard(note(1000, earlier, &restored.keys)),
    )
    .await;
    assert!(matches!(reply, SessionMessage::Noted(_)), "{reply:?}");
    assert_eq!(restored.write_mode(), WriteMode::NewObjectsOnly);
    restored.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peer_that_sends_too_many_epoch_notes_is_disconnected() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1);
    let mallory = RawClient::new(9);
    let mut session = mallory.dial(&net, &alice).await.unwrap();
    for id in 1000..1032 {
        let reply = answer(
            &mut session,
            &SessionMessage::Heard(note(id, alice.epoch(), &alice.keys)),
        )
        .await;
        assert!(matches!(reply, SessionMessage::Noted(_)), "{reply:?}");
    }
    let one_more = note(1032, alice.epoch(), &alice.keys);
    send(&mut session, &SessionMessage::Heard(one_more)).await;
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    alice.stop().await;
}

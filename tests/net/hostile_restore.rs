//! A restored node requests its objects from a peer that lies: it accepts no forged object, and the
//! recovery ends.

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use harness::raw_client::{RawClient, answer_recovery, next_recovery_request, receive_bye};
use harness::{LiveNode, ride};
use keys::{Oid, SecretKey, SignedObject, codec};
use postern::object::{Object, ObjectLimits};
use postern::store::{EpochReason, WriteMode};

/// A restored node with one ride at revision 2, in recovery with a client that it knew before.
/// Returns the ride at revision 1 as well.
async fn recovering(net: &MemoryNet) -> (LiveNode, RawClient, Session, SignedObject) {
    let alice = LiveNode::start(net, "Alice", 1);
    let oid = alice.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    let older = alice.stored_objects()[&oid].signed();
    alice
        .change("rides", 1, oid, Some(ride("Biel", 2)))
        .unwrap();
    let mallory = RawClient::new(9);
    let session = mallory.dial(net, &alice).await.unwrap();
    alice.wait_for_session(&mallory.peer_id()).await;
    drop(session);
    let stopped = alice.stop().await.new_epoch(EpochReason::Restored);
    let alice = stopped.live(net);
    assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
    let session = mallory.dial(net, &alice).await.unwrap();
    (alice, mallory, session, older)
}

/// A changed object under a signature that is not its owner's.
fn forged(from: &SignedObject, change: impl FnOnce(&mut Object)) -> SignedObject {
    let mut object = Object::from_bytes(from.bytes(), &ObjectLimits::default()).unwrap();
    change(&mut object);
    SignedObject::sign(0, &SecretKey::from_seed(&[0x66; 32]), object.to_bytes())
}

#[tokio::test]
async fn recovery_ignores_forged_foreign_and_older_objects() {
    let net = MemoryNet::new();
    let (alice, mallory, mut session, older) = recovering(&net).await;
    let before = alice.stored_objects();
    let foreign = mallory.keys.server_oid();
    let as_itself = |change: &dyn Fn(&mut Object)| {
        let mut object = Object::from_bytes(older.bytes(), &ObjectLimits::default()).unwrap();
        change(&mut object);
        mallory
            .keys
            .sign_object(foreign, object.to_bytes())
            .unwrap()
    };
    let objects = vec![
        forged(&older, |object| object.rev = 9),
        forged(&older, |object| object.oid = Oid::from_bytes([7; 16])),
        forged(&older, |object| object.attrs = None),
        as_itself(&|object| object.owner = foreign),
        as_itself(&|object| object.rev = 7),
        // Signed by the owner under another key than the one of this number.
        SignedObject::from_parts(1, older.bytes().to_vec(), *older.signature()),
        SignedObject::from_parts(0, vec![0xff, 0x00], *older.signature()),
        older.clone(),
    ];
    let first = next_recovery_request(&mut session).await.unwrap();
    assert_eq!(first.domain, "identities", "identities are requested first");
    answer_recovery(&mut session, &first, codec::encode(&objects), None).await;
    let mut asked = vec![first.domain];
    while asked.len() < 2 {
        let ask = next_recovery_request(&mut session).await.unwrap();
        answer_recovery(&mut session, &ask, codec::encode(&objects), None).await;
        asked.push(ask.domain);
    }
    assert_eq!(asked, ["identities", "rides.offers"]);
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(alice.stored_objects(), before);
    alice.stop().await;
}

#[tokio::test]
async fn recovery_stores_no_forged_tombstone() {
    let net = MemoryNet::new();
    let (alice, _, mut session, older) = recovering(&net).await;
    let fresh = alice.make("rides", 1, ride("Chur", 2)).unwrap().oid;
    let gone = Oid::from_bytes([7; 16]);
    let deletions = vec![
        forged(&older, |object| (object.oid, object.attrs) = (gone, None)),
        forged(&older, |object| {
            (object.oid, object.rev, object.attrs) = (fresh, 2, None)
        }),
    ];
    let ask = next_recovery_request(&mut session).await.unwrap();
    answer_recovery(&mut session, &ask, codec::encode(&deletions), None).await;
    // The next request shows that the reply was processed.
    next_recovery_request(&mut session).await.unwrap();
    let stored = alice.stored_objects();
    assert!(!stored.contains_key(&gone) && !stored[&fresh].is_deleted);
    assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
    alice.stop().await;
}

#[tokio::test]
async fn malformed_recovery_reply_ends_the_session() {
    for body in [
        vec![],
        vec![0xff; 40],
        codec::encode(&1_u8),
        // An array whose length exceeds its content.
        vec![0x9a, 0x7f, 0xff, 0xff, 0xff],
    ] {
        let net = MemoryNet::new();
        let (alice, _, mut session, _) = recovering(&net).await;
        let before = alice.stored_objects();
        let ask = next_recovery_request(&mut session).await.unwrap();
        answer_recovery(&mut session, &ask, body, None).await;
        assert_eq!(receive_bye(&mut session).await, "misbehaviour");
        assert_eq!(alice.stored_objects(), before);
        assert_eq!(
            alice.write_mode(),
            WriteMode::NewObjectsOnly,
            "this peer still counts as not asked"
        );
        alice.stop().await;
    }
}

#[tokio::test]
async fn recovery_reply_that_makes_no_progress_ends_the_session() {
    for (first, second) in [(5, 5), (5, 4), (5, 0)] {
        let net = MemoryNet::new();
        let (alice, _, mut session, _) = recovering(&net).await;
        for number in [first, second] {
            let ask = next_recovery_request(&mut session).await.unwrap();
            let nothing = codec::encode(&Vec::<SignedObject>::new());
            answer_recovery(
                &mut session,
                &ask,
                nothing,
                Some(Oid::from_bytes([number; 16])),
            )
            .await;
        }
        assert_eq!(receive_bye(&mut session).await, "misbehaviour");
        assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
        alice.stop().await;
    }
}

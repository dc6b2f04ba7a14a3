//! A node that was restored asks a peer that lies: nothing wrong is taken, and nothing goes on for ever.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/held.rs"]
mod held;
#[path = "common/live.rs"]
mod live;
#[path = "common/stranger.rs"]
mod stranger;

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use held::{held, ride};
use keys::{Oid, SecretKey, SignedObject, codec};
use live::{ALL_APPS, LiveNode, Setup, by_hand};
use postern::object::{Object, ObjectLimits};
use postern::store::{EpochReason, WriteMode};
use stranger::{Stranger, give_back, goodbye, next_return};

const RIDE: (&str, u16) = ("rides", 1);

/// A node with one ride of revision 2, which knows the stranger, was restored and asks it. With the ride's revision 1.
async fn asking(net: &MemoryNet) -> (LiveNode, Stranger, Session, SignedObject) {
    let alice = LiveNode::start(net, "Alice", 1, &ALL_APPS, by_hand()).await;
    let oid = alice.save(RIDE, None, ride("Bern")).await.unwrap().oid;
    let older = held(&alice).await[&oid].signed();
    alice.save(RIDE, Some(oid), ride("Biel")).await.unwrap();
    let mallory = Stranger::new(9);
    let session = mallory.dial(net, &alice).await.unwrap();
    alice.wait_for_session(&mallory.peer_id()).await;
    drop(session);
    let (keys, identity, clock) = (alice.keys.clone(), alice.identity, alice.clock.clone());
    let setup = Setup {
        start: 1,
        folder: alice.stop_and_keep().await,
        ..Setup::new(by_hand())
    };
    let begins = Some(EpochReason::Restored);
    let alice = LiveNode::over(net, (1, keys, identity), &ALL_APPS, (setup, clock), begins);
    assert_eq!(alice.write_mode().await, WriteMode::NewObjectsOnly);
    let session = mallory.dial(net, &alice).await.unwrap();
    (alice, mallory, session, older)
}

/// Somebody's object with other values, or another oid, under a signature that is not its owner's.
fn forged(from: &SignedObject, change: impl FnOnce(&mut Object)) -> SignedObject {
    let mut object = Object::from_bytes(from.bytes(), &ObjectLimits::default()).unwrap();
    change(&mut object);
    SignedObject::sign(0, &SecretKey::from_seed(&[0x66; 32]), object.to_bytes())
}

#[tokio::test]
async fn forged_foreign_and_older_objects_change_nothing() {
    let net = MemoryNet::new();
    let (alice, mallory, mut session, older) = asking(&net).await;
    let before = held(&alice).await;
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
        // Signed by her, and not by the key whose number stands beside it.
        SignedObject::from_parts(1, older.bytes().to_vec(), *older.signature()),
        SignedObject::from_parts(0, vec![0xff, 0x00], *older.signature()),
        older.clone(),
    ];
    let first = next_return(&mut session).await.unwrap();
    assert_eq!(
        first.domain, "identities",
        "who may sign is asked for first"
    );
    give_back(&mut session, &first, codec::encode(&objects), None).await;
    let mut asked = vec![first.domain];
    while asked.len() < 2 {
        let ask = next_return(&mut session).await.unwrap();
        give_back(&mut session, &ask, codec::encode(&objects), None).await;
        asked.push(ask.domain);
    }
    assert_eq!(asked, ["identities", "rides.offers"]);
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(held(&alice).await, before);
    alice.stop().await;
}

#[tokio::test]
async fn a_deletion_that_she_did_not_sign_is_not_kept_for_later() {
    let net = MemoryNet::new();
    let (alice, _, mut session, older) = asking(&net).await;
    let fresh = alice.save(RIDE, None, ride("Chur")).await.unwrap().oid;
    let gone = Oid::from_bytes([7; 16]);
    let deletions = vec![
        forged(&older, |object| (object.oid, object.attrs) = (gone, None)),
        forged(&older, |object| {
            (object.oid, object.rev, object.attrs) = (fresh, 2, None)
        }),
    ];
    let ask = next_return(&mut session).await.unwrap();
    give_back(&mut session, &ask, codec::encode(&deletions), None).await;
    // The next question says that the answer was taken.
    next_return(&mut session).await.unwrap();
    assert_eq!(
        alice
            .read(move |view| view.rows.kept_tombstone(&gone))
            .await,
        None
    );
    assert!(!held(&alice).await[&fresh].deleted);
    assert_eq!(alice.write_mode().await, WriteMode::NewObjectsOnly);
    alice.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_no_list_of_objects_ends_the_session() {
    for body in [
        vec![],
        vec![0xff; 40],
        codec::encode(&1_u8),
        // An array that says it is longer than it is.
        vec![0x9a, 0x7f, 0xff, 0xff, 0xff],
    ] {
        let net = MemoryNet::new();
        let (alice, _, mut session, _) = asking(&net).await;
        let before = held(&alice).await;
        let ask = next_return(&mut session).await.unwrap();
        give_back(&mut session, &ask, body, None).await;
        assert_eq!(goodbye(&mut session).await, "misbehaviour");
        assert_eq!(held(&alice).await, before);
        assert_eq!(
            alice.write_mode().await,
            WriteMode::NewObjectsOnly,
            "it was not asked to the end"
        );
        alice.stop().await;
    }
}

#[tokio::test]
async fn answers_that_go_back_or_stand_still_end_the_session() {
    for (first, second) in [(5, 5), (5, 4), (5, 0)] {
        let net = MemoryNet::new();
        let (alice, _, mut session, _) = asking(&net).await;
        for number in [first, second] {
            let ask = next_return(&mut session).await.unwrap();
            let nothing = codec::encode(&Vec::<SignedObject>::new());
            give_back(
                &mut session,
                &ask,
                nothing,
                Some(Oid::from_bytes([number; 16])),
            )
            .await;
        }
        assert_eq!(goodbye(&mut session).await, "misbehaviour");
        assert_eq!(alice.write_mode().await, WriteMode::NewObjectsOnly);
        alice.stop().await;
    }
}

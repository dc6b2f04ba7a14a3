//! Tests of the messages of a session: every kind round-trips, and limits hold.

use super::*;
use proptest::prelude::*;

fn check(message: SessionMessage) {
    assert_eq!(SessionMessage::decode(&message.encode()), Ok(message));
}

#[test]
fn every_message_round_trips() {
    let (epoch, peer_id) = (Epoch::from_bytes([1; 16]), PeerId::from_bytes([2; 32]));
    let pull = Pull {
        id: 1,
        again: None,
        epoch: Some(epoch),
        domain: "messages".into(),
        wait_s: 30,
        peer_id,
        last_seq: 1432,
    };
    for again in [
        vec![],
        vec![Oid::from_bytes([1; 16]), Oid::from_bytes([2; 16])],
    ] {
        check(SessionMessage::Pull(Pull {
            epoch: None,
            again: Some(again),
            ..pull.clone()
        }));
    }
    check(SessionMessage::Pull(pull));
    check(SessionMessage::Package(PackageBody {
        id: 1,
        body: vec![1, 2, 3],
    }));
    check(SessionMessage::UpToDate(UpToDate {
        id: 1,
        epoch,
        last_seq: 7,
    }));
    check(SessionMessage::Push(PackageBody {
        id: 1,
        body: vec![],
    }));
    check(SessionMessage::Ack(UpToDate {
        id: 1,
        epoch,
        last_seq: 7,
    }));
    check(SessionMessage::Refused(RequestRefusal {
        id: 1,
        code: "gap".into(),
        last_seq: Some(9),
    }));
    let note = EpochNote {
        id: 1,
        head: 9,
        epoch,
        key_id: 3,
        signature: Signature::from_bytes([4; 64]),
    };
    check(SessionMessage::Epoch(note.clone()));
    check(SessionMessage::Heard(note));
    check(SessionMessage::Noted(IdOnly { id: 1 }));
    for oid in [None, Some(Oid::from_bytes([5; 16]))] {
        check(SessionMessage::Reclaim(ReclaimRequest {
            id: 1,
            after: oid,
            domain: "messages".into(),
        }));
        let object = SignedObject::from_parts(2, vec![0x80], Signature::from_bytes([4; 64]));
        let batch = ReclaimedBatch {
            id: 1,
            body: codec::encode(&vec![object.clone(), object.clone()]),
            next: oid,
        };
        assert_eq!(batch.objects().unwrap(), [object.clone(), object]);
        check(SessionMessage::Reclaimed(batch));
    }
    check(SessionMessage::Unchanged(IdOnly { id: 1 }));
    check(SessionMessage::Ping(IdOnly { id: 1 }));
    check(SessionMessage::Pong(IdOnly { id: 1 }));
    check(SessionMessage::Bye(Bye {
        code: "shutdown".into(),
    }));
}

#[test]
fn refuses_scopes_that_are_too_many_repeated_or_unsorted() {
    let scope = |number: u16| {
        let mut oid = [0; 16];
        oid[..2].copy_from_slice(&number.to_be_bytes());
        Oid::from_bytes(oid)
    };
    let decoded = |again: Vec<Oid>| {
        let pull = SessionMessage::Pull(Pull {
            id: 1,
            again: Some(again),
            epoch: None,
            domain: "messages".into(),
            wait_s: 0,
            peer_id: PeerId::from_bytes([2; 32]),
            last_seq: 0,
        });
        SessionMessage::decode(&pull.encode())
    };
    assert!(decoded((0..1024).map(scope).collect()).is_ok());
    assert!(decoded((0..1025).map(scope).collect()).is_err());
    assert!(decoded(vec![scope(1), scope(1)]).is_err());
    assert!(decoded(vec![scope(2), scope(1)]).is_err());
}

#[test]
fn refuses_long_codes_and_long_frames() {
    let bye = |code: &str| SessionMessage::Bye(Bye { code: code.into() }).encode();
    assert!(SessionMessage::decode(&bye(&"x".repeat(65))).is_err());
    assert!(SessionMessage::decode(&bye("new\nline")).is_err());
    let package = SessionMessage::Package(PackageBody {
        id: 1,
        body: vec![0; PackageLimits::PROTOCOL.bytes_max + 65],
    })
    .encode();
    assert!(matches!(
        SessionMessage::decode(&package),
        Err(Malformed::TooLong(_))
    ));
}

proptest! {
    #[test]
    fn decode_never_panics(frame: Vec<u8>) {
        let _ = SessionMessage::decode(&frame);
    }
}

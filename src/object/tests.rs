//! Objects as bytes, and their oids.

use proptest::prelude::*;

use super::*;

fn object(attrs: Option<Attrs>) -> Object {
    let parts = OidParts {
        owner: &Oid::from_bytes([2; 16]),
        app: "messages",
        type_number: 2,
        place: &Place::In(Oid::from_bytes([3; 16])),
    };
    Object {
        attrs,
        ..Object::create(&parts, 1_700_000_000_000, [4; 8])
    }
}

#[test]
fn message_encodes_with_56_bytes_of_overhead() {
    let conversation = Oid::from_bytes([3; 16]);
    let attrs = Attrs::from([
        (1, vec![Value::from(&conversation)]),
        (2, vec![Value::from("Hi")]),
        (3, vec![Value::from(1_700_000_000_000)]),
    ]);
    let bytes = object(Some(attrs)).to_bytes();
    // Oid, owner and conversation (16 bytes each), the body (2), salt (9), the conversation again
    // as the place (17), and 30 bytes of encoding.
    assert_eq!(bytes.len(), 3 * 16 + 2 + 9 + 17 + 30);
}

#[test]
fn deleted_object_round_trips_without_values() {
    let deleted = object(None);
    assert_eq!(
        Object::from_bytes(&deleted.to_bytes(), &ObjectLimits::default()).unwrap(),
        deleted
    );
}

#[test]
fn refuses_an_array_of_one_value_as_not_canonical() {
    let one = codec::encode(&(
        "messages",
        2,
        Oid::from_bytes([1; 16]),
        Oid::from_bytes([2; 16]),
        1,
        BTreeMap::from([(1, vec![5])]),
    ));
    assert!(matches!(
        Object::from_bytes(&one, &ObjectLimits::default()),
        Err(Malformed::NotCanonical(_))
    ));
}

#[test]
fn refuses_objects_beyond_the_limits() {
    let many = object(Some(Attrs::from([(1, vec![Value::Integer(0); 300])])));
    let limits = ObjectLimits {
        bytes_max: 1024,
        attrs_max: 8,
    };
    assert_eq!(
        Object::from_bytes(&many.to_bytes(), &limits),
        Err(Malformed::TooManyItems)
    );
    let long = object(Some(Attrs::from([(1, vec![Value::Bytes(vec![0; 2000])])])));
    assert!(matches!(
        Object::from_bytes(&long.to_bytes(), &limits),
        Err(Malformed::TooLong(_))
    ));
}

#[test]
fn debug_output_redacts_values() {
    let secret = object(Some(Attrs::from([(2, vec![Value::from("hush")])])));
    assert!(!format!("{secret:?}").contains("hush"));
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        ".{0,20}".prop_map(Value::Text),
        any::<i64>().prop_map(Value::Integer),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ]
}

fn any_place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Public),
        any::<[u8; 16]>().prop_map(|oid| Place::In(Oid::from_bytes(oid))),
        any::<[u8; 32]>().prop_map(|list| Place::Founds(Digest::from_bytes(list))),
    ]
}

fn any_proof() -> impl Strategy<Value = OidProof> {
    prop_oneof![
        Just(OidProof::Genesis),
        (any::<Salt>(), any_place()).prop_map(|(salt, place)| OidProof::Bound { salt, place }),
    ]
}

#[test]
fn oid_covers_owner_app_type_place_time_and_salt() {
    let made = object(None);
    assert_eq!(made.is_oid_proved(), Some(true));
    let mut later = *made.oid.as_bytes();
    later[5] ^= 1;
    let bound = |salt, place| OidProof::Bound { salt, place };
    let place = made.place();
    for changed in [
        Object {
            owner: Oid::from_bytes([9; 16]),
            ..made.clone()
        },
        Object {
            app: "message".into(),
            ..made.clone()
        },
        Object {
            type_number: 1,
            ..made.clone()
        },
        Object {
            oid: Oid::from_bytes(later),
            ..made.clone()
        },
        Object {
            proof: bound([5; 8], place),
            ..made.clone()
        },
        Object {
            proof: bound([4; 8], Place::Public),
            ..made.clone()
        },
    ] {
        assert_eq!(changed.is_oid_proved(), Some(false), "{changed:?}");
    }
    let edited = Object {
        rev: 2,
        attrs: Some(Attrs::new()),
        ..made.clone()
    };
    assert_eq!(edited.is_oid_proved(), Some(true), "content is free");
    let identity = Object {
        proof: OidProof::Genesis,
        ..made
    };
    assert_eq!(identity.is_oid_proved(), None);
}

#[test]
fn oids_sort_by_time() {
    let parts = OidParts {
        owner: &Oid::from_bytes([2; 16]),
        app: "messages",
        type_number: 2,
        place: &Place::Public,
    };
    let at = |unix_ms, salt| parts.oid(unix_ms, &[salt; 8]);
    assert!((0..50).all(|salt| at(1_700_000_000_000, salt) < at(1_700_000_000_001, salt ^ 1)));
}

#[test]
fn digest_of_a_rights_list_ignores_the_order_of_its_entries() {
    let entry = |byte, rights| (Oid::from_bytes([byte; 16]), rights);
    let (one, other) = (entry(1, Rights::READ), entry(2, Rights::READ_WRITE));
    let list = RightsList::from_iter([one, other]);
    assert_eq!(list.digest(), RightsList::from_iter([other, one]).digest());
    let wider = RightsList::from_iter([entry(1, Rights::READ_WRITE), other]);
    assert_ne!(list.digest(), wider.digest());
    assert_eq!(list.readers().count(), 2);
    assert_eq!(list.of(&one.0).map(Rights::may_write), Some(false));
    assert_eq!(list.of(&Oid::from_bytes([3; 16])), None);
}

#[test]
fn entries_of_a_rights_list_are_canonical() {
    let entry = |byte| (Oid::from_bytes([byte; 16]), Rights::READ_WRITE);
    let list = RightsList::from_iter((0..=255).map(entry));
    let bytes = list.to_bytes();
    assert_eq!(bytes.len(), RightsList::BYTES_MAX);
    assert_eq!(RightsList::from_bytes(&bytes), Some(list.clone()));
    let scope = Oid::from_bytes([9; 16]);
    assert_ne!(list.digest_in(&scope, 1), list.digest_in(&scope, 2));
    assert_ne!(list.digest_in(&scope, 1), list.digest_in(&entry(1).0, 1));
    assert_ne!(list.digest_in(&scope, 1), list.digest());
    let mut longer = list;
    longer.set(Oid::from_bytes([200; 16]), None);
    longer.set(Oid::from_bytes(*b"one more and yet"), Some(Rights::READ));
    longer.set(Oid::from_bytes(*b"another one more"), Some(Rights::READ));
    assert_eq!(longer.entries(), 257);
    assert_eq!(RightsList::from_bytes(&longer.to_bytes()), None);
}

#[test]
fn refuses_a_place_of_another_length() {
    let OidProof::Bound { salt, .. } = object(None).proof else {
        unreachable!("a bound object");
    };
    let (app, oid) = ("messages", Oid::from_bytes([1; 16]));
    for place in [&[][..], &[1; 15], &[1; 17], &[1; 33]] {
        let (salt, place) = (Bytes::new(&salt), Bytes::new(place));
        let bytes = codec::encode(&(app, 2, oid, oid, 1, salt, place, (), ()));
        assert!(Object::from_bytes(&bytes, &ObjectLimits::default()).is_err());
    }
}

proptest! {
    #[test]
    fn objects_round_trip_through_bytes(
        rev in 1..=i64::MAX as u64,
        type_number: u16,
        proof in any_proof(),
        rights in proptest::option::of(any::<[u8; 32]>().prop_map(Digest::from_bytes)),
        attrs in proptest::option::of(proptest::collection::btree_map(
            any::<u16>(),
            proptest::collection::vec(any_value(), 1..4),
            0..8,
        )),
    ) {
        let rights = rights.filter(|_| proof != OidProof::Genesis);
        let object = Object { rev, type_number, proof, rights, ..object(attrs) };
        let bytes = object.to_bytes();
        let back = Object::from_bytes(&bytes, &ObjectLimits::default()).unwrap();
        prop_assert_eq!(&back, &object);
        prop_assert_eq!(back.to_bytes(), bytes);
    }

    #[test]
    fn revisions_outside_the_range_are_refused(
        rev in (i64::MAX as u64 + 1)..,
    ) {
        let read = |bytes: &[u8]| Object::from_bytes(bytes, &ObjectLimits::default());
        let zero = Object { rev: 0, ..object(None) };
        prop_assert!(read(&zero.to_bytes()).is_err());
        let (last, beyond) = ((i64::MAX as u64).to_be_bytes(), rev.to_be_bytes());
        let mut bytes = Object { rev: i64::MAX as u64, ..object(None) }.to_bytes();
        prop_assert!(read(&bytes).is_ok());
        let at = bytes.windows(8).position(|window| window == last).unwrap();
        bytes[at..at + 8].copy_from_slice(&beyond);
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
        let _ = Object::from_bytes(&bytes, &ObjectLimits::default());
    }
}

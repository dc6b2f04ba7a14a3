//! Local writes: `change_seq` and `sync_flags`, access, schema, references and limits.

use postern::acl::Denied;
use postern::graph::{SaveError, WriteRequest};
use postern::object::{Attrs, Value};
use postern::schema::{SchemaViolation, identities};
use postern::state_engine::CoreLimits;

use harness::forge::oid;
use harness::pull::meet;
use harness::{Setup, TestNode, card, conversation, message, ride};

const MESSAGE: u16 = 2;

/// The `sync_flags` of an app's Parents and of its Attrs that have this `change_seq`.
fn stamps(node: &TestNode, app: &str, change_seq: u64) -> (Vec<i64>, Vec<i64>) {
    let read = |table: &str, place: usize| {
        let rows = node.rows(&format!("app_{app}_{table}"));
        let rows = rows
            .iter()
            .map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
        let rows = rows.filter(|row| row[place] == change_seq.to_string());
        rows.map(|row| row[place + 1].parse().unwrap())
            .collect::<Vec<i64>>()
    };
    (read("parent", 13), read("attr", 6))
}

#[test]
fn rows_of_one_write_share_a_change_seq_and_the_bit_of_their_domain() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 500));
    meet(&alice, &bob);
    let before = alice.head();
    let sent = alice.send(bob.identity, "Hi");
    assert_eq!(
        (sent.change_seq, alice.head()),
        (before + 1, before + 1),
        "one write takes one number"
    );
    let mask = alice.read(|view| Ok(view.rows.apps().mask("messages")));
    assert_ne!(mask, 0);
    // A conversation with two participants, and a message with three Attrs.
    assert_eq!(
        stamps(&alice, "messages", sent.change_seq),
        (vec![mask; 2], vec![mask; 5])
    );

    let second = alice.send(bob.identity, "Hi again");
    assert_eq!(
        (second.change_seq, second.conversation),
        (sent.change_seq + 1, sent.conversation)
    );
    assert_eq!(
        stamps(&alice, "messages", second.change_seq),
        (vec![mask], vec![mask; 3])
    );
}

#[test]
fn change_increments_the_revision_and_restamps_the_object() {
    let alice = TestNode::new("alice", 0);
    let made = alice.make("rides", 1, ride("Bern", 2)).unwrap();
    let changed = alice
        .change("rides", 1, made.oid, Some(ride("Bern", 1)))
        .unwrap();
    assert_eq!(
        (made.rev, changed.rev, changed.change_seq),
        (1, 2, made.change_seq + 1)
    );
    let mask = alice.read(|view| Ok(view.rows.apps().mask("rides.offers")));
    assert_eq!(
        stamps(&alice, "rides", made.change_seq),
        (vec![], vec![]),
        "no row keeps the old number"
    );
    assert_eq!(
        stamps(&alice, "rides", changed.change_seq),
        (vec![mask], vec![mask; 4])
    );
    assert_eq!(
        alice.object("rides", made.oid).unwrap().0.attrs,
        Some(ride("Bern", 1))
    );
}

#[test]
fn deletion_removes_the_values_permanently() {
    let alice = TestNode::new("alice", 0);
    let made = alice.make("rides", 1, ride("a secret garden", 2)).unwrap();
    let deleted = alice.change("rides", 1, made.oid, None).unwrap();
    assert_eq!((deleted.oid, deleted.rev), (made.oid, 2));
    let (object, signed) = alice.object("rides", made.oid).unwrap();
    assert!(object.is_deleted());
    assert_eq!(signed.bytes(), object.to_bytes());
    assert!(!format!("{:?}", alice.dump()).contains("secret garden"));
    let back = alice.change("rides", 1, made.oid, Some(ride("Bern", 2)));
    assert!(
        matches!(back, Err(SaveError::Denied(Denied::Deleted))),
        "{back:?}"
    );
}

#[test]
fn write_requires_the_local_owner() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let made = alice.make("rides", 1, ride("Bern", 2)).unwrap();
    let before = alice.dump();
    let request = |oid, owner| WriteRequest {
        app: "rides".into(),
        type_number: 1,
        oid,
        owner,
        attrs: Some(ride("Basel", 9)),
    };
    // Alice's node knows Bob, who is not local.
    let as_bob = alice.context(bob.identity, "rides");
    let remote = alice.save_as(as_bob.clone(), request(None, bob.identity));
    assert!(
        matches!(remote, Err(SaveError::Denied(Denied::OwnerNotHere))),
        "{remote:?}"
    );
    let over_hers = alice.save_as(as_bob, request(Some(made.oid), alice.identity));
    assert!(
        matches!(over_hers, Err(SaveError::Denied(Denied::NotOwner))),
        "{over_hers:?}"
    );
    let in_his_name = alice.save(request(None, bob.identity));
    assert!(
        matches!(in_his_name, Err(SaveError::Denied(Denied::NotOwner))),
        "{in_his_name:?}"
    );
    assert_eq!(alice.dump(), before);
}

#[test]
fn identity_cannot_take_over_an_object_of_another_local_identity() {
    let alice = TestNode::new("alice", 0);
    let made = alice.make("rides", 1, ride("Bern", 2)).unwrap();
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    use rand::SeedableRng as _;
    let carol = alice.keys.add_identity(&mut rng).unwrap();
    alice
        .graph(move |graph| postern::services::identities::publish(graph, carol, Some("carol")))
        .unwrap();
    let context = alice.context(carol, "rides");
    let request = WriteRequest {
        app: "rides".into(),
        type_number: 1,
        oid: Some(made.oid),
        owner: carol,
        attrs: Some(ride("x", 1)),
    };
    let taken = alice.save_as(context, request);
    assert!(
        matches!(taken, Err(SaveError::Denied(Denied::OwnerChanged))),
        "{taken:?}"
    );
}

#[test]
fn message_requires_a_participant_of_its_conversation() {
    let (alice, bob, carol) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 0),
        TestNode::new("carol", 0),
    );
    meet(&alice, &bob);
    meet(&alice, &carol);
    let remote = alice.make("messages", 1, conversation(&[bob.identity, carol.identity]));
    assert!(
        matches!(remote, Err(SaveError::Denied(Denied::NotParticipant))),
        "{remote:?}"
    );

    meet(&bob, &carol);
    let begun = bob
        .make("messages", 1, conversation(&[bob.identity, carol.identity]))
        .unwrap();
    assert_eq!(
        alice.pull(&bob, "messages").objects,
        0,
        "objects without read access are not sent"
    );
    let unseen = alice.make("messages", MESSAGE, message(begun.oid, "let me in"));
    assert!(
        matches!(unseen, Err(SaveError::Missing(missing)) if missing == begun.oid),
        "{unseen:?}"
    );
}

#[test]
fn write_that_violates_the_schema_changes_nothing() {
    let alice = TestNode::new("alice", 0);
    let before = alice.dump();
    let refused = |attrs: Attrs| match alice.make("rides", 1, attrs) {
        Err(SaveError::Schema(violation)) => violation,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(Attrs::from([(99, vec![Value::from("x")])])),
        SchemaViolation::UnknownAttr(99)
    );
    assert!(matches!(
        refused(Attrs::new()),
        SchemaViolation::Count { .. }
    ));
    let mut attrs = ride("Bern", 2);
    attrs.insert(4, vec![Value::from("two")]);
    assert!(matches!(refused(attrs), SchemaViolation::Kind { .. }));
    assert!(matches!(
        refused(ride(&"x".repeat(201), 2)),
        SchemaViolation::TooLong { .. }
    ));
    assert!(matches!(
        alice.make("rides", 9, ride("Bern", 2)),
        Err(SaveError::UnknownType)
    ));
    assert_eq!(alice.dump(), before);
}

#[test]
fn reference_requires_a_live_parent_of_the_right_type() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let sent = alice.send(bob.identity, "Hi");
    let missing = alice.make("messages", MESSAGE, message(oid(9), "into the void"));
    assert!(
        matches!(missing, Err(SaveError::Missing(gone)) if gone == oid(9)),
        "{missing:?}"
    );
    let wrong = alice.make("messages", MESSAGE, message(sent.oid, "under a message"));
    assert!(matches!(wrong, Err(SaveError::WrongReference)), "{wrong:?}");
}

#[test]
fn update_cannot_move_an_object_to_other_readers() {
    let (alice, bob, carol) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 0),
        TestNode::new("carol", 0),
    );
    meet(&alice, &bob);
    meet(&alice, &carol);
    let made = alice
        .make("contacts", 1, card(bob.identity, "Bob"))
        .unwrap();
    let moved = alice.change("contacts", 1, made.oid, Some(card(carol.identity, "Bob")));
    assert!(matches!(moved, Err(SaveError::ScopeChanged)), "{moved:?}");
    alice
        .change("contacts", 1, made.oid, Some(card(bob.identity, "Robert")))
        .unwrap();
    let begun = alice
        .make("messages", 1, conversation(&[alice.identity, bob.identity]))
        .unwrap();
    let grown = conversation(&[alice.identity, bob.identity, carol.identity]);
    let grown = alice.change("messages", 1, begun.oid, Some(grown));
    assert!(matches!(grown, Err(SaveError::ScopeChanged)), "{grown:?}");
}

#[test]
fn unlisted_identity_has_no_sync_flags() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    let listed = alice.parent("identities", alice.identity).unwrap();
    let mask = alice.read(|view| Ok(view.rows.apps().mask("identities")));
    assert_eq!(listed.sync_flags, mask);
    let (object, _) = alice.object("identities", alice.identity).unwrap();
    let mut attrs = object.attrs.unwrap();
    attrs.insert(identities::LISTED, vec![Value::from(0)]);
    alice
        .change(
            "identities",
            identities::IDENTITY,
            alice.identity,
            Some(attrs.clone()),
        )
        .unwrap();
    assert_eq!(
        alice
            .parent("identities", alice.identity)
            .unwrap()
            .sync_flags,
        0
    );
    meet(&alice, &bob);
    bob.pull_everything(&alice);
    assert_eq!(bob.parent("identities", alice.identity), None);

    attrs.insert(identities::LISTED, vec![Value::from(1)]);
    alice
        .change(
            "identities",
            identities::IDENTITY,
            alice.identity,
            Some(attrs),
        )
        .unwrap();
    bob.pull_everything(&alice);
    assert!(bob.parent("identities", alice.identity).is_some());
}

#[test]
fn only_zero_unlists() {
    let alice = TestNode::new("alice", 0);
    let (object, _) = alice.object("identities", alice.identity).unwrap();
    let mut attrs = object.attrs.unwrap();
    assert!(!attrs.contains_key(&identities::LISTED));
    let mut is_listed = |listed: Option<i64>| {
        attrs.remove(&identities::LISTED);
        let value = listed.map(|listed| vec![Value::from(listed)]);
        attrs.extend(value.map(|value| (identities::LISTED, value)));
        let (type_number, identity) = (identities::IDENTITY, alice.identity);
        let changed = alice.change("identities", type_number, identity, Some(attrs.clone()));
        changed.unwrap();
        alice.parent("identities", identity).unwrap().sync_flags != 0
    };
    for listed in [Some(1), Some(2), Some(-1), Some(i64::MIN), None] {
        assert!(is_listed(listed), "{listed:?}");
        assert!(!is_listed(Some(0)), "after {listed:?}");
    }
}

#[test]
fn plain_write_cannot_break_or_delete_an_identity() {
    let alice = TestNode::new("alice", 0);
    let before = alice.dump();
    let (object, _) = alice.object("identities", alice.identity).unwrap();
    let mut attrs = object.attrs.unwrap();
    attrs.insert(identities::HOME, vec![Value::Bytes(vec![0x80])]);
    let broken = alice.change(
        "identities",
        identities::IDENTITY,
        alice.identity,
        Some(attrs.clone()),
    );
    assert!(matches!(broken, Err(SaveError::Record(_))), "{broken:?}");
    let deleted = alice.change("identities", identities::IDENTITY, alice.identity, None);
    assert!(matches!(deleted, Err(SaveError::Record(_))), "{deleted:?}");
    let invented = alice.make("identities", identities::IDENTITY, attrs);
    assert!(
        matches!(invented, Err(SaveError::Record(_))),
        "{invented:?}"
    );
    assert_eq!(alice.dump(), before);
}

#[test]
fn server_identities_are_never_exported() {
    let (alice, bob, carol) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 0),
        TestNode::new("carol", 0),
    );
    meet(&alice, &bob);
    meet(&bob, &carol);
    carol.pull_everything(&bob);
    assert!(bob.parent("identities", alice.keys.server_oid()).is_some());
    assert!(
        carol.parent("identities", bob.keys.server_oid()).is_some(),
        "by the handshake"
    );
    assert_eq!(carol.parent("identities", alice.keys.server_oid()), None);
    assert_eq!(
        bob.parent("identities", bob.keys.server_oid())
            .unwrap()
            .sync_flags,
        0
    );
}

#[test]
fn local_write_enforces_the_object_limits() {
    let mut limits = CoreLimits::default();
    limits.graph.object.bytes_max = 10_000;
    limits.graph.object.attrs_max = 20;
    let alice = Setup::new("alice").limits(limits).node();
    let long = alice.make("market", 1, {
        let mut attrs = harness::offer("a bike");
        attrs.insert(2, vec![Value::from("x".repeat(8000).as_str())]);
        attrs
    });
    long.unwrap();
    let participants: Vec<_> = (1..=20).map(oid).chain([alice.identity]).collect();
    let many = alice.make("messages", 1, conversation(&participants));
    assert!(
        matches!(many, Err(SaveError::TooManyAttrs(21, 20))),
        "{many:?}"
    );
    let begun = alice
        .make("messages", 1, conversation(&[alice.identity, oid(1)]))
        .unwrap();
    let long = alice.make("messages", MESSAGE, message(begun.oid, &"x".repeat(12_000)));
    assert!(
        matches!(long, Err(SaveError::TooLong(bytes, 10_000)) if bytes > 12_000),
        "{long:?}"
    );
}

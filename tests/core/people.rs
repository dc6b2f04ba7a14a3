//! The address book, the identity that a person names, and what of both leaves the node.

use harness::forge::oid;
use harness::pull::{meet, package_bytes};
use harness::{TestNode, conversation};
use keys::Oid;
use postern::services::contacts::{self, CONTACTS_MAX, ContactError, ContactNote, Naming};
use postern::services::identities::{self, IdentityError};
use postern::services::people::{self, FindError};
use postern::state_engine::PullReply;
use postern::store::{EpochReason, StoreError};

fn note(text: &str) -> ContactNote {
    ContactNote::new(text.to_owned()).unwrap()
}

fn add(node: &TestNode, identity: Oid, name: &str) -> Result<(), ContactError> {
    let name = name.to_owned();
    node.graph(move |graph| contacts::add(graph, identity, &name, &note("a note")))
}

fn find(node: &TestNode, who: &str, only_local: bool) -> Result<Oid, FindError> {
    let who = who.to_owned();
    let found = node.read(move |view| {
        let this_node = view.this_node();
        Ok(people::find(&view.rows, &this_node, &who, only_local))
    });
    found.map(|person| person.oid)
}

fn rename(node: &TestNode, identity: Oid, name: Option<&str>) -> Result<(), IdentityError> {
    let name = name.map(str::to_owned);
    node.graph(move |graph| identities::rename(graph, identity, name.as_deref()).map(drop))
}

fn label(node: &TestNode, identity: Oid) -> String {
    node.read(move |view| people::person(&view.rows, &identity))
        .label()
}

fn digits(identity: Oid) -> String {
    identity.to_hex()[..12].to_owned()
}

#[test]
fn petname_is_unique_in_its_folded_form() {
    let alice = TestNode::new("alice", 0);
    let (bob, eve) = (oid(1), oid(2));
    add(&alice, bob, "Bob").unwrap();
    for taken in ["Bob", "BOB", "Ｂｏｂ", "ALICE"] {
        let refused = add(&alice, eve, taken);
        assert!(
            matches!(refused, Err(ContactError::NameTaken { .. })),
            "{taken}: {refused:?}"
        );
    }
    let again = add(&alice, bob, "Robert");
    assert!(matches!(again, Err(ContactError::AlreadyNamed(name)) if name == "Bob"));
    for bad in ["", " ", "Bo\u{200b}b", "~Bob", "0193abcd", "Bob "] {
        let refused = add(&alice, eve, bad);
        assert!(matches!(refused, Err(ContactError::BadName(_))), "{bad:?}");
    }
    add(&alice, eve, "Bobby").unwrap();
    let changed = |name: &'static str| {
        alice.graph(move |graph| contacts::change(graph, eve, Some(name), None))
    };
    assert!(matches!(
        changed("bob"),
        Err(ContactError::NameTaken { .. })
    ));
    changed("BOBBY").unwrap();
    let row = alice.read(move |view| view.rows.contact(&eve)).unwrap();
    assert_eq!((row.name.as_str(), row.note.as_str()), ("BOBBY", "a note"));
    alice
        .graph(move |graph| contacts::remove(graph, bob))
        .unwrap();
    changed("bob").unwrap();
}

#[test]
fn note_is_bounded_and_changes_alone() {
    let alice = TestNode::new("alice", 0);
    let bob = oid(1);
    add(&alice, bob, "Bob").unwrap();
    let change = |text: &str| {
        let note = note(text);
        alice.graph(move |graph| contacts::change(graph, bob, None, Some(&note)))
    };
    let longest = "x".repeat(2000);
    for text in ["another\nnote", &longest, ""] {
        change(text).unwrap();
        let row = alice.read(move |view| view.rows.contact(&bob)).unwrap();
        assert_eq!((row.name.as_str(), row.note.as_str()), ("Bob", text));
    }
    let too_long = ContactNote::new(longest + "x");
    assert!(matches!(too_long, Err(ContactError::NoteTooLong)));
    let unnamed = alice.graph(|graph| contacts::change(graph, oid(2), None, Some(&note("x"))));
    assert!(matches!(unnamed, Err(ContactError::NotNamed(_))));
}

#[test]
fn address_book_is_bounded() {
    let alice = TestNode::new("alice", 0);
    let own = alice.identity;
    alice
        .graph(|graph| {
            // Alice has the first row.
            for number in 1..CONTACTS_MAX as u32 {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                let name = format!("contact {number}");
                contacts::add(
                    graph,
                    Oid::from_bytes(bytes),
                    &name,
                    &ContactNote::default(),
                )?;
            }
            Ok::<_, ContactError>(())
        })
        .unwrap();
    assert!(matches!(
        add(&alice, oid(9), "Bob"),
        Err(ContactError::Full)
    ));
    rename(&alice, own, Some("Alice")).unwrap();
}

#[test]
fn petname_and_oid_name_an_identity_and_a_claim_does_not() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let (identity, hex) = (bob.identity, bob.identity.to_hex());
    assert_eq!(
        label(&alice, identity),
        format!("~bob {}", digits(identity))
    );
    let as_shown = find(&alice, "~bob", false);
    assert!(matches!(as_shown, Err(FindError::OnlyClaimed { .. })));
    let Err(FindError::OnlyClaimed { claimants, .. }) = find(&alice, "BOB", false) else {
        panic!("a claim names no identity");
    };
    let listed: Vec<_> = claimants.people().iter().map(|it| it.oid).collect();
    assert_eq!(listed, [identity]);
    let shown = label(&alice, identity);
    assert_eq!(find(&alice, &shown, false).unwrap(), identity, "{shown}");
    let command = format!("postern contact add {} NAME", digits(identity));
    assert!(claimants.to_string().contains(&command), "{claimants}");
    for who in [&hex, &hex[..8], &hex.to_ascii_uppercase()[..20]] {
        assert_eq!(find(&alice, who, false).unwrap(), identity, "{who}");
    }
    for who in [&hex[..7], &format!("{hex}0"), "ffffffffffff", "Bo", "~Bo"] {
        let refused = find(&alice, who, false);
        assert!(matches!(refused, Err(FindError::Unknown { .. })), "{who}");
    }
    assert!(matches!(find(&alice, "", false), Err(FindError::Empty)));
    add(&alice, identity, "Robert").unwrap();
    assert_eq!(find(&alice, "robert", false).unwrap(), identity);
    assert_eq!(label(&alice, identity), "Robert");
    // The claim still names none, and the error says who has it here.
    let refused = find(&alice, "bob", false).unwrap_err();
    assert!(
        refused.to_string().contains("is \"Robert\" here"),
        "{refused}"
    );
    assert!(matches!(
        find(&alice, "Robert", true),
        Err(FindError::NotHere(_))
    ));
    assert_eq!(find(&alice, "alice", true).unwrap(), alice.identity);
}

#[test]
fn petname_stays_with_its_identity_when_another_claims_it() {
    let (alice, bob, eve) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 0),
        TestNode::new("eve", 0),
    );
    for other in [&alice, &eve] {
        meet(&bob, other);
    }
    add(&bob, alice.identity, "Alice").unwrap();
    rename(&eve, eve.identity, Some("Alice")).unwrap();
    rename(&alice, alice.identity, Some("Alice Smith")).unwrap();
    for other in [&alice, &eve] {
        bob.pull_all(other, "identities");
    }
    assert_eq!(find(&bob, "Alice", false).unwrap(), alice.identity);
    assert_eq!(label(&bob, alice.identity), "Alice");
    let marked = format!("~Alice {}", digits(eve.identity));
    assert_eq!(label(&bob, eve.identity), marked);
}

#[test]
fn one_node_does_not_fill_the_list_of_claimants() {
    let (alice, bob, eve) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 0),
        TestNode::new("eve", 0),
    );
    let others: Vec<_> = (1..=20)
        .map(|seed| eve.another(&format!("eve {seed}"), seed))
        .collect();
    for identity in others {
        eve.graph(move |graph| graph.save_identity(identity, Some("bob")))
            .unwrap();
    }
    meet(&alice, &bob);
    meet(&alice, &eve);
    alice.pull_all(&eve, "identities");
    let Err(FindError::OnlyClaimed { claimants, .. }) = find(&alice, "bob", false) else {
        panic!("a claim names no identity");
    };
    let oids: Vec<_> = claimants.people().iter().map(|it| it.oid).collect();
    assert_eq!(oids.len(), 8);
    assert!(oids[..2].contains(&bob.identity));
    assert!(
        claimants
            .to_string()
            .ends_with("and more: see `postern identity list`")
    );
}

#[test]
fn prefix_of_several_oids_names_none() {
    let alice = TestNode::new("alice", 0);
    for (last, name) in [(1, "one"), (2, "two")] {
        let mut bytes = [0xab; 16];
        bytes[15] = last;
        add(&alice, Oid::from_bytes(bytes), name).unwrap();
    }
    let refused = find(&alice, "abababab", false).unwrap_err();
    let FindError::Ambiguous { found, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(found.people().len(), 2);
    // A node is no identity.
    let server = alice.keys.server_oid();
    let refused = find(&alice, &server.to_hex()[..12], false);
    assert!(matches!(refused, Err(FindError::Unknown { .. })));
    assert!(matches!(
        add(&alice, server, "node"),
        Err(ContactError::Server(_))
    ));
}

#[test]
fn name_of_an_own_identity_is_its_petname() {
    let alice = TestNode::new("alice", 0);
    let own = alice.identity;
    assert_eq!(label(&alice, own), "alice");
    let anne = alice.another("Anne", 1);
    assert!(matches!(
        rename(&alice, anne, Some("Alice")),
        Err(IdentityError::Name(ContactError::NameTaken { .. }))
    ));
    let before = alice.dump();
    for bad in ["An\nne", "deadbeef", "~Anne", ""] {
        let refused = rename(&alice, anne, Some(bad));
        assert!(
            matches!(refused, Err(IdentityError::Name(ContactError::BadName(_)))),
            "{bad:?}"
        );
    }
    assert_eq!(alice.dump(), before);
    rename(&alice, anne, Some("Dora")).unwrap();
    assert_eq!(find(&alice, "dora", true).unwrap(), anne);
    assert!(find(&alice, "Anne", true).is_err());
    for refused in [
        alice.graph(move |graph| contacts::change(graph, anne, Some("x"), None)),
        alice.graph(move |graph| contacts::remove(graph, anne)),
    ] {
        assert!(
            matches!(refused, Err(ContactError::OwnIdentity(_))),
            "{refused:?}"
        );
    }
    rename(&alice, anne, None).unwrap();
    assert_eq!(label(&alice, anne), digits(anne));
    assert!(matches!(
        add(&alice, anne, "Anne"),
        Err(ContactError::OwnIdentity(_))
    ));
}

#[test]
fn returned_name_of_an_own_identity_becomes_its_petname_while_the_node_recovers() {
    let alice = TestNode::new("alice", 0);
    let (own, anne) = (alice.identity, alice.another("Anne", 1));
    let adopt = |node: &TestNode| {
        let adopted = node.graph(|graph| contacts::adopt_own_names(graph));
        adopted.unwrap();
    };
    for (identity, name) in [(own, "Alice Smith"), (anne, "alice smith")] {
        let saved = alice.graph(move |graph| graph.save_identity(identity, Some(name)));
        saved.unwrap();
    }
    adopt(&alice);
    assert_eq!(label(&alice, own), "alice", "a petname that people use");
    let restored = alice.into_setup().new_epoch(EpochReason::Restored).node();
    adopt(&restored);
    assert_eq!(label(&restored, own), "Alice Smith");
    assert_eq!(label(&restored, anne), "Anne", "the name is taken");
}

#[test]
fn name_for_a_peer_goes_to_its_only_identity() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    let peer = bob.peer_id();
    let name = |name: &'static str| {
        let naming =
            alice.graph::<_, StoreError>(move |graph| contacts::name_at_peer(graph, &peer, name));
        naming.unwrap()
    };
    assert!(matches!(name("Bob"), Naming::NoIdentity));
    meet(&alice, &bob);
    assert!(matches!(
        name("Alice"),
        Naming::Refused(ContactError::NameTaken { .. })
    ));
    for _ in 0..2 {
        assert!(matches!(name("Bob"), Naming::Named));
    }
    assert!(matches!(
        name("Robert"),
        Naming::Refused(ContactError::AlreadyNamed(_))
    ));
    bob.another("Second", 1);
    alice.pull_all(&bob, "identities");
    assert!(matches!(name("Robert"), Naming::Several));
}

#[test]
fn no_package_or_handshake_contains_a_petname_or_a_note() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let identity = bob.identity;
    alice
        .graph(move |graph| contacts::add(graph, identity, "Petnamed", &note("noted privately")))
        .unwrap();
    let own = alice.identity;
    alice
        .graph(move |graph| contacts::change(graph, own, None, Some(&note("noted privately"))))
        .unwrap();
    alice.send(bob.identity, "Hi");
    let attrs = conversation(&[alice.identity, bob.identity]);
    alice.make("messages", 1, attrs).unwrap();
    let mut sent = Vec::new();
    for domain in alice.sync_domains() {
        let reply = alice.answer(&bob.request(&alice, &domain));
        if let PullReply::Package { .. } = reply {
            sent.push(package_bytes(reply));
        }
    }
    let packages = sent.len();
    let claimed = alice.read(|view| identities::for_handshake(&view, 8));
    sent.extend(claimed.into_iter().map(|object| object.bytes().to_vec()));
    assert!(packages >= 2 && sent.len() > packages);
    let has = |needle: &str| {
        let needle = needle.as_bytes();
        sent.iter()
            .any(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
    };
    assert!(has("alice") && has("Hi"), "the search finds what is sent");
    assert!(!has("Petnamed") && !has("noted privately"));
}

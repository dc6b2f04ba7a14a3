//! Names of people on nodes that are connected over loopback.

use crate::loopback::Nodes;

#[test]
fn other_identity_with_the_name_of_a_contact_is_told_apart_and_gets_nothing() {
    let mut nodes = Nodes::start(&["Alice", "Bob", "Eve"]);
    let (alice, bob, eve) = (0, 1, 2);
    let oids = [alice, bob, eve].map(|node| nodes.identity(node));
    let eves_label = format!("~Alice {}", &oids[eve][..12]);
    let onion = nodes.onions[bob].clone();
    let added = nodes.ok(alice, &format!("peer add {onion} --as Bob"));
    assert!(added.contains("Its identities:\n  Bob\n"), "{added}");
    nodes.ok(alice, "send --from Alice --to Bob at-nine");
    // Bob compared the digits with Alice.
    nodes.until(bob, "identity list", &oids[alice]);
    nodes.ok(
        bob,
        &format!("contact add {} Alice --note friend", &oids[alice][..8]),
    );

    nodes.ok(eve, "identity rename Eve Alice");
    let added = nodes.ok(eve, &format!("peer add {onion}"));
    let command = format!("postern contact add {} NAME", &oids[bob][..12]);
    assert!(
        added.contains("~Bob") && added.contains(&command),
        "{added}"
    );
    nodes.refused(eve, "send --from Alice --to Bob at-ten", &command);
    nodes.ok(
        eve,
        &format!("send --from Alice --to {} at-ten", &oids[bob][..8]),
    );
    let inbox = nodes.until(bob, "inbox", "at-ten");
    let inbox = format!("{inbox}{}", nodes.until(bob, "inbox", "at-nine"));
    assert!(inbox.contains("] Alice: at-nine"), "{inbox}");
    assert!(
        inbox.contains(&format!("] {eves_label}: at-ten")),
        "{inbox}"
    );
    let talks = nodes.ok(bob, "conversation list");
    assert!(talks.contains(&eves_label), "{talks}");
    let peers = nodes.ok(bob, "peer list");
    let people = [
        format!("people   {eves_label}\n"),
        "people   Alice\n".to_owned(),
    ];
    assert!(people.iter().all(|line| peers.contains(line)), "{peers}");

    // Alice takes another name, so that only Eve claims this one.
    nodes.ok(alice, "identity rename Alice Smith");
    nodes.until(bob, "contact list", "(~Smith)");
    nodes.ok(bob, "send --from Bob --to Alice the-code");
    nodes.until(alice, "inbox", "the-code");
    assert!(!nodes.ok(eve, "inbox").contains("the-code"));
    nodes.refused(bob, "send --from Bob --to Smith x", "is \"Alice\" here");
}

#[test]
fn name_for_a_node_with_several_identities_names_none() {
    let nodes = Nodes::start(&["Alice", "Bob"]);
    nodes.ok(1, "identity new Second");
    let line = format!("peer add {} --as Bob", nodes.onions[1]);
    nodes.refused(0, &line, "several identities");
    let added = nodes.ok(0, &format!("peer add {}", nodes.onions[1]));
    assert!(
        added.contains("~Bob ") && added.contains("~Second "),
        "{added}"
    );
    let book = nodes.json(0, "contact list");
    assert_eq!(book["contacts"].as_array().unwrap().len(), 1, "{book}");
    nodes.refused(
        0,
        &format!("peer add {} --as ~Bob", nodes.onions[1]),
        "cannot begin with",
    );
}

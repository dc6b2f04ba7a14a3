//! Conversations across nodes that are connected over loopback.

use crate::loopback::Nodes;

/// The nodes of Alice and Carol never meet; both know Bob's.
#[test]
fn members_whose_nodes_never_meet_read_each_other() {
    let mut nodes = Nodes::start(&["Alice", "Bob", "Carol"]);
    let (alice, bob, carol) = (0, 1, 2);
    let oids = [alice, bob, carol].map(|node| nodes.identity(node));
    for (node, name) in [(alice, "Alice"), (carol, "Carol")] {
        nodes.ok(bob, &format!("peer add {} --as {name}", nodes.onions[node]));
    }
    let founded = nodes.json(
        bob,
        "conversation new --from Bob --to Alice --to Carol --title Hiking",
    );
    let talk = founded["oid"].as_str().unwrap().to_owned();
    for (node, name) in [(alice, "Alice"), (carol, "Carol")] {
        let shown = nodes.until(node, "conversation invitations", "Hiking");
        assert!(shown.contains(&format!("for {name}")), "{shown}");
        let hidden = nodes.ok(node, "conversation list");
        assert!(!hidden.contains("Hiking"), "{hidden}");
        for line in ["status", "inbox"] {
            let shown = nodes.ok(node, line);
            assert!(shown.contains("1 waits for your decision"), "{shown}");
        }
        nodes.ok(node, &format!("conversation accept {}", &talk[24..]));
        let shown = nodes.ok(node, "status");
        assert!(!shown.contains("your decision"), "{shown}");
        nodes.until(node, "conversation list", "Hiking");
    }
    nodes.ok(
        alice,
        &format!("send --conversation {talk} --from Alice who-comes"),
    );
    let inbox = nodes.until(carol, "inbox", "who-comes");
    let label = format!("~Alice {}", &oids[alice][..12]);
    assert!(inbox.contains(&format!("{label}: who-comes")), "{inbox}");
    nodes.ok(
        carol,
        &format!("send --conversation {talk} --from Carol i-come"),
    );
    nodes.until(alice, "inbox", "i-come");
    for node in [alice, carol] {
        let peers = nodes.json(node, "peer list");
        assert_eq!(peers["peers"].as_array().unwrap().len(), 1, "{peers}");
    }
}

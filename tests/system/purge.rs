//! Removing what a peer sent, with processes that are connected over loopback.

use rusqlite::{Connection, OpenFlags};

use crate::loopback::Nodes;

/// Identities that Mallory makes besides its first one.
const BOBS: usize = 9;

/// The number of rows of a query at a node.
fn count(nodes: &Nodes, node: usize, query: &str) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(nodes.database(node), flags).unwrap();
    let sql = format!("SELECT COUNT(*) FROM {query}");
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Alice's node admits Mallory's for its work alone.
#[test]
fn many_identities_of_an_untrusted_peer_go_with_everything_that_it_sent() {
    let mut nodes = Nodes::start(&["Alice", "Mallory"]);
    let (alice, mallory) = (0, 1);
    let id = nodes.identity(alice);
    for number in 1..=BOBS {
        nodes.ok(mallory, &format!("identity new Bob{number}"));
    }
    nodes.ok(mallory, &format!("peer add {}", nodes.onions[alice]));
    let last = format!("Bob{BOBS}");
    for number in 1..=BOBS {
        nodes.ok(
            mallory,
            &format!("send --from Bob{number} --to {id} buy-{number}"),
        );
    }
    nodes.until(alice, "identity list", "10 of untrusted peers");
    nodes.until(alice, "inbox", &format!("buy-{BOBS}"));
    let all = nodes.ok(alice, "identity list --untrusted");
    let json = nodes.json(alice, "identity list --untrusted");
    assert_eq!(
        json["identities"].as_array().unwrap().len(),
        all.lines().count()
    );
    assert_eq!(all.lines().count(), 1 + BOBS, "{all}");
    assert!(all.contains(&last), "{all}");
    let peers = nodes.json(alice, "peer list");
    let peer = peers["peers"][0]["peer_id"].as_str().unwrap().to_owned();
    assert_eq!(peers["peers"][0]["tier"], "untrusted");

    let banned = nodes.ok(alice, &format!("peer ban {} --purge", &peer[..8]));
    assert!(banned.contains("its session has ended"), "{banned}");
    // A record of each identity, and a conversation with a message of each Bob.
    let expected = format!("removed {} objects", 1 + BOBS + 2 * BOBS);
    assert!(banned.contains(&expected), "{banned}");
    let listed = nodes.ok(alice, "identity list");
    assert!(
        !listed.contains("untrusted") && !listed.contains("Bob"),
        "{listed}"
    );
    assert!(!nodes.ok(alice, "inbox").contains("buy-"));
    assert!(!nodes.ok(alice, "conversation list").contains("Bob"));
    for query in [
        "app_messages_parent",
        "app_messages_attr",
        "app_identities_parent WHERE origin IS NOT NULL",
        "scope WHERE id > 1",
        "reader",
        "rights_entry",
    ] {
        assert_eq!(count(&nodes, alice, query), 0, "{query}");
    }
    let status = nodes.json(alice, "status");
    assert_eq!(
        status["tiers"]["untrusted"]["stored_objects"], 0,
        "{status}"
    );
    assert_eq!(status["recovery"]["write_mode"], "read_write", "{status}");

    // The end of the ban lets everything come again.
    nodes.ok(alice, &format!("peer unban {}", &peer[..8]));
    nodes.ok(mallory, &format!("peer add {}", nodes.onions[alice]));
    nodes.until(alice, "inbox", &format!("buy-{BOBS}"));
    nodes.until(alice, "identity list", "10 of untrusted peers");
    let removed = nodes.ok(alice, &format!("peer remove {} --purge", &peer[..8]));
    assert!(removed.contains("is removed"), "{removed}");
    assert!(!nodes.ok(alice, "inbox").contains("buy-"));
}

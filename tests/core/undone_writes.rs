//! Writes that fail after they wrote rows: the next ones are sent to peers as usual.

use harness::pull::meet;
use harness::{TestNode, conversation, message};
use keys::Oid;
use postern::services::messages::{self, SendError};

/// Alice, Bob and Carol, whose node has pulled, and a conversation of Alice and Carol.
fn scene() -> (TestNode, TestNode, TestNode, Oid) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    let carol = TestNode::new("carol", 800);
    meet(&alice, &bob);
    meet(&alice, &carol);
    let three = conversation(&[alice.identity, bob.identity, carol.identity]);
    let talk = alice.make("messages", 1, three).unwrap().oid;
    alice.make("messages", 2, message(talk, "first")).unwrap();
    carol.pull_everything(&alice);
    (alice, bob, carol, talk)
}

fn has(node: &TestNode, text: &str) -> bool {
    node.texts().iter().any(|(_, it)| it == text)
}

#[test]
fn scope_that_follows_an_undone_one_reaches_its_reader() {
    let (alice, bob, carol, talk) = scene();
    let (from, to) = (alice.identity, bob.identity);
    let undone = alice.graph(move |graph| {
        messages::send(graph, from, to, "undone")?;
        Err::<(), _>(SendError::Alone)
    });
    assert!(undone.is_err());
    alice.send(carol.identity, "hello");
    carol.pull_everything(&alice);
    assert!(has(&carol, "hello"), "at once");
    // A message of another conversation moves Carol's cursor.
    alice.make("messages", 2, message(talk, "second")).unwrap();
    carol.pull_everything(&alice);
    assert!(has(&carol, "hello") && has(&carol, "second"));
}

#[test]
fn first_message_that_is_too_long_founds_no_conversation() {
    let (alice, bob, carol, _) = scene();
    let before = alice.dump();
    let (from, to) = (alice.identity, bob.identity);
    // The transaction is durable, although the message is refused.
    let refused = alice.graph(move |graph| {
        let refused = messages::send(graph, from, to, &"x".repeat(20_000));
        Ok::<_, SendError>(matches!(refused, Err(SendError::Save(_))))
    });
    assert!(refused.unwrap());
    assert_eq!(alice.dump(), before);
    alice.send(carol.identity, "hello");
    carol.pull_everything(&alice);
    assert!(has(&carol, "hello"));
}

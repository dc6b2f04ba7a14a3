//! Scopes of purged peers: which stay, which go, and which come back (docs/DECISIONS.md 10).

use harness::pull::meet;
use harness::{TestNode, conversation, message};
use keys::Oid;

use postern::store::StoreError;

use crate::purge::{asking, assert_whole, ban_and_purge};
use crate::rights::BOTH;
use crate::stubs::{Chain, MESSAGES, has};

#[test]
fn purge_of_a_relay_keeps_what_others_wrote_where_somebody_here_takes_part() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "from Alice");
    let own = chain.say(bob, "from Bob");
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    let answer = chain.say(carol, "from Carol");
    ban_and_purge(carol, bob, None);
    assert!(has(carol, said) && has(carol, answer) && has(carol, chain.talk));
    assert!(!has(carol, own));
    assert!(carol.home_of(alice.identity).is_some(), "owns an object");
    assert!(carol.home_of(bob.identity).is_some(), "is a member");
    assert_whole(carol, &[bob]);
}

#[test]
fn own_message_keeps_the_conversation_with_the_purged_peer() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    let first = mallory.send(alice.identity, "hello");
    alice.pull_everything(&mallory);
    let answer = alice
        .make(MESSAGES, 2, message(first.conversation, "hi"))
        .unwrap();
    ban_and_purge(&alice, &mallory, None);
    assert!(has(&alice, first.conversation) && has(&alice, answer.oid));
    assert!(!has(&alice, first.oid));
    assert_eq!(alice.texts(), [(alice.identity, "hi".to_owned())]);
    assert!(
        alice.home_of(mallory.identity).is_some(),
        "owns the conversation"
    );
    assert_whole(&alice, &[&mallory]);
    // A later message fails as to any banned peer's identity, and nothing is inconsistent.
    alice
        .make(MESSAGES, 2, message(first.conversation, "again"))
        .unwrap();
}

/// Alice founds a conversation of all. Bob and Dave know her and Carol, who do not know each other.
fn two_relays() -> ([TestNode; 4], Oid) {
    let nodes = [("alice", 0), ("bob", 300), ("carol", 600), ("dave", 900)];
    let [alice, bob, carol, dave] = nodes.map(|(name, id)| asking(name, id));
    for (one, other) in [
        (&alice, &bob),
        (&alice, &dave),
        (&bob, &carol),
        (&dave, &carol),
        (&bob, &dave),
    ] {
        meet(one, other);
    }
    let people = [alice.identity, bob.identity, carol.identity, dave.identity];
    let talk = alice.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    ([alice, bob, carol, dave], talk)
}

#[test]
fn relayed_scope_that_nobody_here_accepted_goes_and_comes_from_another_member() {
    let ([alice, bob, carol, dave], talk) = two_relays();
    let said = alice.make(MESSAGES, 2, message(talk, "hello")).unwrap().oid;
    alice
        .set_rights(MESSAGES, talk, &[(dave.identity, BOTH)])
        .unwrap();
    bob.relay(&alice, MESSAGES);
    dave.relay(&alice, MESSAGES);
    carol.relay(&bob, MESSAGES);
    carol.relay(&dave, MESSAGES);
    assert!(has(&carol, talk) && has(&carol, said));
    ban_and_purge(&carol, &bob, None);
    assert!(!has(&carol, talk) && !has(&carol, said));
    assert!(
        carol.home_of(alice.identity).is_none(),
        "nothing of hers is kept"
    );
    assert_whole(&carol, &[&bob]);
    assert_eq!(carol.next_again(&dave, MESSAGES).unwrap().scopes, [talk]);
    carol.relay(&dave, MESSAGES);
    assert!(has(&carol, talk) && has(&carol, said));
    assert_eq!(carol.rows("invitation").len(), 1);
    assert_whole(&carol, &[&bob, &dave]);
}

#[test]
fn removed_scope_comes_from_a_peer_that_sends_something_in_it_later() {
    let ([alice, bob, carol, dave], talk) = two_relays();
    bob.relay(&alice, MESSAGES);
    dave.relay(&alice, MESSAGES);
    carol.relay(&bob, MESSAGES);
    carol.relay(&dave, MESSAGES);
    ban_and_purge(&carol, &bob, None);
    // As if Dave's node had too many scopes to be pulled again.
    carol
        .graph::<_, StoreError>(move |graph| graph.tx().drop_pull_again(&talk))
        .unwrap();
    assert!(!has(&carol, talk) && carol.next_again(&dave, MESSAGES).is_none());
    let later = alice.make(MESSAGES, 2, message(talk, "later")).unwrap().oid;
    dave.relay(&alice, MESSAGES);
    carol.relay(&dave, MESSAGES);
    assert!(has(&carol, talk) && has(&carol, later));
    let is_wanted = |row: &String| row.ends_with(" | 2");
    assert!(!carol.rows("purged").iter().any(is_wanted));
    assert_whole(&carol, &[&bob, &dave]);
}

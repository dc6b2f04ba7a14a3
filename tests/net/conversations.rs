//! Conversations of three over sessions: late members, removed ones, and those that leave.

use bastion::transport::memory::MemoryNet;
use harness::LiveNode;
use keys::Oid;
use postern::services::messages::InboxMessage;
use postern::store::FeedCursor;

/// Each node pulls from each other one, twice: what a pull names comes with the second one.
async fn sync(nodes: &[&LiveNode]) {
    for _ in 0..2 {
        for to in nodes {
            for from in nodes {
                if to.peer_id() != from.peer_id() {
                    to.pull_everything(from).await;
                }
            }
        }
    }
}

/// The texts that an identity of a node can read, oldest first.
fn texts_of(node: &LiveNode, reader: Oid) -> Vec<String> {
    let inbox = node
        .read(move |view| {
            postern::services::messages::inbox(&view, &reader, FeedCursor::default(), 1000)
        })
        .messages;
    inbox
        .into_iter()
        .map(|InboxMessage { body, .. }| body)
        .collect()
}

async fn stop(nodes: impl IntoIterator<Item = LiveNode>) {
    for node in nodes {
        assert_eq!(node.rejects(), [""; 0]);
        node.stop().await;
    }
}

#[tokio::test]
async fn three_members_on_two_nodes_get_a_fourth_and_lose_one() {
    let net = MemoryNet::new();
    let (alice, bob) = (
        LiveNode::start(&net, "Alice", 1),
        LiveNode::start(&net, "Bob", 2),
    );
    bob.meet(&alice).await;
    let (dora, eve) = (bob.another("Dora", 11), bob.another("Eve", 12));
    sync(&[&alice, &bob]).await;
    let talk = alice.found(&[bob.identity, dora], "Hiking");
    alice.say(talk, "one").unwrap();
    sync(&[&alice, &bob]).await;
    bob.say(talk, "two").unwrap();
    sync(&[&alice, &bob]).await;
    for reader in [bob.identity, dora] {
        assert_eq!(texts_of(&bob, reader), ["one", "two"]);
    }
    assert_eq!(texts_of(&bob, eve), [""; 0]);

    alice.add_member(talk, eve).unwrap();
    alice.remove_member(talk, dora).unwrap();
    alice.say(talk, "three").unwrap();
    sync(&[&alice, &bob]).await;
    assert_eq!(texts_of(&bob, eve), ["one", "two", "three"]);
    assert_eq!(texts_of(&bob, dora), ["one", "two"]);
    bob.leave_talk(talk, bob.identity).unwrap();
    sync(&[&alice, &bob]).await;
    alice.say(talk, "four").unwrap();
    sync(&[&alice, &bob]).await;
    assert_eq!(texts_of(&bob, eve), ["one", "two", "three", "four"]);
    assert_eq!(texts_of(&bob, bob.identity), ["one", "two", "three"]);
    assert_eq!(alice.standings(talk), bob.standings(talk));
    stop([alice, bob]).await;
}

#[tokio::test]
async fn three_members_on_three_nodes_are_joined_by_a_late_one() {
    let net = MemoryNet::new();
    let (alice, bob, carol) = (
        LiveNode::start(&net, "Alice", 1),
        LiveNode::start(&net, "Bob", 2),
        LiveNode::start(&net, "Carol", 3),
    );
    bob.meet(&alice).await;
    carol.meet(&alice).await;
    carol.meet(&bob).await;
    let nodes = [&alice, &bob, &carol];
    let dora = bob.another("Dora", 11);
    sync(&nodes).await;
    let talk = alice.found(&[bob.identity, dora], "Hiking");
    for text in ["one", "two"] {
        alice.say(talk, text).unwrap();
        sync(&nodes).await;
        bob.say(talk, &format!("{text} from Bob")).unwrap();
        sync(&nodes).await;
    }
    assert!(carol.card(talk).is_none() && carol.inbox().is_empty());

    // The late member reads what both other nodes wrote before.
    alice.add_member(talk, carol.identity).unwrap();
    sync(&nodes).await;
    let (mut late, mut all) = (carol.bodies(), alice.bodies());
    late.sort();
    all.sort();
    assert_eq!(late, all);
    carol.say(talk, "here I am").unwrap();
    sync(&nodes).await;
    assert!(bob.bodies().contains(&"here I am".to_owned()));

    alice.remove_member(talk, carol.identity).unwrap();
    sync(&nodes).await;
    let before = carol.bodies();
    alice.say(talk, "without Carol").unwrap();
    bob.say(talk, "without Carol too").unwrap();
    sync(&nodes).await;
    assert_eq!(carol.bodies(), before);
    assert_eq!(bob.bodies().len(), before.len() + 2);
    stop([alice, bob, carol]).await;
}

//! Waiting objects over sessions: what found no room arrives later.

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, Setup, conversation, message};
use postern::state_engine::CoreLimits;

fn node(net: &MemoryNet, name: &str, seed: u64, waiting_max: u64) -> LiveNode {
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = waiting_max;
    // A writer thread, which settles between its jobs.
    Setup::seeded(name, seed)
        .limits(limits)
        .readers(2)
        .live(net)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_sync_while_the_founder_is_away_lose_nothing() {
    let net = MemoryNet::new();
    let (alice, bob) = (node(&net, "Alice", 1, 1000), node(&net, "Bob", 2, 1000));
    let carol = node(&net, "Carol", 3, 5);
    bob.meet(&alice).await;
    carol.meet(&bob).await;
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice.make("messages", 1, conversation(&people)).unwrap();
    bob.pull_everything(&alice).await;
    for number in 0..20 {
        let text = format!("message {number}");
        bob.make("messages", 2, message(talk.oid, &text)).unwrap();
    }
    carol.pull_everything(&bob).await;
    assert_eq!((carol.texts().len(), carol.rows("waiting").len()), (0, 5));
    carol.meet(&alice).await;
    carol.pull_everything(&alice).await;
    // The writer thread settles by itself.
    while !carol.rows("waiting").is_empty() {
        tokio::task::yield_now().await;
    }
    carol.pull(&bob, "messages").await;
    assert_eq!(carol.texts().len(), 20);
    assert!(carol.rejects().is_empty());
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

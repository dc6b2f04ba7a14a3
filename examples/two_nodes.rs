//! Two nodes in one process, connected by memory pipes: handshake, first pull, new message, delta.
//!
//! Run with `cargo run --example two_nodes`. The transport is the only part that differs from two
//! nodes over onion services; `deploy/demo` shows those.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "an example ends at the first failed step"
)]

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, NO_MARKET, Setup};

#[tokio::main]
async fn main() {
    let net = MemoryNet::new();
    let alice = Setup::new("Alice").live(&net);
    // Bob's node has no market, so market domains are not in the intersection.
    let bob = Setup::new("Bob").apps(&NO_MARKET).live(&net);

    // Bob's node dials Alice's, solves its puzzle and is admitted. The claims of both carry their
    // identities.
    bob.meet(&alice).await;
    println!("admitted: {} and {}", alice.peer_id(), bob.peer_id());

    // A write gets one change_seq for all its rows. The pull delivers what Bob may read.
    alice.send(bob.identity, "Hi");
    pull(&bob, &alice).await;

    // The next pull starts at the cursor: only the new message travels.
    alice.send(bob.identity, "How are you?");
    pull(&bob, &alice).await;

    let texts: Vec<_> = bob.texts().into_iter().map(|(_, text)| text).collect();
    println!("Bob's inbox: {texts:?}");
    assert_eq!(texts, ["Hi", "How are you?"]);

    alice.stop().await;
    bob.stop().await;
}

/// Pulls the domain `messages` and prints the windows of the packages.
async fn pull(to: &LiveNode, from: &LiveNode) {
    for outcome in to.pull(from, "messages").await {
        if let Some(window) = outcome.window {
            println!(
                "package {}..{}: {} objects written",
                window.from_seq, window.to_seq, outcome.applied.written
            );
        }
    }
}

//! Nodes whose key chain forks from the known one.
//!
//! The thief of a key signs that key's event again, with a commitment to a key of the thief.

use bastion::transport::memory::MemoryNet;
use bastion::{HandshakeError, RefusalCode};
use harness::raw_client::RawClient;
use harness::{LiveNode, Setup, manual_sync};
use keys::{Oid, PublicKey};
use postern::peer::PeerDialError;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

const GENUINE: u64 = 11;
const FORK: u64 = 12;

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    Setup::seeded(name, seed).sync(manual_sync()).live(net)
}

/// The node of one seed after rotations, each of which commits to the next key of `seed`.
fn rotated(times: usize, seed: u64) -> RawClient {
    let (client, mut rng) = (RawClient::new(9), rng(seed));
    for _ in 0..times {
        let server = client.keys.server_oid();
        client.keys.rotate(server, &mut rng).unwrap();
    }
    client
}

fn current(client: &RawClient) -> PublicKey {
    client.keys.node_chain().verify().unwrap().current()
}

fn known_key(node: &LiveNode, server: Oid) -> (u32, PublicKey) {
    let row = node.read(move |view| view.rows.identity(&server)).unwrap();
    (row.key_id, row.public_key)
}

async fn is_refused(net: &MemoryNet, client: &RawClient, node: &LiveNode) {
    let before = known_key(node, client.keys.server_oid());
    let sessions = node.peers.registry().sessions().len();
    let refused = client.dial(net, node).await.err();
    assert!(
        matches!(
            refused,
            Some(HandshakeError::Refused {
                code: RefusalCode::Signature,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(node.peers.registry().sessions().len(), sessions);
    assert_eq!(known_key(node, client.keys.server_oid()), before);
}

/// A node that knows the chain of the client after one rotation.
async fn knowing(net: &MemoryNet) -> LiveNode {
    let (alice, genuine) = (node(net, "Alice", 1), rotated(1, GENUINE));
    let session = genuine.dial(net, &alice).await.unwrap();
    alice.wait_for_session(&genuine.peer_id()).await;
    drop(session);
    alice.wait_for_session_end(&genuine.peer_id()).await;
    alice
}

#[tokio::test]
async fn fork_with_the_same_current_key_is_refused() {
    let net = MemoryNet::new();
    let alice = knowing(&net).await;
    let fork = rotated(1, FORK);
    assert_eq!(current(&fork), current(&rotated(1, GENUINE)));
    is_refused(&net, &fork, &alice).await;
    alice.stop().await;
}

#[tokio::test]
async fn longer_fork_after_a_rotation_is_refused_without_an_error_line() {
    let net = MemoryNet::new();
    let alice = knowing(&net).await;
    // Refused by the gate, before anything is stored: an error line comes from storing only.
    is_refused(&net, &rotated(2, FORK), &alice).await;
    alice.stop().await;
}

#[tokio::test]
async fn shorter_and_continued_chains_as_before() {
    let net = MemoryNet::new();
    let alice = knowing(&net).await;
    is_refused(&net, &rotated(0, GENUINE), &alice).await;
    let later = rotated(3, GENUINE);
    let session = later.dial(&net, &alice).await.unwrap();
    alice.wait_for_session(&later.peer_id()).await;
    let server = later.keys.server_oid();
    assert_eq!(known_key(&alice, server), (3, current(&later)));
    drop(session);
    alice.stop().await;
}

#[tokio::test]
async fn dialled_node_with_a_forked_chain_gets_no_session() {
    let net = MemoryNet::new();
    let (alice, bob) = (node(&net, "Alice", 1), node(&net, "Bob", 2));
    let server = alice.keys.server_oid();
    alice.rotate_with(server, &mut rng(GENUINE)).unwrap();
    bob.meet(&alice).await;
    let known = known_key(&bob, server);
    let over = bob.peers.registry().session_at(&alice.onion()).unwrap();
    alice.stop().await;
    over.cancelled().await;
    for rotations in 1..=2 {
        let fork = node(&net, "Alice", 1);
        let mut rng = rng(FORK);
        for _ in 0..rotations {
            fork.rotate_with(server, &mut rng).unwrap();
        }
        let dialled = bob.dialler.dial(&fork.onion(), &|_| {}).await;
        assert!(
            matches!(dialled, Err(PeerDialError::ChainForked)),
            "{rotations}: {dialled:?}"
        );
        assert!(!bob.has_session(&fork.peer_id()));
        assert_eq!(known_key(&bob, server), known);
        fork.stop().await;
    }
    bob.stop().await;
}

//! Relay over live sessions: members of a conversation get its messages from each other.

use bastion::transport::memory::MemoryNet;
use bastion::{Features, GateConfig};
use harness::forge::stub_of;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, Wiring, conversation, manual_sync, message};
use keys::{Oid, SignedObject, codec};
use postern::config::SyncConfig;
use postern::peer::SyncError;
use postern::peer::message::{Fetch, FetchedBatch, PackageBody, SessionMessage};
use postern::state_engine::Package;

const MESSAGES: &str = "messages";
const OFFERS: &str = "rides.offers";

fn sync() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 30,
        pull_wait_s: 60,
        ..manual_sync()
    }
}

/// A node that offers every feature.
fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    let plain = Wiring::plain(net);
    let gate = GateConfig {
        features: Features::from_iter(bastion::Feature::ALL),
        ..plain.gate
    };
    let setup = Setup::seeded(name, seed).sync(sync());
    setup.live_over(Wiring { gate, ..plain })
}

async fn wait_for_text(node: &LiveNode, from: Oid, text: &str) {
    let mut changes = node.engine.changes();
    while !node.texts().contains(&(from, text.to_owned())) {
        changes.changed().await.unwrap();
    }
}

async fn wait_for_parent(node: &LiveNode, oid: Oid) {
    let mut changes = node.engine.changes();
    while node.parent(MESSAGES, oid).is_none() {
        changes.changed().await.unwrap();
    }
}

/// Alice and Carol, whose nodes never meet, both meet Bob, who founds a conversation of all three.
async fn chain(net: &MemoryNet) -> ([LiveNode; 3], Oid) {
    let [alice, bob, carol] =
        [("Alice", 1), ("Bob", 2), ("Carol", 4)].map(|(name, seed)| node(net, name, seed));
    alice.meet(&bob).await;
    carol.meet(&bob).await;
    alice.pull_everything(&bob).await;
    bob.pull_everything(&alice).await;
    bob.pull_everything(&carol).await;
    let people = [bob.identity, alice.identity, carol.identity];
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    wait_for_parent(&alice, talk).await;
    wait_for_parent(&carol, talk).await;
    ([alice, bob, carol], talk)
}

#[tokio::test]
async fn message_passes_through_a_member_at_once() {
    let net = MemoryNet::new();
    let ([alice, bob, carol], talk) = chain(&net).await;
    for (from, to) in [(&alice, &carol), (&carol, &alice)] {
        let text = format!("from {}", from.identity.to_hex());
        from.make(MESSAGES, 2, message(talk, &text)).unwrap();
        wait_for_text(to, from.identity, &text).await;
    }
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn members_that_all_meet_get_every_message() {
    let net = MemoryNet::new();
    let ([alice, bob, carol], talk) = chain(&net).await;
    carol.meet(&alice).await;
    carol.pull_everything(&alice).await;
    alice.pull_everything(&carol).await;
    let nodes = [&alice, &bob, &carol];
    for round in 0..3 {
        for from in nodes {
            let text = format!("{round} of {}", from.identity.to_hex());
            from.make(MESSAGES, 2, message(talk, &text)).unwrap();
            for to in nodes {
                wait_for_text(to, from.identity, &text).await;
            }
        }
    }
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

fn fetch(id: u64, oids: Vec<Oid>) -> SessionMessage {
    SessionMessage::Fetch(Fetch {
        id,
        oids,
        domain: OFFERS.into(),
        records: false,
    })
}

#[tokio::test]
async fn object_that_a_peer_may_not_read_looks_like_one_that_does_not_exist() {
    let net = MemoryNet::new();
    let alice = node(&net, "Alice", 1);
    let talk = alice.make(
        MESSAGES,
        1,
        conversation(&[alice.identity, Oid::from_bytes([9; 16])]),
    );
    let talk = talk.unwrap().oid;
    let mut session = RawClient::relaying(9).dial(&net, &alice).await.unwrap();
    send(
        &mut session,
        &fetch(1, vec![talk, Oid::from_bytes([7; 16])]),
    )
    .await;
    let reply = loop {
        match receive(&mut session).await.unwrap() {
            SessionMessage::Fetched(reply) => break reply,
            _ => continue,
        }
    };
    assert_eq!(reply.looked_up, 2);
    assert_eq!(reply.objects().unwrap(), []);
    alice.stop().await;
}

#[tokio::test]
async fn fetch_without_the_feature_ends_the_session() {
    let net = MemoryNet::new();
    let alice = node(&net, "Alice", 1);
    let mut session = RawClient::new(9).dial(&net, &alice).await.unwrap();
    send(&mut session, &fetch(1, vec![Oid::from_bytes([7; 16])])).await;
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    alice.stop().await;
}

/// Pulls from a client that answers with an invented stub, and the fetch with `objects`. Returns
/// the result, and how often the node fetched.
async fn pull_invented(
    looked_up: u32,
    objects: impl FnOnce(&LiveNode) -> Vec<SignedObject>,
) -> (Result<u64, SyncError>, usize) {
    let net = MemoryNet::new();
    let alice = node(&net, "Alice", 1);
    let client = RawClient::relaying(9);
    let mut session = client.dial(&net, &alice).await.unwrap();
    alice.wait_for_session(&client.peer_id()).await;
    let body = codec::encode(&objects(&alice));
    let epoch = harness::profile::EPOCH;
    let unknown = Oid::from_bytes([7; 16]);
    let package = Package {
        version: 1,
        sender: client.peer_id(),
        recipient: alice.peer_id(),
        domain: OFFERS.into(),
        epoch,
        from_seq: 0,
        to_seq: 5,
        more: false,
        scopes: Some(Vec::new()),
        stubs: Some(stub_of(unknown, unknown, unknown)),
        objects: Vec::new(),
    };
    let features = Features::from_iter([bastion::Feature::Relay]);
    let package = package.sign(&client.keys, &features);
    let mut fetches = 0;
    let peer = client.peer_id();
    let pulling = alice.peers.pull(&peer, OFFERS);
    let answering = async {
        loop {
            let reply = match receive(&mut session).await {
                Some(SessionMessage::Pull(pull)) if pull.domain == OFFERS => {
                    SessionMessage::Package(PackageBody {
                        id: pull.id,
                        body: package.clone(),
                    })
                }
                Some(SessionMessage::Fetch(fetch)) => {
                    fetches += 1;
                    SessionMessage::Fetched(FetchedBatch {
                        id: fetch.id,
                        body: body.clone(),
                        looked_up,
                    })
                }
                Some(_) => continue,
                None => return,
            };
            send(&mut session, &reply).await;
        }
    };
    let pulled = tokio::select! {
        pulled = pulling => pulled,
        () = answering => panic!("the session ended"),
    };
    let last_seq = pulled.map(|outcomes| outcomes[0].applied.last_seq);
    alice.stop().await;
    (last_seq, fetches)
}

#[tokio::test]
async fn stub_of_an_object_that_its_sender_lacks_is_passed() {
    let (pulled, fetches) = pull_invented(1, |_| Vec::new()).await;
    assert_eq!(pulled.unwrap(), 5);
    assert_eq!(fetches, 2, "the owner's record, and the object");
}

#[tokio::test]
async fn answer_that_was_not_fetched_is_refused_and_the_cursor_stays() {
    let other = |alice: &LiveNode| {
        let oid = alice.make(
            MESSAGES,
            1,
            conversation(&[alice.identity, Oid::from_bytes([9; 16])]),
        );
        vec![alice.object(MESSAGES, oid.unwrap().oid).unwrap().1]
    };
    let (pulled, _) = pull_invented(1, other).await;
    assert!(matches!(pulled, Err(SyncError::Session(_))), "{pulled:?}");
    // The first fetch asks for the record of the owner, and not for this one.
    let record = |alice: &LiveNode| vec![alice.object("identities", alice.identity).unwrap().1];
    let (pulled, fetches) = pull_invented(1, record).await;
    assert!(matches!(pulled, Err(SyncError::Session(_))), "{pulled:?}");
    assert_eq!(fetches, 1);
    for looked_up in [0, 2] {
        let (pulled, _) = pull_invented(looked_up, |_| Vec::new()).await;
        assert!(matches!(pulled, Err(SyncError::Session(_))), "{pulled:?}");
    }
}

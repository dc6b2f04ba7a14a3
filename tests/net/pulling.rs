//! The pulls of a session with a client that answers by hand: their order, and what follows a
//! failure.

use std::collections::BTreeMap;

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use harness::raw_client::{RawClient, receive, send};
use harness::{LiveNode, Setup, manual_sync};
use keys::Epoch;
use postern::config::SyncConfig;
use postern::peer::message::{IdOnly, Pull, RequestRefusal, SessionMessage, UpToDate};

/// Rounds of ping and pong, in which every task of the node runs.
const ROUNDS: u64 = 10;

/// A node that pulls every second, and an admitted client.
async fn node_and_client(net: &MemoryNet) -> (LiveNode, Session) {
    let sync = SyncConfig {
        pull_interval_s: 1,
        ..manual_sync()
    };
    let node = Setup::seeded("Alice", 1).sync(sync).live(net);
    let client = RawClient::new(9).dial(net, &node).await.unwrap();
    (node, client)
}

async fn next_pull(client: &mut Session) -> Pull {
    loop {
        if let SessionMessage::Pull(pull) = receive(client).await.unwrap() {
            return pull;
        }
    }
}

/// The domains of the pulls that come while the node answers pings.
async fn pulled_meanwhile(client: &mut Session) -> Vec<String> {
    let mut pulled = Vec::new();
    for id in 1..=ROUNDS {
        send(client, &SessionMessage::Ping(IdOnly { id })).await;
        loop {
            match receive(client).await.unwrap() {
                SessionMessage::Pull(pull) => pulled.push(pull.domain),
                SessionMessage::Pong(pong) if pong.id == id => break,
                _ => {}
            }
        }
    }
    pulled
}

async fn answer_up_to_date(client: &mut Session, pull: &Pull) {
    let answer = UpToDate {
        id: pull.id,
        epoch: Epoch::from_bytes([9; 16]),
        last_seq: pull.last_seq,
    };
    send(client, &SessionMessage::UpToDate(answer)).await;
}

#[tokio::test]
async fn first_requests_of_a_session_are_for_identities() {
    let net = MemoryNet::new();
    let (node, mut client) = node_and_client(&net).await;
    let first = next_pull(&mut client).await;
    assert_eq!(first.domain, "identities");
    let meanwhile = pulled_meanwhile(&mut client).await;
    assert_eq!(meanwhile, Vec::<String>::new(), "before the answer");
    answer_up_to_date(&mut client, &first).await;
    while next_pull(&mut client).await.domain != "rides.offers" {}
    node.stop().await;
}

#[tokio::test]
async fn pulling_goes_on_after_a_refused_pull() {
    let net = MemoryNet::new();
    let (node, mut client) = node_and_client(&net).await;
    let mut refused = BTreeMap::<String, usize>::new();
    let shared = ["identities", "rides.offers"];
    while shared
        .iter()
        .any(|domain| refused.get(*domain).is_none_or(|count| *count < 2))
    {
        let pull = next_pull(&mut client).await;
        let refusal = RequestRefusal {
            id: pull.id,
            code: "internal".into(),
            last_seq: None,
        };
        send(&mut client, &SessionMessage::Refused(refusal)).await;
        *refused.entry(pull.domain).or_default() += 1;
    }
    node.stop().await;
}

//! Sessions in which one request watches all domains, and sessions of nodes that differ in that.

use bastion::transport::memory::MemoryNet;
use bastion::{Feature, Features, GateConfig, Session};
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, NO_MARKET, Setup, Wiring, manual_sync};
use postern::config::SyncConfig;
use postern::peer::message::{DomainKey, IdOnly, SessionMessage, UpToDate, Watch};

/// Rounds of ping and pong, in which every task of the node runs.
const ROUNDS: u64 = 10;

fn live_sync() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 30,
        pull_wait_s: 60,
        ..manual_sync()
    }
}

/// A node that offers to watch.
fn watching(net: &MemoryNet, setup: Setup) -> LiveNode {
    let plain = Wiring::plain(net);
    let gate = GateConfig {
        features: Features::from_iter([Feature::Watch]),
        ..plain.gate
    };
    setup.sync(live_sync()).live_over(Wiring { gate, ..plain })
}

fn watch(id: u64, alice: &LiveNode) -> SessionMessage {
    let cursors = [(DomainKey("identities".into()), alice.head())];
    SessionMessage::Watch(Watch {
        id,
        epoch: Some(alice.engine.context().epoch),
        wait_s: 60,
        cursors: cursors.into(),
    })
}

/// The requests that come while the node answers pings.
async fn requests_meanwhile(client: &mut Session) -> Vec<SessionMessage> {
    let mut requests = Vec::new();
    for id in 1..=ROUNDS {
        send(client, &SessionMessage::Ping(IdOnly { id })).await;
        loop {
            match receive(client).await.unwrap() {
                SessionMessage::Pong(pong) if pong.id == id => break,
                message => requests.push(message),
            }
        }
    }
    requests
}

#[tokio::test]
async fn idle_session_has_one_waiting_request() {
    let net = MemoryNet::new();
    let alice = watching(&net, Setup::seeded("Alice", 1));
    let client = RawClient::watching(9);
    let mut session = client.dial(&net, &alice).await.unwrap();
    let mut pulled = Vec::new();
    let watch = loop {
        match receive(&mut session).await.unwrap() {
            SessionMessage::Pull(pull) => {
                assert_eq!(pull.wait_s, 0);
                let reply = UpToDate {
                    id: pull.id,
                    epoch: harness::profile::EPOCH,
                    last_seq: pull.last_seq,
                };
                send(&mut session, &SessionMessage::UpToDate(reply)).await;
                pulled.push(pull.domain);
            }
            SessionMessage::Watch(watch) => break watch,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pulled, ["identities"]);
    let watched: Vec<_> = watch
        .cursors
        .keys()
        .map(|domain| domain.0.as_str())
        .collect();
    assert_eq!(watched, ["identities", "rides.offers"]);
    assert_eq!(requests_meanwhile(&mut session).await, []);
    alice.stop().await;
}

#[tokio::test]
async fn nodes_with_and_without_watch_sync() {
    let net = MemoryNet::new();
    let alice = watching(&net, Setup::seeded("Alice", 1));
    let bob = watching(&net, Setup::seeded("Bob", 2).apps(&NO_MARKET));
    let carol = Setup::seeded("Carol", 4).sync(live_sync()).live(&net);
    let nodes = [&alice, &bob, &carol];
    bob.meet(&alice).await;
    carol.meet(&alice).await;
    carol.meet(&bob).await;
    for round in 0..3 {
        for from in nodes {
            for to in nodes {
                if from.identity == to.identity {
                    continue;
                }
                let mut changes = to.engine.changes();
                let text = format!("{round} of {}", from.identity.to_hex());
                from.send(to.identity, &text);
                while !to.texts().contains(&(from.identity, text.clone())) {
                    changes.changed().await.unwrap();
                }
            }
        }
    }
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

#[tokio::test]
async fn watch_is_answered_with_news() {
    let net = MemoryNet::new();
    let alice = watching(&net, Setup::seeded("Alice", 1));
    let client = RawClient::watching(9);
    let mut session = client.dial(&net, &alice).await.unwrap();
    alice.wait_for_session(&client.peer_id()).await;
    let request = watch(1, &alice);
    send(&mut session, &request).await;
    let identity = alice.identity;
    alice
        .graph(move |graph| {
            postern::services::identities::publish(graph, identity, Some("Alice again"))
        })
        .unwrap();
    loop {
        match receive(&mut session).await.unwrap() {
            SessionMessage::Package(package) => break assert_eq!(package.id, 1),
            SessionMessage::Pull(_) => {}
            other => panic!("{other:?}"),
        }
    }
    alice.stop().await;
}

#[tokio::test]
async fn watch_without_the_feature_ends_the_session() {
    let net = MemoryNet::new();
    let alice = watching(&net, Setup::seeded("Alice", 1));
    let client = RawClient::new(9);
    let mut session = client.dial(&net, &alice).await.unwrap();
    send(&mut session, &watch(1, &alice)).await;
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    alice.stop().await;
}

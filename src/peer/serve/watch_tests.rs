//! Tests of the replies to `watch`, over a core with a temporary database.

use std::sync::Arc;

use bastion::Tier;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::config::SyncConfig;
use crate::peer::message::{DomainKey, IdOnly, Watch};
use crate::peer::processor_budget::ProcessorBudget;
use crate::peer::receive::{ArrivedPackage, Requested};
use crate::peer::testing::{DOMAIN, TestCore, manual, watching_info};
use crate::state_engine::{CoreLimits, PackageLimits, Quotas};
use crate::store::Direction;

const IDENTITIES: &str = "identities";

/// A node, a peer that watches it, and what the replies of their session share.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    server: RequestServer,
    turns: Arc<ReplyTurns>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with_limits(CoreLimits::default()).await
    }

    async fn with_limits(limits: CoreLimits) -> Self {
        let (node, peer) = (TestCore::with_limits(1, limits), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let server = RequestServer::new(node.core.clone(), &manual());
        Self {
            node,
            peer,
            server,
            turns: Arc::default(),
        }
    }

    /// The reply to a watch of these cursors.
    async fn reply(&self, cursors: &[(&str, u64)], wait_s: u32) -> SessionMessage {
        self.reply_later(cursors, wait_s).await.unwrap()
    }

    fn reply_later(&self, cursors: &[(&str, u64)], wait_s: u32) -> JoinHandle<SessionMessage> {
        let (server, turns) = (self.server.clone(), self.turns.clone());
        let session = watching_info(self.peer.peer_id());
        let request = watch(&self.node, cursors, wait_s);
        tokio::spawn(async move { server.reply(&session, request, &turns).await.message })
    }

    /// The domain of the package that a watch gets.
    async fn domain(&self, cursors: &[(&str, u64)]) -> String {
        self.domain_of(self.reply(cursors, 0).await).await
    }

    async fn domain_of(&self, reply: SessionMessage) -> String {
        let SessionMessage::Package(package) = reply else {
            panic!("{reply:?}")
        };
        let budget = ProcessorBudget::new(Quotas::default());
        let session = watching_info(self.node.peer_id());
        let requested = Requested::Nothing;
        let arrived =
            ArrivedPackage::verify(&self.peer.core, &budget, &session, requested, &package.body);
        arrived.await.unwrap().domain().to_owned()
    }

    /// The number up to which the peer is recorded to have acknowledged a domain.
    async fn acked(&self, domain: &'static str) -> Option<u64> {
        let peer = self.peer.peer_id();
        let state = self
            .node
            .core
            .read(move |view| view.cursor(&peer, domain, Direction::Out));
        state.await.unwrap().map(|state| state.acked_seq)
    }

    /// Changes the node's public identity.
    async fn rename(&self) {
        let identity = self.node.identity;
        let rename = move |graph: &mut crate::graph::GraphManager<'_>| {
            graph.save_identity(identity, Some("Other"))
        };
        self.node.core.graph(rename).await.unwrap();
    }
}

/// A watch in the epoch of `node`.
fn watch(node: &TestCore, cursors: &[(&str, u64)], wait_s: u32) -> SessionMessage {
    let cursors = cursors.iter();
    SessionMessage::Watch(Watch {
        id: 7,
        epoch: Some(node.epoch()),
        wait_s,
        cursors: cursors
            .map(|(domain, last_seq)| (DomainKey((*domain).to_owned()), *last_seq))
            .collect(),
    })
}

fn unchanged() -> SessionMessage {
    SessionMessage::Unchanged(IdOnly { id: 7 })
}

#[tokio::test(start_paused = true)]
async fn watch_answers_with_the_domain_that_changed() {
    let fixture = Fixture::new().await;
    let head = fixture.node.head().await;
    let cursors = [(IDENTITIES, head), (DOMAIN, head)];
    let start = Instant::now();
    assert_eq!(fixture.reply(&cursors, u32::MAX).await, unchanged());
    assert_eq!(start.elapsed().as_secs(), PULL_WAIT_S_MAX);
    let waiting = fixture.reply_later(&cursors, 60);
    tokio::task::yield_now().await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let reply = waiting.await.unwrap();
    assert_eq!(fixture.domain_of(reply).await, DOMAIN);
    assert_eq!(start.elapsed().as_secs(), PULL_WAIT_S_MAX, "at once");
    assert_eq!(fixture.acked(DOMAIN).await, Some(head));
    let waiting = fixture.reply_later(&[(IDENTITIES, head), (DOMAIN, head + 1)], 60);
    tokio::task::yield_now().await;
    fixture.rename().await;
    assert_eq!(fixture.domain_of(waiting.await.unwrap()).await, IDENTITIES);
    assert_eq!(fixture.acked(DOMAIN).await, Some(head + 1));
}

#[tokio::test(start_paused = true)]
async fn domains_take_turns() {
    let fixture = Fixture::new().await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let cursors = [(IDENTITIES, 0), (DOMAIN, 0)];
    for domain in [IDENTITIES, DOMAIN, IDENTITIES, DOMAIN] {
        assert_eq!(fixture.domain(&cursors).await, domain);
    }
}

#[tokio::test(start_paused = true)]
async fn second_watch_is_busy() {
    let fixture = Fixture::new().await;
    let head = fixture.node.head().await;
    let cursors = [(DOMAIN, head)];
    let first = fixture.reply_later(&cursors, 60);
    tokio::task::yield_now().await;
    let second = fixture.reply(&cursors, 60).await;
    assert_eq!(second, SessionMessage::Refused(refused(7, "busy")));
    assert_eq!(first.await.unwrap(), unchanged());
    assert_eq!(fixture.reply(&cursors, 60).await, unchanged());
}

#[tokio::test(start_paused = true)]
async fn watch_waits_for_nothing_while_all_waiting_permits_are_taken() {
    let mut fixture = Fixture::new().await;
    let config = SyncConfig {
        waiting_pulls_max: 0,
        ..manual()
    };
    fixture.server = RequestServer::new(fixture.node.core.clone(), &config);
    let start = Instant::now();
    let head = fixture.node.head().await;
    assert_eq!(fixture.reply(&[(DOMAIN, head)], 60).await, unchanged());
    assert_eq!(start.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn unshared_domains_look_empty() {
    let fixture = Fixture::new().await;
    let start = Instant::now();
    let unshared = [("contacts", 0), ("unknown", 5)];
    assert_eq!(fixture.reply(&unshared, 20).await, unchanged());
    assert_eq!(start.elapsed().as_secs(), 20, "the same wait");
    assert_eq!(fixture.acked("unknown").await, None);
    fixture.node.send_message(&fixture.peer, "hello").await;
    let cursors = [("contacts", 0), (DOMAIN, 0), ("unknown", 5)];
    assert_eq!(fixture.domain(&cursors).await, DOMAIN);
}

#[tokio::test(start_paused = true)]
async fn quiet_stretches_come_after_news() {
    let fixture = Fixture::new().await;
    let start = fixture.node.head().await;
    while fixture.node.head().await < start + 1024 {
        fixture.rename().await;
    }
    // The last package was of identities, so that messages are looked at first.
    let cursors = [(IDENTITIES, start), (DOMAIN, start)];
    *fixture.turns.watch.lock().await = Some(IDENTITIES.to_owned());
    assert_eq!(fixture.domain(&cursors).await, IDENTITIES);
    let head = fixture.node.head().await;
    let cursors = [(IDENTITIES, head), (DOMAIN, start)];
    assert_eq!(fixture.domain(&cursors).await, DOMAIN, "an empty package");
}

#[tokio::test(start_paused = true)]
async fn domain_that_cannot_be_built_is_skipped() {
    let limits = CoreLimits {
        package: PackageLimits {
            bytes_max: 3000,
            ..PackageLimits::default()
        },
        ..CoreLimits::default()
    };
    let fixture = Fixture::with_limits(limits).await;
    let long: &'static str = "x".repeat(4000).leak();
    fixture.node.send_message(&fixture.peer, long).await;
    // Messages are looked at first.
    *fixture.turns.watch.lock().await = Some(IDENTITIES.to_owned());
    assert_eq!(
        fixture.domain(&[(IDENTITIES, 0), (DOMAIN, 0)]).await,
        IDENTITIES
    );
    let head = fixture.node.head().await;
    let start = Instant::now();
    let cursors = [(IDENTITIES, head), (DOMAIN, 0)];
    assert_eq!(fixture.reply(&cursors, 20).await, unchanged());
    assert_eq!(start.elapsed().as_secs(), 20);
}

//! Tests of the watching task, against a scripted peer with a paused clock.

use bastion::Tier;
use futures::future::join;
use keys::{Oid, PeerId};
use tokio::task::JoinHandle;

use super::*;
use crate::config::SyncConfig;
use crate::peer::EndCode;
use crate::peer::again::keep_pulling_again;
use crate::peer::message::{IdOnly, PackageBody, Pull};
use crate::peer::session_testing::{RunningSession, run_session_of};
use crate::peer::testing::{DOMAIN, TestCore, manual, ping, pong, watching_info};
use crate::store::{PullAgainCause, PullAgainNote};

/// A node that watches a scripted peer.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    session: RunningSession,
    task: JoinHandle<()>,
}

impl Fixture {
    async fn new() -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let config = SyncConfig {
            pull_interval_s: 20,
            pull_wait_s: 30,
            has_jitter: false,
            ..manual()
        };
        let session = run_session_of(&node, watching_info(peer.peer_id()), &config);
        let context = session.context(&node, config, &[identities::DOMAIN, DOMAIN]);
        assert!(may_watch(&context));
        let task = tokio::spawn(async move {
            let identified = CancellationToken::new();
            let again = keep_pulling_again(&context, DOMAIN, &identified);
            join(keep_watching(&context, &identified), again).await;
        });
        Self {
            node,
            peer,
            session,
            task,
        }
    }

    /// A node that has pulled the identities.
    async fn watching() -> Self {
        let mut fixture = Self::new().await;
        let pull = fixture.session.peer.next_pull().await;
        fixture.up_to_date(&pull).await;
        fixture
    }

    async fn next_watch(&mut self) -> Watch {
        match self.session.peer.next().await {
            SessionMessage::Watch(watch) => watch,
            other => panic!("expected a watch, got {other:?}"),
        }
    }

    /// The messages that come before the node answers a ping.
    async fn meanwhile(&mut self) -> Vec<SessionMessage> {
        let mut messages = Vec::new();
        for id in 1000..1010 {
            self.session.peer.send(&ping(id)).await;
            loop {
                let message = self.session.peer.next().await;
                if message == pong(id) {
                    break;
                }
                messages.push(message);
            }
        }
        messages
    }

    async fn send(&mut self, message: SessionMessage) {
        self.session.peer.send(&message).await;
    }

    async fn up_to_date(&mut self, pull: &Pull) {
        let epoch = self.peer.epoch();
        self.session.peer.up_to_date(pull, epoch).await;
    }

    async fn unchanged(&mut self, watch: &Watch) {
        let reply = IdOnly { id: watch.id };
        self.send(SessionMessage::Unchanged(reply)).await;
    }

    async fn refuse(&mut self, watch: &Watch) {
        self.session.peer.refuse(watch.id, "busy").await;
    }

    /// The peer's package of what follows `last_seq` in a domain.
    async fn package(&self, domain: &str, last_seq: u64) -> Vec<u8> {
        let to = self.node.peer_id();
        let features = self.session.handle.features().clone();
        self.peer.package_for(to, features, domain, last_seq).await
    }

    /// Replies with the package of a domain that follows the watched cursor.
    async fn reply(&mut self, watch: &Watch, domain: &str) {
        let last_seq = cursor(watch, domain).unwrap();
        let body = self.package(domain, last_seq).await;
        let id = watch.id;
        self.send(SessionMessage::Package(PackageBody { id, body }))
            .await;
    }

    async fn rename_peer(&self) {
        let identity = self.peer.identity;
        let rename = move |graph: &mut crate::graph::GraphManager<'_>| {
            graph.save_identity(identity, Some("Other"))
        };
        self.peer.core.graph(rename).await.unwrap();
    }
}

/// The cursor of a domain in a watch; none if it is not watched.
fn cursor(watch: &Watch, domain: &str) -> Option<u64> {
    watch.cursors.get(&DomainKey(domain.to_owned())).copied()
}

#[tokio::test(start_paused = true)]
async fn identities_come_first() {
    let mut fixture = Fixture::new().await;
    let first = fixture.session.peer.next_pull().await;
    assert_eq!(
        (first.domain.as_str(), first.wait_s),
        (identities::DOMAIN, 0)
    );
    assert_eq!(fixture.meanwhile().await, [], "before the reply");
    fixture.up_to_date(&first).await;
    let watch = fixture.next_watch().await;
    assert_eq!(
        (watch.epoch, watch.wait_s),
        (Some(fixture.peer.epoch()), 30)
    );
    assert_eq!(cursor(&watch, identities::DOMAIN), Some(0));
    assert_eq!(cursor(&watch, DOMAIN), Some(0));
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.reply(&watch, DOMAIN).await;
    let watch = fixture.next_watch().await;
    assert_eq!(cursor(&watch, DOMAIN), Some(fixture.peer.head().await));
    fixture.session.handle.end(EndCode::End);
    fixture.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_failing_domain_stops_no_other() {
    let mut fixture = Fixture::watching().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    let watch = fixture.next_watch().await;
    fixture.reply(&watch, DOMAIN).await;
    let (watch, start) = (fixture.next_watch().await, Instant::now());
    let body = fixture.package(DOMAIN, 0).await;
    let id = watch.id;
    fixture
        .send(SessionMessage::Package(PackageBody { id, body }))
        .await;
    // A window that was applied before is a fault of that domain.
    let watch = fixture.next_watch().await;
    assert_eq!(cursor(&watch, DOMAIN), None);
    assert_eq!(watch.wait_s, 4, "until the domain may be asked again");
    fixture.rename_peer().await;
    fixture.reply(&watch, identities::DOMAIN).await;
    let watch = fixture.next_watch().await;
    let held = cursor(&watch, identities::DOMAIN);
    assert_eq!(held, Some(fixture.peer.head().await));
    assert_eq!(start.elapsed().as_secs(), 0);
    tokio::time::advance(Duration::from_secs(4)).await;
    fixture.unchanged(&watch).await;
    let watch = fixture.next_watch().await;
    assert!(cursor(&watch, DOMAIN).is_some());
    assert_eq!(start.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn sends_no_request_while_every_domain_backs_off() {
    let mut fixture = Fixture::watching().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.rename_peer().await;
    for domain in [DOMAIN, identities::DOMAIN] {
        let watch = fixture.next_watch().await;
        fixture.reply(&watch, domain).await;
    }
    let start = Instant::now();
    for domain in [DOMAIN, identities::DOMAIN] {
        let (watch, body) = (fixture.next_watch().await, fixture.package(domain, 0).await);
        let id = watch.id;
        fixture
            .send(SessionMessage::Package(PackageBody { id, body }))
            .await;
    }
    fixture.next_watch().await;
    assert_eq!(start.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn history_does_not_delay_news() {
    let mut fixture = Fixture::watching().await;
    let (peer, epoch): (PeerId, _) = (fixture.peer.peer_id(), fixture.peer.epoch());
    let note = fixture.node.core.write(move |core, now| {
        core.write(now, |graph| {
            let note = PullAgainNote {
                peer: &peer,
                domain: DOMAIN,
                scope: Some(Oid::from_bytes([7; 16])),
                epoch,
                until_seq: 100,
                cause: PullAgainCause::Named,
                is_again: false,
                is_own: true,
            };
            graph.tx().note_pull_again(&note, now)
        })
    });
    note.await.unwrap();
    let watch = fixture.next_watch().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.reply(&watch, DOMAIN).await;
    // The pull of history is sent, and not answered.
    let (mut again, mut watched) = (None, None);
    while again.is_none() || watched.is_none() {
        match fixture.session.peer.next().await {
            SessionMessage::Pull(pull) => again = Some(pull),
            SessionMessage::Watch(watch) => watched = Some(watch),
            other => panic!("{other:?}"),
        }
    }
    assert!(again.unwrap().again.is_some());
    fixture.peer.send_message(&fixture.node, "again").await;
    fixture.reply(&watched.unwrap(), DOMAIN).await;
    let watch = fixture.next_watch().await;
    assert_eq!(cursor(&watch, DOMAIN), Some(fixture.peer.head().await));
}

#[tokio::test(start_paused = true)]
async fn push_during_a_watch_is_no_fault() {
    let mut fixture = Fixture::watching().await;
    let watch = fixture.next_watch().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    let body = fixture.package(DOMAIN, 0).await;
    fixture
        .send(SessionMessage::Push(PackageBody { id: 1, body }))
        .await;
    let reply = fixture.session.peer.next().await;
    assert!(matches!(reply, SessionMessage::Ack(_)), "{reply:?}");
    fixture.reply(&watch, DOMAIN).await;
    let watch = fixture.next_watch().await;
    assert_eq!(cursor(&watch, DOMAIN), Some(fixture.peer.head().await));
}

#[tokio::test(start_paused = true)]
async fn package_of_a_domain_that_is_not_watched_is_a_fault_of_the_watch() {
    let mut fixture = Fixture::watching().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    let watch = fixture.next_watch().await;
    fixture.reply(&watch, DOMAIN).await;
    let repeated = fixture.package(DOMAIN, 0).await;
    for _ in 0..2 {
        let (watch, body) = (fixture.next_watch().await, repeated.clone());
        let id = watch.id;
        fixture
            .send(SessionMessage::Package(PackageBody { id, body }))
            .await;
    }
    let pull = fixture.session.peer.next_pull().await;
    assert_eq!(pull.domain, identities::DOMAIN, "the other backs off");
}

#[tokio::test(start_paused = true)]
async fn early_unchanged_is_followed_by_a_pause() {
    let mut fixture = Fixture::watching().await;
    let start = Instant::now();
    for round in 0..3 {
        let watch = fixture.next_watch().await;
        assert_eq!(start.elapsed().as_secs(), round);
        fixture.unchanged(&watch).await;
    }
    let watch = fixture.next_watch().await;
    tokio::time::advance(Duration::from_secs(30)).await;
    let start = Instant::now();
    fixture.unchanged(&watch).await;
    fixture.next_watch().await;
    assert_eq!(start.elapsed().as_secs(), 0, "the wait was over");
}

#[tokio::test(start_paused = true)]
async fn refused_watch_falls_back_to_pulls() {
    let mut fixture = Fixture::watching().await;
    let watch = fixture.next_watch().await;
    let start = Instant::now();
    fixture.refuse(&watch).await;
    let mut pulled = Vec::new();
    let watch = loop {
        match fixture.session.peer.next().await {
            SessionMessage::Pull(pull) => {
                assert!(pull.wait_s <= 4, "until the next watch: {}", pull.wait_s);
                fixture.up_to_date(&pull).await;
                pulled.push(pull.domain);
            }
            SessionMessage::Watch(watch) => break watch,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(start.elapsed().as_secs(), 4);
    for domain in [identities::DOMAIN, DOMAIN] {
        assert!(pulled.iter().any(|name| name == domain), "{pulled:?}");
        assert!(cursor(&watch, domain).is_some());
    }
}
